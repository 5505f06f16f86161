"""Planted problems are found, healthy images are left in peace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image, ImageFilter, ImageOps
from typer.testing import CliRunner

from distill.audit.columns import COLUMNS, FLAGS
from distill.audit.document import Document
from distill.audit.findings import of_masks
from distill.cli import app
from distill.core.files import sha256_of
from distill.core.run import Run
from distill.data.manifest import Manifest
from distill.review.journal import Journal
from distill.tasks._label_answers import LabelAnswers

from .conftest import Audit, photo, save

ROOT = Path(__file__).parents[2]


def names(finding: dict[str, Any]) -> set[str]:
    return {Path(image["path"]).name for image in finding["images"]}


def pairs(finding: dict[str, Any]) -> set[tuple[str, str]]:
    return {(Path(pair["first"]["path"]).name, Path(pair["second"]["path"]).name) for pair in finding["pairs"]}


def test_healthy_images(audit: Audit, photos: Path) -> None:
    found = audit(photos)
    assert found.code == 0, found.said
    assert found.kinds() <= {"suspect_label", "outlier"}  # of noise nobody can tell a cat
    assert found.document["splits"]["train"]["by_class"] == {"cat": 12, "dog": 12}
    assert "48 files; 24 train, 12 validation, 12 test" in found.printed


def test_a_labelled_image_in_two_splits_is_an_error_with_the_pair(audit: Audit, photos: Path) -> None:
    original = Image.open(photos / "test" / "cat" / "37.png")
    save(ImageOps.mirror(original).resize((48, 40)), photos / "train" / "cat" / "mirrored.png")
    shutil.copy(photos / "test" / "dog" / "43.png", photos / "val" / "dog" / "copied.png")
    found = audit(photos)
    assert found.code == 3
    assert pairs(found.finding("leak")) == {("mirrored.png", "37.png"), ("copied.png", "43.png")}
    splits = {(p["first"]["split"], p["second"]["split"]) for p in found.finding("leak")["pairs"]}
    assert splits == {("train", "test"), ("validation", "test")}
    assert found.finding("leak")["level"] == "error"
    assert str(photos / "train" / "cat" / "mirrored.png") in found.printed
    assert "Labelled images in two splits: 2" in found.said


def test_an_unlabelled_copy_of_a_test_image_is_a_warning(audit: Audit, photos: Path) -> None:
    save(Image.open(photos / "test" / "cat" / "37.png"), photos / "unlabeled" / "a.jpg")
    found = audit(photos)
    assert found.code == 0
    assert pairs(found.finding("pool_leak")) == {("a.jpg", "37.png")}


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("blurry", photo(500, (256, 256)).filter(ImageFilter.GaussianBlur(6))),
        ("dark", photo(501).point(lambda value: value // 5)),
        ("bright", photo(502).point(lambda value: 235 + value // 13)),
        ("low_contrast", photo(503).point(lambda value: 110 + value // 12)),
        ("tiny", photo(504, (40, 32))),
        ("odd_shape", photo(505, (400, 70))),
        ("outlier", Image.new("RGB", (90, 90), "red")),
    ],
)
def test_an_odd_image_is_found(audit: Audit, photos: Path, kind: str, image: Image.Image) -> None:
    save(image, photos / "train" / "dog" / "odd.png")
    found = audit(photos)
    assert found.code == 0
    assert "odd.png" in names(found.finding(kind))
    assert found.finding(kind)["count"] <= 2
    assert audit(photos, "--where", kind).printed.split("\t")[0].endswith("odd.png")


def test_damaged_files_are_listed_with_reasons(audit: Audit, photos: Path) -> None:
    (photos / "train" / "cat" / "cut.png").write_bytes((photos / "train" / "cat" / "1.png").read_bytes()[:400])
    (photos / "train" / "cat" / "notes.txt").write_text("hello")
    found = audit(photos)
    finding = found.finding("damaged")
    assert names(finding) == {"cut.png", "notes.txt"} and found.code == 0
    assert "not an image" in found.page
    assert sum(found.document["left_out"].values()) == 2


def test_the_same_bytes_under_two_labels_are_an_error(audit: Audit, photos: Path) -> None:
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "dog" / "also.png")
    found = audit(photos)
    assert found.code == 3
    assert pairs(found.finding("label_conflict")) == {("also.png", "1.png")}


def test_what_a_review_corrected_is_audited(audit: Audit, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher.yaml").write_text(
        "data: {labeled: photos/train, validation: photos/val, test: photos/test}\noutput: runs/mine\n"
        "teacher: {timm: test_resnet, pretrained: false}\nstudent: {timm: test_resnet, pretrained: false}\n"
    )
    Run.create(tmp_path / "runs/mine")
    first = audit("teacher.yaml").document["splits"]["train"]["by_class"]
    images = [sha256_of(photos / "train/cat" / f"{number}.png") for number in (1, 2)]
    journal = Journal(tmp_path / "runs/mine/review", ["cat", "dog"])
    said = ({"action": "label", "label": "dog"}, {"action": "reject"})
    journal.append([{"user": "ann", "key": i[:8], "image": i, **what} for i, what in zip(images, said, strict=True)])
    journal.close()
    found = audit("teacher.yaml").document
    assert first == {"cat": 12, "dog": 12} and found["splits"]["train"]["by_class"] == {"cat": 10, "dog": 13}
    assert found["left_out"] == {"rejected in a review": 1}


def test_near_copies_of_one_split(audit: Audit, photos: Path) -> None:
    original = photo(1)
    save(original.crop((5, 4, 91, 76)), photos / "train" / "dog" / "trimmed.png")
    shutil.copy(photos / "train" / "cat" / "2.png", photos / "train" / "cat" / "same.png")
    found = audit(photos)
    assert found.code == 0
    assert pairs(found.finding("near_label_conflict")) == {("1.png", "trimmed.png")}
    assert pairs(found.finding("near_copy")) == {("1.png", "trimmed.png")}
    assert pairs(found.finding("copy")) == {("same.png", "2.png")}
    table = pyarrow.parquet.read_table(found.folder / "audit.parquet").to_pylist()
    numbers = {Path(row["path"]).name: (row["copies"], row["near_copies"]) for row in table}
    assert numbers["2.png"] == numbers["same.png"] == (1, None)
    assert numbers["1.png"] == numbers["trimmed.png"] == (None, 1)


def test_a_class_that_only_the_test_set_has(audit: Audit, photos: Path) -> None:
    save(photo(900), photos / "test" / "fox" / "a.png")
    shutil.rmtree(photos / "val" / "dog")
    found = audit(photos)
    assert found.code == 3
    assert found.finding("test_only_class")["classes"] == ["fox"]
    assert found.finding("missing_in_validation")["classes"] == ["dog"]
    assert found.finding("rare_class")["classes"] == ["cat (24)", "dog (18)", "fox (1)"][1:]


def test_wrong_labels_are_suspected(audit: Audit, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        name = ("day", "night")[number % 2]
        level = {"day": 200, "night": 60}[name]
        pixels = np.clip(rng.normal(level, 20, (70, 70, 3)), 0, 255).astype(np.uint8)
        wrong = {7: "day", 20: "night"}.get(number, name)
        save(Image.fromarray(pixels), tmp_path / "photos" / wrong / f"{number}.png")
    found = audit()
    assert names(found.finding("suspect_label")) == {"7.png", "20.png"}
    assert "rather night" in found.page
    listed = json.loads(audit("photos", "--where", "suspect_label and label == 'day'", "--json").printed)
    assert [row["likely_label"] for row in listed["images"]] == ["night"]


@pytest.fixture
def finished_run(tmp_path: Path, photos: Path) -> Path:
    """A run whose stage `data` is done, and a place for what its teacher said."""
    (tmp_path / "teacher.yaml").write_text(CONFIG + "output: run\n")
    done = CliRunner().invoke(app, ["run", str(tmp_path / "teacher.yaml"), "--until", "data"])
    assert done.exit_code == 0, done.output
    (tmp_path / "run" / "teacher").mkdir()
    (tmp_path / "run" / "teacher" / "stage.json").write_text("{}")
    return tmp_path / "run"


def test_a_run_compares_labels_with_its_teachers_answers(audit: Audit, finished_run: Path) -> None:
    manifest = Manifest.load(finished_run / "data" / "manifest.parquet")
    for split in ("validation", "test"):
        records = manifest.of(split)
        truth = np.array([manifest.classes.index(str(record.label)) for record in records])
        logits = np.eye(2, dtype=np.float32)[truth] * 6
        if split == "test":
            logits[0] = logits[0, ::-1]
            wrong = Path(records[0].path).name
        answers = LabelAnswers(tuple(record.id for record in records), logits, truth)
        answers.save(finished_run / "teacher" / "predictions" / f"{split}.parquet")
    found = audit(finished_run)
    assert found.document["labels"][0] == {"by": "the teacher's answers", "images": 24, "accuracy": 0.9583}
    assert wrong in names(found.finding("suspect_label"))
    assert found.document["kind"] == "run" and found.code == 0


def test_masks(audit: Audit, tmp_path: Path) -> None:
    for number in range(6):
        save(photo(number), tmp_path / "photos" / "images" / f"{number}.png")
        mask = np.zeros((80, 96), np.uint8)
        if number:
            mask[:40] = 1
        mask[:, :24] = 255
        save(Image.fromarray(mask), tmp_path / "photos" / "masks" / f"{number}.png")
    config = """
