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
from export.files import open_named, read_config

__all__ = ["perturb"]


def perturb(run: Run, name: str, count: int, progress: Progress) -> Path:
    """Score one file on `count` images of the run under every perturbation.

    Returns:
        `looking/perturbation-NAME.json` in the run folder.

    Raises:
        ArtifactError: the file is gone, not the one that was proven, or was exported by an older version.
    """
    config, card = read_config(run), read_json(run.folder("student") / "student.json")
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    module = plugins.load("tasks", config["task"])
    task = module.build(module.Config(), manifest.classes)
    _, records = shown(manifest, count)
    cache = ImageCache(card["max_megapixels"])
    with open_named(run, name) as predictor:
        rows = sensitivity(predictor, task, records, cache, card["resize"], progress)
    path = run.root / "looking" / f"perturbation-{name}.json"
    write_json(path, {"name": name, "rows": rows})
    return path
