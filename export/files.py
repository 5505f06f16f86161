"""Every file is written, opened in another process, compared with the student and scored before it counts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from distill import __version__
from distill.checkpoint import load_weights, save_weights
from distill.config import BenchmarkSettings, ExportSettings
from distill.core import plugins
from distill.core.errors import ArtifactError, RunFolderError, UserError
from distill.core.files import digest_of, read_json, replacing, sha256_of, write_json
from distill.core.progress import Progress
from distill.core.quiet import quiet
from distill.core.run import Run, locks_held
from distill.core.task import Answers, Metric, Task
from distill.core.types import Images, Predictor, Split
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.views import fixed_view, render
from distill.evaluate import evaluate
from distill.trained_student import CARD, load_student
from export.about import About, Taught
from export.bring import BROUGHT
from export.formats._base import Format
from export.isolated import FilePredictor, latency_ratio
from export.manifest import ArtifactManifest, postprocessing, preprocessing
from export.quantize.calibration import CalibrationSet, choose
from export.quantize.ladder import FLOAT16, LARGEST_DROP, QUANTIZATION_AWARE, Ladder, Rung
from export.quantize.plan import tuned

if TYPE_CHECKING:
    from distill.torch_predictor import Network
    from export.graph import Output, Tensors
    from export.quantize.plan import Int8Plan

__all__ = ["Exporter", "artifact_name", "check_takes_bytes", "file_name", "open_artifact", "proven_file"]

FILES = "files.json"
CALIBRATION = "calibration.json"
_CHANGED: Final = 4
"""Times the largest drop: answers that an int8 file may change. More of them may end well on validation by luck: a file
that lost 0.3 points there, with 2.9 % of its answers changed, lost 1.5 on test. A student that learned on has answers
of its own, so this is not asked of it."""
_VERSION = 7  # raised when the same student would give another file


@dataclass(frozen=True)
class _Inputs:
    """What all files of a run share."""

    manifest: Manifest
    task: Task
    cache: ImageCache
    metric: Metric


@dataclass(frozen=True)
class _Made:
    """A file that passed: what it says of itself, its scores, its answers by split."""

    path: Path
    facts: dict[str, Any]
    answers: dict[str, Answers]


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
        drop = config["gates"]["max_int8_drop"]
        self._limit = float(LARGEST_DROP if drop is None else drop)
        self._seed, self._task = int(config["seed"]), str(config["task"])
        run.summary("student")
        self._card = read_json(run.folder("student") / CARD)
        self._folder = run.folder("export")
        teacher = self._card.get("teacher")  # students trained by older versions do not say
        module = plugins.load("tasks", self._task)
        self._about = About(
            name=str(run.summary("student")["detail"]),
            dense=module.build(module.Config(), ()).by_pixel,
            task=self._task,
            labels=tuple(self._card["class_names"]),
            output=self.settings.output,
            version=self._card["weights_sha256"],
            teacher=teacher and Taught(teacher["name"], teacher["license"], teacher["digest"]),
        )
        self._brought = (run.folder("student") / BROUGHT).exists()
        self._chosen: CalibrationSet | None = None

    def make(self, name: str, *, rung: int | None = None, compare: bool = False) -> dict[str, Any]:
        """The manifest of an artifact such as `tflite-int8`; made unless it exists and is unchanged.

        An int8 file climbs the rungs of `export.quantize.ladder` until it loses no more than `gates.max_int8_drop` on
        validation and has no more partitions than the float file. Where none does, the one that changes fewest answers
        is kept.

        Args:
            name: of the artifact.
            rung: make the file by this way alone, whatever it loses.
            compare: make the files of all rungs, then choose.

        Raises:
            ArtifactError: the file did not pass; it is kept as `.rejected` with the reason beside it.
        """
        format_name, _, precision = name.partition("-")
        if rung == QUANTIZATION_AWARE and self._brought:
            raise UserError(
                "--rung 4 lets a student learn on, from stored answers: a network that was brought has none"
            )
        path = self._folder / file_name(name)
        key = digest_of(
            {
                "version": _VERSION,
                "weights": self._card["weights_sha256"],
                "name": name,
                "calibration": self.settings.calibration_images,
                "answers": [self.settings.output, self.settings.upsample, self._tensors(name)],
                "program": self._card["settings"].get("program_sha256"),
                "data": self._run.summary("data")["digest"],
                "ladder": self._way(rung, compare=compare) if precision == "int8" else None,
                "about": asdict(self._about),
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
        ladder: dict[str, Any] | None = None
        try:
            if precision == "int8":
                made, ladder = self._climb(name, maker, inputs, rung, compare=compare)
            else:
                made = self._write(name, maker, load_student(self._run)[0], inputs, path)
        except ArtifactError as error:
            rejected = path.with_name(path.name + ".rejected")
            if path.exists():
                path.replace(rejected)
            write_json(path.with_name(path.name + ".rejected.json"), {"name": name, "key": key, "reason": str(error)})
            kept = f". Kept as {rejected}" if rejected.exists() else ""
            raise ArtifactError(f"{error}{kept}") from error
        for split, answers in made.answers.items():
            answers.save(self._run.answers(name, split))
        manifest = {
            "manifest_version": 1,
            "name": name,
            "description": self._about.description,
            "task": self._task,
            "metric": inputs.metric._asdict(),
            "file": path.name,
            "format": format_name,
            "precision": precision,
            "runtime": maker.runtime,
            "key": key,
            "sha256": sha256_of(path),
            "weights_sha256": self._card["weights_sha256"],
            "bytes": path.stat().st_size,
            "image_size": self._card["image_size"],
            "resize": self._card["resize"],
            "interpolation": "Pillow bilinear with antialiasing",
            "preprocessing": preprocessing(self._card["resize"]),
            "output": self.settings.output,
            "tensors": self._tensors(name),
            "postprocessing": postprocessing(self._about),
            "labels": self._card["class_names"],
            "thresholds": None,
            "teacher": self._about.teacher and asdict(self._about.teacher),
            "calibration": [each.id for each in self._calibration(inputs).images] if precision == "int8" else [],
            "mobile_distill": __version__,
            "versions": {package: version(package) for package in maker.packages},
            **made.facts,
            **({"ladder": ladder} if ladder else {}),
        }
        manifest = ArtifactManifest.model_validate(manifest).model_dump(mode="json", exclude_unset=True)
        write_json(path.with_name(path.name + ".json"), manifest)
        return manifest

    def _way(self, rung: int | None, *, compare: bool) -> list[Any]:
        """What decides which int8 file is kept."""
        settings = self.settings
        return [rung, compare, self._limit, settings.min_int8_agreement, settings.tune_epochs, settings.tune_lr]

    def _climb(
        self, name: str, maker: Format, inputs: _Inputs, only: int | None, *, compare: bool
    ) -> tuple[_Made, dict[str, Any]]:
        """The int8 file that is kept, moved into place, and what came of each rung that was tried."""
        path, images = self._folder / file_name(name), self._calibration(inputs).pixels
        student = load_student(self._run)[0]
        ladder = Ladder(student, images, maker.float_layers(student), self._tuned)
        exact = self._float_file(maker)
        tried: list[tuple[Rung, _Made]] = []
        rejected: ArtifactError | None = None
        highest = min(maker.rungs, QUANTIZATION_AWARE - 1) if self._brought else maker.rungs
        for number in [only] if only else range(1, highest + 1):
            started = time.monotonic()
            beside = path.with_name(f"{path.name}.rung{number}")
            try:
                plan = ladder.plan(number)
                if plan is None:
                    continue
                made = self._write(name, maker, plan, inputs, beside)
            except ArtifactError as error:
                if beside.exists():
                    beside.replace(path.with_name(path.name + ".rejected"))
                self._progress.console.print(f"  rung {number}: {error}", highlight=False, markup=False, soft_wrap=True)
                rejected = error
                continue
            facts = self._facts(made, exact, inputs.metric.key)
            rung = Rung(
                number, plan, facts | {"seconds": time.monotonic() - started}, self._lacking(number, made, exact)
            )
            tried.append((rung, made))
            self._progress.console.print(f"  {rung}", highlight=False, markup=False, soft_wrap=True)
            if not compare and not rung.lacking:
                break
        if not tried:
            assert rejected is not None
            raise rejected
        kept = next((each for each in tried if not each[0].lacking), None)
        chosen, made = kept or max(tried, key=lambda each: (_whole(each[1], exact), each[0].facts["agreement"]))
        for rung, other in tried:
            if rung is not chosen:
                other.path.unlink()
        made.path.replace(path)
        path.with_name(path.name + ".rejected").unlink(missing_ok=True)
        rungs = [rung.as_dict() for rung, _ in tried]
        if kept is None and only is None and "float16" in maker.precisions:
            rungs.append(self._float16(maker, exact, inputs.metric.key))
        return replace(made, path=path), {"limit": self._limit, "chosen": chosen.number, "rungs": rungs}

    def _float16(self, maker: Format, exact: dict[str, Any] | None, metric: str) -> dict[str, Any]:
        """The last rung: what to take where no int8 file loses little enough."""
        manifest = self.make(artifact_name(maker.suffix[1:], "float16"))
        made = _Made(self._folder / manifest["file"], manifest, {})
        return Rung(FLOAT16, None, self._facts(made, exact, metric), self._lacking(FLOAT16, made, exact)).as_dict()

    def _tuned(self, plan: Int8Plan) -> Int8Plan:
        """Let the student learn on under fake quantization, in a process of `distill`: nothing here trains."""
        folder = self._folder / "qat"
        folder.mkdir(exist_ok=True)
        save_weights(plan.student.backbone, folder / "start.safetensors")
        asked = {
            "float_layers": sorted(plan.float_layers),
            "ranges": {**plan.measured, **plan.ranges},
            "epochs": self.settings.tune_epochs,
            "lr": self.settings.tune_lr,
        }
        write_json(folder / "plan.json", asked)
        command = [sys.executable, "-m", "distill", "learn-on", "--run", str(self._run.root)]
        code = subprocess.run(command, check=False, pass_fds=locks_held()).returncode
        if code != 0:
            raise ArtifactError(f"`distill learn-on --run {self._run.root}` ended with exit code {code} (above)")
        student = load_student(self._run)[0]
        load_weights(student.backbone, folder / "weights.safetensors")
        return tuned(student, plan, read_json(folder / "ranges.json")["ranges"])

    def _lacking(self, rung: int, made: _Made, exact: dict[str, Any] | None) -> str:
        """Why an int8 file does not keep what was promised; empty if it does."""
        score = made.facts["scores"]["validation"]
        limit = max(self._limit, 1 / score["images"])  # one image more or less says nothing, however few there are
        changed = 1 - score["agreement"]
        if score["drop"]["value"] > limit:
            return f"loses more than {limit:.3f}"
        if changed > _CHANGED * limit and rung != QUANTIZATION_AWARE:
            return f"changes {changed:.3f} of the answers, more than {_CHANGED * limit:.3f}"
        if not _whole(made, exact):
            return f"has {made.facts['partitions']} partitions, more than the float32 file"
        return ""

    def _float_file(self, maker: Format) -> dict[str, Any] | None:
        """The manifest of the float file beside it, if it can be had."""
        name = artifact_name(maker.suffix[1:], "float32")
        try:
            return self.make(name) if maker.rungs > 1 else None
        except ArtifactError:
            return None

    def _facts(self, made: _Made, exact: dict[str, Any] | None, metric: str) -> dict[str, Any]:
        score = made.facts["scores"]["validation"]
        ratio = None
        if exact is not None:
            files = (made.path, self._folder / exact["file"])
            ratio = latency_ratio(*files, exact["format"])
        return {
            "bytes": made.path.stat().st_size,
            "partitions": made.facts["partitions"],
            "latency_ratio": ratio,
            "agreement": score["agreement"],
            "drop": score["drop"],
            metric: score[metric],
        }

    def _write(self, name: str, maker: Format, source: Network | Int8Plan, inputs: _Inputs, path: Path) -> _Made:
        """Write one file and prove it; one that does not pass stays where it was written."""
        format_name, _, precision = name.partition("-")
        with replacing(path) as temporary, quiet(self._folder / f"{file_name(name)}.log"):
            maker.write(
                source,
                precision,  # type: ignore[arg-type]
                temporary,
                output=self.settings.output,
                upsample=self.settings.upsample,
                tensors=self._tensors(name),
            )
            maker.describe(temporary, self._about)
        return self._prove(name, path, format_name, inputs)

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

    def _tensors(self, name: str) -> Tensors:
        """What a file takes and gives; integers alone are for int8 TFLite files."""
        asked = self.settings.tensors
        return "bytes" if asked == "int8" and name != "tflite-int8" else asked

    def _inputs(self) -> _Inputs:
        module = plugins.load("tasks", self._task)
        task: Task = module.build(module.Config(), self._card["class_names"])
        title = f"{task.metric.title} against the float network" if self._brought else task.metric.title
        return _Inputs(
            Manifest.load(self._run.folder("data") / "manifest.parquet"),
            task,
            ImageCache(self._card["max_megapixels"]),
            Metric(task.metric.key, title),
        )

    def _calibration(self, inputs: _Inputs) -> CalibrationSet:
        """Images that set the ranges of int8 files: chosen once, and written down beside the files."""
        if self._chosen is None:
            pool = inputs.manifest.of("train")
            if not self._brought:  # whose validation images are all that it is compared by before the test
                pool += inputs.manifest.of("validation")
            self._chosen = choose(
                load_student(self._run)[0],
                pool,
                inputs.cache,
                self._card["resize"],
                count=self.settings.calibration_images,
                seed=self._seed,
                progress=self._progress,
            )
            write_json(self._folder / CALIBRATION, self._chosen.as_dict())
            if warning := self._chosen.warning():
                self._progress.console.print(f"  {warning}", highlight=False, markup=False, soft_wrap=True)
        return self._chosen

    def _prove(self, name: str, path: Path, format_name: str, inputs: _Inputs) -> _Made:
        """Open the file elsewhere, ask it about real images, compare with the student's answers, score it."""
        how: dict[str, Any] = {"output": self.settings.output, "tensors": self._tensors(name)}
        with FilePredictor(path, format_name, self._card["class_names"], **how) as predictor:
            facts, load_ms = predictor.facts, predictor.load_ms
            asked = dict(self._asked(predictor, inputs))
        scores = {split: score for split, (score, _) in asked.items()}
        agreement = scores["validation"]["agreement"]
        setting = "min_int8_agreement" if "int8" in name else "min_float_agreement"
        needed = float(getattr(self.settings, setting))
        if agreement < needed:
            raise ArtifactError(
                f"{file_name(name)}: answers as the student does on {agreement:.3f} of validation, at least {needed:g}"
                f" are needed (export.{setting})"
            )
        answers = {split: answers for split, (_, answers) in asked.items()}
        return _Made(path, {"load_ms": load_ms, **facts, "scores": scores}, answers)

    def examine(self, path: Path, format_name: str, output: Output, tensors: Tensors) -> dict[str, Any]:
        """How any file answers about the labelled images of this run, by split; nothing is written.

        Raises:
            ArtifactError: it does not open, or takes or gives something else than the run's student.
        """
        with FilePredictor(path, format_name, self._card["class_names"], output=output, tensors=tensors) as predictor:
            return self.compare(predictor)

    def compare(self, predictor: Predictor) -> dict[str, Any]:
        """What any predictor scores on the labelled images of this run, and loses from its student, by split."""
        inputs = self._inputs()
        metric = inputs.metric._asdict()
        return {split: {"metric": metric, **score} for split, (score, _) in self._asked(predictor, inputs)}

    def calibration_images(self) -> list[Images]:
        """What int8 files are calibrated on: uint8 [1, S, S, 3] each."""
        return list(self._calibration(self._inputs()).pixels)

    def _asked(self, predictor: Predictor, inputs: _Inputs) -> Iterator[tuple[Split, tuple[dict[str, Any], Answers]]]:
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
            student = task.load_answers(self._run.answers("student", split))
            if student.ids != answers.ids:
                raise RunFolderError(f"{self._run.root}: the images changed since training; `distill run` goes on")
            compared = {"drop": asdict(task.difference(student, answers)), **task.parity(student, answers)._asdict()}
            figures = score.as_dict()
            if self._brought:  # the network's own answers are the truth: figures by class would say nothing
                figures = {key: figures[key] for key in ("images", inputs.metric.key)}
            yield split, ({**figures, **compared}, answers)

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


