"""Turning a teacher's classes into those of the data: subset, merge, rename."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from distill.core.errors import TeacherError
from distill.core.files import digest_of
from distill.core.types import FloatArray, Images, Predictor, softmax

__all__ = ["ClassMap", "MappedTeacher"]


class ClassMap:
    """Turns the teacher's classes into those of the data.

    Args:
        teacher: names of the teacher's outputs.
        data: classes of the data.
        mapping: teacher class -> data class; empty where the names are the same.
        unmapped: `drop` or a data class.

    Raises:
        TeacherError: an unknown name on either side, or a class of the data that nothing maps to.
    """

    def __init__(self, teacher: Sequence[str], data: Sequence[str], mapping: Mapping[str, str], unmapped: str) -> None:
        if not mapping:
            if set(teacher) != set(data):
                raise TeacherError(
                    f"teacher: its classes ({_short(teacher)}) are not those of the data ({_short(data)}): give"
                    " teacher.class_map, or teacher.classes if only the names are unknown, or `fit: {}` to train a new"
                    " classifier"
                )
            mapping = {name: name for name in data}
        places: dict[str, list[int]] = {}
        for index, name in enumerate(teacher):
            for alias in {name, name.split(", ", 1)[0]}:  # ImageNet names list synonyms: "tabby, tabby cat"
                places.setdefault(alias, []).append(index)
        problems = [f"{name!r} is no class of the teacher" for name in mapping if name not in places]
        problems += [f"{name!r} is no class of the data" for name in sorted({*mapping.values()} - {*data})]
        problems += [
            f"{name!r} names several classes of the teacher" for name in mapping if len(places.get(name, [])) > 1
        ]
        named = Counter(places[name][0] for name in mapping if len(places.get(name, [])) == 1)
        problems += [f"{teacher[index]!r} is mapped twice" for index, count in named.items() if count > 1]
        if unmapped != "drop" and unmapped not in data:
            problems.append(f"unmapped: {unmapped!r} is neither `drop` nor a class of the data")
        reached = {*mapping.values(), unmapped}
        problems += [f"nothing maps to the class {name!r} of the data" for name in data if name not in reached]
        if problems:
            raise TeacherError("teacher.class_map:\n" + "\n".join(f"  {p}" for p in problems))
        self._matrix = np.zeros((len(teacher), len(data)), dtype=np.float32)
        for name, target in mapping.items():
            self._matrix[places[name][0], data.index(target)] = 1.0
        if unmapped != "drop":
            self._matrix[self._matrix.sum(axis=1) == 0, data.index(unmapped)] = 1.0
        self._used = self._matrix.any(axis=1)

    def as_lists(self) -> list[list[float]]:
        """One row a teacher class, one column a class of the data."""
        rows: list[list[float]] = self._matrix.tolist()
        return rows

    def __call__(self, logits: FloatArray) -> FloatArray:
        """Probabilities of the data's classes: float32 [..., C_teacher] logits to float32 [..., C_data], sums are 1."""
        # Softmax over the used classes alone is the same as scaling the rest to one, and cannot divide by zero.
        used = softmax(logits[..., self._used])
        mapped: FloatArray = used.reshape(-1, used.shape[-1]) @ self._matrix[self._used]  # one product, not one a row
        return mapped.reshape(*logits.shape[:-1], -1)


@final
class MappedTeacher(Predictor):
    """A teacher that answers in the classes of the data. Maps batch by batch: a teacher's own maps can be large."""

    def __init__(self, teacher: Predictor, data: Sequence[str], mapping: Mapping[str, str], unmapped: str) -> None:
        self._teacher, self._class_names = teacher, tuple(data)
        self._map = ClassMap(teacher.class_names, data, mapping, unmapped)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def image_size(self) -> int:
        return self._teacher.image_size

    @property
    def any_size(self) -> bool:
        return self._teacher.any_size

    def predict(self, images: Images) -> FloatArray:
        return np.log(np.maximum(self._map(self._teacher.predict(images)), 1e-12))

    def digest(self) -> str:
        return digest_of({"teacher": self._teacher.digest(), "classes": self._class_names, "map": self._map.as_lists()})

    def close(self) -> None:
        self._teacher.close()


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
