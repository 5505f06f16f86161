"""The ladder, climbed by the command on a run's student; and a student that only learning on can make int8."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from distill.core.files import read_json, sha256_of
from tests.workplace import Workplace

EXPORT = "runs/teacher/export"


def copied(finished: Workplace, to: Path, **changes: object) -> Workplace:
    """The finished workplace, with other settings of export and gates."""
    shutil.copytree(finished.root, to, symlinks=True)
    path = to / "runs/teacher/config.yaml"
    text = path.read_text().replace(str(finished.root), str(to))
    config = yaml.safe_load(text)
    config["gates"]["max_int8_drop"] = changes.pop("max_int8_drop", None)
    config["export"] |= changes
    path.write_text(yaml.safe_dump(config))
    return Workplace(to)


def manifest(place: Workplace) -> dict[str, object]:
    found: dict[str, object] = read_json(place.root / EXPORT / "student.int8.tflite.json")
    return found


@pytest.fixture(scope="module")
def compared(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, str]:
    place = copied(finished, tmp_path_factory.mktemp("ladder") / "place", tune_epochs=1, max_int8_drop=0.5)
    said = place.run("tflite", "--quantize", "--compare", "--run", "runs/teacher", module="export")
    return place, said


def test_all_rungs_are_compared(compared: tuple[Workplace, str]) -> None:
    place, said = compared
    found = manifest(place)
    ladder = found["ladder"]
    assert isinstance(ladder, dict)
    numbers = [row["rung"] for row in ladder["rungs"]]
    assert numbers in ([1, 2, 3, 4], [1, 2, 4]), "the third may have nothing to gain"
    assert ladder["limit"] == 0.5 and ladder["chosen"] == 1, "the cheapest that does"
    for row in ladder["rungs"]:
        assert row["partitions"] == 1 and row["latency_ratio"] > 0 and row["bytes"] > 0 and row["lacking"] == ""
        assert row["drop"]["low"] <= row["drop"]["value"] <= row["drop"]["high"]
        assert str(row["rung"]) in said and row["title"].split()[0] in said
    assert not list((place.root / EXPORT).glob("*.rung*")), "what was not chosen is gone"
    assert sha256_of(place.root / EXPORT / "student.int8.tflite") == found["sha256"]


def test_the_same_command_does_nothing_and_one_rung_can_be_asked_for(compared: tuple[Workplace, str]) -> None:
    place, _ = compared
    before = manifest(place)
    place.run("tflite", "--quantize", "--compare", "--run", "runs/teacher", module="export")
    assert manifest(place) == before
    place.run("tflite", "--quantize", "--rung", "2", "--run", "runs/teacher", module="export")
    ladder = manifest(place)["ladder"]
    assert isinstance(ladder, dict)
    assert [row["rung"] for row in ladder["rungs"]] == [2] and ladder["chosen"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rung", "2"], "--rung and --compare are about int8 files: add --quantize"),
        (["--quantize", "float16", "--compare"], "--rung and --compare are about int8 files: add --quantize"),
        (["--quantize", "--rung", "2", "--compare"], "--compare makes the files of all rungs: leave out --rung"),
        (["--quantize", "--rung", "5"], "5 is not in the range"),
    ],
)
def test_mistakes(finished: Workplace, arguments: list[str], message: str) -> None:
    said = finished.run("tflite", *arguments, "--run", "runs/teacher", module="export", expect=2)
    assert message in " ".join(said.replace("│", " ").split())


def test_tuning_without_a_plan_says_what_asks_for_it(finished: Workplace) -> None:
    said = finished.run("tune", "--run", "runs/teacher", expect=2)
    assert "export/qat/plan.json does not exist; `distill export tflite --quantize --rung 4` writes it" in said


def spoil(place: Workplace) -> None:
    """Make one channel a hundred times as wide in each block that has no way around it, where nothing reads it."""
    folder = place.root / "runs/teacher/student"
    state = load_file(folder / "weights.safetensors")
    blocks = [key.removesuffix("conv_pwl.weight") for key in state if key.endswith(".0.conv_pwl.weight")]
    assert len(blocks) > 2
    for block in blocks:
        state[f"{block}bn2.weight"][0] = 100 * state[f"{block}bn2.weight"].abs().max()
        state[f"{block}conv_pwl.weight"][:, 0] = 0
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights.safetensors")
    card = json.loads((folder / "student.json").read_text())
    card["weights_sha256"] = sha256_of(folder / "weights.safetensors")
    (folder / "student.json").write_text(json.dumps(card))


def test_learning_on_recovers_what_plain_int8_loses(finished: Workplace, tmp_path: Path) -> None:
    place = copied(finished, tmp_path / "place", tune_epochs=15, tune_lr=1e-3, min_int8_agreement=0.0)
    spoil(place)
    student = read_json(place.root / "runs/teacher/student/stage.json")["summary"]["scores"]["test"]["accuracy"][
        "value"
    ]
    lost = {}
    for rung in ("1", "4"):
        place.run("tflite", "--quantize", "--run", "runs/teacher", "--rung", rung, module="export")
        found = manifest(place)
        assert found["partitions"] == 1 and isinstance(found["scores"], dict)
        lost[rung] = student - found["scores"]["test"]["accuracy"]["value"]
    assert lost["1"] > 0.1, "plain int8 fails"
    assert lost["4"] <= 0.01
