"""Masks as grey PNGs: the one place that turns them into pixels and back."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from distill.core.errors import DataError
from distill.core.files import replacing

__all__ = ["mask_of_png", "png_of_mask", "read_mask", "save_mask"]

_Mask = npt.NDArray[np.uint8]
_KEY = re.compile(r"[0-9a-f]{64}")


def read_mask(path: str | Path, *, stored: bool = True) -> _Mask:
    """Read a mask: a grey 8-bit PNG, whose values are taken as they are.

    Args:
        path: of the file.
        stored: `save_mask` wrote it. Then its pixels must have the SHA-256 that is its name: Pillow does not compare
            the checksums of a PNG's pixels. Of 0.40 ms for a mask of 256x384 the digest takes 0.06.

    Returns:
        uint8 [H, W], places of classes; 255 is ignored.

    Raises:
        DataError: it is missing, damaged, or of another kind.
    """
    try:
        with open(path, "rb") as stream:
            mask = _read(stream)
    except UnidentifiedImageError:
        raise DataError(f"{path}: no mask can be read (not an image)") from None
    except OSError as error:
        raise DataError(f"{path}: no mask can be read ({error.strerror or error})") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes, as in `distill.data.decode`
        raise DataError(f"{path}: a damaged mask ({error})") from None
    name = Path(path).stem
    if stored and _KEY.fullmatch(name) and name != _key(mask):
        raise DataError(
            f"{path}: a damaged mask (its pixels are not those that it is named by). Delete the run's folder `data` and"
            " run the same command again"
        )
    return mask


def png_of_mask(mask: _Mask) -> bytes:
    """A grey PNG; equal masks give equal bytes.

    One of 256x384 pixels and 9 classes takes about 1.7 kB and 0.6 ms; at zlib's own level 1.2 kB and 1.3 ms, at the
    highest 0.8 kB and 4 ms.
    """
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def save_mask(mask: _Mask, folder: Path) -> str:
    """Write a mask, uint8 [H, W], by rename; equal masks are one file, and what is there is not written again.

    Returns:
        SHA-256 of its size and pixels: name of its file, `<key>.png`.
    """
    key = _key(mask)
    path = folder / f"{key}.png"
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(png_of_mask(mask))
    return key


def _key(mask: _Mask) -> str:
    return hashlib.sha256(b"%d %d " % mask.shape + mask.tobytes()).hexdigest()


def mask_of_png(png: bytes) -> _Mask:
    """The mask, uint8 [H, W], that `png_of_mask` wrote."""
    return _read(io.BytesIO(png))


def _read(stream: IO[bytes]) -> _Mask:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about large images; the stage `data` has set the limit
        with Image.open(stream) as image:
            if (image.format, image.mode) != ("PNG", "L"):
                raise OSError(f"found {image.format} with pixels of mode {image.mode}, expected an 8-bit grey PNG")
            return np.array(image)
