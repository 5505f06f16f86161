"""Every file is written, opened in another process, compared with the student and scored before it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from distill import __version__
from distill.config import BenchmarkSettings, ExportSettings
from distill.core import plugins
from distill.core.errors import ArtifactError, RunFolderError
from distill.core.files import digest_of, read_json, replacing, sha256_of, write_json
from distill.core.progress import Progress
from distill.core.quiet import quiet
from distill.core.run import Run
from distill.core.task import Answers, Task
from distill.core.types import ImageRecord, Images, Split
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.views import fixed_view, render
from distill.evaluate import evaluate
from distill.trained_student import CARD, load_student
from export.formats._base import Format
from export.isolated import FilePredictor

if TYPE_CHECKING:
    from export.graph import Output

__all__ = ["Exporter", "artifact_name", "file_name", "open_artifact"]

FILES = "files.json"
_VERSION = 5  # raised when the same student would give another file


@dataclass(frozen=True)
class _Inputs:
    """What all files of a run share."""

    manifest: Manifest
    task: Task
    cache: ImageCache
    calibration: list[ImageRecord]


class Exporter:
    """Makes and proves the files of one run.

    Args:
        run: whose student is finished.
        progress: told of long work.

    Raises:
        RunFolderError: the run lacks a trained student.
    """

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run, self._progress = run, progress
        config = read_config(run)
        self.settings = ExportSettings.model_validate(config["export"])
        self._seed, self._task = int(config["seed"]), str(config["task"])
        run.summary("student")
        self._card = read_json(run.folder("student") / CARD)
        self._folder = run.folder("export")

    def make(self, name: str) -> dict[str, Any]:
        """The manifest of an artifact such as `tflite-int8`; made unless it exists and is unchanged.

        Raises:
            ArtifactError: the file did not pass; it is kept as `.rejected` with the reason beside it.
        """
        format_name, _, precision = name.partition("-")
        path = self._folder / file_name(name)
        key = digest_of(
            {
                "version": _VERSION,
                "weights": self._card["weights_sha256"],
                "name": name,
                "calibration": self.settings.calibration_images,
                "answers": [self.settings.output, self.settings.upsample],
                "data": self._run.summary("data")["digest"],
            }
        )
        known = _known(path, key)
        if known is not None:
            return known
        for old in self._folder.glob(f"{path.name}*"):
            old.unlink()
        module = plugins.load("formats", format_name)
        maker: Format = module.build(module.Config())
        inputs = self._inputs()
        images = self._calibration_images(inputs) if precision == "int8" else []
        with replacing(path) as temporary, quiet(self._folder / f"{path.name}.log"):
            student, _ = load_student(self._run)
            if precision == "int8":
                from export.quantize.bias_correction import correct_bias

                student = correct_bias(student, images, float_layers=maker.float_layers(student))
            maker.write(
                student,
                precision,  # type: ignore[arg-type]
                images,
                temporary,
                output=self.settings.output,
                upsample=self.settings.upsample,
            )
        try:
            proof = self._prove(name, path, format_name, inputs)
        except ArtifactError as error:
            rejected = path.with_name(path.name + ".rejected")
            path.replace(rejected)
            write_json(path.with_name(path.name + ".rejected.json"), {"name": name, "key": key, "reason": str(error)})
            raise ArtifactError(f"{error}. Kept as {rejected}") from error
        manifest = {
            "name": name,
            "task": self._task,
            "metric": inputs.task.metric._asdict(),
            "file": path.name,
            "format": format_name,
            "precision": precision,
            "runtime": maker.runtime,
            "key": key,
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
            "image_size": self._card["image_size"],
            "resize": self._card["resize"],
            "interpolation": "Pillow bilinear with antialiasing",
            "output": self.settings.output,
            "labels": self._card["class_names"],
            "calibration": [record.id for record in inputs.calibration] if precision == "int8" else [],
            "mobile_distill": __version__,
            **proof,
        }
        write_json(path.with_name(path.name + ".json"), manifest)
        return manifest

    def make_all(self) -> list[dict[str, Any]]:
        """Make every file the config names; a rejected one is listed with its reason instead of its proof."""
        made: list[dict[str, Any]] = []
        for name in self.settings.files:
            try:
                made.append({"status": "ok", **self.make(name)})
            except ArtifactError as error:
                made.append({"status": "rejected", "name": name, "reason": str(error)})
        write_json(self._folder / FILES, made)
        return made

    def _inputs(self) -> _Inputs:
        manifest = Manifest.load(self._run.folder("data") / "manifest.parquet")
        pool = manifest.of("train") + manifest.of("validation")
        chosen = np.random.default_rng(self._seed).permutation(len(pool))[: self.settings.calibration_images]
        module = plugins.load("tasks", self._task)
        return _Inputs(
            manifest,
            module.build(module.Config(), self._card["class_names"]),
            ImageCache(self._card["max_megapixels"]),
            [pool[i] for i in sorted(chosen)],
        )

    def _calibration_images(self, inputs: _Inputs) -> list[Images]:
        resize, size = self._card["resize"], self._card["image_size"]
        return [
            render(inputs.cache.get(r), fixed_view(r.width, r.height, resize), size)[None] for r in inputs.calibration
        ]

    def _prove(self, name: str, path: Path, format_name: str, inputs: _Inputs) -> dict[str, Any]:
        """Open the file elsewhere, ask it about real images, compare with the student's answers, score it."""
        with FilePredictor(path, format_name, self._card["class_names"], output=self.settings.output) as predictor:
            facts, load_ms = predictor.facts, predictor.load_ms
            scores = {}
            for split, (score, answers) in self._asked(predictor, inputs):
                answers.save(self._folder / "predictions" / f"{name}.{split}.parquet")
                scores[split] = score
        agreement = scores["validation"]["agreement"]
        needed = self.settings.min_int8_agreement if "int8" in name else self.settings.min_float_agreement
        if agreement < needed:
            raise ArtifactError(
                f"{path.name}: answers as the student does on {agreement:.3f} of validation, at least {needed:g} are"
                " needed"
            )
        return {"load_ms": load_ms, **facts, "scores": scores}

    def examine(self, path: Path, format_name: str, output: Output) -> dict[str, Any]:
        """How any file answers about the labelled images of this run, by split; nothing is written.

        Raises:
            ArtifactError: it does not open, or takes or gives something else than the run's student.
        """
        inputs = self._inputs()
        metric = inputs.task.metric._asdict()
        with FilePredictor(path, format_name, self._card["class_names"], output=output) as predictor:
            return {split: {"metric": metric, **score} for split, (score, _) in self._asked(predictor, inputs)}

    def _asked(
        self, predictor: FilePredictor, inputs: _Inputs
    ) -> Iterator[tuple[Split, tuple[dict[str, Any], Answers]]]:
        """Scores on validation and test, with what was lost from the student, and the answers."""
        task = inputs.task
        splits: tuple[Split, ...] = ("validation", "test")
        for split in splits:
            records = inputs.manifest.of(split, labelled=True)
            if not records:
                continue
            score, answers = evaluate(
                predictor, task, records, inputs.cache, self._card["resize"], progress=self._progress
            )
            student = task.load_answers(self._run.folder("student") / "predictions" / f"{split}.parquet")
            if student.ids != answers.ids:
                raise RunFolderError(f"{self._run.root}: the images changed since training; `distill run` goes on")
            compared = {"drop": asdict(task.difference(student, answers)), **task.parity(student, answers)._asdict()}
            yield split, ({**score.as_dict(), **compared}, answers)

    def examples(self, size: int, count: int) -> Images:
        """Images that the student did not learn from, in their fixed views, [N, size, size, 3]; at most `count`."""
        inputs = self._inputs()
        records = (inputs.manifest.of("validation") + inputs.manifest.of("test"))[:count]
        resize = self._card["resize"]
        return np.stack([render(inputs.cache.get(r), fixed_view(r.width, r.height, resize), size) for r in records])


