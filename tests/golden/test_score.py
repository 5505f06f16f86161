"""`distill score`: predictions of anybody, in the documented forms, on a run's test images or on a folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from rich.console import Console

from distill import pipeline
from distill.config_file import load_config
from distill.core.errors import DataError
from distill.core.run import Run
from distill.core.task import build_task
from distill.data.manifest import Manifest
from distill.report.golden import second_opinion
from tests.audit.conftest import photo, save
from tests.golden.conftest import SHAPES, Command, write_scene

Document = Callable[..., dict[str, Any]]
NAMES = ("cat", "dog", "eel", "fox", "gnu", "hen")


@pytest.fixture
def golden(tmp_path: Path) -> list[tuple[str, str]]:
    """A folder `golden` of six classes: paths below it, and classes."""
    rows = []
    for number in range(36):
        name = NAMES[number % 6]
        path = save(
            photo(number, (24, 20)), tmp_path / "golden" / name / ("day", "night")[number % 2] / f"{number}.png"
        )
        rows.append((str(path.relative_to(tmp_path / "golden")), name))
    return rows


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


def values(found: dict[str, Any]) -> dict[str, float]:
    return {key: figure["value"] for key, figure in found["rows"][0]["profile"]["figures"].items()}


def test_classes_alone(golden: list[tuple[str, str]], document: Document, tmp_path: Path) -> None:
    said = [(path, "cat" if number < 9 else name) for number, (path, name) in enumerate(golden)]
    write(tmp_path / "said.csv", ("image", "label"), [*said, ("elsewhere/1.png", "dog")])
    found = document("score", "said.csv", "--data", "golden", "--groups", "folder")
    right = sum(name == truth for (_, name), (_, truth) in zip(said, golden, strict=True)) / 36
    assert values(found)["accuracy"] == pytest.approx(right)
    assert set(values(found)) == {"accuracy", "balanced_accuracy", "macro_precision", "macro_f1"}
    (row,) = found["rows"]
    assert row["name"] == "said.csv" and found["others"] == 1 and row["profile"]["reliability"] == []
    assert set(row["profile"]["classes"]["cat"]) == {"precision", "recall", "f1"}
    assert [(g["name"], g["images"], g["small"]) for g in found["groups"]["rows"]] == [
        ("day", 18, True),
        ("night", 18, True),
    ]


def test_probabilities_give_every_figure(golden: list[tuple[str, str]], document: Document, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    truth = np.array([NAMES.index(name) for _, name in golden])
    shares = rng.dirichlet(np.ones(6), 36) + np.eye(6)[truth] * rng.uniform(0, 1, (36, 1))
    shares /= shares.sum(axis=1, keepdims=True)
    write(
        tmp_path / "said.csv",
        ("path", *NAMES),
        [(p, *each) for (p, _), each in zip(golden, shares.round(4), strict=True)],
    )
    columns = {"image": [str(tmp_path / "golden" / path) for path, _ in golden]}
    columns |= {name: shares[:, place] for place, name in enumerate(NAMES)}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "said.parquet")
    found = [values(document("score", f"said.{kind}", "--data", "golden")) for kind in ("csv", "parquet")]
    assert found[0] == pytest.approx(found[1], abs=0.01)
    assert found[1]["accuracy"] == pytest.approx((shares.argmax(axis=1) == truth).mean())
    top = np.argsort(-shares, axis=1)[:, :5]
    assert found[1]["top5"] == pytest.approx((top == truth[:, None]).any(axis=1).mean())
    assert {"roc_auc", "pr_auc", "calibration_error"} <= set(found[1])


def test_a_run_s_own_answers_score_as_the_run_says(run: Run, document: Document, command: Command) -> None:
    answers = "run/student/predictions/test.parquet"
    found = document("score", answers, "--run", "run")
    own = run.summary("student")["scores"]["test"]
    assert found["rows"][0]["profile"]["figures"]["accuracy"] == own["accuracy"]
    assert values(found)["macro_f1"] == pytest.approx(own["macro_f1"])
    assert document("score", answers, "--data", "test")["rows"] == found["rows"]
    assert "leave out one of both" in command("score", answers, "--run", "run", "--classes", "cat,dog", expect=2)
    assert "give --data, labelled images, or --run" in command("score", answers, expect=2)


def test_all_bad_rows_are_named(golden: list[tuple[str, str]], command: Command, tmp_path: Path) -> None:
    rows = [[path, name] for path, name in golden]
    rows[2][1], rows[4][1], rows[5][0], rows[6][0] = "horse", "", "", rows[0][0]
    write(tmp_path / "said.csv", ("image", "label"), rows)
    said = command("score", "said.csv", "--data", "golden", expect=2)
    assert "said.csv has 4 bad predictions:" in said
    for sentence in (
        "line 4, label: found 'horse', expected cat, dog, eel, fox, gnu, hen",
        "line 6, label: found ''",
        "line 7: names no image",
        f"line 8: a second prediction about {rows[0][0]}, the first is line 2",
    ):
        assert sentence in said
    logits = pa.table(
        {"image": [path for path, _ in golden], "logits": [[0.0] * 6] * 34 + [[0.0] * 5, [float("nan")] * 6]}
    )
    pyarrow.parquet.write_table(logits, tmp_path / "said.parquet")
    said = command("score", "said.parquet", "--data", "golden", expect=2)
    assert "2 bad predictions: row 35, logits: found [0.0, 0.0, 0.0, 0.0, 0.0], expected a list of 6 numbers" in said
    certain = [[path, *np.eye(6)[NAMES.index(name)]] for path, name in golden]
    certain[0][1], certain[1][2], certain[3][1] = "much", -0.5, 0.5
    write(tmp_path / "said.csv", ("image", *NAMES), certain)
    said = command("score", "said.csv", "--data", "golden", expect=2)
    assert "has 3 bad predictions" in said and "line 2, cat: found 'much', expected a probability, 0 to 1" in said
    assert "line 3, dog: found '-0.5'" in said and "line 5: the probabilities have the sum 1.5, expected 1" in said


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (("file", "label"), "expected the column image; found: file, label"),
        (("image", "class"), "expected the column label, or a column of probabilities for each class"),
        (("image", "cat"), "has no column for the class dog, eel, fox, gnu, hen"),
        (("image", "label", "cat"), "the column label and columns of classes (cat): leave out one of both"),
        (("image", "label", "label"), "has the column label more than once"),
    ],
)
def test_columns_that_do_not_say(
    golden: list[tuple[str, str]], command: Command, tmp_path: Path, header: Sequence[str], sentence: str
) -> None:
    write(tmp_path / "said.csv", header, [(path, *["cat"] * (len(header) - 1)) for path, _ in golden])
    assert sentence in command("score", "said.csv", "--data", "golden", expect=2)


def test_missing_predictions_are_counted(golden: list[tuple[str, str]], command: Command, tmp_path: Path) -> None:
    write(tmp_path / "said.csv", ("image", "label"), golden[:-2])
    said = command("score", "said.csv", "--data", "golden", expect=2)
    assert "no prediction about 2 of 36 images" in said and golden[-1][0] in said
    save(photo(90), tmp_path / "golden/cat/dusk/0.png")  # the name of another
    write(tmp_path / "said.csv", ("image", "label"), [("0.png", "cat")])
    assert "line 2: 0.png may be" in command("score", "said.csv", "--data", "golden", expect=2)
    (tmp_path / "said.parquet").write_bytes(b"no")
    assert "is not Parquet" in command("score", "said.parquet", "--data", "golden", expect=2)
    assert "images have classes here" in command("score", "golden", "--data", "golden", expect=2)


def test_masks(masked: Run, document: Document, command: Command, tmp_path: Path) -> None:
    own = document("score", "run/student/predictions/test.parquet", "--run", "run")
    assert own["rows"][0]["profile"]["figures"]["miou"] == masked.summary("student")["scores"]["test"]["miou"]
    assert set(values(own)) == {"miou", "pixel_accuracy", "boundary_f"}
    assert set(values(document("score", "test/masks", "--run", "run")).values()) == {1.0}
    manifest = Manifest.load(masked.folder("data") / "manifest.parquet")
    for record in manifest.of("test"):
        with Image.open(tmp_path / "test/masks" / Path(record.path).name) as mask:
            shifted = np.roll(np.array(mask), 16, axis=1)
        save(Image.fromarray(shifted), tmp_path / "said" / f"{record.id}.png")
    rows = [(record.path, f"said/{record.id}.png") for record in manifest.of("test")]
    write(tmp_path / "said.csv", ("image", "mask"), rows)
    by_folder, by_table = (document("score", each, "--run", "run") for each in ("said", "said.csv"))
    assert by_folder["rows"][0]["profile"] == by_table["rows"][0]["profile"]
    assert 0 < values(by_folder)["miou"] < 1
    without_run = document("score", "said", "--data", "test", "--classes", "background,disc,square")
    assert values(without_run) == values(by_folder)
    first, second, _ = (tmp_path / path for _, path in rows)
    save(Image.fromarray(np.full((80, 96), 9, np.uint8)), first)
    save(Image.fromarray(np.zeros((8, 9), np.uint8)), second)
    said = command("score", "said", "--run", "run", expect=2)
    assert "said has 2 bad predictions" in said and "found the value 9, expected places of classes, 0 to 2" in said
    assert "found 9x8 pixels, expected 96x80, as the image has" in said


def test_a_second_annotator_is_read_before_the_work(masked: Run, tmp_path: Path) -> None:
    manifest = Manifest.load(masked.folder("data") / "manifest.parquet")
    rows = []
    for split in ("train", "validation", "test"):
        for record in manifest.of(split):  # type: ignore[arg-type]
            truth = Path(record.path).parents[1] / "masks" / Path(record.path).name
            rows.append((record.path, truth, split, truth if split == "test" and len(rows) % 2 else ""))
    write(tmp_path / "index.csv", ("path", "mask", "split", "bob"), rows)
    (tmp_path / "teacher.yaml").write_text(
        SHAPES.replace("labeled: train, validation: val, test: test", "manifest: index.csv, second: bob")
    )
    settings = load_config(tmp_path / "teacher.yaml", [f"output={tmp_path / 'other'}"])
    pipeline.run(settings, Console(quiet=True), until="data")
    answers = second_opinion(settings.data, manifest.of("test"), build_task("segmentation", manifest.classes))
    assert answers is not None and 0 < len(answers.ids) < 3
    assert build_task("segmentation", manifest.classes).profile(answers).figures["miou"].value == 1.0
    stamp = (tmp_path / "other/data/stage.json").stat().st_mtime_ns
    without = settings.model_copy(update={"data": settings.data.model_copy(update={"second": None})})
    pipeline.run(without, Console(quiet=True), until="data")
    assert (tmp_path / "other/data/stage.json").stat().st_mtime_ns == stamp  # nothing that is trained on has changed
    save(Image.fromarray(np.full((80, 96), 9, np.uint8)), tmp_path / "wrong.png")
    write(tmp_path / "index.csv", ("path", "mask", "split", "bob"), [(*row[:3], "wrong.png") for row in rows])
    third = settings.model_copy(update={"output": tmp_path / "third"})
    with pytest.raises(DataError, match=r"data\.second: 1 mask cannot be used:\n.*no class for the value 9"):
        pipeline.run(third, Console(quiet=True), until="data")


def test_nothing_says_what_masks_stand_for(command: Command, tmp_path: Path) -> None:
    write_scene(tmp_path / "golden", 1)
    assert "nothing says what the values of masks stand for" in command(
        "score", "golden/masks", "--data", "golden", expect=2
    )


def test_names_are_shown_as_they_are(golden: list[tuple[str, str]], command: Command, tmp_path: Path) -> None:
    write(tmp_path / "[red]said.csv", ("image", "label"), golden)
    assert "[red]said.csv" in command("score", "[red]said.csv", "--data", "golden")
    assert json.loads(command("score", "[red]said.csv", "--data", "golden", "--json"))["rows"][0]["images"] == 36
