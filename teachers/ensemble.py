"""Several teachers averaged into one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from distill.core import plugins
from distill.core.settings import TeacherSettings

if TYPE_CHECKING:
    from distill.core.ensemble import Ensemble
    from distill.core.types import Predictor

__all__ = ["TASKS", "Config", "build"]

TASKS: tuple[str, ...] = ("classification", "segmentation")


class Config(TeacherSettings):
    """Several teachers. What is said of classes, tiles and fitting is said of each member, the rest of the whole."""

    ensemble: list[SerializeAsAny[TeacherSettings]]
    """The members: at least two sections like `teacher`, each of any kind but this one, with its own `fit`, `classes`
    and `class_map`. A fitted member leaves its weights in `teacher/member-0/` and so on; each is fitted under a seed of
    its own, so that equal members learn different things."""
    weights: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    """How much each member's probabilities count, in the order of the members; scaled to sum to one. Default: all the
    same."""
    memory: Literal["together", "in_turn"] = "together"
    """together: all members stay loaded. in_turn: one at a time answers all views of a shard (4,096; of pixels 16 to 32
    images), and is then let go of and loaded anew for the next: neither the GPU nor the main memory holds two. The
    answers are the same; members that are Python callables stay, since Python does not unload modules."""

    @field_validator("ensemble")
    @classmethod
    def _several(cls, members: list[TeacherSettings]) -> list[TeacherSettings]:
        if len(members) < 2:
            raise ValueError(f"found {len(members)} teacher{'s' * (len(members) != 1)}, expected at least 2")
        return members

    @field_validator("weights")
    @classmethod
    def _one_a_member(cls, weights: list[float] | None, info: ValidationInfo) -> list[float] | None:
        members = info.data.get("ensemble")
        if weights is not None and members is not None and len(weights) != len(members):
            raise ValueError(f"found {len(weights)} for {len(members)} teachers, expected one for each")
        return weights

    @field_validator("fit", "classes", "class_map", "unmapped", "tiles", "tile_overlap", mode="before")
    @classmethod
    def _of_members(cls, value: Any, info: ValidationInfo) -> Any:
        if value != cls.model_fields[str(info.field_name)].default:
            raise ValueError(f"is said of each teacher: put `{info.field_name}` into the members of `ensemble`")
        return value


def build(config: Config, class_names: Sequence[str]) -> Ensemble:
    """Build the members, each from a seed of its own.

    Args:
        config: the section `teacher`.
        class_names: classes of the data; the ensemble answers in these.

    Raises:
        UserError: a member cannot be built; the text names it.
        TeacherError: a member's classes are not those of the data.
    """
    import torch

    from distill.core.ensemble import Ensemble, Member

    seed = torch.initial_seed()

    def maker(number: int, member: TeacherSettings) -> Callable[[], Predictor]:
        def make() -> Predictor:
            torch.manual_seed(seed + number)  # random weights are the same whenever the member is built
            predictor: Predictor = plugins.build(member, class_names)
            return predictor

        return make

    weights = config.weights or [1.0] * len(config.ensemble)
    members = [
        Member(member, maker(number, member), weight)
        for number, (member, weight) in enumerate(zip(config.ensemble, weights, strict=True))
    ]
    return Ensemble(members, class_names, in_turn=config.memory == "in_turn")
