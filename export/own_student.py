"""A network that was not trained here: an exported program of torch, as it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distill.core.errors import CheckpointError, UserError
from distill.core.files import sha256_of
from distill.core.settings import InputPath, StudentSettings

if TYPE_CHECKING:
    import torch

    from distill.torch_predictor import Network

__all__ = ["Config", "build", "network_of", "open_program"]

_Channels = Annotated[list[float], Field(min_length=3, max_length=3)]


class Config(StudentSettings):
    """What `export … --model` leaves in a run folder; not a student that can be trained."""

    program: InputPath
    """A .pt2 file of torch.export, from float32 [1, 3, S, S] to logits."""
    program_sha256: str
    """Of its bytes."""
    mean: _Channels
    """That its input is normalised by, of values 0..1."""
    std: _Channels
    """That its input is normalised by, of values 0..1."""
    checkpoint: None = None
    """The weights are in the run folder."""
    pretrained: bool = False
    """Never: nothing is downloaded."""


def build(config: Config, class_names: Sequence[str]) -> Network:
    """The network, with its normalisation in front.

    Raises:
        CheckpointError: the program is not the one that was brought.
    """
    if sha256_of(config.program) != config.program_sha256:
        raise CheckpointError(f"{config.program} is not the file that was brought; give `--model` again")
    return network_of(open_program(config.program), class_names, config.image_size, config.mean, config.std)


def network_of(
    program: torch.export.ExportedProgram,
    class_names: Sequence[str],
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Network:
    """A program as a student: uint8 NHWC to logits.

    Every student takes (x - 127.5) / 127.5. What is missing to the program's own normalisation, one product and one sum
    a channel, is done in front of its first layer and never rounded, so that the answers are the program's own. (Folded
    into the first convolution, as in a student that trains on, it would be wrong along the border, where zero padding
    means the old mean.)

    Args:
        program: from float32 [1, 3, S, S], normalised, to logits [1, C] or [1, C, h, w].
        class_names: C names; as many as the program answers if empty.
        image_size: S.
        mean: of each channel, of values 0..1.
        std: of each channel, of values 0..1.
    """
    import torch

    from distill.torch_predictor import Network
    from export.lifted import lift

    half = (0.5, 0.5, 0.5)
    backbone = lift(program, [0.5 / s for s in std], [(0.5 - m) / s for m, s in zip(mean, std, strict=True)])
    with torch.no_grad():
        answer = backbone(torch.zeros(2, 3, image_size, image_size))
    if answer.ndim not in {2, 4} or len(answer) != 2:
        raise UserError(
            f"for 2 images the network answers {list(answer.shape)}, expected logits [2, C] or [2, C, h, w]; is the"
            " size of the batch written into it?"
        )
    names = tuple(class_names) or tuple(str(place) for place in range(answer.shape[1]))
    return Network(backbone, names, image_size, half, half, pretrained=True, answers_maps=answer.ndim == 4).eval()


def open_program(path: Path) -> torch.export.ExportedProgram:
    """Read a .pt2 file; what is pickled in it may hold tensors alone.

    Raises:
        CheckpointError: it is none, damaged, or holds more.
    """
    import torch

    try:
        with _tensors_alone():
            return torch.export.load(path)
    except Exception as error:  # zip, JSON, pickle and torch raise their own on damaged bytes
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path}: no .pt2 file of torch.export.save that can be read ({reason[0][:200]})"
        ) from error


@contextlib.contextmanager
def _tensors_alone() -> Iterator[None]:
    """torch.export.load tries `weights_only=True` first and then without; this takes away the second."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
