"""The same photos in folders, archives, tables and behind URLs are the same images; what is hostile is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from fsspec.registry import known_implementations
from PIL import Image
from rich.console import Console

from distill import pipeline
from distill.config import DataSettings
from distill.config_file import load_config
from distill.core.errors import DataError
from distill.core.patterns import braces
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data import parquet_rows, remote, tar_members
from distill.data.batches import ImageCache
from distill.data.decode import decode
from distill.data.manifest import Manifest, scan
from distill.data.mask_file import read_mask
from distill.data.opener import is_there, opened
from distill.data.sources import find
from tests.workplace import CONFIG, write_photos

SaveImage = Callable[..., Path]
Read = Callable[..., Manifest]
FORMS = ("folder", "tar", "webdataset", "parquet", "huggingface")


@pytest.fixture(autouse=True)
def cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mobile-distill"


@pytest.fixture
def read(progress: Progress) -> Read:
    def scanned(written: Path | None = None, known: Manifest | None = None, **values: object) -> Manifest:
        settings = DataSettings(**values)  # type: ignore[arg-type]
        task = "classification" if written is None else "segmentation"
        return scan(find(settings, task), settings, known, progress, written)

    return scanned


@pytest.fixture
def photos(tmp_path: Path, save_image: SaveImage) -> Path:
    """30 labelled photos of two classes and 20 without a class."""
    for number in range(30):
        save_image(tmp_path / "folder" / "labeled" / ("cat", "dog")[number % 2] / f"{number:03d}.png", number)
    for number in range(30, 50):
        save_image(tmp_path / "folder" / "unlabeled" / f"{number:03d}.png", number)
    return tmp_path


def pack(root: Path, form: str) -> Path:
    """The photos of `root/folder` in another form, beside it."""
    target = root / form
    target.mkdir(exist_ok=True)
    for part in ("labeled", "unlabeled"):
        files = sorted(file for file in (root / "folder" / part).rglob("*") if file.is_file())
        classes = [file.parent.name if part == "labeled" else None for file in files]
        if form == "tar":
            with tarfile.open(target / f"{part}.tar", "w") as tar:
                tar.add(root / "folder" / part, arcname=".")
        elif form == "webdataset":
            (target / part).mkdir()
            for shard in range(3):
                with tarfile.open(target / part / f"{shard:03d}.tar", "w") as tar:
                    for file, name in list(zip(files, classes, strict=True))[shard::3]:
                        add(tar, f"{file.stem}.png", file.read_bytes())
                        add(tar, f"{file.stem}.json", b"{}")
                        if name:
                            add(tar, f"{file.stem}.cls", f"{name}\n".encode())
        elif form == "parquet":
            columns = {"image": [file.read_bytes() for file in files], "label": classes, "more": [1.5] * len(files)}
            pyarrow.parquet.write_table(pa.table(columns), target / f"{part}.parquet", row_group_size=7)
        elif form == "huggingface":
            images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
            numbers = [None if name is None else ("dog", "cat").index(name) for name in classes]
            table = pa.table({"image": images, "label": pa.array(numbers, pa.int64())})
            features = {"image": {"_type": "Image"}, "label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            (target / part).mkdir()
            pyarrow.parquet.write_table(table[:11], target / part / "train-00000-of-00002.parquet", row_group_size=4)
            pyarrow.parquet.write_table(table[11:], target / part / "train-00001-of-00002.parquet", row_group_size=4)
    return target


def add(tar: tarfile.TarFile, name: str, content: bytes, **values: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in values.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def source(target: Path, part: str) -> Path:
    return next(path for path in (target / part, target / f"{part}.tar", target / f"{part}.parquet") if path.exists())


def folders(target: Path) -> dict[str, object]:
    shares = {"validation": 0.2, "test": 0.2}
    return {"labeled": source(target, "labeled"), "unlabeled": source(target, "unlabeled"), **shares}


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        do()
    return str(caught.value)


def facts(manifest: Manifest) -> list[tuple[object, ...]]:
    return [(r.id, r.width, r.height, r.split, r.label) for r in manifest.records]


@pytest.mark.parametrize("form", FORMS[1:])
def test_every_form_gives_the_images_of_the_folder(photos: Path, read: Read, form: str) -> None:
    expected = read(**folders(photos / "folder"))
    manifest = read(**folders(pack(photos, form)))
    assert len(expected.records) == 50
    assert facts(manifest) == facts(expected)
    assert manifest.digest() == expected.digest()  # what the fingerprint of all later stages is made of
    cache = ImageCache(100)
    for here, there in zip(manifest.records, expected.records, strict=True):
        assert here.path.startswith(str(photos / form))
        assert cache.get(here).tobytes() == decode(there.path).tobytes()
        with opened(here.path) as stream:
            assert stream.read() == Path(there.path).read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_read_again_where_nothing_changed(
    photos: Path, read: Read, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = folders(pack(photos, form) if form != "folder" else photos / "folder")
    before = read(**values)
    monkeypatch.setattr("distill.data.manifest.opened", lambda _: pytest.fail("read again"))
    assert read(known=before, **values).digest() == before.digest()


def test_archives_among_photos_are_entered(photos: Path, read: Read, save_image: SaveImage) -> None:
    pack(photos, "tar")
    (photos / "tar" / "unlabeled.tar").rename(photos / "folder" / "unlabeled" / "more.tar")
    for file in list((photos / "folder" / "unlabeled").glob("*.png"))[:5]:
        file.unlink()
    cats = photos / "folder" / "labeled" / "cat"
    image = save_image(photos / "new.png", 99)
    with tarfile.open(cats / "shard.tar", "w") as tar:
        add(tar, "some/where/new.png", image.read_bytes())
    manifest = read(**folders(photos / "folder"))
    assert len(manifest.records) == 51
    assert reasons_of(manifest)["copy of an image of unlabeled"] == 15
    (new,) = [r for r in manifest.records if r.path.endswith("new.png")]
    assert new.label == "cat" and new.path.startswith(f"{cats}/shard.tar!")


def reasons_of(manifest: Manifest) -> dict[str, int]:
    found: dict[str, int] = manifest.counts()["left_out_by_reason"]
    return found


def test_patterns_name_shards(photos: Path, read: Read) -> None:
    expected = read(**folders(photos / "folder"))
    shards = pack(photos, "webdataset")
    shares = {"validation": 0.2, "test": 0.2}
    for labeled in ("{000..002}.tar", "*.tar", "00{0,1,2}.tar"):
        values = {"labeled": str(shards / "labeled" / labeled), "unlabeled": [str(shards / "unlabeled" / "*.tar")]}
        assert read(**values, **shares).digest() == expected.digest()


def test_a_pattern_without_files_is_a_mistake_of_the_config(photos: Path) -> None:
    pack(photos, "webdataset")
    for pattern, missing in (("{000..003}.tar", "labeled/003.tar"), ("*.zip", "that fits ")):
        with pytest.raises(ValueError, match=f"found no file .*{missing}"):
            DataSettings(labeled=str(photos / "webdataset/labeled" / pattern), validation=0.2)  # type: ignore[arg-type]


def test_braces_count_and_list() -> None:
    assert braces("a/{08..11}.tar") == ["a/08.tar", "a/09.tar", "a/10.tar", "a/11.tar"]
    assert braces("{9..11}") == ["9", "10", "11"]
    assert braces("{2..0}{x,y}") == ["2x", "2y", "1x", "1y", "0x", "0y"]
    assert braces("{plain}.tar") == ["{plain}.tar"]
    for wild in ("{0..9999999}", "{0..1999}{0..1999}"):
        with pytest.raises(ValueError, match="files"):
            braces(wild)


def test_numbers_of_classes_mean_the_classes_of_the_config(photos: Path, read: Read) -> None:
    with tarfile.open(photos / "numbered.tar", "w") as tar:
        for number, file in enumerate(sorted((photos / "folder/labeled").rglob("*.png"))):
            add(tar, f"x/{number:06d}.png", file.read_bytes())
            add(tar, f"x/{number:06d}.cls", str(number % 2).encode())
    named = read(labeled=photos / "numbered.tar", validation=0.3, classes=["dog", "cat"])
    assert named.counts()["by_class"]["train"].keys() == {"cat", "dog"}
    plain = read(labeled=photos / "numbered.tar", validation=0.3)
    assert plain.classes == ("0", "1")


def test_what_has_no_class_is_left_out_with_its_reason(photos: Path, read: Read) -> None:
    with tarfile.open(photos / "some.tar", "w") as tar:
        for number, file in enumerate(sorted((photos / "folder/labeled").rglob("*.png"))):
            inside = f"{('cat', 'dog')[number % 2]}/" if number < 20 else ""
            add(tar, f"{inside}{number}.png", file.read_bytes())
        add(tar, "readme.txt", b"a caption that is no class of any image")
        add(tar, ".hidden.png", b"x")
        add(tar, "cat/bad.png", b"no image")
    manifest = read(labeled=photos / "some.tar", validation=0.3)
    assert len(manifest.records) == 20
    reasons = reasons_of(manifest)
    assert reasons.pop("not an image that Pillow can read") == 2  # and the text is none either
    assert reasons == {"has no class": 10}


HOSTILE: tuple[tuple[str, dict[str, object], str], ...] = (
    ("/etc/passwd.png", {}, "'/etc/passwd.png': an absolute path"),
    ("C:\\x.png", {}, "an absolute path"),
    ("a/../../x.png", {}, "'a/../../x.png': its path leads out of the archive"),
    ("a\\..\\x.png", {}, "its path leads out of the archive"),
    ("a\x1b[2J.png", {}, "its name has control characters"),
    ("l.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "'l.png': a link (to '/etc/passwd')"),
    ("h.png", {"type": tarfile.LNKTYPE, "linkname": "000.png"}, "'h.png': a link (to '000.png')"),
    ("d.png", {"type": tarfile.CHRTYPE}, "'d.png': neither file nor folder"),
    ("b.png", {"type": tarfile.BLKTYPE}, "'b.png': neither file nor folder"),
    ("p.png", {"type": tarfile.FIFOTYPE}, "'p.png': neither file nor folder"),
)


@pytest.mark.parametrize(("name", "values", "expected"), HOSTILE)
def test_hostile_members_are_refused_by_name(
    tmp_path: Path, save_image: SaveImage, name: str, values: dict[str, object], expected: str
) -> None:
    image = save_image(tmp_path / "x.png", 1).read_bytes()
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "000.png", image)
        add(tar, name, b"" if values else image, **values)
    message = refused(lambda: find(DataSettings(unlabeled=tmp_path / "s.tar", validation=tmp_path)))  # type: ignore[call-arg]
    assert message.startswith(f"{tmp_path / 's.tar'} is refused for 1 of its members:\n  '") and expected in message


def header(size: bytes, kind: bytes = b"0", name: bytes = b"big.png") -> bytes:
    """One tar header with this size field, its checksum right."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[124:136], block[156:157] = b"0000644\0", size.ljust(12, b"\0"), kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def of_256(number: int) -> bytes:
    """A size field in base 256, as GNU tar writes what eight digits cannot hold."""
    return struct.pack(">B", 0x80 if number >= 0 else 0xFF) + (number % (1 << 88)).to_bytes(11, "big")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (header(b"77777777777"), "its member 'big.png' says it has 8589934591 bytes, "),
        (header(of_256(1 << 60)), "'big.png' says it has 1152921504606846976 bytes"),
        (header(of_256(-1024)), "truncated or damaged"),
        (header(of_256(1 << 33), b"x"), "cannot be read as a tar archive"),
        (header(of_256(1 << 33), b"L"), "cannot be read as a tar archive"),
        (header(b"zzzz"), "truncated or damaged: it has a damaged header at byte 1024"),
    ],
)
def test_sizes_are_believed_only_as_far_as_the_file_reaches(
    tmp_path: Path, save_image: SaveImage, block: bytes, expected: str
) -> None:
    image = save_image(tmp_path / "x.png", 1).read_bytes()
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "000.png", image)
    whole = (tmp_path / "s.tar").read_bytes()
    at = 512 + -(-len(image) // 512) * 512
    (tmp_path / "s.tar").write_bytes(whole[:at] + block + b"\1" * 4096)
    expected = expected.replace("1024", str(at))
    assert expected in refused(lambda: tar_members.members(file_at(tmp_path / "s.tar")))


def file_at(path: Path) -> remote.File:
    return remote.File(str(path), path.stat().st_size, path.stat().st_mtime_ns)


def test_an_archive_that_ends_early_is_an_error_wherever_it_ends(photos: Path) -> None:
    path = pack(photos, "tar") / "unlabeled.tar"
    whole, count = path.read_bytes(), len(tar_members.members(file_at(path)))
    assert count == 20
    end = len(whole.rstrip(b"\0"))
    for length in (0, 100, 512, 700, 1536, end // 2, end - 600, end - 5):
        path.write_bytes(whole[:length])
        message = refused(partial(tar_members.members, file_at(path)))
        assert message.startswith(f"{path} ") and ("truncated or damaged" in message or "cannot be read" in message)


def test_other_archives_are_named_with_what_to_do(tmp_path: Path, save_image: SaveImage) -> None:
    save_image(tmp_path / "labeled/cat/a.png", 1)
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "labeled", arcname=".")
    (tmp_path / "no.tar").write_bytes((tmp_path / "s.tar.gz").read_bytes())
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    pyarrow.parquet.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "other.parquet")
    for name, expected in (
        ("s.tar.gz", "decompress it"),
        ("no.tar", "cannot be read as a tar archive"),
        ("no.parquet", "is damaged or no Parquet"),
        ("other.parquet", "has no column of images: expected `image` as bytes, found a (int64), b (string)"),
    ):
        settings = DataSettings(unlabeled=tmp_path / name, validation=tmp_path / "labeled")  # type: ignore[call-arg]
        message = refused(partial(find, settings))
        assert expected in message and str(tmp_path / name) in message


