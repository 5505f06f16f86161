"""Answers of exported files to other images than the run's own: asked for by `distill eval`, which opens no files."""

from __future__ import annotations

from collections.abc import Sequence

from distill.core import plugins
from distill.core.files import read_json
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.evaluate import evaluate
from export.files import open_named, read_config

__all__ = ["answer"]


def answer(run: Run, place: str, names: Sequence[str], progress: Progress) -> None:
    """Ask files about the test images of `PLACE/data`, and keep what each says in `PLACE/NAME`.

    Args:
        run: with exported files.
        place: folder in the run, such as `eval/night`.
        names: of the files, such as `tflite-int8`.
        progress: told of each file.

    Raises:
        ArtifactError: a file is gone, not the one that was proven, or was exported by an older version.
    """
    config, card = read_config(run), read_json(run.folder("student") / "student.json")
    manifest = Manifest.load(run.folder(f"{place}/data") / "manifest.parquet")
    module = plugins.load("tasks", config["task"])
    task = module.build(module.Config(), manifest.classes)
    records, cache = manifest.of("test", labelled=True), ImageCache(card["max_megapixels"])
    for name in names:
        progress.console.print(f"  {name}", highlight=False, markup=False)
        with open_named(run, name) as predictor:
            _, answers = evaluate(predictor, task, records, cache, card["resize"], progress=progress)
        answers.save(run.stage_answers(f"{place}/{name}", "test"))
