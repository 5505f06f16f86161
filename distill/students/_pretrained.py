"""What students on timm's models have in common: where their weights come from, and what they were trained to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field

from distill.core import plugins
from distill.core.errors import CheckpointError, UserError
from distill.core.settings import InputPath, ModelArgs, StudentSettings

if TYPE_CHECKING:
    import torch

__all__ = ["Facts", "PretrainedSettings", "check_known", "created", "fold_normalization"]

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Facts:
    """What to know of a student before choosing it.

    Args:
        params_m: parameters, millions.
        macs_m: multiply-accumulates of one image, millions.
        why: one sentence.
    """

    params_m: float
    macs_m: float
    why: str


class PretrainedSettings(StudentSettings):
    """Keys of students that begin with a model of timm."""

    pretrained: bool = True
    """Start from timm's pretrained weights (downloaded once); ignored where `checkpoint` is given."""
    checkpoint: InputPath | None = None
    """Start from these weights (safetensors or torch file); the classifier may be missing or of other classes."""
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Mean the weights were trained with, for values 0..1. Default: what timm knows of the model; a student of an
    earlier run has [0.5, 0.5, 0.5]."""
    std: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Standard deviation the weights were trained with. Default: what timm knows of the model; a student of an earlier
    run has [0.5, 0.5, 0.5]."""
    model_args: ModelArgs = {}
    """Further arguments of timm.create_model, such as {pad_type: same}."""


def check_known(name: str, offered: Iterable[str]) -> None:
    """Refuse names that timm does not know.

    Raises:
        ValueError: there is no such model; the text suggests one, and names those offered.
    """
    offered = list(dict.fromkeys(offered))
    if name in offered:  # these need no torch to be known
        return
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        near = plugins.suggest(name, offered) or plugins.suggest(name, timm.list_models())
        raise ValueError(f"timm has no model {name!r}{near}; known to be fast in int8: {', '.join(offered)}")


def created(create: Callable[[], _Model], key: str, name: str) -> _Model:
    """Call what creates a model of timm, and say what is to be done where it fails.

    Args:
        create: creates it; may download weights.
        key: of the config, such as `student.timm`.
        name: of the model.

    Raises:
        UserError: pretrained weights cannot be fetched, or timm does not take the arguments.
    """
    try:
        return create()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{key}: the pretrained weights of {name} cannot be had"
            f" ({type(error).__name__}: {str(error).splitlines()[0]}). Give student.checkpoint a local file, or set"
            " student.pretrained=false to start from scratch"
        ) from error
    except TypeError as error:
        raise UserError(f"student.model_args: {name} does not take them ({error})") from error


def fold_normalization(model: torch.nn.Module, first_conv: object, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make a model trained on (x - mean) / std answer the same for (x - 0.5) / 0.5, x in 0..1.

    Every student takes (x - 127.5) / 127.5: only then is the uint8 input of the int8 file (scale 2/255, zero point 128)
    the camera's bytes as they are, without operators in front of the first convolution. Inside the image the fold is
    exact; at the border, zero padding means mid-grey instead of the old mean.

    Args:
        model: changed in place.
        first_conv: name of its first convolution, as timm knows it; the first batch norm follows it.
        mean: per channel.
        std: per channel.

    Raises:
        CheckpointError: the model does not begin with a convolution and batch norm.
    """
    import torch
    from torch import nn

    if tuple(mean) == tuple(std) == (0.5, 0.5, 0.5):
        return
    # Models with several stems name several, and timm's feature extractors rename what they cut out.
    stem = dict(model.named_modules()).get(first_conv) if isinstance(first_conv, str) else None
    norm = next((m for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if not isinstance(stem, nn.Conv2d) or norm is None or norm.num_features != stem.out_channels:
        raise CheckpointError(
            "student: this model has no convolution with batch norm at its input to fold the normalisation of its"
            " weights into. Take another one, or set student.pretrained=false to start from scratch"
        )
    mean_t, std_t = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        # W * (x - mean) / std with x = 0.5 u + 0.5  ==  (W * 0.5 / std) * u + sum(W * (0.5 - mean) / std)
        offset = (stem.weight * (0.5 - mean_t) / std_t).sum(dim=(1, 2, 3))
        stem.weight.mul_(0.5 / std_t)
        assert norm.running_mean is not None
        norm.running_mean.sub_(offset)
