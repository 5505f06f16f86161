"""From the teacher's classes to those of the data: subset, merge, rename."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import pytest

from distill.core.class_map import ClassMap, MappedTeacher
from distill.core.errors import TeacherError
from distill.core.settings import TeacherSettings
from distill.core.types import FloatArray, Images, Predictor

TEACHER = ["tabby, tabby cat", "tiger cat", "beagle", "pug", "crane", "crane", "toaster"]
PROBABILITIES = [0.2, 0.1, 0.3, 0.1, 0.05, 0.05, 0.2]
LOGITS = np.log(np.array([PROBABILITIES], dtype=np.float32)) + 3


def mapped(mapping: Mapping[str, str], data: list[str], unmapped: str = "drop") -> list[float]:
    found = ClassMap(TEACHER, data, mapping, unmapped)(LOGITS)
    assert found.dtype == np.float32
    assert found.shape == (1, len(data))
    assert found.sum() == pytest.approx(1, abs=1e-6)
    return [float(value) for value in found[0]]


def test_the_same_names_in_another_order() -> None:
    probabilities = ClassMap(["a", "b", "c"], ["c", "a", "b"], {}, "drop")(np.log(np.array([[1, 2, 5]], np.float32)))
    np.testing.assert_allclose(probabilities, [[0.625, 0.125, 0.25]], rtol=1e-6)


def test_merge_and_rename_drop_the_rest_and_scale() -> None:
    mapping = {"tabby, tabby cat": "cat", "tiger cat": "cat", "beagle": "dog", "pug": "dog"}
    assert mapped(mapping, ["cat", "dog"]) == pytest.approx([0.3 / 0.7, 0.4 / 0.7], rel=1e-6)


def test_a_subset() -> None:
    assert mapped({"beagle": "beagle", "pug": "pug"}, ["pug", "beagle"]) == pytest.approx([0.25, 0.75], rel=1e-6)


def test_the_first_of_several_synonyms_is_enough() -> None:
    assert mapped({"tabby": "cat", "pug": "dog"}, ["cat", "dog"]) == pytest.approx([2 / 3, 1 / 3], rel=1e-6)


def test_the_rest_can_go_to_a_class() -> None:
    mapping = {"tabby": "cat", "beagle": "dog"}
    assert mapped(mapping, ["cat", "dog", "other"], "other") == pytest.approx([0.2, 0.3, 0.5], rel=1e-6)
    assert mapped(mapping, ["cat", "dog"], "dog") == pytest.approx([0.2, 0.8], rel=1e-6)


def test_a_rest_that_takes_nearly_all_leaves_probabilities() -> None:
    """What a teacher is sure of can lie outside the map: the rest of its answer still says which class is likelier."""
    logits = np.array([[0, 1, 400]], dtype=np.float32)
    found = ClassMap(["cat", "dog", "toaster"], ["cat", "dog"], {"cat": "cat", "dog": "dog"}, "drop")(logits)
    np.testing.assert_allclose(found, [[0.26894143, 0.7310586]], rtol=1e-6)


def test_every_cell_of_a_map_is_turned() -> None:
    cells = np.random.default_rng(0).normal(size=(2, 3, 4, len(TEACHER))).astype(np.float32)
    turn = ClassMap(TEACHER, ["cat", "dog", "rest"], {"tabby": "cat", "beagle": "dog"}, "rest")
    found = turn(cells)
    assert found.shape == (2, 3, 4, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[1, 2, 3], turn(cells[1:, 2, 3])[0], rtol=1e-6)
    np.testing.assert_allclose(found[0, 0, 0], turn(cells[:1, 0, 0])[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("known", "count", "mapping", "rest"),
    [
        ("voc", 21, {"person": "person", "background": "background"}, "background"),
        ("cityscapes", 19, {"road": "person"}, "background"),
    ],
)
def test_known_sets_are_mapped_by_name(known: str, count: int, mapping: dict[str, str], rest: str) -> None:
    names = TeacherSettings.model_validate({"classes": known}).classes
    assert names is not None and len(names) == len(set(names)) == count
    turn = ClassMap(names, ["background", "person"], mapping, rest)
    first = next(iter(mapping))
    sure = np.full((1, count), -20, np.float32)
    sure[0, names.index(first)] = 0
    np.testing.assert_allclose(turn(sure), [[0, 1]], atol=1e-6)
    np.testing.assert_allclose(turn(np.roll(sure, 1)), [[1, 0]], atol=1e-6)


def test_an_unknown_set() -> None:
    with pytest.raises(ValueError, match="found 'vok', expected a list of names, or 'voc' or 'cityscapes'"):
        TeacherSettings.model_validate({"classes": "vok"})


ERRORS = [
    ({"tabby": "cat", "beagel": "dog"}, ["cat", "dog"], "drop", ["'beagel' is no class of the teacher"]),
    ({"tabby": "cat", "beagle": "dgo"}, ["cat"], "drop", ["'dgo' is no class of the data"]),
    ({"crane": "cat", "pug": "dog"}, ["cat", "dog"], "drop", ["'crane' names several classes of the teacher"]),
    (
        {"tabby": "cat", "tabby, tabby cat": "dog"},
        ["cat", "dog"],
        "drop",
        ["'tabby, tabby cat' is mapped twice"],
    ),
    ({"tabby": "cat"}, ["cat", "dog"], "drop", ["nothing maps to the class 'dog' of the data"]),
    (
        {"tabby": "cat", "pug": "dog"},
        ["cat", "dog"],
        "othr",
        ["unmapped: 'othr' is neither `drop` nor a class of the data"],
    ),
    (
        {"tabbi": "cat", "beagle": "hound", "crane": "bird"},
        ["cat", "dog", "bird"],
        "rest",
        [
            "'tabbi' is no class of the teacher",
            "'hound' is no class of the data",
            "'crane' names several classes of the teacher",
            "unmapped: 'rest' is neither `drop` nor a class of the data",
            "nothing maps to the class 'dog' of the data",
        ],
    ),
]


@pytest.mark.parametrize(("mapping", "data", "unmapped", "problems"), ERRORS, ids=[e[3][0] for e in ERRORS])
def test_all_mistakes_of_a_map(mapping: dict[str, str], data: list[str], unmapped: str, problems: list[str]) -> None:
    with pytest.raises(TeacherError) as caught:
        ClassMap(TEACHER, data, mapping, unmapped)
    assert str(caught.value).splitlines() == ["teacher.class_map:", *(f"  {problem}" for problem in problems)]


def test_other_classes_and_no_map() -> None:
    with pytest.raises(TeacherError) as caught:
        ClassMap([f"n{i}" for i in range(1000)], ["cat", "dog"], {}, "drop")
    assert str(caught.value) == (
        "teacher: its classes (n0, n1, n2, n3, n4 and 995 more) are not those of the data (cat, dog): give"
        " teacher.class_map, or teacher.classes if only the names are unknown, or `fit: {}` to train a new classifier"
    )


@final
class Fixed(Predictor):
    """Says the same of every image."""

    closed = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(TEACHER)

    @property
    def image_size(self) -> int:
        return 48

    def predict(self, images: Images) -> FloatArray:
        return np.repeat(LOGITS, len(images), axis=0)

    def digest(self) -> str:
        return "fixed"

    def close(self) -> None:
        self.closed = True


def test_a_mapped_teacher_is_a_predictor_in_the_classes_of_the_data() -> None:
    inner = Fixed()
    teacher = MappedTeacher(inner, ["cat", "dog"], {"tabby": "cat", "pug": "dog"}, "drop")
    other = MappedTeacher(inner, ["cat", "dog"], {"tabby": "dog", "pug": "cat"}, "drop")
    assert len({teacher.digest(), other.digest(), inner.digest()}) == 3
    assert teacher.class_names == ("cat", "dog")
    assert teacher.image_size == 48
    logits = teacher.predict(np.zeros((3, 48, 48, 3), dtype=np.uint8))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(np.exp(logits), [[2 / 3, 1 / 3]] * 3, rtol=1e-6)
    teacher.close()
    assert inner.closed


def test_a_sure_teacher_gives_finite_logits() -> None:
    class Sure(Fixed):  # type: ignore[misc]
        def predict(self, images: Images) -> FloatArray:
            return np.array([[1e4, 0, 0, 0, 0, 0, 0]], dtype=np.float32)

    teacher = MappedTeacher(Sure(), ["cat", "dog"], {"tabby": "cat", "pug": "dog"}, "drop")
    logits = teacher.predict(np.zeros((1, 48, 48, 3), dtype=np.uint8))
    assert np.isfinite(logits).all()
    assert logits.argmax() == 0
