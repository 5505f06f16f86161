"""Any timm classifier: pretrained, or from a local checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distill.core import plugins
from distill.core.errors import TeacherError, UserError
from distill.core.settings import InputPath, ModelArgs, TeacherSettings

if TYPE_CHECKING:
    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification",)


class Config(TeacherSettings):
    """A timm classifier as teacher."""

    timm: str
    """Name of the model, such as `convnext_base.fb_in22k_ft_in1k`."""
    checkpoint: InputPath | None = None
    """Local weights (safetensors or torch file) instead of timm's."""
    pretrained: bool = True
    """Take timm's pretrained weights (downloaded once); ignored where `checkpoint` is given."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Side of its square input in pixels. Default: what timm knows of the model."""
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Mean the weights were trained with, for values 0..1. Default: what timm knows of the model."""
    std: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Standard deviation the weights were trained with. Default: what timm knows of the model."""
    model_args: ModelArgs = {}
    """Further arguments of timm.create_model, such as {pad_type: same}."""


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Create the teacher.

    Args:
        config: the section `teacher`.
        class_names: classes of the data. A teacher that is fitted gets a new classifier layer for exactly these.

    Raises:
        UserError: timm has no such model, or its weights cannot be fetched.
        CheckpointError: the checkpoint leaves weights missing or holds others.
        TeacherError: the classes of the weights are not known.
    """
    import timm

    from distill.checkpoint import load_weights, read_state
    from distill.torch_predictor import Network, TorchPredictor

    architecture = config.timm.split(".", 1)[0]
    if not timm.is_model(architecture):
        near = plugins.suggest(architecture, timm.list_models())
        raise UserError(f"teacher.timm: timm has no model {config.timm!r}{near}")
    pretrained = config.pretrained and config.checkpoint is None
    names = list(class_names)
    count: int | None = len(names)
    if config.fit is None:
        if not pretrained and config.checkpoint is None:
            raise TeacherError(
                "teacher: without weights it knows nothing: give `checkpoint`, `pretrained: true` or `fit: {}`"
            )
        count = len(config.classes) if config.classes else None
        if config.checkpoint is not None and count is None:
            state = read_state(config.checkpoint)
            weight = state.get(f"{_classifier_of(config.timm)}.weight")
            count = None if weight is None else int(weight.shape[0])
    sized = {} if config.image_size is None or not _takes_size(architecture) else {"img_size": config.image_size}
    try:
        backbone = timm.create_model(
            config.timm,
            pretrained=pretrained,
            **({} if count is None else {"num_classes": count}),
            **sized,
            **config.model_args,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"teacher.timm: the pretrained weights of {config.timm} cannot be had ({type(error).__name__}:"
            f" {str(error).splitlines()[0]}). Give teacher.checkpoint a local file"
        ) from error
    except TypeError as error:
        raise UserError(f"teacher.model_args: {config.timm} does not take them ({error})") from error
    if config.checkpoint is not None:
        replace = (f"{backbone.default_cfg['classifier']}.",) if config.fit is not None else ()
        load_weights(backbone, config.checkpoint, replace=replace)
    if config.fit is None:
        names = list(config.classes or _names_of(int(backbone.num_classes), names))
        if pretrained and config.classes and len(config.classes) != backbone.pretrained_cfg.get("num_classes"):
            raise TeacherError(
                f"teacher.classes names {len(config.classes)} classes, but the pretrained weights of {config.timm} have"
                f" {backbone.pretrained_cfg.get('num_classes')}: timm would give it a random classifier. Use"
                " `fit: {}` to train one, or `class_map` to choose among its own"
            )
    known = backbone.pretrained_cfg
    size = config.image_size or int(known["input_size"][-1])
    network = Network(
        backbone,
        names,
        size,
        config.mean or known["mean"],
        config.std or known["std"],
        pretrained=pretrained or config.checkpoint is not None,
    )
    return TorchPredictor(network, license=known.get("license") if pretrained else None)


def _classifier_of(name: str) -> str:
    import timm

    known = timm.models.get_pretrained_cfg(name.split(".", 1)[0])
    return str(known.classifier) if known else ""


def _takes_size(architecture: str) -> bool:
    """Whether a model's layers depend on the size of its input (transformers with position embeddings)."""
    import timm

    entry = timm.models.model_entrypoint(architecture)
    return "vision_transformer" in entry.__module__ or "swin" in entry.__module__


def _names_of(outputs: int, data_classes: list[str]) -> list[str]:
    """Class names for weights that carry none."""
    from timm.data import ImageNetInfo

    if outputs == len(data_classes):
        return data_classes
    subset = {1000: "imagenet-1k", 21841: "imagenet-21k", 11821: "imagenet-12k"}.get(outputs)
    if subset is None:
        raise TeacherError(
            f"teacher: the weights have {outputs} classes, the data {len(data_classes)} ({', '.join(data_classes)})."
            " Name the weights' classes in teacher.classes and map them by teacher.class_map, or train a new classifier"
            " with `fit: {}`"
        )
    info = ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(outputs)]
