"""The page stays small, whatever the size of the test set and of what lies in the run folder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.files import write_json
from distill.core.task import Answers
from distill.data.manifest import Manifest
from distill.report.build import write_report
from distill.report.pictures import LARGEST, MOST, fitting
from distill.tasks.classification import Classification
from distill.tasks.segmentation import Segmentation

from .conftest import THINGS, answered, photographed
from .test_build import Images, config, write_run


def page_of(folder: Path, count: int, task: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page of a run about so many test images, on all of which teacher, student and file differ and are wrong."""
    folder.mkdir()
    records = photographed(folder, count)
    if task == "classification":
        records = [replace(record, label="cup", mask=None) for record in records]
        logits = [np.eye(4, dtype=np.float32)[[place] * count] for place in (2, 3, 2)]
        answers: list[Answers] = [Classification(THINGS).examine(records, each, "squash") for each in logits]
    else:
        answers = [answered(records, shift) for shift in (1, 2, 3)]
    said = dict(zip(("teacher", "student", "tflite-int8"), answers, strict=True))
    monkeypatch.setattr(Manifest, "load", lambda _: Images(records, THINGS))
    plugin = Segmentation(THINGS) if task == "segmentation" else Classification(THINGS)
    run = write_run(folder / "run", plugin, said, "test")
    fed = [{"picture": f"fed-{number}", "caption": "large"} for number in range(8)]
    write_json(run.folder("student") / "fed" / "fed.json", fed)
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1300, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG", compress_level=0)
    for each in fed:  # 4 MB each
        (run.folder("student") / "fed" / f"{each['picture']}.png").write_bytes(stream.getvalue())
    write_report(run, config(task))
    return (run.root / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_no_more_pictures_of_more_test_images(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (page_of(tmp_path / str(count), count, task, monkeypatch) for count in (20, 40))
    assert few.count("<img ") == many.count("<img ")
    assert 20 < many.count("<img ") <= MOST
    assert "picture missing" not in many
    assert len(many) < 30_000_000


def test_what_does_not_fit_is_left_out() -> None:
    kept = fitting({f"{n}": b"x" * 3_000_000 for n in range(20)})
    assert list(kept) == ["0", "1", "2", "3", "4", "5"] and sum(map(len, kept.values())) <= LARGEST
    assert len(fitting({f"{n}": b"x" for n in range(1000)})) == MOST
    assert 4 / 3 * LARGEST < 30_000_000 - 3_000_000, "as base64, with room for the page itself"
