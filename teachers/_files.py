"""What teachers that are files of another framework have in common: bytes in as the file wants them, logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from distill.core.errors import TeacherError, UserError
from distill.core.files import digest_of, sha256_of
from distill.core.settings import TeacherSettings
from distill.core.types import FloatArray, Images, Predictor

__all__ = ["FileSettings", "FileTeacher", "Opened"]

_SMALLEST = 1e-8  # of a probability, before its logarithm
_ROUNDING = 0.05  # how far quantized probabilities of a cell may be from a sum of one

Layout = Literal["nchw", "nhwc"]
Sides = tuple[int | None, ...]
"""A shape; None where the file leaves a side open."""


class FileSettings(TeacherSettings):
    """Keys of teachers that are files."""

    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side of its square input in pixels. Default: the file's; needed where the file leaves it open."""
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    """Mean that is subtracted from values 0..1; needed where the input is no plain bytes. For (x - 127.5) / 127.5
    `mean` and `std` are [0.5, 0.5, 0.5], for x / 255 [0, 0, 0] and [1, 1, 1]."""
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    """Standard deviation that values 0..1 are then divided by."""
    output: Literal["auto", "logits", "probabilities"] = "auto"
    """What the file answers. auto: probabilities where answers to noise lie in 0..1 and sum to one, else logits. A
    single channel is that of the second of two classes."""
    layout: Layout | None = None
    """Where the channels are, `nchw` or `nhwc`; needed where shapes do not tell."""

    @model_validator(mode="after")
    def _both(self) -> FileSettings:
        if (self.mean is None) != (self.std is None):
            raise ValueError("found one of `mean` and `std`, expected both or none")
        return self


class Opened(ABC):
    """A file that is open: runs batches as its framework takes them."""

    shape: Sides
    """Of its input, with the batch."""
    dtype: np.dtype[Any]
    """Of its input."""
    quantization: tuple[float, int] | None = None
    """Scale and zero point of its input; None where it is not quantized."""
    license: str | None = None
    """As the file states it."""

    @abstractmethod
    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Answer a batch of the input's dtype and layout; what comes out is not quantized."""


