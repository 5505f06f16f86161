"""Annotations of COCO and LabelMe become masks, to the pixel; hostile ones become sentences."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycocotools

from distill.core.dense import IGNORED
from distill.core.errors import DataError
from distill.data.candidate import MaskError
from distill.data.coco import read_coco
from distill.data.drawing import Drawing, Shape, draw
from distill.data.labelme import read_labelme
from distill.data.manifest import Manifest

from .conftest import ReadMasks, SaveImage, refused, truth

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]
"""Corners of the pixels 1..3 across and 1..2 down."""

DRAWN = [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]

# Drawing


def area_of(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    """Half a pixel of difference would move the centre of gravity by 0.5, and the area by half the outline."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:50] + 0.5
    shifts, grown = [], []
    for _ in range(200):
        turns = np.sort(rng.uniform(0, 2 * np.pi, 5))
        if np.diff(turns, append=turns[0] + 2 * np.pi).max() > 3:  # the middle lies outside
            continue
        corners = rng.uniform(15, 25, 2) + rng.uniform(6, 14) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        drawing = Drawing(None, None, (Shape("road", (corners.ravel(),), ""),))
        inside = draw(drawing, 50, 40, {"road": 1}, 0) == 1
        area = area_of(corners)
        cross = (corners[:, 0] * np.roll(corners[:, 1], -1) - np.roll(corners[:, 0], -1) * corners[:, 1])[:, None]
        middle = abs((cross * (corners + np.roll(corners, -1, axis=0))).sum(axis=0)) / (6 * area)
        shifts.append(np.array([x[inside].mean(), y[inside].mean()]) - middle)
        grown.append(inside.sum() - area)
    assert len(shifts) > 50
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1
    assert abs(np.mean(grown)) < 1  # the outlines are about 60 pixels long


def test_later_shapes_lie_over_earlier_ones_and_ignored_ones_are_ignored() -> None:
    whole, part = np.array([0.0, 0, 6, 0, 6, 4, 0, 4]), np.array(SQUARE, np.float64)
    shapes = (Shape("a", (whole,), ""), Shape("b", (part,), ""), Shape(None, (part + 2,), ""))
    mask = draw(Drawing(None, None, shapes), 6, 4, {"a": 3, "b": 1}, 0)
    assert mask.tolist() == [
        [3, 3, 3, 3, 3, 3],
        [3, 1, 1, 1, 3, 3],
        [3, 1, 1, 1, 3, 3],
        [3, 3, 3, 255, 255, 255],
    ]
    assert draw(Drawing(None, None, ()), 2, 1, {}, IGNORED).tolist() == [[255, 255]]


@pytest.mark.parametrize("far", [1e4, 1e12, -1e300, 2**62])
def test_points_far_outside_are_refused_before_anything_is_drawn(far: float) -> None:
    shape = Shape("a", (np.array([0, 0, 5, far, 2, 2], np.float64),), "shapes[3]")
    with pytest.raises(MaskError, match=r"^shapes\[3\]: the point \(5, .*\) is far outside of an image of 6x4 pixels$"):
        draw(Drawing(None, None, (shape,)), 6, 4, {"a": 1}, 0)


# COCO

Coco = dict[str, Any]


def coco(**changes: Any) -> Coco:
    """One image with one square, and one without anything."""
    document: Coco = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 6, "height": 4},
            {"id": 8, "file_name": "b.png", "width": 6, "height": 4},
        ],
        "categories": [{"id": 1, "name": "road"}, {"id": 5, "name": "never"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "segmentation": [SQUARE]}],
    }
    return document | changes


def annotation(**changes: Any) -> Coco:
    found: Coco = {"image_id": 7, "category_id": 1, "segmentation": [SQUARE]}
    return coco(annotations=[{key: value for key, value in (found | changes).items() if value is not ...}])


@pytest.fixture
def read_both(tmp_path: Path, read_masks: ReadMasks, save_image: SaveImage) -> Callable[..., Manifest]:
    """Reads a document as annotations of training and validation images, which are not the same images."""

    def read(document: Coco | str, masks: dict[str, object] | None = None, **values: object) -> Manifest:
        for part in ("train", "val"):
            for name in ("a", "b"):
                save_image(tmp_path / part / "images" / f"{name}.png", len(part) * 10 + ord(name), (6, 4))
            text = document if isinstance(document, str) else json.dumps(document)
            (tmp_path / part / "annotations.json").write_text(text)
        return read_masks(masks, labeled=tmp_path / "train", validation=tmp_path / "val", **values)

    return read


