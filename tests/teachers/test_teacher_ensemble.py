"""Several teachers averaged: the mean is the one worked out by hand, each member is asked at its own size."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from distill.checkpoint import save_weights
from distill.config_file import load_config
from distill.core import plugins
from distill.core.dense import scale_map
from distill.core.ensemble import Ensemble, Member
from distill.core.errors import CheckpointError, DistillError, TeacherError, UserError
from distill.core.run import Run
from distill.core.settings import FitSettings, TeacherSettings
from distill.core.task import Metric
from distill.core.types import FloatArray, Images, softmax
from distill.labels.store import LabelStore
from distill.pipeline import _values, describe
from distill.report.figures import loss_curves
from distill.stages import _fit_summary, _license, _name, _pixels, _size_and_time
from distill.teaching import as_labeller, choose_precision, load_fitted, networks
from distill.torch_predictor import TorchPredictor
from teachers import ensemble
from teachers import python as python_teacher
from teachers import timm as timm_teacher
from tests.workplace import CONFIG, Workplace

CLASSES = ["cat", "dog", "owl"]
TINY = ("test_resnet", "test_efficientnet")
Build = Callable[..., Ensemble]


@pytest.fixture
def members(tmp_path: Path) -> list[timm_teacher.Config]:
    """Two models of random weights whose answers differ, at 32 and 48 pixels."""
    found = []
    for seed, (name, size) in enumerate(zip(TINY, (32, 48), strict=True)):
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=3)
        torch.nn.init.normal_(model.get_classifier().weight, std=2.0)
        save_weights(model, tmp_path / f"{name}.safetensors")
        found.append(timm_teacher.Config(timm=name, checkpoint=tmp_path / f"{name}.safetensors", image_size=size))
    return found


def build(members: list[Any], **settings: Any) -> Ensemble:
    torch.manual_seed(0)
    return ensemble.build(ensemble.Config(ensemble=members, **settings), CLASSES)


def photos(size: int) -> Images:
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR)) for i in noise])


def batches(size: int) -> Iterator[Images]:
    """The same five photos in batches of three and two, rendered at any size."""
    images = photos(size)
    yield images[:3]
    yield images[3:]


def alone(config: timm_teacher.Config) -> FloatArray:
    """What a member says by itself, as probabilities."""
    return softmax(timm_teacher.build(config, CLASSES).predict(photos(config.image_size)))


@pytest.mark.parametrize(
    ("weights", "shares"), [(None, (0.5, 0.5)), ([2.0, 1.0], (2 / 3, 1 / 3)), ([0.1, 0.3], (0.25, 0.75))]
)
def test_it_is_the_weighted_mean_of_what_each_says_at_its_own_size(
    members: list[timm_teacher.Config], weights: list[float] | None, shares: tuple[float, float]
) -> None:
    asked = []

    def counted(size: int) -> Iterator[Images]:
        asked.append(size)
        return batches(size)

    teacher = build(members, weights=weights)
    assert teacher.class_names == tuple(CLASSES)
    assert (teacher.image_size, teacher.passes) == (48, 2)
    first, second = alone(members[0]), alone(members[1])
    assert np.abs(first - second).max() > 0.1
    found = teacher.predict_all(counted)
    assert found.dtype == np.float32
    np.testing.assert_allclose(softmax(found), shares[0] * first + shares[1] * second, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)
    assert asked == [32, 48]


def test_a_batch_is_scaled_down_for_smaller_members(members: list[timm_teacher.Config]) -> None:
    given = photos(48)
    smaller = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in given])
    first = softmax(timm_teacher.build(members[0], CLASSES).predict(smaller))
    np.testing.assert_allclose(softmax(build(members).predict(given)), (first + alone(members[1])) / 2, atol=1e-5)


def test_in_turn_gives_the_same_answers_and_holds_one_member(
    members: list[timm_teacher.Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = build(members, weights=[2, 1])
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    real = timm_teacher.build

    def watched(*arguments: Any) -> Any:
        nonlocal most
        predictor = real(*arguments)
        alive.add(predictor.network)
        most = max(most, len(alive))
        return predictor

    monkeypatch.setattr(timm_teacher, "build", watched)
    in_turn = build(members, weights=[2, 1], memory="in_turn")
    assert in_turn.in_turn and not together.in_turn
    assert np.array_equal(in_turn.predict_all(batches), together.predict_all(batches))
    assert np.array_equal(in_turn.predict(photos(48)), together.predict(photos(48)))
    assert in_turn.digest() == together.digest()
    assert (in_turn.sizes, in_turn.passes) == (together.sizes, together.passes)
    gc.collect()
    assert (most, len(alive)) == (1, 0)


def test_random_weights_are_those_of_the_seed_however_often_a_member_is_built() -> None:
    equal = [timm_teacher.Config(timm=TINY[0], pretrained=False, image_size=32, fit=FitSettings()) for _ in range(2)]
    answers = []
    for memory in ("together", "in_turn", "in_turn"):
        teacher = build(equal, memory=memory)
        answers.append(teacher.predict_all(batches))
        torch.rand(3)  # what others draw in between does not matter
        assert np.array_equal(teacher.predict_all(batches), answers[-1])
    assert np.array_equal(answers[0], answers[1]) and np.array_equal(answers[1], answers[2])
    digests = []
    for number in range(2):
        with teacher.turn(number) as member:
            digests.append(member.digest())
    assert digests[0] != digests[1]


def test_the_digest_counts_members_weights_and_maps(members: list[timm_teacher.Config]) -> None:
    swapped = {"cat": "dog", "dog": "cat", "owl": "owl"}
    other = members[0].model_copy(update={"class_map": swapped})
    found = [
        build(members).digest(),
        build(members, weights=[2, 1]).digest(),
        build(members[::-1]).digest(),
        build([members[0], members[0]]).digest(),
        build([other, members[1]]).digest(),
        build([members[0].model_copy(update={"image_size": 40}), members[1]]).digest(),
    ]
    assert len(set(found)) == len(found)
    assert build(members, weights=[2, 2]).digest() == found[0] == build(members, memory="in_turn").digest()


def test_each_member_has_its_own_classes(tmp_path: Path, members: list[timm_teacher.Config]) -> None:
    torch.manual_seed(5)
    model = timm.create_model(TINY[0], num_classes=4)
    torch.nn.init.normal_(model.get_classifier().weight, std=2.0)
    save_weights(model, tmp_path / "four.safetensors")
    four = timm_teacher.Config(
        timm=TINY[0],
        checkpoint=tmp_path / "four.safetensors",
        image_size=32,
        classes=["puppy", "hound", "tabby", "owl"],
        class_map={"puppy": "dog", "hound": "dog", "tabby": "cat", "owl": "owl"},
    )
    puppy, hound, tabby, owl = softmax(timm_teacher.build(four, CLASSES).predict(photos(32))).T
    expected = (np.stack([tabby, puppy + hound, owl], axis=1) + alone(members[1])) / 2
    teacher = build([four, members[1]])
    np.testing.assert_allclose(np.exp(teacher.predict_all(batches)), expected, atol=1e-5)
    settings = ensemble.Config(ensemble=[four, members[1]], test_time_augmentation="mirror")
    assert as_labeller(teacher, CLASSES, settings.model_copy(update={"test_time_augmentation": "none"})) is teacher
    assert as_labeller(teacher, CLASSES, settings).passes == 4


def error(do: Callable[..., object], *arguments: object, **named: object) -> DistillError:
    with pytest.raises(DistillError) as caught:
        do(*arguments, **named)
    return caught.value


def test_what_a_member_lacks_is_said_of_that_member(tmp_path: Path, members: list[timm_teacher.Config]) -> None:
    found = error(build, [members[0], timm_teacher.Config(timm=TINY[1], pretrained=False)])
    assert type(found) is TeacherError
    assert str(found) == (
        "teacher.ensemble.1: without weights it knows nothing: give `checkpoint`, `pretrained: true` or `fit: {}`"
    )
    found = error(build, [timm_teacher.Config(timm="convnext_bas"), members[0]], memory="in_turn")
    assert type(found) is UserError
    assert str(found) == "teacher.ensemble.0.timm: timm has no model 'convnext_bas' (did you mean 'convnext_base'?)"
    found = error(build, [members[0], members[1].model_copy(update={"class_map": {"cat": "cat"}})])
    assert str(found) == (
        "teacher.ensemble.1.class_map:\n  nothing maps to the class 'dog' of the data\n"
        "  nothing maps to the class 'owl' of the data"
    )
    found = error(build, [members[0], members[0].model_copy(update={"timm": TINY[1]})])
    assert type(found) is CheckpointError
    assert str(found).startswith(f"{members[0].checkpoint} does not fit this model:\n")


PIXELS = """\
import numpy as np


