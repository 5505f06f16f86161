"""`distill compare` on copies of a finished run that differ in what is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distill.compare import show
from distill.compare.gather import gather
from distill.core.errors import RunFolderError, UserError
from distill.tasks.classification import LabelAnswers
from tests.workplace import Workplace

Copy = Callable[[str], Path]


@pytest.fixture
def copy(finished: Workplace, tmp_path: Path) -> Copy:
    def make(name: str) -> Path:
        ignored = shutil.ignore_patterns("*.safetensors", "tensorboard", "labels", "*.tflite", "*.onnx")
        shutil.copytree(finished.root / "runs/teacher", tmp_path / name, ignore=ignored)
        return tmp_path / name

    return make


def _change(run: Path, **values: object) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["train"] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(settings))


def test_what_differs_is_said(copy: Copy, tmp_path: Path) -> None:
    first, second = copy("a"), copy("b <i>")
    _change(second, lr=0.005)
    path = second / "student/predictions/test.parquet"
    said = LabelAnswers.load(path)
    wrong = said.logits.copy()
    wrong[:9] = -np.eye(3, dtype=np.float32)[said.truth[:9]]  # nine of 36 are now wrong
    order = np.random.default_rng(0).permutation(len(said.ids))
    shuffled = LabelAnswers(tuple(said.ids[n] for n in order), wrong[order], said.truth[order])
    shuffled.save(path)
    document = gather([first, second])
    assert document["split"] == "test" and document["images"] == 36
    rows = {(row["run"], row["predictor"]): row for row in document["rows"]}
    right = said.logits.argmax(axis=1) == said.truth
    expected = -float(right[:9].mean()) / 4
    gap = rows["b <i>", "student"]["difference"]
    assert gap["value"] == pytest.approx(expected) and gap["low"] <= gap["value"] <= gap["high"]
    assert rows["a", "student"]["difference"] is None and rows["b <i>", "control"]["difference"]["value"] == 0
    assert rows["a", "tflite-int8"]["bytes"] > 1e5 and rows["a", "tflite-int8"]["p50_ms"] > 0
    assert document["settings"] == [{"key": "train.lr", "values": {"a": "auto", "b <i>": 0.005}}]
    assert document["data"] == document["environment"] == []
    assert {c["predictor"] for c in document["curves"]} == {"student", "control"}
    show.write(document, tmp_path / "out")
    page = (tmp_path / "out/compare.html").read_text()
    assert "b &lt;i&gt;" in page and "<i>" not in page and "b <i> is worse than a" not in page
    with Image.open(tmp_path / "out/curves.png") as curves:
        assert curves.width > 1000
    assert json.loads((tmp_path / "out/compare.json").read_text()) == document


def test_only_shared_images_with_the_same_truth_count(copy: Copy) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, second = copy("a"), copy("b")
    path = second / "data/manifest.parquet"
    table = pq.read_table(path)
    labels, splits = table["label"].to_pylist(), table["split"].to_pylist()
    tests = [n for n, split in enumerate(splits) if split == "test"]
    labels[tests[0]] = next(name for name in ("green", "red") if name != labels[tests[0]])
    for number in tests[1:5]:
        splits[number] = "train"
    for name, values in (("label", labels), ("split", splits)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    pq.write_table(table, path)
    document = gather([first, second])
    assert (document["images"], document["other_truth"]) == (31, 1)
    assert document["images_of_each"] == {"a": 36, "b": 32}


def test_what_cannot_be_compared(copy: Copy, segmented: Workplace, tmp_path: Path) -> None:
    first = copy("a")
    with pytest.raises(UserError, match="a is of the task classification, teacher of segmentation"):
        gather([first, segmented.root / "runs/teacher"])
    with pytest.raises(UserError, match="expected two or more different run folders"):
        gather([first, tmp_path / "." / "a"])
    with pytest.raises(RunFolderError, match="found no run folder"):
        gather([first, tmp_path / "nowhere"])
    second = copy("b")
    (second / "student/stage.json").unlink()
    with pytest.raises(RunFolderError, match="the stage student is not finished"):
        gather([first, second])


def test_masks_and_the_command(segmented: Workplace, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.safetensors", "tensorboard", "labels", "*.tflite", "*.onnx")
    shutil.copytree(segmented.root / "runs/teacher", tmp_path / "b", ignore=ignored)
    _change(tmp_path / "b", epochs=9)
    said = segmented.run("compare", "runs/teacher", str(tmp_path / "b"), "--json")
    document = json.loads(said.splitlines()[-1])
    assert document["metric"]["key"] == "miou" and document["images"] == 10
    gaps = [row["difference"] for row in document["rows"] if row["run"] == "b"]
    assert len(gaps) == 3 and all(gap["low"] == gap["value"] == gap["high"] == 0 for gap in gaps)
    assert [row["key"] for row in document["settings"]] == ["train.epochs"]
    said = segmented.run("compare", "runs/teacher", str(tmp_path / "b"))
    assert "train.epochs" in said and "10 test images that all runs share" in said
