"""`teacher.yaml`: its sections. Closed, and each field's docstring is its help, its schema text and its reference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from distill.core import plugins
from distill.core.settings import InputPath, Settings, Source, StudentSettings, TeacherSettings, TrainSettings
from distill.recipe import RecipeName

__all__ = [
    "LARGEST_VALUE",
    "ArtifactName",
    "DataSettings",
    "MaskSettings",
    "Promise",
    "RunConfig",
    "mask_color",
    "mask_values",
    "mistake_in_sources",
]

LossName = Literal["kl", "dist", "dkd", "js", "hard"]
ArtifactName = Literal["tflite-float32", "tflite-float16", "tflite-int8", "onnx-float32", "onnx-int8"]


LARGEST_VALUE = 65_535
"""Of a pixel of a mask: images of indices have at most 16 bits."""


def mask_values(text: str) -> range:
    """The pixel values that a key of `data.masks.values` names: `7`, or `1-58` with both ends.

    Raises:
        ValueError: it names none.
    """
    found = re.fullmatch(r"([0-9]{1,5})(?: *- *([0-9]{1,5}))?", text.strip(), re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last <= LARGEST_VALUE:
        raise ValueError(f"{text!r} is no value of a pixel: expected 0 to {LARGEST_VALUE}, or a range such as 1-58")
    return range(first, last + 1)


def mask_color(text: str) -> int:
    """The number of a colour that is written as #rrggbb: red * 65536 + green * 256 + blue.

    Raises:
        ValueError: it is no colour.
    """
    if not re.fullmatch("#[0-9a-fA-F]{6}", text, re.ASCII):
        raise ValueError(f"{text!r} is no colour: expected #rrggbb, in quotes, such as '#ff0000'")
    return int(text[1:], 16)


def _colored(text: str) -> str:
    mask_color(text)
    return text


class MaskSettings(Settings):
    """How a mask says which class a pixel is of; for `task: segmentation`."""

    values: dict[str, str] = {}
    """Grey values or palette indices, single or ranges, and their classes, such as `{0: background, 1-58: person}`;
    several may be one class. Default: a value is a place in `classes`."""
    colors: dict[str, str] = {}
    """Colours and their classes, such as `{"#000000": background, "#ff0000": road}`. Default: what a labelmap.txt (as
    CVAT and VOC have it) beside the masks says."""
    ignore: list[Annotated[int, Field(ge=0, le=LARGEST_VALUE)] | Annotated[str, AfterValidator(_colored)]] = [255]
    """Values and colours of pixels that nobody learns from and nobody is judged by; 255 is not among them where
    `values` names it."""
    background: str | None = "background"
    """Class of pixels that no polygon covers; null: they are ignored. Index and colour masks name it themselves."""

    @field_validator("values", "colors", mode="before")
    @classmethod
    def _numbers_are_keys(cls, keys: Any) -> Any:
        return {str(key): name for key, name in keys.items()} if isinstance(keys, dict) else keys

    @field_validator("values")
    @classmethod
    def _values_once(cls, values: dict[str, str]) -> dict[str, str]:
        named: dict[int, str] = {}
        for text in values:
            span = mask_values(text)
            twice = next((value for value in span if value in named), None)
            if twice is not None:
                raise ValueError(f"{twice} is in {named[twice]!r} and in {text!r}")
            named |= dict.fromkeys(span, text)
        return values

    @field_validator("colors")
    @classmethod
    def _colors_once(cls, colors: dict[str, str]) -> dict[str, str]:
        numbers = [mask_color(text) for text in colors]
        if len(set(numbers)) < len(numbers):
            raise ValueError("a colour is there twice, in capital and in small letters")
        return colors

    @model_validator(mode="after")
    def _ignored_or_a_class(self) -> MaskSettings:
        values = {value for value in self.ignore if isinstance(value, int)} - {255}
        colors = {mask_color(color): color for color in self.ignore if isinstance(color, str)}
        both = [str(value) for text in self.values for value in mask_values(text) if value in values]
        both += [text for text in self.colors if mask_color(text) in colors]
        if both:
            raise ValueError(f"{', '.join(both[:5])} is a class and in `ignore`: leave it out of one of both")
        return self

    def named(self) -> list[str]:
        """Classes in the order in which `values` and `colors` name them, each once."""
        return list(dict.fromkeys([*self.values.values(), *self.colors.values()]))


class DataSettings(Settings):
    """Where the images are. Either folders, or one manifest.

    A folder of labelled images has one sub-folder a class. For segmentation it has images/ and masks/ with files of the
    same names (a/b.jpg and a/b.png), or images/ and one COCO JSON, or images with a LabelMe JSON beside each.

    Instead of a folder stands a .tar (WebDataset), a .parquet (Hugging Face datasets), several of them as
    `shards/{000..099}.tar`, or a URL such as s3://bucket/photos: see docs/sources.md.
    """

    unlabeled: Source | list[Source] = []
    """Folders of images that the teacher labels; searched recursively, archives in them too."""
    labeled: Source | None = None
    """Folder of labelled images: truth for training, for fitting a teacher and for the control."""
    validation: Source | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Folder of labelled images, or a share of `labeled` (by hash of content): calibration, model choice."""
    test: Source | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Folder of labelled images, or a share of `labeled`: the golden standard, never trained on."""
    demo: Literal["digits", "scenes"] | None = None
    """A demonstration, written into the run folder as images: scikit-learn's 1,797 handwritten digits, or for
    segmentation scenes composed of them."""
    manifest: InputPath | None = None
    """CSV or Parquet with the columns path (or image), label, split (train, validation, test, unlabelled; val is
    understood), for segmentation mask (an image or a LabelMe JSON) in place of label; optionally group and labelled (0:
    the truth of this training image is hidden from training and only used to check pseudo-labels)."""
    corrections: InputPath | None = None
    """Journal of `distill review` whose answers count as truth. Default: the run's own, review/journal.jsonl, where
    there is one."""
    masks: MaskSettings = MaskSettings()
    """What masks say, for `task: segmentation`."""
    classes: list[str] | None = None
    """Classes in the order of the outputs. Default: the names found in labels, sorted; in masks the order of `values`
    and `colors` or of the labelmap; of polygons the background, then the names sorted."""
    groups: list[str] = []
    """What parts the test images into groups that are scored each for itself (day and night, thin objects, one device):
    columns of the manifest, such as `[light, device]`; or `folder`, the sub-folder inside that of the class
    (test/cat/night/1.jpg) or inside images/."""
    second: str | None = None
    """Column of the manifest with what a second person says of test images, a class or a mask; empty where nobody was
    asked. The table then has how far people agree."""
    resize: Literal["center_crop", "squash"] = "center_crop"
    """How an image becomes a square: the largest centred square, or all of it with its sides squeezed."""
    mirror: bool = True
    """A mirrored image keeps its class; false for text, digits and signs."""
    max_megapixels: Annotated[float, Field(gt=0)] = 100.0
    """Larger images are left out: they may be decompression bombs."""
    cache: Literal["memory", "disk", "none"] = "memory"
    """Where decoded images are kept: memory, the last used of them in 2 GB; disk, those that student and control learn
    from also in the run folder, decoded once and made as small as the crops allow; none, each is decoded each time."""
    leaks: Literal["error", "drop"] = "error"
    """What becomes of a labelled image that shows what an image of a more precious split shows (the same file, saved
    again, resized, turned or trimmed): error, since the splits are wrong then, or drop, which leaves it out. Unlabelled
    images that do so, and labelled ones that a share parted, are always left out."""

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
        if self.classes is not None and (unknown := [n for n in self.masks.named() if n not in self.classes]):
            raise ValueError(f"`classes` lacks {', '.join(unknown)}, named in `masks`")
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
        return "no validation set: give `validation` a folder of labelled images, or a share of `labeled` such as 0.2"
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
    """Classes kept a view, in segmentation a cell, and there at most 4; the rest is kept as one tail mass."""
    grid: Annotated[int, Field(ge=1, le=1024)] = 64
    """Cells a side of the stored soft maps, over the whole image; segmentation only."""
    engine: Literal["local", "ray"] = "local"
    """Who asks: this process, or workers on a Ray cluster. The answers are the same bytes."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Of the Ray engine, each with a teacher of its own. Default: one a GPU of the cluster; where there is none, one a
    machine."""


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
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """Pixels under it count by `below`; segmentation only."""
    below: Literal["ignore", "weigh"] = "ignore"
    """What becomes of pixels under `min_confidence`: they are left out, or weigh less the less sure the teacher is;
    segmentation only."""


class DistillSettings(TrainSettings):
    """How the student learns from the stored labels."""

    loss: LossName = "kl"
    """What distance from the teacher's answer is minimised: kl, dist (arXiv 2205.10536), dkd (arXiv 2203.08679), js
    (Jensen-Shannon) or hard (cross-entropy to its most probable class)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Softens both answers before they are compared; 1 on consistent views (arXiv 2106.05237)."""

    truth_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the truth in the target of an image that has one; the teacher's answer fills the rest."""
    labelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of every epoch that is images with truth, which come again under other views where they are few; left out,
    each image comes once."""


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
    """Training and validation images that set the int8 ranges, balanced by class and brightness; never from the test
    set."""
    min_float_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of images (in segmentation of pixels) on which a float file must name the student's class, or it is
    rejected."""
    min_int8_agreement: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The same for an int8 file."""
    tune_epochs: Annotated[int, Field(ge=1)] = 4
    """Passes over the training images under fake quantization, where plain int8 loses more than `gates.max_int8_drop`
    allows (quantization-aware distillation)."""
    tune_lr: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of these passes."""
    output: Literal["probabilities", "logits", "class_map"] = "probabilities"
    """What a file answers: probabilities of the classes, the logits they are made of, or the number of the likeliest
    class."""
    tensors: Literal["bytes", "int8", "float"] = "bytes"
    """What a file takes and gives: bytes (uint8 as a camera gives them, answers float32), float (float32 from 0 to 255,
    answers float32; for browsers), or int8 (bytes less 128, answers int8 by the scale and zero point of the output, so
    that probabilities have 256 steps; for microcontrollers, and of the int8 TFLite file alone). The same pixels get the
    same answers; a class map is uint8 always."""
    upsample: bool = False
    """Enlarge the answer to the input's size inside the file; otherwise the app does it; segmentation only."""


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


