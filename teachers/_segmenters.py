"""What torch teachers that answer each pixel have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from distill.core.errors import TeacherError, UserError
from distill.core.known_classes import KNOWN_CLASSES
from distill.core.settings import FromCommandLine, TeacherSettings
from distill.core.types import Predictor

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NameOrFolder", "SegmenterSettings", "names_of", "predictor_of", "reason", "stated_license", "weight_files"]


def _name_or_folder(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    base = Path.cwd() if isinstance(value, FromCommandLine) or not info.context else info.context["folder"]
    folder = (base / Path(value).expanduser()).resolve()
    if folder.is_dir():
        return str(folder)
    if value.startswith((".", "/", "~")):
        raise ValueError(f"found no folder {folder}")
    return str(value)


NameOrFolder = Annotated[str, BeforeValidator(_name_or_folder), Field(min_length=1)]
"""A name on a hub, or a folder; relative ones start at the config file's folder."""


class SegmenterSettings(TeacherSettings):
    """Keys of torch teachers that answer each pixel."""

    image_size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Side of its square input in pixels. Default: what the weights say, else 512."""
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Mean the weights were trained with, for values 0..1. Default: what the weights say, else ImageNet's."""
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    """Standard deviation the weights were trained with. Default: what the weights say, else ImageNet's."""


def weight_files(name: str) -> list[Path]:
    """Files of a local folder that decide what a model answers; none of a name on a hub."""
    folder = Path(name)
    return sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]) if folder.is_absolute() else []


def stated_license(name: str) -> str | None:
    """What the card of a model in a local folder, or on the Hugging Face hub, says of its licence.

    A card is a README.md that begins with YAML (hub documentation, "Model Cards"); `other` has a name of its own.
    """
    from huggingface_hub import hf_hub_download, metadata_load

    folder = Path(name)
    try:
        file = folder / "README.md" if folder.is_absolute() else Path(hf_hub_download(name, "README.md"))
        card = metadata_load(file) or {}
    except Exception:  # a card is no part of a model: none there, no network, YAML that cannot be read
        return None
    said = card.get("license_name", "other") if card.get("license") == "other" else card.get("license")
    return ", ".join(map(str, said)) if isinstance(said, list) else said and str(said)


def names_of(outputs: int, given: Sequence[str] | None, data: Sequence[str]) -> list[str]:
    """Class names for weights that carry none.

    Args:
        outputs: of the weights; 1 stands for the second of two classes.
        given: `teacher.classes`.
        data: classes of the data.

    Raises:
        TeacherError: they cannot be known.
    """
    count = 2 if outputs == 1 else outputs
    if given is not None:
        if len(given) != count:
            raise TeacherError(
                f"teacher.classes names {len(given)} classes, but the weights have {outputs} outputs, expected {count}"
                " names. Use `fit: {}` to train a new classifier, or `class_map` to choose among its own"
            )
        return list(given)
    if outputs == 1:
        raise TeacherError(
            "teacher.classes: the weights have one output, that of the second of two classes: name both, such as"
            " [background, person]"
        )
    if outputs == len(data):
        return list(data)
    known = [names for names in KNOWN_CLASSES.values() if len(names) == outputs]
    if known:
        return list(known[0])
    raise TeacherError(
        f"teacher: the weights have {outputs} classes, the data {len(data)} ({', '.join(data)})."
        " Name the weights' classes in teacher.classes and map them by teacher.class_map, or train a new classifier"
        " with `fit: {}`"
    )


def predictor_of(
    backbone: nn.Module,
    class_names: Sequence[str],
    config: SegmenterSettings,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    pretrained: bool,
    any_size: bool,
    trained: str = "",
    license: str | None = None,  # noqa: A002 - the word that cards use
) -> Predictor:
    """Put the normalisation around a backbone and try it once.

    Args:
        backbone: float32 [N, 3, S, S] to logits [N, C, h, w].
        class_names: C names.
        config: its size, mean and standard deviation come before those of the weights.
        size: that the weights were trained for.
        mean: that the weights were trained with.
        std: that the weights were trained with.
        pretrained: whether its weights were trained.
        any_size: whether it takes squares of other multiples of 32.
        trained: name of the part of the backbone that was trained, if not all of it.
        license: of the weights, as their card states it.

    Raises:
        UserError: it does not take images of this size.
    """
    import torch

    from distill.torch_predictor import Network, TorchPredictor

    side = config.image_size or size
    network = Network(
        backbone,
        class_names,
        side,
        config.mean or mean,
        config.std or std,
        pretrained=pretrained,
        trained=trained,
        answers_maps=True,
        any_size=any_size,
    )
    try:
        # no inference mode: what a module computes once and keeps could not be trained with
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"teacher.image_size: this model does not take {side} px ({reason(error)})") from error
    return TorchPredictor(network, license=license)


def reason(error: BaseException) -> str:
    """An error of a library, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
