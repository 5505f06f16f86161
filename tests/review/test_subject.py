"""What is shown, in which order; masks of photos that are larger than what is drawn on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.run import Run
from distill.core.types import ImageRecord
from distill.data.corrections import Corrections
from distill.data.manifest import Manifest
from distill.labels.maps import of_size
from distill.review.desk import Desk
from distill.review.journal import Journal
from distill.review.runs import runs_of
from distill.review.subject import Item, Subject, of_folder, of_run
from distill.tasks._label_answers import LabelAnswers
from distill.tasks._mask_answers import MaskAnswers
from tests.review.conftest import NAMES


def test_disagreement_is_looked_for_in_all_splits(sorted_run: Callable[..., Run]) -> None:
    run = sorted_run()
    records = Manifest.load(run.root / "data/manifest.parquet").of("test")
    truth = np.array([NAMES.index(str(record.label)) for record in records])
    for who, said in (
        ("teacher", [truth[0], truth[1], (truth[2] + 1) % 3]),
        ("student", [truth[0], (truth[1] + 1) % 3, 0]),
    ):
        logits = np.eye(3, dtype=np.float32)[np.array(said)] * 3
        LabelAnswers(tuple(r.id for r in records), logits, truth).save(run.folder(who) / "predictions" / "test.parquet")
    found = {i: item for i, item in of_run(run, "disagree").items.items() if item.record.split == "test"}
    assert set(found) == {records[1].id, records[2].id}
    one, other = found[records[1].id], found[records[2].id]
    assert one.others == (f"student: {NAMES[(truth[1] + 1) % 3]}",)
    assert other.others[0] == f"teacher: {NAMES[(truth[2] + 1) % 3]}"
    assert (one.suggestion, other.suggestion) == (records[1].label, records[2].label)
    assert other.sure is not None and one.sure is not None and other.sure < 0.1 < one.sure
    assert list(of_run(run).items) == [i for i in of_run(run).items if i not in found]  # training images alone


def test_masks_that_differ_are_found(masked_run: Run) -> None:
    items = of_run(masked_run).items
    drawn = {i: item for i, item in items.items() if item.record.mask}
    assert len(drawn) == 2 and len(items) == 7
    found = of_run(masked_run, "disagree").items
    assert set(found) == set(drawn)
    # The teacher's square of 180 pixels is where nobody drew one, and what was drawn (20 and 25) it did not see.
    assert sorted(item.sure for item in found.values()) == pytest.approx([1 - 205 / 1200, 1 - 200 / 1200])
    assert {item.others for item in found.values()} == {("teacher: 17% of the pixels differ",)}
    records = Manifest.load(masked_run.root / "data/manifest.parquet").of("validation")
    counts = np.stack([np.diag([1000, 100, 100]), np.diag([1000, 0, 0]) + np.eye(3, k=1, dtype=np.int64) * 100])
    nothing = np.zeros((2, 3, 4), np.int64), np.zeros(2), np.zeros((2, 2, 32), np.int64)
    answers = MaskAnswers(tuple(r.id for r in records), counts.astype(np.int64), *nothing, (b"", b""))
    answers.save(masked_run.folder("student") / "predictions" / "validation.parquet")
    assert set(of_run(masked_run, "disagree").items) == {*drawn, records[1].id}


def test_a_large_photo_is_drawn_on_small_and_kept_large(tmp_path: Path) -> None:
    record = ImageRecord("a" * 64, "large.jpg", 2048, 100, "train", None)
    said = np.zeros((50, 1024), np.uint8)
    said[10:20, 100:200] = 1
    subject = Subject(
        "large", tmp_path, ("background", "cat"), True, {record.id: Item(record)}, [record], 100.0, lambda _: said
    )
    journal = Journal(subject.folder, subject.classes)
    desk = Desk(subject, journal)
    drawn = said.copy()
    drawn[30:40, 5:15] = 1
    for key, runs, mask in (
        ("accepted", None, said),
        ("corrected", runs_of(drawn), drawn),
        ("untouched", runs_of(said), said),
    ):
        assert desk.take("ann", [{"key": key, "image": record.id, "action": "mask", "runs": runs}]).keys == [key]
        answer = journal.log.truth()[record.id]
        found = Corrections(subject.folder, {}).mask(answer, subject.classes)
        assert (found.shape, answer.confirmed) == ((100, 2048), key != "corrected")
        np.testing.assert_array_equal(found, of_size(mask, 2048, 100))
        assert desk.mask(record.id, "ann") == {"width": 1024, "height": 50, "runs": runs_of(mask)}
    refused = desk.take("ann", [{"key": "too-small", "image": record.id, "action": "mask", "runs": [0, 5]}]).refused
    assert refused == {"too-small": "a mask has 5 pixels, expected 1024x50"}
    journal.close()


def test_a_folder_shows_each_picture_once_and_nothing_else(tmp_path: Path, save_image: Callable[..., Path]) -> None:
    save_image(tmp_path / "photos/b/1.png", 1)
    save_image(tmp_path / "photos/a/2.png", 2)
    save_image(tmp_path / "photos/a/copy.png", 1)
    save_image(tmp_path / "photos/.hidden/3.png", 3)
    (tmp_path / "photos/notes.txt").write_text("no picture")
    Image.new("RGB", (9, 7)).save(tmp_path / "photos/turned.jpg", exif=_turned())
    items = of_folder(tmp_path / "photos", ["cat", "dog"]).items.values()
    assert [Path(item.record.path).name for item in items] == ["turned.jpg", "2.png", "copy.png"]
    (turned,) = [item.record for item in items if item.record.path.endswith("turned.jpg")]
    assert (turned.width, turned.height) == (7, 9)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