@final
class FileTeacher(Predictor):
    """A file as teacher.

    Args:
        opened: the file.
        config: its section.
        kind: the key that names it, such as `onnx`.
        path: of the file, for people.
        files: whose bytes decide its answers.
        class_names: of the data; those of the file where `classes` names none.

    Raises:
        UserError: a key is needed, or it is to be fitted.
        TeacherError: the file takes no square RGB images, or does not answer in its classes.
    """

    def __init__(
        self,
        opened: Opened,
        config: FileSettings,
        kind: str,
        path: Path,
        files: Sequence[Path],
        class_names: Sequence[str],
    ) -> None:
        self._opened, self._config, self._kind = opened, config, kind
        self._name = path.name
        self._class_names = tuple(config.classes or class_names)
        if config.fit is not None:
            raise UserError(f"teacher.fit: {self._name} cannot be fitted, only torch models can")
        self._layout = self._layout_of_input()
        sides = opened.shape[2:] if self._layout == "nchw" else opened.shape[1:3]
        self._open_sides = sides == (None, None)
        self._size = self._size_of(sides)
        self._check_values()
        self._probabilities = config.output == "probabilities"
        self._probe()
        self._digest = digest_of(
            {
                "files": [sha256_of(path) for path in files],
                "classes": self._class_names,
                "input": [self._size, self._layout, config.mean, config.std],
                "output": [self._probabilities, config.layout],
            }
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def image_size(self) -> int:
        return self._size

    @property
    def any_size(self) -> bool:
        return self._open_sides

    @property
    def license(self) -> str | None:
        return self._opened.license

    def predict(self, images: Images) -> FloatArray:
        answer = self._answer(images)
        if answer.shape[-1] == 1:
            return self._of_two(answer)
        return np.log(np.maximum(answer, _SMALLEST)) if self._probabilities else answer

    def digest(self) -> str:
        return self._digest

    def _layout_of_input(self) -> Layout:
        shape = self._opened.shape
        if len(shape) == 4:
            fits: list[Layout] = [name for name, at in _CHANNELS.items() if shape[at] in (3, None)]
            certain: list[Layout] = [name for name, at in _CHANNELS.items() if shape[at] == 3]
            likely = certain if len(certain) == 1 else fits
            if self._config.layout in fits:
                return self._config.layout
            if len(likely) == 1 and self._config.layout is None:
                return likely[0]
            if len(likely) > 1 and self._config.layout is None:
                raise UserError(
                    f"teacher.layout: the input of {self._name} is {_text(shape)}: say `nchw` or `nhwc` (channels first"
                    " or last)"
                )
        expected = {None: "[N, 3, H, W] or [N, H, W, 3]", "nchw": "[N, 3, H, W]", "nhwc": "[N, H, W, 3]"}
        raise TeacherError(
            f"teacher.{self._kind}: the input of {self._name} is {_text(shape)}, expected RGB images"
            f" {expected[self._config.layout]}"
        )

    def _size_of(self, sides: Sides) -> int:
        asked, given = self._config.image_size, {side for side in sides if side is not None}
        if len(given) > 1:
            raise TeacherError(
                f"teacher.{self._kind}: {self._name} takes images of {_text(sides)} pixels, expected a square"
            )
        own = given.pop() if given else None
        if asked is None and own is None:
            raise UserError(f"teacher.image_size: {self._name} takes any size: say which, such as 512")
        if asked is not None and own is not None and asked != own:
            raise UserError(f"teacher.image_size: found {asked}, but {self._name} takes {own} px alone")
        return asked or own or 0

    def _check_values(self) -> None:
        plain = self._opened.dtype == np.uint8
        if self._config.mean is None and not plain:
            raise UserError(
                f"teacher.mean: the input of {self._name} is {self._opened.dtype}: give the `mean` and `std` it was"
                " trained with"
            )
        if self._config.mean is not None and plain and self._opened.quantization is None:
            raise UserError(f"teacher.mean: {self._name} takes bytes 0..255: leave out `mean` and `std`")

    def _probe(self) -> None:
        """Ask about noise: does it answer at all, in its classes, and in probabilities?"""
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
        fine = rng.integers(0, 256, (2, self._size, self._size, 3), dtype=np.uint8)
        places = np.arange(self._size) * 4 // self._size
        answer = self._answer(np.concatenate([fine, coarse[:, places][:, :, places]]))
        if not np.isfinite(answer).all():
            raise TeacherError(f"teacher.{self._kind}: {self._name} answers noise with values that are not finite")
        inside = answer.min() >= 0 and answer.max() <= 1 + _ROUNDING
        sums = answer.sum(axis=-1)
        whole = answer.shape[-1] == 1 or (sums.min() > 1 - _ROUNDING and sums.max() < 1 + _ROUNDING)
        if answer.shape[-1] == 1 and self._config.classes is None:
            raise UserError(
                f"teacher.classes: {self._name} answers one channel, that of the second of two classes: name both,"
                " such as [background, person]"
            )
        if self._config.output == "auto":
            if inside and not whole:  # of many classes in 8 bits, or a sigmoid a class
                raise UserError(
                    f"teacher.output: {self._name} answers noise with {answer.min():.3g} to {answer.max():.3g}, and"
                    f" sums {sums.min():.3g} to {sums.max():.3g}: say whether these are `probabilities` (rounded; they"
                    " are then scaled to sum to one) or `logits`"
                )
            self._probabilities = bool(inside)
        elif self._probabilities and not inside:
            raise UserError(
                f"teacher.output: found 'probabilities', but {self._name} answers noise with {answer.min():.3g} to"
                f" {answer.max():.3g}"
            )

    def _answer(self, images: Images) -> FloatArray:
        """As the file says it: float32 [N, C] or [N, h, w, C], where C is the number of classes, or 1 for two."""
        fed = self._fed(images)
        size = self._opened.shape[0]
        try:
            if size is None:
                answer = self._opened.run(fed)
            else:  # the last batch is filled up with its last image
                parts = []
                for at in range(0, len(fed), size):
                    batch = fed[at : at + size]
                    filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
                    parts.append(self._opened.run(filled)[: len(batch)])
                answer = np.concatenate(parts)
        except MemoryError:
            raise
        except Exception as error:
            if "memory" in str(error).lower():  # the stage `labels` asks again, about fewer
                raise MemoryError(str(error)) from error
            raise TeacherError(
                f"teacher.{self._kind}: {self._name} does not run on {_text(fed.shape)}"
                f" ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
            ) from error
        if not np.issubdtype(answer.dtype, np.floating):
            raise TeacherError(
                f"teacher.{self._kind}: {self._name} answers {answer.dtype} {_answered(answer)}, places of classes as"
                " it seems. Export it so that it ends in logits or probabilities"
            )
        return self._classes_last(answer).astype(np.float32, copy=False)

    def _fed(self, images: Images) -> npt.NDArray[Any]:
        config, opened = self._config, self._opened
        fed: npt.NDArray[Any] = images
        if config.mean is not None and config.std is not None:
            mean, std = np.asarray(config.mean, np.float32) * 255, np.asarray(config.std, np.float32) * 255
            fed = (images.astype(np.float32) - mean) / std
            if opened.quantization is not None:
                scale, zero_point = opened.quantization
                limits = np.iinfo(opened.dtype)
                fed = np.clip(np.round(fed / scale) + zero_point, limits.min, limits.max)
            fed = fed.astype(opened.dtype, copy=False)
        return np.ascontiguousarray(fed.transpose(0, 3, 1, 2)) if self._layout == "nchw" else fed

    def _classes_last(self, answer: npt.NDArray[Any]) -> npt.NDArray[Any]:
        count = len(self._class_names)
        if answer.ndim == 3:  # [N, h, w]: one channel, left out
            answer = answer[..., None]
        wanted = [count, 1] if count == 2 else [count]
        if answer.ndim == 2 and answer.shape[1] in wanted:
            return answer
        if answer.ndim == 4:
            for channels in wanted:
                places: list[Layout] = [name for name, at in _CHANNELS.items() if answer.shape[at] == channels]
                if len(places) == 2 and answer.shape[1:] == (1, 1, 1):
                    places = ["nhwc"]
                if len(places) == 2 and self._config.layout is None:
                    raise UserError(
                        f"teacher.layout: {self._name} answers {_answered(answer)} about {channels} channels: say"
                        " `nchw` or `nhwc` (channels first or last)"
                    )
                if len(places) == 2 and self._config.layout is not None:
                    places = [self._config.layout]
                if places:
                    maps = answer.transpose(0, 2, 3, 1) if places == ["nchw"] else answer
                    # a map of one cell is an answer for the image
                    return maps[:, 0, 0] if maps.shape[1:3] == (1, 1) else maps
        named = ", ".join(self._class_names[:5]) + (", …" if count > 5 else "")
        raise TeacherError(
            f"teacher.{self._kind}: {self._name} answers {_answered(answer)}, expected {count} channels"
            f" ({named}), at the end or behind the batch. Name its classes in teacher.classes"
        )

    def _of_two(self, answer: FloatArray) -> FloatArray:
        """[..., 1] about the second of two classes, as logits [..., 2]."""
        if not self._probabilities:
            return np.concatenate([np.zeros_like(answer), answer], axis=-1)
        logits: FloatArray = np.log(np.maximum(np.concatenate([1 - answer, answer], axis=-1), _SMALLEST))
        return logits


_CHANNELS: dict[Layout, int] = {"nchw": 1, "nhwc": 3}


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def _answered(answer: npt.NDArray[Any]) -> str:
    return _text(["N", *answer.shape[1:]])
