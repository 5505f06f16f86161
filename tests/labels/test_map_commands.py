"""`distill labels stat|verify|show|export` where pixels are answered, through the command line."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from distill.cli import app
from distill.config_file import load_config, save_config
from distill.core.dense import IGNORED
from distill.core.files import sha256_of
from distill.core.overlay import IGNORED_COLOR, class_colors
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data.batches import ImageCache
from distill.data.candidate import candidate
from distill.data.manifest import Entry, Manifest
from distill.labels import map_sheet, maps
from distill.labels.map_label import MapLabelling
from distill.labels.map_stat import LabelledMaps, open_maps
from distill.labels.map_verify import VerifiedMaps
from distill.labels.shards import shard_path
from distill.tasks.segmentation import MaskAnswers
from distill.teaching import as_labeller, build_teacher, choose_precision

CLASSES = ("background", "red", "blue")
WIDTH, HEIGHT = 24, 16
IMAGES = 20

TEACHER = """\
import numpy as np

def answer(images):
    cells = images.astype(np.float32).reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4)) / STRENGTH
    grey = np.full(cells.shape[:3], 128 / STRENGTH, np.float32)
    return np.stack([grey, cells[..., 0], cells[..., 2]], axis=-1)
"""

CONFIG = """\
task: segmentation
data: {unlabeled: photos, labeled: photos, validation: 0.2}
teacher: {python: "pixels_of_colours:answer", image_size: 16, batch_size: 3}
student: {smp: lraspp, encoder: mobilenetv4_conv_small, pretrained: false}
labels: {grid: 8}
"""

Distill = Callable[..., str]


def truth_of(number: int) -> npt.NDArray[np.uint8]:
    """Red from the left, blue from the right, each 0 to 8 pixels wide."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : number % 5 * 2], mask[:, WIDTH - number % 4 * 2 :] = 1, 2
    mask[0] = IGNORED
    return mask


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Progress) -> Run:
    """A run whose stage `labels` is finished: 8 images with hidden masks, 4 with known ones, 8 with none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "pixels_of_colours", raising=False)
    monkeypatch.setattr(maps, "IMAGES_A_SHARD", 8)
    (tmp_path / "pixels_of_colours.py").write_text(TEACHER.replace("STRENGTH", "20"))
    (tmp_path / "teacher.yaml").write_text(CONFIG)
    (tmp_path / "photos").mkdir()
    run = Run.create(tmp_path / "runs/teacher")
    (run.folder("data") / "masks").mkdir(parents=True)
    entries = []
    for number in range(IMAGES):
        truth = truth_of(number)
        pixels = np.array([[128, 128, 128], [255, 30, 30], [30, 30, 255]], np.uint8)[np.where(truth < 3, truth, 0)]
        path = tmp_path / "photos" / f"{'=' if number == 0 else ''}{number:02d}.png"
        noise = np.random.default_rng(number).integers(0, 25, pixels.shape, dtype=np.uint8)
        Image.fromarray(np.maximum(pixels, noise)).save(path)
        Image.fromarray(truth).save(run.folder("data") / "masks" / f"{number}.png")
        found = candidate(str(path), "labeled", hidden=number < 8)
        mask = str(number) if number < 12 else ""
        entries.append(Entry(found, sha256_of(path), WIDTH, HEIGHT, "train", "", mask=mask, pixels=(1, 1, 1)))
    entries.append(Entry(candidate(str(tmp_path / "x.png"), "labeled"), "", 0, 0, None, "cannot be read (no file)"))
    manifest = Manifest(entries, CLASSES, run.folder("data") / "masks")
    manifest.save(run.folder("data") / "manifest.parquet")
    run.finish("data", "same", 0, {})
    config, folder, cache = load_config(tmp_path / "teacher.yaml"), run.folder("labels"), ImageCache(100)
    save_config(config, run.root / "config.yaml")
    teacher = build_teacher(config, CLASSES)
    labeller = as_labeller(teacher, CLASSES, config.teacher)
    records = manifest.of("train")
    MapLabelling(
        labeller,
        records,
        folder,
        config.labels,
        cache=cache,
        batch_size=config.teacher.batch_size,
        fingerprint="same",
        facts={
            "teacher": {"name": "colours", "digest": labeller.digest(), "image_size": labeller.image_size},
            "class_map": {},
            "precision": choose_precision(teacher, config.teacher, records, cache, folder),
        },
    ).label(progress)
    return run


@pytest.fixture
def distill(run: Run) -> Distill:
    """Runs a command on the run as a user would, in this process."""

    def told(*arguments: str, expect: int = 0) -> str:
        result = CliRunner().invoke(app, ["labels", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == expect, result.output
        return result.output

    return told


def confidences(labelled: LabelledMaps) -> npt.NDArray[np.float64]:
    return np.stack([labelled.store.hard(place)[1] for place in range(IMAGES)]) / 255


def test_stat_counts_what_is_there(run: Run, distill: Distill) -> None:
    document = json.loads(distill("stat", "--json"))
    labelled = open_maps(run)
    store = labelled.store
    assert (document["images"], document["grid"], document["classes_a_cell"]) == (IMAGES, 8, 2)
    assert document["bytes"] == sum(shard_path(store.folder, n).stat().st_size for n in range(3))
    assert document["bytes_an_image"] == document["bytes"] / IMAGES
    parts = [document[f"{name}_bytes_an_image"] for name in ("soft", "mask", "confidence")]
    assert 0 < sum(parts) < document["bytes_an_image"]
    masks, sure = np.stack([store.hard(place)[0] for place in range(IMAGES)]), confidences(labelled)
    for place, row in enumerate(document["pseudo_labels"]):
        assert row["class"] == CLASSES[place]
        assert row["share"] == pytest.approx((masks == place).mean())
        assert row["images"] == (masks == place).any(axis=(1, 2)).sum()
    assert document["mean_confidence"] == pytest.approx(sure.mean())
    assert document["under"] == {f"{least:g}": pytest.approx((sure < least).mean()) for least in (0.5, 0.8, 0.95)}
    assert document["left_out_by_guard"] == {"cannot be read": 1}
    assert document["validation"] is None


def test_stat_compares_with_known_and_hidden_masks(run: Run, distill: Distill) -> None:
    document = json.loads(distill("stat", "--json"))
    labelled = open_maps(run)
    for key, numbers in (("hidden", range(8)), ("known", range(8, 12))):
        pairs = []
        for number in numbers:
            path = next((run.root.parents[1] / "photos").glob(f"*{number:02d}.png"))
            said, _ = labelled.store.hard(labelled.store.position(sha256_of(path)))
            pairs.append((truth_of(number)[1:], said[1:]))  # the first row is ignored
        truth, said = (np.stack(each) for each in zip(*pairs, strict=True))
        assert document[key]["images"] == len(numbers)
        assert document[key]["pixel_accuracy"]["value"] == pytest.approx((truth == said).mean())
        iou = [((truth == c) & (said == c)).sum() / ((truth == c) | (said == c)).sum() for c in range(3)]
        assert list(document[key]["iou"].values()) == pytest.approx(iou)
        assert document[key]["miou"]["value"] == pytest.approx(np.mean(iou))
        assert document[key]["miou"]["low"] <= document[key]["miou"]["value"] <= document[key]["miou"]["high"]
        assert 0.6 < document[key]["miou"]["value"] < 1


def test_stat_for_people(run: Run, distill: Distill) -> None:
    answers = MaskAnswers(
        ("a",),
        np.zeros((1, 3, 3), np.int64),
        np.zeros((1, 3, 4), np.int64),
        np.zeros(1),
        np.zeros((1, 2, 32), np.int64),
        (b"",),
    )
    answers.confidence[0, :, 16] = [300, 100]
    answers.confidence[0, :, 31] = [10, 590]
    answers.save(run.folder("teacher") / "predictions" / "validation.parquet")
    _change(run, "trust", {"min_confidence": 0.9})
    told = distill("stat")
    size = json.loads(distill("stat", "--json"))["bytes_an_image"]
    assert f"bytes an image: {size:.0f}: soft " in told
    assert "soft maps of 8x8 cells, classes kept in a cell: 2" in told
    assert " under 0.8, " in told and " under 0.9, " in told and " under 0.95" in told
    assert "against 8 hidden masks: " in told and "against 4 masks of training: " in told and "mIoU" in told
    assert "left out: 1 x cannot be read" in told
    lines = [line.split() for line in told.splitlines()]
    assert ["0.500", "69.0", "%", "100.0", "%"] in lines
    assert ["0.969", "98.3", "%", "60.0", "%"] in lines
    _change(run, "trust", {"keep": "precision", "precision": 0.95})
    assert set(json.loads(distill("stat", "--json"))["under"]) == {"0.5", "0.8", "0.95", "0.96875"}


def test_verify_finds_the_very_answers(run: Run, distill: Distill) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder("labels").iterdir()}
    told = distill("verify", "--sample", "7")
    assert "3 shards read, all checksums match" in told
    assert "images asked again in 3 batches of 3, cut as when labelled" in told
    assert "100.0000 % of " in told
    assert "all differences are rounding of what is stored" in told
    assert {path: path.stat().st_mtime_ns for path in run.folder("labels").iterdir()} == before
    assert "20 images asked again in 8 batches of 3" in distill("verify")  # of shards of 8, 8 and 4


def test_verify_refuses_another_teacher(run: Run, distill: Distill) -> None:
    (run.root.parents[1] / "pixels_of_colours.py").write_text(TEACHER.replace("STRENGTH", "21"))
    told = distill("verify", expect=2)
    assert "the teacher is not the one that filled the store" in told


def test_verify_refuses_other_answers(run: Run, distill: Distill) -> None:
    """Such as those of a teacher whose weights lie where its digest does not look."""
    other = TEACHER.replace("STRENGTH", "23")
    sys.modules["pixels_of_colours"].__dict__["answer"] = _function(other)
    told = distill("verify", expect=2)
    assert "the teacher now answers differently." in told and "run the same command again to label anew" in told


def test_verify_names_the_damaged_shard_and_the_changed_photo(run: Run, distill: Distill) -> None:
    photo = run.root.parents[1] / "photos" / "07.png"
    content = photo.read_bytes()
    Image.new("RGB", (WIDTH, HEIGHT)).save(photo)
    assert "07.png changed or vanished since it was labelled" in " ".join(distill("verify", expect=2).split())
    photo.write_bytes(content)
    path = shard_path(run.folder("labels"), 1)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert "shard-00001.arrow is damaged (its checksum does not match)" in "".join(
        distill("verify", expect=2).splitlines()
    )


@pytest.mark.parametrize(("largest", "said"), [(0.003, "all differences are rounding"), (0.009, "7 differ by more")])
def test_what_verify_says_of_differences(largest: float, said: str) -> None:
    found = VerifiedMaps(1, 10, 1, 32, 0, "float32", 30, 7 if largest > 0.004 else 0, largest, 1000, 999)
    told = list(found.describe())
    assert said in told[-1]
    assert "99.9000 % of 1000 mask pixels are equal (1 are not)" in told


def test_show_draws_a_sheet(run: Run, distill: Distill, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert distill("show", "--out", str(path), "--count", "2", "--class", "red").strip() == str(path)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    side = map_sheet._SIDE
    assert sheet.shape[1] == 2 * (2 * side + map_sheet._SEAM + 12) + 12  # two photos of 240 x 160 beside their masks
    crimson = np.abs(sheet - class_colors(2)[1]).sum(axis=2) < 30
    assert crimson[:24].any(), "in the legend"
    assert crimson[24:].any(), "outlines have the full colour"
    again = tmp_path / "again.png"
    distill("show", "--out", str(again), "--count", "2", "--class", "red")
    assert again.read_bytes() == path.read_bytes()
    distill("show")
    assert (run.folder("labels") / "sheet.png").exists()


def test_show_takes_the_least_sure(run: Run, distill: Distill) -> None:
    labelled = open_maps(run)
    shown = map_sheet.choose(labelled, 5, name=None, lowest=True, seed=0)
    means = confidences(labelled).mean(axis=(1, 2))
    assert [one.record for one in shown] == [labelled.records[place] for place in np.argsort(means)[:5]]
    blue = map_sheet.choose(labelled, 100, name="blue", lowest=False, seed=0)
    assert {one.record.path[-6:] for one in blue} == {f"{n:02d}.png" for n in range(IMAGES) if n % 4}


def test_show_says_which_classes_there_are(run: Run, distill: Distill) -> None:
    assert "--class: found no class 'cat'; known: background, red, blue" in distill("show", "--class", "cat", expect=2)
    told = distill("show", "--out", str(run.root), expect=2)
    assert "is a folder, expected the name of a file" in " ".join(told.split())


def test_export_writes_files_that_others_read(run: Run, distill: Distill, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert distill("export", str(folder)).strip() == f"{folder}: {IMAGES} images"
    with (folder / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    labelled = open_maps(run)
    assert [row["mask"] for row in rows] == [f"masks/{record.id[:16]}.png" for record in labelled.records]
    for place, row in enumerate(rows):
        mask, confidence = labelled.store.hard(place)
        picture = Image.open(folder / row["mask"])
        assert (picture.mode, picture.size) == ("P", (WIDTH, HEIGHT)) == ("P", (int(row["width"]), int(row["height"])))
        np.testing.assert_array_equal(np.asarray(picture), mask)
        palette = np.array(picture.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(palette[:3], class_colors(3))
        assert tuple(palette[IGNORED]) == IGNORED_COLOR
        np.testing.assert_array_equal(np.asarray(Image.open(folder / row["confidence"])), confidence)
        with np.load(folder / row["soft"]) as soft:
            np.testing.assert_allclose(soft["probabilities"], labelled.store.soft(place), atol=1e-3)
        assert float(row["mean_confidence"]) == pytest.approx(confidence.mean() / 255, abs=0.01)
        assert row["image"] == labelled.records[place].path
    known = json.loads((folder / "classes.json").read_text())
    assert known == [
        {"value": value, "name": name, "color": class_colors(3)[value].tolist()} for value, name in enumerate(CLASSES)
    ]
    told = distill("export", str(folder), expect=2)
    assert "exists and is no empty folder; expected the name of a new one" in " ".join(told.split())


def test_export_of_masks_stored_smaller_has_the_size_of_the_photos(
    run: Run, distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Progress
) -> None:
    monkeypatch.setattr(maps, "LONGEST_SIDE", 12)
    config, labelled = load_config(run.root / "config.yaml"), open_maps(run)
    facts, folder = labelled.store.facts, run.folder("labels")
    for path in folder.iterdir():
        path.unlink()
    MapLabelling(
        build_teacher(config, CLASSES),
        labelled.records,
        folder,
        config.labels,
        cache=ImageCache(100),
        batch_size=4,
        fingerprint="other",
        facts={key: facts[key] for key in ("teacher", "class_map", "precision")},
    ).label(progress)
    assert open_maps(run).store.hard(0)[0].shape == (8, 12)
    distill("export", str(tmp_path / "out"))
    paths = list((tmp_path / "out/masks").iterdir())
    masks = [np.asarray(Image.open(path)) for path in paths]
    assert len(masks) == IMAGES and all(mask.shape == (HEIGHT, WIDTH) for mask in masks)
    document = json.loads(distill("stat", "--json"))
    assert document["hidden"]["miou"]["value"] > 0.5


def _function(source: str) -> object:
    scope: dict[str, object] = {}
    exec(source, scope)
    return scope["answer"]


def _change(run: Run, section: str, values: dict[str, object]) -> None:
    settings = yaml.safe_load((run.root / "config.yaml").read_text())
    settings[section] |= values
    (run.root / "config.yaml").write_text(yaml.safe_dump(settings))
