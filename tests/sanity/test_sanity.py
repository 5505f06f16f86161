"""`distill sanity` as a command and as what stands before the training of the student."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from distill import pipeline, stages
from distill.cli import app
from distill.config_file import load_config
from distill.core.errors import SanityFailed, UserError
from distill.core.run import Run
from distill.sanity import suite
from distill.sanity.targets import check_classes
from distill.sanity_check import check
from distill.stages import Work
from distill.torch_predictor import Network
from tests.sanity import places

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    root = tmp_path_factory.mktemp("sanity")
    return places.asked(places.prepare(root, "classification"))


def twice_softmax(self: Network, images: torch.Tensor) -> torch.Tensor:
    return self.backbone(self.normalize(images)).softmax(dim=1)


def test_the_command_says_what_it_saw_and_keeps_it(work: Work) -> None:
    run = work.run.root
    before = {path: path.read_bytes() for path in run.rglob("stage.json")}
    said = CliRunner().invoke(app, ["sanity", str(run), "--quick", "--json"])
    assert said.exit_code == 0, said.output
    document = json.loads(said.stdout)
    assert document == json.loads((run / "sanity.json").read_text())
    assert (document["format"], document["quick"], document["learns_from"]) == (1, True, "teacher")
    assert document["failed"] == 0 and document["passed"] >= 10
    assert [c["name"] for c in document["checks"]] == [c.name for c in suite.CHECKS if c.quick]
    for each in document["checks"]:
        assert each["saw"] and (each["expected"] or each["status"] == "skipped")
        for picture in each["pictures"]:
            with Image.open(run / "sanity" / f"{picture}.png") as drawn:
                assert drawn.size == (8 * 32, 32)
    assert before == {path: path.read_bytes() for path in run.rglob("stage.json")}


def test_a_failed_check_ends_with_exit_code_3_and_its_usual_causes(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "forward", twice_softmax)
    said = CliRunner().invoke(app, ["sanity", str(work.run.root), "--quick"], env={"COLUMNS": "200"})
    assert said.exit_code == 3
    assert "usual cause: softmax (or sigmoid) in the model" in said.stdout
    assert "1 of 11 checks failed" in said.stderr


def test_a_config_without_a_run_has_its_images_read_and_learns_from_truth(work: Work, tmp_path: Path) -> None:
    config = tmp_path / "new.yaml"
    config.write_text(places.LABELS.replace("photos/", f"{work.run.root.parents[1]}/photos/"))
    output = tmp_path / "made"
    config.write_text(config.read_text() + f"output: {output}\n")
    found = check(str(config), quick=True, console=QUIET)
    assert found["learns_from"] == "truth" and found["failed"] == 0
    assert Run(output).summary("data")["train_labelled"] == 30
    config.write_text(config.read_text().replace("unlabeled: ", "mirror: false, unlabeled: "))
    made = (output / "data/stage.json").read_bytes()
    with pytest.raises(UserError, match="holds what was made of other images or settings of `data`"):
        check(str(config), quick=True, console=QUIET)
    assert (output / "data/stage.json").read_bytes() == made


def test_truth_that_the_settings_leave_out_is_not_missed(work: Work, tmp_path: Path) -> None:
    settings = work.config.train.model_copy(update={"truth_weight": 0.0})
    seen = check_classes(places.looked_at(work, tmp_path / "student", train=settings))
    assert seen.holds, seen.saw


def test_it_touches_neither_weights_nor_random_state(work: Work, tmp_path: Path) -> None:
    subject = places.looked_at(work, tmp_path)
    weights = {name: tensor.clone() for name, tensor in subject.student.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    suite.examine(subject, quick=True)
    suite.examine(subject, quick=False, names=["first loss", "output bias"])
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(weights[name], tensor) for name, tensor in subject.student.state_dict().items())
    assert all(parameter.grad is None for parameter in subject.student.parameters())


@pytest.mark.parametrize("does", ["stop", "warn"])
def test_it_stands_before_the_student(work: Work, does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug stops the stage before its first step, or is said and training begins."""

    def begin(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Network, "forward", twice_softmax)
    monkeypatch.setattr(stages, "_learn", begin)
    config = work.run.root.parents[1] / "classification.yaml"
    console = Console(file=(told := io.StringIO()), width=400)
    settings = load_config(config, [f"output={work.run.root}", f"sanity={does}"])
    with pytest.raises(SanityFailed if does == "stop" else KeyboardInterrupt) as raised:
        pipeline.run(settings, console, until="student")
    said = str(raised.value) if does == "stop" else told.getvalue()
    assert "1 sanity check failed:" in said
    assert "logits: expected logits without bounds" in said and "usual cause: softmax" in said
    assert json.loads((work.run.root / "sanity.json").read_text())["failed"] == 1
    assert not (work.run.root / "student" / "stage.json").exists()


def test_what_cannot_be_done_is_skipped_and_said(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student of the user's without a last layer that can be named is no bug."""

    def nameless(self: Network) -> None:
        raise TypeError("found no classifier")

    monkeypatch.setattr(Network, "classifier", nameless)
    results, _ = suite.examine(places.looked_at(work, tmp_path), quick=True)
    skipped = {result.name: result.saw for result in results if result.status == "skipped"}
    assert skipped["independence"] == "could not be done (TypeError: found no classifier)"
    assert not [result for result in results if result.status == "failed"]


def test_a_healthy_segmenter_passes_the_trainings_too(tmp_path: Path) -> None:
    work = places.asked(places.prepare(tmp_path, "segmentation"), "student.image_size=32", "train.target_stride=2")
    names = ["first loss", "output bias", "overfit"]
    results, _ = suite.examine(places.looked_at(work, tmp_path / "scratch"), quick=False, names=names)
    assert {result.name: result.status for result in results} == dict.fromkeys(names, "passed")