def test_a_file_that_looks_like_an_address_is_left_out(photos: Path, read: Read) -> None:
    folder = photos / "folder" / "unlabeled" / "x.tar!0+512"
    folder.mkdir()
    (photos / "folder/unlabeled/030.png").rename(folder / "030.png")
    manifest = read(**folders(photos / "folder"))
    assert reasons_of(manifest) == {"its name looks like an address in an archive": 1}


def test_a_pipe_and_a_broken_link_named_like_archives_do_not_hold_a_run_up(photos: Path, read: Read) -> None:
    os.mkfifo(photos / "folder/unlabeled/pipe.tar")
    (photos / "folder/unlabeled/link.parquet").symlink_to("nowhere")
    manifest = read(**folders(photos / "folder"))
    assert reasons_of(manifest) == {"not a file": 1, "cannot be read": 1}
    os.mkfifo(photos / "named.tar")
    settings = DataSettings(unlabeled=photos / "named.tar", validation=photos / "folder/labeled")  # type: ignore[call-arg]
    assert refused(partial(find, settings)) == f"{photos / 'named.tar'} is no file"


def test_an_archive_that_became_shorter_or_a_row_that_is_gone(photos: Path, read: Read) -> None:
    for form in ("tar", "parquet"):
        manifest = read(**folders(pack(photos, form)))
        path = source(photos / form, "unlabeled")
        last = max(manifest.of("train", labelled=False), key=lambda record: record.path)
        if form == "tar":
            os.truncate(path, 1024)
        else:
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(path)[:1], path)
            parquet_rows._table.cache_clear()  # another process opens the table anew
        assert "has become shorter since it was listed" in refused(partial(ImageCache(100).get, last))


