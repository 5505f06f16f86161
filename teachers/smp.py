"""Any model of segmentation_models_pytorch: from its hub, a folder or a local checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core import plugins
from distill.core.errors import TeacherError, UserError
from distill.core.settings import InputPath
from teachers._segmenters import (
    NameOrFolder,
    SegmenterSettings,
    names_of,
    predictor_of,
    reason,
    stated_license,
    weight_files,
)

if TYPE_CHECKING:
    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("segmentation",)

_SIZE = 512
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_HEAD = "segmentation_head."


class Config(SegmenterSettings):
    """A model of segmentation_models_pytorch as teacher."""

    smp: NameOrFolder
    """Name of the architecture, such as `deeplabv3plus`; or, with a slash, a model on the hub or a folder that
    `save_pretrained` wrote (./ stands before a folder beside the config)."""
    encoder: str = "resnet50"
    """Name of the encoder; of a model from the hub or a folder it is known."""
    encoder_weights: str | None = "imagenet"
    """Pretrained weights that the encoder of a fitted teacher starts from (downloaded once), or null; ignored where
    there is a `checkpoint`."""
    encoder_checkpoint: InputPath | None = None
    """Local weights (safetensors or torch file) that a timm encoder of a fitted teacher starts from, as timm's
    classifiers save them; what a classifier has behind the features is left out."""
    checkpoint: InputPath | None = None
    """Local weights (safetensors or torch file) of the whole model."""

    def watched_files(self) -> list[Path]:
        """What a model in a folder consists of."""
        return weight_files(self.smp)


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Create the teacher. It answers each pixel of its input.

    Args:
        config: the section `teacher`.
        class_names: classes of the data. A teacher that is fitted gets a new classifier layer for exactly these.

    Raises:
        UserError: there is no such architecture, encoder or model on the hub, or weights cannot be fetched.
        CheckpointError: the checkpoint leaves weights missing or holds others.
        TeacherError: the classes of the weights are not known.
    """
    from torch import nn

    from teachers._backbones import FromSmp

    fitted = config.fit is not None
    model = _from_hub(config) if "/" in config.smp else _from_parts(config, len(class_names))
    last = max(name for name, layer in model.named_modules() if name.startswith(_HEAD) and isinstance(layer, nn.Conv2d))
    names = list(class_names)
    if fitted:
        old = model.get_submodule(last)
        model.set_submodule(last, nn.Conv2d(old.in_channels, len(names), old.kernel_size, padding=old.padding))
    else:
        names = names_of(model.get_submodule(last).out_channels, config.classes, class_names)
    mean, std = _IMAGENET
    whole = "/" in config.smp or config.checkpoint is not None
    return predictor_of(
        FromSmp(model, last),
        names,
        config,
        size=_SIZE,
        mean=mean,
        std=std,
        pretrained=whole or config.encoder_weights is not None or config.encoder_checkpoint is not None,
        trained="" if whole else "model.encoder",
        any_size=True,
        license=stated_license(config.smp) if "/" in config.smp else None,
    )


def _from_hub(config: Config) -> Any:
    import segmentation_models_pytorch as smp

    if config.checkpoint is not None:
        raise UserError(f"teacher.checkpoint: {config.smp} has its own weights: leave out `checkpoint`")
    folder = Path(config.smp)
    try:
        with redirect_stdout(StringIO()):  # it prints where it loads from
            # its config may name weights of the encoder, which would be downloaded and then overwritten
            return smp.from_pretrained(config.smp, encoder_weights=None, local_files_only=folder.is_absolute())
    except Exception as error:
        raise UserError(
            f"teacher.smp: {config.smp} cannot be loaded ({reason(error)}). Give a folder that `save_pretrained` wrote"
        ) from error


def _from_parts(config: Config, classes: int) -> Any:
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.encoders import get_encoder_names

    from distill.checkpoint import load_weights, read_state

    known = list(smp.MODEL_ARCHITECTURES_MAPPING)
    if config.smp.lower() not in known:
        near = plugins.suggest(config.smp, known)
        raise UserError(
            f"teacher.smp: found no architecture {config.smp!r}{near}; known: {', '.join(known)}; a folder or a model"
            " on the hub has a slash in its name"
        )
    if not config.encoder.startswith("tu-") and config.encoder not in get_encoder_names():
        near = plugins.suggest(config.encoder, get_encoder_names())
        raise UserError(f"teacher.encoder: found no encoder {config.encoder!r}{near}; timm's are called tu-NAME")
    if config.checkpoint is None and config.fit is None:
        raise TeacherError(
            "teacher: without weights it knows nothing: give `checkpoint`, a model on the hub or `fit: {}`"
        )
    state = {} if config.checkpoint is None else read_state(config.checkpoint)
    head = max((name for name, values in state.items() if name.startswith(_HEAD) and values.ndim == 4), default=None)
    weights = config.encoder_weights if config.checkpoint is None and config.encoder_checkpoint is None else None
    try:
        model = smp.create_model(
            config.smp,
            config.encoder,
            weights,
            classes=classes if head is None else len(state[head]),
        )
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"teacher.smp: {config.smp} on {config.encoder} with the weights {weights} cannot be had ({reason(error)})"
        ) from error
    if config.checkpoint is not None:
        load_weights(model, config.checkpoint, replace=(_HEAD,) if config.fit is not None else ())
    elif config.encoder_checkpoint is not None:
        _load_encoder(model.encoder, config.encoder_checkpoint, config.encoder)
    return model


def _load_encoder(encoder: Any, path: Path, name: str) -> None:
    """Load a timm classifier's weights into an encoder made of it."""
    import timm

    from distill.checkpoint import load_features

    if not name.startswith("tu-"):
        raise UserError(f"teacher.encoder_checkpoint: is for timm's encoders, called tu-NAME, not for {name}")
    load_features(encoder.model, timm.create_model(name.removeprefix("tu-")), path)
