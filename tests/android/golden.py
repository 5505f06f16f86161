"""Golden files that Python and Kotlin are both held to; `python -m tests.android.golden` writes them anew.

They lie among the Kotlin library's test resources, so that a Gradle build without Python is held to them too. Inputs
are made by formulas that both sides know; of large answers the SHA-256 is kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.dense import scale_map
from distill.core.overlay import background, class_colors, overlay
from distill.data.decode import decode
from distill.data.mask_file import png_of_mask
from distill.data.views import Resize, fixed_view, render

FOLDER = Path(__file__).parents[2] / "android_sample/core-tests/src/test/resources/golden"

_Bytes = npt.NDArray[np.uint8]
_ORIENTATION = 0x0112  # EXIF

_SIZES = (
    # one pixel, lines, tiny ones
    (1, 1, 64), (1, 1, 1), (1, 2, 7), (2, 1, 32), (1, 97, 64), (97, 1, 64), (2, 2, 3), (3, 5, 64), (5, 3, 2),
    (7, 13, 224),
    # primes
    (31, 37, 64), (97, 101, 64), (127, 131, 128), (223, 227, 224), (257, 251, 96), (641, 479, 224), (1009, 757, 257),
    # as large as the input, next to it, whole multiples
    (64, 64, 64), (65, 64, 64), (63, 64, 64), (128, 128, 64), (192, 128, 64), (256, 64, 128), (224, 224, 128),
    (640, 480, 160),
    # panoramas
    (4001, 97, 64), (97, 4001, 64), (3000, 16, 224), (16, 3000, 96), (8191, 3, 128), (2048, 512, 192), (1021, 389, 224),
)  # fmt: skip
_TURNED = ((5, 3, 8), (37, 31, 64), (641, 479, 128))  # each in all eight orientations


def noise(count: int, seed: int) -> _Bytes:
    """`count` bytes that look random: a multiplicative hash of their index, in 32 bits."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x85EBCA77)
    h ^= h >> np.uint32(13)
    return (h >> np.uint32(24)).astype(np.uint8)