def cells(images, stride):
    count, side = images.shape[:2]
    parts = images.reshape(count, side // stride, stride, side // stride, stride, 3)
    return parts.mean(axis=(2, 4)) / 50


def coarse(images):
    return cells(images, 8)


def fine(images):
    return cells(images, 4)
"""


@pytest.fixture
def of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., python_teacher.Config]]:
    """Two teachers whose answer to a cell is its colour: `coarse` has cells of 8 pixels, `fine` of 4."""
    (tmp_path / "members_of_pixels.py").write_text(PIXELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name, **settings: python_teacher.Config(python=f"members_of_pixels:{name}", **settings)
    sys.modules.pop("members_of_pixels", None)


def pixels_of(images: Images, stride: int) -> FloatArray:
    count, side = images.shape[:2]
    parts = images.reshape(count, side // stride, stride, side // stride, stride, 3)
    return softmax(parts.mean(axis=(2, 4)) / 50)


@pytest.mark.parametrize("memory", ["together", "in_turn"])
def test_maps_are_averaged_on_the_largest_grid(
    of_pixels: Callable[..., python_teacher.Config], members: list[timm_teacher.Config], memory: str
) -> None:
    coarse = of_pixels("coarse", image_size=64)
    fine = of_pixels("fine", image_size=32, tiles=2, tile_overlap=0.5)
    turned = {"classes": ["owl", "cat", "dog"], "class_map": {"owl": "cat", "cat": "dog", "dog": "owl"}}
    teacher = build([coarse, fine.model_copy(update=turned)], weights=[1, 3], memory=memory)
    assert (teacher.sizes, teacher.passes, teacher.any_size) == ((64, 48), 2, False)
    found = teacher.predict_all(batches)
    assert found.shape == (5, 12, 12, 3) and found.dtype == np.float32
    expected = 0.25 * scale_map(pixels_of(photos(64), 8), 12, 12) + 0.75 * pixels_of(photos(48), 4)
    np.testing.assert_allclose(softmax(found), expected, atol=1e-5)
    settings = ensemble.Config(ensemble=teacher_settings(teacher), test_time_augmentation="mirror")
    mirrored = as_labeller(teacher, CLASSES, settings)
    np.testing.assert_allclose(softmax(mirrored.predict_all(batches)), expected, atol=1e-5)
    untiled = build([coarse, fine.model_copy(update=turned | {"tiles": 1})], weights=[1, 3], memory=memory)
    assert untiled.digest() != teacher.digest()
    found_error = error(build([coarse, members[0]]).predict_all, batches)
    assert str(found_error) == "teacher.ensemble: some of its members answer for an image, others for its pixels"


def teacher_settings(teacher: Ensemble) -> list[TeacherSettings]:
    return [member.settings for member in teacher.members]


def test_tiles_are_said_of_each_member(of_pixels: Callable[..., python_teacher.Config]) -> None:
    both = [of_pixels(name, image_size=32) for name in ("coarse", "fine")]
    with pytest.raises(ValueError, match="is said of each teacher: put `tiles` into the members of `ensemble`"):
        ensemble.Config(ensemble=both, tiles=2)


def test_other_scales_need_members_that_take_them(of_pixels: Callable[..., python_teacher.Config]) -> None:
    both = [of_pixels(name, image_size=32) for name in ("coarse", "fine")]
    settings = ensemble.Config(ensemble=both, test_time_scales=[0.5, 1])
    assert str(error(as_labeller, build(both), CLASSES, settings)) == (
        "teacher.test_time_scales: found [0.5, 1.0], but this teacher takes squares of 32 px alone, expected [1.0]"
    )


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[python_teacher.Config]:
    (tmp_path / "member_of_colours.py").write_text("def means(images):\n    return images.mean(axis=(1, 2)) / 10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield python_teacher.Config(python="member_of_colours:means", image_size=40)
    sys.modules.pop("member_of_colours", None)


def test_a_member_may_be_a_callable(members: list[timm_teacher.Config], colours: python_teacher.Config) -> None:
    teacher = build([members[0], colours], memory="in_turn")
    expected = (alone(members[0]) + softmax(photos(40).mean(axis=(1, 2)) / 10)) / 2
    np.testing.assert_allclose(np.exp(teacher.predict_all(batches)), expected, atol=1e-5)
    assert _size_and_time(teacher) == {"parameters": None, "bytes": None, "latency": None}
    found = error(build, [members[0], colours.model_copy(update={"fit": FitSettings()})])
    assert str(found) == "teacher.ensemble.1.fit: a Python callable cannot be fitted, only torch models can"


def test_sums_and_names(members: list[timm_teacher.Config]) -> None:
    settings = ensemble.Config(ensemble=members)
    assert _name(settings) == "test_resnet + test_efficientnet"
    parts = [_size_and_time(timm_teacher.build(member, CLASSES)) for member in members]
    for memory in ("together", "in_turn"):
        found = _size_and_time(build(members, memory=memory))
        assert found["parameters"] == sum(part["parameters"] for part in parts)
        assert found["bytes"] == 4 * found["parameters"]
        (latency,) = found["latency"]
        assert latency["threads"] == 1 and 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
    assert _pixels(build(members)) == "32 + 48"
    assert _pixels(build([members[0], members[0]])) == "32"


@pytest.mark.parametrize("memory", ["together", "in_turn"])
def test_members_are_fitted_and_loaded_by_name(tmp_path: Path, members: list[timm_teacher.Config], memory: str) -> None:
    fitted = [members[0], *(m.model_copy(update={"fit": FitSettings(epochs=n)}) for n, m in enumerate(members, 1))]
    settings = ensemble.Config(ensemble=fitted, memory=memory)
    teacher = build(fitted, memory=memory)
    before, told = teacher.predict_all(batches), []
    for name, network, part in networks(teacher, settings):
        assert part.fit is not None
        told.append((name, part.fit.epochs))
        with torch.no_grad():
            network.classifier().weight.fill_(0.0)
            network.classifier().bias.copy_(torch.tensor([2.0, 0.0, -2.0]))
        save_weights(network.backbone, tmp_path / "teacher" / name / "weights.safetensors")
        del network
    assert told == [("member-1", 1), ("member-2", 2)]
    again = build(fitted, memory=memory)
    np.testing.assert_array_equal(again.predict_all(batches), before)
    load_fitted(again, settings, tmp_path / "teacher")
    learnt = softmax(np.array([[2.0, 0.0, -2.0]]))
    np.testing.assert_allclose(np.exp(again.predict_all(batches)), (alone(members[0]) + 2 * learnt) / 3, atol=1e-5)
    assert again.digest() != build(fitted, memory=memory).digest()


def test_only_torch_models_can_be_fitted(members: list[timm_teacher.Config], colours: python_teacher.Config) -> None:
    teacher = build([members[0], colours])
    wrong = teacher.members[1].settings.model_copy(update={"fit": FitSettings()})
    teacher.members = (teacher.members[0], type(teacher.members[1])(wrong, teacher.members[1].make, 1.0))
    found = error(lambda: list(networks(teacher, TeacherSettings())))
    assert str(found) == "teacher.ensemble.1.fit: only torch models can be fitted"


@pytest.mark.parametrize("memory", ["together", "in_turn"])
def test_every_member_answers_in_the_precision_that_is_set(
    tmp_path: Path, members: list[timm_teacher.Config], colours: python_teacher.Config, memory: str
) -> None:
    settings = ensemble.Config(ensemble=[*members, colours], memory=memory, precision="bfloat16")
    teacher = build([*members, colours], memory=memory)
    exact = teacher.predict_all(batches)
    said = choose_precision(teacher, settings, [], None, tmp_path)  # type: ignore[arg-type]
    assert said == "bfloat16 (set); bfloat16 (set); the teacher's own (no torch module)"
    for number in range(2):
        with teacher.turn(number) as member:
            assert isinstance(member, TorchPredictor) and member.precision == "bfloat16"
    rounded = teacher.predict_all(batches)
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(np.exp(rounded), np.exp(exact), atol=0.1)


def test_a_choice_of_precision_is_kept_for_each_member(tmp_path: Path, members: list[timm_teacher.Config]) -> None:
    settings = ensemble.Config(ensemble=members, memory="in_turn")
    kept = [{"precision": "float32", "reason": "a"}, {"precision": "bfloat16", "reason": "b"}]
    (tmp_path / "precision.json").write_text(json.dumps(kept))
    teacher = build(members, memory="in_turn")
    assert choose_precision(teacher, settings, [], None, tmp_path) == "float32 (a); bfloat16 (b)"  # type: ignore[arg-type]
    found = []
    for number in range(2):
        with teacher.turn(number) as member:
            assert isinstance(member, TorchPredictor)
            found.append(member.precision)
    assert found == ["float32", "bfloat16"]


def test_the_fingerprint_counts_what_decides_the_answers(
    members: list[timm_teacher.Config], colours: python_teacher.Config, tmp_path: Path
) -> None:
    def values(**changes: Any) -> str:
        first = members[0].model_copy(update={"fit": FitSettings(**changes.pop("fit", {}))})
        return json.dumps(_values(ensemble.Config(ensemble=[first, members[1], colours], **changes)), sort_keys=True)

    before = values()
    assert values(fit={"workers": 7}) == values(memory="in_turn") == before
    assert len({before, values(fit={"epochs": 7}), values(weights=[1, 2, 3])}) == 3
    path = members[1].checkpoint
    assert path is not None
    kept = path.read_bytes()
    path.write_bytes(kept + b" ")
    assert values() != before
    path.write_bytes(kept)
    assert values() == before
    (tmp_path / "member_of_colours.py").write_text("def means(images):\n    return images.mean(axis=(1, 2)) / 20\n")
    assert values() != before


def test_a_summary_of_several_fits_is_told_member_by_member() -> None:
    fit = {"epochs": 8, "best_epoch": 5, "validation_score": 0.75, "decisions": {"lr": "0.002 (from scratch)"}}
    accuracy = {"value": 0.8, "low": 0.7, "high": 0.9}
    scores = {"validation": {"accuracy": accuracy, "images": 24}}
    assert _fit_summary({}) is None
    assert _fit_summary({"": fit}) == fit
    several = _fit_summary({"member-0": fit, "member-2": fit})
    summary = {"detail": "a + b, 32 px", "fit": several, "scores": scores}
    told = list(describe("teacher", summary, Metric("accuracy", "accuracy")))
    assert told == [
        "a + b, 32 px",
        "member-0: accuracy 0.750 on validation after epoch 5 of 8",
        "member-2: accuracy 0.750 on validation after epoch 5 of 8",
        "member-0 lr: 0.002 (from scratch)",
        "member-2 lr: 0.002 (from scratch)",
        "validation accuracy 0.800 [0.700, 0.900] on 24 images",
    ]


def test_the_curves_of_members_are_told_apart() -> None:
    stages = ["teacher member-0", "teacher member-1", "student", "baseline"]
    curves = [
        {"stage": stage, "epoch": epoch, "loss": 1 / epoch, "validation_score": 0.5, "validation_nll": 1.0}
        for stage in stages
        for epoch in (1, 2, 3)
    ]
    drawn = loss_curves(curves)
    assert drawn is not None
    for name in ("member-0", "member-1", "student", "control"):
        assert f">{name}<" in drawn
    dashes = {part.split(";")[0] for part in drawn.split("stroke-dasharray: ")[1:]}
    assert len(dashes) == 3  # each member's and the control's


FIT = {"batch_size": 8, "ema_decay": 0.9}
ENSEMBLE = {
    "ensemble": [
        {"timm": "test_resnet", "pretrained": False, "image_size": size, "fit": {"epochs": epochs, **FIT}}
        for size, epochs in ((32, 5), (48, 4))
    ],
    "weights": [2, 1],
    "memory": "in_turn",
}


def test_a_run_with_two_fitted_members_until_labels(workplace: Workplace) -> None:
    (workplace.root / "teacher.yaml").write_text(
        yaml.dump(yaml.safe_load(CONFIG) | {"teacher": ENSEMBLE, "labels": {"views": 3}})
    )
    output = workplace.run("run", "teacher.yaml", "--until", "labels")
    run = Run(workplace.root / "runs/teacher")
    summary = run.summary("teacher")
    assert summary["detail"] == "test_resnet + test_resnet, 32 + 48 px"
    assert set(summary["fit"]["members"]) == {"member-0", "member-1"}
    assert "member-0: accuracy" in output and "member-1 lr:" in output
    assert summary["scores"]["test"]["accuracy"]["value"] > 0.6
    weights = [run.folder("teacher") / f"member-{n}" / "weights.safetensors" for n in range(2)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
    stages = {json.loads(line)["stage"] for line in (run.root / "metrics.jsonl").read_text().splitlines()}
    assert stages == {"teacher member-0", "teacher member-1"}
    store = LabelStore(run.folder("labels"))
    assert (store.images, store.views) == (330, 3)
    facts = json.loads((run.folder("labels") / "store.json").read_text())["teacher"]
    assert (facts["name"], facts["image_size"]) == ("test_resnet + test_resnet", 48)

    config = load_config(run.root / "config.yaml")
    torch.manual_seed(config.seed)
    again = plugins.build(config.teacher, ["green", "red", "violet"])
    load_fitted(again, config.teacher, run.folder("teacher"))
    assert again.digest() == facts["digest"]
    assert "Nothing to do" in workplace.run("run", "teacher.yaml", "--until", "labels")
    changed = workplace.run("run", "teacher.yaml", "--until", "labels", "--set", "teacher.memory=together")
    assert "Nothing to do" in changed


@pytest.mark.parametrize("in_turn", [False, True])
def test_each_members_licence_is_noted(members: list[timm_teacher.Config], in_turn: bool) -> None:
    def of(stated: list[str | None]) -> str | None:
        def make(config: timm_teacher.Config, license_: str | None) -> TorchPredictor:
            built = timm_teacher.build(config, CLASSES)
            assert isinstance(built, TorchPredictor) and built.license is None, "a checkpoint of one's own has no card"
            return TorchPredictor(built.network, license=license_)

        pairs = zip(members, stated, strict=True)
        parts = [Member(config, lambda c=config, s=said: make(c, s), 1.0) for config, said in pairs]
        return _license(Ensemble(parts, CLASSES, in_turn=in_turn))

    assert of(["mit", "cc-by-nc-4.0"]) == "mit + cc-by-nc-4.0"
    assert of([None, "mit"]) == "unknown + mit"
    assert of([None, None]) is None
