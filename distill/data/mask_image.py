"""Masks as people draw them: images whose values, palette indices or colours stand for classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from distill.data.candidate import MaskError
from distill.data.legend import Legend
from distill.data.opener import NotAFileError, opened

__all__ = ["MaskImage", "Survey", "read_mask_image", "survey", "turn_that_fits", "turned"]

_Numbers = npt.NDArray[np.int32]
_Mask = npt.NDArray[np.uint8]
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5  # from here on width and height change places
_PACKED = {"L;2": 85, "L;4": 17}  # Pillow spreads the values of small grey PNGs over 0..255


@dataclass(frozen=True)
class MaskImage:
    """The pixels of a mask.

    Args:
        values: [H, W] of one channel, or of three equal ones; None where colours differ.
        colors: [H, W] numbers of colours; None where there is one channel.
        palette: [n] numbers of the colours that indices stand for; None if they are no indices.
    """

    values: _Numbers | None
    colors: _Numbers | None
    palette: _Numbers | None

    def by_value(self, legend: Legend) -> bool:
        """Whether the legend reads values, not colours."""
        return legend.values is not None and self.values is not None

    def places(self, legend: Legend) -> _Mask:
        """Places of classes, uint8 [H, W]; 255 is ignored.

        Raises:
            MaskError: pixels that stand for no class.
        """
        if self.values is not None and legend.values is not None:
            return legend.of_values(self.values)
        if not legend.colors:
            raise MaskError("found colours, but only values have a class: name them in data.masks.colors")
        return legend.of_colors(self._as_colors(), self.values if self.palette is not None else None)

    def _as_colors(self) -> _Numbers:
        if self.colors is not None:
            return self.colors
        assert self.values is not None
        if self.palette is not None:
            return self.palette[self.values]
        if self.values.max() > 255:
            raise MaskError("found grey of 16 bits, expected colours")
        return self.values * 0x010101


def read_mask_image(path: str, image: str, width: int, height: int) -> tuple[MaskImage, int]:
    """Read a mask, and how it has to be turned to lie over its image.

    Args:
        path: of the mask.
        image: path of its image.
        width: of the upright image.
        height: of the upright image.

    Returns:
        Its pixels, upright in themselves, and an EXIF orientation; 1 is as it is.

    Raises:
        MaskError: it cannot be read, is of another size or of no use as a mask.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about EXIF and about large images; the image's size decides
            with opened(path) as stream, Image.open(stream) as mask:
                if sorted(mask.size) != sorted((width, height)):  # before any pixel is decoded
                    turn_that_fits(mask.size, image, width, height)
                if mask.format in {"JPEG", "MPO"}:
                    raise MaskError("a JPEG blurs what values stand for: save masks as PNG")
                packed = _PACKED.get(str(mask.tile[0].args), 1) if mask.format == "PNG" and mask.tile else 1
                own = mask.getexif().get(_ORIENTATION, 1)
                upright = mask.transpose(_TURNS[own]) if own in _TURNS else mask
                return _pixels(upright, packed), turn_that_fits(upright.size, image, width, height)
    except MaskError:
        raise
    except UnidentifiedImageError:
        raise MaskError("not an image that Pillow can read") from None
    except NotAFileError as error:
        raise MaskError(str(error)) from None
    except OSError as error:
        raise MaskError(f"cannot be read ({error.strerror or error})") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile bytes
        raise MaskError(f"damaged ({type(error).__name__}: {error})") from None


def turn_that_fits(sides: tuple[int, int], image: str, width: int, height: int) -> int:
    """The EXIF orientation by which truth of this size comes to lie over its upright image; 1 is as it is.

    Truth of the upright size is upright: nothing tells what was drawn on a photo that lies on its head. Truth of the
    size in which the image is stored is turned as it is.

    Args:
        sides: width and height of the truth.
        image: path of the image.
        width: of the upright image.
        height: of the upright image.

    Raises:
        MaskError: it fits neither way.
    """
    if sides == (width, height):
        return 1
    if sides == (height, width):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF
            with opened(image) as stream, Image.open(stream) as stored:
                orientation = stored.getexif().get(_ORIENTATION, 1)
        if orientation in _TURNS and orientation >= _SIDEWAYS:
            return int(orientation)
    raise MaskError(f"found {sides[0]}x{sides[1]} pixels, expected {width}x{height} like its image {image}")


def turned(mask: _Mask, orientation: int) -> _Mask:
    """Turn a mask, uint8 [H, W], by an EXIF orientation."""
    if orientation not in _TURNS:
        return mask
    return np.array(Image.fromarray(mask).transpose(_TURNS[orientation]))


def _pixels(mask: Image.Image, packed: int) -> MaskImage:
    if mask.mode in {"LA", "PA", "RGBA"}:
        transparent = int((np.asarray(mask.getchannel("A")) < 255).sum())
        if transparent:
            raise MaskError(f"found {transparent} transparent pixels, expected an opaque mask")
        mask = mask.convert({"LA": "L", "PA": "RGB", "RGBA": "RGB"}[mask.mode])
    if mask.mode == "RGB":
        red, green, blue = np.moveaxis(np.asarray(mask), -1, 0)
        grey = bool((red == green).all() and (red == blue).all())
        colors = (red.astype(np.int32) << 16) + (green.astype(np.int32) << 8) + blue
        return MaskImage(red.astype(np.int32) if grey else None, colors, None)
    if mask.mode not in {"1", "L", "P"} and not mask.mode.startswith("I"):
        raise MaskError(f"found pixels of mode {mask.mode}, expected grey, palette or RGB")
    values = np.asarray(mask).astype(np.int32) // packed
    if mask.mode != "P":
        return MaskImage(values, None, None)
    parts = np.array(mask.getpalette("RGB"), np.int32).reshape(-1, 3)
    if values.max() >= len(parts):
        raise MaskError(f"found the index {values.max()}, but its palette has {len(parts)} colours")
    return MaskImage(values, None, (parts[:, 0] << 16) + (parts[:, 1] << 8) + parts[:, 2])


class Survey(NamedTuple):
    """What masks hold.

    Args:
        masks: how many were read.
        values: of those with one channel or equal ones, sorted.
        colors: of the others as #rrggbb, the most frequent first.
    """

    masks: int
    values: list[int]
    colors: list[str]


def survey(paths: Iterable[str]) -> Survey:
    """Look at mask images about which nothing is known; what cannot be read is left out."""
    count = 0
    values: set[int] = set()
    colors: dict[int, int] = {}
    for path in paths:
        try:
            with opened(path) as stream, Image.open(stream) as mask:
                found, _ = read_mask_image(path, path, *mask.size)
        except (MaskError, OSError, ValueError):
            continue
        count += 1
        if found.values is not None:
            values |= set(np.unique(found.values).tolist())
        elif found.colors is not None:
            for color, pixels in zip(*np.unique(found.colors, return_counts=True), strict=True):
                colors[int(color)] = colors.get(int(color), 0) + int(pixels)
    return Survey(count, sorted(values), [f"#{c:06x}" for c in sorted(colors, key=lambda c: (-colors[c], c))])
