"""The whole way with masks, through the command line; and what the lessons of pixels hold."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from distill.core.dense import IGNORED
from distill.core.run import Run
from distill.data.manifest import Manifest
from distill.data.mask_file import png_of_mask, read_mask
from distill.data.views import ViewPlan, render_mask
from distill.labels.maps import MapStore
from distill.losses import Targets
from distill.map_examples import Grid, PseudoMasks, TruthMasks, cells_of
from distill.map_losses import MapLossName
from distill.tasks.segmentation import Segmentation
from tests.workplace import Workplace

ARTIFACTS = ["tflite-float32", "tflite-int8", "onnx-float32", "onnx-int8"]
PLAN = ViewPlan("squash", 0.4, True, 0.1, 0)


@pytest.fixture(scope="module")
def run(segmented: Workplace) -> Run:
    return Run(segmented.root / "runs/teacher")


@pytest.fixture(scope="module")
def manifest(run: Run) -> Manifest:
    return Manifest.load(run.folder("data") / "manifest.parquet")


def test_every_file_is_made_and_answers_as_the_student_does(run: Run) -> None:
    for name in ARTIFACTS:
        format_name, _, precision = name.partition("-")
        made = json.loads((run.folder("export") / f"student.{precision}.{format_name}.json").read_text())
        assert made["inputs"] == [{**made["inputs"][0], "dtype": "uint8", "shape": [1, 32, 32, 3]}]
        assert made["outputs"] == [{**made["outputs"][0], "dtype": "float32", "shape": [1, 8, 8, 3]}]
        assert made["partitions"] == (1 if format_name == "tflite" else None)
        # XNNPACK turns no bytes into float, nor into the int8 that a MobileNetV4 begins with.
        assert made["outside"] == {"tflite-float32": {"CAST": 1}, "tflite-int8": {"QUANTIZE": 1}}.get(name, {})
        scores = made["scores"]["test"]
        assert scores["agreement"] > (0.999 if precision == "float32" else 0.95)
        assert abs(scores["drop"]["value"]) < (0.005 if precision == "float32" else 0.1)


def test_a_map_of_classes_at_full_size_and_what_it_costs(segmented: Workplace, tmp_path: Path) -> None:
    shutil.copytree(segmented.root / "runs/teacher", tmp_path / "run")
    config = tmp_path / "run/config.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["export"] |= {"output": "class_map", "upsample": True}
    config.write_text(yaml.safe_dump(settings))
    said = segmented.run("export", "tflite", "--quantize", "--run", str(tmp_path / "run"))
    made = json.loads((tmp_path / "run/export/student.int8.tflite.json").read_text())
    assert made["outputs"] == [{**made["outputs"][0], "dtype": "uint8", "shape": [1, 32, 32]}]
    assert "ARG_MAX" in made["outside"], "no delegate takes it"
    assert f"partition (outside: {', '.join(made['outside'])})" in said
    assert made["scores"]["test"]["agreement"] > 0.95


def test_the_report_speaks_of_miou_and_shows_masks(run: Run) -> None:
    document = json.loads((run.root / "report.json").read_text())
    assert document["metric"] == {"key": "miou", "title": "mIoU"}
    simple = ["class frequencies", "black images"]  # neighbours and regression are of images, not of pixels
    assert [row["name"] for row in document["rows"]] == [*simple, "teacher", "control", "student", *ARTIFACTS]
    scores = {row["name"]: row["score"]["value"] for row in document["rows"]}
    assert scores["teacher"] > 0.8 and scores["student"] > 0.5 > max(scores[name] for name in simple)
    assert document["masks"]["images"] and document["class_scores"]
    page = (run.root / "report.html").read_text()
    assert "mIoU" in page and "disc" in page and 'src="http' not in page


def test_the_store_says_what_the_teacher_said_of_every_image(run: Run, manifest: Manifest) -> None:
    store = MapStore(run.folder("labels"))
    records = manifest.of("train")
    assert len(store) == len(records) == 76
    summary = run.summary("labels")
    assert summary["grid"] == 32 and 100 < summary["bytes_an_image"] < 20_000
    right = []
    for record in (r for r in records if r.mask):
        mask, confidence = store.hard(store.position(record.id))
        assert mask.shape == confidence.shape == (record.height, record.width)
        right.append(float((mask == read_mask(str(record.mask))).mean()))
    assert np.mean(right) > 0.9


@pytest.mark.parametrize("extra", [{}, {"dice": 1.0}, {"lovasz": 1.0}, {"cwd": 1.0}])
def test_a_cell_of_which_nothing_is_known_teaches_nothing(
    tmp_path: Path, manifest: Manifest, extra: dict[MapLossName, float]
) -> None:
    record = next(r for r in manifest.of("train") if r.mask)
    mask = read_mask(str(record.mask)).copy()
    mask[: len(mask) // 2] = IGNORED
    (tmp_path / "half.png").write_bytes(png_of_mask(mask))
    examples = TruthMasks(
        [replace(record, mask=str(tmp_path / "half.png"))], 3, PLAN, Grid(32, 8), epoch_size=1, label_smoothing=0.1
    )
    lesson = examples.lesson(examples.epoch(0))
    assert (lesson.weight == 0).any() and (lesson.weight > 0).any()
    targets = Targets(*(torch.from_numpy(values) for values in lesson[1:]))
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Segmentation(manifest.classes).loss_of_truth(extra)(logits, targets).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad.abs().sum(dim=1)[0][torch.from_numpy(lesson.weight[0]) == 0] == 0).all()


def test_a_second_run_does_nothing(segmented: Workplace) -> None:
    assert "Nothing to do: every stage is done" in segmented.run("run", "teacher.yaml")


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ("train.min_crop=0.9", ["student", "baseline", "export", "benchmark", "report"]),
        ("labels.grid=16", ["labels", "student", "export", "benchmark", "report"]),
        ("trust.min_confidence=0.8", ["student", "export", "benchmark", "report"]),
    ],
)
def test_a_change_redoes_what_depends_on_it(segmented: Workplace, change: str, redone: list[str]) -> None:
    """Unlike answers to views, a map is cut at training time: other crops do not ask the teacher anew."""
    output = segmented.run("run", "teacher.yaml", "--dry-run", "--set", change)
    cells = [line.replace("│", "|").split("|") for line in output.splitlines() if "│" in line]
    states = {row[1].strip(): row[2].strip() for row in cells if row[1].strip()}
    assert [name for name, state in states.items() if state != "done"] == redone


def test_cells_are_shares_of_their_pixels() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 2, 1, 255], [255, 255, 0, 0], [255, 255, 2, 0]], np.uint8)
    shares, known = cells_of(mask, 2, 3)
    np.testing.assert_allclose(shares[0, 0], [3 / 4, 0, 1 / 4])
    np.testing.assert_allclose(shares[0, 1], [0, 1, 0])
    assert shares[1, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(shares[1, 1], [3 / 4, 0, 1 / 4])
    np.testing.assert_allclose(known, [[1, 3 / 4], [0, 1]])


def test_lessons_of_truth_are_cut_as_the_image_is(manifest: Manifest) -> None:
    records = manifest.of("train", labelled=True)
    examples = TruthMasks(records, 3, PLAN, Grid(32, 32), epoch_size=40, label_smoothing=0.0)
    places = examples.epoch(3)
    assert len(places) == 40 and len({tuple(p) for p in places.tolist()}) == 40
    lesson = examples.lesson(places[:8])
    for (record, (view,)), target in zip(lesson.shown, lesson.truth, strict=True):
        mask = render_mask(read_mask(str(record.mask)), view, 32)
        assert (target.argmax(axis=-1) == mask).all()
    assert (lesson.truth_share == 1).all() and (lesson.weight == 1).all()


def test_lessons_of_the_teacher_mix_in_truth_where_there_is_any(run: Run, manifest: Manifest) -> None:
    records, store = manifest.of("train"), MapStore(run.folder("labels"))

    def lesson(hard: bool, least: float | None):
        examples = PseudoMasks(
            records, store, 3, PLAN, Grid(32, 16), hard=hard, min_confidence=least, below="ignore", truth_weight=0.5,
            label_smoothing=0.0,
        )  # fmt: skip
        return examples.lesson(examples.epoch(0))

    soft, hard, sure = lesson(False, None), lesson(True, None), lesson(False, 0.9)
    labelled = np.array([record.mask is not None for record, _ in soft.shown])
    assert labelled.sum() == 16
    assert (soft.truth_share[labelled] == 0.5).all() and (soft.truth_share[~labelled] == 0).all()
    assert (soft.weight == 1).all()
    np.testing.assert_allclose(soft.teacher.sum(axis=-1), 1, atol=1e-4)
    # The soft map and the mask are two records of one answer: they name the same class nearly everywhere.
    assert (soft.teacher.argmax(axis=-1) == hard.teacher.argmax(axis=-1)).mean() > 0.95
    marked = sure.weight[labelled]  # counts, however unsure the teacher is
    np.testing.assert_allclose(marked, 1, atol=1e-6)
    assert 0.05 < (sure.weight[~labelled] < 0.5).mean() < 0.95


def test_a_mirrored_view_mirrors_the_answer(run: Run, manifest: Manifest) -> None:
    store = MapStore(run.folder("labels"))
    records = manifest.of("train", labelled=True)

    class Flipped(ViewPlan):
        def random(self, *arguments):  # type: ignore[no-untyped-def]
            view = super().random(*arguments)
            return view._replace(flip=not view.flip)

    def lesson(plan: ViewPlan):
        examples = PseudoMasks(
            records, store, 3, plan, Grid(32, 8), hard=False, min_confidence=0.5, below="weigh", truth_weight=0.5,
            label_smoothing=0.0,
        )  # fmt: skip
        return examples.lesson(examples.epoch(0))

    one, other = lesson(PLAN), lesson(Flipped("squash", 0.4, True, 0.1, 0))
    for first, second in zip(one[1:], other[1:], strict=True):
        np.testing.assert_allclose(first[:, :, ::-1], second, atol=1e-6)


def test_what_nobody_marked_is_the_teachers(run: Run, manifest: Manifest, tmp_path) -> None:
    from dataclasses import replace

    from distill.data.mask_file import png_of_mask

    record = manifest.of("train", labelled=True)[0]
    mask = read_mask(str(record.mask)).copy()
    mask[:, : mask.shape[1] // 2] = IGNORED
    (tmp_path / "half.png").write_bytes(png_of_mask(mask))
    plan = ViewPlan("squash", 1.0, False, 0.0, 0)
    examples = PseudoMasks(
        [replace(record, mask=str(tmp_path / "half.png"))], MapStore(run.folder("labels")), 3, plan, Grid(32, 8),
        hard=False, min_confidence=None, below="ignore", truth_weight=1.0, label_smoothing=0.0,
    )  # fmt: skip
    lesson = examples.lesson(examples.epoch(0))
    assert (lesson.truth_share[0, :, :3] == 0).all() and (lesson.truth_share[0, :, 5:] == 1).all()
    np.testing.assert_array_equal(lesson.truth[0, :, :3], lesson.teacher[0, :, :3])
