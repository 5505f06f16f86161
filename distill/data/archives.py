"""Images in archives and tables, with what stands beside them of their truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from distill.core.errors import DataError
from distill.data import parquet_rows, tar_members
from distill.data.candidate import Candidate, MaskSource, Origin, printable
from distill.data.remote import File

__all__ = ["Archives", "found_at", "is_archive", "why_unread"]

_READ = (".tar", ".parquet")
_UNREAD = {
    **dict.fromkeys(
        (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz"),
        "decompress it: in a compressed archive an image is found only by reading all before it",
    ),
    ".arrow": "write the data set as Parquet (`dataset.to_parquet`)",
}
_BESIDE = (".cls", ".txt", ".json")
_MASKS = (".mask.png", ".seg.png")
_LARGEST = 1 << 30  # bytes of an image behind a URL; it is read at once


def is_archive(path: str) -> bool:
    """Whether it is entered like a folder."""
    return path.lower().endswith(_READ)


def why_unread(path: str) -> str:
    """What to do about an archive of another kind; empty for files that are none."""
    return next((why for ending, why in _UNREAD.items() if path.lower().endswith(ending)), "")


def found_at(file: File, origin: Origin, label: str | None = None, *, reason: str = "") -> Candidate:
    """A file that may be an image, as it was listed."""
    large = f"{file.bytes} bytes: no photo has more than {_LARGEST}" if file.bytes > _LARGEST else ""
    return _candidate(file.path, origin, label, file.bytes, file.version, reason or why_unread(file.path) or large)


class Archives:
    """Enters archives and tables.

    Args:
        classes: names in order, where the config gives them: a `.cls` or a column that has numbers means these.
        masks: whether truth is a mask an image, not a class.
    """

    def __init__(self, classes: Sequence[str] | None, *, masks: bool) -> None:
        self._classes = classes
        self.masks = masks

    def inside(self, archive: File, origin: Origin, label: str | None) -> Iterator[Candidate]:
        """The images in it, in its order.

        Args:
            archive: a tar archive or a Parquet table.
            origin: where the config names it.
            label: class of the folder in which it lies; what stands in the archive itself goes before.

        Raises:
            DataError: it cannot be read, or holds what is refused.
        """
        if archive.path.lower().endswith(".tar"):
            yield from self._of_tar(archive, origin, label)
        else:
            yield from self._of_table(archive, origin, label)

    def _of_tar(self, archive: File, origin: Origin, folder: str | None) -> Iterator[Candidate]:
        samples: defaultdict[str, list[tuple[str, tar_members.Member]]] = defaultdict(list)
        for member in tar_members.members(archive):
            sample, ending = tar_members.key(member.name)
            samples[sample].append((ending, member))
        for parts in samples.values():
            images = [member for ending, member in parts if not ending.endswith((*_BESIDE, *_MASKS))]
            texts = {ending.rpartition(".")[2]: member.text for ending, member in parts if member.text}
            drawn = [member for ending, member in parts if ending.endswith(_MASKS)]
            for member in images or [member for _, member in parts]:  # a readme.txt is left out with its reason
                inner = member.name.split("/")[0] if "/" in member.name else None
                label = self._named(texts.get("cls")) or self._named(texts.get("txt")) or folder or inner
                mask = self._mask(archive, drawn) if images else None
                address = _address(archive, member)
                yield self._labelled(address, origin, label, mask, member.bytes, archive.version)

    def _of_table(self, archive: File, origin: Origin, folder: str | None) -> Iterator[Candidate]:
        for row in parquet_rows.rows(archive):
            label = self._named(row.label) or folder
            name = f"/{row.name}" if row.name else ""
            address = f"{archive.path}!{row.column}:{row.number}{name}"
            drawn = f"{archive.path}!{row.mask}:{row.number}/mask.png" if row.mask else ""
            mask = MaskSource(drawn, "", "", archive.bytes, archive.version) if drawn and self.masks else None
            yield self._labelled(address, origin, label, mask, row.bytes, archive.version)

    def _labelled(
        self, address: str, origin: Origin, label: str | None, mask: MaskSource | None, size: int, version: int
    ) -> Candidate:
        if origin == "unlabeled":
            return _candidate(address, origin, None, size, version)
        if self.masks:
            reason = "" if mask else "has no mask (.mask.png or .seg.png, or a column `mask`)"
            return _candidate(address, origin, None, size, version, reason, mask)
        reason = "" if label else "has no class (.cls or .txt, a folder in the archive, or a column `label`)"
        return _candidate(address, origin, label, size, version, reason)

    def _mask(self, archive: File, drawn: Sequence[tar_members.Member]) -> MaskSource | None:
        if not self.masks or not drawn:
            return None
        if len(drawn) > 1:
            raise DataError(f"{archive.path} has several masks of one image: {', '.join(m.name for m in drawn)}")
        return MaskSource(_address(archive, drawn[0]), "", "", drawn[0].bytes, archive.version)

    def _named(self, found: object) -> str | None:
        if found is None or not (name := str(found).strip()):
            return None
        known = self._classes or ()
        if name not in known and name.isascii() and name.isdigit() and int(name) < len(known):
            return known[int(name)]
        return name


def _address(archive: File, member: tar_members.Member) -> str:
    return f"{archive.path}!{member.start}+{member.bytes}/{member.name}"


def _candidate(
    address: str,
    origin: Origin,
    label: str | None,
    size: int,
    version: int,
    reason: str = "",
    mask: MaskSource | None = None,
) -> Candidate:
    named = None if label is None else printable(label)
    return Candidate(printable(address), origin, named, False, None, size, version, reason, mask)
