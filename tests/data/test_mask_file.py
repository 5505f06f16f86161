"""Masks as files: values come back as they were, and anything else is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.errors import DataError
from distill.data.mask_file import mask_of_png, png_of_mask, read_mask

MASK = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)


def test_values_come_back(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png_of_mask(MASK))
    for found in (read_mask(path), read_mask(str(path)), mask_of_png(png_of_mask(MASK))):
        assert found.dtype == np.uint8
        assert np.array_equal(found, MASK)
    assert png_of_mask(MASK[:, ::-1]) == png_of_mask(MASK[:, ::-1].copy()) != png_of_mask(MASK)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'no.png'}: no mask can be read (No such file")):
        read_mask(tmp_path / "no.png")


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    whole = png_of_mask(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    for damaged in (b"no image", b"", whole[: len(whole) // 2], whole[:40] + bytes(8) + whole[48:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=re.escape(str(path)) + ": (no mask can be read|a damaged mask)"):
            read_mask(path)


@pytest.mark.parametrize(("mode", "name"), [("RGB", "mask.png"), ("1", "mask.png"), ("P", "mask.png"), ("L", "a.jpg")])
def test_another_kind_of_image_is_refused(tmp_path: Path, mode: str, name: str) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / name)
    with pytest.raises(DataError, match=f"mode {mode}, expected an 8-bit grey PNG"):
        read_mask(tmp_path / name)
