"""Small photos with structure, and the command as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distill.cli import app


class Answer(NamedTuple):
    """What the command printed and left."""

    code: int
    printed: str
    said: str
    folder: Path

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "audit.json").read_text())
        return found

    @property
    def page(self) -> str:
        return (self.folder / "audit.html").read_text()

    def finding(self, kind: str) -> dict[str, Any]:
        (found,) = [finding for finding in self.document["findings"] if finding["kind"] == kind]
        return dict(found)

    def kinds(self) -> set[str]:
        return {finding["kind"] for finding in self.document["findings"]}


Audit = Callable[..., Answer]


def photo(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Colour clouds with sharp squares: the same number shows the same scene, another number another."""
    rng = np.random.default_rng(number)
    scene = np.zeros((size[1], size[0], 3))
    for cells, strength in ((4, 1.0), (9, 0.7)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        scene += strength * np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    fine = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    scene += 0.5 * np.asarray(Image.fromarray(fine).resize(size, Image.Resampling.NEAREST), dtype=np.float64)
    return Image.fromarray((scene / 2.2).astype(np.uint8))


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Runs `distill audit` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(what: object = "photos", *arguments: str) -> Answer:
        done = CliRunner().invoke(app, ["audit", str(what), "--out", str(tmp_path / "out"), *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Answer(done.exit_code, done.stdout, done.stderr, tmp_path / "out")

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with train, val and test of two classes, and nothing wrong in it."""
    root, number = tmp_path / "photos", 0
    for split, count in {"train": 12, "val": 6, "test": 6}.items():
        for name in ("cat", "dog"):
            for _ in range(count):
                number += 1
                save(photo(number), root / split / name / f"{number}.png")
    return root
