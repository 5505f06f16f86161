"""What `report.json` is gathered from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.config import Gates
from distill.core.files import read_json, write_json
from distill.core.run import Run
from distill.core.task import Answers, Task
from distill.core.types import ImageRecord
from distill.data.manifest import Manifest
from distill.report.build import _trainings, write_report
from distill.tasks.classification import Classification
from distill.tasks.segmentation import Segmentation

from .conftest import THINGS, answered, photographed

STAGES = ("data", "teacher", "labels", "student", "baseline", "export", "benchmark")


@pytest.mark.parametrize(
    ("fit", "baseline", "names"),
    [
        (None, {"training": {}}, {"student", "baseline"}),
        ({"epochs": 3}, {"training": {}}, {"teacher", "student", "baseline"}),
        ({"members": {"member-1": {}}}, {"absent": "no control"}, {"teacher member-1", "student"}),
    ],
)
def test_only_trainings_that_count_are_drawn(fit: Any, baseline: dict[str, Any], names: set[str]) -> None:
    assert _trainings({"teacher": {"fit": fit}, "student": {"training": {}}, "baseline": baseline}) == names


class Images:
    """Stands for the manifest: these images are all there are."""

    def __init__(self, records: Sequence[ImageRecord], classes: Sequence[str]) -> None:
        self.records, self.classes = tuple(records), tuple(classes)

    def of(self, split: str, *, labelled: bool | None = None) -> list[ImageRecord]:
        return [r for r in self.records if r.split == split and (labelled is None or r.labelled == labelled)]


def write_run(root: Path, task: Task, said: dict[str, Answers], split: str) -> Run:
    """A finished run whose teacher, student, control and int8 file gave these answers; a missing one is absent."""
    run = Run.create(root)
    scores = {name: {split: task.score(a).as_dict()} for name, a in said.items()}
    trained = {"detail": "tiny, 32 px", "bytes": 1_000_000, "parameters": 250_000, "latency": None}
    summaries: dict[str, dict[str, Any]] = {name: {} for name in STAGES}
    summaries["data"] = {"train_labelled": 3, "train_unlabelled": 9, "validation": 6, "test": 6, "left_out": 0}
    summaries["data"] |= {"by_class": {}, "left_out_by_reason": {}}
    summaries["labels"] = {"images": 12, "stored": "masks", "mean_confidence": 0.9, "by_class": {}, "hidden_score": 0.5}
    summaries["teacher"] = {
        **trained,
        "fit": None,
        "scores": {**scores["teacher"], "validation": scores["teacher"][split]},
    }
    summaries["student"] = {**trained, "training": {"decisions": {}}, "scores": scores["student"], "simple": {}}
    simple = {"class frequencies": {"detail": "nothing", "scores": scores["student"]}}
    summaries["baseline"] = {"absent": "no labelled images", "simple": simple}
    if "control" in said:
        control = {**trained, "training": {"decisions": {}}, "scores": scores["control"]}
        summaries["baseline"] = {**control, "simple": simple}
    for name, summary in summaries.items():
        run.begin(name, "1")
        run.finish(name, "1", 1.0, summary)
    for name, stage in {"teacher": "teacher", "student": "student", "control": "baseline"}.items():
        if name in said:
            said[name].save(run.folder(stage) / "predictions" / f"{split}.parquet")
    file = {"status": "rejected", "name": "tflite-int8", "reason": "it did not open"}
    if "tflite-int8" in said:
        said["tflite-int8"].save(run.folder("export") / "predictions" / f"tflite-int8.{split}.parquet")
        compared = {"drop": asdict(task.difference(said["student"], said["tflite-int8"]))}
        compared |= task.parity(said["student"], said["tflite-int8"])._asdict()
        file |= {
            "status": "ok",
            "file": "student.int8.tflite",
            "bytes": 300_000,
            "runtime": "LiteRT",
            "partitions": 1,
            "outside": {},
            "sha256": "ab" * 32,
            "image_size": 32,
            "resize": "squash",
            "output": "probabilities",
            "teacher": {"name": "tiny", "license": "mit", "digest": "cd" * 32},
        }
        file |= {"scores": {split: {**scores["tflite-int8"][split], **compared}}}
    write_json(run.folder("export") / "files.json", [file])
    write_json(run.folder("benchmark") / "benchmark.json", {"rows": []})
    write_json(run.folder("student") / "fed" / "fed.json", [])
    write_json(run.root / "environment.json", {"python": "3.11"})
    (run.root / "config.yaml").write_text("task: segmentation\n")
    return run


def config(task: str = "segmentation", **gates: float) -> Any:
    data = SimpleNamespace(
        unlabeled=[Path("/mine/images/unlabeled")],
        resize="squash",
        max_megapixels=100,
        groups=[],
        manifest=None,
        second=None,
    )
    return SimpleNamespace(task=task, data=data, gates=Gates(**gates))


def test_classification_in_its_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [replace(r, label="cup", mask=None) for r in photographed(tmp_path, 6)]
    monkeypatch.setattr(Manifest, "load", lambda _: Images(records, THINGS))
    task, logits = Classification(THINGS), np.tile(np.float32([0, 1, 0, 0]), (6, 1))
    right = task.examine(records, logits, "squash")
    logits = logits.copy()
    logits[4], logits[2] = (0, 0, 3, 0), (5, 0, 0, 0)
    said: dict[str, Answers] = {"teacher": right, "student": task.examine(records, logits, "squash")}
    run = write_run(tmp_path / "run", task, said, "test")
    document = write_report(run, config("classification", min_test_accuracy=0.5, min_test_miou=0.5))
    assert document["metric"] == {"key": "accuracy", "title": "accuracy"}
    student = next(row for row in document["rows"] if row["name"] == "student")
    assert student["score"]["value"] == pytest.approx(4 / 6)
    assert student["details"].keys() == {"macro F1"}
    assert [(m["truth"], m["answer"]) for m in document["mistakes"]] == [("cup", "background"), ("cup", "plate")]
    assert document["masks"] is document["class_scores"] is None
    wrong = {tuple(line["right"]): line["images"] for line in document["disagreements"]["counts"]}
    assert wrong == {("teacher", "student"): 4, ("teacher",): 2}
    assert [m["answers"][1]["answer"] for m in document["disagreements"]["images"]] == ["background", "plate"]
    assert "- No int8 file passed its proof" in (run.root / "report.md").read_text()
    own = config("classification")
    own.data.unlabeled = run.root.resolve() / "images" / "unlabeled"
    notes = write_report(run, own)["notes"]
    assert "demonstration" in notes[0]
    assert "The student is no better than class frequencies: what did training bring?" in notes
    assert document["teacher_validation"]["details"] == {"balanced over classes": 1.0, "guessing gives": 1.0}


def test_a_second_annotator_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [replace(r, label="cup", mask=None) for r in photographed(tmp_path, 6)]
    monkeypatch.setattr(Manifest, "load", lambda _: Images(records, THINGS))
    task, logits = Classification(THINGS), np.tile(np.float32([0, 1, 0, 0]), (6, 1))
    said: dict[str, Answers] = {name: task.examine(records, logits, "squash") for name in ("teacher", "student")}
    run = write_run(tmp_path / "run", task, said, "test")
    asked = config("classification")
    asked.data.second, asked.data.manifest = "bob", tmp_path / "index.csv"
    lines = [f"{r.path},cup,test,{'' if n == 5 else 'plate' if n == 0 else 'cup'}" for n, r in enumerate(records)]
    asked.data.manifest.write_text("\n".join(["path,label,split,bob", *lines]))
    rows = {row["name"]: row for row in write_report(run, asked)["rows"]}
    found = rows["second annotator"]
    assert found["images"] == 5 and found["runtime"] == "person" and found["detail"] == "column bob"
    assert found["score"]["value"] == pytest.approx(4 / 5) and 0.3 < found["score"]["low"] < 0.8
    assert list(rows).index("second annotator") < list(rows).index("teacher")
    assert "second annotator" in (run.root / "report.html").read_text()
    assert "second annotator" not in {row["name"] for row in write_report(run, config("classification"))["rows"]}


def test_segmentation_in_its_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = photographed(tmp_path, 6)
    monkeypatch.setattr(Manifest, "load", lambda _: Images(records, THINGS))
    shifts = {"teacher": 0, "control": 4, "student": 1, "tflite-int8": 2}
    said: dict[str, Answers] = {name: answered(records, shift) for name, shift in shifts.items()}
    task = Segmentation(THINGS)
    run = write_run(tmp_path / "run", task, said, "test")
    document = write_report(run, config(max_int8_drop=0.9, min_test_miou=0.1, min_test_accuracy=0.1))
    assert document == read_json(run.root / "report.json")
    assert document["metric"] == {"key": "miou", "title": "mIoU"}
    rows = {row["name"]: row for row in document["rows"]}
    scores = {name: task.score(a) for name, a in said.items()}
    assert rows.pop("class frequencies")["runtime"] == "baseline"
    for name, row in rows.items():
        assert row["score"] == asdict(scores[name].miou)
        assert row["details"] == {
            "pixel accuracy": scores[name].pixel_accuracy.value,
            "boundary F": scores[name].boundary_f,
        }
    assert document["gain"]["value"] == pytest.approx(
        rows["student"]["score"]["value"] - rows["control"]["score"]["value"]
    )
    gates = {gate["name"]: gate for gate in document["gates"]}
    assert gates["min_test_miou"] == {
        "name": "min_test_miou",
        "limit": 0.1,
        "found": scores["tflite-int8"].miou.value,
        "holds": True,
        "relation": "at least",
        "detail": "",
    }
    assert gates["max_int8_drop"]["found"] == rows["tflite-int8"]["drop"]["value"]
    assert gates["min_test_accuracy"]["found"] is None and not gates["min_test_accuracy"]["holds"]
    assert document["class_scores"]["predictors"] == ["teacher", "control", "student", "tflite-int8"]
    titles = [panel["title"] for panel in document["masks"]["images"][0]["panels"]]
    assert titles == ["photo and truth", "teacher", "student", "tflite-int8", "errors of tflite-int8"]
    assert all(len(Path(image["path"]).parts) <= 3 for image in document["masks"]["images"])
    assert document["mistakes"] == []
    assert document["teacher_validation"]["details"].keys() == {"pixel accuracy", "boundary F"}
    differ = sum(len(pair["images"]) for pair in document["masks"]["disagreements"]["pairs"])
    shown = 5 * len(document["masks"]["images"]) + 4 * differ
    assert differ and (run.root / "report.html").read_text().count("data:image/jpeg") == shown


def test_segmentation_without_control_int8_file_and_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [replace(record, split="validation") for record in photographed(tmp_path, 4)]
    monkeypatch.setattr(Manifest, "load", lambda _: Images(records, THINGS))
    said: dict[str, Answers] = {"teacher": answered(records, 2), "student": answered(records, 1)}
    run = write_run(tmp_path / "run", Segmentation(THINGS), said, "validation")
    document = write_report(run, config(max_int8_drop=0.9))
    assert document["gain"] is None
    assert document["masks"]["judged"] == document["confusion"]["name"] == "student"
    assert not document["gates"][0]["holds"]
    assert not any("demonstration" in note for note in document["notes"])
    assert any("there is no test set" in note.lower() for note in document["notes"])
    assert any("beats its teacher" in note for note in document["notes"])
