"""A file that says what it is answers as it did before, to the bit, wherever its weights are stored."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.core.errors import ArtifactError
from distill.core.flatbuffer import child, number, numbers, places, root_of, string, tables
from export.about import LABELS_FILE
from export.formats.tflite import TFLite
from export.isolated import IsolatedFile
from export.tflite_metadata import METADATA, with_metadata
from tests.export.tflite_files import ABOUT

ROOT = Path(__file__).parents[2]
PRECISIONS = ["float32", "int8"]
IMAGES = np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small student's files, before (`bare`) and after (`said`)."""
    found = tmp_path_factory.mktemp("tflite")
    command = [sys.executable, "-m", "tests.export.tflite_files", str(found)]
    made = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    return found


def places_of_weights(model: bytes) -> list[tuple[int, int]]:
    """Where each buffer's bytes lie, counted from the start of the file, and how many there are."""
    found = []
    for buffer in tables(root_of(model), 4):
        offset, size = number(buffer, 1, "Q"), number(buffer, 2, "Q")
        if offset <= 1:
            inside = places(buffer, 0, 1)
            offset, size = (inside[0], len(inside)) if inside else (0, 0)
        found.append((offset, size))
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_answers_as_before_in_as_many_partitions(folder: Path, precision: str) -> None:
    answers, facts = [], []
    for name in ("bare", "said"):
        with IsolatedFile(folder / f"{name}.{precision}.tflite", "tflite") as opened:
            answers.append(opened.run(IMAGES))
            facts.append(opened.facts)
    np.testing.assert_array_equal(answers[0], answers[1])
    assert facts[0] == facts[1]
    assert len(np.unique(answers[0])) > 16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_weights_are_found_where_they_moved_to_as_well_aligned_as_before(folder: Path, precision: str) -> None:
    bare, said = ((folder / f"{name}.{precision}.tflite").read_bytes() for name in ("bare", "said"))
    old, new = places_of_weights(bare), places_of_weights(said)
    assert len(new) == len(old) + 1  # the metadata's own
    assert sum(size for _, size in old) > 1_000_000
    moved = {there[0] - here[0] for here, there in zip(old, new, strict=False) if here[1]}
    assert len(moved) == 1 and next(iter(moved)) % 64 == 0
    for (at, size), (there, as_many) in zip(old, new, strict=False):
        assert size == as_many and bare[at : at + size] == said[there : there + size]
    assert new[-1][0] % 16 == 0
    behind = [at for at, _ in old if at > 1 and at >= max(b.Pos for b in tables(root_of(bare), 4))]
    assert precision == "float32" or behind, "the quantizer stores weights behind the flatbuffer"


def test_unzip_lists_the_labels(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "said.int8.tflite") as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
        assert entry.filename == LABELS_FILE and entry.compress_type == zipfile.ZIP_STORED
        assert archive.read(LABELS_FILE).decode() == "disc\nsquare\nneither of them\n"
    if (unzip := shutil.which("unzip")) is not None:
        done = subprocess.run([unzip, str(folder / "said.int8.tflite")], cwd=tmp_path, check=False, capture_output=True)
        assert done.returncode == 0, done.stdout
        assert (tmp_path / LABELS_FILE).read_text().startswith("disc\n")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_it_says_of_itself(folder: Path, precision: str) -> None:
    model = root_of((folder / f"said.{precision}.tflite").read_bytes())
    entry = next(each for each in tables(model, 6) if string(each, 0) == METADATA)
    stored = bytes(numbers(tables(model, 4)[number(entry, 1, "I")], 0, "B"))
    assert stored[4:8] == b"M001"
    about = root_of(stored)
    assert string(about, 1) == (
        "Says which of 3 classes an image shows: disc, square, neither of them. Taught by big (licence of its weights:"
        " cc-by-4.0)."
    )
    assert string(about, 5) == "", "nobody stated a licence of this model"
    (graph,) = tables(about, 3)
    (image,), (answer,) = tables(graph, 2), tables(graph, 3)
    (options,) = (child(unit, 1) for unit in tables(image, 4))
    assert options is not None
    (mean,), (std,) = numbers(options, 0, "f"), numbers(options, 1, "f")
    # what a reader does with bytes, and then quantizes, must be the bytes again
    given = np.arange(256, dtype=np.float32)
    with IsolatedFile(folder / f"said.{precision}.tflite", "tflite") as opened:
        (taken,) = opened.facts["inputs"]
    fed = (given - np.float32(mean)) / np.float32(std)
    if taken["scale"]:
        fed = np.round(fed / np.float32(taken["scale"])) + taken["zero_point"]
    np.testing.assert_array_equal(fed, given)
    (labels,) = tables(answer, 6)
    assert string(labels, 0) == LABELS_FILE and number(labels, 2, "B") == 2  # TENSOR_AXIS_LABELS


def test_the_same_words_give_the_same_bytes_and_others_do_not(folder: Path) -> None:
    bare, said = (folder / "bare.int8.tflite").read_bytes(), (folder / "said.int8.tflite").read_bytes()
    assert with_metadata(bare, ABOUT) == said
    assert with_metadata(bare, replace(ABOUT, version="2" * 64)) != said


def test_what_cannot_say_more_is_left_as_it_was(folder: Path, tmp_path: Path) -> None:
    said = tmp_path / "said.tflite"
    shutil.copy(folder / "said.int8.tflite", said)
    with pytest.raises(ArtifactError, match="the file has some already"):
        TFLite().describe(said, ABOUT)
    assert said.read_bytes() == (folder / "said.int8.tflite").read_bytes()
    with pytest.raises(ArtifactError, match="this is no TFLite file"):
        with_metadata(b"PK\x03\x04" * 8, ABOUT)


def test_a_model_of_a_later_schema_is_refused(folder: Path) -> None:
    """A field that is not known here may count from the start of the file."""
    model = bytearray((folder / "bare.float32.tflite").read_bytes())
    root = struct.unpack_from("<I", model)[0]
    later = bytearray(b"".join([struct.pack("<HH", 4 + 2 * 11, 8), bytes(2 * 10), struct.pack("<H", 4)]))
    later += bytes(-len(later) % 4)
    place = len(model) + -len(model) % 4
    model += bytes(place - len(model)) + later
    struct.pack_into("<i", model, root, root - place)
    with pytest.raises(ArtifactError, match="schema is newer"):
        with_metadata(bytes(model), ABOUT)
