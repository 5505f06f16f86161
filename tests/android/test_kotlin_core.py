"""The Kotlin library's pure half, on this PC, against the golden files that Python is held to as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from . import golden
from .conftest import SAMPLE, Kotlin

_TESTS = SAMPLE / "core-tests/src/test/kotlin"


def test_the_core_does_what_python_does(kotlin: Kotlin, tmp_path: Path) -> None:
    classes = sorted(file.stem for file in _TESTS.rglob("*Test.kt"))
    said = kotlin.test(*classes, pictures=tmp_path)
    assert "OK (" in said
    declared = sum(file.read_text().count("@Test\n") for file in _TESTS.rglob("*Test.kt"))
    assert f"OK ({declared} tests)" in said
    # The overlays that Kotlin has drawn, seen from here.
    for name in ("overlay", "overlay_plain"):
        expected = np.asarray(Image.open(golden.FOLDER / f"{name}.png").convert("RGB"))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), expected, err_msg=name)


def test_nothing_of_android_is_in_the_core() -> None:
    core = SAMPLE / "inference/src/main/kotlin/org/mobiledistill/inference/core"
    for file in core.glob("*.kt"):
        assert "import android" not in file.read_text(), file.name
