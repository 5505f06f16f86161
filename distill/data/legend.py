"""Which class the values and colours of masks stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.config import LARGEST_VALUE, DataSettings, mask_color, mask_values
from distill.core.dense import IGNORED
from distill.core.errors import DataError
from distill.data.candidate import MaskError, first_of

__all__ = ["Legend", "read_labelmap"]

_Numbers = npt.NDArray[np.int32]
_Mask = npt.NDArray[np.uint8]
_UNKNOWN = -1
_TOLD = 5
_MANY_COLORS = 50


@dataclass(frozen=True)
class Legend:
    """What pixels of mask images stand for.

    Args:
        values: int16 [65536], place of the class of each value, 255 ignored, -1 unknown; None if only colours say.
        colors: place by number of the colour (red * 65536 + green * 256 + blue); empty if only values say.
        ignored: values to be ignored, also where only colours say, as indices without a colour that has a class.
    """

    values: npt.NDArray[np.int16] | None
    colors: dict[int, int]
    ignored: tuple[int, ...] = ()

    @classmethod
    def of(cls, settings: DataSettings, classes: Sequence[str], labelmap: str) -> Legend:
        """By `data.masks`, else by the labelmap, else by the place in `data.classes`.

        Args:
            settings: of the images.
            classes: all classes, in order.
            labelmap: path of a labelmap.txt, or empty.

        Raises:
            DataError: a bad labelmap.
        """
        masks, place = settings.masks, {name: number for number, name in enumerate(classes)}
        ignored = {mask_color(color): IGNORED for color in masks.ignore if isinstance(color, str)}
        colors = {mask_color(color): place[name] for color, name in masks.colors.items()}
        values: dict[int, int] | None = None
        if masks.values:
            values = {value: place[name] for text, name in masks.values.items() for value in mask_values(text)}
        elif not colors and labelmap:
            colors = {color: place[name] for color, name in read_labelmap(labelmap).items()}
        elif not colors and settings.classes is not None:
            values = {number: number for number in range(len(classes)) if number not in masks.ignore}
        left_out = tuple(value for value in masks.ignore if isinstance(value, int))
        if colors:  # what is to be ignored is, whatever a labelmap calls it
            colors = {**colors, **ignored}
        if values is None:
            return cls(None, colors, left_out)
        table = np.full(LARGEST_VALUE + 1, _UNKNOWN, np.int16)
        table[list(left_out)] = IGNORED
        table[list(values)] = list(values.values())
        return cls(table, colors, left_out)

    def of_values(self, values: _Numbers) -> _Mask:
        """Places of classes, uint8 [H, W], of values [H, W].

        Raises:
            MaskError: values without class.
        """
        assert self.values is not None
        if values.min() < 0 or values.max() > LARGEST_VALUE:
            raise MaskError(f"found values from {values.min()} to {values.max()}, expected 0 to {LARGEST_VALUE}")
        places = self.values[values]
        if (places == _UNKNOWN).any():
            raise MaskError(_without_class("value", values[places == _UNKNOWN], str))
        known: _Mask = places.astype(np.uint8)
        return known

    def of_colors(self, colors: _Numbers, indices: _Numbers | None = None) -> _Mask:
        """Places of classes, uint8 [H, W], of numbers of colours [H, W].

        Args:
            colors: of the pixels.
            indices: of a palette, [H, W], if that is where the colours come from.

        Raises:
            MaskError: colours without class.
        """
        known = np.array(sorted(self.colors), np.int32)
        places: _Mask = np.array([self.colors[color] for color in known.tolist()], np.uint8)
        at: npt.NDArray[np.intp] = np.searchsorted(known, colors).clip(max=len(known) - 1)
        unknown = known[at] != colors
        places = places[at]
        if indices is not None:
            left_out = unknown & np.isin(indices, self.ignored)
            places[left_out], unknown = IGNORED, unknown & ~left_out
        if unknown.any():
            raise MaskError(_without_class("colour", colors[unknown], "#{:06x}".format))
        return places


def _without_class(noun: str, found: _Numbers, show: Callable[[int], str]) -> str:
    numbers, counts = np.unique(found, return_counts=True)
    order = np.lexsort((numbers, -counts))
    told = [(int(numbers[n]), int(counts[n])) for n in order[:_TOLD]]
    shown = [f"{show(number)} ({count} pixel{'s' * (count > 1)})" for number, count in told]
    more = f" and {len(numbers) - _TOLD} more" if len(numbers) > _TOLD else ""
    cause = "; smoothed, or lossily compressed?" if noun == "colour" and len(numbers) > _MANY_COLORS else ""
    return f"no class for the {noun}{'s' * (len(numbers) > 1)} {', '.join(shown)}{more}{cause}"


def read_labelmap(path: str) -> dict[int, str]:
    """Classes by the number of their colour, in the order of the file: lines `name:red,green,blue:parts:actions`.

    Raises:
        DataError: it cannot be read, or has bad lines.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    found: dict[int, str] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        parts = rest.split(":")[0].split(",")
        if not name.strip() or len(parts) != 3 or not all(p.strip().isdecimal() and int(p) < 256 for p in parts):
            problems.append(f"line {number}: found {line[:40]!r}, expected name:red,green,blue and two more colons")
            continue
        red, green, blue = (int(part) for part in parts)
        color = (red << 16) + (green << 8) + blue
        if found.setdefault(color, name.strip()) != name.strip():
            problems.append(f"line {number}: {name.strip()} has the colour of {found[color]}")
    if problems or not found:
        raise DataError(f"{path} is no labelmap:\n{first_of(problems or ['found no class in it'])}")
    return found
