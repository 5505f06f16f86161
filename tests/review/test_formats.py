"""Files of other tools: what is written is read back to the same answers, and what they write is understood."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distill.core.errors import DataError, UserError
from distill.core.run import Run
from distill.data.corrections import JOURNAL, Answer, Corrections, read_journal
from distill.review.exchange import Format, export_answers, import_answers
from distill.review.formats.label_studio import decoded, encoded
from distill.review.journal import Journal
from distill.review.subject import Subject, of_run

KINDS: dict[Format, str] = {"csv": "out.csv", "label-studio": "out.json", "cvat": "out.xml", "fiftyone": "out"}


def answered(subject: Subject, **said: object) -> dict[str, Answer]:
    """The truth after these answers, image by its place."""
    journal = Journal(subject.folder, subject.classes)
    order = list(subject.items)
    for place, what in said.items():
        image = order[int(place[1:])]
        row = {"user": "ann", "key": f"answer-{place}", "image": image}
        if isinstance(what, str):
            row |= {"action": "label", "label": what} if what in subject.classes else {"action": what}
        else:
            row |= {"action": "mask", "mask": journal.keep_mask(np.asarray(what, np.uint8))}
        journal.append([row])
    journal.close()
    return journal.log.truth()


def taken(subject: Subject, path: Path, kind: Format, user: str = "tool") -> tuple[dict[str, Answer], tuple[int, int]]:
    """The truth after an import."""
    journal = Journal(subject.folder, subject.classes)
    try:
        counts = import_answers(subject, journal, path, kind, user)
    finally:
        journal.close()
    return read_journal(subject.folder / JOURNAL).truth(), counts


def refused(subject: Subject, path: Path, kind: Format) -> str:
    before = (subject.folder / JOURNAL).read_bytes() if (subject.folder / JOURNAL).exists() else b""
    with pytest.raises(DataError) as caught:
        taken(subject, path, kind)
    after = (subject.folder / JOURNAL).read_bytes()
    assert len(after.splitlines()) == max(1, len(before.splitlines()))  # all or nothing
    return str(caught.value)


def drawn(subject: Subject) -> list[npt.NDArray[np.uint8]]:
    """Masks with ragged regions, ignored pixels, and one that is all background."""
    rng = np.random.default_rng(2)
    ragged = rng.choice(np.array([0, 1, 2, 255], np.uint8), (30, 40))
    plain = np.zeros((30, 40), np.uint8)
    plain[5:25, 7:31] = 1
    plain[0, 0] = 2
    return [ragged, plain]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_back(sorted_run: Callable[..., Run], tmp_path: Path, kind: Format) -> None:
    subject = of_run(sorted_run())
    said = answered(subject, _0="red", _1="violet", _2="green", _3="reject", _4="skip")
    path = tmp_path / KINDS[kind]
    assert export_answers(subject, said, path, kind) == (4 if kind == "label-studio" else 3)
    shutil.rmtree(subject.folder)
    truth, (added, _) = taken(subject, path, kind)
    records = subject.items
    expected = {id_: a.label for id_, a in said.items() if a.label and a.label != records[id_].record.label}
    assert {id_: answer.label for id_, answer in truth.items()} == expected
    assert added == len(expected) >= 2
    assert {answer.user for answer in truth.values()} == {"ann" if kind == "label-studio" else "tool"}
    assert taken(subject, path, kind)[1][0] == 0  # again it says nothing new


@pytest.mark.parametrize("kind", KINDS)
def test_masks_come_back_to_the_pixel(masked_run: Run, tmp_path: Path, kind: Format) -> None:
    subject = of_run(masked_run)
    masks = drawn(subject)
    said = answered(subject, _0=masks[0], _3=masks[1], _5="reject")
    path = tmp_path / KINDS[kind]
    export_answers(subject, said, path, kind)
    kept = tmp_path / "kept"
    subject.folder.rename(kept)
    if kind == "csv":  # it names the masks where they lie
        path.write_text(path.read_text().replace(str(subject.folder), str(kept)))
    truth, (added, _) = taken(subject, path, kind)
    order, corrections = list(subject.items), Corrections.read(subject.folder / JOURNAL)
    assert added == 2
    for place, mask in ((0, masks[0]), (3, masks[1])):
        found = corrections.mask(truth[order[place]], subject.classes)
        np.testing.assert_array_equal(found, mask)
    assert taken(subject, path, kind)[1][0] == 0


def test_label_studio_packs_strokes_like_this(masked_run: Run) -> None:
    # The beginning of a stroke in a published export (3332x2527 pixels), whose first 65,536 values are zeros.
    published = [2, 1, 233, 240, 57, 27, 255, 255, 255]
    assert list(encoded(np.zeros(3332 * 2527 * 4, np.uint8)))[:9] == published
    rng = np.random.default_rng(1)
    for values in (
        rng.integers(0, 256, 999),
        rng.integers(0, 2, 999) * 255,
        np.repeat([0, 255, 0], [70_000, 131_072, 8]),
    ):
        packed = encoded(values.astype(np.uint8))
        np.testing.assert_array_equal(decoded(packed, len(values)), values)
        for damaged in (packed[:-3], packed[:7], b"", b"\xff" * 40):
            with pytest.raises(ValueError, match="brush stroke"):
                decoded(damaged, len(values))


def test_label_studio_of_several_people_with_polygons(masked_run: Run, tmp_path: Path) -> None:
    subject = of_run(masked_run)
    record = next(iter(subject.items.values())).record
    name = Path(record.path).name
    corners = [[10, 10], [50, 10], [50, 50], [10, 50]]  # in percent

    def annotation(label: str, user: int, **more: object) -> dict[str, object]:
        result = {"type": "polygonlabels", "original_width": 40, "original_height": 30, "image_rotation": 0}
        result |= {"value": {"points": corners, "polygonlabels": [label]}, **more}
        return {"result": [result], "completed_by": user, "was_cancelled": False}

    path = tmp_path / "export.json"
    tasks = [
        {
            "data": {"image": f"/data/upload/3/0a1b2c3d-{name}"},
            "annotations": [
                annotation("disc", 7),
                annotation("square", 8),
                {**annotation("disc", 9), "was_cancelled": True},
            ],
        }
    ]
    path.write_text(json.dumps(tasks))
    truth, counts = taken(subject, path, "label-studio")
    assert (counts, truth[record.id].user) == ((2, 0), "8")
    mask = Corrections.read(subject.folder / JOURNAL).mask(truth[record.id], subject.classes)
    expected = np.zeros((30, 40), np.uint8)
    expected[3:15, 4:20] = 2
    np.testing.assert_array_equal(mask, expected)
    for change, message in (
        ({"image_rotation": 90}, "turned by 90 degrees, expected 40x30 turned by 0"),
        ({"original_width": 80}, "drawn on 80x30 pixels"),
        (
            {"value": {"points": corners, "polygonlabels": ["cat"]}},
            "the class 'cat' is none of background, disc, square",
        ),
        ({"value": {"points": corners[:2], "polygonlabels": ["disc"]}}, "expected x and y of at least 3 points"),
        ({"value": {}}, "task 0: is no task (KeyError('polygonlabels'))"),
    ):
        path.write_text(json.dumps([{**tasks[0], "annotations": [annotation("disc", 7, **change)]}]))
        assert message in refused(subject, path, "label-studio")


def test_cvat_of_elsewhere(masked_run: Run, tmp_path: Path) -> None:
    subject = of_run(masked_run)
    records = [item.record for item in subject.items.values()]
    path = tmp_path / "annotations.xml"

    def written(name: str, inside: str) -> None:
        image = f'<image id="0" name="{name}" width="40" height="30">{inside}</image>'
        path.write_text(f'<?xml version="1.0"?><annotations><version>1.1</version>{image}</annotations>')

    below = '<polygon label="disc" points="0,0;40,0;40,30;0,30" z_order="0" source="manual" occluded="0"/>'
    above = '<mask label="square" rle="1, 2, 3" left="5" top="6" width="3" height="2" z_order="1"/>'
    written(f"task/{Path(records[0].path).name}", above + below)
    truth, _ = taken(subject, path, "cvat")
    mask = Corrections.read(subject.folder / JOURNAL).mask(truth[records[0].id], subject.classes)
    expected = np.ones((30, 40), np.uint8)
    expected[6, 6:8] = 2
    np.testing.assert_array_equal(mask, expected)
    name = Path(records[0].path).name
    for mistake, message in (
        (
            '<mask label="disc" rle="1, 2" left="39" top="6" width="3" height="1"/>',
            "a mask of 3 pixels in 3x1 at (39, 6)",
        ),
        ('<mask label="disc" rle="1, x" left="0" top="6" width="3" height="1"/>', "invalid literal"),
        ('<mask label="disc" rle="3" top="6" width="3" height="1"/>', "lacks 'left'"),
        ('<polygon label="disc" points="0,0;1,1"/>', "at least 3 points"),
        ('<polygon label="disc" points="0,0;nan,1;4,4"/>', "expected numbers"),
    ):
        written(name, mistake)
        assert message in refused(subject, path, "cvat")
    written("nowhere.png", below)
    assert "found no image 'nowhere.png'" in refused(subject, path, "cvat")


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>',
        '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotations>&b;</annotations>',
        '<!DOCTYPE annotations SYSTEM "http://127.0.0.1:1/evil.dtd"><annotations/>',
    ],
)
def test_xml_that_declares_things_is_refused(masked_run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "evil.xml"
    path.write_text(text)
    assert "it declares a document type" in refused(of_run(masked_run), path, "cvat")


def test_images_of_one_name_are_told_apart_by_their_folders(sorted_run: Callable[..., Run], tmp_path: Path) -> None:
    run = sorted_run()
    subject = of_run(run)
    path = tmp_path / "in.csv"
    path.write_text("path,label,split\nelsewhere/green-000.png,red,train\n")
    message = refused(subject, path, "csv")
    assert "may be" in message and "green-000.png or " in message
    path.write_text("path,label,split\nunlabeled/green-000.png,red,train\n")
    truth, _ = taken(subject, path, "csv")
    (image,) = truth
    assert subject.items[image].record.path == str(tmp_path / "unlabeled/green-000.png")
    path.write_text("path,label,split\nunlabeled/green-000.png,cow,train\nnowhere.png,red,train\n")
    message = refused(subject, path, "csv")
    assert "found 'cow', expected one of green, red, violet" in message and "found no image" in message
    path.write_text("nothing")
    assert "lacks the columns path, label, split" in refused(subject, path, "csv")


def test_damaged_files_are_refused_with_their_name(sorted_run: Callable[..., Run], tmp_path: Path) -> None:
    subject = of_run(sorted_run())
    path = tmp_path / "file"
    for kind, text in (("label-studio", "{"), ("label-studio", "{}"), ("cvat", "<a>"), ("cvat", "<a/>")):
        path.write_text(text)
        assert f"{path} cannot be read as {kind}: " in refused(subject, path, kind)  # type: ignore[arg-type]
    assert "cannot be read (No such file" in refused(subject, tmp_path / "nowhere", "fiftyone")
    with pytest.raises(UserError, match="is no empty folder"):
        export_answers(subject, {}, tmp_path, "fiftyone")


def test_fiftyone_reads_names_and_places(sorted_run: Callable[..., Run], tmp_path: Path) -> None:
    subject = of_run(sorted_run())
    folder = tmp_path / "fiftyone"
    folder.mkdir()
    labels = {"red-010": {"label": 1, "confidence": 0.9}, "green-009": "violet", "violet-011": None}
    (folder / "labels.json").write_text(json.dumps({"classes": ["a", "green"], "labels": labels}))
    truth, counts = taken(subject, folder, "fiftyone")
    assert counts == (2, 0)
    named = {Path(subject.items[id_].record.path).stem: answer.label for id_, answer in truth.items()}
    assert named == {"red-010": "green", "green-009": "violet"}


def test_the_csv_holds_every_image_that_is_of_use(sorted_run: Callable[..., Run], tmp_path: Path) -> None:
    subject = of_run(sorted_run())
    said = answered(subject, _0="red", _1="reject")
    path = tmp_path / "out.csv"
    export_answers(subject, said, path, "csv")
    with path.open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 12 + 6 + 6 + 3 - 1
    first, second = list(subject.items.values())[:2]
    assert rows[first.record.path]["label"] == "red"
    assert second.record.path not in rows
    assert {row["split"] for row in rows.values()} == {"train", "validation", "test"}