task: segmentation
data: {labeled: photos, validation: 0.5, masks: {values: {0: background, 1: cat, 2: dog}}}
teacher: {smp: unet, encoder: tu-test_resnet, encoder_weights: null}
student: {smp: lraspp, encoder: mobilenetv4_conv_small, pretrained: false, image_size: 64}
"""
    (tmp_path / "teacher.yaml").write_text(config)
    found = audit("teacher.yaml")
    assert found.code == 0, found.said
    assert names(found.finding("empty_mask")) == {"0.png"}
    assert found.finding("unseen_class")["classes"] == ["dog"]
    rows = json.loads(audit("teacher.yaml", "--where", "shares['cat'] > 0.4", "--json").printed)["images"]
    assert len(rows) == 5
    assert rows[0]["ignored"] == pytest.approx(0.25) and rows[0]["foreground"] == pytest.approx(0.5)
    assert found.document["measures"]["foreground"]["least"] == 0
    as_folder = audit()
    assert as_folder.document["classes"] == ["value 0", "value 1"]


def test_masks_that_a_teacher_contradicts() -> None:
    rows = {str(n): {"id": str(n), "path": f"{n}.png", "split": "test", "label": None} for n in range(40)}
    agreement = {name: 0.9 - 0.002 * int(name) for name in rows} | {"7": 0.3}
    (found,) = of_masks(agreement, rows)
    assert [image.path for image in found.images] == ["7.png"] and found.images[0].detail == "IoU 0.30"
    assert [name for name, row in rows.items() if row.get("suspect_mask")] == ["7"]
    assert rows["8"]["teacher_iou"] == pytest.approx(0.884)
    assert list(of_masks({"1": 0.9, "2": 0.1}, rows)) == []


def test_hostile_names_are_escaped(audit: Audit, photos: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    save(photo(1), photos / "train" / name / f'"><script>{chr(27)}[31m&.png')
    save(photo(2), photos / "train" / name / "turned\u202egnp.png")
    found = audit(photos)
    assert "<script" not in found.page and "<img src=x" not in found.page
    assert "&lt;img src=x onerror=alert(1)&gt;" in found.page
    assert "\x1b" not in found.page + found.printed and "\u202e" not in found.page + found.printed
    listed = audit(photos, "--where", "'script' in path").printed
    assert "<script>" in listed and "\x1b" not in listed


def test_the_page_needs_nothing_else(audit: Audit, photos: Path) -> None:
    page = audit(photos).page
    assert "default-src 'none'" in page and "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/jpeg;base64,") == page.count("<img ") > 4


def test_the_same_again_reads_nothing_and_writes_nothing(audit: Audit, photos: Path) -> None:
    first = audit(photos)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in first.folder.iterdir()}
    assert set(before) == {"audit.html", "audit.json", "audit.parquet"}
    again = audit(photos)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in again.folder.iterdir()} == before
    assert again.printed == first.printed
    (first.folder / "audit.json").unlink()
    redone = audit(photos)
    assert {path.name: path.read_bytes() for path in redone.folder.iterdir()} == {n: b for n, (_, b) in before.items()}
    save(photo(77), photos / "train" / "cat" / "more.png")
    assert audit(photos).document["files"] == 49


def test_a_half_written_audit_is_made_anew(audit: Audit, photos: Path) -> None:
    whole = audit(photos)
    (whole.folder / "audit.json").write_text('{"format": 1')
    assert audit(photos).document["files"] == 48
    (whole.folder / "audit.parquet").unlink()
    assert audit(photos, "--where", "split == 'test'").printed.count("\n") == 12


def test_what_is_written_keeps_to_the_schema(audit: Audit, photos: Path) -> None:
    shutil.copy(photos / "test" / "dog" / "43.png", photos / "val" / "dog" / "copied.png")
    found = audit(photos, "--json")
    schema = json.loads((ROOT / "docs" / "audit.schema.json").read_text())
    assert schema == Document.model_json_schema(), "print it anew: see docs/audit.md"
    jsonschema.validate(found.document, schema)
    assert json.loads(found.printed) == found.document
    table = pyarrow.parquet.read_table(found.folder / "audit.parquet")
    masks = {"mask_classes", "ignored", "foreground", "teacher_iou", "shares"}
    assert table.column_names == [name for name in COLUMNS if name not in masks]
    assert {finding["kind"] for finding in found.document["findings"]} >= {"leak"} and FLAGS.keys() <= COLUMNS.keys()


def test_every_column_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "audit.md").read_text()
    missing = [name for name in COLUMNS if f"| `{name}` |" not in text]
    assert not missing


CONFIG = """
data: {labeled: photos/train, validation: photos/val, test: photos/test}
teacher: {timm: test_resnet, pretrained: false}
student: {timm: mobilenetv4_conv_small, pretrained: false, image_size: 64}
"""


def test_a_config_and_what_it_says_of_leaks(audit: Audit, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher.yaml").write_text(CONFIG)
    assert audit("teacher.yaml").code == 0
    assert not (tmp_path / "runs").exists()
    shutil.copy(photos / "test" / "dog" / "43.png", photos / "val" / "dog" / "copied.png")
    assert audit("teacher.yaml").code == 3
    dropped = audit("teacher.yaml", "--set", "data.leaks=drop")
    assert dropped.code == 0 and dropped.finding("leak")["level"] == "warning"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("nowhere", "found no config file"),
        ("empty", "found no"),
        ("photos --set data.mirror=false", "--set changes a config"),
        ("photos --out photos/train/cat/1.png", "expected a folder"),
        ("photos --where blurr>0.5", "did you mean blur"),
    ],
)
def test_what_cannot_be_audited(audit: Audit, photos: Path, tmp_path: Path, what: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    found = audit(*what.split())
    assert found.code == 2 and sentence in found.said and "Traceback" not in found.said