def resizing() -> list[dict[str, Any]]:
    """Odd sizes, both crops, all orientations; every second one of black and white alone, where sums are largest."""
    cases = [
        (w, h, s, crop, 1) for w, h, s in _SIZES for crop in ("squash", "center_crop") if w != h or crop == "squash"
    ]
    cases += [(w, h, s, "center_crop" if turn % 2 else "squash", turn) for w, h, s in _TURNED for turn in range(1, 9)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (width, height, size, crop, turn) in enumerate(cases):
            pixels = noise(width * height * 3, number).reshape(height, width, 3)
            extremes = number % 2 == 1
            if extremes:
                pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
            file = Path(folder) / "stored.png"
            stored = Image.fromarray(pixels)
            exif = stored.getexif()
            exif[_ORIENTATION] = turn
            stored.save(file, exif=exif, compress_level=0)
            found.append(
                {
                    "width": width,
                    "height": height,
                    "size": size,
                    "resize": crop,
                    "orientation": turn,
                    "extremes": extremes,
                    "sha256": _digest(prepared(file, size, crop)),
                }
            )
    return found


def prepared(file: Path, size: int, crop: str) -> _Bytes:
    """What a student is shown of a file: uint8 [size, size, 3]."""
    image = decode(file)
    resize: Resize = "squash" if crop == "squash" else "center_crop"
    return render(image, fixed_view(image.width, image.height, resize), size)


def transparency() -> dict[str, Any]:
    """Every alpha with many colours, laid over white."""
    pixels = noise(256 * 64 * 4, 7).reshape(256, 64, 4)
    pixels[..., 3] = np.arange(256)[:, None]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "transparent.png"
        Image.fromarray(pixels).save(file)
        return {"width": 64, "height": 256, "seed": 7, "sha256": _digest(np.asarray(decode(file)))}


def frames() -> list[dict[str, Any]]:
    """Camera frames with padded rows and colour samples side by side, turned by the four rotations."""
    found = []
    for number, (width, height, pad) in enumerate([(8, 6, 0), (34, 22, 6), (160, 122, 32)]):
        luma = noise(width * height, 50 + number).reshape(height, width)
        blue, red = (noise(width * height // 4, 60 + number + 10 * i).reshape(height // 2, width // 2) for i in (0, 1))
        wide = [np.repeat(np.repeat(each, 2, 0), 2, 1) for each in (blue, red)]
        upright = rgb_of_ycc(luma, *wide)
        for degrees in (0, 90, 180, 270):
            turned = np.rot90(upright, -degrees // 90)
            found.append({"width": width, "height": height, "pad": pad, "number": number, "degrees": degrees,
                          "sha256": _digest(turned)})  # fmt: skip
    return found


def rgb_of_ycc(luma: _Bytes, blue: _Bytes, red: _Bytes) -> _Bytes:
    """ITU-T T.871 in whole numbers of 1/65536, as JPEG decoders have it; a test compares with Pillow's."""
    y, cb, cr = luma.astype(np.int32), blue.astype(np.int32) - 128, red.astype(np.int32) - 128
    half = 1 << 15
    channels = (
        y + ((91881 * cr + half) >> 16),
        y + ((half - 22554 * cb - 46802 * cr) >> 16),
        y + ((116130 * cb + half) >> 16),
    )
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def masks() -> list[dict[str, Any]]:
    """Logits in eighths on small grids, enlarged and made smaller; their masks."""
    found = []
    for number, (rows, columns, classes, sizes) in enumerate(
        [
            (5, 7, 3, [(41, 29), (7, 5), (1, 1), (350, 3)]),
            (1, 1, 2, [(13, 9)]),
            (16, 16, 9, [(97, 101), (224, 224), (11, 5)]),
        ]
    ):
        logits = noise(rows * columns * classes, 80 + number).astype(np.float32).reshape(rows, columns, classes) / 8
        for width, height in sizes:
            mask = mask_of(logits, width, height)
            found.append({"rows": rows, "columns": columns, "classes": classes, "number": number,
                          "width": width, "height": height, "sha256": _digest(mask)})  # fmt: skip
    return found


def mask_of(scores: npt.NDArray[np.float32], width: int, height: int) -> _Bytes:
    """The class of each pixel, uint8 [height, width]: scores [h, w, C] enlarged, the largest wins."""
    mask: _Bytes = scale_map(scores, height, width).argmax(-1).astype(np.uint8)
    return mask


def rankings() -> list[dict[str, Any]]:
    """Scores with ties, and the places of the best."""
    rows = [
        [0.5, 0.25, 0.25],
        [0.0, 0.0, 0.0, 0.0],
        [1.0],
        [-3.0, 7.5, 7.5, -1.0, 7.25, 0.0],
        *(noise(10, 100 + n).astype(float).__floordiv__(32).tolist() for n in range(8)),
    ]
    return [{"scores": row, "best": [int(i) for i in np.argsort(-np.array(row), kind="stable")[:5]]} for row in rows]


def smoothing() -> dict[str, Any]:
    """Frames and their running mean in float32, share 0.4."""
    values = noise(40, 5).astype(np.float32).reshape(8, 5) / 256
    mean, means = values[0].copy(), [values[0].tolist()]
    for frame in values[1:]:
        mean += np.float32(0.4) * (frame - mean)
        means.append(mean.tolist())
    return {"share": 0.4, "frames": values.tolist(), "means": means}


def pictures() -> dict[str, bytes]:
    """A scene, its mask, and the overlays that Python draws, as PNG by file name."""
    width, height, classes = 61, 47, 30
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    scene = np.stack([across * 4, down * 5, (across + down) * 2], axis=-1).astype(np.uint8)
    mask = ((across // 9 + 7 * (down // 11)) % classes).astype(np.uint8)
    names = ["background", *(f"class {n}" for n in range(1, classes))]
    colors, clear = class_colors(classes), background(names)
    drawn = {
        "overlay": overlay(scene, mask, colors, clear=clear, outline=True),
        "overlay_plain": overlay(scene, mask, colors, 0.3),
    }
    found = {name: _png(Image.fromarray(picture)) for name, picture in drawn.items()}
    return {"scene": _png(Image.fromarray(scene)), "mask": png_of_mask(mask), **found}


def exif() -> list[dict[str, Any]]:
    """EXIF data as it stands in a JPEG, of all orientations, among other tags, in both orders of bytes."""
    found = []
    for turn in range(1, 9):
        for endian in ("<", ">"):
            data = Image.Exif()
            data.endian = endian
            data[0x010F], data[_ORIENTATION], data[0x0112 + 25] = "maker", turn, 1
            found.append({"orientation": turn, "app1": data.tobytes().hex()})
    return found


def documents() -> dict[str, Any]:
    """All JSON files, by name."""
    return {
        "resizing": resizing(),
        "transparency": transparency(),
        "frames": frames(),
        "masks": masks(),
        "rankings": rankings(),
        "smoothing": smoothing(),
        "colors": class_colors(30).tolist(),
        "exif": exif(),
    }


def _digest(values: _Bytes) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path) -> None:
    """Write all golden files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in documents().items():
        rows = value if isinstance(value, list) else [value]
        lines = ",\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n")
    for name, png in pictures().items():
        (folder / f"{name}.png").write_bytes(png)


if __name__ == "__main__":
    write(FOLDER)
