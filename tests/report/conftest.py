"""A report such as a run writes: every part there, numbers that fit each other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.core.task import Answers, Task
from distill.core.types import ImageRecord
from distill.data.mask_file import png_of_mask, read_mask
from distill.report.masks import draw_masks
from distill.report.rows import class_scores
from distill.tasks._mask_answers import MaskAnswers, look
from distill.tasks.classification import Classification, LabelAnswers
from distill.tasks.segmentation import Segmentation


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def row(name: str, runtime: str, score: float, **values: Any) -> dict[str, Any]:
    return {
        "name": name,
        "detail": "",
        "bytes": 1_000_000,
        "parameters": 400_000,
        "score": interval(score, 0.045),
        "details": {"macro F1": score - 0.02},
        "images": 410,
        "latency": None,
        "runtime": runtime,
        "partitions": None,
        "agreement": None,
        "max_difference": None,
        "drop": None,
        "status": "ok",
        "reason": "",
        **values,
    }


def timed(single: float) -> list[dict[str, Any]]:
    return [
        {
            "threads": threads,
            "p50_ms": single / speedup,
            "p90_ms": 1.1 * single / speedup,
            "p99_ms": 1.6 * single / speedup,
            "load_ms": 12.3,
            "peak_memory_mb": 61.5,
        }
        for threads, speedup in ((1, 1.0), (2, 1.6))
    ]


def timed_in_torch(single: float) -> list[dict[str, Any]]:
    return [{"threads": 1, "p50_ms": single, "p90_ms": 1.1 * single, "p99_ms": 1.6 * single}]


ON_PHONE = {
    "name": "tflite-int8", "runtime": "TensorFlow Lite 2.16.1, arm64-v8a", "way": "app", "cores": "any", "threads": 1,
    "p50_ms": 31.25, "p90_ms": 33.5, "p99_ms": 41.0, "mean_ms": 31.8, "load_ms": 12.0, "peak_memory_mb": 71.0,
    "remarks": ["throttled: thermal status 2 (moderate)"],
}  # fmt: skip


def gate(name: str, relation: str, limit: float, found: float, detail: str = "") -> dict[str, Any]:
    return {"name": name, "limit": limit, "found": found, "holds": True, "relation": relation, "detail": detail}


def described(task: Task, answers: Answers) -> dict[str, Any]:
    return {
        "profile": {"name": "tflite-int8", **task.profile(answers).as_dict()},
        "figures": {**task.figures, **task.figures_of_classes},
        "groups": None,
    }


def answers_of(counts: list[list[int]]) -> LabelAnswers:
    """Answers with these confusion counts, some surer than others."""
    truth, said = (np.repeat(place, np.ravel(counts)) for place in np.divmod(np.arange(len(counts) ** 2), len(counts)))
    logits = np.random.default_rng(0).uniform(1, 5, len(said))[:, None] * np.eye(len(counts))[said]
    return LabelAnswers(tuple(f"{n:064x}" for n in range(len(said))), logits.astype(np.float32), truth)


def others() -> dict[str, Any]:
    """What is there beside the stages' own figures, as `build.py` gathers it."""
    names = ("teacher", "student", "tflite-int8")
    levels = {"blur": [None, 0.5, 4.0], "brightness": [0.25, None, 2.0]}
    return {
        "model": {
            "file": "student.int8.tflite",
            "sha256": "ab" * 32,
            "image_size": 128,
            "resize": "squash",
            "output": "probabilities",
            "teacher": {"name": "mobilenetv2_100", "license": "apache-2.0", "digest": "cd" * 32},
        },
        "disagreements": {
            "predictors": list(names),
            "counts": [{"right": list(names), "images": 270}, {"right": ["teacher"], "images": 140}],
            "images": [
                {
                    "picture": "disagreement-0",
                    "path": "test/metal/metal7.jpg",
                    "truth": "metal",
                    "answers": [{"answer": a, "confidence": 0.61} for a in ("metal", "metal", "glass")],
                }
            ],
        },
        "strip": {
            "images": [{"truth": "glass", "path": "val/glass/g1.jpg", "picture": "strip-0"}],
            "epochs": [
                {"epoch": e, "kept": e == 9, "answers": [{"answer": a, "confidence": c, "truth_probability": c / 2}]}
                for e, a, c in ((1, "paper", 0.2), (9, "glass", 0.87))
            ],
        },
        "perturbation": {
            "split": "test",
            "images": 200,
            "kinds": [
                {
                    "name": kind,
                    "unit": f"of {kind}",
                    "levels": list(values),
                    "picture": f"perturbed-{number}",
                    "series": [
                        {"name": name, "scores": [interval(0.7 - 0.1 * at - 0.05 * who, 0.06) for at in range(3)]}
                        for who, name in enumerate(names)
                    ],
                }
                for number, (kind, values) in enumerate(levels.items())
            ],
        },
        "looking": {
            "filters": {"picture": "filters", "layer": "conv_stem", "shape": [16, 3, 3, 3]},
            "heat_maps": [
                {
                    "picture": "heat-0",
                    "path": "test/glass/glass7.jpg",
                    "truth": "glass",
                    "answer": "plastic",
                    "confidence": 0.98,
                }
            ],
        },
        "audit": {
            "levels": {"error": 1, "warning": 0, "note": 1},
            "findings": [
                {
                    "level": "error",
                    "title": "Labelled images in two splits",
                    "meaning": "No score means anything.",
                    "rule": "same bytes",
                    "count": 2,
                    "shown": [
                        {
                            "picture": "audit-0-0",
                            "path": "test/glass/g.jpg",
                            "split": "test",
                            "label": "glass",
                            "detail": "3 of 64 bits differ",
                        }
                    ],
                },
                {"level": "note", "title": "Outliers", "meaning": "Look.", "rule": "z", "count": 1, "shown": []},
            ],
            "notes": ["Masks were not looked at."],
        },
        "sanity": {
            "quick": True,
            "learns_from": "teacher",
            "passed": 1,
            "failed": 1,
            "skipped": 0,
            "seconds": 2.0,
            "checks": [
                {"name": "logits", "status": "passed", "expected": "wide", "saw": "30 times", "causes": []},
                {"name": "classes", "status": "failed", "expected": "six", "saw": "five", "causes": ["a lost class"]},
            ],
        },
    }


