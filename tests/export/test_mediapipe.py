"""MediaPipe Tasks run our TFLite files as they are: labels, normalisation and sizes are read from the file alone.

The photos are scaled before, to the side of the model's input: MediaPipe scales by a filter of its own, which says
nothing about the file.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.core.dense import scale_map
from distill.data.decode import decode
from distill.data.views import fixed_view, render
from export.isolated import IsolatedFile
from tests.export.tflite_files import about_imagenet
from tests.workplace import Workplace

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
WEIGHTS = DATA / "weights" / "mobilenetv2_100.imagenet.tf_same.safetensors"
PRECISIONS = ["float32", "int8"]


def needed(there: bool, lacking: str) -> None:
    if not there:
        pytest.fail(lacking) if os.environ.get("CI") else pytest.skip(lacking)


@pytest.fixture(scope="module", autouse=True)
def mediapipe() -> None:
    needed(importlib.util.find_spec("mediapipe") is not None, "needs the package mediapipe")
    needed(WEIGHTS.exists(), f"real data are not beside the checkout: {WEIGHTS}")


def photos(name: str, size: int, splits: set[str], count: int = 100) -> np.ndarray:
    """uint8 [count, size, size, 3], evenly taken from a data set."""
    with (DATA / name / "index.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] in splits]
    paths = [DATA / name / (row["path"] if name == "trashnet" else row["image"]) for row in rows]
    images = [decode(path) for path in paths[:: len(paths) // count][:count]]
    return np.stack([render(image, fixed_view(*image.size, "squash"), size) for image in images])


def ask(file: Path, task: str, images: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    np.save(folder / "images.npy", images)
    command = [sys.executable, "-m", "tests.export.mediapipe_answers", str(file), task]
    command += [str(folder / "images.npy"), str(folder / "answers.npz")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "answers.npz") as said:
        return dict(said)


def ours(file: Path, images: np.ndarray) -> np.ndarray:
    with IsolatedFile(file, "tflite") as opened:
        return opened.run(images)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 with its thousand classes as TFLite files, int8 by the first rung."""
    folder = tmp_path_factory.mktemp("imagenet")
    np.save(folder / "images.npy", photos("trashnet", 224, {"train"}, 24))
    command = [sys.executable, "-m", "tests.export.tflite_files", str(folder), str(WEIGHTS)]
    made = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_image_classifier_names_the_same_class(imagenet: Path, precision: str, tmp_path: Path) -> None:
    """Two classes that are best alike have no order: 8 bits of a thousand logits tie two to five in a hundred."""
    file = imagenet / f"said.{precision}.tflite"
    images = photos("trashnet", 224, {"val", "test"})
    said, probabilities = ask(file, "classify", images, tmp_path), ours(file, images)
    best = probabilities.max(axis=1, keepdims=True)
    names = np.array([line.strip() for line in about_imagenet().lines.splitlines()])
    named = (names == said["names"][:, None]) & (probabilities == best)
    tied = (probabilities == best).sum(axis=1) > 1
    assert named.any(axis=1).all()
    assert tied.sum() <= (0 if precision == "float32" else 5)
    np.testing.assert_array_equal(said["scores"], best[:, 0])
    assert len(set(said["names"])) > 20


@pytest.mark.parametrize("precision", PRECISIONS)
def test_files_of_a_run_have_its_own_classes(finished: Workplace, precision: str, tmp_path: Path) -> None:
    file = finished.root / f"runs/teacher/export/student.{precision}.tflite"
    images = photos("trashnet", 32, {"val", "test"})
    said = ask(file, "classify", images, tmp_path)
    classes = np.array(["green", "red", "violet"])
    assert (classes[ours(file, images).argmax(axis=1)] == said["names"]).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_image_segmenter_is_as_sure_of_every_pixel(segmented: Workplace, precision: str, tmp_path: Path) -> None:
    """A map of 8x8 cells, which MediaPipe enlarges to the photo's 32x32 pixels as probabilities."""
    file = segmented.root / f"runs/teacher/export/student.{precision}.tflite"
    images = photos("clothing", 32, {"val", "test"})
    said, enlarged = ask(file, "segment", images, tmp_path), scale_map(ours(file, images), 32, 32)
    assert list(said["names"]) == ["background", "disc", "square"]
    assert (said["confidences"].argmax(axis=-1) == enlarged.argmax(axis=-1)).mean() >= 0.99
    differences = np.abs(said["confidences"] - enlarged)
    # int8 kernels round differently in the two versions of XNNPACK
    assert differences.max() < (1e-6 if precision == "float32" else 0.1)
    assert differences.mean() < (1e-7 if precision == "float32" else 0.002)


@pytest.fixture(scope="module")
def full_size(segmented: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's files once more, answering at the size of the image."""
    run = tmp_path_factory.mktemp("full") / "run"
    shutil.copytree(segmented.root / "runs/teacher", run)
    config, found = re.subn("upsample: false", "upsample: true", (run / "config.yaml").read_text())
    assert found == 1
    (run / "config.yaml").write_text(config)
    segmented.run("export", "tflite", "--quantize", "--rung", "1", "--run", str(run))
    return run / "export"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_image_segmenter_draws_the_same_mask(full_size: Path, precision: str, tmp_path: Path) -> None:
    """Of a coarser map MediaPipe's mask of categories would differ at the rims of things.

    It lays the centres of the outer cells onto the image's corners there, half a cell from where they are (on students
    of 32x32 cells for 128x128 pixels 1.3 % of all pixels get another class).
    """
    file = full_size / f"student.{precision}.tflite"
    images = photos("clothing", 32, {"val", "test"})
    said, answers = ask(file, "segment", images, tmp_path), ours(file, images)
    assert answers.shape == (100, 32, 32, 3)
    assert (said["masks"] == answers.argmax(axis=-1)).mean() >= 0.99
    assert len(np.unique(said["masks"])) > 1