def test_rows_without_an_image_and_rows_in_large_groups(
    tmp_path: Path, save_image: SaveImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save_image(tmp_path / "labeled/cat/a.png", 1).read_bytes()
    path = tmp_path / "t.parquet"
    table = pa.table({"image": [{"bytes": image, "path": None}, {"bytes": None, "path": "elsewhere.png"}]})
    pyarrow.parquet.write_table(table, path)
    found = [row.number for row in parquet_rows.rows(file_at(path))]
    assert found == [0, 1]
    assert parquet_rows.value(str(path), "image", 0) == image
    with pytest.raises(OSError, match="the row holds no image"):
        parquet_rows.value(str(path), "image", 1)
    monkeypatch.setattr(parquet_rows, "_LARGEST", 100)
    assert "a row group has" in refused(lambda: list(parquet_rows.rows(file_at(path))))


def test_row_groups_in_memory_are_bounded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(source(pack(photos, "parquet"), "labeled"))
    groups = parquet_rows._Groups()
    monkeypatch.setattr(parquet_rows, "_groups", groups)
    size = groups.get(path, "image", 0).nbytes
    monkeypatch.setattr(parquet_rows, "_CACHE_BYTES", 2 * size + size // 2)
    wanted = np.random.default_rng(0).integers(0, 30, 60).tolist()
    expected = pyarrow.parquet.read_table(path)["image"].to_pylist()
    assert [parquet_rows.value(path, "image", row) for row in wanted] == [expected[row] for row in wanted]
    assert sum(values.nbytes for values in groups._found.values()) == groups._bytes <= 2.5 * size


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_masks_in_archives(tmp_path: Path, read: Read, save_image: SaveImage, form: str) -> None:
    rng = np.random.default_rng(0)
    images, masks = [], []
    for number in range(12):
        images.append(save_image(tmp_path / "images" / f"{number}.png", number, size=(8, 6)).read_bytes())
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 2, (6, 8), dtype=np.uint8)).save(stream, "PNG")
        masks.append(stream.getvalue())
    path = tmp_path / f"s.{form}"
    if form == "tar":
        with tarfile.open(path, "w") as tar:
            for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
                add(tar, f"{number}.png", image)
                add(tar, f"{number}.{('seg', 'mask')[number % 2]}.png", mask)
            add(tar, "without.png", save_image(tmp_path / "without.png", 99).read_bytes())
    else:
        pyarrow.parquet.write_table(pa.table({"image": images, "mask": masks}), path)
    manifest = read(tmp_path / "run" / "masks", labeled=path, validation=0.3, classes=["a", "b"])
    assert len(manifest.records) == 12
    by_id = {hashlib.sha256(image).hexdigest(): mask for image, mask in zip(images, masks, strict=True)}
    for record in manifest.records:
        assert np.array_equal(read_mask(str(record.mask)), np.asarray(Image.open(io.BytesIO(by_id[record.id]))))
    assert reasons_of(manifest) == ({"has no mask": 1} if form == "tar" else {})