def file_name(name: str) -> str:
    """`tflite-int8` -> `student.int8.tflite`."""
    format_name, _, precision = name.partition("-")
    return f"student.{precision}.{format_name}"


def artifact_name(format_name: str, precision: str) -> str:
    """`tflite`, `int8` -> `tflite-int8`."""
    return f"{format_name}-{precision}"


def open_artifact(run: Run, manifest: dict[str, Any], threads: int) -> FilePredictor:
    """Open an exported file of a run in a process of its own.

    Raises:
        ArtifactError: it is gone or not the file that was proven.
    """
    path = run.folder("export") / manifest["file"]
    if not path.is_file() or sha256_of(path) != manifest["sha256"]:
        raise ArtifactError(f"{path} is not the file that was proven; export it again")
    return FilePredictor(path, manifest["format"], manifest["labels"], threads=threads, output=manifest["output"])


def read_config(run: Run) -> dict[str, Any]:
    """The resolved config of a run, as plain values."""
    try:
        found: dict[str, Any] = yaml.safe_load((run.root / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RunFolderError(f"{run.root}: config.yaml cannot be read ({error})") from error
    return found


def benchmark_settings(run: Run) -> BenchmarkSettings:
    """How the files of a run are timed."""
    return BenchmarkSettings.model_validate(read_config(run)["benchmark"])


def _known(path: Path, key: str) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = read_json(path.with_name(path.name + ".json"))
        unchanged = manifest["key"] == key and sha256_of(path) == manifest["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return manifest if unchanged else None