ADDED = ("disagreement-0", "strip-0", "perturbed-0", "perturbed-1", "filters", "heat-0", "audit-0-0")
"""Pictures of these parts."""


@pytest.fixture
def report() -> dict[str, Any]:
    classes = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
    counts = [
        [63, 1, 4, 10, 2, 1],
        [0, 68, 12, 2, 18, 0],
        [1, 9, 60, 3, 8, 1],
        [3, 2, 5, 62, 4, 1],
        [1, 11, 6, 5, 31, 2],
        [1, 2, 3, 4, 2, 2],
    ]
    file = {"detail": "128 px, uint8 in, probabilities out", "partitions": 1}
    torch = {"detail": "mobilenetv2_035, 128 px", "bytes": 1_690_000}
    int8 = {"agreement": 0.983, "max_difference": 0.041, "drop": interval(0.0024, 0.0075)}
    onnx_int8 = {"agreement": 0.962, "max_difference": 0.09, "drop": interval(0.0098, 0.012)}
    same = {"agreement": 1.0, "drop": interval(0, 0)}
    rows = [
        row(
            "teacher",
            "PyTorch",
            0.756,
            detail="mobilenetv2_100, 192 px",
            bytes=9_150_000,
            parameters=2_231_558,
            latency=timed_in_torch(21.4),
        ),
        row("control", "PyTorch", 0.634, **torch, latency=timed_in_torch(7.9)),
        row("student", "PyTorch", 0.7, **torch, latency=timed_in_torch(8.2)),
        row("tflite-float32", "LiteRT", 0.7, **file, **same, bytes=1_640_000, latency=timed(2.31), max_difference=1e-5),
        row("tflite-float16", "LiteRT", 0.7, **file, **same, bytes=840_000, latency=timed(2.36), max_difference=0.0011),
        row("tflite-int8", "LiteRT", 0.6976, **file, **int8, bytes=560_000, latency=timed(1.24)),
        row(
            "onnx-float32",
            "ONNX Runtime",
            0.7,
            **file,
            **same,
            bytes=1_640_000,
            latency=timed(1.5),
            max_difference=2e-6,
        ),
        row("onnx-int8", "ONNX Runtime", 0.6902, **file, bytes=520_000, latency=timed(1.02), **onnx_int8),
    ]
    learnt = (("teacher", 0.2, 0.77, 18), ("student", 0.45, 0.72, 30), ("baseline", 0.05, 0.65, 26))
    curves = [
        {
            "stage": stage,
            "epoch": epoch,
            "loss": floor + 1.2 * 0.8**epoch,
            "lr": 3e-4,
            "validation_score": top - 0.3 * 0.75**epoch - 0.001 * epoch,
            "validation_nll": 1.0,
            "images_per_s": 200.0,
        }
        for stage, floor, top, epochs in learnt
        for epoch in range(1, epochs + 1)
    ]
    seconds = {"data": 3.2, "teacher": 241.0, "labels": 96.4, "student": 418.0, "baseline": 395.2, "export": 116.0}
    return {
        "format": 3,
        "run": "trashnet",
        "folder": "runs/trash net",
        "version": "0.1.0",
        "created_at": "2026-11-20T19:41:07Z",
        "task": "classification",
        "metric": {"key": "accuracy", "title": "accuracy"},
        "split": "test",
        "classes": classes,
        "notes": ["This is a demonstration: 410 test images leave intervals of nine points."],
        "rows": rows,
        "phone": {"device": "Desk Nobody A1, Android 13, Unisoc T606, 8 cores", "rows": [ON_PHONE]},
        "gain": {"value": 0.066, "low": 0.024, "high": 0.107},
        "int8": {
            "limit": 0.01,
            "chosen": 2,
            "rungs": [
                {
                    "rung": rung,
                    "title": title,
                    "bytes": 1_340_000,
                    "partitions": 1,
                    "latency_ratio": 0.41,
                    "agreement": 0.97,
                    "drop": {"value": drop, "low": drop - 0.01, "high": drop + 0.01},
                    "lacking": lacking,
                }
                for rung, title, drop, lacking in (
                    (1, "minimum and maximum", 0.023, "loses more than 0.010"),
                    (2, "ranges searched", 0.004, ""),
                )
            ],
        },
        "gates": [
            gate("max_size_mb", "at most", 4.0, 0.56),
            gate("min_test_accuracy", "at least", 0.65, 0.6976),
            gate("max_int8_drop", "at most", 0.01, 0.0024),
        ],
        "data": {
            "train_labelled": 350,
            "train_unlabelled": 1423,
            "validation": 341,
            "test": 410,
            "left_out": 3,
            "classes": classes,
            "by_class": {
                "train": dict(zip(classes, [68, 79, 66, 84, 40, 13], strict=True)),
                "validation": dict(zip(classes, [66, 77, 64, 82, 39, 13], strict=True)),
                "test": dict(zip(classes, [81, 100, 82, 77, 56, 14], strict=True)),
            },
            "left_out_by_reason": {"damaged or truncated": 1, "same bytes as an image of another split": 2},
        },
        "labels": {
            "images": 1773,
            "stored": "8 views an image, 62 bytes a view",
            "mean_confidence": 0.91,
            "by_class": {name: 250 + 15 * i for i, name in enumerate(classes)},
            "hidden_score": 0.789,
        },
        "teacher_validation": {
            "score": interval(0.767, 0.045),
            "details": {"balanced over classes": 0.741, "guessing gives": 0.167},
        },
        "curves": curves,
        "confusion": {"name": "tflite-int8", "counts": counts},
        **described(Classification(classes), answers_of(counts)),
        "class_scores": None,
        "masks": None,
        **others(),
        "fed": [{"picture": f"fed-{i}", "caption": f"00ab{i}f 310x290+12+40: metal 0.{91 - i}"} for i in range(8)],
        "mistakes": [
            {
                "picture": f"mistake-{i}",
                "path": f"/photos/trashnet/test/glass/glass{i}07.jpg",
                "truth": "glass",
                "answer": "plastic",
                "confidence": 0.99 - i / 100,
            }
            for i in range(6)
        ],
        "decisions": {
            "teacher": {"lr": "0.0003 (pretrained weights)", "batch_norm": "frozen (350 images are few)"},
            "student": {"lr": "0.0003 (pretrained weights)", "probe": "yes (the classifier is new)"},
        },
        "stages": [{"stage": name, "seconds": s} for name, s in seconds.items()],
        "config": "task: classification\nstudent:\n  timm: mobilenetv2_035\n  image_size: 128\n",
        "environment": {"python": "3.11.7", "cpu": "Intel Xeon, 2 cores", "torch": "2.14.1", "dirty": False},
    }


