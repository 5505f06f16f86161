"""Several predictors averaged into one answer: all of them held, or one after another."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from distill.core.adapted import adapted
from distill.core.averaging import averaged
from distill.core.errors import UserError
from distill.core.files import digest_of
from distill.core.pixels import resized, side_at
from distill.core.settings import TeacherSettings
from distill.core.types import Batches, FloatArray, Images, Predictor, softmax

__all__ = ["Ensemble", "Member"]


@dataclass(frozen=True)
class Member:
    """One of several teachers.

    Args:
        settings: its section of the config; `class_map`, `unmapped` and `tiles` say how it answers.
        make: builds it; called again for each turn where one member is held at a time.
        weight: of its answer beside the others'; positive.
    """

    settings: TeacherSettings
    make: Callable[[], Predictor]
    weight: float


@final
class Ensemble(Predictor):
    """The weighted mean of its members' probabilities, as logarithms.

    Members may differ in size and classes, and in the grids of their maps: these are scaled to the largest.
    `predict_all` has the views rendered for each member at its own size; `predict` is given one size, the largest, and
    scales the pixels down for smaller members, as `render` does (bilinear, filtered). That is scaled twice, so the two
    answers differ a little.

    Args:
        members: at least one.
        class_names: of the data; every member's answer is turned into these before it is averaged.
        in_turn: hold one member at a time: it is built when its turn comes and let go of behind it, so that neither the
            accelerator nor the main memory holds two. Building costs what loading its weights costs, for each call of
            `predict_all` (a shard of the label store, or part of one) or `predict`.

    Raises:
        TeacherError: a member's classes are not those of the data.
    """

    def __init__(self, members: Sequence[Member], class_names: Sequence[str], *, in_turn: bool) -> None:
        self.members = tuple(members)
        total = sum(member.weight for member in members)
        self._weights = [member.weight / total for member in members]
        self._class_names = tuple(class_names)
        self._steps: list[Callable[[int, Predictor], None]] = []
        self._kept: list[Predictor] | None = None
        kept, sizes, any_size, passes = [], [], [], 0
        for number in range(len(self.members)):
            with _told_of(number):
                member = self._make(number)
                asked = self._asked(number, member)
            sizes.append(asked.image_size)
            any_size.append(asked.any_size)
            passes += asked.passes
            if in_turn:
                member.close()
            else:
                kept.append(member)
            del member, asked  # before the next is built
        self.sizes, self._any_size, self._passes = tuple(sizes), all(any_size), passes
        if not in_turn:
            self._kept = kept

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def image_size(self) -> int:
        return max(self.sizes)

    @property
    def any_size(self) -> bool:
        return self._any_size

    @property
    def passes(self) -> int:
        return self._passes

    @property
    def in_turn(self) -> bool:
        """Whether one member is held at a time."""
        return self._kept is None

    def predict(self, images: Images) -> FloatArray:
        scale = images.shape[1] / self.image_size
        return self._mean(lambda member: member.predict(resized(images, side_at(member.image_size, scale))))

    def predict_all(self, batches: Batches) -> FloatArray:
        return self._mean(lambda member: member.predict_all(batches))

    def digest(self) -> str:
        digests = []
        for number in range(len(self.members)):
            with self.turn(number) as member:
                digests.append(self._asked(number, member).digest())
            del member
        return digest_of({"members": digests, "weights": self._weights, "classes": self._class_names})

    def close(self) -> None:
        for member in self._kept or ():
            member.close()

    @contextmanager
    def turn(self, number: int) -> Iterator[Predictor]:
        """A member as it was built, in its own classes. Who asks lets go of it, or two are held where one should be."""
        with _told_of(number):
            if self._kept is not None:
                yield self._kept[number]
                return
            member = self._make(number)
            try:
                yield member
            finally:
                member.close()

    def when_built(self, step: Callable[[int, Predictor], None]) -> None:
        """Do something to each member by its number, such as loading weights: now, and whenever it is built again."""
        self._steps.append(step)
        for number, member in enumerate(self._kept or ()):
            with _told_of(number):
                step(number, member)

    def _make(self, number: int) -> Predictor:
        gc.collect()  # the parts of some models hold each other, so that letting go of one frees nothing by itself
        member = self.members[number].make()
        for step in self._steps:
            step(number, member)
        return member

    def _asked(self, number: int, member: Predictor) -> Predictor:
        return adapted(member, self._class_names, self.members[number].settings)

    def _mean(self, ask: Callable[[Predictor], FloatArray]) -> FloatArray:
        return averaged((weight, self._probabilities(number, ask)) for number, weight in enumerate(self._weights))

    def _probabilities(self, number: int, ask: Callable[[Predictor], FloatArray]) -> FloatArray:
        with self.turn(number) as member:
            return softmax(ask(self._asked(number, member)))


@contextmanager
def _told_of(number: int) -> Iterator[None]:
    """What a member says of `teacher.fit` is of `teacher.ensemble.0.fit`."""
    try:
        yield
    except UserError as error:
        said = str(error)
        if said.startswith(("teacher.", "teacher:")):
            error.args = (f"teacher.ensemble.{number}{said.removeprefix('teacher')}",)
        raise
