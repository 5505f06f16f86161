"""Which images set the ranges of an int8 file, and whether there are enough of them.

A range is an extreme over all calibration images, so what matters is that none of the kinds of image is missing: every
class, dark ones and bright ones. Classes are those a person named, else those the student answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from distill.core.progress import Progress
from distill.core.types import ImageRecord, Images
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, fixed_view
from distill.fake_quantization import measured_ranges
from distill.torch_predictor import Network

__all__ = ["LARGEST_GAP", "Calibrated", "CalibrationSet", "balanced", "choose", "gaps"]

LARGEST_GAP: Final = 0.2
"""Share of a tensor's range by which its ends may differ between two halves of the images."""

_CANDIDATES = 4  # times the images that are wanted: drawn at random, then looked at
_BATCH = 32
_GOLDEN = (5**0.5 - 1) / 2
_NAMED = 3  # tensors in a warning


@dataclass(frozen=True)
class Calibrated:
    """One image.

    Args:
        id: SHA-256 of the file's bytes.
        kind: its class, or of pixels the one that is most of it compared with the other images.
        brightness: mean of its pixels in the fixed view, 0..255.
    """

    id: str
    kind: str
    brightness: float


@dataclass(frozen=True)
class CalibrationSet:
    """The images that set the ranges.

    Args:
        images: in order of id.
        pixels: of each, uint8 [1, S, S, 3].
        gaps: share of its range by which each tensor differs between every second image and the others.
    """

    images: tuple[Calibrated, ...]
    pixels: tuple[Images, ...]
    gaps: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the pixels."""
        far = sorted(((gap, name) for name, gap in self.gaps.items() if gap > LARGEST_GAP), reverse=True)
        return {
            "images": [
                {"sha256": each.id, "class": each.kind, "brightness": round(each.brightness, 1)} for each in self.images
            ],
            "halves": {
                "largest_gap": LARGEST_GAP,
                "tensors": len(self.gaps),
                "beyond": {name.removeprefix("backbone."): round(gap, 3) for gap, name in far},
            },
        }

    def warning(self) -> str:
        """What is to be said where the halves do not agree; empty where they do."""
        beyond = self.as_dict()["halves"]["beyond"]
        if not beyond:
            return ""
        worst = ", ".join(f"{name} by {gap:.0%}" for name, gap in list(beyond.items())[:_NAMED])
        more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
        return (
            f"calibration: on one half of the {len(self.images)} images {len(beyond)} of {len(self.gaps)} tensors have"
            f" other ranges than on the other half ({worst}{more}): more images make the ranges safer"
            " (export.calibration_images)"
        )


def choose(
    student: Network,
    pool: Sequence[ImageRecord],
    cache: ImageCache,
    resize: Resize,
    *,
    count: int,
    seed: int,
    progress: Progress,
) -> CalibrationSet:
    """Choose images by class and brightness, and compare what two halves of them say of the ranges.

    Args:
        student: in evaluation mode.
        pool: images that may be taken; none of the test set.
        cache: gives them.
        resize: shape of the fixed view.
        count: images to choose; all where there are no more.
        seed: draws the candidates.
        progress: told of the candidates.
    """
    drawn = np.random.default_rng(seed).permutation(len(pool))[: _CANDIDATES * count]
    candidates = [pool[place] for place in sorted(drawn)]
    seen = _look(student, candidates, cache, resize, progress)
    kept = [candidates[place] for place in balanced([(each.kind, each.brightness) for each in seen], count)]
    known = {each.id: each for each in seen}
    shown = [[(record, (fixed_view(record.width, record.height, resize),))] for record in kept]
    pixels = tuple(iterate(cache, shown, student.image_size, workers=2))
    found = gaps(student, pixels)
    return CalibrationSet(tuple(known[record.id] for record in kept), pixels, found)


def balanced(kinds: Sequence[tuple[str, float]], count: int) -> list[int]:
    """Choose as many of each class as there are, and in each class from dark to bright.

    Args:
        kinds: class and brightness of each image.
        count: images to choose; all where there are no more.

    Returns:
        Their places in ascending order.
    """
    groups: dict[str, list[int]] = {}
    for place, (kind, _) in enumerate(kinds):
        groups.setdefault(kind, []).append(place)
    # Of more classes than images the largest; then the smallest first: what it cannot give, larger ones share.
    order = sorted(groups, key=lambda kind: (len(groups[kind]), kind))[-count:]
    chosen, left = list[int](), min(count, len(kinds))
    for number, kind in enumerate(order):
        members = sorted(groups[kind], key=lambda place: (kinds[place][1], place))
        share = min(len(members), -(-left // (len(order) - number)))
        # With one image a class, each class gives another brightness.
        begin = (0.5 + number * _GOLDEN) % 1
        chosen += [members[int((step + begin) * len(members) / share)] for step in range(share)]
        left -= share
    return sorted(chosen)


def gaps(student: Network, pixels: Sequence[Images]) -> dict[str, float]:
    """Share of its range by which the ends of each tensor differ between every second image and the others."""
    if len(pixels) < 2:
        return {}
    one, two = measured_ranges(student, pixels[::2]), measured_ranges(student, pixels[1::2])
    found = {}
    for name, (low, high) in one.items():
        other_low, other_high = two[name]
        whole = max(high, other_high) - min(low, other_low)
        found[name] = max(abs(low - other_low), abs(high - other_high)) / whole if whole > 0 else 0.0
    return found


def _look(
    student: Network, candidates: Sequence[ImageRecord], cache: ImageCache, resize: Resize, progress: Progress
) -> list[Calibrated]:
    """Class and brightness of each candidate."""
    shown = [(record, (fixed_view(record.width, record.height, resize),)) for record in candidates]
    batches = [shown[start : start + _BATCH] for start in range(0, len(shown), _BATCH)]
    brightness, shares = list[float](), list[torch.Tensor]()
    with torch.no_grad(), progress.task("choosing calibration images", len(candidates)) as task:
        for images in iterate(cache, batches, student.image_size, workers=2):
            brightness += [float(image.mean(dtype=np.float64)) for image in images]
            # Pillow hands out read-only arrays, which torch cannot hold: these are copied
            answers = student(torch.from_numpy(np.require(images, requirements="W")))
            said = torch.nn.functional.one_hot(answers.argmax(dim=1), answers.shape[1]).float()
            shares.append(said.mean(dim=(1, 2)) if said.ndim == 4 else said)
            task.advance(len(images))
    together = torch.cat(shares)
    # Compared with the other images: of one class an image that is its class, of pixels what is rare elsewhere.
    unusual = (together / together.mean(dim=0).clamp_min(1e-9)).argmax(dim=1).tolist()
    return [
        Calibrated(record.id, record.label or student.class_names[place], bright)
        for record, place, bright in zip(candidates, unusual, brightness, strict=True)
    ]