def test_a_coco_file(read_both: Callable[..., Manifest]) -> None:
    manifest = read_both(coco())
    assert manifest.classes == ("background", "road")
    assert truth(manifest, "a") == DRAWN
    assert truth(manifest, "b") == [[0] * 6] * 4
    assert manifest.counts()["by_class"]["train"] == {"background": 2, "road": 1}


def test_the_background_may_have_another_name_or_be_ignored(read_both: Callable[..., Manifest]) -> None:
    assert read_both(coco(), {"background": "Nothing"}).classes == ("Nothing", "road")
    more = coco()
    more["annotations"].append({"image_id": 8, "category_id": 5, "segmentation": [SQUARE]})
    manifest = read_both(more, {"background": None})
    assert manifest.classes == ("never", "road")
    assert truth(manifest, "a") == [[255 if place == 0 else 1 for place in row] for row in DRAWN]


def test_the_order_of_classes_is_that_of_the_config(read_both: Callable[..., Manifest]) -> None:
    manifest = read_both(coco(), classes=["road", "sky", "background"])
    assert truth(manifest, "a")[1] == [2, 0, 0, 0, 2, 2]
    assert refused(lambda: read_both(coco(), classes=["sky", "background"])) == (
        "data.classes lacks road, found in annotations"
    )
    assert refused(lambda: read_both(coco(), classes=["sky", "road"])) == (
        "data.masks.background: data.classes lacks 'background'; expected the class of what no polygon covers, or null"
        " to ignore that"
    )


def test_runs_packed_and_plain_and_holes(read_both: Callable[..., Manifest]) -> None:
    inside = np.array(DRAWN, bool)
    inside[1, 2] = False
    packed = pycocotools.encode(np.asfortranarray(inside.astype(np.uint8)))["counts"].decode()
    flat = inside.T.ravel()
    plain = np.diff(np.flatnonzero(np.diff(flat, prepend=False)), prepend=0, append=flat.size).tolist()
    plain = [plain[0], *np.diff(np.flatnonzero(np.diff(flat.astype(int), prepend=0)), append=flat.size).tolist()]
    for counts in (packed, plain):
        manifest = read_both(annotation(segmentation={"size": [4, 6], "counts": counts}))
        assert truth(manifest, "a") == inside.astype(int).tolist()


def test_crowds_are_ignored_where_no_object_covers_them(read_both: Callable[..., Manifest]) -> None:
    document = coco()
    crowd = {"size": [4, 6], "counts": [0, 12, 12]}
    document["annotations"].append({"image_id": 7, "category_id": 1, "iscrowd": 1, "segmentation": crowd})
    assert truth(read_both(document), "a") == [
        [255, 255, 255, 0, 0, 0],
        [255, 1, 1, 1, 0, 0],
        [255, 1, 1, 1, 0, 0],
        [255, 255, 255, 0, 0, 0],
    ]


