"""An exported file on perturbed photos, as `distill perturb` asks for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from distill.core.errors import ArtifactError
from distill.core.files import sha256_of, write_json
from distill.core.progress import Progress
from distill.core.run import Run
from distill.perturbation import KINDS
from export.files import open_named
from export.perturb import perturb
from tests.workplace import Workplace


def test_a_file_of_an_older_version_is_named(tmp_path: Path) -> None:
    run, model = Run.create(tmp_path / "run"), tmp_path / "run/export/student.int8.tflite"
    write_json(model.with_name("student.int8.tflite.json"), {"file": model.name, "sha256": "0" * 64})
    with pytest.raises(ArtifactError, match="is not the file that was proven"):
        open_named(run, "tflite-int8")
    model.write_bytes(b"model")
    write_json(model.with_name("student.int8.tflite.json"), {"file": model.name, "sha256": sha256_of(model)})
    with pytest.raises(ArtifactError, match="lacks 'output': an older version of mobile-distill exported tflite-int8"):
        open_named(run, "tflite-int8")
    with pytest.raises(ArtifactError, match=r"student\.float32\.tflite\.json cannot be read"):
        open_named(run, "tflite-float32")


def test_a_file_is_scored_at_every_level(finished: Workplace, tmp_path: Path, progress: Progress) -> None:
    copied = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", copied, ignore=shutil.ignore_patterns("labels", "teacher"))
    document = json.loads(perturb(Run(copied), "tflite-int8", 6, progress).read_text())
    assert document["name"] == "tflite-int8"
    levels = [(row["kind"], row["level"]) for row in document["rows"]]
    assert levels == [("none", 0.0), *((kind, level) for kind in KINDS for level in KINDS[kind].values)]
    for row in document["rows"]:
        assert 0 <= row["score"]["low"] <= row["score"]["value"] <= row["score"]["high"] <= 1
    dark = {row["level"]: row["nll"] for row in document["rows"] if row["kind"] in {"none", "brightness"}}
    assert dark[0.25] != dark[0.0], "the photos were changed"
