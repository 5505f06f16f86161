"""timm classifiers that stay one partition in int8: MobileNetV4-conv, MobileNetV2, MobileNetV3, EfficientNet-Lite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from distill.core import plugins
from distill.core.errors import CheckpointError, UserError
from distill.core.settings import InputPath, ModelArgs, StudentSettings

if TYPE_CHECKING:
    import torch

    from distill.torch_predictor import Network

__all__ = ["OFFERED", "Config", "Facts", "build"]


@dataclass(frozen=True)
class Facts:
    """What to know of a student before choosing it.

    Args:
        params_m: parameters with 1,000 classes, millions.
        macs_m: multiply-accumulates of one 224 px image, millions.
        why: one sentence.
    """

    params_m: float
    macs_m: float
    why: str


OFFERED: dict[str, Facts] = {
    "mobilenetv4_conv_small": Facts(
        3.77, 186, "default: best accuracy for its latency, int8 2.7 times as fast as float"
    ),
    "mobilenetv2_100": Facts(3.50, 301, "the best-known int8 behaviour; twice the time of the default"),
    "mobilenetv2_050": Facts(1.97, 97, "half of its channels: for 2 MB"),
    "mobilenetv2_035": Facts(1.68, 59, "about a third of its channels: for the weakest phones"),
    "tf_mobilenetv3_small_minimal_100": Facts(2.04, 52, "no squeeze-excite, no hard-swish: the fastest"),
    "mobilenetv3_small_100": Facts(2.54, 57, "hard-swish stays float; only small gain from int8"),
    "mobilenetv3_large_100": Facts(5.48, 217, "hard-swish stays float; accurate"),
    "efficientnet_lite0": Facts(4.65, 385, "EfficientNet made for integers (ReLU6, no squeeze-excite)"),
}
"""Students whose int8 graph was seen to stay one XNNPACK partition."""


class Config(StudentSettings):
    """A timm classifier as student."""

    timm: str
    """Name of the model: `distill ls students` shows the ones that are fast in int8."""
    pretrained: bool = True
    """Start from timm's pretrained weights (downloaded once); ignored where `checkpoint` is given."""
    checkpoint: InputPath | None = None
    """Start from these weights (safetensors or torch file); the classifier may be missing or of other classes."""
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Mean the weights were trained with, for values 0..1. Default: what timm knows of the model."""
    std: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Standard deviation the weights were trained with. Default: what timm knows of the model."""
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the classifier while training."""
    model_args: ModelArgs = {}
    """Further arguments of timm.create_model, such as {pad_type: same}."""

    @field_validator("timm")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OFFERED:  # these need no torch to be known
            _check_known(name)
        return name


def build(config: Config, class_names: Sequence[str]) -> Network:
    """Create the student.

    Every student takes (x - 127.5) / 127.5: weights trained with another mean and standard deviation get the change
    folded into their first convolution and its batch norm. Only then is the uint8 input of the int8 file (scale 2/255,
    zero point 128) the camera's bytes as they are, without operators in front of the first convolution. Inside the
    image the fold is exact; at the border, zero padding means mid-grey instead of the old mean.

    Raises:
        UserError: pretrained weights cannot be fetched, or timm does not take the arguments.
        CheckpointError: the checkpoint does not fit.
    """
    import timm
    from torch import nn

    from distill.checkpoint import load_weights
    from distill.torch_predictor import Network

    pretrained = config.pretrained and config.checkpoint is None
    try:
        backbone: nn.Module = timm.create_model(
            config.timm,
            pretrained=pretrained,
            num_classes=len(class_names),
            drop_rate=config.drop_rate,
            **config.model_args,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"student.timm: the pretrained weights of {config.timm} cannot be had"
            f" ({type(error).__name__}: {str(error).splitlines()[0]}). Give student.checkpoint a local file, or set"
            " student.pretrained=false to start from scratch"
        ) from error
    except TypeError as error:
        raise UserError(f"student.model_args: {config.timm} does not take them ({error})") from error
    facts: Mapping[str, Any] = backbone.default_cfg  # type: ignore[assignment]
    head = facts["classifier"]
    if config.checkpoint is not None:
        load_weights(backbone, config.checkpoint, replace=(f"{head}.",))
    trained = pretrained or config.checkpoint is not None
    if trained:
        known: Mapping[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        _fold_normalization(backbone, facts["first_conv"], config.mean or known["mean"], config.std or known["std"])
    half = (0.5, 0.5, 0.5)
    return Network(backbone, class_names, config.image_size, half, half, pretrained=trained)


def _check_known(name: str) -> None:
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        near = plugins.suggest(name, OFFERED) or plugins.suggest(name, timm.list_models())
        raise ValueError(f"timm has no model {name!r}{near}; known to be fast in int8: {', '.join(OFFERED)}")


def _fold_normalization(
    backbone: torch.nn.Module, first_conv: str, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Make a backbone trained on (x - mean) / std answer the same for (x - 0.5) / 0.5, x in 0..1."""
    import torch
    from torch import nn

    if tuple(mean) == tuple(std) == (0.5, 0.5, 0.5):
        return
    stem = backbone.get_submodule(first_conv)
    norm = next((m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if not isinstance(stem, nn.Conv2d) or norm is None or norm.num_features != stem.out_channels:
        raise CheckpointError("student: this model has no convolution with batch norm at its input to fold into")
    mean_t, std_t = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        # W * (x - mean) / std with x = 0.5 u + 0.5  ==  (W * 0.5 / std) * u + sum(W * (0.5 - mean) / std)
        offset = (stem.weight * (0.5 - mean_t) / std_t).sum(dim=(1, 2, 3))
        stem.weight.mul_(0.5 / std_t)
        assert norm.running_mean is not None
        norm.running_mean.sub_(offset)