# Behind URLs.


@pytest.fixture
def bucket(photos: Path) -> Iterator[str]:
    """A file system in memory with the photos in all forms."""
    memory = fsspec.filesystem("memory")
    for form in FORMS:
        if form != "folder":
            pack(photos, form)
        memory.put(str(photos / form), f"/bucket/{form}", recursive=True)
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def at(url: str, form: str) -> dict[str, object]:
    ending = {"tar": ".tar", "parquet": ".parquet"}.get(form, "")
    shares = {"validation": 0.2, "test": 0.2}
    return {part: f"{url}/{form}/{part}{ending}" for part in ("labeled", "unlabeled")} | shares


@pytest.mark.parametrize("form", FORMS)
def test_a_bucket_gives_the_images_of_the_folder(bucket: str, photos: Path, read: Read, form: str) -> None:
    expected = read(**folders(photos / "folder"))
    manifest = read(**at(bucket, form))
    assert facts(manifest) == facts(expected)
    assert manifest.digest() == expected.digest()
    record = manifest.records[3]
    assert record.path.startswith("memory://")
    assert ImageCache(100).get(record).size == (record.width, record.height)
    again = read(known=manifest, **at(bucket, form))
    assert again.digest() == expected.digest()


def test_patterns_of_urls(bucket: str, photos: Path, read: Read) -> None:
    expected = read(**folders(photos / "folder"))
    for shards in ("{000..002}.tar", "*.tar"):
        urls = {part: f"{bucket}/webdataset/{part}/{shards}" for part in ("labeled", "unlabeled")}
        assert read(**urls, validation=0.2, test=0.2).digest() == expected.digest()


