"""The whole way, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow.parquet
import pytest

from distill.core.run import Run
from distill.data.manifest import Manifest
from distill.labels.store import LabelStore
from tests.workplace import Workplace

ARTIFACTS = ["tflite-float32", "tflite-float16", "tflite-int8", "onnx-float32", "onnx-int8"]


def test_run_makes_every_file_and_proves_it(finished: Workplace) -> None:
    export = finished.root / "runs/teacher/export"
    for name in ARTIFACTS:
        format_name, _, precision = name.partition("-")
        made = json.loads((export / f"student.{precision}.{format_name}.json").read_text())
        assert made["inputs"] == [{**made["inputs"][0], "dtype": "uint8", "shape": [1, 32, 32, 3]}]
        assert made["outputs"] == [{**made["outputs"][0], "dtype": "float32", "shape": [1, 3]}]
        assert made["labels"] == ["green", "red", "violet"]
        assert made["partitions"] == (1 if format_name == "tflite" else None)
        # LiteRT's XNNPACK turns no bytes into float; nothing else may be left to the built-in kernels.
        assert made["outside"] == ({"CAST": 1} if name in {"tflite-float32", "tflite-float16"} else {})
        if name == "tflite-int8":
            assert (made["inputs"][0]["scale"], made["inputs"][0]["zero_point"]) == (pytest.approx(2 / 255), 128)
        assert made["scores"]["test"]["images"] == 36
        if precision == "float32":
            assert made["scores"]["test"]["agreement"] == 1.0
            assert made["scores"]["test"]["max_difference"] < 1e-4
    int8, full = (export / f"student.{p}.tflite" for p in ("int8", "float32"))
    assert int8.stat().st_size < full.stat().st_size / 2


def test_report_holds_every_row_and_no_link_to_the_network(finished: Workplace) -> None:
    run = finished.root / "runs/teacher"
    document = json.loads((run / "report.json").read_text())
    simple = ["class frequencies", "nearest neighbours", "logistic regression", "black images"]
    assert [row["name"] for row in document["rows"]] == [*simple, "teacher", "control", "student", *ARTIFACTS]
    scores = {row["name"]: row["score"]["value"] for row in document["rows"]}
    assert scores["class frequencies"] == pytest.approx(1 / 3)  # three classes, equally many of each
    assert scores["black images"] == pytest.approx(1 / 3) and scores["student"] > scores["black images"]
    assert scores["nearest neighbours"] > 1 / 3 and scores["logistic regression"] > 1 / 3
    assert all(row["status"] == "ok" for row in document["rows"])
    assert all(row["latency"] for row in document["rows"][len(simple) :])
    assert document["gain"] is not None and document["fed"] and document["curves"]
    page = (run / "report.html").read_text()
    assert all(name in page for name in ARTIFACTS)
    assert 'src="http' not in page and 'href="http' not in page


def test_teacher_learns_and_labels_are_right(finished: Workplace) -> None:
    run = Run(finished.root / "runs/teacher")
    assert run.summary("teacher")["scores"]["test"]["accuracy"]["value"] > 0.8
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    store = LabelStore(run.folder("labels"))
    right = []
    for record in manifest.of("train", labelled=False):
        answer = manifest.classes[int(store.targets(0)[store.position(record.id)].argmax())]
        right.append(record.path.rsplit("/", 1)[-1].startswith(answer))
    assert len(right) == 300
    assert sum(right) / len(right) > 0.8


def test_benchmark_keeps_raw_samples(finished: Workplace) -> None:
    document = json.loads((finished.root / "runs/teacher/benchmark/benchmark.json").read_text())
    assert [(row["threads"], row["name"]) for row in document["rows"]] == [(t, n) for t in (1, 2) for n in ARTIFACTS]
    for row in document["rows"]:
        assert len(row["samples_ms"]) == 5
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["peak_memory_mb"] > 1 and row["load_ms"] > 0


def test_a_second_run_does_nothing_and_needs_no_torch(finished: Workplace) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished.root / "runs/teacher").rglob("stage.json")}
    program = (
        "import sys; sys.argv = ['distill', 'run', 'teacher.yaml']; from distill.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'timm', 'tensorflow', 'litert_torch', 'onnxruntime', 'sklearn', 'matplotlib'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=finished.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing to do: every stage is done" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_dry_run_says_what_a_change_would_redo(finished: Workplace) -> None:
    def states(*changes: str) -> dict[str, str]:
        output = finished.run("run", "teacher.yaml", "--dry-run", *changes)
        cells = [line.replace("│", "|").split("|") for line in output.splitlines() if "│" in line]
        return {row[1].strip(): row[2].strip() for row in cells if row[1].strip()}

    assert set(states().values()) == {"done"}
    assert [n for n, s in states("--set", "train.epochs=5").items() if s != "done"] == [
        "student", "baseline", "export", "benchmark", "report",
    ]  # fmt: skip
    assert [n for n, s in states("--set", "labels.views=4").items() if s != "done"] == [
        "labels", "student", "export", "benchmark", "report",
    ]  # fmt: skip
    assert [n for n, s in states("--set", "benchmark.rounds=2").items() if s != "done"] == ["benchmark", "report"]


def test_a_gate_that_does_not_hold_ends_with_3_and_keeps_everything(finished: Workplace) -> None:
    output = finished.run("run", "teacher.yaml", "--set", "gates.max_size_mb=0.001", expect=3)
    assert "max_size_mb" in output and "All files are kept" in output
    assert (finished.root / "runs/teacher/export/student.int8.tflite").exists()
    assert "Nothing to do" not in finished.run("run", "teacher.yaml")  # the gate is gone: only the report is redone


def test_answers_are_kept_in_the_order_of_the_manifest(finished: Workplace) -> None:
    run = finished.root / "runs/teacher"
    ids = [r.id for r in Manifest.load(run / "data/manifest.parquet").of("test")]
    for path in (run / "student/predictions/test.parquet", run / "export/predictions/onnx-int8.test.parquet"):
        assert pyarrow.parquet.read_table(path)["image"].to_pylist() == ids


@pytest.mark.parametrize(
    ("module", "arguments", "file"),
    [
        ("distill", ["export", "tflite", "--quantize"], "student.int8.tflite"),
        ("distill", ["export", "tflite", "--quantize", "float16"], "student.float16.tflite"),
        ("export", ["tflite"], "student.float32.tflite"),
        ("export", ["onnx", "--quantize", "--run", "runs/teacher"], "student.int8.onnx"),
    ],
)
def test_export_commands_name_the_file(finished: Workplace, module: str, arguments: list[str], file: str) -> None:
    assert f"runs/teacher/export/{file}" in finished.run(*arguments, module=module)
