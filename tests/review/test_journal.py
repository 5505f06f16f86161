"""The journal: torn tails, damage, several writers, disks that fill; and who gets which image."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.core.errors import DataError, RunFolderError
from distill.data.corrections import JOURNAL, Corrections, read_journal
from distill.review.desk import Desk, Refused
from distill.review.journal import Journal
from distill.review.runs import mask_of_runs, runs_of
from distill.review.subject import Subject

IMAGES = [f"{number:064x}" for number in range(5)]


def said(image: str, label: str = "cat", user: str = "ann") -> dict[str, Any]:
    return {"user": user, "key": f"key-{image[-4:]}-{label}-{user}", "image": image, "action": "label", "label": label}


def written(folder: Path) -> Path:
    journal = Journal(folder, ["cat", "dog"])
    journal.append([said(image) for image in IMAGES])
    journal.close()
    return folder / JOURNAL


def test_wherever_the_last_line_is_torn_all_before_it_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        log = read_journal(path)
        assert (len(log.truth()), log.torn) == (4, end - last)
    for tail in (b"\0" * 300, b"\0" * 20 + b"\n", b'{"n": 6, "user": "a'):  # as power cuts leave them
        path.write_bytes(whole + tail)
        assert (len(read_journal(path).truth()), read_journal(path).torn) == (5, len(tail))
        journal = Journal(tmp_path, ["cat", "dog"])
        assert journal.torn == len(tail)
        journal.append([said(IMAGES[0], "dog")])
        journal.close()
        log = read_journal(path)
        assert (log.torn, log.truth()[IMAGES[0]].label) == (0, "dog")
    for end in range(1, whole.index(b"\n")):  # killed while it was begun
        path.write_bytes(whole[:end])
        Journal(tmp_path, ["cat", "dog"]).close()
        assert read_journal(path).classes == ("cat", "dog")


def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"#" + lines[2][1:], *lines[3:]]))
    with pytest.raises(DataError, match=f"{path}, line 3: damaged .* the lines behind it are whole"):
        read_journal(path)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(DataError, match=r"line 3: damaged \(n is 3, expected 2\)"):
        read_journal(path)
    path.write_text("path,label\n")
    with pytest.raises(DataError, match=r"is no journal of `distill review`"):
        read_journal(path)


def test_one_process_writes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ["cat", "dog"])
    with pytest.raises(RunFolderError, match="is in use by another `distill review`"):
        Journal(tmp_path, ["cat", "dog"])
    journal.close()
    Journal(tmp_path, ["cat", "dog"]).close()


def test_a_full_disk_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, ["cat", "dog"])
    journal.append([said(IMAGES[0])])
    before = (tmp_path / JOURNAL).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.append([said(IMAGES[1])])
    assert (tmp_path / JOURNAL).read_bytes() == before
    journal.append([said(IMAGES[2])])
    journal.close()
    assert set(read_journal(tmp_path / JOURNAL).truth()) == {IMAGES[0], IMAGES[2]}


def test_the_last_answer_wins_both_are_kept_and_each_undoes_their_own(photos_to_sort: Subject) -> None:
    subject = photos_to_sort
    journal = Journal(subject.folder, subject.classes)
    desk, (image, *_) = Desk(subject, journal), list(subject.items)
    for key, user, label in (("answer-1", "ann", "cat"), ("answer-2", "bob", "dog")):
        entry = {"key": key, "image": image, "action": "label", "label": label}
        assert desk.take(user, [entry, entry]).keys == [key, key]  # sent again, it is one answer
    desk.take("ann", [{"key": "answer-3", "image": image, "action": "skip"}])
    assert [a.label for a in journal.log.standing()] == ["cat", "dog", ""]
    assert journal.log.truth()[image].label == "dog"
    for _ in range(2):  # sent again, it is one undo
        assert desk.take("ann", [{"key": "undo-0001", "undo": ""}]).keys == ["undo-0001"]
    assert [a.label for a in journal.log.standing()] == ["cat", "dog"]
    refused = desk.take("ann", [{"key": "undo-0002", "undo": "answer-2"}]).refused
    assert refused == {"undo-0002": "there is nothing to take back"}
    desk.take("bob", [{"key": "undo-0003", "undo": "answer-2"}])
    assert journal.log.truth()[image].label == "cat"
    assert Counter(a.user for a in journal.log.answers.values()) == {"ann": 2, "bob": 1}
    journal.close()
    assert read_journal(subject.folder / JOURNAL) == journal.log
    assert [json.loads(line)["n"] for line in (subject.folder / JOURNAL).read_text().splitlines()] == list(range(6))


def test_answers_that_make_no_sense_are_refused(photos_to_sort: Subject) -> None:
    subject = photos_to_sort
    journal = Journal(subject.folder, subject.classes)
    desk, (image, *_) = Desk(subject, journal), list(subject.items)
    good = {"key": "12345678", "image": image, "action": "label", "label": "cat"}
    for change, reason in (
        ({"label": "cow"}, "'cow' is none of the classes"),
        ({"label": ["cat"]}, "is none of the classes"),
        ({"image": "../../etc/passwd"}, "no such image"),
        ({"action": "mask", "runs": [0, 4]}, "'mask' is no answer here"),
        ({"action": None}, "None is no answer here"),
        ({"key": "short"}, "an answer has a key"),
        ({"key": 12345678}, "an answer has a key"),
    ):
        (found,) = desk.take("ann", [{**good, **change}]).refused.values()
        assert reason in found
    for user in ("", "  ", "a" * 41, "a\nb"):
        assert desk.take(user, [good]).refused == {"12345678": "a name has 1 to 40 letters"}
        with pytest.raises(Refused):
            desk.next("page", user, 1, [])
    assert journal.log.answers == {}
    journal.close()


def test_people_at_once_get_different_images_and_leases_end(photos_to_sort: Subject) -> None:
    subject, now = photos_to_sort, [0.0]
    journal = Journal(subject.folder, subject.classes)
    desk = Desk(subject, journal, clock=lambda: now[0])
    order = list(subject.items)
    mine = [each["image"] for each in desk.next("one", "ann", 3, [])["items"]]
    others = [each["image"] for each in desk.next("two", "bob", 9, [])["items"]]
    assert (mine, others) == (order[:3], order[3:])
    assert desk.next("three", "cid", 9, [])["elsewhere"] == 8
    now[0] = 200
    desk.next("one", "ann", 0, mine)  # still here
    now[0] = 301
    assert [each["image"] for each in desk.next("three", "cid", 9, [])["items"]] == others
    desk.next("one", "ann", 0, mine)
    desk.next("three", "cid", 0, others[1:], others[:1])  # it lets go of one
    assert [each["image"] for each in desk.next("two", "bob", 9, [])["items"]] == others[:1]
    everyone = Desk(subject, journal, everyone=True)
    for user in ("ann", "bob"):
        assert [each["image"] for each in everyone.next(user, user, 9, [])["items"]] == order
        everyone.take(user, [{"key": f"key-of-{user}", "image": order[0], "action": "label", "label": "cat"}])
    assert everyone.counts("ann")["answered"] == everyone.counts("bob")["answered"] == 1
    journal.close()


def test_many_threads_lose_nothing(photos_to_sort: Subject) -> None:
    subject = photos_to_sort
    journal = Journal(subject.folder, subject.classes)
    desk = Desk(subject, journal)
    given: dict[str, list[str]] = {}

    def person(name: str) -> None:
        mine = given[name] = []
        while items := desk.next(name, name, 1, [])["items"]:
            mine.append(items[0]["image"])
            entry = {"key": f"{name}-{len(mine):08d}", "image": mine[-1], "action": "label", "label": "dog"}
            assert desk.take(name, [entry]).keys

    threads = [threading.Thread(target=person, args=(f"person-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert sorted(image for mine in given.values() for image in mine) == sorted(subject.items)
    answers = read_journal(subject.folder / JOURNAL).answers.values()
    assert {user: [a.image for a in answers if a.user == user] for user in given} == given


def test_masks_travel_as_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 5), (30, 40)):
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
        np.testing.assert_array_equal(mask_of_runs(runs_of(mask), shape[1], shape[0], 3), mask)
    for runs in ([0], [0, 5], [3, 6], [0, -1, 0, 7], [0, 6.0], [True, 6], "06", [0, 10**30], [256, 6], None):
        with pytest.raises(ValueError, match="a mask has"):
            mask_of_runs(runs, 3, 2, 3)


def test_masks_follow_the_names_of_classes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ["background", "cat", "dog"])
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    row = {"user": "ann", "key": "12345678", "image": IMAGES[0], "action": "mask"}
    journal.append([{**row, "mask": journal.keep_mask(mask)}])
    journal.close()
    corrections = Corrections.read(tmp_path / JOURNAL)
    answer = corrections.answers[IMAGES[0]]
    assert corrections.mask(answer, ["dog", "background", "cow", "cat"]).tolist() == [[1, 3], [0, 255]]
    with pytest.raises(DataError, match=r"has 'dog', but the classes are background, cat"):
        corrections.mask(answer, ["background", "cat"])
