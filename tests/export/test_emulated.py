"""The emulated ARM machine: counts that repeat, answers that are those of this machine.

It is 55 MB of packages, so it is not fetched for a test: `distill export arm-setup` makes it (a minute).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill.core.cached import cache_folder, made_once
from distill.core.errors import UserError
from export.emulated import Emulator

from ..workplace import Workplace


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    try:
        return Emulator()
    except UserError as error:
        pytest.skip(str(error))


def bench(place: Workplace, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distill", "bench", "--run", "runs/teacher", *arguments]
    settings = {**os.environ, **environment}
    return subprocess.run(command, cwd=place.root, capture_output=True, text=True, env=settings, check=False)


def rows(place: Workplace) -> list[dict[str, Any]]:
    found = json.loads((place.root / "runs/teacher/benchmark/benchmark-arm-emulated.json").read_text())
    assert found["device"]["name"] == "arm-emulated"
    return found["rows"]


def test_int8_takes_fewer_instructions_and_the_large_core_fewer_still(finished: Workplace, emulator: Emulator) -> None:
    before = (finished.root / "runs/teacher/benchmark/benchmark.json").read_bytes()
    names = ["--file", "tflite-float32", "--file", "tflite-int8"]
    counts = []
    for _ in range(2):
        done = bench(finished, "--device", "arm-emulated", *names)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Instructions are no time" in done.stdout
        counts.append({(row["name"], row["core"]): row["instructions"] for row in rows(finished)})
    assert counts[0] == pytest.approx(counts[1], rel=1e-3)
    first = counts[0]
    for core in ("cortex-a53", "cortex-a76"):
        assert first["tflite-int8", core] < first["tflite-float32", core]
    # A cortex-a76 has dot products of four int8 each; XNNPACK takes the kernels of the processor that is emulated.
    assert first["tflite-int8", "cortex-a76"] < 0.6 * first["tflite-int8", "cortex-a53"]
    for row in rows(finished):
        assert row["images"] == 8
        assert row["largest_difference"] < 1e-6  # both end in float: sums in another order
    assert (finished.root / "runs/teacher/benchmark/benchmark.json").read_bytes() == before


def test_what_cannot_be_counted_says_why(finished: Workplace, emulator: Emulator) -> None:
    done = bench(finished, "--device", "arm-emulated:cortex-a35")
    assert done.returncode == 2
    assert "found no such processor" in done.stderr and "known: cortex-a53, cortex-a76" in done.stderr
    done = bench(finished, "--device", "arm-emulated", "--file", "onnx-int8")
    assert done.returncode == 2
    assert "--device arm-emulated runs TFLite files" in done.stderr


def test_without_its_folder_it_names_the_command_that_makes_it(finished: Workplace, tmp_path: Path) -> None:
    done = bench(finished, "--device", "arm-emulated", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "`distill export arm-setup` does it once" in done.stderr
    assert "Traceback" not in done.stderr


def test_devices_are_named_with_hyphens_and_take_only_what_they_know(finished: Workplace) -> None:
    done = bench(finished, "--device", "arm-emulatd")
    assert done.returncode == 2
    assert "found no device 'arm_emulatd' (did you mean 'arm_emulated'?)" in done.stderr
    done = bench(finished, "--device", "cpu:0")
    assert done.returncode == 2
    assert "--device cpu:0: cpu takes nothing behind a colon" in done.stderr


def test_setting_up_needs_debian(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", "arm-setup"]
    settings = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 2
    assert "on Debian or Ubuntu; missing: apt, dpkg, gcc" in done.stderr


def test_a_cached_folder_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise UserError("no network")

    with pytest.raises(UserError, match="no network"):
        made_once("thing", fail)
    assert list(cache_folder().iterdir()) == []
    assert (
        made_once("thing", lambda folder: (folder / "file").write_text("one") and None) / "file"
    ).read_text() == "one"
    assert (made_once("thing", fail) / "file").read_text() == "one"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "mobile-distill"
