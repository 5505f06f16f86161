"""Any Hugging Face model for semantic segmentation (SegFormer, UPerNet, …); needs the extra `hf`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.core.errors import TeacherError, UserError
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

_PREPROCESSOR = "preprocessor_config.json"
_SIZE = 512
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_ANY_SIZE = {"segformer", "upernet", "mobilenet_v2", "mobilevit", "mobilevitv2"}  # no learnt positions


class Config(SegmenterSettings):
    """A Hugging Face model for semantic segmentation as teacher. Its weights are safetensors; no code is downloaded."""

    transformers: NameOrFolder
    """Name on the hub (downloaded once), such as `nvidia/segformer-b0-finetuned-ade-512-512`, or a folder that
    `save_pretrained` wrote."""

    def watched_files(self) -> list[Path]:
        """What a model in a folder consists of."""
        return weight_files(self.transformers)


def build(config: Config, class_names: Sequence[str]) -> Predictor:
    """Load the teacher. It answers on the model's own grid.

    Args:
        config: the section `teacher`.
        class_names: classes of the data. A teacher that is fitted gets a new classifier layer for exactly these.

    Raises:
        UserError: the package is missing, or the model cannot be had.
        TeacherError: weights are missing or have other shapes, or their classes are not known.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError("teacher.transformers: the package is missing: pip install 'mobile-distill[hf]'")
    from torch import nn

    from teachers._backbones import FromTransformers

    model, names, trained = _load(config, class_names)
    last = next(
        (
            name
            for name, layer in reversed(list(model.named_modules()))
            if isinstance(layer, nn.Conv2d) and layer.out_channels == len(names) and "auxiliary" not in name
        ),
        None,
    )
    if last is None:
        raise TeacherError(f"teacher.transformers: {config.transformers} does not end in a convolution to its classes")
    shown = _shown(config, model.config)
    return predictor_of(
        FromTransformers(model, last, blue_first=shown.blue_first),
        names,
        config,
        size=shown.size or _SIZE,
        mean=shown.mean,
        std=shown.std,
        pretrained=True,
        trained=trained,
        any_size=model.config.model_type in _ANY_SIZE,
        license=stated_license(config.transformers),
    )


def _load(config: Config, class_names: Sequence[str]) -> tuple[Any, list[str], str]:
    """The model, its classes, and the name of its trained part, if only its encoder is."""
    import transformers

    name = config.transformers
    new: dict[str, Any] = {}
    if config.fit is not None:
        places = dict(enumerate(class_names))
        new = {"id2label": places, "label2id": {v: k for k, v in places.items()}, "ignore_mismatched_sizes": True}
    try:
        with _quiet():
            model, told = transformers.AutoModelForSemanticSegmentation.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, **_where(config), **new
            )
    except Exception as error:
        raise UserError(
            f"teacher.transformers: {name} cannot be loaded ({reason(error)}). Give the name of a model for semantic"
            " segmentation with safetensors, or a folder that `save_pretrained` wrote"
        ) from error
    encoder = model.base_model_prefix if hasattr(model, model.base_model_prefix) else "backbone"
    _check_whole(model, told, config, encoder)
    model = model.float()  # weights may be stored in half precision, which CPUs are slow in
    if config.fit is not None:
        return model, list(class_names), f"model.{encoder}" if told["missing_keys"] else ""
    own = [str(model.config.id2label[place]) for place in range(model.config.num_labels)]
    unnamed = own == [f"LABEL_{place}" for place in range(len(own))]
    return model, names_of(len(own), config.classes or (None if unnamed else own), class_names), ""


def _check_whole(model: Any, told: dict[str, Any], config: Config, encoder: str) -> None:
    """Refuse weights drawn at random; what a fitted teacher has behind its encoder may be new.

    Raises:
        TeacherError: some are missing or have other shapes.
    """
    missing, other = sorted(told["missing_keys"]), sorted(str(key[0]) for key in told["mismatched_keys"])
    hint = ": use `fit: {}` to train a new classifier"
    if config.fit is not None:
        missing = [key for key in missing if key.startswith(f"{encoder}.")]
        classes, state = model.config.num_labels, model.state_dict()
        other, hint = [key for key in other if len(state[key]) != classes], ""
    for keys, what in ((missing, "lacks"), (other, "has other shapes of")):
        if keys:
            shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
            raise TeacherError(
                f"teacher.transformers: {config.transformers} {what} {shown}, which would be drawn at random{hint}"
            )


class _Shown(NamedTuple):
    """What the model was trained to see.

    Args:
        size: side in pixels; None where nothing says it.
        mean: per channel, of values scaled to 0..1.
        std: per channel, of values scaled to 0..1.
        blue_first: blue, green, red instead of red, green, blue.
    """

    size: int | None
    mean: Sequence[float]
    std: Sequence[float]
    blue_first: bool


def _shown(config: Config, architecture: Any) -> _Shown:
    import transformers
    from transformers.utils import cached_file

    try:
        file = cached_file(
            config.transformers,
            _PREPROCESSOR,
            local_files_only=Path(config.transformers).is_absolute(),
            _raise_exceptions_for_missing_entries=False,
        )
    except OSError as error:
        raise UserError(
            f"teacher.transformers: {_PREPROCESSOR} of {config.transformers}, which says what it was trained to see,"
            f" cannot be fetched ({reason(error)})"
        ) from error
    if file is None:
        size = getattr(architecture, "image_size", None)  # that its positions were learnt for
        return _Shown(size if isinstance(size, int) else None, *_IMAGENET, blue_first=False)
    with _quiet():  # the file leaves out what is the default of its kind
        said = transformers.AutoImageProcessor.from_pretrained(config.transformers, **_where(config))
    size = dict(said.size or {})
    normalized = said.do_normalize and said.image_mean is not None
    return _Shown(
        size.get("height") or size.get("shortest_edge"),
        said.image_mean if normalized else [0.0] * 3,
        said.image_std if normalized else [1.0] * 3,
        blue_first=bool(getattr(said, "do_flip_channel_order", False)),
    )


def _where(config: Config) -> dict[str, bool]:
    """Of every call that reads files: a folder needs no network, and nothing may bring code of its own."""
    return {"local_files_only": Path(config.transformers).is_absolute(), "trust_remote_code": False}


@contextmanager
def _quiet() -> Iterator[None]:
    """It would tell of new classifiers, and draw a bar for reading a file."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
