"""Which images are shown with their masks, and what is drawn of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.overlay import class_colors
from distill.core.types import ImageRecord
from distill.data.mask_file import png_of_mask
from distill.report import masks
from distill.report.extras import short
from distill.report.masks import WRONG_COLOR, draw_masks, image_scores, ranked
from distill.tasks._mask_answers import MaskAnswers, look

from .conftest import THINGS, answered, photographed


def drawn(records: list[ImageRecord], said: dict[str, MaskAnswers], resize: str = "squash") -> tuple[dict, dict]:
    pictures: dict[str, bytes] = {}
    return draw_masks(records, THINGS, said, resize, 100, pictures), pictures


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("count", "groups"),
    [
        (0, {}),
        (1, {"best": [0]}),
        (2, {"best": [0], "worst": [1]}),
        (3, {"best": [0], "median": [1], "worst": [2]}),
        (7, {"best": [0, 1], "median": [2, 3], "worst": [5, 6]}),
        (101, {"best": [0, 1, 2], "median": [49, 50, 51], "worst": [98, 99, 100]}),
    ],
)
def test_best_median_and_worst_without_showing_one_twice(count: int, groups: dict[str, list[int]]) -> None:
    found: dict[str, list[int]] = {}
    for group, place in ranked(np.linspace(0.9, 0.1, count)):
        found.setdefault(group, []).append(place)
    assert found == groups


def test_an_image_without_a_judged_pixel_is_not_ranked() -> None:
    assert sorted(place for _, place in ranked(np.array([0.5, np.nan, 0.7]))) == [0, 2]


def test_score_of_an_image_is_the_mean_over_classes_that_it_or_its_answer_has() -> None:
    one = [[6, 2, 0], [0, 4, 0], [0, 0, 0]]  # IoU 6/8 and 4/6; the third class is nowhere
    assert image_scores(np.array([one, np.zeros((3, 3), int)])) == pytest.approx(
        [(6 / 8 + 4 / 6) / 2, np.nan], nan_ok=True
    )


def test_each_image_has_truth_answers_and_errors_of_the_last(tmp_path: Path) -> None:
    records = photographed(tmp_path)
    found, pictures = drawn(records, {"student": answered(records, 1), "tflite-int8": answered(records, 2)})
    assert found["judged"] == "tflite-int8"
    assert [image["group"] for image in found["images"]] == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    assert found["images"][0]["path"] == short(records[0].path)  # moved by nothing
    titles = ["photo and truth", "student", "tflite-int8", "errors of tflite-int8"]
    assert all([panel["title"] for panel in image["panels"]] == titles for image in found["images"])
    assert found["images"][0]["panels"][1]["score"] == 1.0
    assert all(image["panels"][0]["score"] is image["panels"][3]["score"] is None for image in found["images"])
    assert found["classes"] == [0, 1, 2, 3]
    assert found["untinted"] == 0
    differ = [image for pair in found["disagreements"]["pairs"] for image in pair["images"]]
    assert set(pictures) == {panel["picture"] for image in found["images"] + differ for panel in image["panels"]}


def test_pixels_are_counted_by_who_has_them_right(tmp_path: Path) -> None:
    records = photographed(tmp_path, 4)
    said = {name: answered(records, shift) for shift, name in enumerate(("teacher", "student", "tflite-int8"))}
    found = drawn(records, said)[0]["disagreements"]
    assert found["predictors"] == list(said) and found["compared"] == 4
    pixels = {tuple(line["right"]): line["pixels"] for line in found["counts"]}
    judged = sum(int(np.asarray(answers.counts).sum()) for answers in said.values()) / 3
    assert sum(pixels.values()) == judged  # ignored ones are not counted
    for name, answers in said.items():
        right = sum(count for names, count in pixels.items() if name in names)
        assert right == np.trace(answers.counts.sum(axis=0))
    assert () not in pixels  # the teacher is always right


def test_images_in_which_two_differ_most_come_first(tmp_path: Path) -> None:
    records = photographed(tmp_path, 5)  # each is moved by one pixel more than the one before
    said = {name: answered(records, shift) for shift, name in enumerate(("teacher", "student"))}
    found, pictures = drawn(records, said)
    (pair,) = found["disagreements"]["pairs"]
    assert pair["names"] == ["teacher", "student"]
    shares = [
        float((said["teacher"].mask(place) != said["student"].mask(place)).mean()) for place in range(len(records))
    ]
    worst = sorted(range(5), key=lambda place: -shares[place])[:3]
    assert [image["path"] for image in pair["images"]] == [short(records[place].path) for place in worst]
    assert [image["share"] for image in pair["images"]] == [shares[place] for place in worst]
    assert pair["share"] == pytest.approx(np.mean(shares))  # all are of one size
    red = pixels(pictures[pair["images"][0]["panels"][-1]["picture"]])
    marked = (abs(red - np.array(WRONG_COLOR)).max(axis=2) < 40).mean()
    assert marked == pytest.approx(max(shares), abs=0.05)


def test_predictors_that_say_the_same_have_no_images(tmp_path: Path) -> None:
    records = photographed(tmp_path, 3)
    said = dict.fromkeys(("student", "tflite-int8"), answered(records, 1))
    (pair,) = drawn(records, said)[0]["disagreements"]["pairs"]
    assert pair["share"] == 0 and pair["images"] == []
    assert drawn(records, {"student": answered(records, 1)})[0]["disagreements"] is None


def test_nothing_is_compared_where_no_truth_is_left(tmp_path: Path) -> None:
    records = photographed(tmp_path, 2)
    said = {name: answered(records, shift) for shift, name in enumerate(("teacher", "student"))}
    for record in records:
        Path(str(record.mask)).unlink()
    assert drawn(records, said)[0]["disagreements"] is None


def test_of_many_images_some_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "COMPARED", 3)
    records = photographed(tmp_path, 7)
    said = {name: answered(records, shift) for shift, name in enumerate(("teacher", "student"))}
    Path(str(records[3].mask)).unlink()
    found = drawn(records, said)[0]["disagreements"]
    assert found["compared"] == 2  # of the first, the fourth, which is gone, and the seventh


def flat(folder: Path, width: int, height: int, mask: np.ndarray) -> ImageRecord:
    """A grey image of one value."""
    Image.new("RGB", (width, height), (120, 120, 120)).save(folder / "grey.png")
    (folder / "mask.png").write_bytes(png_of_mask(mask))
    return ImageRecord("0" * 64, str(folder / "grey.png"), width, height, "test", None, mask=str(folder / "mask.png"))


def test_colours_lie_where_the_classes_are_and_red_where_the_answer_is_wrong(tmp_path: Path) -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 1  # right half
    truth[:10] = 255
    said = np.zeros_like(truth)
    said[30:, 30:] = 2  # wrong everywhere but in the left half
    record = flat(tmp_path, 60, 40, truth)
    answers = MaskAnswers.of([record.id], [look(np.eye(4, dtype=np.float32)[said], truth)])
    found, pictures = drawn([record], {"student": answers})
    shown = {panel["title"]: pixels(pictures[panel["picture"]]) for panel in found["images"][0]["panels"]}
    assert [picture.shape for picture in shown.values()] == [(40, 60, 3)] * 3
    answer, errors = shown["student"], shown["errors of student"]
    assert answer[20, 15] == pytest.approx([120] * 3, abs=6)  # background is left clear
    assert answer[36, 45] == pytest.approx((class_colors(3)[2].astype(int) + 120) / 2, abs=6)
    assert errors[20, 15] == pytest.approx([100] * 3, abs=6)
    assert errors[36, 45] == pytest.approx(WRONG_COLOR, abs=6)
    assert errors[20, 45] == pytest.approx(WRONG_COLOR, abs=6)  # missed is as wrong as made up
    assert errors[4, 45] != pytest.approx(WRONG_COLOR, abs=60)  # ignored
    assert errors[4, 45] == pytest.approx(errors[4, 15], abs=6)


@pytest.mark.parametrize(("resize", "size"), [("squash", (200, 100)), ("center_crop", (200, 200))])
def test_large_images_are_scaled_down_as_the_fixed_view_shows_them(
    tmp_path: Path, resize: str, size: tuple[int, int]
) -> None:
    width, height = 900, 450
    view = np.s_[:, 225:675] if resize == "center_crop" else np.s_[:, :]
    truth = np.zeros((height, width), np.uint8)
    truth[200:250, 425:475] = 3  # in the middle
    record = flat(tmp_path, width, height, truth)
    answers = MaskAnswers.of([record.id], [look(np.eye(4, dtype=np.float32)[truth[view]], truth[view])])
    found, pictures = drawn([record], {"student": answers}, resize)
    assert found["images"][0]["panels"][1]["score"] == 1.0
    for panel in found["images"][0]["panels"]:
        shown = pixels(pictures[panel["picture"]])
        assert shown.shape[1::-1] == size
        assert (abs(shown - np.array(WRONG_COLOR)).max(axis=2) > 20).all()


def test_an_image_or_mask_that_is_gone_is_left_out(tmp_path: Path) -> None:
    records = photographed(tmp_path, 4)
    answers = answered(records, 1)
    Path(records[0].path).unlink()
    Path(str(records[3].mask)).write_bytes(b"no PNG")
    found, _ = drawn(records, {"student": answers})
    assert {image["path"] for image in found["images"]} <= {short(records[1].path), short(records[2].path)}
    assert found["images"]
