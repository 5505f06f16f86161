"""Sections of a config that plugins extend. A field's docstring is its help, its schema text and its reference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from distill.core.known_classes import KNOWN_CLASSES
from distill.core.patterns import fitting, is_pattern

__all__ = [
    "FitSettings",
    "FromCommandLine",
    "InputPath",
    "ModelArgs",
    "Settings",
    "Source",
    "StudentSettings",
    "TeacherSettings",
    "TrainSettings",
]


class FromCommandLine(str):
    """A string given by `--set`: paths in it are relative to the current folder, not to the config file."""


def _base(value: Any, info: ValidationInfo) -> Path:
    """What relative paths start from."""
    return Path.cwd() if isinstance(value, FromCommandLine) or not info.context else Path(info.context["folder"])


def _resolve(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, (str, Path)) or not str(value):
        raise PydanticCustomError("path_type", "a path")
    path = (_base(value, info) / Path(value).expanduser()).resolve()
    if not path.exists():
        raise ValueError(f"found no file or folder {path}")
    return path


def _leave_to_us(arguments: dict[str, Any]) -> dict[str, Any]:
    taken = sorted({"num_classes", "pretrained", "checkpoint_path"} & set(arguments))
    if taken:
        raise ValueError(f"{', '.join(taken)} cannot be set here: `pretrained`, `checkpoint` and the classes decide")
    return arguments


ModelArgs = Annotated[dict[str, Any], AfterValidator(_leave_to_us)]
"""Arguments of timm.create_model, without those that would give a model a random classifier unseen."""


def _class_names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in KNOWN_CLASSES:
        raise ValueError(f"found {value!r}, expected a list of names, or {' or '.join(map(repr, KNOWN_CLASSES))}")
    return list(KNOWN_CLASSES[value])


def _each_once(scales: list[float]) -> list[float]:
    if len(set(scales)) < len(scales):
        raise ValueError(f"found {scales}, expected each scale once")
    return scales


def _resolve_source(value: Any, info: ValidationInfo) -> Any:
    text = str(value)
    if "://" in text and not text.startswith("file://"):
        return text
    text = text.removeprefix("file://") if isinstance(value, (str, Path)) else value
    if not isinstance(text, str) or not is_pattern(text) or (_base(value, info) / text).exists():
        return _resolve(type(value)(text) if isinstance(value, str) else value, info)
    pattern = os.path.abspath(_base(value, info) / Path(text).expanduser())
    found = fitting(pattern)
    missing = [name for name in found if not Path(name).exists()]
    if missing or not found:
        raise ValueError(f"found no file {missing[0] if missing else 'that fits ' + pattern}")
    return pattern


InputPath = Annotated[Path, BeforeValidator(_resolve)]
"""An existing file or folder; relative ones start at the config file's folder."""

Source = Annotated[Path | str, BeforeValidator(_resolve_source)]
"""Where images are: as `InputPath`; as text a pattern of existing files (`shards/{000..099}.tar`) or a URL."""


class Settings(BaseModel):
    """Closed: an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class TrainSettings(Settings):
    """How a network learns. One loop trains the fitted teacher, the student and the control."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the training images, at most; early stopping may end sooner."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images a step."""
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Peak learning rate of AdamW; auto: 3e-4 from pretrained weights (higher ones destroy the features), 2e-3 from
    scratch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW weight decay, on weights of two dimensions and more only."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 2.0
    """Epochs of linear warm-up before the cosine falls to zero."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Decay of the exponential moving average of the weights, for each step; 0 turns it off."""
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    """Batch-norm statistics; auto: frozen when starting from pretrained weights, else trained."""
    probe: bool | Literal["auto"] = "auto"
    """Fit the classifier on frozen features first; auto: when starting from pretrained weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU (where bfloat16 makes MobileNetV2
    1.7 times as fast, MobileNetV4 slower)."""
    min_crop: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Smallest share of the image's area that a random crop keeps."""
    color: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Largest change of brightness, contrast and saturation of random views; 0.2 is up to 20 % each."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Parameter of the beta distribution that lays pairs of a batch over each other (mixup); 0 turns it off."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each truth that is spread evenly over all classes; a teacher's answers are left as they are."""
    target_stride: Literal[1, 2, 4, 8] = 4
    """Pixels of the input a cell of what should be answered; segmentation only."""
    extra: dict[Literal["cwd", "dice", "lovasz"], Annotated[float, Field(gt=0)]] = {}
    """Losses of whole maps beside the one of cells, with their weights: cwd (channel-wise, arXiv 2011.13256), dice
    (arXiv 1606.04797: rare classes count as much as frequent ones), lovasz (arXiv 1705.08790). The student's are the
    control's too. Segmentation only."""
    patience: Annotated[int, Field(ge=1)] = 15
    """Stop after this many epochs without a better validation result."""
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads that decode and crop; auto: as many as it takes that training does not wait for them, up to the number of
    cores."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes that train together and share each batch, one a GPU, or where there is none on the CPU; auto: one for
    each GPU. Under torchrun and srun it is as many as these started."""


class FitSettings(TrainSettings):
    """How a pretrained teacher is fine-tuned on the labelled images before it labels."""

    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images a step."""


class TeacherSettings(Settings):
    """Keys that every teacher takes."""

    classes: Annotated[list[str] | None, BeforeValidator(_class_names)] = None
    """Names of the teacher's outputs, in order, or `voc` (21 names) or `cityscapes` (19). Default: what the weights say
    of themselves, else the classes of the data."""
    class_map: dict[str, str] = {}
    """Teacher class -> class of the data; several may go to one. Empty: the names must be the same."""
    unmapped: str = "drop"
    """Where the probability of teacher classes outside the map goes: `drop` (the rest is scaled to one) or the name of
    a class of the data."""
    fit: FitSettings | None = None
    """Fine-tune the teacher on the labelled images first; `{}` takes the defaults."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Views in one forward pass while labelling; halved by itself where memory runs out."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward passes while labelling; auto: bfloat16 where it was measured at least 1.25 times as fast."""
    test_time_augmentation: Literal["none", "mirror"] = "none"
    """Average the answers to each view and its mirror image; takes twice the time."""
    test_time_scales: Annotated[
        list[Annotated[float, Field(ge=0.25, le=4)]], Field(min_length=1), AfterValidator(_each_once)
    ] = [1.0]
    """Average the answers to each view shown at these multiples of the teacher's size, such as [0.75, 1, 1.25]; for
    teachers that take any size. Takes the time of the squares of these numbers, added up."""
    tiles: Annotated[int, Field(ge=1, le=8)] = 1
    """Cut each view into this many tiles a side, each shown at the teacher's size, so that it sees small things in
    large photos; for teachers of pixels. Takes the square of this number times the time."""
    tile_overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """Share of a tile's side that it has in common with its neighbour, where the answers are blended; what lies at the
    rim of one tile is seen whole in the next."""


class StudentSettings(Settings):
    """Keys that every student takes."""

    image_size: Annotated[int, Field(ge=16, le=1024)] = 224
    """Side of the square input in pixels; a multiple of 32 wastes nothing."""
