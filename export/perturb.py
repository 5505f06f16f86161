"""Scores of exported files on perturbed photos: asked for by `distill perturb`, which cannot open files itself."""

from __future__ import annotations

from pathlib import Path

from distill.core import plugins
from distill.core.files import read_json, write_json
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.perturbation import sensitivity, shown
from export.files import file_name, open_artifact, read_config

__all__ = ["perturb"]


def perturb(run: Run, name: str, count: int, progress: Progress) -> Path:
    """Score one file on `count` images of the run under every perturbation.

    Returns:
        `looking/perturbation-NAME.json` in the run folder.

    Raises:
        ArtifactError: the file is gone, or not the one that was proven.
    """
    config, card = read_config(run), read_json(run.folder("student") / "student.json")
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    module = plugins.load("tasks", config["task"])
    task = module.build(module.Config(), manifest.classes)
    _, records = shown(manifest, count)
    made = read_json(run.folder("export") / f"{file_name(name)}.json")
    cache = ImageCache(card["max_megapixels"])
    with open_artifact(run, made, threads=1) as predictor:
        rows = sensitivity(predictor, task, records, cache, card["resize"], progress)
    path = run.root / "looking" / f"perturbation-{name}.json"
    write_json(path, {"name": name, "rows": rows})
    return path
