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
from distill.evaluate import evaluate
from distill.labels.store import LabelStore
from distill.losses import soft_cross_entropy
from distill.probe import fit_probe
from distill.students.timm import Config, build
from distill.tasks.classification import Classification
from distill.torch_predictor import Network, TorchPredictor
from distill.train import Drawn, Examples, PseudoLabelled, Truth, train
from tests.workplace import Workplace

SETTINGS = TrainSettings(epochs=4, batch_size=8, ema_decay=0.9, warmup_epochs=1, lr=1e-3)


class Interrupted(Examples):
    """Examples of a run that is stopped when it asks for the third epoch."""

    def __init__(self, inner: Examples) -> None:
        self._inner = inner

    def draw(self, epoch: int) -> list[Drawn]:
        if epoch == 2:
            raise KeyboardInterrupt
        return self._inner.draw(epoch)

    def fixed(self, limit: int) -> list[Drawn]:
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
        Classification(manifest.classes),
        epoch_size=epoch_size,
        resize="center_crop",
        min_area=0.5,
        mirror=True,
        label_smoothing=label_smoothing,
        seed=0,
    )


def learn(manifest: Manifest, examples: Examples, folder: Path, progress: Progress, seed: int = 0) -> None:
    train(
        network(manifest.classes),
        examples,
        manifest.of("validation"),
        Classification(manifest.classes),
        SETTINGS,
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


def test_the_loss_falls_from_that_of_guessing(manifest: Manifest, tmp_path: Path, progress: Progress) -> None:
    learn(manifest, truth(manifest, epoch_size=96), tmp_path / "run", progress)
    losses = [line["loss"] for line in MetricsLog(tmp_path / "run.jsonl").read()]
    assert losses[0] == pytest.approx(np.log(3), abs=0.25)  # a classifier of zeros guesses
    assert losses[-1] < losses[0] - 0.1, losses


def test_truth_repeats_images_under_fresh_views(manifest: Manifest) -> None:
    drawn = truth(manifest, epoch_size=70).draw(0)
    assert len(drawn) == 70
    views: dict[str, set[object]] = {}
    for d in drawn:
        views.setdefault(d.record.id, set()).add(d.view)
    assert len(views) == 30
    assert all(len(seen) >= 2 for seen in views.values())
    first, again, later = (truth(manifest).draw(epoch) for epoch in (3, 3, 4))
    assert [(d.record.id, d.view) for d in first] == [(d.record.id, d.view) for d in again]
    assert [(d.record.id, d.view) for d in first] != [(d.record.id, d.view) for d in later]


def test_label_smoothing_keeps_the_sum(manifest: Manifest) -> None:
    d = truth(manifest, label_smoothing=0.3).draw(0)[0]
    assert d.target.sum() == pytest.approx(1)
    assert sorted(d.target) == pytest.approx([0.1, 0.1, 0.8])


def test_a_student_is_shown_exactly_the_views_that_were_labelled(finished: Workplace, manifest: Manifest) -> None:
    store = LabelStore(finished.root / "runs/teacher/labels")
    task = Classification(manifest.classes)
    examples = PseudoLabelled(manifest.of("train"), store, task, truth_weight=0.5, label_smoothing=0.0, seed=0)
    shown: dict[str, set[object]] = {}
    for epoch in range(store.views):
        drawn = examples.draw(epoch)
        assert sorted(d.record.id for d in drawn) == sorted(r.id for r in manifest.of("train"))
        for d in drawn:
            shown.setdefault(d.record.id, set()).add(d.view)
            index = next(i for i in range(store.views) if store.view(d.record.id, i) == d.view)
            answer = store.target(d.record.id, index)
            if d.record.label is None:
                np.testing.assert_array_equal(d.target, answer)
            else:
                place = manifest.classes.index(d.record.label)
                expected = answer * 0.5
                expected[place] += 0.5
                np.testing.assert_allclose(d.target, expected, rtol=1e-6)
    for image, views in shown.items():
        assert views == {store.view(image, i) for i in range(store.views)}


def test_stored_answers_are_those_of_the_teacher(finished: Workplace, manifest: Manifest) -> None:
    """Ask the fitted teacher again about stored views, one image at a time; only fp16 is between."""
    from distill.checkpoint import load_weights
    from distill.config import load_config
    from distill.core import plugins
    from distill.data.views import render

    config = load_config(finished.root / "teacher.yaml")
    teacher = plugins.build(config.teacher, manifest.classes)
    load_weights(teacher.network.backbone, finished.root / "runs/teacher/teacher/weights.safetensors")
    store, cache = LabelStore(finished.root / "runs/teacher/labels"), ImageCache(100)
    for record in manifest.of("train")[::40]:
        for index in range(store.views):
            pixels = render(cache.get(record), store.view(record.id, index), 32)[None]
            answer = softmax(teacher.predict(pixels))[0]
            np.testing.assert_allclose(store.target(record.id, index), answer, atol=2e-3)


def test_soft_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert float(soft_cross_entropy(logits, targets)) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2, rel=1e-6)


def test_the_probe_finds_what_the_features_hold(manifest: Manifest) -> None:
    """Random features of colours separate the three colours; only the classifier changes."""
    task, cache = Classification(manifest.classes), ImageCache(100)
    student = network(manifest.classes, drop_rate=0.0)
    before = {k: v.clone() for k, v in student.state_dict().items() if "classifier" not in k}
    examples = [(d.record, d.view, d.target) for d in truth(manifest).fixed(1000)]
    fit_probe(student, examples, manifest.of("validation"), task, cache=cache, resize="center_crop")
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

    records: list[ImageRecord] = manifest.of("test")
    score, answers = evaluate(Reddest(), Classification(manifest.classes), records, ImageCache(100), "squash")
    assert score.accuracy.value > 0.9
    assert answers.ids == tuple(r.id for r in records)
