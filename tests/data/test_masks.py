"""Masks that people draw become masks of places of classes: values, palettes, colours, sizes, turned photos."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from distill.core.files import sha256_of

from .conftest import ReadMasks, SaveImage, SaveMask, grid, refused, truth

ROAD = {"values": {0: "background", 1: "road"}}
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


@pytest.fixture
def pair(tmp_path: Path, save_image: SaveImage, save_mask: SaveMask) -> Callable[..., Path]:
    """Saves an image and its mask in a part of the data: numbers, a Pillow image, or nothing; gives the mask's path."""

    def save(name: str, mask: Any, part: str = "train", size: tuple[int, int] = (4, 3)) -> Path:
        save_image(tmp_path / part / "images" / f"{name}.png", zlib.crc32(f"{part}/{name}".encode()), size)
        path = tmp_path / part / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(mask, Image.Image):
            mask.save(path)
            return path
        return save_mask(path, mask)

    return save


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {"labeled": tmp_path / "train", "validation": tmp_path / "val"}


def rows(digits: str) -> np.ndarray:
    return grid(digits.split())


def colored(digits: str, *colors: tuple[int, int, int]) -> np.ndarray:
    return np.array(colors, np.uint8)[rows(digits)]


def paletted(digits: str, *colors: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(rows(digits)).convert("P")
    image.putdata(rows(digits).ravel().tolist())
    image.putpalette([part for color in colors for part in color])
    return image


PLAIN = "0001 0011 0112"


# What pixels stand for


def test_values_several_to_one_class_in_the_order_of_mention(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    pair("a", [[0, 1, 2, 9], [3, 4, 5, 9], [7, 6, 0, 255]])
    pair("b", [[0, 1, 2, 9]] * 3, "val")
    masks = {"values": {"4-6": "sky", 0: "ground", "1-3": "road", "7": "sky"}, "ignore": [9, 255]}
    manifest = read_masks(masks, **folders)
    assert manifest.classes == ("sky", "ground", "road")
    assert truth(manifest, "a") == [[1, 2, 2, 255], [2, 0, 0, 255], [0, 0, 1, 255]]
    assert truth(manifest, "b", "validation") == [[1, 2, 2, 255]] * 3


def test_the_order_of_classes_may_be_another_one(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", rows("0001 0011 0111"), part)
    manifest = read_masks(ROAD, **folders, classes=["road", "sky", "background"])
    assert manifest.classes == ("road", "sky", "background")
    assert truth(manifest, "a")[0] == [2, 2, 2, 0]


def test_without_values_a_value_is_a_place_in_classes(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", [[0, 1, 2, 255]] * 3, part)
    assert truth(read_masks(**folders, classes=["a", "b", "c"]), "a") == [[0, 1, 2, 255]] * 3
    told = refused(lambda: read_masks(**folders, classes=["a", "b"]))
    assert "train/masks/a.png: no class for the value 2 (3 pixels)" in told


def test_255_may_be_a_class(pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks) -> None:
    for part in ("train", "val"):
        pair("a", [[0, 255, 255, 0]] * 3, part)
    manifest = read_masks({"values": {0: "background", 255: "person"}}, **folders)
    assert truth(manifest, "a") == [[0, 1, 1, 0]] * 3


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(rows("0001 0011 0111")),
        Image.fromarray(rows("0001 0011 0111") > 0),  # one bit a pixel
        paletted("0001 0011 0111", RED, RED),
        Image.fromarray(rows("0001 0011 0111").astype(np.uint16)),
        Image.fromarray(rows("0001 0011 0111")).convert("LA"),
        Image.fromarray(colored("0001 0011 0111", (0, 0, 0), (1, 1, 1))),
        Image.fromarray(colored("0001 0011 0111", (0, 0, 0), (1, 1, 1))).convert("RGBA"),
    ],
    ids=lambda image: str(image.mode),
)
def test_forms_of_index_masks(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks, image: Image.Image
) -> None:
    for part in ("train", "val"):
        pair("a", image, part)
    assert truth(read_masks(ROAD, **folders), "a") == rows("0001 0011 0111").tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_a_grey_png_of_few_bits_holds_the_values_that_were_written(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks, bits: int
) -> None:
    """Pillow spreads them over 0..255: 1 of 4 bits would become 17."""
    for part in ("train", "val"):
        pair("a", rows("0001"), part, size=(4, 1)).write_bytes(_png([0, 0, 0, 1], bits))
    assert truth(read_masks(ROAD, **folders), "a") == [[0, 0, 0, 1]]


def _png(values: list[int], bits: int, palette: bytes = b"") -> bytes:
    """One row of a grey or palette PNG with so many bits a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = sum(value << bits * place for place, value in enumerate(reversed(values)))
    row = b"\0" + packed.to_bytes(len(values) * bits // 8, "big")
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 3 if palette else 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + (chunk(b"PLTE", palette) if palette else b"")
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def test_colours_and_ignored_colours(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    masks = {"colors": {"#0000ff": "sky", "#FF0000": "road", "#000000": "sky"}, "ignore": ["#0a0b0c"]}
    pair("a", colored("0123 0000 1111", RED, BLUE, BLACK, (10, 11, 12)))
    pair("a", paletted("0123 0000 1111", RED, BLUE, BLACK, (10, 11, 12)), "val")
    manifest = read_masks(masks, **folders)
    assert manifest.classes == ("sky", "road")
    expected = [[1, 0, 0, 255], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert truth(manifest, "a") == truth(manifest, "a", "validation") == expected


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:255,0,0:lane,kerb:\n\nsky:0,0,255::\n"


@pytest.mark.parametrize("place", ["labelmap.txt", "masks/labelmap.txt"])
def test_a_labelmap_beside_the_masks_names_colours(
    tmp_path: Path, pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks, place: str
) -> None:
    for part in ("train", "val"):
        pair("a", colored("0001 0011 0122", BLACK, RED, BLUE), part)
        (tmp_path / part / place).write_text(LABELMAP)
    manifest = read_masks(**folders)
    assert manifest.classes == ("background", "road", "sky")
    assert truth(manifest, "a") == rows("0001 0011 0122").tolist()
    assert manifest.left_out == []


def test_what_the_config_says_comes_before_a_labelmap(
    tmp_path: Path, pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", rows("0001 0011 0122"), part)
        (tmp_path / part / "labelmap.txt").write_text(LABELMAP)
    manifest = read_masks({"values": {"0-1": "low", 2: "high"}}, **folders)
    assert manifest.classes == ("low", "high")


# What is refused, by file and value


def test_all_unknown_values_of_all_masks_at_once(
    tmp_path: Path, pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    pair("a", [[0, 1, 7, 7], [7, 9, 0, 0], [255, 255, 0, 0]])
    pair("b", rows("0001 0011 0111"))
    pair("c", [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]], "val")
    assert refused(lambda: read_masks(ROAD, **folders)).splitlines() == [
        "2 masks cannot be used:",
        f"  {tmp_path}/val/masks/c.png: no class for the values 9 (4 pixels), 2 (1 pixel), 3 (1 pixel), 4 (1 pixel),"
        " 5 (1 pixel) and 3 more",
        f"  {tmp_path}/train/masks/a.png: no class for the values 7 (3 pixels), 9 (1 pixel)",
        "data.masks names 0, 1; ignored: 255",
    ]


def test_very_many_bad_masks_are_counted(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for number in range(30):
        pair(str(number), [[number + 2] * 4] * 3, "val" if number == 0 else "train")
    lines = refused(lambda: read_masks(ROAD, **folders)).splitlines()
    assert lines[0] == "30 masks cannot be used:"
    assert len(lines) == 23
    assert lines[21] == "  and 10 more"


def test_an_unknown_colour(
    tmp_path: Path, pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    pair("a", colored("0001 0011 0112", BLACK, RED, (254, 0, 1)))
    pair("b", colored("0001 0011 0111", BLACK, RED), "val")
    told = refused(lambda: read_masks({"colors": {"#000000": "sky", "#ff0000": "road"}}, **folders))
    assert f"{tmp_path}/train/masks/a.png: no class for the colour #fe0001 (1 pixel)" in told


def test_a_mask_with_smoothed_edges_is_told_as_such(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    smooth = Image.fromarray(colored("0001 0011 0111", RED, BLUE)).resize((40, 30), Image.Resampling.BICUBIC)
    pair("a", smooth, size=(40, 30))
    pair("b", colored("0001 0011 0111", RED, BLUE), "val")
    told = refused(lambda: read_masks({"colors": {"#0000ff": "sky", "#ff0000": "road"}}, **folders))
    assert "more; smoothed, or lossily compressed?" in told


NO_MASKS: list[tuple[str, Callable[[Path], object], str]] = [
    ("another size", lambda p: Image.new("L", (3, 4)).save(p), "found 3x4 pixels, expected 4x3 like its image "),
    ("cut off", lambda p: p.write_bytes(p.read_bytes()[:45]), "cannot be read ("),
    ("text", lambda p: p.write_text("mask"), "not an image that Pillow can read"),
    ("jpeg", lambda p: Image.new("L", (4, 3)).save(p, "JPEG"), "a JPEG blurs what values stand for: save masks as PNG"),
    (
        "float",
        lambda p: Image.new("F", (4, 3)).save(p, "TIFF"),
        "found pixels of mode F, expected grey, palette or RGB",
    ),
    ("cmyk", lambda p: Image.new("CMYK", (4, 3)).save(p, "TIFF"), "found pixels of mode CMYK, expected grey,"),
    (
        "transparent",
        lambda p: Image.new("RGBA", (4, 3), (0, 0, 0, 9)).save(p),
        "found 12 transparent pixels, expected an opaque mask",
    ),
    (
        "colours where values are named",
        lambda p: Image.new("RGB", (4, 3), RED).save(p),
        "found colours, but only values have a class: name them in data.masks.colors",
    ),
    ("no file", lambda p: (p.unlink(), os.mkfifo(p)), "not a file"),
]


@pytest.mark.parametrize(("spoil", "reason"), [row[1:] for row in NO_MASKS], ids=[row[0] for row in NO_MASKS])
def test_what_is_no_mask(
    pair: Callable[..., Path],
    folders: dict[str, Path],
    read_masks: ReadMasks,
    spoil: Callable[[Path], object],
    reason: str,
) -> None:
    path = pair("a", rows("0001 0011 0111"))
    pair("b", rows("0001 0011 0111"), "val")
    spoil(path)
    first, line = refused(lambda: read_masks(ROAD, **folders)).splitlines()
    assert first == "1 mask cannot be used:"
    assert line.startswith(f"  {path}: {reason}")


def test_an_index_that_the_palette_lacks(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    path = pair("a", rows("0001"), size=(4, 1))
    path.write_bytes(_png([0, 1, 0, 2], 8, bytes(RED + BLUE)))
    pair("b", rows("0001 0011 0111"), "val")
    told = refused(lambda: read_masks({"values": {"0-2": "a", 3: "b"}}, **folders))
    assert f"{path}: found the index 2, but its palette has 2 colours" in told


def test_palettes_that_contradict_each_other(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    """A tool that saves colours with a palette of its own for each image mixes the classes up, and no value is odd."""
    first = pair("a", paletted("0001 0011 0111", BLACK, RED), "val")
    second = pair("a", paletted("0002 0022 0111", BLACK, BLUE, RED))
    masks = {"values": {0: "background", 1: "red", 2: "blue"}}
    told = refused(lambda: read_masks(masks, **folders))
    assert f"{second}: the index 1 is #0000ff in its palette, but #ff0000 in that of {first}" in told
    by_color = {"colors": {"#000000": "background", "#ff0000": "red", "#0000ff": "blue"}}
    assert truth(read_masks(by_color, **folders), "a")[0] == [0, 0, 0, 1]


def test_masks_about_which_nothing_is_said(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    pair("a", [[0, 3, 4, 255]] * 3)
    pair("b", [[0, 8, 3, 3]] * 3, "val")
    assert refused(lambda: read_masks(**folders)) == (
        "nothing says what the values of masks stand for; found 0, 3, 4, 8, 255 in 2 masks. Give data.masks.values,"
        " such as {0: background, 1: road}, or the classes of 0, 1, 2 … as data.classes"
    )


def test_coloured_masks_about_which_nothing_is_said(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", colored("0001 0000 0111", RED, BLUE), part)
    assert refused(lambda: read_masks(**folders)) == (
        "nothing says what the colors of masks stand for; found #ff0000, #0000ff in 2 masks. Give data.masks.colors,"
        ' such as {"#000000": background, "#ff0000": road}'
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("road 255,0,0\n", "line 1: found 'road 255,0,0', expected name:red,green,blue and two more colons"),
        ("a:0,0,0::\nroad:255,0\n", "line 2: found 'road:255,0', expected name:red,green,blue and two more colons"),
        ("road:256,0,0::\n", "line 1: found 'road:256,0,0::', expected name:red,green,blue and two more colons"),
        ("road:1,1,1::\nsky:1,1,1::", "line 2: sky has the colour of road"),
        ("# nothing\n", "found no class in it"),
    ],
)
def test_a_bad_labelmap(
    tmp_path: Path,
    pair: Callable[..., Path],
    folders: dict[str, Path],
    read_masks: ReadMasks,
    text: str,
    line: str,
) -> None:
    for part in ("train", "val"):
        pair("a", colored("0001 0000 0111", RED, BLUE), part)
    (tmp_path / "train/labelmap.txt").write_text(text)
    told = refused(lambda: read_masks(**folders))
    assert told == f"{tmp_path}/train/labelmap.txt is no labelmap:\n  {line}"


def test_more_classes_than_a_mask_can_name(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", rows(PLAIN), part)
    names = [f"c{n}" for n in range(256)]
    assert len(read_masks(**folders, classes=names[:255]).classes) == 255
    told = refused(lambda: read_masks(**folders, classes=names))
    assert told == "found 256 classes, expected at most 255: a mask has 8 bits a pixel"


# Photos that are stored turned


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_a_mask_is_turned_as_its_photo_is(
    tmp_path: Path, read_masks: ReadMasks, save_mask: SaveMask, orientation: int, drawn_on: str
) -> None:
    """Where a photo stands on its side its mask may be that of the file's pixels, or of what a person sees."""
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.repeat(values[:, :, None] * 10, 3, axis=2))
    for part in ("train", "val"):
        path = tmp_path / part / "images" / f"{part}.png"
        path.parent.mkdir(parents=True)
        stored.save(path, exif=exif, pnginfo=None if part == "train" else _comment())
        seen = np.asarray(ImageOps.exif_transpose(Image.open(path)))[:, :, 0] // 10
        sideways = orientation >= 5
        save_mask(tmp_path / part / "masks" / f"{part}.png", values if drawn_on == "stored" and sideways else seen)
    masks = {"values": {f"{n}": f"c{n}" for n in range(24)}}
    manifest = read_masks(masks, labeled=tmp_path / "train", validation=tmp_path / "val")
    assert truth(manifest, "train") == seen.tolist()


def _comment() -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("part", "val")
    return info


def test_a_mask_may_be_stored_turned_itself(tmp_path: Path, read_masks: ReadMasks, save_image: SaveImage) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for part in ("train", "val"):
        save_image(tmp_path / part / "images/a.png", len(part), size=(3, 4))
        (tmp_path / part / "masks").mkdir()
        Image.fromarray(rows(PLAIN)).save(tmp_path / part / "masks/a.png", exif=exif)
    manifest = read_masks({"values": {0: "a", 1: "b", 2: "c"}}, labeled=tmp_path / "train", validation=tmp_path / "val")
    assert truth(manifest, "a") == np.rot90(rows(PLAIN), -1).tolist()


# Files that are written


def test_masks_are_named_by_their_pixels_and_kept(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    path = pair("a", rows("0001 0011 0111"))
    pair("b", rows("0001 0011 0111"))
    pair("c", rows("1001 0011 0111"), "val")
    first = read_masks(ROAD, **folders)
    files = {Path(str(r.mask)) for r in first.records}
    assert len(files) == 2
    before = {file: (sha256_of(file), file.stat().st_ino) for file in files}
    Image.fromarray(rows("0001 0011 0111")).save(path, compress_level=0)
    again = read_masks(ROAD, **folders)
    assert {file: (sha256_of(file), file.stat().st_ino) for file in files} == before
    assert again.digest() == first.digest()
    assert all(re.fullmatch("[0-9a-f]{64}", file.stem) for file in files)


def test_the_same_masks_give_the_same_bytes(
    tmp_path: Path, pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", rows("0001 0011 0111"), part)
    read_masks(ROAD, **folders)
    (file,) = (tmp_path / "run/masks").iterdir()
    before = file.read_bytes()
    file.unlink()
    read_masks(ROAD, **folders)
    assert file.read_bytes() == before


# What is ignored


def test_an_ignored_value_is_no_place_in_classes(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", [[0, 1, 2, 0]] * 3, part)
    manifest = read_masks({"ignore": [0]}, **folders, classes=["other", "road", "car"])
    assert truth(manifest, "a") == [[255, 1, 2, 255]] * 3


def test_an_index_that_is_ignored_needs_no_colour(
    pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    cream = (224, 224, 192)
    for part in ("train", "val"):
        image = paletted("0001 0011 0112", BLACK, RED, cream)
        pair("a", image, part)
    masks = {"colors": {"#000000": "background", "#ff0000": "road"}, "ignore": [2]}
    assert truth(read_masks(masks, **folders), "a") == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 255]]
    told = refused(lambda: read_masks({**masks, "ignore": [9]}, **folders))
    assert "no class for the colour #e0e0c0 (1 pixel)" in told


def test_an_ignored_colour_is_no_class_of_a_labelmap(
    tmp_path: Path, pair: Callable[..., Path], folders: dict[str, Path], read_masks: ReadMasks
) -> None:
    for part in ("train", "val"):
        pair("a", Image.fromarray(colored(PLAIN, BLACK, RED, BLUE)), part)
        (tmp_path / part / "labelmap.txt").write_text("background:0,0,0::\nroad:255,0,0::\nvoid:0,0,255::\n")
    assert truth(read_masks({"ignore": ["#0000ff"]}, **folders), "a")[2] == [0, 1, 1, 255]
