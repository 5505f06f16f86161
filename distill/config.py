"""`teacher.yaml`: its sections. Closed, and each field's docstring is its help, its schema text and its reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from distill.core import plugins
from distill.core.settings import InputPath, Settings, StudentSettings, TeacherSettings, TrainSettings
from distill.recipe import RecipeName

__all__ = ["ArtifactName", "DataSettings", "RunConfig", "mistake_in_sources"]

LossName = Literal["kl", "dist", "dkd", "js", "hard"]
ArtifactName = Literal["tflite-float32", "tflite-float16", "tflite-int8", "onnx-float32", "onnx-int8"]


class DataSettings(Settings):
    """Where the images are. Either folders, or one manifest."""

    unlabeled: InputPath | list[InputPath] = []
    """Folders of images that the teacher labels; searched recursively."""
    labeled: InputPath | None = None
    """Folder with one sub-folder a class: truth for training, for fitting a teacher and for the control."""
    validation: InputPath | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Folder with one sub-folder a class, or a share of `labeled` (by hash of content): calibration, model choice."""
    test: InputPath | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Folder with one sub-folder a class, or a share of `labeled`: the golden standard, never trained on."""
    demo: Literal["digits"] | None = None
    """Use scikit-learn's 1,797 handwritten digits, written into the run folder as images: a demonstration."""
    manifest: InputPath | None = None
    """CSV or Parquet with the columns path, label, split (train, validation, test; val is understood), optionally group
    and labelled (0: the label of this training image is hidden from training and only used to check pseudo-labels)."""
    classes: list[str] | None = None
    """Classes in the order of the outputs. Default: the names found in labels, sorted."""
    resize: Literal["center_crop", "squash"] = "center_crop"
    """How an image becomes a square: the largest centred square, or all of it with its sides squeezed."""
    mirror: bool = True
    """A mirrored image keeps its class; false for text, digits and signs."""
    max_megapixels: Annotated[float, Field(gt=0)] = 100.0
    """Larger images are left out: they may be decompression bombs."""

    @field_validator("classes")
    @classmethod
    def _each_class_once(cls, names: list[str] | None) -> list[str] | None:
        twice = sorted({name for name in names or () if (names or []).count(name) > 1})
        if twice:
            raise ValueError(f"each class once, but {', '.join(twice)} is there several times")
        return names

    @model_validator(mode="after")
    def _sources(self) -> DataSettings:
        if mistake := mistake_in_sources(dict(self)):
            raise ValueError(mistake)
        return self


def mistake_in_sources(data: Mapping[str, Any]) -> str | None:
    """What is wrong with the choice of sources, if anything; also asked where values have mistakes of their own."""
    unlabeled, labeled, validation, test, manifest, demo = (
        data.get(key) if data.get(key) != [] else None
        for key in ("unlabeled", "labeled", "validation", "test", "manifest", "demo")
    )
    shares = [share for share in (validation, test) if isinstance(share, (int, float))]
    if demo is not None:
        if any(source is not None for source in (unlabeled, labeled, validation, test, manifest)):
            return "demo brings its own images: leave out manifest, unlabeled, labeled, validation and test"
    elif manifest is not None:
        if any(source is not None for source in (unlabeled, labeled, validation, test)):
            return "manifest names every image: leave out unlabeled, labeled, validation and test"
    elif validation is None:
        return (
            "no validation set: give `validation` a folder with one sub-folder a class, or a share of `labeled`"
            " such as 0.2"
        )
    elif labeled is None and shares:
        return "a share as `validation` or `test` is taken from `labeled`, which is missing"
    elif labeled is None and unlabeled is None:
        return "nothing to learn from: give `unlabeled`, `labeled` or both"
    elif all(0 < share < 1 for share in shares) and sum(shares) >= 1:
        return f"`validation` and `test` take {sum(shares):.0%} of `labeled`: leave some of it to train on"
    return None


class LabelSettings(Settings):
    """What is asked of the teacher, once, before training."""

    views: Annotated[int, Field(ge=1, le=1024)] = 16
    """Views an image: the fixed view, its mirror image, then random crops. The student sees exactly these."""
    top_k: Annotated[int, Field(ge=1, le=255)] = 10
    """Classes kept a view; the rest is kept as one tail mass."""


