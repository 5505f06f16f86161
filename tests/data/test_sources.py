"""Finding files: everything below the folders, by class, or by a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.data.sources import Candidate, find

SaveImage = Callable[..., Path]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def unlabelled(root: Path) -> DataSettings:
    return DataSettings(unlabeled=root, validation=_golden(root.parent / "golden"))


def _golden(root: Path) -> Path:
    touch(root, "cat/1.jpg", "dog/1.jpg")
    return root


def names(found: list[Candidate], root: Path, origin: str = "unlabeled") -> list[str]:
    return [os.path.relpath(c.path, root) for c in found if c.origin == origin]


def error(settings: DataSettings) -> str:
    with pytest.raises(DataError) as caught:
        find(settings)
    return str(caught.value)


def test_a_flat_folder_and_folders_below_it_in_sorted_order(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root, "b.jpg", "a.jpg", "z/1.jpg", "m/deep/er/2.jpg", "m/0.jpg")
    found = find(unlabelled(root))
    assert names(found, root) == ["a.jpg", "b.jpg", "m/0.jpg", "m/deep/er/2.jpg", "z/1.jpg"]
    assert {c.label for c in found if c.origin == "unlabeled"} == {None}
    assert all(Path(c.path).is_absolute() and c.bytes == 1 and c.mtime_ns > 0 for c in found)


def test_extensions_do_not_matter(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    listed = ["a.JPG", "b.Jpeg", "c.PNG", "d", "e.txt", "f.tar.gz"]
    touch(root, *listed)
    assert names(find(unlabelled(root)), root) == listed


def test_hidden_files_and_folders_are_not_images(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root, "a.jpg", ".DS_Store", "._a.jpg", ".git/b.jpg", "c/.hidden/d.jpg", "c/.e.jpg")
    touch(tmp_path / "golden", ".thumbnails/1.jpg", "cat/.1.jpg")
    found = find(unlabelled(root))
    assert names(found, root) == ["a.jpg"]
    assert {c.label for c in found if c.origin == "validation"} == {"cat", "dog"}


def test_strange_names(tmp_path: Path) -> None:
    root = tmp_path / "my photos"
    strange = [
        "a b.jpg",
        "c\nd.jpg",
        "größe/straße 😀.jpg",
        "e'f\"g.jpg",
        "100%.jpg",
        "-rf.jpg",
        "[x].jpg",
        " lead.jpg",
    ]
    touch(root, *strange)
    found = find(unlabelled(root))
    assert sorted(names(found, root)) == sorted(strange)
    assert all(Path(c.path).exists() for c in found)


def test_a_name_that_is_not_utf8_is_listed_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root, "a.jpg")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.jpg")).write_bytes(b"x")
    odd = find(unlabelled(root))[-1]
    assert odd.path == f"{root}/caf\\xe9.jpg"
    assert odd.reason == "its name is not UTF-8: rename it"


def test_links_are_followed_but_no_folder_is_entered_twice(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root, "a/1.jpg")
    touch(tmp_path / "elsewhere", "2.jpg")
    (root / "a/up").symlink_to("..")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    assert names(find(unlabelled(root)), root) == ["a/1.jpg", "again/2.jpg"]


def test_broken_links_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root, "a.jpg")
    (root / "gone.jpg").symlink_to("nothing")
    (root / "self.jpg").symlink_to("self.jpg")
    found = find(unlabelled(root))
    assert names(found, root) == ["a.jpg", "gone.jpg", "self.jpg"]
    assert [c.bytes for c in found if c.origin == "unlabeled"] == [1, -1, -1]


def test_several_unlabelled_folders(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/b.jpg")
    settings = DataSettings(unlabeled=[tmp_path / "two", tmp_path / "one"], validation=_golden(tmp_path / "golden"))
    assert names(find(settings), tmp_path) == ["two/b.jpg", "one/a.jpg"]


def test_folders_by_class(tmp_path: Path) -> None:
    touch(tmp_path / "train", "cat/1.jpg", "cat/deep/2.jpg", "dog/1.jpg", "empty/.keep")
    touch(tmp_path / "test", "cat/9.jpg")
    settings = DataSettings(labeled=tmp_path / "train", validation=0.2, test=tmp_path / "test")
    found = find(settings)
    assert [(c.origin, c.label, Path(c.path).name, c.hidden) for c in found] == [
        ("test", "cat", "9.jpg", False),
        ("labeled", "cat", "1.jpg", False),
        ("labeled", "cat", "2.jpg", False),
        ("labeled", "dog", "1.jpg", False),
    ]


def test_files_beside_the_class_folders_are_listed_with_their_reason(tmp_path: Path) -> None:
    touch(tmp_path / "train", "cat/1.jpg", "dog/1.jpg", "forgotten.jpg", "labels.txt")
    found = find(DataSettings(labeled=tmp_path / "train", validation=0.2))
    assert [(Path(c.path).name, c.label, c.reason) for c in found if c.reason] == [
        ("forgotten.jpg", None, "lies beside the class folders, not in one"),
        ("labels.txt", None, "lies beside the class folders, not in one"),
    ]


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "photos/deep").mkdir(parents=True)
    assert error(unlabelled(tmp_path / "photos")) == f"data.unlabeled: found no file in {tmp_path}/photos"


def test_no_class_folders(tmp_path: Path) -> None:
    touch(tmp_path / "train", "1.jpg", "2.jpg")
    assert error(DataSettings(labeled=tmp_path / "train", validation=0.2)) == (
        f"data.labeled: found no sub-folder in {tmp_path}/train (2 files); expected one sub-folder a class, such as"
        f" {tmp_path}/train/cat and {tmp_path}/train/dog"
    )


def test_empty_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
    touch(tmp_path, "photos/1.jpg")
    assert error(DataSettings(unlabeled=tmp_path / "photos", validation=tmp_path / "val")) == (
        f"data.validation: found no file in the 2 class folders of {tmp_path}/val"
    )


@pytest.mark.parametrize("key", ["labeled", "unlabeled"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, key: str) -> None:
    touch(tmp_path, "photos.zip")
    values = {key: tmp_path / "photos.zip", "validation": _golden(tmp_path / "golden")}
    assert error(DataSettings(**values)) == f"cannot list the folder {tmp_path}/photos.zip (Not a directory)"


# Manifests

ROWS = """\
path,label,split,labelled,group
a.jpg,cat,train,1,g1
b.jpg,cat,train,0,g1
sub/c.jpg,dog,val,0,
d.jpg,dog,test,,g2
e.jpg,,train,,
"""
EXPECTED = [
    ("a.jpg", "labeled", "cat", False, "g1"),
    ("b.jpg", "unlabeled", "cat", True, "g1"),
    ("sub/c.jpg", "validation", "dog", False, None),
    ("d.jpg", "test", "dog", False, "g2"),
    ("e.jpg", "unlabeled", None, False, None),
]


def manifest(path: Path, text: str | bytes) -> DataSettings:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return DataSettings(manifest=path)


def rows_of(found: list[Candidate], root: Path) -> list[tuple[object, ...]]:
    return [(os.path.relpath(c.path, root), c.origin, c.label, c.hidden, c.group) for c in found]


def test_a_csv(tmp_path: Path) -> None:
    assert rows_of(find(manifest(tmp_path / "index.csv", ROWS)), tmp_path) == EXPECTED


def test_the_same_as_parquet(tmp_path: Path) -> None:
    header, *rows = [line.split(",") for line in ROWS.splitlines()]
    columns = {name: [row[i] or None for row in rows] for i, name in enumerate(header)}
    numbers = [None if value is None else float(value) for value in columns["labelled"]]
    table = pa.table(columns).set_column(3, "labelled", pa.array(numbers, pa.float64()))
    pyarrow.parquet.write_table(table, tmp_path / "index.parquet")
    assert rows_of(find(DataSettings(manifest=tmp_path / "index.parquet")), tmp_path) == EXPECTED


@pytest.mark.parametrize("column", ["labelled", "labeled"])
@pytest.mark.parametrize("hidden", ["0", "0.0", "false", "No"])
def test_a_label_that_training_must_not_see(tmp_path: Path, column: str, hidden: str) -> None:
    text = f"path,label,split,{column}\na.jpg,cat,train,{hidden}\nb.jpg,cat,test,{hidden}\n"
    train, test = find(manifest(tmp_path / "index.csv", text))
    assert (train.origin, train.label, train.hidden) == ("unlabeled", "cat", True)
    assert (test.origin, test.label, test.hidden) == ("test", "cat", False)


def test_labels_stay_what_they_are(tmp_path: Path) -> None:
    labels = ["01", "1.50", "NA", "null", "nan", "true", "2026-11-20", "größe", "a b"]
    text = "path,label,split\n" + "".join(f"{i}.jpg,{label},train\n" for i, label in enumerate(labels))
    assert [c.label for c in find(manifest(tmp_path / "index.csv", text))] == labels


def test_the_ways_people_write_csv(tmp_path: Path) -> None:
    text = '\ufeffsplit, path ,label,camera\r\nTraining,"a, b.jpg",cat,x\r\n\r\n VALID ,"c\nd.jpg", dog ,y\r\n'
    found = find(manifest(tmp_path / "index.csv", text))
    assert rows_of(found, tmp_path) == [
        ("a, b.jpg", "labeled", "cat", False, None),
        ("c\nd.jpg", "validation", "dog", False, None),
    ]


def test_absolute_paths_and_paths_upwards(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    text = f"path,label,split\n../a.jpg,cat,train\n{tmp_path}/b.jpg,cat,train\n"
    found = find(manifest(tmp_path / "lists/index.csv", text))
    assert [c.path for c in found] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]


def test_all_bad_rows_are_told_with_their_lines(tmp_path: Path) -> None:
    text = (
        "path,label,split,labelled,group\n"
        "a.jpg,cat,train,1,g\n"
        "b.jpg,cat,trian,1,\n"
        "\n"
        ",cat,train,1,\n"
        "d.jpg,,test,1,\n"
        '"e\nf.jpg",cat,train,maybe,\n'
        "g.jpg,cat,train\n"
        "h.jpg,cat,test,1,g\n"
    )
    path = tmp_path / "index.csv"
    assert error(manifest(path, text)).splitlines() == [
        f"data.manifest: {path} has 6 bad rows:",
        "  line 3: split is 'trian', expected train, validation or test",
        "  line 5: path is '', expected a file",
        "  line 6: an image of test needs a label",
        "  line 7: labelled is 'maybe', expected 1 or 0",
        "  line 9: 3 cells, expected 5 (path, label, split, labelled, group)",
        "  line 10: group 'g' is in test, but in train before (line 2)",
    ]


def test_a_bad_row_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    pyarrow.parquet.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "label": [0, 1], "split": ["train", "x"]}), path)
    assert error(DataSettings(manifest=path)).splitlines()[1:] == [
        "  row 2: split is 'x', expected train, validation or test"
    ]


def test_very_many_bad_rows_are_counted(tmp_path: Path) -> None:
    told = error(manifest(tmp_path / "index.csv", "path,label,split\n" + "a,b,c\n" * 50)).splitlines()
    assert told[0].endswith("has 50 bad rows:")
    assert told[-1] == "  and 30 more"
    assert len(told) == 22


MANIFESTS = [
    ("path,lable\na.jpg,cat\n", "lacks the columns label, split; found: path, lable"),
    ("path,label\na.jpg,cat\n", "lacks the column split; found: path, label"),
    ("", "has no rows"),
    ("path,label,split\n", "has no rows"),
    (b"\x89PNG\r\n\x1a\n\xff\xfe", "is neither CSV nor Parquet ("),
    ('path,label,split\n"a.jpg,cat,train\n', "is neither CSV nor Parquet (unexpected end of data)"),
]


@pytest.mark.parametrize(("text", "sentence"), MANIFESTS, ids=[sentence for _, sentence in MANIFESTS])
def test_what_is_no_manifest(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    told = error(manifest(tmp_path / "index.csv", text))
    assert told.startswith(f"data.manifest: {tmp_path}/index.csv {sentence}")


def test_a_csv_named_parquet(tmp_path: Path) -> None:
    told = error(manifest(tmp_path / "index.parquet", ROWS))
    assert told.startswith(f"data.manifest: {tmp_path}/index.parquet is not Parquet (")


# Masks


def masks(path: Path, text: str) -> list[Candidate]:
    path.write_text(text)
    return find(DataSettings(manifest=path), "segmentation")


MASK_ROWS = """\
image,mask,split,labelled,group
a.jpg,m/a.png,train,1,g1
b.jpg,m/b.png,train,0,g1
sub/c.jpg,../c.json,val,0,
d.jpg,m/d.png,test,,g2
e.jpg,,unlabelled,,
f.jpg,m/f.png,Unlabeled,1,
g.jpg,,train,,
"""


def test_a_manifest_of_masks(tmp_path: Path) -> None:
    found = masks(tmp_path / "index.csv", MASK_ROWS)
    rows = [(Path(c.path).stem, c.origin, c.mask and os.path.relpath(c.mask.path, tmp_path), c.hidden) for c in found]
    assert rows == [
        ("a", "labeled", "m/a.png", False),
        ("b", "unlabeled", "m/b.png", True),
        ("c", "validation", "../c.json", False),
        ("d", "test", "m/d.png", False),
        ("e", "unlabeled", None, False),
        ("f", "unlabeled", "m/f.png", True),
        ("g", "unlabeled", None, False),
    ]
    assert [c.labelled for c in found] == [True, False, True, True, False, False, False]
    assert {c.label for c in found} == {None}


def test_bad_rows_of_a_manifest_of_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        masks(tmp_path / "index.csv", "path,mask,split\na.jpg,,val\nb.jpg,b\0.png,train\nc.jpg,,x\n")
    assert str(caught.value).splitlines()[1:] == [
        "  line 2: an image of validation needs a mask",
        "  line 3: mask is 'b\\x00.png', expected a file",
        "  line 4: split is 'x', expected train, validation or test",
    ]
    with pytest.raises(DataError, match="lacks the columns path, mask; found: picture, split"):
        masks(tmp_path / "index.csv", "picture,split\na.jpg,val\n")


def test_the_image_column_and_unlabelled_rows_serve_labels_too(tmp_path: Path) -> None:
    found = find(manifest(tmp_path / "index.csv", "image,label,split\na.jpg,cat,train\nb.jpg,cat,unlabelled\n"))
    assert [(c.origin, c.label, c.hidden) for c in found] == [
        ("labeled", "cat", False),
        ("unlabeled", "cat", True),
    ]


def test_folders_of_masks(tmp_path: Path) -> None:
    touch(tmp_path / "train", "images/1.jpg", "images/2.jpg", "masks/1.png")
    touch(tmp_path / "test", "images/9.jpg", "masks/9.png")
    touch(tmp_path / "pool", "8.jpg")
    settings = DataSettings(
        labeled=tmp_path / "train", validation=0.2, test=tmp_path / "test", unlabeled=tmp_path / "pool"
    )
    found = find(settings, "segmentation")
    assert [(c.origin, Path(c.path).name, c.mask is not None) for c in found] == [
        ("test", "9.jpg", True),
        ("labeled", "1.jpg", True),
        ("unlabeled", "2.jpg", False),
        ("unlabeled", "8.jpg", False),
    ]
