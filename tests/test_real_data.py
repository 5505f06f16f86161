"""On real photos and weights, where they lie beside the checkout; in CI they must."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from distill.config_file import load_config, recipes
from distill.core import plugins
from distill.core.progress import Progress
from distill.data import sources
from distill.data.manifest import scan
from distill.data.views import fixed_view, render

DATA = Path(__file__).parents[2] / "shared" / "data"
TEACHER = DATA / "weights" / "mobilenetv2_100.imagenet.tf_same.safetensors"
STUDENT = DATA / "weights" / "mobilenetv2_035_96.imagenet_features.tf_same.safetensors"


@pytest.fixture(scope="module", autouse=True)
def real_data() -> None:
    missing = [path for path in (DATA / "trashnet" / "index.csv", TEACHER, STUDENT) if not path.exists()]
    if missing:
        message = f"real data are not beside the checkout: {missing[0]}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def test_trashnet_manifest_is_read_whole(progress: Progress) -> None:
    config = load_config(recipes()["trashnet"], [f"data.manifest={DATA / 'trashnet' / 'index.csv'}"])
    manifest = scan(sources.find(config.data), config.data, None, progress)
    counts = manifest.counts()
    assert manifest.classes == ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    expected = {"train_labelled": 350, "train_unlabelled": 1423, "validation": 341, "test": 410, "left_out": 0}
    assert {key: counts[key] for key in expected} == expected
    assert all(r.label is None and r.hidden_label for r in manifest.of("train", labelled=False))


def test_the_real_teacher_knows_its_thousand_classes() -> None:
    """ImageNet weights without fitting: class names come from timm, and photos of glass bottles look like bottles."""
    changes = [
        f"data.manifest={DATA / 'trashnet' / 'index.csv'}",
        f"teacher={{timm: mobilenetv2_100, checkpoint: {TEACHER}, model_args: {{pad_type: same}}, image_size: 224,"
        " mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}",
    ]
    config = load_config(recipes()["trashnet"], changes)
    teacher = plugins.build(config.teacher, ["glass", "metal"])
    assert len(teacher.class_names) == 1000
    records = [c for c in sources.find(config.data) if c.label == "glass"][:24]
    from distill.data.decode import decode

    images = [decode(c.path) for c in records]
    batch = np.stack([render(i, fixed_view(*i.size, "squash"), teacher.image_size) for i in images])
    answers = [teacher.class_names[i] for i in teacher.predict(batch).argmax(axis=1)]
    likely = ("bottle", "goblet", "glass", "perfume", "lotion", "beaker", "vase", "jar", "saltshaker", "lighter")
    assert sum(any(word in a for word in likely) for a in answers) >= 4, answers  # guessing: 0.3


def test_the_real_student_starts_from_features_without_a_classifier() -> None:
    changes = [f"data.manifest={DATA / 'trashnet' / 'index.csv'}", f"student.checkpoint={STUDENT}"]
    config = load_config(recipes()["trashnet"], changes)
    network = plugins.build(config.student, ["a", "b", "c"])
    assert network.pretrained and network.classifier().weight.shape == (3, 1280)
