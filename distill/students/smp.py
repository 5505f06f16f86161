"""Segmenters on timm encoders: DeepLabV3+ and LR-ASPP, in int8 at most 0.6 times the time of float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from distill.core.errors import UserError
from distill.students._pretrained import Facts, PretrainedSettings, check_known, created, fold_normalization

if TYPE_CHECKING:
    from pathlib import Path

    from distill.students._segmenters import Segmenter
    from distill.torch_predictor import Network

__all__ = ["OFFERED", "TASKS", "Config", "Head", "build"]

TASKS: tuple[str, ...] = ("segmentation",)

Head = Literal["deeplabv3plus", "lraspp"]

OFFERED: dict[tuple[Head, str], Facts] = {
    ("deeplabv3plus", "mobilenetv4_conv_small"): Facts(1.63, 528, "default: fine outlines"),
    ("lraspp", "mobilenetv4_conv_small"): Facts(1.39, 425, "the fastest"),
    ("deeplabv3plus", "mobilenetv2_100"): Facts(1.96, 668, "the best-known int8 behaviour"),
    ("lraspp", "mobilenetv2_100"): Facts(1.85, 601, "the best-known int8 behaviour, with the faster head"),
    ("deeplabv3plus", "efficientnet_lite0"): Facts(3.11, 963, "made for integers (ReLU6, no squeeze-excite)"),
    ("lraspp", "efficientnet_lite0"): Facts(3.00, 896, "made for integers, with the faster head"),
    ("deeplabv3plus", "mobilenetv4_conv_medium"): Facts(7.57, 2235, "the largest: four times the time of the default"),
}
"""Heads and encoders whose int8 graph was seen to stay one XNNPACK partition and to take at most 0.6 times the time of
float32 (`benchmarks/students.py`): with 64 decoder channels and 21 classes at 256 px."""


class Config(PretrainedSettings):
    """A segmenter as student. Its answers are a coarse map, whose sides are a share of the image's."""

    smp: Head
    """How features become classes: `deeplabv3plus` (a cell is 4 pixels wide: finer outlines) or `lraspp` (8 pixels:
    faster)."""
    encoder: str
    """Name of the timm model in front of it: `distill ls students` shows the ones that are fast in int8."""
    decoder_channels: Annotated[int, Field(ge=8, le=512)] = 64
    """Channels of the head; papers take 256, for computers larger than a phone."""
    image_size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)] = 256
    """Side of the square input in pixels, a multiple of 16."""

    @field_validator("encoder")
    @classmethod
    def _known(cls, name: str) -> str:
        check_known(name, [encoder for _, encoder in OFFERED])
        return name


def build(config: Config, class_names: Sequence[str]) -> Network:
    """Create the student.

    Its checkpoint is either of a whole segmenter or of the encoder alone, as timm's classifiers and feature extractors
    save them; what a classifier has behind the features is left out.

    Raises:
        UserError: timm's model gives no features of the strides needed, its pretrained weights cannot be fetched, or it
            does not take the arguments.
        CheckpointError: the checkpoint does not fit.
    """
    import torch

    from distill.students._segmenters import LRASPP, DeepLabV3Plus
    from distill.torch_predictor import Network

    pretrained = config.pretrained and config.checkpoint is None
    kinds: dict[Head, type[Segmenter]] = {"deeplabv3plus": DeepLabV3Plus, "lraspp": LRASPP}

    create = kinds[config.smp]
    try:
        with torch.device("meta"):  # shapes without numbers: is it made for this at all?
            draft = create(config.encoder, 2, 8, pretrained=False).eval()
            draft(torch.empty(1, 3, config.image_size, config.image_size))
    except Exception as error:  # models of timm that do not fit raise nearly anything
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        raise UserError(
            f"student.encoder: {config.encoder} gives no maps of strides 4, 8 and 16 as {config.smp} needs them"
            f" ({reason})"
        ) from error
    channels, classes = config.decoder_channels, len(class_names)
    backbone = created(
        lambda: create(config.encoder, classes, channels, pretrained=pretrained, **config.model_args),
        "student.encoder",
        config.encoder,
    )
    whole = config.checkpoint is not None and _load(backbone, config.checkpoint, config)
    trained = pretrained or config.checkpoint is not None
    model = backbone.encoder.model
    if trained:
        known = model.pretrained_cfg
        fold_normalization(model, known["first_conv"], config.mean or known["mean"], config.std or known["std"])
    half = (0.5, 0.5, 0.5)
    return Network(
        backbone,
        class_names,
        config.image_size,
        half,
        half,
        pretrained=trained,
        trained="" if whole else "encoder",
        answers_maps=True,
    )


def _load(segmenter: Segmenter, path: Path, config: Config) -> bool:
    """Load a whole segmenter, or an encoder with or without its classifier; true if it was a whole one."""
    import timm

    from distill.checkpoint import load_features, load_weights, read_state

    if any(key.startswith("encoder.") for key in read_state(path)):
        load_weights(segmenter, path, replace=segmenter.classifiers)
        return True
    load_features(segmenter.encoder.model, timm.create_model(config.encoder, **config.model_args), path)
    return False
