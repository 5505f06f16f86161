"""`distill bench --device adb` on a phone that works: what is measured, and that nothing stays behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from distill.cli import app
from export.phone.contract import Plan, Result, read_result
from export.table import benchmark_table
from tests.export.phone.conftest import Bench, Table
from tests.export.phone.fake_phone import FakePhone, write_binary

MakePhone = Callable[..., FakePhone]


def test_app_and_binary_on_a_phone_with_two_clusters(
    table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path
) -> None:
    phone = make_phone(None)
    table.plug(phone)
    before = phone.state()
    bench.settings(rounds=2)
    write_binary(tmp_path / "programs/for_arm32", machine=40, bits=1)
    write_binary(tmp_path / "programs/for_arm64")
    (tmp_path / "programs/readme.txt").write_text("no program")
    said = bench("tflite-int8", "tflite-float32", "onnx-int8", binary=tmp_path / "programs")
    assert phone.state() == before
    assert "Desk Nobody A1, Android 13, Unisoc T606" in said
    assert "not timed: onnx-int8: only TFLite files run there" in said
    document = bench.document
    device = document["device"]
    assert (device["name"], device["model"], device["cores"]) == ("adb", "Desk Nobody A1", 8)
    assert (device["page_size"], round(device["memory_mb"]), device["sdk"]) == (4096, 3917, 33)
    assert device["abis"] == ["arm64-v8a", "armeabi-v7a", "armeabi"]
    assert device["clusters"] == ["cpu0-5 1.6 GHz", "cpu6-7 2.0 GHz"]
    assert device["failures"] == [] and device["cooling_s"] == 0
    assert device["before"] == {
        "thermal_status": 0, "battery_c": 28.5, "battery_percent": 83, "charging": "charging", "powered": "USB",
    }  # fmt: skip
    rows = {(row["name"], row["way"], row["threads"], row["cores"]): row for row in document["rows"]}
    assert len(rows) == len(document["rows"])
    for name in ("tflite-int8", "tflite-float32"):
        assert {key[2:] for key in rows if key[:2] == (name, "app")} == {(1, "any"), (2, "any"), (4, "any")}
        assert {key[2:] for key in rows if key[:2] == (name, "benchmark_model")} == {
            (1, "any"), (1, "cpu0-5 1.6 GHz"), (1, "cpu6-7 2.0 GHz"), (2, "any"), (2, "cpu0-5 1.6 GHz"),
            (2, "cpu6-7 2.0 GHz"), (4, "any"), (4, "cpu0-5 1.6 GHz"),
        }  # fmt: skip
    ours = rows["tflite-int8", "app", 1, "any"]
    assert ours["samples_ms"] == [8, 9, 10, 11, 12] * 2 and ours["round_ms"] == [10, 10]
    assert (ours["p50_ms"], ours["mean_ms"], ours["load_ms"]) == (10, 10, 12.5)
    assert ours["peak_memory_mb"] == pytest.approx(71_000 * 1024 / 1e6)
    assert ours["runtime"] == "TensorFlow Lite 2.16.1, arm64-v8a"
    assert ours["answers"] == {"images": 8, "bit_equal": True, "max_difference": 0}
    assert ours["remarks"] == [] and ours["drift"] == 0 and ours["device"] == "Desk Nobody A1"
    binary = rows["tflite-float32", "benchmark_model", 2, "cpu6-7 2.0 GHz"]
    assert binary["samples_ms"] == [] and binary["p90_ms"] is None and binary["answers"] is None
    assert binary["p50_ms"] == pytest.approx(5.5 * 0.97) and binary["mean_ms"] == pytest.approx(5.5)
    assert (binary["load_ms"], binary["peak_memory_mb"], binary["partitions"]) == (5.317, 14.25, 1)
    assert binary["profile"] == [
        {"operator": "TfLiteXNNPackDelegate", "count": 1, "ms": 10.5, "share": pytest.approx(0.95455)},
        {"operator": "SOFTMAX", "count": 1, "ms": 0.5, "share": pytest.approx(0.04545)},
    ]
    # Each file in its turn, and the second round backwards.
    started = [c.partition(" 2>&1")[0] for c in phone.daemon.commands if c.count(" --") == 8]
    assert len(started) == 2 * 2 * 8 and started[:16] == started[16:][::-1]
    assert {"3f", "c0"} == set((phone.folder / "masks").read_text().split())
    assert "am instrument" in bench.log and "INSTRUMENTATION_CODE: -1" in bench.log


def test_an_old_phone_that_tells_little(table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path) -> None:
    """Android 5: no exit codes over adb, a terminal in between, no thermal service; the binary gives no median."""
    phone = make_phone(app=False)
    phone.faults.shell_v2 = False
    phone.properties(
        {"ro.product.model": "Old", "ro.build.version.release": "5.1", "ro.build.version.sdk": "22",
         "ro.product.cpu.abi": "armeabi-v7a", "ro.hardware": "mt6582"}
    )  # fmt: skip
    phone.say(thermal="none", **{"binary.behaviour": "old"})
    (phone.folder / "settings/stay_on_while_plugged_in").unlink()
    table.plug(phone)
    before = phone.state()
    bench(binary=write_binary(tmp_path / "program", machine=40, bits=1))
    assert phone.state() == before
    (row,) = bench.document["rows"]
    assert (row["p50_ms"], row["mean_ms"], row["way"]) == (None, pytest.approx(22.0), "benchmark_model")
    shown = Console(width=100)
    shown.print(benchmark_table(bench.document))
    assert "~22.00" in (told := bench.said()) and "~ a mean: this benchmark_model tells no median" in told
    assert bench.document["device"]["soc"] == "mt6582" and row["before"]["thermal_status"] is None


def test_results_are_fetched_from_outside_where_run_as_is_broken(
    table: Table, bench: Bench, make_phone: MakePhone
) -> None:
    phone = make_phone()
    phone.say(**{"run-as-broken": "", "app.behaviour": "outside"})
    table.plug(phone)
    before = phone.state()
    bench()
    assert phone.state() == before and bench.document["rows"][0]["p50_ms"] == 10


def test_the_report_shows_phone_and_cpu(table: Table, bench: Bench, make_phone: MakePhone) -> None:
    table.plug(make_phone())
    bench("tflite-int8", "tflite-float32")
    told = CliRunner().invoke(app, ["report", "--run", str(bench.run)])
    assert told.exit_code == 0, told.output
    report = json.loads((bench.run / "report.json").read_text())
    assert report["phone"]["device"] == "Desk Nobody A1, Android 13, Unisoc T606, 1 cores"
    assert [(row["name"], row["p50_ms"]) for row in report["phone"]["rows"]] == [
        ("tflite-int8", 10), ("tflite-float32", 10),
    ]  # fmt: skip
    assert next(row for row in report["rows"] if row["name"] == "tflite-int8")["latency"]
    assert "On a phone" in (bench.run / "report.html").read_text()
    document = bench.document
    for row in document["rows"]:
        row["sha256"] = "0" * 64  # of files that were made anew since
    (bench.run / "benchmark/benchmark-adb.json").write_text(json.dumps(document))
    assert CliRunner().invoke(app, ["report", "--run", str(bench.run)]).exit_code == 0
    assert json.loads((bench.run / "report.json").read_text())["phone"] is None


def test_the_documents_of_the_contract_are_true() -> None:
    text = (Path(__file__).parents[3] / "docs/benchmark-on-a-phone.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    plan, result = Plan.model_validate_json(first), read_result(second)
    assert isinstance(result, Result) and result.answers(plan) == ""
    for wrong in (
        second.replace('"threads": 2', '"threads": "2"'),
        second.replace("21.4", "NaN"),
        second.replace("8.1", "-8.1"),
        second.replace('"error": null', '"error": null, "more": 1'),
        second.replace("[8.1, 7.9, 8.0]", "[]"),
        second.replace('"memory": null', '"memory": {"before_kb": 1, "peak_kb": 2}'),
    ):
        assert isinstance(read_result(wrong), str), wrong