class Promise(Settings):
    """A bound on one figure of the int8 TFLite file on the test images."""

    metric: str
    """Of classification accuracy, top5, balanced_accuracy, macro_precision, macro_f1, roc_auc, pr_auc or
    calibration_error, or of a class precision, recall, f1, roc_auc or pr_auc; of segmentation miou, pixel_accuracy,
    boundary_f or calibration_error, or of a class iou, precision, recall or boundary_f."""
    of: str | None = None
    """The class whose figure it is."""
    group: str | None = None
    """The group of test images that it is about: a sub-folder, or `column=value` (`data.groups`). Default: all."""
    at_least: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least value, 0..1."""
    at_most: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest value, 0..1; either this or `at_least`."""
    sure: bool = False
    """The bound holds at the end of the 95 % interval (the lower of `at_least`), not for the estimate alone."""

    @model_validator(mode="after")
    def _one_bound(self) -> Promise:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give `at_least` or `at_most`, one of both")
        return self

    @property
    def bound(self) -> float:
        """The value that it is compared with."""
        return self.at_least if self.at_least is not None else float(self.at_most or 0.0)

    def subject(self, title: str) -> str:
        """What it is about, with the title of its metric: `recall of glass on light=night`."""
        return title + (f" of {self.of}" if self.of else "") + (f" on {self.group}" if self.group else "")


