"""Answers become truth: in the run that was reviewed, in another by its config, and by a CSV."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distill import pipeline
from distill.config_file import load_config
from distill.core.errors import DataError, StoreError, UserError
from distill.core.run import Run
from distill.data.manifest import Manifest
from distill.review import command
from distill.review.journal import Journal
from distill.review.subject import of_folder, of_run
from tests.review.conftest import NAMES, PLAIN, read_data
from tests.workplace import Workplace


def answer(run_or_folder: Any, said: dict[str, str], user: str = "ann") -> None:
    """Write answers as the page does: a class or an action by image id."""
    journal = Journal(run_or_folder.folder, run_or_folder.classes)
    for image, what in said.items():
        row = {"action": "label", "label": what} if what in run_or_folder.classes else {"action": what}
        journal.append([{"user": user, "key": f"{user}-{image[:20]}", "image": image, **row}])
    journal.close()


def test_the_least_sure_come_first_and_disagreement_is_found(sorted_run: Callable[..., Run]) -> None:
    run = sorted_run()
    items = list(of_run(run).items.values())
    assert [item.sure for item in items] == sorted(item.sure for item in items)
    assert all(item.suggestion == (item.record.label or item.said[0][0]) for item in items)
    unsure = of_run(run, "unsure").items
    assert list(unsure) == [item.record.id for item in items if item.sure < 0.8]
    wrong = of_run(run, "disagree").items.values()
    assert wrong and {item.record.id for item in wrong} == {
        item.record.id for item in items if item.record.label and item.said[0][0] != item.record.label
    }
    assert all(item.others == (f"teacher: {item.said[0][0]}",) for item in wrong)


def test_answers_are_truth_of_the_same_config(sorted_run: Callable[..., Run]) -> None:
    run = sorted_run()
    root = run.root.parent
    before = run.summary("data")
    subject = of_run(run)
    new = [i for i, item in subject.items.items() if not item.record.labelled][:3]
    known = [item.record for item in subject.items.values() if item.record.labelled][:2]
    other = NAMES[(NAMES.index(str(known[1].label)) + 1) % 3]
    said = {new[0]: "red", new[1]: "violet", new[2]: "reject"}
    answer(subject, {**said, known[0].id: str(known[0].label), known[1].id: other, "f" * 64: "red"})
    manifest = read_data(root)
    found = {record.id: record for record in manifest.records}
    assert (found[new[0]].label, found[new[1]].label, found[known[1].id].label) == ("red", "violet", other)
    assert all(found[image].split == "train" for image in (*new[:2], known[0].id))
    assert {entry.id: entry.reason for entry in manifest.left_out} == {new[2]: "rejected in a review"}
    summary = run.summary("data")
    assert summary["reviewed"] == {"new": 2, "confirmed": 1, "changed": 1, "left_out": 1, "elsewhere": 1}
    assert summary["digest"] != before["digest"] and summary["truth_digest"] != before["truth_digest"]
    stamp = (run.folder("data") / "stage.json").stat().st_mtime_ns
    read_data(root)
    assert (run.folder("data") / "stage.json").stat().st_mtime_ns == stamp  # nothing new was said
    shutil.rmtree(subject.folder)
    assert read_data(root).digest() == before["digest"]


def test_another_run_takes_them_by_its_config_and_says_so(sorted_run: Callable[..., Run]) -> None:
    run = sorted_run()
    root = run.root.parent
    subject = of_run(run)
    image = next(i for i, item in subject.items.items() if not item.record.labelled)
    answer(subject, {image: "violet"})
    text = (root / "teacher.yaml").read_text().replace("data: {", "data: {corrections: run/review/journal.jsonl, ")
    (root / "other.yaml").write_text(text)
    said = Workplace(root).run("run", "other.yaml", "--until", "data")
    assert "truth by review: 1 new\n" in said
    (record,) = [r for r in Manifest.load(root / "runs/other/data/manifest.parquet").records if r.id == image]
    assert record.label == "violet"
    (root / "run/review/journal.jsonl").write_text("no journal\n")
    said = Workplace(root).run("run", "other.yaml", "--until", "data", expect=2)
    assert "is no journal of `distill review`" in " ".join(said.split())


def test_a_folder_becomes_a_labelled_set(tmp_path: Path, sorted_run: Callable[..., Run]) -> None:
    photos = sorted_run(unlabelled=12, labelled=6).root.parent / "unlabeled"
    with pytest.raises(DataError, match="found no image that can be read"):
        of_folder((tmp_path / "empty").mkdir() or tmp_path / "empty", ["a", "b"])
    subject = of_folder(photos, ["green", "red", "violet"])
    assert len(subject.items) == 12
    said = {i: Path(item.record.path).name.split("-")[0] for i, item in subject.items.items()}
    answer(subject, said)
    output = tmp_path / "sorted.csv"
    done = _review(photos, "--export", output)  # the journal knows the classes
    assert done == f"{output}: 12 answers\n"
    lines = output.read_text().splitlines()
    changed = [lines[0], *(line.replace(",train,", ",validation,") if "-00" in line else line for line in lines[1:])]
    output.write_text("\n".join(changed) + "\n")
    (tmp_path / "teacher.yaml").write_text(f"data: {{manifest: sorted.csv}}\n{PLAIN}")
    shutil.rmtree(tmp_path / "run")
    counts = read_data(tmp_path).counts()
    assert (counts["train_labelled"], counts["validation"]) == (2, 10)


def _review(*arguments: str | Path, expect: int = 0) -> str:
    command = [sys.executable, "-m", "distill", "review", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_mistakes_are_said(sorted_run: Callable[..., Run], tmp_path: Path) -> None:
    run = sorted_run()
    photos = tmp_path / "unlabeled"
    assert "is no run: sort its photos by --classes NAME,NAME,…" in _review(photos, expect=2)
    for path, classes, message in (
        (photos, ["cat"], "at least two different names; found cat"),
        (photos, ["cat", "cat"], "at least two different names; found cat, cat"),
        (run.root, ["a", "b"], "--classes: a run has its own classes"),
        (tmp_path / "nowhere", ["a", "b"], "found no folder"),
    ):
        with pytest.raises(UserError, match=message):
            command.open_subject(path, "all", classes)
    with pytest.raises(UserError, match="--user: a name has 1 to 40 letters"):
        command.import_from(of_run(run), tmp_path / "x.csv", "csv", "a" * 41)
    shutil.rmtree(run.folder("labels"))
    with pytest.raises(StoreError, match="no finished label store"):
        command.open_subject(run.root, "all", [])


def test_ctrl_c_ends_it_well(tmp_path: Path, save_image: Callable[..., Path]) -> None:
    save_image(tmp_path / "photos/1.png")
    process = Workplace(tmp_path).start("review", "photos", "--classes", "cat,dog", "--no-browser")
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    assert said[0] == "0 of 1 images are answered; answers are saved in\n"
    assert said[1] == f"{tmp_path}/photos/.distill-review/journal.jsonl\n"
    assert said[2].startswith("open http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert (process.returncode, rest) == (0, "0 of 1 images are answered; the same command goes on\n")


def test_the_summary_says_how_far_people_agree(sorted_run: Callable[..., Run]) -> None:
    subject = of_run(sorted_run())
    order = list(subject.items)
    answer(subject, dict(zip(order, ["red"] * 4 + ["green"] * 4, strict=False)), "ann")
    answer(subject, dict(zip(order, ["red"] * 3 + ["green"] * 3, strict=False)), "bob")
    document = command.summary(subject)
    assert (document["images"], document["answered"]) == (len(order), 8)
    assert document["labels"] == {"green": 5, "red": 3}
    # Of six images five are equal. By chance, 4/6 * 3/6 + 2/6 * 3/6 = 1/2 would be.
    (pair,) = document["agreement"]
    assert pair["people"] == ["ann", "bob"] and pair["images"] == 6
    assert pair["equal"] == pytest.approx(5 / 6) and pair["kappa"] == pytest.approx((5 / 6 - 1 / 2) / (1 / 2))
    lines = list(command.describe(document))
    assert "ann and bob agree on 83.3 % of 6, Cohen's kappa 0.667" in lines


BY_COLOUR = '''
"""Answers by the nearest of three mean colours."""
import numpy as np

COLOURS = np.array([(40, 160, 60), (180, 50, 40), (120, 60, 170)])


def answer(images):
    means = images.mean(axis=(1, 2))
    return -np.abs(means[:, None] - COLOURS).sum(axis=-1).astype(np.float32) / 20
'''


def test_a_teacher_that_is_not_fitted_is_not_asked_again(
    sorted_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sorted_run().root.parent
    (root / "by_colour.py").write_text(BY_COLOUR)
    text = (root / "teacher.yaml").read_text().splitlines()
    text[1] = "teacher: {python: 'by_colour:answer', image_size: 32}\nlabels: {views: 1}"
    (root / "asked.yaml").write_text("\n".join(text) + "\n")
    monkeypatch.syspath_prepend(root)
    config = load_config(root / "asked.yaml", [f"output={root / 'asked'}"])
    run = Run(pipeline.run(config, Console(quiet=True), until="labels"))

    def done_again() -> list[str]:
        """Stages that work is done in."""
        stamps = {name: (run.folder(name) / "stage.json").stat().st_mtime_ns for name in ("data", "teacher", "labels")}
        pipeline.run(config, Console(quiet=True), until="labels")
        return [name for name, stamp in stamps.items() if (run.folder(name) / "stage.json").stat().st_mtime_ns > stamp]

    assert done_again() == []
    subject = of_run(run)
    image = next(i for i, item in subject.items.items() if not item.record.labelled)
    answer(subject, {image: "violet"})
    assert pipeline.plan(config).stages[0].why == "its inputs changed"
    assert done_again() == ["data"]
    assert of_run(run).items[image].record.label == "violet"
    rejected = next(i for i in subject.items if i != image)
    answer(subject, {rejected: "reject"})
    assert "labels" in done_again()  # the store is about one image less
    assert rejected not in of_run(run).items
