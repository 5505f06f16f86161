"""Truth by pixel from files of every kind to grey PNGs of places of classes: what the stage `data` does with masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.config import DataSettings
from distill.core.dense import IGNORED
from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.threads import in_order
from distill.data.candidate import MaskError, MaskSource, first_of
from distill.data.coco import read_coco
from distill.data.drawing import Drawing, draw
from distill.data.labelme import BACKGROUND, read_labelme
from distill.data.legend import Legend, read_labelmap
from distill.data.mask_file import save_mask
from distill.data.mask_image import read_mask_image, survey, turn_that_fits, turned

__all__ = ["MOST_CLASSES", "Mask", "Wanted", "class_names", "kept_mask", "write_masks"]

MOST_CLASSES = 255
"""Places 0 to 254; 255 is ignored."""

_SURVEYED = 200
_TOLD = 20


class Wanted(NamedTuple):
    """A mask to be written.

    Args:
        source: the truth.
        image: path of its image.
        width: of the upright image.
        height: of the upright image.
    """

    source: MaskSource
    image: str
    width: int
    height: int


class Mask(NamedTuple):
    """A mask that was written.

    Args:
        key: SHA-256 of its size and pixels: name of its file, `<key>.png`.
        pixels: how many there are of each class.
    """

    key: str
    pixels: tuple[int, ...]


def write_masks(
    wanted: Sequence[Wanted], settings: DataSettings, folder: Path, progress: Progress
) -> tuple[tuple[str, ...], list[Mask]]:
    """Turn truth into masks of the upright images' sizes: grey 8-bit PNGs of places of classes, 255 ignored.

    Args:
        wanted: truth and its images.
        settings: what masks say.
        folder: gets `<key>.png`, each by rename; what is there is not written again.
        progress: told of each mask.

    Returns:
        All classes in order, and a mask for each that is wanted.

    Raises:
        DataError: all masks that cannot be used, each with its reason; nothing that says what values stand for.
    """
    drawings, problems = _drawings([w.source for w in wanted])
    classes = _class_names(settings, [w.source for w in wanted], drawings)
    legends = {labelmap: Legend.of(settings, classes, labelmap) for labelmap in {w.source.labelmap for w in wanted}}
    places = {name: number for number, name in enumerate(classes)}
    background = IGNORED if settings.masks.background is None else places.get(settings.masks.background, IGNORED)
    places.setdefault(BACKGROUND, background)

    def write(one: Wanted) -> tuple[Mask, dict[int, int]] | str:
        source, colors = one.source, {}
        if source.path in problems:
            return problems[source.path]
        try:
            drawing = drawings.get(source)
            if drawing is not None:
                sides = (drawing.width or one.width, drawing.height or one.height)
                turn = turn_that_fits(sides, one.image, one.width, one.height)
                mask = draw(drawing, *sides, places, background)
            else:
                legend = legends[source.labelmap]
                found, turn = read_mask_image(source.path, one.image, one.width, one.height)
                mask = found.places(legend)
                if found.palette is not None and found.values is not None and found.by_value(legend):
                    colors = {int(value): int(found.palette[value]) for value in np.unique(found.values)}
        except MaskError as error:
            return f"{source.path}{f' ({source.item})' * bool(source.item)}: {error}"
        mask = turned(mask, turn)
        return kept_mask(mask, folder, len(classes)), colors

    masks: list[Mask] = []
    mistakes: list[str] = []
    meant: dict[int, tuple[int, str]] = {}  # index of a palette -> its colour, and the first mask that has it
    with ThreadPoolExecutor() as pool, progress.task("reading masks", len(wanted), "masks") as task:
        for one, answer in zip(wanted, in_order(pool, write, wanted), strict=True):
            task.advance(1)
            if isinstance(answer, str):
                mistakes.append(answer)
                continue
            mask, colors = answer
            masks.append(mask)
            mistakes += _other_palette(colors, meant, one.source.path)
    if mistakes:
        mistakes = list(dict.fromkeys(mistakes))
        noun = "masks cannot" if len(mistakes) > 1 else "mask cannot"
        read = [_how_they_are_read(settings)] if any(": no class for " in mistake for mistake in mistakes) else []
        raise DataError("\n".join([f"{len(mistakes)} {noun} be used:", first_of(mistakes), *read]))
    return classes, masks


def kept_mask(mask: npt.NDArray[np.uint8], folder: Path, classes: int) -> Mask:
    """Write a mask of places of so many classes, uint8 [H, W], into the folder of all masks."""
    return Mask(save_mask(mask, folder), tuple(np.bincount(mask.ravel(), minlength=256)[:classes].tolist()))


def class_names(settings: DataSettings, sources: Iterable[MaskSource]) -> tuple[str, ...]:
    """All classes in order, without looking at pixels.

    Raises:
        DataError: nothing says what values stand for; a bad annotation file; classes that contradict data.classes.
    """
    kept = list(sources)
    return _class_names(settings, kept, _drawings(kept)[0])


def _drawings(sources: Sequence[MaskSource]) -> tuple[dict[MaskSource, Drawing], dict[str, str]]:
    """Shapes of all annotation files, and by path what is wrong with the others."""
    found: dict[MaskSource, Drawing] = {}
    problems: dict[str, str] = {}
    files: dict[str, dict[str, Drawing]] = {}
    for source in sources:
        if source.item:
            if source.path not in files:
                files[source.path] = read_coco(source.path)
            if source.item not in files[source.path]:
                raise DataError(f"{source.path} changed while the run worked. The same command reads it anew")
            found[source] = files[source.path][source.item]
        elif source.path.lower().endswith(".json"):
            try:
                found[source] = read_labelme(source.path)
            except MaskError as error:
                problems[source.path] = f"{source.path}: {error}"
    return found, problems


def _class_names(
    settings: DataSettings, sources: Sequence[MaskSource], drawings: Mapping[MaskSource, Drawing]
) -> tuple[str, ...]:
    masks, background = settings.masks, settings.masks.background
    drawn = {shape.name for drawing in drawings.values() for shape in drawing.shapes if shape.name is not None}
    drawn -= {BACKGROUND}
    labelmaps = [] if masks.values or masks.colors else sorted({s.labelmap for s in sources if s.labelmap})
    mapped = [name for path in labelmaps for name in read_labelmap(path).values()]
    if settings.classes is not None:
        lacking = [name for name in dict.fromkeys([*mapped, *sorted(drawn)]) if name not in settings.classes]
        if lacking:
            raise DataError(f"data.classes lacks {', '.join(lacking)}, found in annotations")
        if drawings and background is not None and background not in settings.classes:
            raise DataError(
                f"data.masks.background: data.classes lacks {background!r}; expected the class of what no polygon"
                " covers, or null to ignore that"
            )
        names = list(settings.classes)
    else:
        of_drawings = [background, *sorted(drawn)] if drawings and background is not None else sorted(drawn)
        names = list(dict.fromkeys([*masks.named(), *mapped, *of_drawings]))
    if len(names) > MOST_CLASSES:
        raise DataError(f"found {len(names)} classes, expected at most {MOST_CLASSES}: a mask has 8 bits a pixel")
    files = [s.path for s in sources if s not in drawings and not s.path.lower().endswith(".json")]
    said = masks.values or masks.colors or mapped or settings.classes is not None
    if files and not said:  # polygons beside them may have given names
        raise DataError(_what_is_missing(files))
    return tuple(names)


def _what_is_missing(files: Sequence[str]) -> str:
    found = survey(files[:_SURVEYED])
    key = "colors" if found.colors else "values"
    numbers: list[str] = found.colors or [str(value) for value in found.values]
    more = f" and {len(numbers) - _TOLD} more" if len(numbers) > _TOLD else ""
    example = {"colors": '{"#000000": background, "#ff0000": road}', "values": "{0: background, 1: road}"}[key]
    places = "" if found.colors else ", or the classes of 0, 1, 2 … as data.classes"
    return (
        f"nothing says what the {key} of masks stand for; found {', '.join(numbers[:_TOLD]) or 'none'}{more} in"
        f" {found.masks} masks. Give data.masks.{key}, such as {example}{places}"
    )


def _other_palette(colors: Mapping[int, int], meant: dict[int, tuple[int, str]], path: str) -> list[str]:
    """Indices that stand for other colours than in masks before: they may stand for other classes too."""
    for index, color in colors.items():
        before, first = meant.setdefault(index, (color, path))
        if before != color:
            return [f"{path}: the index {index} is #{color:06x} in its palette, but #{before:06x} in that of {first}"]
    return []


def _how_they_are_read(settings: DataSettings) -> str:
    masks = settings.masks
    ignored = ", ".join(map(str, masks.ignore)) or "nothing"
    if masks.values or masks.colors:
        return f"data.masks names {', '.join([*masks.values, *masks.colors][:_TOLD])}; ignored: {ignored}"
    return f"a value is a place in data.classes, a colour what a labelmap.txt says; ignored: {ignored}"
