"""timm classifiers that stay one partition in int8: MobileNetV4-conv, MobileNetV2, MobileNetV3, EfficientNet-Lite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from distill.students._pretrained import Facts, PretrainedSettings, check_known, created, fold_normalization

if TYPE_CHECKING:
    from torch import nn

    from distill.torch_predictor import Network

__all__ = ["OFFERED", "TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification",)

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
"""Students whose int8 graph was seen to stay one XNNPACK partition; figures are with 1,000 classes at 224 px."""


class Config(PretrainedSettings):
    """A timm classifier as student."""

    timm: str
    """Name of the model: `distill ls students` shows the ones that are fast in int8."""
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the classifier while training."""

    @field_validator("timm")
    @classmethod
    def _known(cls, name: str) -> str:
        check_known(name, OFFERED)
        return name


def build(config: Config, class_names: Sequence[str]) -> Network:
    """Create the student.

    Raises:
        UserError: pretrained weights cannot be fetched, or timm does not take the arguments.
        CheckpointError: the checkpoint does not fit.
    """
    import timm

    from distill.checkpoint import load_weights
    from distill.torch_predictor import Network

    pretrained = config.pretrained and config.checkpoint is None

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(
            config.timm,
            pretrained=pretrained,
            num_classes=len(class_names),
            drop_rate=config.drop_rate,
            **config.model_args,
        )
        return model

    backbone = created(create, "student.timm", config.timm)
    facts: Mapping[str, Any] = backbone.default_cfg  # type: ignore[assignment]
    head = facts["classifier"]
    if config.checkpoint is not None:
        load_weights(backbone, config.checkpoint, replace=(f"{head}.",))
    trained = pretrained or config.checkpoint is not None
    if trained:
        known: Mapping[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        fold_normalization(backbone, facts["first_conv"], config.mean or known["mean"], config.std or known["std"])
    half = (0.5, 0.5, 0.5)
    return Network(backbone, class_names, config.image_size, half, half, pretrained=trained)