class Gates(Settings):
    """Promises; where one does not hold the command ends with exit code 3 and all files are kept."""

    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    """Largest int8 TFLite file, in megabytes of 1,000,000 bytes."""
    min_test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest test accuracy of the int8 TFLite file; classification only."""
    min_test_miou: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest test mIoU of the int8 TFLite file; segmentation only."""
    max_int8_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest test accuracy (in segmentation mIoU) lost from the student to the int8 TFLite file. Export looks for a
    way that loses no more on validation; without this gate for one that loses at most half a point there."""
    max_partitions: Annotated[int, Field(ge=1)] | None = None
    """Most delegated partitions of the int8 TFLite file."""
    promises: list[Promise] = []
    """More bounds, on any figure, of all test images or a group, such as
    `{metric: recall, of: glass, group: light=night, at_least: 0.9, sure: true}`."""


class TuneSettings(Settings):
    """What `distill tune` searches among."""

    space: dict[str, str | list[str | int | float | bool]] = {}
    """Dotted keys of settings and their ranges (`1e-4..1e-2:log`, `2..8`) or choices (`[4, 8]`). Default: learning
    rate, weight decay, mixup, temperature and truth weight."""


_KEYS_OF_TASKS = {
    "classification": {"labels": ["views"], "trust": ["calibrate", "balance"], "gates": ["min_test_accuracy"]},
    "segmentation": {
        "data": ["masks"],
        "labels": ["grid"],
        "trust": ["min_confidence", "below"],
        "train": ["target_stride", "extra"],
        "export": ["upsample"],
        "gates": ["min_test_miou"],
    },
}
"""Keys of sections that mean something in one task alone."""

_TASKS_OF_DEMOS = {"digits": "classification", "scenes": "segmentation"}


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
    sanity: Literal["stop", "warn"] = "stop"
    """What a failed check before the training of the student does: `distill sanity` says what is checked. warn: it is
    said, and training begins all the same."""
    tune: TuneSettings = TuneSettings()
    """What `distill tune` searches among."""
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

    @field_validator("data")
    @classmethod
    def _demo_of_this_task(cls, data: DataSettings, info: ValidationInfo) -> DataSettings:
        task = _TASKS_OF_DEMOS.get(data.demo or "")
        if task is not None and info.data.get("task", task) != task:
            raise ValueError(f"`demo: {data.demo}` is for `task: {task}`, but the task is {info.data['task']}")
        return data

    @field_validator("teacher")
    @classmethod
    def _fit_of_this_task(cls, teacher: TeacherSettings, info: ValidationInfo) -> TeacherSettings:
        if teacher.fit is not None and info.data.get("task") == "classification" and teacher.fit.extra:
            raise ValueError("`fit.extra` is only for `task: segmentation`, but the task is classification")
        return teacher

    @field_validator("data", "labels", "trust", "train", "export", "gates")
    @classmethod
    def _keys_of_this_task(cls, section: Settings, info: ValidationInfo) -> Settings:
        for task, sections in _KEYS_OF_TASKS.items():
            if info.data.get("task", task) == task:  # it is missing where its name is a mistake of its own
                continue
            for key in sections.get(str(info.field_name), []):
                if getattr(section, key) != type(section).model_fields[key].default:
                    raise ValueError(f"`{key}` is only for `task: {task}`, but the task is {info.data['task']}")
        if info.data.get("task") == "segmentation" and getattr(section, "keep", None) == "adaptive":
            raise ValueError("`keep: adaptive` is only for `task: classification`; expected all or precision")
        if isinstance(section, Gates) and info.data.get("task") is not None:
            _check_promises(section.promises, info.data["task"])
        if info.data.get("task") == "classification" and getattr(section, "output", None) == "class_map":
            raise ValueError("`output: class_map` is only for `task: segmentation`; expected probabilities or logits")
        return section


def _check_promises(promises: Sequence[Promise], task: str) -> None:
    """Make sure that the task has such figures.

    Raises:
        ValueError: it has not.
    """
    if not promises:
        return
    plugin = plugins.load("tasks", task)
    known = plugin.build(plugin.Config(), ())
    for promise in promises:
        titles = known.figures_of_classes if promise.of is not None else known.figures
        if promise.metric not in titles:
            kind = f"figure of a class for `task: {task}`" if promise.of is not None else f"figure of `task: {task}`"
            raise ValueError(f"`promises`: {promise.metric!r} is no {kind}; expected {', '.join(titles)}")
        if promise.sure and promise.metric in {"roc_auc", "pr_auc", "calibration_error"}:
            raise ValueError(f"`promises`: {promise.metric} has no interval, so `sure` cannot be asked of it")