HOSTILE: list[tuple[Any, str]] = [
    ("not json at all", "is no JSON (Expecting value: line 1 column 1 (char 0))"),
    ("[" * 100_000, "is no JSON ("),
    (b"\xff\xfe\x00", "is no JSON ("),
    ([1, 2], "expected the lists images, annotations and categories, as COCO has them"),
    (coco(categories={}), "expected the lists images, annotations and categories, as COCO has them"),
    (coco(images=["a.png"]), 'images[0]: found "a.png", expected an object with the key file_name'),
    (coco(images=[{"id": 1}]), "images[0].file_name: found nothing, expected a file"),
    (coco(images=[{"id": 1, "file_name": 5}]), "images[0].file_name: found 5, expected a file"),
    (coco(images=[{"id": True, "file_name": "a.png"}]), "images[0].id: found true, expected an id"),
    (coco(images=[{"id": [1], "file_name": "a.png"}]), "images[0].id: found a list of 1, expected an id"),
    (coco(images=[{"id": 1, "file_name": "a.png", "width": -3}]), "images[0].width: found -3, expected a number of"),
    (coco(images=[{"id": 1, "file_name": "a.png", "width": "6"}]), 'images[0].width: found "6", expected a number of'),
    (coco(images=[*coco()["images"], coco()["images"][0]]), "images[2].file_name: 'a.png' is there twice"),
    (coco(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "categories[1].id: 1 is there twice"),
    (coco(categories=[{"id": 1, "name": "\ud800"}]), 'categories[0].name: found "\\ud800", which is no text'),
    (annotation(image_id=99), "annotations[0].image_id: found 99, which is the id of no image"),
    (annotation(category_id="1"), 'annotations[0].category_id: found "1", which is the id of no category'),
    (annotation(segmentation=...), "annotations[0].segmentation: found nothing, expected polygons or runs"),
    (annotation(segmentation=[]), "annotations[0].segmentation: found none; a box says nothing about pixels"),
    (
        annotation(segmentation=SQUARE),
        "annotations[0].segmentation[0]: found 1 numbers, expected x and y of at least 3",
    ),
    (annotation(segmentation=[[1, 2, 3, 4]]), "annotations[0].segmentation[0]: found 4 numbers, expected x and y of"),
    (annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotations[0].segmentation[0]: found 7 numbers, expected x"),
    (annotation(segmentation=[["1", "2"] * 3]), "annotations[0].segmentation[0]: found a list of 6, expected numbers"),
    (annotation(segmentation=[[None] * 6]), "annotations[0].segmentation[0]: found a list of 6, expected numbers"),
    (annotation(segmentation=[[[1], 2] * 3]), "annotations[0].segmentation[0]: found a list of 6, expected numbers"),
    (annotation(segmentation=[[math.inf] * 6]), "annotations[0].segmentation[0]: found a list of 6, expected numbers"),
    (annotation(segmentation=[[10**400] * 6]), "annotations[0].segmentation[0]: found a list of 6, expected numbers"),
    (
        annotation(segmentation={"size": [4], "counts": [24]}),
        "annotations[0].segmentation.size: found a list of 1, expected height and width",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": 24}),
        "annotations[0].segmentation.counts: found 24, expected numbers of pixels or text",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": [20, 5]}),
        "annotations[0].segmentation.counts: found runs of 25 pixels, expected lengths that add up to 24",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": [-1, 25]}),
        "annotations[0].segmentation.counts: found runs, expected lengths that add up to 24",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": [2**62, 2**62, 2**62, 2**62, 24]}),
        "annotations[0].segmentation.counts: found runs, expected lengths that add up to 24",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": "0ä"}),
        "annotations[0].segmentation.counts: found 'ä', which no run holds",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": "P"}),
        "annotations[0].segmentation.counts: ends within a run",
    ),
    (
        annotation(segmentation={"size": [4, 6], "counts": "o" * 9999}),
        "annotations[0].segmentation.counts: found 'o', which no run holds",
    ),
    *(
        (
            coco(images=[{"id": 7, "file_name": name}]),
            f"images[0].file_name: found {json.dumps(name)[:30]}",
        )
        for name in ("../a.png", "/etc/passwd", "x/../../a.png", "", ".", "a\0.png", "x" * 3000, "\ud800.png")
    ),
]


@pytest.mark.parametrize(("document", "sentence"), HOSTILE, ids=[sentence[:60] for _, sentence in HOSTILE])
def test_what_is_wrong_with_a_coco_file(tmp_path: Path, document: Any, sentence: str) -> None:
    path = tmp_path / "annotations.json"
    text = document if isinstance(document, (str, bytes)) else json.dumps(document)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    told = refused(lambda: read_coco(str(path)))
    assert told.startswith((f"{path}: {sentence}", f"{path} has 1 mistake:\n  {sentence}"))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools under NumPy 2
def test_damaged_runs_never_end_the_process(tmp_path: Path) -> None:
    """pycocotools itself writes beyond its memory on most of these."""
    rng, path, read = random.Random(0), tmp_path / "annotations.json", 0
    for _ in range(400):
        inside = np.array([rng.random() < 0.4 for _ in range(24)], np.uint8).reshape(4, 6)
        letters = list(pycocotools.encode(np.asfortranarray(inside))["counts"].decode())
        for _ in range(rng.randint(0, 3)):
            letters[rng.randrange(len(letters))] = chr(rng.randint(47, 112))
        counts = "".join(letters)
        path.write_text(json.dumps(annotation(segmentation={"size": [4, 6], "counts": counts})))
        try:
            (shape,) = read_coco(str(path))["a.png"].shapes
        except DataError:
            continue
        read += 1
        ours = draw(Drawing(6, 4, (shape,)), 6, 4, {"road": 1}, 0)
        np.testing.assert_array_equal(ours, pycocotools.decode({"size": [4, 6], "counts": counts}))
    assert 50 < read < 350


def test_packed_runs_are_those_of_pycocotools(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(1), tmp_path / "annotations.json"
    for _ in range(30):
        height, width = (int(n) for n in rng.integers(1, 60, 2))
        inside = np.kron(rng.random((height, width)) < rng.random(), np.ones((40, 3))).astype(np.uint8)
        counts = pycocotools.encode(np.asfortranarray(inside))["counts"].decode()
        path.write_text(json.dumps(annotation(segmentation={"size": list(inside.shape), "counts": counts})))
        drawing = read_coco(str(path))["a.png"]
        np.testing.assert_array_equal(draw(drawing, inside.shape[1], inside.shape[0], {"road": 1}, 0), inside)


def test_all_mistakes_of_a_list_at_once(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco(annotations=[{"image_id": 7}, *[{"image_id": n} for n in range(100, 140)]])))
    lines = refused(lambda: read_coco(str(path))).splitlines()
    assert lines[0] == f"{path} has 41 mistakes:"
    assert lines[1] == "  annotations[0].category_id: found nothing, expected an id"
    assert lines[2] == "  annotations[1].image_id: found 100, which is the id of no image"
    assert lines[-1] == "  and 21 more"


def test_a_size_that_is_not_that_of_the_image(tmp_path: Path, read_both: Callable[..., Manifest]) -> None:
    document = coco()
    document["images"][0]["width"] = 10**9
    told = refused(lambda: read_both(document))
    assert (
        f"{tmp_path}/train/annotations.json (a.png): found 1000000000x4 pixels, expected 6x4 like its image"
        f" {tmp_path}/train/images/a.png" in told
    )


def test_runs_for_another_size_than_that_of_the_image(read_both: Callable[..., Manifest]) -> None:
    told = refused(lambda: read_both(annotation(segmentation={"size": [6, 4], "counts": [24]})))
    assert "(a.png): annotations[0]: found runs for 4x6 pixels, expected 6x4 like the image" in told


# LabelMe


def labelme(*shapes: Any, **values: Any) -> Coco:
    return {"shapes": list(shapes), "imageWidth": 6, "imageHeight": 4, **values}


def shape(label: str, points: Any, kind: str | None = "polygon") -> Coco:
    return {"label": label, "points": points, **({"shape_type": kind} if kind else {})}


@pytest.fixture
def read_beside(tmp_path: Path, read_masks: ReadMasks, save_image: SaveImage) -> Callable[..., Manifest]:
    def read(*documents: Any) -> Manifest:
        """One for both, or one for the image of training and one for that of validation."""
        for part, document in zip(("train", "val"), documents * 2, strict=False):
            save_image(tmp_path / part / "a.png", len(part), (6, 4))
            (tmp_path / part / "a.json").write_text(document if isinstance(document, str) else json.dumps(document))
        return read_masks(labeled=tmp_path / "train", validation=tmp_path / "val")

    return read


PAIRS = [[1, 1], [4, 1], [4, 3], [1, 3]]


@pytest.mark.parametrize(
    "drawn",
    [
        shape("road", PAIRS),
        shape("road", PAIRS, None),
        shape("road", [[4, 3], [1, 1]], "rectangle"),
        shape("road", PAIRS, "rectangle"),
    ],
)
def test_shapes_of_labelme(read_beside: Callable[..., Manifest], drawn: Coco) -> None:
    manifest = read_beside(labelme(drawn))
    assert manifest.classes == ("background", "road")
    assert truth(manifest, "a") == DRAWN


def test_a_circle_is_round_and_of_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for radius in (3.0, 20.0, 90.0):
        path.write_text(
            json.dumps(labelme(shape("sun", [[100, 100], [100 + radius * 0.6, 100 + radius * 0.8]], "circle")))
        )
        inside = draw(read_labelme(str(path)), 200, 200, {"sun": 1}, 0) == 1
        y, x = np.mgrid[0:200, 0:200] + 0.5 - 100
        distance = np.hypot(x, y)
        assert inside[distance < radius - 0.6].all()
        assert not inside[distance > radius + 0.6].any()
        assert abs(inside.sum() - math.pi * radius**2) < 0.35 * radius + 2


def test_the_order_of_shapes_and_names_of_labelme_itself(read_beside: Callable[..., Manifest]) -> None:
    whole = [[0, 0], [6, 0], [6, 4], [0, 4]]
    document = labelme(
        shape("sky", whole), shape("road", PAIRS), shape("__ignore__", [[0, 0], [1, 1]], "rectangle"),
        shape("_background_", [[5, 3], [6, 4]], "rectangle"), imageWidth=None, imageHeight=None,
    )  # fmt: skip
    manifest = read_beside(document)
    assert manifest.classes == ("background", "road", "sky")
    assert truth(manifest, "a") == [
        [255, 2, 2, 2, 2, 2],
        [2, 1, 1, 1, 2, 2],
        [2, 1, 1, 1, 2, 2],
        [2, 2, 2, 2, 2, 0],
    ]


BAD_SHAPES: list[tuple[Any, str]] = [
    (labelme(imageWidth="6"), 'imageWidth: found "6", expected a number of pixels'),
    (labelme(imageWidth=7), "found 7x4 pixels, expected 6x4 like its image"),
    (labelme(5), "shapes[0]: found 5, expected an object with the key label"),
    (labelme(shape("", PAIRS)), "shapes[0].label: found no text, expected a class"),
    (labelme({"label": "a"}), "shapes[0].points: found nothing, expected points"),
    (labelme(shape("a", PAIRS[:2])), "shapes[0].points: found 4 numbers, expected x and y of at least 3 points"),
    (labelme(shape("a", [[1, 2, 3]] * 4)), "shapes[0].points: found 12 numbers, expected x and y of at least 3 points"),
    (labelme(shape("a", PAIRS, "line")), 'shapes[0].shape_type: found "line", expected polygon, rectangle or circle'),
    (labelme(shape("a", PAIRS, ["x"])), "shapes[0].shape_type: found a list of 1, expected polygon, rectangle or"),  # type: ignore[arg-type]
    (labelme(shape("a", PAIRS, "circle")), "shapes[0].points: found 4 points, expected 2 of a circle"),
    (
        labelme(shape("a", [[1, 1], [1e200, 1e200]], "circle")),
        "shapes[0].points: found a circle of radius 1.41421e+200",
    ),
    (labelme(shape("a", [[1, 1], ["x", 2]], "rectangle")), "shapes[0].points: found a list of 4, expected numbers"),
    (labelme(shape("a", [[1, 1], [2]], "rectangle")), "shapes[0].points: found a list of 4, expected numbers"),
    (labelme(shape("a", [1, 2], "rectangle")), "shapes[0].points: found 4 numbers, expected x and y of at least 3"),
    (labelme(shape("a", [[1, 1], [1e200, 1], [2, 2]])), "shapes[0]: the point (1e+200, 1) is far outside of an image"),
    (
        labelme(shape("a", PAIRS[:2]), shape("", PAIRS)),
        "shapes[0].points: found 4 numbers, expected x and y of at least 3 points; shapes[1].label: found no text,",
    ),
]


@pytest.mark.parametrize(("document", "sentence"), BAD_SHAPES, ids=[sentence[:60] for _, sentence in BAD_SHAPES])
def test_what_is_wrong_with_a_labelme_file(
    tmp_path: Path, read_beside: Callable[..., Manifest], document: Any, sentence: str
) -> None:
    told = refused(lambda: read_beside(document, labelme(shape("road", PAIRS))))
    assert told.startswith(f"1 mask cannot be used:\n  {tmp_path}/train/a.json: {sentence}")


def test_a_labelme_file_that_is_no_json(tmp_path: Path, read_beside: Callable[..., Manifest]) -> None:
    told = refused(lambda: read_beside("{"))
    assert told.startswith("2 masks cannot be used:")
    assert f"{tmp_path}/train/a.json: is no JSON (" in told


@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_shapes_are_turned_as_their_photo_is(tmp_path: Path, read_masks: ReadMasks, drawn_on: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.new("RGB", (6, 4), (len(part), 0, 0)).save(tmp_path / part / "a.png", exif=exif)
        document = labelme(shape("road", [[0, 0], [2, 1]], "rectangle"))
        if drawn_on == "upright":
            document = labelme(shape("road", [[3, 0], [4, 2]], "rectangle"), imageWidth=4, imageHeight=6)
        (tmp_path / part / "a.json").write_text(json.dumps(document))
    manifest = read_masks(labeled=tmp_path / "train", validation=tmp_path / "val")
    assert truth(manifest, "a") == [[0, 0, 0, 1], [0, 0, 0, 1], *[[0] * 4] * 4]