@pytest.fixture
def pictures(report: dict[str, Any]) -> dict[str, bytes]:
    names = [*(item["picture"] for item in report["fed"] + report["mistakes"]), *ADDED]
    return {name: picture(number) for number, name in enumerate(names)}


def picture(number: int, kind: str = "PNG") -> bytes:
    image = Image.linear_gradient("L").resize((64, 48)).rotate(30 * number)
    stream = io.BytesIO()
    Image.merge("RGB", (image, image.rotate(90), image.rotate(180))).save(stream, kind)
    return stream.getvalue()


THINGS = ("background", "cup", "plate", "spoon")


def photographed(folder: Path, count: int = 12, size: tuple[int, int] = (96, 72)) -> list[ImageRecord]:
    """Test images of three rectangles each, with exact masks; the outermost pixels are ignored."""
    records = []
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = rng.normal(120, 25, (size[1], size[0], 3))
        mask = np.zeros(size[::-1], np.uint8)
        for kind in (1, 2, 3):
            top, left = int(rng.integers(0, size[1] - 20)), int(rng.integers(0, size[0] - 24))
            area = np.s_[top : top + 20, left : left + 24]
            pixels[area], mask[area] = rng.integers(40, 255, 3), kind
        mask[:, :2] = 255
        path, truth = folder / f"{number:02d}.png", folder / f"{number:02d}.mask.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        truth.write_bytes(png_of_mask(mask))
        records.append(ImageRecord(f"{number:064x}", str(path), *size, "test", None, mask=str(truth)))
    return records


