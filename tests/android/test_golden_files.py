"""The golden files that Kotlin is held to say what Python does."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from . import golden


def test_the_committed_documents_are_what_python_does_today() -> None:
    for name, value in golden.documents().items():
        committed = json.loads((golden.FOLDER / f"{name}.json").read_text())
        expected = json.loads(json.dumps(value if isinstance(value, list) else [value]))
        assert committed == expected, f"{name}.json; `python -m tests.android.golden` writes it anew"


def test_fifty_odd_sizes_and_all_orientations_are_among_them() -> None:
    cases = json.loads((golden.FOLDER / "resizing.json").read_text())
    assert len({(case["width"], case["height"], case["size"]) for case in cases}) >= 30
    assert len(cases) >= 50
    assert {case["orientation"] for case in cases} == set(range(1, 9))
    assert len({case["sha256"] for case in cases}) == len(cases)


def test_the_committed_pictures_are_what_python_draws_today() -> None:
    for name, png in golden.pictures().items():
        committed = np.asarray(Image.open(golden.FOLDER / f"{name}.png"))
        np.testing.assert_array_equal(committed, np.asarray(Image.open(io.BytesIO(png))), err_msg=name)


@pytest.mark.parametrize("seed", [1, 2])
def test_camera_frames_are_converted_as_jpeg_decoders_do(seed: int) -> None:
    pixels = golden.noise(64 * 64 * 3, seed).reshape(64, 64, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=100, subsampling=0)
    as_rgb = np.asarray(Image.open(io.BytesIO(stream.getvalue())))
    stored = Image.open(io.BytesIO(stream.getvalue()))
    stored.draft("YCbCr", stored.size)
    planes = np.asarray(stored)
    assert stored.mode == "YCbCr"
    np.testing.assert_array_equal(golden.rgb_of_ycc(planes[..., 0], planes[..., 1], planes[..., 2]), as_rgb)
