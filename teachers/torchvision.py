"""Any segmentation model of torchvision: FCN, DeepLabV3, LR-ASPP; pretrained, or from a local checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill.core import plugins
from distill.core.errors import TeacherError, UserError
from distill.core.settings import InputPath
from teachers._segmenters import SegmenterSettings, names_of, predictor_of, reason

if TYPE_CHECKING:
    from torch import nn

    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("segmentation",)

_AUXILIARY = "aux_classifier."  # a second head, for training alone
_OFF = "none"


class Config(SegmenterSettings):
    """A segmentation model of torchvision as teacher."""

    torchvision: str
    """Name of the model, such as `deeplabv3_resnet50`."""
    weights: str = "default"
    """Pretrained weights (downloaded once): `default`, the name torchvision gives them, such as
    `COCO_WITH_VOC_LABELS_V1`, or `none`; ignored where `checkpoint` is given."""
    checkpoint: InputPath | None = None
    """Local weights (safetensors or torch file) instead of torchvision's."""


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Create the teacher. It answers on the grid of its last layer, an eighth or a sixteenth of the input's side.

    Args:
        config: the section `teacher`.
        class_names: classes of the data. A teacher that is fitted gets a new classifier layer for exactly these.

    Raises:
        UserError: torchvision has no such model or weights, or they cannot be fetched.
        CheckpointError: the checkpoint leaves weights missing or holds others.
        TeacherError: the classes of the weights are not known.
    """
    import torchvision
    from torchvision.transforms._presets import SemanticSegmentation

    from distill.checkpoint import load_weights, read_state
    from teachers._backbones import FromTorchvision

    known = torchvision.models.list_models(module=torchvision.models.segmentation)
    if config.torchvision not in known:
        near = plugins.suggest(config.torchvision, known)
        raise UserError(
            f"teacher.torchvision: torchvision has no segmentation model {config.torchvision!r}{near}; known:"
            f" {', '.join(known)}"
        )
    weights = None if config.checkpoint is not None else _weights(config)
    fitted = config.fit is not None
    if weights is None and config.checkpoint is None and not fitted:
        raise TeacherError(
            "teacher: without weights it knows nothing: give `checkpoint`, `weights: default` or `fit: {}`"
        )
    count = len(class_names)
    if config.checkpoint is not None:
        state = read_state(config.checkpoint)
        count = next((len(state[f"{layer}.weight"]) for layer in _LAST if f"{layer}.weight" in state), count)
    try:
        model: Any = torchvision.models.get_model(
            config.torchvision,
            weights=weights,
            weights_backbone=None,
            **({} if weights is not None else {"num_classes": count}),
        )
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"teacher.torchvision: the weights {weights} cannot be had ({reason(error)}). Give teacher.checkpoint a"
            " local file"
        ) from error
    model.aux_classifier = None
    last = [layer for layer in _LAST if layer in dict(model.named_modules())]
    if config.checkpoint is not None:
        load_weights(model, config.checkpoint, replace=(_AUXILIARY, *(f"{layer}." for layer in last if fitted)))
    names = list(class_names)
    if fitted:
        for layer in last:
            _renew(model, layer, len(names))
    elif weights is not None:
        own = ["background" if name == "__background__" else name for name in weights.meta["categories"]]
        names = names_of(len(own), config.classes or own, class_names)
    else:
        names = names_of(count, config.classes, class_names)
    trained = weights.transforms() if weights is not None else SemanticSegmentation(resize_size=520)
    return predictor_of(
        FromTorchvision(model, last[-1]),
        names,
        config,
        size=int(trained.resize_size[0]),
        mean=trained.mean,
        std=trained.std,
        pretrained=weights is not None or config.checkpoint is not None,
        any_size=True,
    )


_LAST = ("classifier.4", "classifier.low_classifier", "classifier.high_classifier")
"""Where the models keep the convolutions to classes: FCN and DeepLabV3 the first, LR-ASPP the others."""


def _weights(config: Config) -> Any:
    import torchvision

    if config.weights == _OFF:
        return None
    offered = torchvision.models.get_model_weights(config.torchvision)
    if config.weights == "default":
        return offered.DEFAULT
    if config.weights not in offered.__members__:
        raise UserError(
            f"teacher.weights: found {config.weights!r}, expected 'default', {_OFF!r} or one of"
            f" {', '.join(offered.__members__)}{plugins.suggest(config.weights, offered.__members__)}"
        )
    return offered[config.weights]


def _renew(model: nn.Module, layer: str, count: int) -> None:
    """Put a convolution to so many classes in the place of one; zero, since training zeroes one of LR-ASPP's two."""
    from torch import nn

    old = model.get_submodule(layer)
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(old.in_channels, count, 1)
    for values in new.parameters():
        nn.init.zeros_(values)
    model.set_submodule(layer, new)