def answered(records: Sequence[ImageRecord], shift: int) -> MaskAnswers:
    """The truth moved to the right, image n by `shift` times n pixels: the first image is answered best."""
    looks = []
    for number, record in enumerate(records):
        truth = read_mask(str(record.mask))
        said = np.roll(np.where(truth == 255, 0, truth), shift * number, axis=1)
        looks.append(look(4 * np.eye(len(THINGS), dtype=np.float32)[said], truth))
    return MaskAnswers.of([r.id for r in records], looks)


@pytest.fixture
def segmented(report: dict[str, Any], pictures: dict[str, bytes], tmp_path: Path) -> dict[str, Any]:
    """The report of a run whose answers are masks; their pictures are put to the others."""
    for name in [*(item["picture"] for item in report["mistakes"]), "disagreement-0", "strip-0", "heat-0"]:
        del pictures[name]
    pictures |= {name: picture(number) for number, name in enumerate(("strip", "strip-1"))}
    records = photographed(tmp_path)
    said = {name: answered(records, shift) for shift, name in enumerate(("teacher", "student", "tflite-int8"))}
    for row in report["rows"]:
        row["details"] = {"pixel accuracy": row["score"]["value"] + 0.2, "boundary F": row["score"]["value"] - 0.1}
        row["max_difference"] = None
    scores = {name: Segmentation(THINGS).score(answers).as_dict() for name, answers in said.items()}
    splits = ("train", "validation", "test")
    report["data"]["by_class"] = {split: dict.fromkeys(THINGS, 40) for split in splits}
    report["data"]["pixel_shares"] = {split: dict.fromkeys(THINGS, 0.25) for split in splits}
    report["labels"].update(stored="masks of 64x64 cells, 2,310 bytes an image")
    del report["labels"]["by_class"]
    return report | {
        "task": "segmentation",
        "metric": {"key": "miou", "title": "mIoU"},
        "classes": list(THINGS),
        "confusion": {"name": "tflite-int8", "counts": scores["tflite-int8"]["confusion"]},
        "class_scores": class_scores(scores, THINGS),
        "mistakes": [],
        "disagreements": None,
        "strip": {"images": [], "epochs": [{"epoch": 1, "kept": True, "picture": "strip-1"}]},
        "looking": {**report["looking"], "heat_maps": []},
        "masks": draw_masks(records, THINGS, said, "squash", 100, pictures),
        "int8": None,
        "gates": [gate("min_test_miou", "at least", 0.65, 0.6976)],
        **described(Segmentation(THINGS), said["tflite-int8"]),
        "teacher_validation": {"score": interval(0.767, 0.045), "details": {"pixel accuracy": 0.93}},
    }
