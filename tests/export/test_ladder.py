"""The ladder, climbed by the command on a run's student; and a student that only learning on can make int8."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from distill.core.files import read_json, sha256_of
from tests.workplace import Workplace

EXPORT = "runs/teacher/export"


def copied(finished: Workplace, to: Path, **changes: Any) -> Workplace:
    """The finished workplace, with other settings of export and gates."""
    shutil.copytree(finished.root, to, symlinks=True)
    path = to / "runs/teacher/config.yaml"
    text = path.read_text().replace(str(finished.root), str(to))
    config = yaml.safe_load(text)
    config["gates"]["max_int8_drop"] = changes.pop("max_int8_drop", None)
    config["export"] |= changes
    path.write_text(yaml.safe_dump(config))
    return Workplace(to)


def manifest(place: Workplace) -> dict[str, Any]:
    found: dict[str, Any] = read_json(place.root / EXPORT / "student.int8.tflite.json")
    return found


def spoil(place: Workplace) -> None:
    """Make one channel three hundred times as wide in each block that has no way around it, where nothing reads it."""
    folder = place.root / "runs/teacher/student"
    state = load_file(folder / "weights.safetensors")
    blocks = [key.removesuffix("conv_pwl.weight") for key in state if key.endswith(".0.conv_pwl.weight")]
    assert len(blocks) > 2
    for block in blocks:
        state[f"{block}bn2.weight"][0] = 300 * state[f"{block}bn2.weight"].abs().max()
        state[f"{block}conv_pwl.weight"][:, 0] = 0
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights.safetensors")
    card = json.loads((folder / "student.json").read_text())
    card["weights_sha256"] = sha256_of(folder / "weights.safetensors")
    (folder / "student.json").write_text(json.dumps(card))


@pytest.fixture(scope="module")
def compared(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str]:
    """A student that plain int8 wrecks, made in all four ways."""
    settings = {"tune_epochs": 15, "tune_lr": 1e-3, "min_int8_agreement": 0.0, "max_int8_drop": 0.01}
    place = copied(finished, tmp_path_factory.mktemp("ladder") / "place", **settings)
    spoil(place)
    said = place.run("tflite", "--quantize", "--compare", "--run", "runs/teacher", module="export")
    return place, said


def ladder(place: Workplace) -> dict[str, Any]:
    found: dict[str, Any] = manifest(place)["ladder"]
    return found


def test_all_ways_are_compared_and_the_cheapest_that_does_is_kept(compared: tuple[Workplace, str]) -> None:
    place, said = compared
    found = manifest(place)
    rungs = {row["rung"]: row for row in ladder(place)["rungs"]}
    assert {1, 4} <= rungs.keys(), "the runtime may refuse ranges as far apart as those of the ways between"
    assert ladder(place)["limit"] == 0.01
    assert ladder(place)["chosen"] == min(number for number, row in rungs.items() if not row["lacking"])
    for number, row in rungs.items():
        assert row["partitions"] == 1 and row["latency_ratio"] > 0 and row["bytes"] > 0
        assert row["drop"]["low"] <= row["drop"]["value"] <= row["drop"]["high"]
        assert f"rung {number} ({row['title']})" in " ".join(said.split())
    assert not list((place.root / EXPORT).glob("*.rung*")), "what was not chosen is gone"
    assert sha256_of(place.root / EXPORT / "student.int8.tflite") == found["sha256"]


def test_learning_on_recovers_what_plain_int8_loses(compared: tuple[Workplace, str]) -> None:
    place, _ = compared
    rungs = {row["rung"]: row for row in ladder(place)["rungs"]}
    assert rungs[1]["drop"]["value"] > 0.1 and "loses more than" in rungs[1]["lacking"]
    assert rungs[4]["drop"]["value"] <= 0.01 and rungs[4]["lacking"] == ""
    trained = (place.root / "runs/teacher/metrics.jsonl").read_bytes()
    place.run("tflite", "--quantize", "--rung", "4", "--run", "runs/teacher", module="export")
    assert (place.root / "runs/teacher/metrics.jsonl").read_bytes() == trained, "the training is not done again"
    assert [row["rung"] for row in ladder(place)["rungs"]] == [4] and ladder(place)["chosen"] == 4
    student = read_json(place.root / "runs/teacher/student/stage.json")["summary"]["scores"]["test"]["accuracy"][
        "value"
    ]
    assert manifest(place)["scores"]["test"]["accuracy"]["value"] >= student - 0.01
    before = manifest(place)
    place.run("tflite", "--quantize", "--rung", "4", "--run", "runs/teacher", module="export")
    assert manifest(place) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rung", "2"], "--rung and --compare are about int8 files: add --quantize"),
        (["--quantize", "float16", "--compare"], "--rung and --compare are about int8 files: add --quantize"),
        (["--quantize", "--rung", "2", "--compare"], "--compare makes the files of all rungs: leave out --rung"),
        (["--quantize", "--rung", "5"], "Invalid value for '--rung'"),
    ],
)
def test_mistakes(finished: Workplace, arguments: list[str], message: str) -> None:
    said = finished.run("tflite", *arguments, "--run", "runs/teacher", module="export", expect=2)
    assert message in " ".join(said.replace("│", " ").split())


def test_tuning_without_a_plan_says_what_asks_for_it(finished: Workplace) -> None:
    said = finished.run("learn-on", "--run", "runs/teacher", expect=2)
    assert "export/qat/plan.json does not exist; `distill export tflite --quantize --rung 4` writes it" in said
