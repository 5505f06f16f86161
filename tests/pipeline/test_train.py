"""The training loop, called directly: going on gives the same bytes, targets are what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.checkpoint import read_state
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.settings import TrainSettings
from distill.core.types import ImageRecord, Predictor, softmax
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.views import ViewPlan
from distill.evaluate import evaluate
from distill.examples import Examples, Lesson, Places, PseudoLabelled, Truth, mix
from distill.labels.store import LabelStore
from distill.losses import build_loss, of_rows
from distill.probe import fit_probe
from distill.students.timm import Config, build
from distill.tasks.classification import Classification
from distill.torch_predictor import Network, TorchPredictor
from distill.train import Batch, train
from tests.workplace import Workplace

SETTINGS = TrainSettings(epochs=4, batch_size=8, ema_decay=0.9, warmup_epochs=1, lr=1e-3)


class Interrupted(Examples):
    """Examples of a run that is stopped when it asks for the third epoch."""

    def __init__(self, inner: Examples) -> None:
        self._inner = inner

    def epoch(self, number: int) -> Places:
        if number == 2:
            raise KeyboardInterrupt
        return self._inner.epoch(number)

    def lesson(self, places: Places) -> Lesson:
        return self._inner.lesson(places)

    def fixed(self, limit: int) -> Lesson:
        return self._inner.fixed(limit)


@pytest.fixture(scope="module")
def manifest(finished: Workplace) -> Manifest:
    return Manifest.load(finished.root / "runs/teacher/data/manifest.parquet")


def network(classes: tuple[str, ...], drop_rate: float = 0.2) -> Network:
    torch.manual_seed(0)
    return build(
        Config(timm="tf_mobilenetv3_small_minimal_100", pretrained=False, image_size=32, drop_rate=drop_rate), classes
    )


def truth(manifest: Manifest, epoch_size: int = 24, label_smoothing: float = 0.0) -> Truth:
    return Truth(
        manifest.of("train", labelled=True),
        manifest.classes,
        ViewPlan("center_crop", 0.5, True, 0.1, 0),
        epoch_size=epoch_size,
        label_smoothing=label_smoothing,
    )


def learn(
    manifest: Manifest, examples: Examples, folder: Path, progress: Progress, seed: int = 0, mixup: float = 0.0
) -> None:
    train(
        network(manifest.classes),
        examples,
        manifest.of("validation"),
        Classification(manifest.classes),
        SETTINGS.model_copy(update={"mixup": mixup}),
        of_rows(build_loss("kl", 1.0)),
        folder,
        stage="student",
        seed=seed,
        cache=ImageCache(100),
        resize="center_crop",
        metrics=MetricsLog(folder.parent / f"{folder.name}.jsonl"),
        progress=progress,
    )


def test_two_and_two_epochs_equal_four_bit_for_bit(manifest: Manifest, tmp_path: Path, progress: Progress) -> None:
    examples = truth(manifest)
    learn(manifest, examples, tmp_path / "whole", progress)
    with pytest.raises(KeyboardInterrupt):
        learn(manifest, Interrupted(examples), tmp_path / "parts", progress)
    assert not (tmp_path / "parts/weights.safetensors").exists()
    learn(manifest, examples, tmp_path / "parts", progress)
    whole, parts = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    last = [read_state(tmp_path / name / "last-0004.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    losses = [[line["loss"] for line in MetricsLog(tmp_path / f"{n}.jsonl").read()] for n in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    learn(manifest, examples, tmp_path / "other", progress, seed=1)
    assert (tmp_path / "other/weights.safetensors").read_bytes() != whole, "the seed decides something"


def test_with_mixup_too(manifest: Manifest, tmp_path: Path, progress: Progress) -> None:
    examples = truth(manifest)
    learn(manifest, examples, tmp_path / "whole", progress, mixup=0.4)
    with pytest.raises(KeyboardInterrupt):
        learn(manifest, Interrupted(examples), tmp_path / "parts", progress, mixup=0.4)
    learn(manifest, examples, tmp_path / "parts", progress, mixup=0.4)
    learn(manifest, examples, tmp_path / "plain", progress)
    whole, parts, plain = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts", "plain")
    )
    assert whole == parts
    assert whole != plain


def test_mixup_partners_are_numbers() -> None:
    partners, share = mix(50, 0.4, (0, 3, 7))
    again, same = mix(50, 0.4, (0, 3, 7))
    assert sorted(partners) == list(range(50))
    np.testing.assert_array_equal(partners, again)
    np.testing.assert_array_equal(share, same)
    assert share.dtype == np.float32
    assert 0.5 <= share.min() <= share.max() <= 1
    assert not np.array_equal(partners, mix(50, 0.4, (0, 3, 8))[0])
    # folded beta(0.4, 0.4): mean of max(x, 1 - x) is 0.832 by numerical integration
    assert mix(20_000, 0.4, (1,))[1].mean() == pytest.approx(0.832, abs=0.01)


def test_a_mixed_batch_shows_and_asks_the_same_mixture(manifest: Manifest) -> None:
    lesson = truth(manifest).lesson(truth(manifest).epoch(0)[:6])
    rng = np.random.default_rng(0)
    teacher = rng.dirichlet(np.ones(3), 6).astype(np.float32)
    lesson = lesson._replace(teacher=teacher, truth_share=np.linspace(0, 1, 6, dtype=np.float32))
    pixels = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    partners, share = mix(6, 0.4, (0,))
    mixed = Batch.of(lesson, pixels, torch.device("cpu")).mixed(partners, share)
    for n in range(6):
        own, other = share[n], 1 - share[n]
        expected = np.round(pixels[n] * own + pixels[partners[n]] * other)
        assert np.abs(mixed.images[n].numpy().astype(np.float32) - expected).max() <= 1
        answers = [
            lesson.truth_share[i] * lesson.truth[i] + (1 - lesson.truth_share[i]) * teacher[i] for i in (n, partners[n])
        ]
        np.testing.assert_allclose(mixed.teacher[n].numpy(), own * answers[0] + other * answers[1], rtol=1e-5)
    assert (mixed.truth_share == 0).all()


def test_the_loss_falls_from_that_of_guessing(manifest: Manifest, tmp_path: Path, progress: Progress) -> None:
    learn(manifest, truth(manifest, epoch_size=96), tmp_path / "run", progress)
    losses = [line["loss"] for line in MetricsLog(tmp_path / "run.jsonl").read()]
    assert losses[0] == pytest.approx(np.log(3), abs=0.25)  # a classifier of zeros guesses
    assert losses[-1] < losses[0] - 0.1, losses


def test_truth_repeats_images_under_fresh_views(manifest: Manifest) -> None:
    def shown(examples: Truth, epoch: int) -> list[tuple[str, object]]:
        return [(record.id, view) for record, (view,) in examples.lesson(examples.epoch(epoch)).shown]

    drawn = shown(truth(manifest, epoch_size=70), 0)
    assert len(drawn) == 70
    views: dict[str, set[object]] = {}
    for image, view in drawn:
        views.setdefault(image, set()).add(view)
    assert len(views) == 30
    assert all(len(seen) >= 2 for seen in views.values())
    assert shown(truth(manifest), 3) == shown(truth(manifest), 3)
    assert shown(truth(manifest), 3) != shown(truth(manifest), 4)


def test_label_smoothing_keeps_the_sum(manifest: Manifest) -> None:
    lesson = truth(manifest, label_smoothing=0.3).fixed(1)
    assert lesson.truth.sum() == pytest.approx(1)
    assert sorted(lesson.truth[0]) == pytest.approx([0.1, 0.1, 0.8])
    assert lesson.truth_share.tolist() == [1.0]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_student_is_shown_exactly_the_views_that_were_labelled(
    finished: Workplace, manifest: Manifest, temperature: float
) -> None:
    store = LabelStore(finished.root / "runs/teacher/labels")
    records = manifest.of("train")
    weights = np.linspace(1, 2, len(records), dtype=np.float32)
    examples = PseudoLabelled(
        records,
        store,
        manifest.classes,
        weights=weights,
        temperature=temperature,
        truth_weight=0.25,
        label_smoothing=0.0,
        seed=0,
    )
    shown: dict[str, set[object]] = {}
    for epoch in range(store.views):
        lesson = examples.lesson(examples.epoch(epoch))
        assert sorted(record.id for record, _ in lesson.shown) == sorted(r.id for r in records)
        for row, (record, (view,)) in enumerate(lesson.shown):
            shown.setdefault(record.id, set()).add(view)
            place = store.position(record.id)
            views, answers = store.read(np.full(store.views, place), np.arange(store.views))
            powers = answers[views.index(view)] ** (1 / temperature)
            np.testing.assert_allclose(lesson.teacher[row], powers / powers.sum(), rtol=1e-5, atol=1e-7)
            assert lesson.weight[row] == weights[place]
            assert lesson.truth_share[row] == (0.25 if record.label is not None else 0)
            if record.label is not None:
                assert lesson.truth[row].argmax() == manifest.classes.index(record.label)
                assert lesson.truth[row].max() == 1
    for image, seen in shown.items():
        assert seen == set(store.read(np.full(store.views, store.position(image)), np.arange(store.views))[0])


def test_stored_answers_are_those_of_the_teacher(finished: Workplace, manifest: Manifest) -> None:
    """Ask the fitted teacher again about stored views, one image at a time; only fp16 is between."""
    from distill.checkpoint import load_weights
    from distill.config_file import load_config
    from distill.core import plugins
    from distill.data.views import render

    config = load_config(finished.root / "teacher.yaml")
    teacher = plugins.build(config.teacher, manifest.classes)
    load_weights(teacher.network.backbone, finished.root / "runs/teacher/teacher/weights.safetensors")
    store, cache = LabelStore(finished.root / "runs/teacher/labels"), ImageCache(100)
    for record in manifest.of("train")[::40]:
        for index in range(store.views):
            (view,), stored = store.read(np.array([store.position(record.id)]), np.array([index]))
            answer = softmax(teacher.predict(render(cache.get(record), view, 32)[None]))
            np.testing.assert_allclose(stored, answer, atol=2e-3)


def test_the_probe_finds_what_the_features_hold(manifest: Manifest) -> None:
    """Random features of colours separate the three colours; only the classifier changes."""
    task, cache = Classification(manifest.classes), ImageCache(100)
    student = network(manifest.classes, drop_rate=0.0)
    before = {k: v.clone() for k, v in student.state_dict().items() if "classifier" not in k}
    fit_probe(student, truth(manifest).fixed(1000), manifest.of("validation"), cache=cache, resize="center_crop")
    score, _ = evaluate(TorchPredictor(student), task, manifest.of("test"), cache, "center_crop")
    assert score.accuracy.value > 0.8
    after = student.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_any_predictor_can_be_scored(manifest: Manifest) -> None:
    class Reddest(Predictor):
        """Five lines are a predictor."""

        class_names = manifest.classes
        image_size = 4

        def predict(self, images):
            mean = images.reshape(len(images), -1, 3).mean(axis=1, dtype=np.float32)
            return mean[:, [1, 0, 2]]  # green, red, violet by the strongest channel

        def digest(self):
            return "reddest"

    records: list[ImageRecord] = manifest.of("test")
    score, answers = evaluate(Reddest(), Classification(manifest.classes), records, ImageCache(100), "squash")
    assert score.accuracy.value > 0.9
    assert answers.ids == tuple(r.id for r in records)


def test_an_image_that_is_repeated_shows_another_view_each_time(finished: Workplace, manifest: Manifest) -> None:
    store = LabelStore(finished.root / "runs/teacher/labels")
    records = list(manifest.of("train")[:3]) * 4
    ones = np.ones(len(records), np.float32)
    settings = {"temperature": 1.0, "truth_weight": 0.5, "label_smoothing": 0.0, "seed": 0}
    lesson = (examples := PseudoLabelled(records, store, manifest.classes, weights=ones, **settings)).lesson(
        examples.epoch(0)
    )
    assert len({(record.id, view) for record, (view,) in lesson.shown}) == 12
