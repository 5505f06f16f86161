"""Masks for the eye: answers and errors on the best, the median and the worst images, and where answers differ most."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED
from distill.core.errors import DataError
from distill.core.overlay import IGNORED_COLOR, background, class_colors, overlay
from distill.data.decode import DecodeError, decode
from distill.data.mask_file import read_mask
from distill.data.views import fixed_view
from distill.report.extras import short
from distill.report.pictures import MASKS

if TYPE_CHECKING:
    from distill.core.types import ImageRecord
    from distill.data.views import Resize
    from distill.tasks._mask_answers import MaskAnswers

__all__ = ["COMPARED", "WRONG_COLOR", "draw_masks", "image_scores", "ranked"]

COMPARED: Final = 500
"""Images whose pixels are compared, so that the report of a large test set takes no longer: 2.5 ms each at 384x256."""

WRONG_COLOR: Final = (215, 30, 30)
"""Of pixels that are not answered as the truth says."""

_SIDE = 200  # pixels of a picture's longer side; five of them fill the width of the page
_TINT = 0.15  # of truth, so that the photo is seen

_Pixels = npt.NDArray[np.uint8]


def draw_masks(
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    said: Mapping[str, MaskAnswers],
    resize: Resize,
    max_megapixels: float,
    pictures: dict[str, bytes],
) -> dict[str, Any]:
    """Draw the images that one predictor answers best, middling and worst, each with everyone's answer.

    Args:
        records: with truth.
        classes: names, in the order of places.
        said: answers about these records by the name of who gave them; the last one chooses the images, and its errors
            are shown.
        resize: shape of the fixed view.
        max_megapixels: larger images are not opened.
        pictures: gets a JPEG for each panel.

    Returns:
        For `report.json`: `judged`, `classes` (places of those in the pictures), `untinted` (place of the one that is
        left clear, or None), `images`, each with `group`, `path` and its `panels` (`title`, `picture`, and `score` of
        this image, 0..1, or None), and `disagreements` (see `_disagreements`).
    """
    judged = list(said)[-1]
    known = {record.id: record for record in records}
    places = {name: {image: place for place, image in enumerate(answers.ids)} for name, answers in said.items()}
    scores = {name: image_scores(answers.counts) for name, answers in said.items()}
    found: set[int] = set()
    images = []
    for number, (group, place) in enumerate(ranked(scores[judged])):
        image = said[judged].ids[place]
        try:
            photo, truth = _scene(known[image], resize, max_megapixels)
        except (DecodeError, DataError):  # gone since it was scored
            continue
        masks = {name: answers.mask(places[name][image]) for name, answers in said.items()}
        drawn = _tinted(photo, truth, masks, classes)
        wrong = (truth != IGNORED) & (masks[judged] != truth)
        drawn[f"errors of {judged}"] = _marked(photo, truth == IGNORED, wrong)
        reached = {name: _number(scores[name][places[name][image]]) for name in said}
        panels = _kept(drawn, f"mask-{number}", pictures, reached)
        images.append({"group": group, "path": short(known[image].path), "panels": panels})
        found = found.union(*(np.unique(mask).tolist() for mask in (truth, *masks.values())))
    return {
        "judged": judged,
        "classes": sorted(found - {IGNORED}),
        "untinted": background(classes),
        "images": images,
        "disagreements": _disagreements(records, classes, said, places, resize, max_megapixels, pictures),
    }


def image_scores(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Mean IoU of each image over the classes that its truth or answer has; NaN where all is ignored.

    Args:
        counts: [N, C, C] pixels by image, truth and answer.

    Returns:
        float64 [N], 0..1.
    """
    right = np.diagonal(counts, axis1=1, axis2=2)
    either = counts.sum(axis=1) + counts.sum(axis=2) - right
    present = (either > 0).sum(axis=1)
    shares = right / np.maximum(either, 1)
    means: npt.NDArray[np.float64] = np.where(present > 0, shares.sum(axis=1) / np.maximum(present, 1), np.nan)
    return means


