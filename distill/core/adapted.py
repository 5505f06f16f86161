"""A teacher made to answer what is asked of it: in the classes of the data, tile by tile where it is told to."""

from __future__ import annotations

from collections.abc import Sequence

from distill.core.class_map import MappedTeacher
from distill.core.settings import TeacherSettings
from distill.core.tiled import Tiled
from distill.core.types import Predictor

__all__ = ["adapted"]


def adapted(teacher: Predictor, class_names: Sequence[str], settings: TeacherSettings) -> Predictor:
    """The teacher in the classes of the data, cut into tiles as its settings say; itself where neither is needed.

    Raises:
        TeacherError: its classes cannot become those of the data.
    """
    if teacher.class_names != tuple(class_names) or settings.class_map:
        teacher = MappedTeacher(teacher, class_names, settings.class_map, settings.unmapped)
    return teacher if settings.tiles == 1 else Tiled(teacher, settings.tiles, settings.tile_overlap)
