"""The one place that turns files into pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from distill.data.opener import NotAFileError, opened

__all__ = ["DecodeError", "decode", "decode_stream"]


class DecodeError(Exception):
    """A file that is no usable image; the text is the reason shown to the user."""


def decode(path: str | Path, max_megapixels: float = 100.0) -> Image.Image:
    """Read an image as a person sees it: turned by its EXIF orientation, 8-bit RGB.

    Grey and palette images become RGB; CMYK is converted; 16-bit values keep their high byte; transparency is laid over
    white. An animation gives its first frame.

    Args:
        path: any file, or an address as `distill.data.opener` has them.
        max_megapixels: larger images are refused before their pixels are decoded.

    Returns:
        A Pillow image of mode RGB, at least 1x1.

    Raises:
        DecodeError: not an image, truncated, damaged, unreadable or too large.
    """
    try:
        with opened(str(path)) as stream:
            return decode_stream(stream, max_megapixels)
    except NotAFileError as error:
        raise DecodeError(str(error)) from None
    except OSError as error:
        raise DecodeError(f"cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # a name with a zero byte
        raise DecodeError(f"cannot be read ({error})") from None


def decode_stream(stream: BinaryIO, max_megapixels: float = 100.0) -> Image.Image:
    """The same of a stream that can seek."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about EXIF and about large images; the limit below decides
            with Image.open(stream) as image:
                width, height = image.size
                if width * height > max_megapixels * 1e6:
                    raise DecodeError(
                        "more pixels than data.max_megapixels allows"
                        f" ({width}x{height}, limit {max_megapixels:g} million)"
                    )
                if image.format == "EPS":
                    raise DecodeError("EPS is a program for a printer, not an image: save it as PNG")
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("not an image that Pillow can read") from None
    except Image.DecompressionBombError:
        raise DecodeError("so many pixels that it may be a decompression bomb") from None
    except MemoryError:
        raise DecodeError("does not fit in memory") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DecodeError(
            f"damaged or truncated ({reason})" if error.errno is None else f"cannot be read ({reason})"
        ) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile bytes: struct.error, KeyError …
        raise DecodeError(f"damaged ({type(error).__name__}: {error})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DecodeError("floating-point pixels have no agreed range")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")