def test_an_archive_behind_a_url_is_listed_once(
    bucket: str, read: Read, cache_of_the_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(**at(bucket, "webdataset"))
    assert len(list(cache_of_the_user.iterdir())) == 6
    monkeypatch.setattr(tar_members, "_read", lambda archive: pytest.fail(f"{archive.path} is listed again"))
    assert read(**at(bucket, "webdataset")).digest() == first.digest()
    memory = fsspec.filesystem("memory")
    with memory.open("/bucket/webdataset/labeled/000.tar", "wb") as changed:
        changed.write(memory.cat_file("/bucket/webdataset/labeled/001.tar"))
    with pytest.raises(pytest.fail.Exception, match=r"labeled/000\.tar is listed again"):
        read(**at(bucket, "webdataset"))


def test_a_manifest_names_urls_and_members(bucket: str, photos: Path, read: Read) -> None:
    expected = read(**at(bucket, "tar"))
    lines = [f"{record.path},{record.label or ''},{record.split}" for record in expected.records]
    (photos / "manifest.csv").write_text("\n".join(["path,label,split", *lines]))
    manifest = read(manifest=photos / "manifest.csv")
    assert facts(manifest) == facts(expected)


MISTAKES = (
    ("memory://nowhere/at/all", "found nothing at memory://nowhere/at/all"),
    ("memory://nowhere/000.tar", "found nothing at memory://nowhere/000.tar"),
    ("absent://bucket/photos", "absent://bucket/photos: absent:// needs another package: pip install absent-fs"),
    ("wrong://bucket/photos", "wrong://bucket/photos: Protocol not known: wrong"),
)


@pytest.mark.parametrize(("url", "expected"), MISTAKES)
def test_urls_that_cannot_be_read(
    photos: Path, read: Read, url: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(known_implementations, "absent", {"class": "absent_fs.AbsentFileSystem", "err": "Install it"})
    values = folders(photos / "folder") | {"unlabeled": url}
    assert expected in refused(lambda: read(**values))


def test_what_a_package_raises_is_said_with_the_url(bucket: str, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        """As botocore has it: no OSError."""

    def walk(*_: object, **__: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "walk", walk)
    message = refused(lambda: read(**at(bucket, "folder")))
    assert message.startswith(f"{bucket}/folder/labeled cannot be read (NoCredentialsError: Unable to locate")


def test_a_server_that_does_not_answer_stops_the_scan_instead_of_leaving_images_out(
    bucket: str, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cat_file(*_: object, **__: object) -> bytes:
        raise TimeoutError("no answer for 60 s")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", cat_file)
    assert "cannot be read (TimeoutError: no answer for 60 s)" in refused(lambda: read(**at(bucket, "tar")))


class _WithRanges(SimpleHTTPRequestHandler):
    ranges = True

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not wanted or not self.ranges or not path.is_file():
            return super().do_GET()
        first, last = wanted.removeprefix("bytes=").split("-")
        content = path.read_bytes()
        part = content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def end_headers(self) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Path, type[_WithRanges]], str]]:
    servers = []

    def start(folder: Path, handler: type[_WithRanges]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_web_server_with_ranges(photos: Path, read: Read, serve: Callable[[Path, type[_WithRanges]], str]) -> None:
    pytest.importorskip("aiohttp")
    expected = read(**folders(photos / "folder"))
    for form in ("tar", "parquet"):
        pack(photos, form)
    url = serve(photos, _WithRanges)
    for form in ("tar", "parquet"):
        assert read(**at(url, form)).digest() == expected.digest()


def test_a_web_server_without_ranges_is_told_from_one_with(
    photos: Path, read: Read, serve: Callable[[Path, type[_WithRanges]], str]
) -> None:
    pytest.importorskip("aiohttp")

    class Whole(_WithRanges):
        ranges = False

    pack(photos, "tar")
    message = refused(lambda: read(**at(serve(photos, Whole), "tar")))
    assert message.startswith("http://127.0.0.1:") and "the server does not give parts of files" in message


def test_a_run_on_archives_asks_the_teacher_what_a_run_on_folders_asks(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    for part in ("labeled", "validation", "test", "unlabeled"):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            tar.add(tmp_path / "photos" / part, arcname=part if part == "unlabeled" else ".")
    runs = {}
    for form, change in (
        ("folders", lambda text: text),
        ("tars", lambda text: re.sub(r"photos/(\w+)", r"\1.tar", text)),
    ):
        (tmp_path / f"{form}.yaml").write_text(change(CONFIG.replace("views: 16", "views: 2")))
        config = load_config(tmp_path / f"{form}.yaml", [f"output={tmp_path / form}"])
        runs[form] = pipeline.run(config, Console(quiet=True), until="labels")
    stages = {form: Run(root) for form, root in runs.items()}
    for stage in ("teacher", "labels"):
        one, other = (json.loads((run.folder(stage) / "stage.json").read_text()) for run in stages.values())
        assert one["fingerprint"] == other["fingerprint"]
    stores = [
        {file.name: file.read_bytes() for file in run.folder("labels").glob("*.arrow")} for run in stages.values()
    ]
    assert len(stores[0]) > 0 and stores[0] == stores[1]
    again = load_config(tmp_path / "tars.yaml", [f"output={tmp_path / 'tars'}"])
    assert all(step.done for step in pipeline.plan(again).stages[:3])


def test_an_image_is_there_as_long_as_its_archive_is(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"")
    addresses = [f"{tmp_path}/x.tar!512+3/a.jpg", f"{tmp_path}/x.parquet!image:1/a.jpg", "memory://x/a.jpg"]
    assert [is_there(address) for address in addresses] == [True, False, True]