def open_named(run: Run, name: str) -> FilePredictor:
    """Open a file that was exported before, by its name, such as `tflite-int8`.

    Raises:
        ArtifactError: it is gone, not the file that was proven, or was exported by an older version.
    """
    path = run.folder("export") / f"{file_name(name)}.json"
    try:
        return open_artifact(run, read_json(path), threads=1)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); `distill run` exports {name} anew") from error
    except KeyError as error:
        raise ArtifactError(
            f"{path} lacks {error}: an older version of mobile-distill exported {name}; `distill run` does so anew"
        ) from error


def open_artifact(run: Run, manifest: dict[str, Any], threads: int) -> FilePredictor:
    """Open an exported file of a run in a process of its own.

    Raises:
        ArtifactError: it is gone or not the file that was proven.
    """
    path = proven_file(run, manifest)
    how: dict[str, Any] = {"output": manifest["output"], "tensors": manifest.get("tensors", "bytes")}
    return FilePredictor(path, manifest["format"], manifest["labels"], threads=threads, **how)


def proven_file(run: Run, manifest: dict[str, Any]) -> Path:
    """Path of an exported file of a run.

    Raises:
        ArtifactError: it is gone or not the file that was proven.
    """
    path = run.folder("export") / str(manifest["file"])
    if not path.is_file() or sha256_of(path) != manifest["sha256"]:
        raise ArtifactError(f"{path} is not the file that was proven; export it again")
    return path


def check_takes_bytes(manifest: dict[str, Any], who: str) -> None:
    """Refuse a file that takes something else than bytes, for those who give nothing else.

    Raises:
        UserError: it does.
    """
    tensors = manifest.get("tensors", "bytes")
    if tensors != "bytes":
        raise UserError(f"{manifest['file']}: {who} gives bytes, but it was made with `export.tensors: {tensors}`")


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


def _whole(made: _Made, exact: dict[str, Any] | None) -> bool:
    """Whether a file falls into no more partitions than the float file, where both have been counted."""
    return exact is None or bool(made.facts["partitions"] <= exact["partitions"])


def _known(path: Path, key: str) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = read_json(path.with_name(path.name + ".json"))
        unchanged = manifest["key"] == key and sha256_of(path) == manifest["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return manifest if unchanged else None