def ranked(scores: npt.NDArray[np.float64]) -> Iterator[tuple[str, int]]:
    """Up to three of the best, of the middle and of the worst images, no image twice.

    Args:
        scores: float64 [N]; images with NaN are left out.

    Yields:
        Group and place of an image; within a group the better ones first.
    """
    order = [int(place) for place in np.argsort(-scores, kind="stable") if not math.isnan(scores[place])]
    each = max(1, min(MASKS, len(order) // 3))
    best, rest = order[:each], order[each:]
    cut = max(0, len(rest) - each)
    between, worst = rest[:cut], rest[cut:]
    first = max(0, len(between) - each) // 2
    for group, chosen in (("best", best), ("median", between[first : first + each]), ("worst", worst)):
        for place in chosen:
            yield group, place


def _disagreements(
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    said: Mapping[str, MaskAnswers],
    places: Mapping[str, Mapping[str, int]],
    resize: Resize,
    max_megapixels: float,
    pictures: dict[str, bytes],
) -> dict[str, Any] | None:
    """How many pixels the predictors have right together or alone, and images in which two of them differ most.

    Args:
        records: with truth; of more than `COMPARED` some are taken evenly.
        classes: names, in the order of places.
        said: answers about these records by the name of who gave them; each is compared with the next.
        places: of images in the answers, by name and id.
        resize: shape of the fixed view.
        max_megapixels: larger images are not opened.
        pictures: gets a JPEG for each panel.

    Returns:
        For `report.json`: `predictors`, `compared` (images), `counts` (`right`, the names of those that are, and
        `pixels`), the most frequent first, and `pairs` of `names`, `share` (of all pixels, that they answer
        differently, 0..1) and `images` as of `draw_masks`, each with its own `share`. None of fewer than two,
        or where no truth is left.
    """
    if len(said) < 2:
        return None
    names = list(said)
    step = -(-len(records) // COMPARED)
    known: list[ImageRecord] = []
    right = np.zeros(1 << len(names), np.int64)
    differ: list[list[float]] = []
    pixels: list[int] = []
    for record in records[::step]:
        try:
            truth = _truth(record, resize)
        except DataError:  # gone since it was scored
            continue
        masks = [said[name].mask(places[name][record.id]) for name in names]
        hits = sum((mask == truth).astype(np.uint8) << bit for bit, mask in enumerate(masks))
        right += np.bincount(np.asarray(hits)[truth != IGNORED], minlength=len(right))
        differ.append([float((one != other).mean()) for one, other in pairwise(masks)])
        pixels.append(truth.size)
        known.append(record)
    if not known:
        return None
    shares = np.array(differ)
    pairs = []
    for number, pair in enumerate(pairwise(names)):
        worst = np.argsort(-shares[:, number], kind="stable")[:MASKS]
        images: list[dict[str, Any]] = []
        for place in worst.tolist():
            record = known[place]
            if shares[place, number] == 0:
                break
            named = f"differ-{number}-{len(images)}"
            two = {name: said[name].mask(places[name][record.id]) for name in pair}
            if panels := _difference(record, two, classes, resize, max_megapixels, named, pictures):
                images.append({"path": short(record.path), "panels": panels, "share": float(shares[place, number])})
        share = float(np.average(shares[:, number], weights=pixels))
        pairs.append({"names": list(pair), "share": share, "images": images})
    return {
        "predictors": names,
        "compared": len(known),
        "counts": [
            {"right": [name for bit, name in enumerate(names) if hits >> bit & 1], "pixels": int(right[hits])}
            for hits in np.argsort(-right, kind="stable").tolist()
            if right[hits]
        ],
        "pairs": pairs,
    }


def _difference(
    record: ImageRecord,
    two: Mapping[str, _Pixels],
    classes: Sequence[str],
    resize: Resize,
    max_megapixels: float,
    named: str,
    pictures: dict[str, bytes],
) -> list[dict[str, Any]]:
    """Panels of what two answered to an image, and where they differ; none where it is gone."""
    try:
        photo, truth = _scene(record, resize, max_megapixels)
    except (DecodeError, DataError):
        return []
    drawn = _tinted(photo, truth, two, classes)
    one, other = two.values()
    drawn["where they differ"] = _marked(photo, np.zeros_like(truth, bool), one != other)
    return _kept(drawn, named, pictures, {})


def _tinted(photo: _Pixels, truth: _Pixels, masks: Mapping[str, _Pixels], classes: Sequence[str]) -> dict[str, _Pixels]:
    """Panels by title: the photo under its truth, then under each answer."""
    colors, clear = class_colors(len(classes)), background(classes)
    drawn = {"photo and truth": overlay(photo, _scaled(truth, photo), colors, _TINT, clear=clear, outline=True)}
    for name, mask in masks.items():
        drawn[name] = overlay(photo, _scaled(mask, photo), colors, clear=clear, outline=True)
    return drawn


def _kept(
    drawn: Mapping[str, _Pixels], named: str, pictures: dict[str, bytes], scores: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Put panels to the pictures; what `report.json` says of them, with the scores that some have."""
    panels = []
    for column, (title, pixels) in enumerate(drawn.items()):
        pictures[f"{named}-{column}"] = _jpeg(pixels)
        panels.append({"title": title, "picture": f"{named}-{column}", "score": scores.get(title)})
    return panels


def _scene(record: ImageRecord, resize: Resize, max_megapixels: float) -> tuple[_Pixels, _Pixels]:
    """The fixed view of an image, scaled down for the page, uint8 [h, w, 3], and its truth as it is, uint8 [H, W]."""
    from PIL import Image

    view = fixed_view(record.width, record.height, resize)
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    scale = min(1.0, _SIDE / max(view.width, view.height))
    size = max(1, round(view.width * scale)), max(1, round(view.height * scale))
    photo = decode(record.path, max_megapixels).resize(size, Image.Resampling.BILINEAR, box=box)
    return np.asarray(photo), _truth(record, resize)


def _truth(record: ImageRecord, resize: Resize) -> _Pixels:
    """Of an image's fixed view, uint8 [H, W]."""
    view = fixed_view(record.width, record.height, resize)
    return read_mask(str(record.mask))[view.top : view.top + view.height, view.left : view.left + view.width]


def _scaled(mask: _Pixels, photo: _Pixels) -> _Pixels:
    """A mask at the size of its photo: the class at the middle of each pixel."""
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize(photo.shape[1::-1], Image.Resampling.NEAREST))


def _marked(photo: _Pixels, ignored: npt.NDArray[np.bool_], wrong: npt.NDArray[np.bool_]) -> _Pixels:
    """The photo in dark grey, wrong pixels in red; where it is scaled down, the redder the more of them are wrong."""
    grey = 40 + photo.astype(np.float32).mean(axis=2, keepdims=True).repeat(3, axis=2) / 2
    for colour, where in ((IGNORED_COLOR, ignored), (WRONG_COLOR, wrong)):
        share = _share(where, photo)
        grey += (np.array(colour, np.float32) - grey) * share[:, :, None]
    pixels: _Pixels = np.rint(grey).astype(np.uint8)
    return pixels


def _share(where: npt.NDArray[np.bool_], photo: _Pixels) -> npt.NDArray[np.float32]:
    """Share of each pixel of the photo that lies in an area, float32 [h, w], 0..1."""
    from PIL import Image

    area = Image.fromarray(where.astype(np.uint8) * 255).resize(photo.shape[1::-1], Image.Resampling.BOX)
    return np.asarray(area).astype(np.float32) / np.float32(255)


def _jpeg(pixels: _Pixels) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    # Without subsampling of colours, which blurs thin lines.
    Image.fromarray(pixels).save(stream, format="JPEG", quality=88, subsampling=0)
    return stream.getvalue()


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
