"""Every kind of file becomes the pixels a person sees, or a reason."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distill.data.decode import DecodeError, decode

Pixels = npt.NDArray[np.uint8]

# A small picture without any symmetry: red, green / blue, white / black, grey
UPRIGHT = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]], [[0, 0, 0], [128, 128, 128]]], dtype=np.uint8
)
# What a camera stores so that the viewer, following orientation N, shows UPRIGHT (TIFF 6.0, tag 274)
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),  # the viewer turns it clockwise
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


def pixels_of(path: Path) -> Pixels:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels and has next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT))).save(path, exif=exif)
    np.testing.assert_array_equal(pixels_of(path), UPRIGHT)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_means_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), UPRIGHT)


def test_a_turned_jpeg_has_its_sides_exchanged(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").size == (20, 40)


def test_damaged_exif_is_no_reason_to_lose_the_image(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), UPRIGHT)


def test_grey(tmp_path: Path) -> None:
    values = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), np.stack([values] * 3, axis=2))


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False], [False, True]])).save(tmp_path / "a.png")
    expected = np.array([[255, 0], [0, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), np.stack([expected] * 3, axis=2))


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(UPRIGHT).quantize(6)
    assert image.mode == "P"
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), UPRIGHT)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_transparent_palette_entry_lies_over_white(tmp_path: Path, as_bytes: bool) -> None:
    image = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 1]))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=bytes([255, 0, 128]) if as_bytes else 1)
    blue = [127, 127, 255] if as_bytes else [0, 0, 255]
    np.testing.assert_allclose(pixels_of(tmp_path / "a.png"), [[[255, 0, 0], [255] * 3], [blue, [255] * 3]], atol=1)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]], [[0, 0, 0, 128], [10, 20, 30, 0]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = [[[255, 0, 0], [255, 255, 255]], [[127, 127, 127], [255, 255, 255]]]
    np.testing.assert_allclose(pixels_of(tmp_path / "a.png"), expected, atol=1)


def test_grey_with_transparency(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[50, 255], [50, 0]]], dtype=np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[50] * 3, [255] * 3]])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_colour_declared_transparent(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1), 9 if mode == "L" else (9, 9, 9))
    image.putpixel((1, 0), 70 if mode == "L" else (70, 70, 70))
    image.save(tmp_path / "a.png", transparency=9 if mode == "L" else (9, 9, 9))
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[255] * 3, [70] * 3]])


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(pixels_of(tmp_path / "a.jpg").mean(axis=(0, 1)), [255, 0, 0], atol=3)
    Image.new("CMYK", (2, 2), (0, 0, 0, 255)).save(tmp_path / "a.tif")
    assert pixels_of(tmp_path / "a.tif").max() == 0


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [0x7FFF, 0x8000, 0xFFFF]], dtype=np.uint16)
    expected = np.stack([np.array([[0, 0, 1], [127, 128, 255]], dtype=np.uint8)] * 3, axis=2)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(pixels_of(tmp_path / name), expected, err_msg=name)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.new("F", (2, 2)).save(tmp_path / "a.tif")
    assert reason(tmp_path / "a.tif") == "floating-point pixels have no agreed range"


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    assert (pixels_of(tmp_path / "a.gif") == [255, 0, 0]).all()


@pytest.mark.parametrize("extension", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_common_formats(tmp_path: Path, extension: str) -> None:
    Image.new("RGB", (5, 7), (200, 100, 0)).save(tmp_path / f"a.{extension}")
    found = pixels_of(tmp_path / f"a.{extension}")
    assert found.shape == (7, 5, 3)
    np.testing.assert_allclose(found.reshape(-1, 3), [[200, 100, 0]] * 35, atol=4)


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.jpg"), UPRIGHT)


def test_the_smallest_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert pixels_of(tmp_path / "a.png").tolist() == [[[1, 2, 3]]]


def reason(path: Path, *limit: float) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(path, *limit)
    return str(caught.value)


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_a_file_cut_in_half(tmp_path: Path, save_image: Callable[..., Path], extension: str) -> None:
    path = save_image(tmp_path / f"a.{extension}", size=(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert reason(path).startswith(("damaged", "not an image"))


def test_truncated_says_so(tmp_path: Path, save_image: Callable[..., Path]) -> None:
    for extension in ("jpg", "png"):
        path = save_image(tmp_path / f"a.{extension}", size=(64, 64))
        path.write_bytes(path.read_bytes()[:-2000])
        assert reason(path).startswith("damaged or truncated (")


def test_a_damaged_checksum(tmp_path: Path, save_image: Callable[..., Path]) -> None:
    path = save_image(tmp_path / "a.png", size=(64, 64))
    content = bytearray(path.read_bytes())
    content[20] ^= 1  # in the header, behind the signature
    path.write_bytes(content)
    assert reason(path).startswith(("damaged", "not an image"))


@pytest.mark.parametrize(
    "content", [b"", b"just words\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"PK\x03\x04"]
)
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason(tmp_path / "a.jpg").startswith(("not an image that Pillow can read", "damaged"))


def test_a_text_named_jpg_and_an_empty_file(tmp_path: Path) -> None:
    for content in ("dear diary", ""):
        (tmp_path / "a.jpg").write_text(content)
        assert reason(tmp_path / "a.jpg") == "not an image that Pillow can read"


def test_random_bytes_never_crash(tmp_path: Path, save_image: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    for extension in ("jpg", "png", "gif", "tif", "bmp", "webp"):
        content = save_image(tmp_path / f"a.{extension}", size=(16, 16)).read_bytes()
        for _ in range(40):
            broken = bytearray(content)
            for place in rng.integers(0, len(broken), 4):
                broken[place] = rng.integers(0, 256)
            path = tmp_path / "broken"
            path.write_bytes(broken)
            try:
                assert decode(path, 1).mode == "RGB"
            except DecodeError as error:
                assert str(error)


def test_a_missing_file(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.jpg") == "cannot be read (No such file or directory)"


def test_a_link_to_nothing_and_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("nothing.jpg")
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    assert reason(tmp_path / "a.jpg") == "cannot be read (No such file or directory)"
    assert reason(tmp_path / "b.jpg") == "cannot be read (Too many levels of symbolic links)"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for a writer
    assert reason(tmp_path / "pipe.jpg") == "not a file"
    assert reason(tmp_path) == "not a file"


def test_a_file_that_must_not_be_read() -> None:
    program = (
        "import os, sys\n"
        "from distill.data.decode import DecodeError, decode\n"
        "if os.getuid() == 0:\n"
        "    os.setuid(65534)\n"  # root may read everything
        "try:\n"
        "    decode(sys.argv[1])\n"
        "except DecodeError as error:\n"
        "    print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "a.png"
        Image.new("RGB", (2, 2)).save(path)
        path.chmod(0)
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "cannot be read (Permission denied)\n"


def test_postscript_is_never_run(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    assert reason(tmp_path / "a.jpg") == "EPS is a program for a printer, not an image: save it as PNG"


def test_the_limit_against_decompression_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(12_000, 9_000))
    assert path.stat().st_size < 100
    assert reason(path) == "more pixels than data.max_megapixels allows (12000x9000, limit 100 million)"
    assert reason(path, 0.5) == "more pixels than data.max_megapixels allows (12000x9000, limit 0.5 million)"
    assert reason(path, 108).startswith("damaged")  # within this limit, so its (missing) pixels are read


def test_a_bomb_that_pillow_itself_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(2**31 - 1, 2**31 - 1))
    assert reason(tmp_path / "a.png", 1e9) == "so many pixels that it may be a decompression bomb"


def test_the_limit_holds_exactly(tmp_path: Path) -> None:
    Image.new("L", (1000, 500)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 0.5).size == (1000, 500)
    assert (
        reason(tmp_path / "a.png", 0.499999)
        == "more pixels than data.max_megapixels allows (1000x500, limit 0.499999 million)"
    )
