"""`distill doctor`: each cause on made-up evidence, and the whole on a finished run."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import yaml

from distill import doctor
from distill.core.errors import RunFolderError
from distill.core.run import Run
from distill.doctor import Finding, diagnose
from distill.evidence import Evidence, gather
from distill.labels.stat import settings_of
from distill.report.wording import percent
from distill.tasks._label_answers import LabelAnswers
from distill.tasks.classification import Interval
from tests.workplace import Workplace

HEALTHY = Evidence(
    by_pixel=False,
    split="test",
    images=400,
    classes=("glass", "metal", "paper"),
    gain=Interval(0.05, 0.02, 0.08),
    over_control=Interval(0.09, 0.05, 0.13),
    over_student=Interval(0.04, 0.01, 0.07),
    agreement=0.92,
    labelled=300,
    unlabelled=1500,
    confusion=((90, 6, 4), (5, 92, 3), (2, 3, 95)),
    unreached=(),
    pseudo=(480, 520, 500),
    known=(100, 100, 100),
    plan_changes=(),
    views_drawn=1800,
    views_wrong=0,
    crops_agree=0.93,
    teacher_size=288,
    student_size=224,
    losses=(0.9, 0.5, 0.3, 0.2, 0.16, 0.14, 0.13, 0.125, 0.124, 0.123),
    epochs=10,
    best_epoch=8,
    lr="0.0003 (starts from pretrained weights)",
    floor=0.04,
    guessing=1.2,
)
UNCLEAR: dict[str, Any] = {"gain": Interval(0.01, -0.02, 0.04)}


def test_all_is_well() -> None:
    diagnosis = diagnose(HEALTHY)
    assert diagnosis["verdict"] == (
        "all is well: student +5.0 points against the control [2.0 to 8.0] on 400 test images"
    )
    assert diagnosis["better"] is True
    assert [cause["shows"] for cause in diagnosis["causes"]] == [False] * 7
    assert all(cause["evidence"] for cause in diagnosis["causes"])


CASES: list[tuple[Callable[[Evidence], Finding | None], dict[str, Any], str]] = [
    (doctor.weak_teacher, {"over_control": Interval(0.01, -0.01, 0.03)}, "over control +1.0 [\u22121.0 to 3.0]"),
    (doctor.weak_teacher, {"over_student": Interval(0.0, -0.02, 0.02)}, "the student has caught up with it"),
    (doctor.weak_teacher, {"over_control": None, "over_student": Interval(-0.01, -0.02, 0.0)}, "caught up"),
    (
        doctor.few_test_images,
        {"gain": Interval(0.03, -0.06, 0.12), "images": 36},
        "gained all 9.0 points is not excluded",
    ),
    (doctor.little_data, {"unlabelled": 450}, "450 unlabelled images to learn from, 300 labelled (1.5 for each)"),
    (doctor.little_data, {"unlabelled": 0}, "0 unlabelled images"),
    (doctor.little_data, {"agreement": 0.8}, "the student knows the stored answers, but not the teacher's"),
    (
        doctor.wrong_class_map,
        {"confusion": ((5, 90, 5), (88, 7, 5), (2, 3, 95))},
        "glass is called metal is called glass (90 of 100, 88 of 100)",
    ),
    (
        doctor.wrong_class_map,
        {"confusion": ((5, 90, 5), (3, 7, 90), (95, 3, 2))},
        "glass is called metal is called paper is called glass (90 of 100, 90 of 100, 95 of 100)",
    ),
    (doctor.wrong_class_map, {"confusion": ((90, 6, 4), (5, 92, 3), (60, 40, 0))}, "finds 0 of 100 paper, calling"),
    (doctor.wrong_class_map, {"unreached": ("metal",)}, "nothing maps to metal"),
    (doctor.wrong_class_map, {"pseudo": (480, 0, 1020)}, "metal is never answered (500 of 1500 expected)"),
    (doctor.wrong_class_map, {"pseudo": (1400, 60, 40)}, "(glass: 93 % and 33 %)"),
    (doctor.inconsistent_views, {"views_wrong": 3}, "3 of 1800 stored views are not those that their plan draws"),
    (doctor.inconsistent_views, {"plan_changes": ("resize was squash, is center_crop",)}, "resize was squash"),
    (doctor.inconsistent_views, {"student_size": 96}, "the student sees 96 px, the teacher 288"),
    (doctor.inconsistent_views, {"crops_agree": 0.41}, "41 % of the crops"),
    (doctor.learning_rate, {"losses": (0.9, math.nan)}, "it is no number"),
    (doctor.learning_rate, {"losses": (0.9, 0.91, 0.9, 0.89, 0.9)}, "loss 0.900 to 0.900 in 5 of 10 epochs"),
    (doctor.learning_rate, {"losses": (0.9, 0.4, 0.3, 0.5, 0.6)}, "it rises since epoch 3 (0.300)"),
    (
        doctor.learning_rate,
        {"losses": tuple(1 - number / 11 for number in range(10)), "best_epoch": 10},
        "the last epoch is the best, and the loss still falls",
    ),
    (
        doctor.small_student,
        {"losses": (0.9, 0.7, 0.6, 0.56, 0.55, 0.55), "agreement": 0.7},
        "training loss 0.550, least possible 0.040: 44 % of what the answers tell is not learnt",
    ),
]


@pytest.mark.parametrize(("look", "changes", "told"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_cause_that_shows(look: Callable[[Evidence], Finding | None], changes: dict[str, Any], told: str) -> None:
    assert look(HEALTHY) is None
    evidence = replace(HEALTHY, **(UNCLEAR | changes))
    found = look(evidence)
    assert found is not None
    assert told in found.evidence
    assert found.advice
    (row,) = [cause for cause in diagnose(evidence)["causes"] if cause["cause"] == found.cause]
    assert row == {"cause": found.cause, "shows": True, "evidence": found.evidence, "advice": found.advice}


@pytest.mark.parametrize(
    ("look", "changes"),
    [
        (doctor.weak_teacher, {"over_control": None}),
        (doctor.few_test_images, {"gain": Interval(0.01, -0.02, 0.04)}),  # the interval excludes the teacher's lead
        (doctor.few_test_images, {"gain": None}),
        (doctor.little_data, {"labelled": 0}),
        (doctor.little_data, {"unlabelled": 600}),
        (doctor.wrong_class_map, {"confusion": ((0, 2, 0), (0, 92, 3), (2, 3, 95))}),  # two images tell nothing
        (doctor.wrong_class_map, {"pseudo": (10, 20, 5), "known": (4, 4, 4)}),  # so do shares of few
        (doctor.wrong_class_map, {"pseudo": (0, 0, 0)}),
        (doctor.inconsistent_views, {"crops_agree": None}),
        (doctor.learning_rate, {"losses": (0.9, 0.8)}),
        (doctor.learning_rate, {"best_epoch": 10}),  # the last epoch is the best, but the loss has settled
        (doctor.learning_rate, {"losses": ()}),
        (doctor.small_student, {"floor": None, "guessing": None, "losses": (0.9, 0.6, 0.6, 0.6)}),
        (doctor.small_student, {"losses": (0.9, 0.89, 0.89)}),  # the loss never fell: that is not the student's size
    ],
)
def test_a_cause_that_does_not_show(look: Callable[[Evidence], Finding | None], changes: dict[str, Any]) -> None:
    assert look(replace(HEALTHY, **(UNCLEAR | changes))) is None


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (UNCLEAR, "the student is not shown to be better than the control: student +1.0 points"),
        ({"gain": Interval(-0.05, -0.08, -0.01)}, "the student is worse than the control: student \u22125.0 points"),
        ({"gain": None, "over_control": None}, "whether distillation helped cannot be said: the run has no control"),
        (
            {"unlabelled": 10},
            "all is well: student +5.0 points against the control [2.0 to 8.0] on 400 test images; co",
        ),
    ],
)
def test_the_verdict(changes: dict[str, Any], verdict: str) -> None:
    diagnosis = diagnose(replace(HEALTHY, **changes))
    assert diagnosis["verdict"].startswith(verdict)
    if changes is UNCLEAR:
        assert diagnosis["verdict"].endswith("; usual causes that show: none")


def test_json_holds_no_nan() -> None:
    document = diagnose(replace(HEALTHY, losses=(0.9, math.nan)))
    assert json.loads(json.dumps(document, allow_nan=False))["evidence"]["losses"] == [0.9, None]


def test_the_finished_run(finished: Workplace) -> None:
    diagnosis = json.loads(finished.run("doctor", "--json"))
    evidence = diagnosis["evidence"]
    assert evidence["images"] == 36 and evidence["split"] == "test"
    assert (evidence["labelled"], evidence["unlabelled"], sum(evidence["pseudo"])) == (30, 300, 300)
    assert evidence["views_drawn"] == 330 and evidence["views_wrong"] == 0 and evidence["plan_changes"] == []
    assert evidence["crops_agree"] > 0.8
    assert len(evidence["losses"]) == evidence["epochs"] == 4
    assert 0 < evidence["floor"] < evidence["guessing"] < math.log(3)
    report = json.loads((finished.root / "runs/teacher/report.json").read_text())
    assert evidence["gain"] == report["gain"]
    shows = {cause["cause"]: cause["shows"] for cause in diagnosis["causes"]}
    assert not shows["class map wrong"] and not shows["views inconsistent"] and not shows["too little unlabelled data"]
    told = finished.run("doctor", "runs/teacher")
    assert "cause" in told and "what to do" in told and "labels verify" in " ".join(told.split())


def test_a_finished_run_of_masks(segmented: Workplace) -> None:
    diagnosis = json.loads(segmented.run("doctor", "--json"))
    evidence = diagnosis["evidence"]
    assert evidence["by_pixel"] and evidence["images"] == 10 and evidence["split"] == "test"
    assert (evidence["labelled"], evidence["unlabelled"]) == (16, 60)
    assert (sum(evidence["pseudo"]), sum(evidence["known"])) == (pytest.approx(60), pytest.approx(16))
    stage = json.loads((segmented.root / "runs/teacher/teacher/stage.json").read_text())
    counts = np.array(stage["summary"]["scores"]["validation"]["confusion"])
    lowest = (counts.diagonal() / counts.sum(axis=1)).min()
    (told,) = [c["evidence"] for c in diagnosis["causes"] if c["cause"] == "class map wrong"]
    assert f"lowest recall of the teacher {percent(lowest, 0)};" in told
    assert 0.5 < evidence["agreement"] <= 1
    report = json.loads((segmented.root / "runs/teacher/report.json").read_text())
    assert evidence["gain"] == report["gain"]
    shows = {cause["cause"]: cause["shows"] for cause in diagnosis["causes"]}
    assert not shows["class map wrong"] and not shows["views inconsistent"] and shows["capacity"] is False
    assert "cut as the view is" in " ".join(segmented.run("doctor").split())


def test_a_run_that_went_wrong(finished: Workplace, tmp_path: Path) -> None:
    """Two classes swapped by the teacher, another crop than the store's, and a student that answers by chance."""
    run = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", run, ignore=shutil.ignore_patterns("export", "tensorboard"))
    stage = json.loads((run / "teacher/stage.json").read_text())
    confusion = stage["summary"]["scores"]["validation"]["confusion"]
    confusion[0], confusion[1] = confusion[1], confusion[0]
    (run / "teacher/stage.json").write_text(json.dumps(stage))
    for split in ("validation", "test"):
        path = run / f"student/predictions/{split}.parquet"
        said = LabelAnswers.load(path)
        noise = np.random.default_rng(0).normal(size=said.logits.shape).astype(np.float32)
        LabelAnswers(said.ids, noise, said.truth).save(path)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["resize"] = "squash"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    diagnosis = diagnose(gather(Run(run), settings_of(Run(run))))
    assert diagnosis["verdict"].startswith("the student is worse than the control")
    told = {cause["cause"]: cause["evidence"] for cause in diagnosis["causes"] if cause["shows"]}
    assert "green is called red is called green" in told["class map wrong"]
    assert told["views inconsistent"] == "resize of the views was center_crop for the teacher, is squash"


def test_an_unfinished_run_is_no_diagnosis(finished: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", run, ignore=shutil.ignore_patterns("export", "tensorboard"))
    (run / "student/stage.json").unlink()
    told = finished.run("doctor", str(run), expect=2)
    assert "the stage student is not finished; `distill run` goes on with it" in told


def test_stages_of_different_images_are_no_diagnosis(finished: Workplace, tmp_path: Path) -> None:
    """As `distill run --until labels` leaves them after photos were added."""
    run = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", run, ignore=shutil.ignore_patterns("export", "tensorboard"))
    path = run / "student/choice.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(1).replace_schema_metadata(), path)
    with pytest.raises(RunFolderError, match="its stages were done with different images; `distill run` brings them"):
        gather(Run(run), settings_of(Run(run)))


def test_no_torch(finished: Workplace, tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['distill', *{arguments}]; from distill.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {{'torch', 'timm', 'sklearn', 'matplotlib'}} & set(sys.modules)\n"
    )
    (tmp_path / "runs").symlink_to(finished.root / "runs")
    for arguments in (["doctor"], ["labels", "stat"], ["labels", "export", "labels.csv"]):
        done = subprocess.run(
            [sys.executable, "-c", program.format(arguments=arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
