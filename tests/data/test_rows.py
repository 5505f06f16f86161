"""Records over columns behave as a list of them would."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from distill.core.files import digest_of, digest_of_rows
from distill.core.types import Split
from distill.data.candidate import Candidate
from distill.data.manifest import Entry, Manifest
from distill.data.rows import Rows


class Pair(NamedTuple):
    name: str
    value: int | None


def rows(count: int) -> Rows[Pair]:
    table = pa.table({"value": list(range(count)), "other": [0.5] * count, "name": [f"n{n}" for n in range(count)]})
    return Rows(table, ("name", "value"), Pair)


def test_a_row_is_made_when_it_is_asked_for() -> None:
    found, expected = rows(3000), [Pair(f"n{n}", n) for n in range(3000)]
    assert len(found) == 3000
    assert list(found) == expected  # over several blocks
    assert found == expected and found != expected[:-1] and found != [*expected[:-1], expected[0]]
    assert (found[0], found[-1], found[1024]) == (expected[0], expected[-1], expected[1024])
    with pytest.raises(IndexError):
        found[3000]


@pytest.mark.parametrize("part", [slice(2, 7), slice(None, None, -1), slice(-3, None), slice(5, 2)])
def test_slices_and_sums_are_rows_of_the_same_table(part: slice) -> None:
    found, expected = rows(10), [Pair(f"n{n}", n) for n in range(10)]
    assert found[part] == expected[part]
    assert found[part] + found[:2] == expected[part] + expected[:2]
    assert found[part].table is found.table
    with pytest.raises(ValueError, match="two tables"):
        found + rows(10)


def test_another_process_gets_only_the_rows_that_are_shown() -> None:
    few = rows(10_000)[4:8]
    sent = pickle.dumps(few)
    assert len(sent) < 3000
    assert pickle.loads(sent) == few


def test_a_digest_of_rows_is_that_of_their_list() -> None:
    for count in (0, 1, 999, 1000, 1001, 2500):
        values = [[f"ä{n}", n, None] for n in range(count)]
        assert digest_of_rows(iter(values)) == digest_of(values)
        assert digest_of_rows(iter(values), {"classes": ["]", "a"]}) == digest_of(
            {"rows": values, "classes": ["]", "a"]}
        )


def test_a_manifest_gives_each_split_with_and_without_truth_in_order_of_id(tmp_path: Path) -> None:
    entries = []
    for number, (split, label, hidden) in enumerate(product(("train", "test", None), ("a", "b", None), (True, False))):
        candidate = Candidate(f"/{number:02d}.png", "labeled", label, hidden, None, 1, 2)
        reason = "" if split else "copy of an image of test: /x (y)"
        entries.append(Entry(candidate, f"{97 - number * 5 % 97:064x}", 8, 6, split, reason))  # type: ignore[arg-type]
    made = Manifest(entries, ("a", "b"))
    made.save(tmp_path / "manifest.parquet")
    loaded = Manifest.load(tmp_path / "manifest.parquet")
    for manifest in (made, loaded):
        assert [r.id for r in manifest.records] == sorted(e.id for e in entries if e.split)
        splits: tuple[Split, Split] = ("train", "test")
        for split in splits:
            everything = [r for r in manifest.records if r.split == split]
            assert manifest.of(split) == everything
            for labelled in (True, False):
                assert manifest.of(split, labelled=labelled) == [r for r in everything if r.labelled == labelled]
        assert len(manifest.of("train", labelled=True)) == 2  # neither the hidden nor the missing ones
        assert manifest.counts()["by_class"] == {"train": {"a": 1, "b": 1}, "validation": {}, "test": {"a": 1, "b": 1}}
        assert manifest.counts()["left_out_by_reason"] == {"copy of an image of test": 6}
    assert list(loaded.entries) == entries
    assert loaded.digest() == made.digest() != loaded.digest(truth_only=True)
