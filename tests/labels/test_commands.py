"""`distill labels stat|verify|show|export`, through the command line, on a finished run."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

from distill.core.run import Run
from distill.core.tables import write_table
from distill.data.views import View
from distill.labels.again import sampled
from distill.labels.dump import harmless
from distill.labels.shards import shard_path
from distill.labels.stat import confidence, open_labels
from distill.labels.store import Shard
from distill.labels.verify import Verified
from tests.workplace import Workplace


@pytest.fixture
def copy(finished: Workplace, tmp_path: Path) -> Path:
    """A run folder to change."""
    run = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", run, ignore=shutil.ignore_patterns("export", "tensorboard"))
    return run


def test_stat_counts_what_is_there(finished: Workplace) -> None:
    document = json.loads(finished.run("labels", "stat", "--json"))
    labelled = open_labels(Run(finished.root / "runs/teacher"))
    store = labelled.store
    assert (document["images"], document["views_an_image"], document["views"]) == (330, store.views, len(store))
    assert document["bytes"] == sum(shard_path(store.folder, n).stat().st_size for n in range(store.shards))
    assert document["bytes_a_view"] == document["bytes"] / len(store) < 64
    assert document["teacher"]["name"] == "test_resnet" and document["precision"].startswith("float32")
    answers = store.targets(0)
    counted = Counter(answers.argmax(axis=1).tolist())
    assert [row["images"] for row in document["pseudo_labels"]] == [counted[place] for place in range(3)]
    assert sum(row["share"] for row in document["pseudo_labels"]) == pytest.approx(1)
    assert document["mean_confidence"] == pytest.approx(float(answers.max(axis=1).mean()), abs=1e-6)
    assert document["confidence"]["0"] == pytest.approx(float(answers.max(axis=1).min()), abs=1e-6)
    assert document["mean_entropy"] == pytest.approx(float(store.entropy(0).mean()), abs=1e-6)
    assert document["left_out_by_guard"] == {}
    assert document["left_out_by_trust"] == {"used": 330, "left_out": 0, "by_reason": {}, "by_class": {}}
    curve = document["validation"]["precision_coverage"]
    assert document["validation"]["images"] == curve[0]["images"] == 24 and curve[0]["coverage"] == 1
    assert all(0 <= p["low"] <= p["precision"] <= p["high"] < 1 + 1e-12 for p in curve)
    assert document["hidden"] is None


def test_stat_for_people(finished: Workplace) -> None:
    told = finished.run("labels", "stat", "--run", "runs/teacher")
    size = json.loads(finished.run("labels", "stat", "--json"))["bytes_a_view"]
    assert f"bytes a view: {size:.1f} (" in told
    assert "left out by trust: 0 of 330" in told
    assert all(name in told for name in ("green", "red", "violet", "95 % interval", "coverage"))


def test_stat_gives_reasons_and_the_accuracy_on_hidden_labels(finished: Workplace, copy: Path) -> None:
    _change_manifest(copy)
    choice = pyarrow.parquet.read_table(copy / "student/choice.parquet").to_pylist()
    for number, row in enumerate(choice[:5]):
        row |= {"weight": 0.0, "class": "red", "reason": f"confidence 0.50{number} below 0.610"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(choice), copy / "student/choice.parquet")
    document = json.loads(finished.run("labels", "stat", "--json", "--run", str(copy)))
    assert document["left_out_by_guard"] == {"cannot be read": 1}
    assert document["left_out_by_trust"] == {
        "used": 325, "left_out": 5, "by_reason": {"confidence below 0.610": 5}, "by_class": {"red": 5}
    }  # fmt: skip
    assert document["hidden"]["images"] == 30
    assert 0.8 < document["hidden"]["accuracy"]["low"] <= document["hidden"]["accuracy"]["value"] <= 1
    told = finished.run("labels", "stat", "--run", str(copy))
    assert "left out: 1 x cannot be read" in told and "5 x confidence below 0.610" in told and "5 called red" in told
    assert "right on hidden labels: " in told


def test_stat_reads_validation_as_trust_does(finished: Workplace, copy: Path) -> None:
    _change_config(copy, trust={"calibrate": True})
    validation = json.loads(finished.run("labels", "stat", "--json", "--run", str(copy)))["validation"]
    assert validation["calibration"]["temperature"] != 1
    assert validation["calibration"]["nll_after"] < validation["calibration"]["nll_before"]


def test_verify_finds_the_very_answers(finished: Workplace) -> None:
    run = finished.root / "runs/teacher"
    before = {path: path.stat().st_mtime_ns for path in (run / "labels").iterdir()}
    told = finished.run("labels", "verify", "--sample", "100")
    assert "2 shards read, all checksums match" in told
    assert "128 views asked again in 4 batches of 32, cut as when labelled" in told
    assert "5280 views drawn again, all are those of the store" in told
    assert "all differences are rounding of what is stored" in told
    assert {path: path.stat().st_mtime_ns for path in (run / "labels").iterdir()} == before


def test_verify_refuses_another_teacher(finished: Workplace, copy: Path) -> None:
    path = copy / "teacher/weights.safetensors"
    weights = {name: np.array(values) for name, values in load_file(path).items()}
    name = next(name for name, values in weights.items() if values.ndim == 4)
    weights[name].reshape(-1)[0] += 1e-6
    save_file(weights, path)
    told = finished.run("labels", "verify", "--run", str(copy), expect=2)
    assert "the teacher is not the one that filled the store: its weights, normalisation, model, tiles" in told
    assert "run the same command again to label anew" in told


def test_verify_says_what_changed(finished: Workplace, copy: Path) -> None:
    _change_config(copy, teacher={"test_time_augmentation": "mirror"})
    told = finished.run("labels", "verify", "--run", str(copy), expect=2)
    assert "filled the store: test_time_augmentation was none, is mirror (digest" in told
    _change_config(copy, teacher={"test_time_augmentation": "none", "precision": "bfloat16"})
    told = finished.run("labels", "verify", "--run", str(copy), expect=2)
    assert "the teacher answered in float32" in told and "now it would in bfloat16 (set)" in told
    _change_config(copy, train={"min_crop": 0.5})
    told = finished.run("labels", "verify", "--run", str(copy), expect=2)
    assert "the views are not those that the teacher was asked about: min_area was 0.4, is 0.5" in told


def test_verify_names_the_damaged_shard(finished: Workplace, copy: Path) -> None:
    path = shard_path(copy / "labels", 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told = finished.run("labels", "verify", "--run", str(copy), expect=2)
    assert f"{path} is damaged (its checksum does not match)" in told


def test_a_store_of_other_classes_or_images_is_refused(finished: Workplace, copy: Path) -> None:
    facts = json.loads((copy / "labels/store.json").read_text())
    (copy / "labels/store.json").write_text(json.dumps({**facts, "class_names": ["a", "b", "c"]}))
    told = finished.run("labels", "stat", "--run", str(copy), expect=2)
    assert "answers in the classes ['a', 'b', 'c'], the images now have ['green', 'red', 'violet']" in told
    (copy / "labels/store.json").write_text(json.dumps(facts))
    _change_manifest(copy, without=1)
    assert "is about 330 other images than the 329" in finished.run("labels", "stat", "--run", str(copy), expect=2)


@pytest.mark.parametrize(("largest", "said"), [(0.0, "all differences are rounding"), (0.004, "7 differ by more")])
def test_what_verify_says_of_differences(largest: float, said: str) -> None:
    found = Verified(1, 10, 10, 1, 32, 0, "float32", 30, 7 if largest else 0, largest, 2.0**-12)
    assert said in list(found.describe())[-1]


def test_the_sample_is_of_whole_batches_and_of_all_shards() -> None:
    chosen = sampled(4096 + 100, 4096, batch_size=96, sample=10**6, seed=0)
    assert chosen == {0: list(range(43)), 1: [0, 1]}  # 4096 = 42 * 96 + 64
    few = sampled(4096 + 100, 4096, batch_size=96, sample=97, seed=0)
    assert sum(map(len, few.values())) == 2
    assert few == sampled(4096 + 100, 4096, batch_size=96, sample=97, seed=0)


def test_show_draws_a_sheet(finished: Workplace, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    told = finished.run("labels", "show", "--out", str(path), "--count", "8", "--class", "green", "--lowest")
    assert told.strip() == str(path)
    sheet = Image.open(path)
    assert sheet.width == 6 * 204 + 12
    pixels = np.asarray(sheet.convert("RGB")).astype(int)[12:204, 12:204].mean(axis=(0, 1))
    assert pixels.argmax() == 1, "what the teacher calls green is green"
    again = tmp_path / "again.png"
    finished.run("labels", "show", "--out", str(again), "--count", "8", "--class", "green", "--lowest")
    assert again.read_bytes() == path.read_bytes()


def test_show_wants_the_name_of_a_file(finished: Workplace, tmp_path: Path) -> None:
    told = finished.run("labels", "show", "--out", str(tmp_path), expect=2)
    assert f"{tmp_path} is a folder, expected the name of a file" in " ".join(told.split())


def test_show_takes_the_least_sure(finished: Workplace) -> None:
    from distill.labels.sheet import choose

    labelled = open_labels(Run(finished.root / "runs/teacher"))
    shown = choose(labelled, 10, name=None, lowest=True, seed=0)
    sure = [one.said[0][1] for one in shown]
    assert sure == sorted(sure) and len({one.record.id for one in shown}) == 10
    every = np.concatenate([confidence(labelled.store.shard(n), 3) for n in range(labelled.store.shards)])
    assert sure[0] == pytest.approx(float(every.min()))
    plan_view = labelled.store.read(
        np.array([labelled.store.position(shown[0].record.id)]), np.array([shown[0].number])
    )[0][0]
    assert shown[0].view == plan_view


def test_show_says_which_classes_there_are(finished: Workplace) -> None:
    told = finished.run("labels", "show", "--class", "blue", expect=2)
    assert "--class: found no class 'blue'; known: green, red, violet" in told


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_export_writes_every_view(finished: Workplace, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"labels.{kind}"
    assert finished.run("labels", "export", str(path)).strip() == f"{path}: 5280 views"
    if kind == "csv":
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    labelled = open_labels(Run(finished.root / "runs/teacher"))
    assert len(rows) == 5280
    row, record = rows[-1], labelled.records[-1]
    assert (row["image"], row["path"], int(row["view"])) == (record.id, record.path, 15)
    (view,), answers = labelled.store.read(np.array([329]), np.array([15]))
    assert [int(row[name]) for name in ("left", "top", "width", "height")] == list(view[:4])
    assert str(row["flip"]).lower() == str(view.flip).lower()
    best = int(answers[0].argmax())
    assert row["class_1"] == labelled.manifest.classes[best]
    assert float(row["probability_1"]) == pytest.approx(float(answers[0, best]), abs=1e-3)
    assert float(row["entropy"]) == pytest.approx(float(labelled.store.entropy(15)[-1]), abs=1e-6)


def test_export_refuses_other_kinds(finished: Workplace, tmp_path: Path) -> None:
    told = finished.run("labels", "export", str(tmp_path / "labels.txt"), expect=2)
    assert "labels.txt: expected a name that ends in .parquet or .csv" in told
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in finished.run("labels", "export", str(tmp_path / "folder.csv"), expect=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("glass", "glass"), ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"), ("\uff1d1", "'\uff1d1"), ("a=b", "a=b"), ("", ""),
    ],
)  # fmt: skip
def test_csv_holds_no_formula(text: str, written: str) -> None:
    assert harmless(text) == written


def test_confidence_is_scaled_as_training_reads_it() -> None:
    views = [View(0, 0, 8, 8, False)]
    ids, top = np.array([[2, 0]]), np.array([[0.5, 0.25]], np.float16)
    shard = Shard(["0" * 16], views, ids, top, np.array([0.25], np.float16), np.array([1.0], np.float16))
    assert confidence(shard, classes=5).tolist() == [0.5]
    assert confidence(shard, classes=2).tolist() == [pytest.approx(2 / 3)]


def test_without_a_run_or_labels(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    assert "found no run in runs" in place.run("labels", "stat", expect=2)
    assert "found no run folder nowhere" in place.run("labels", "export", "x.csv", "--run", "nowhere", expect=2)
    Run.create(tmp_path / "runs/new")
    assert "the stage data is not finished" in place.run("labels", "stat", expect=2)


def _change_config(run: Path, **sections: dict[str, object]) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for name, values in sections.items():
        settings[name] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(settings))


def _change_manifest(run: Path, without: int = 0) -> None:
    """Hide the labels of the labelled training images, leave out one file more; or drop some training images."""
    table = pyarrow.parquet.read_table(run / "data/manifest.parquet")
    rows = table.to_pylist()
    if without:
        gone = [row for row in rows if row["split"] == "train"][:without]
        rows = [row for row in rows if row not in gone]
    else:
        for row in rows:
            row["hidden"] = row["hidden"] or (row["split"] == "train" and row["label"] is not None)
        rows.append({**rows[0], "id": "", "path": "gone.png", "split": None, "reason": "cannot be read (no such file)"})
    write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), run / "data/manifest.parquet")
