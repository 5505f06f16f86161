"""Answers become truth: in the run that was reviewed, in another by its config, and by a CSV."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.core.errors import DataError
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
    assert "found cat" in _review(photos, "--classes", "cat", expect=2)
    assert "--classes: a run has its own classes" in _review(run.root, "--classes", "a,b", expect=2)
    assert "found no folder" in _review(tmp_path / "nowhere", "--classes", "a,b", expect=2)
    assert "--user: a name has 1 to 40 letters" in _review(run.root, "--user", "a" * 41, expect=2)
    shutil.rmtree(run.folder("labels"))
    assert "no finished label store" in _review(run.root, expect=2)


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
