"""`distill drift` on finished runs: the same kind of images, darker ones, a class left out, and wrong input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data.decode import decode
from distill.drift import show
from distill.drift.gather import gather
from tests.workplace import COLOURS, Workplace, write_shapes


def _photos(folder: Path, classes: list[str], count: int, *, light: float = 1.0) -> Path:
    """As `write_photos` draws them, others than those."""
    rng = np.random.default_rng(11)
    folder.mkdir(parents=True)
    for name in classes:
        for number in range(count):
            pixels = np.clip(rng.normal(COLOURS[name], 45, (32, 40, 3)), 0, 255) * light
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}{number}.png")
    return folder


def test_more_of_the_same_is_no_alarm(finished: Workplace, tmp_path: Path) -> None:
    new = _photos(tmp_path / "new", list(COLOURS), 12)
    (new / "notes.txt").write_text("no image")
    (new / "=1+1 \x1b[31m.png").write_bytes((new / "red0.png").read_bytes() + b" ")
    said = finished.run("drift", "runs/teacher", str(new), "--out", str(tmp_path / "out"), "--count", "10")
    assert "no alarm: no test tells the new images from the reference" in " ".join(said.split())
    document = json.loads((tmp_path / "out/drift.json").read_text())
    assert not document["alarm"] and document["reference"]["images"] == 60
    assert document["new"]["images"] == 37 and document["new"]["copies"] >= 1
    assert document["new"]["left_out"] == {"not an image that Pillow can read": 1}
    names = {row["name"] for row in document["tests"]}
    assert names >= {"features", "confidence", "rarer", "more frequent", "brightness"}
    rows = list(csv.DictReader((tmp_path / "out/teach.csv").read_text().splitlines()))
    assert [row["rank"] for row in rows] == [str(n) for n in range(1, 11)]
    assert len({row["path"] for row in rows}) == 10 and all(0 <= float(row["uncertainty"]) <= 1 for row in rows)
    with Image.open(tmp_path / "out/teach.png") as sheet:
        assert sheet.width > 500
    page = (tmp_path / "out/drift.html").read_text()
    assert "<script" not in page and "\x1b" not in page and "data:image/png;base64," in page


def test_darker_images_are_an_alarm_with_exit_code_3(finished: Workplace, tmp_path: Path) -> None:
    new = _photos(tmp_path / "new", list(COLOURS), 12, light=0.5)
    output = ("--out", str(tmp_path / "out"), "--json", "--teacher")
    said = finished.run("drift", "runs/teacher", str(new), *output, expect=3)
    line, error = said.splitlines()
    document = json.loads(line)
    assert document["alarm"] and "brightness" in error and "the images have moved" in error
    moved = {row["name"]: row for row in document["tests"] if row["alarm"]}
    assert moved["brightness"]["median_now"] < 0.6 * moved["brightness"]["median_before"]
    assert document["teacher"]["images_now"] == 36 and 0 <= document["teacher"]["agreement_now"]["value"] <= 1
    assert "teacher" in (tmp_path / "out/teach.csv").read_text().splitlines()[0]


def test_a_class_left_out_is_named(finished: Workplace, tmp_path: Path, progress: Progress) -> None:
    found = gather(Run(finished.root / "runs/teacher"), [_photos(tmp_path / "new", ["green", "red"], 90)], progress)
    changes = {row["name"]: row["change"] for row in found.document["classes"]}
    assert changes["violet"] == "left out" and "rarer" in show.verdict(found.document)
    assert "violet left out" in show.verdict(found.document)


def test_masks(segmented: Workplace, tmp_path: Path, progress: Progress) -> None:
    write_shapes(tmp_path / "shapes")
    for number, path in enumerate(sorted((tmp_path / "shapes/unlabeled").iterdir())):
        image = decode(path)
        if number >= 30:
            path.unlink()
        else:  # other pixels than those of the run
            image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).point(lambda v: v // 2).save(path)
    more: Any = {"teacher": True, "reference": segmented.root / "shapes/unlabeled"}  # 18 held-out images are too few
    found = gather(Run(segmented.root / "runs/teacher"), [tmp_path / "shapes/unlabeled"], progress, **more)
    document = found.document
    assert document["alarm"] and document["teacher"]["images_now"] == 30
    assert {row["name"] for row in document["tests"] if row["alarm"]} >= {"features", "brightness"}
    show.write(found, tmp_path / "out")
    assert (tmp_path / "out/drift.html").exists()


def test_images_of_the_run_are_no_new_ones(finished: Workplace, progress: Progress) -> None:
    run = Run(finished.root / "runs/teacher")
    with pytest.raises(DataError, match="none of the run's own, expected at least 20"):
        gather(run, [finished.root / "photos/test"], progress)
