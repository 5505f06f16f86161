"""What other commands left in the run folder, as far as it is about the run as it is now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.core.files import write_json
from distill.core.run import Run
from distill.report import extras
from distill.report.pictures import AUDITED


def drawn(path: Path, columns: int, rows: int, side: int = 16) -> None:
    """A picture whose squares have each their own grey: 10 times their number."""
    values = 10 * np.arange(columns * rows, dtype=np.uint8).reshape(rows, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.repeat(side, 0).repeat(side, 1)).convert("RGB").save(path)


def greys(picture: bytes, folder: Path, columns: int) -> list[int]:
    (folder / "one").write_bytes(picture)
    with Image.open(folder / "one") as image:
        row = np.asarray(image.convert("L"))[image.height // 2].reshape(columns, -1)
    return [round(float(value) / 10) for value in row.mean(axis=1)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run")
    for stage in ("data", "teacher", "student", "export"):
        run.begin(stage, f"of {stage}")
        run.finish(stage, f"of {stage}", 1.0, {})
    return run


def perturbation(run: Run, **made_from: str) -> None:
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    asked = [("none", 0.0), ("blur", 1.0), ("blur", 2.0), ("brightness", 0.5), ("brightness", 2.0)]
    rows = [{"kind": k, "level": v, "score": {**score, "value": n / 10}, "nll": 1.0} for n, (k, v) in enumerate(asked)]
    kinds = {"blur": {"unit": "pixels", "levels": [1.0, 2.0]}, "brightness": {"unit": "times", "levels": [0.5, 2.0]}}
    known = {"format": 1, "split": "test", "images": 9, "metric": {}, "made_from": made_from}
    write_json(
        run.root / "looking/perturbation.json", {**known, "kinds": kinds, "curves": [{"name": "s", "rows": rows}]}
    )
    drawn(run.root / "looking/perturbation-examples.png", 3, 2)


def test_levels_stand_in_order_with_the_photo_as_it_is_where_it_belongs(run: Run, tmp_path: Path) -> None:
    perturbation(run, student="of student", export="of export")
    pictures: dict[str, bytes] = {}
    found = extras.perturbed(run, pictures)
    blur, brightness = found["kinds"]
    assert blur["levels"] == [None, 1.0, 2.0] and brightness["levels"] == [0.5, None, 2.0]
    values = [[score["value"] for score in kind["series"][0]["scores"]] for kind in found["kinds"]]
    assert values == [[0.0, 0.1, 0.2], [0.3, 0.0, 0.4]]
    shown = [greys(pictures[kind["picture"]], tmp_path, 3) for kind in found["kinds"]]
    assert shown == [[0, 1, 2], [4, 3, 5]]


def test_what_was_made_of_an_earlier_student_is_not_shown(run: Run) -> None:
    perturbation(run, student="of student", export="an earlier one")
    assert extras.perturbed(run, {}) is None
    perturbation(run)  # of a version that did not note it
    assert extras.perturbed(run, {}) is None
    looked = {"format": 1, "made_from": {"student": "an earlier one"}, "filters": None, "mistakes": []}
    write_json(run.root / "looking/looking.json", looked)
    assert extras.looked_at(run, {}) is None
    write_json(run.root / "looking/looking.json", {**looked, "made_from": {"student": "of student"}})
    assert extras.looked_at(run, {}) == {"filters": None, "heat_maps": []}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "null"])
def test_missing_and_damaged_files_count_as_not_there(run: Run, text: str) -> None:
    if text:
        for name in ("audit/audit.json", "sanity.json", "looking/looking.json", "student/strip/strip.json"):
            (run.root / name).parent.mkdir(parents=True, exist_ok=True)
            (run.root / name).write_text(text)
    assert extras.audited(run, 100, {}) is extras.checked(run) is extras.looked_at(run, {}) is None
    assert extras.learnt(run, 1, {}) is extras.perturbed(run, {}) is None


def test_a_few_epochs_from_the_first_to_the_last_and_the_one_that_was_kept(run: Run, tmp_path: Path) -> None:
    folder = run.root / "student/strip"
    said = {"answer": "cup", "confidence": 0.5, "truth_probability": 0.5}
    images = [{"id": str(n), "path": f"/a/b/c/{n}.png", "truth": "cup"} for n in range(3)]
    epochs = [{"epoch": n, "answers": [said] * 3} for n in range(1, 301)]
    write_json(folder / "strip.json", {"format": 1, "images": images, "picture": "images", "epochs": epochs})
    drawn(folder / "images.png", 3, 1)
    pictures: dict[str, bytes] = {}
    found = extras.learnt(run, 222, pictures)
    numbers = [each["epoch"] for each in found["epochs"]]
    assert numbers[0] == 1 and numbers[-1] == 300 and len(numbers) <= 6
    assert [each["epoch"] for each in found["epochs"] if each["kept"]] == [222]
    assert [greys(pictures[f"strip-{n}"], tmp_path, 1)[0] for n in range(3)] == [0, 1, 2]
    assert found["images"][0]["path"] == "b/c/0.png"
    masks = [{"epoch": n, "picture": f"epoch-{n:04d}"} for n in (1, 2)]
    write_json(folder / "strip.json", {"format": 1, "images": images, "picture": "images", "epochs": masks})
    drawn(folder / "epoch-0002.png", 3, 1)
    pictures.clear()
    found = extras.learnt(run, 2, pictures)
    assert [each["picture"] for each in found["epochs"]] == ["strip-1", "strip-2"]
    assert pictures.keys() == {"strip", "strip-2"}


def audit(run: Run, **more: Any) -> None:
    drawn(run.root / "a.png", 1, 1)
    image = {"path": str(run.root / "a.png"), "split": "test", "label": "cup", "detail": ""}
    gone = {**image, "path": str(run.root / "gone.png")}
    text = {"title": "t", "meaning": "m", "rule": "r"}
    pairs = [{"first": image, "second": image, "detail": f"pair {n}"} for n in range(500)]
    findings = [
        {"level": "error", **text, "count": 500, "images": [], "pairs": pairs},
        *({"level": "warning", **text, "count": 500, "images": [gone, *[image] * 500], "pairs": []} for _ in range(9)),
        {"level": "note", **text, "count": 1, "images": [image], "pairs": []},
    ]
    levels = {"error": 1, "warning": 9, "note": 1}
    write_json(
        run.root / "audit/audit.json", {"format": 1, "levels": levels, "findings": findings, "notes": [], **more}
    )


def test_an_audit_of_these_images_with_some_of_them(run: Run) -> None:
    audit(run)
    pictures: dict[str, bytes] = {}
    found = extras.audited(run, 100, pictures)
    shown = [len(finding["shown"]) for finding in found["findings"]]
    assert shown[:2] == [4, 3] and shown[-1] == 0, "pairs whole, files that are gone left out, notes without"
    assert 14 < sum(shown) == len(pictures) <= AUDITED
    assert [each["detail"] for each in found["findings"][0]["shown"]] == ["", "pair 0", "", "pair 1"]
    assert list(extras.notes({"audit": found, "sanity": None})) == ["The audit found an error: t (500)."]
    later = (run.root / "audit/audit.json").stat().st_mtime + 5
    os.utime(run.root / "data/stage.json", (later, later))
    assert extras.audited(run, 100, {}) is None, "images were read anew since"


def test_the_report_is_behind_what_came_later(run: Run) -> None:
    audit(run)
    assert not extras.behind(run), "there is no report yet"
    write_json(run.root / "report.json", {})
    now = (run.root / "report.json").stat().st_mtime
    os.utime(run.root / "audit/audit.json", (now - 5, now - 5))
    assert not extras.behind(run)
    os.utime(run.root / "audit/audit.json", (now + 5, now + 5))
    assert extras.behind(run)