class TrustSettings(Settings):
    """Which of the teacher's answers the student learns from. The store keeps all: changing this asks nothing anew."""

    calibrate: bool = False
    """Soften or sharpen the answers by the temperature that fits the labelled validation images best."""
    keep: Literal["all", "precision", "adaptive"] = "all"
    """Unlabelled images to learn from: all; those above the confidence that reached `precision` on validation; or those
    above a threshold of their class that follows the teacher's confidence in it (FreeMatch)."""
    precision: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of right answers that `keep: precision` asks for on validation."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far rare classes are weighted up: 0 not at all, 1 until all classes weigh the same."""


class DistillSettings(TrainSettings):
    """How the student learns from the stored labels."""

    loss: LossName = "kl"
    """What distance from the teacher's answer is minimised: kl, dist (arXiv 2205.10536), dkd (arXiv 2203.08679), js
    (Jensen-Shannon) or hard (cross-entropy to its most probable class)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Softens both answers before they are compared; 1 on consistent views (arXiv 2106.05237)."""

    truth_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the truth in the target of an image that has one; the teacher's answer fills the rest."""


class ExportSettings(Settings):
    """Which files are made and how they are proven."""

    files: Annotated[list[ArtifactName], Field(min_length=1)] = [
        "tflite-float32",
        "tflite-float16",
        "tflite-int8",
        "onnx-float32",
        "onnx-int8",
    ]
    """Files to make."""
    calibration_images: Annotated[int, Field(ge=4)] = 128
    """Training and validation images that set the int8 ranges (min/max); never from the test set."""
    min_float_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of images on which a float file must name the student's class, or it is rejected."""
    min_int8_agreement: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The same for an int8 file."""


class BenchmarkSettings(Settings):
    """How the files are timed on this machine."""

    threads: list[Annotated[int, Field(ge=1)]] = [1, 2]
    """Thread counts to time."""
    rounds: Annotated[int, Field(ge=1)] = 5
    """Interleaved rounds over all files."""
    runs: Annotated[int, Field(ge=5)] = 40
    """Timed inferences a file and round."""
    warmup: Annotated[int, Field(ge=1)] = 10
    """Inferences a file and round that are not counted."""


class Gates(Settings):
    """Promises; where one does not hold the command ends with exit code 3 and all files are kept."""

    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    """Largest int8 TFLite file, in megabytes of 1,000,000 bytes."""
    min_test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest test accuracy of the int8 TFLite file."""
    max_int8_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest test accuracy lost from the student to the int8 TFLite file."""
    max_partitions: Annotated[int, Field(ge=1)] | None = None
    """Most delegated partitions of the int8 TFLite file."""


class RunConfig(Settings):
    """One run: images + teacher -> student -> verified files."""

    task: str = "classification"
    """What the answers mean: `distill ls tasks`."""
    data: DataSettings
    """The images."""
    teacher: SerializeAsAny[TeacherSettings]
    """One kind of teacher and its name: `{timm: convnext_base.fb_in22k_ft_in1k}`; see `distill ls teachers`."""
    student: SerializeAsAny[StudentSettings]
    """One family of students and its name: `{timm: mobilenetv4_conv_small}`; see `distill ls students`."""
    recipe: RecipeName = "auto"
    """How the student is taught, where `train` does not say: auto is what did best when it was measured
    (docs/recipes.md), the others are there to be compared with it."""
    labels: LabelSettings = LabelSettings()
    """What is asked of the teacher."""
    trust: TrustSettings = TrustSettings()
    """Which of its answers count."""
    train: DistillSettings = DistillSettings()
    """How the student learns."""
    export: ExportSettings = ExportSettings()
    """Which files are made."""
    benchmark: BenchmarkSettings = BenchmarkSettings()
    """How they are timed."""
    gates: Gates = Gates()
    """What must hold at the end."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    output: Path
    """Run folder. Default: runs/ and the name of the config file."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in plugins.names("tasks"):
            raise ValueError(plugins.unknown_plugin("tasks", name))
        return name
