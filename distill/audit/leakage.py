"""Images of two splits that show the same: with them the score measures memory.

Byte copies are known from the manifest, others from `distill.labels.leaks`. Three cases are told apart. An *unlabelled*
image that shows what a test image shows is an accident of a large pool: it is left out, nothing else changes. The same
goes for labelled images that were parted by a share (`test: 0.2`): nobody but this program chose their splits. Where
*folders or a manifest* put a labelled image into two splits, whoever made them did not know of the copy; there may be
more that no hash finds (another shot of the same scene), so it is an error unless `data.leaks: drop` says that this was
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.types import Split
from distill.data.batches import ImageCache
from distill.data.candidate import first_of
from distill.data.manifest import Entry, Manifest
from distill.labels.leaks import find_leaks

__all__ = ["Pair", "copies_across_splits", "find_pairs", "refuse_wrong_splits", "without_leaks"]

_SPLIT_OF: dict[str, Split] = {"test": "test", "validation": "validation", "labeled": "train", "unlabeled": "train"}


@dataclass(frozen=True)
class Pair:
    """An image that shows what an image of a more precious split shows.

    Args:
        image: absolute path of the one that is left out.
        split: where it would be.
        labelled: whether its truth is known to training.
        drawn: both were parted by a share of `data.labeled`.
        of: absolute path of the one that is kept.
        of_split: where that one is: validation or test.
        same_bytes: whether both files are equal.
        distance: bits of 64 in which their hashes differ after turning and trimming.
    """

    image: str
    split: Split
    labelled: bool
    drawn: bool
    of: str
    of_split: Split
    same_bytes: bool
    distance: int

    @property
    def wrong(self) -> bool:
        """Whether somebody made wrong splits."""
        return self.labelled and not self.drawn

    @classmethod
    def near(cls, image: Entry, of: Entry, distance: int) -> Pair:
        """Two images that are used, the second of the more precious split."""
        assert image.split is not None and of.split is not None
        first, second = image.candidate, of.candidate
        return cls(
            first.path,
            image.split,
            first.labelled,
            first.origin == second.origin == "labeled",
            second.path,
            of.split,
            same_bytes=False,
            distance=distance,
        )


def find_pairs(manifest: Manifest, cache: ImageCache, progress: Progress) -> list[Pair]:
    """All training images that show what a validation or test image shows, and validation images that show a test one.

    Args:
        manifest: as `scan` gives it.
        cache: gives the images.
        progress: told of each photo.
    """
    used = {entry.id: entry for entry in manifest.entries if entry.split}
    held_out = manifest.of("test") + manifest.of("validation")
    leaks = find_leaks(manifest.of("train") + manifest.of("validation"), held_out, cache, progress)
    near = (Pair.near(used[leak.image], used[leak.of], leak.distance) for leak in leaks)
    return sorted([*copies_across_splits(manifest.entries), *near], key=lambda pair: (not pair.wrong, pair.image))


def copies_across_splits(entries: Iterable[Entry]) -> Iterator[Pair]:
    """Files that were left out because a more precious split has the same bytes."""
    kept: dict[str, Entry] = {}
    copies: list[Entry] = []
    for entry in entries:
        if entry.split:
            kept[entry.id] = entry
        elif entry.id:
            copies.append(entry)
    for entry in copies:
        first, split = kept.get(entry.id), _SPLIT_OF[entry.candidate.origin]
        # Two files of `labeled` go the same way where shares of it are validation and test.
        if first is None or first.split in {None, "train", split} or first.candidate.origin == entry.candidate.origin:
            continue
        path, labelled = entry.candidate.path, entry.candidate.labelled
        if path == first.candidate.path and not labelled:
            continue  # a pool that holds the folder of the test set
        yield Pair(path, split, labelled, False, first.candidate.path, first.split, same_bytes=True, distance=0)


def without_leaks(manifest: Manifest, pairs: Sequence[Pair]) -> Manifest:
    """Leave out the first of each pair."""
    ids = {entry.candidate.path: entry.id for entry in manifest.entries}
    reasons = {
        ids[pair.image]: f"shows what a {pair.of_split} image shows: {ids[pair.of]}"
        for pair in pairs
        if not pair.same_bytes
    }
    return manifest.without(reasons)


def refuse_wrong_splits(pairs: Sequence[Pair]) -> None:
    """Stop where labelled images are in two splits.

    Raises:
        DataError: they are; names the first 20 pairs.
    """
    wrong = [pair for pair in pairs if pair.wrong]
    if not wrong:
        return
    one = len(wrong) == 1
    told = [
        f"{p.image} ({p.split}) {'is a copy of' if p.same_bytes else 'shows what is in'} {p.of} ({p.of_split})"
        for p in wrong
    ]
    raise DataError(
        f"data.leaks: {len(wrong)} labelled image{'' if one else 's'} show{'s' if one else ''} what an image of another"
        f" split shows, so the score would measure memory:\n{first_of(told)}\nPut each scene into one split, or write"
        " `leaks: drop` under `data` (--set data.leaks=drop) to leave out the first of each pair. `distill audit` shows"
        " them side by side"
    )
