"""Training photos that are copies of validation or test photos: with them, the score measures memory.

The stage `data` drops files of the same bytes. A copy that was saved again, made smaller, mirrored, turned or trimmed
has other bytes and is found here, in two steps. A 64-bit perceptual hash (Zauner 2010, "Implementation and benchmarking
of perceptual image hash functions": signs of low frequencies of the cosine transform) names candidates, then a
comparison of thumbnails decides: on a white board the hashes of different objects come as near as those of copies. Each
photo is remembered as it is and trimmed by 5 % of each side, and looked up in all eight ways to turn and mirror it.

Measured on 2,524 photos of TrashNet and 2,098 of Clothing Co-Parsing (short side 256), each against its own copy:

    ============================================  ========  ========
    found, in percent                             TrashNet  Clothing
    ============================================  ========  ========
    PNG; half the size; squashed to 224x224         100       100
    JPEG of quality 60                              100       100
    mirrored; upside down; turned by a quarter      100       100
    mirrored, half the size, JPEG of quality 60      99.8     100
    brightness +10 %, contrast +20 %, gamma 0.8     100       100
    trimmed by 1 % on each of four sides            100       100
    trimmed by 2 % on each of four sides             99.5     100
    trimmed by 3 % on each of four sides             99.1      99.9
    trimmed by 5 % on each of four sides            100       100
    trimmed by 7 % on each of four sides             95.6      98.5
    trimmed by 10 % on each of four sides             8.6       0
    trimmed by 2 % at left and top alone             99.0      99.5
    trimmed by 5 % at left and top alone             15.5       0.3
    turned grey                                      84.0      87.7
    ============================================  ========  ========

False alarms: none. Of 5.4 million pairs of files, in all eight turns, 43 were called copies, and by eye each is a
second shot of a scene hardly moved, or one photo edited twice. Between the splits as `index.csv` gives them, 11 of
1,773 training and 2 of 341 validation photos of TrashNet and 4 of 1,708 of Clothing Co-Parsing show what a photo of a
more precious split shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.progress import Progress
from distill.core.threads import in_order
from distill.core.types import SPLITS, ImageRecord, Images
from distill.data.batches import ImageCache

__all__ = [
    "SIDE",
    "TRIMS",
    "Alike",
    "Fingerprint",
    "Gallery",
    "Leak",
    "find_copies",
    "find_leaks",
    "find_shown",
    "fingerprint",
    "fingerprint_of",
    "fingerprints",
]

_Hashes = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Number = TypeVar("_Number", np.float64, np.float32, np.uint8)
_Turn = tuple[bool, bool, bool]

SIDE = 32
"""Of a thumbnail in pixels; Zauner's size."""

TRIMS = (0.0, 0.05)
"""Shares cut off on each of four sides before a photo is hashed; `_likeness` stretches over what lies between."""

_CHUNK = 256  # photos in work at a time
_ROWS = 256  # hashes looked up at a time: bounds memory even where 10,000 held-out hashes are all equal
_REDUCING_GAP = 4.0  # a phone's photo is first reduced by whole pixels: 4 instead of 40 ms, Pillow sees no difference
_TURNS: tuple[_Turn, ...] = tuple((t, d, r) for t, d, r in product((False, True), repeat=3))  # as it is first
_BANDS = 4  # 16-bit words of a hash
_RADIUS = 2  # differing bits within a word that are looked up
_MAX_DISTANCE = _BANDS * (_RADIUS + 1) - 1  # 11: more bits would leave every word with at least 3
_TRIED = 32  # candidates compared by thumbnail: a fixed camera gives all its photos nearly the same hash
_ALIKE = 0.95  # least correlation of copies; see `_likeness`
_COARSE = 0.8  # least correlation of 8x8 grey cells, without which nothing finer is compared; see `_cells`
_FAINT = 64.0  # a wave of a quarter grey level; on a plain or symmetric image the sign of less is chance

_ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(axis=1, dtype=np.uint8)
_COSINES: _Floats = np.cos(np.pi / SIDE * np.outer(np.arange(1, 9), np.arange(SIDE) + 0.5))


class Fingerprint(NamedTuple):
    """What is remembered of a photo, whatever its size and compression.

    Args:
        hash: 64 bits, of which copies differ in few.
        thumbnail: uint8 [32, 32, 3], RGB, squashed to a square.
    """

    hash: int
    thumbnail: Images


@dataclass(frozen=True)
class Leak:
    """A photo that shows what a photo of a more precious split shows.

    Args:
        image: id of the photo.
        of: id of the held-out photo it copies; of several, the one of the nearest hash.
        split: where that one is: validation or test.
        distance: bits in which the hashes differ, 0..11; for a turned or trimmed copy those of the photo turned or
            trimmed likewise.
    """

    image: str
    of: str
    split: str
    distance: int


class Alike(NamedTuple):
    """A photo of a gallery that shows what a given photo shows.

    Args:
        member: its place in the gallery.
        distance: bits in which the hashes differ, 0..11, after turning and trimming.
        turned: the copy is mirrored or turned by quarters.
    """

    member: int
    distance: int
    turned: bool


def fingerprint(image: Image.Image, trim: float = 0.0) -> Fingerprint:
    """Reduce a photo to what survives copying.

    Args:
        image: mode RGB, any size.
        trim: share that is cut off on each of four sides before.
    """
    width, height = image.size
    box = (trim * width, trim * height, (1 - trim) * width, (1 - trim) * height)
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box, reducing_gap=_REDUCING_GAP)
    return fingerprint_of(np.asarray(small))


def fingerprint_of(thumbnail: Images) -> Fingerprint:
    """Of a photo whose thumbnail was kept."""
    return Fingerprint(_bits(_waves(thumbnail)), thumbnail)


def fingerprints(image: Image.Image) -> tuple[Fingerprint, ...]:
    """Of a photo as it is and trimmed, one for each of `TRIMS`, as a `Gallery` takes them."""
    return tuple(fingerprint(image, trim) for trim in TRIMS)


def find_leaks(
    pool: Sequence[ImageRecord], held_out: Sequence[ImageRecord], cache: ImageCache, progress: Progress
) -> list[Leak]:
    """Find the photos of the pool that copy a held-out photo of another split, also mirrored, turned or trimmed.

    The held-out photos are indexed, then the pool passes by once, so memory does not grow with it: 17 KB are kept for
    each held-out photo.

    Args:
        pool: photos to train on or to choose by.
        held_out: photos that these must not show.
        cache: gives the images.
        progress: told of each photo.

    Returns:
        At most one leak for each photo of the pool, in the order of the pool.
    """
    found = ((record, alike[0]) for record, alike in _compared(pool, held_out, cache, progress) if alike)
    members = ((record, held_out[one.member], one.distance) for record, one in found)
    return [Leak(record.id, of.id, of.split, distance) for record, of, distance in members]


def find_shown(
    held_out: Sequence[ImageRecord], pool: Sequence[ImageRecord], cache: ImageCache, progress: Progress
) -> list[Leak]:
    """Find the held-out photos that a photo of the pool shows: `find_leaks` the other way round.

    Args:
        held_out: photos to be judged by.
        pool: photos of other splits, that were trained on or chosen by.
        cache: gives the images.
        progress: told of each photo.

    Returns:
        At most one leak for each held-out photo, in their order; `of` and `split` are those of the pool's photo of the
        nearest hash.
    """
    nearest: dict[int, Leak] = {}
    for record, alike in _compared(pool, held_out, cache, progress):
        for one in alike:
            before = nearest.get(one.member)
            if before is None or one.distance < before.distance:
                nearest[one.member] = Leak(held_out[one.member].id, record.id, record.split, one.distance)
    return [nearest[place] for place in sorted(nearest)]


def _compared(
    pool: Sequence[ImageRecord], held_out: Sequence[ImageRecord], cache: ImageCache, progress: Progress
) -> Iterator[tuple[ImageRecord, list[Alike]]]:
    """Each photo of the pool with the held-out photos of other splits that show the same."""
    if not pool or not held_out:
        return
    splits = {split: number for number, split in enumerate(SPLITS)}
    with ThreadPoolExecutor() as threads, progress.task("looking for leaks", len(held_out) + len(pool)) as task:

        def prints(records: Sequence[ImageRecord]) -> Iterator[list[tuple[Fingerprint, ...]]]:
            for at in range(0, len(records), _CHUNK):
                chunk = list(threads.map(lambda record: fingerprints(cache.get(record)), records[at : at + _CHUNK]))
                yield chunk
                task.advance(len(chunk))

        known = [print_ for chunk in prints(held_out) for print_ in chunk]
        gallery = Gallery(known, [splits[record.split] for record in held_out])
        del known
        following = iter(pool)
        for chunk in prints(pool):
            records = [next(following) for _ in chunk]
            yield from zip(records, gallery.alike(chunk, [splits[r.split] for r in records]), strict=True)


def find_copies(records: Sequence[ImageRecord], cache: ImageCache, progress: Progress) -> list[int]:
    """Find the photos that copy an earlier one of the same list, also mirrored, turned or trimmed.

    Args:
        records: photos.
        cache: gives the images.
        progress: told of each photo.

    Returns:
        Their places, in order.
    """
    if not records:
        return []
    prints: list[tuple[Fingerprint, ...]] = []
    with ThreadPoolExecutor() as threads, progress.task("looking for copies", len(records)) as task:
        for print_ in in_order(threads, lambda record: fingerprints(cache.get(record)), records):
            prints.append(print_)
            task.advance(1)
    each = range(len(prints))
    found = Gallery(prints, each).alike(prints, each)
    return [place for place, alike in enumerate(found) if any(one.member < place for one in alike)]


class Gallery:
    """Photos that others are compared with.

    A photo is looked up as it is, mirrored, and turned by quarters both ways (eight hashes from one cosine transform);
    as a whole among trimmed photos, and trimmed among whole ones. Looking up a photo among 10,000 took 0.5 ms on one
    core, 10 ms where a fixed camera gives all of them nearly the same hash; reading one takes 2 ms at a short side of
    256.

    Args:
        photos: what `fingerprints` said of each.
        groups: a number for each; photos of the same group are not compared.
    """

    def __init__(self, photos: Sequence[Sequence[Fingerprint]], groups: Sequence[int]) -> None:
        flat = [print_ for photo in photos for print_ in photo]
        self._index = _Index(np.array([print_.hash for print_ in flat], dtype=np.uint64))
        self._thumbnails = np.stack([print_.thumbnail for print_ in flat])
        parts = (self._thumbnails[at : at + _CHUNK] for at in range(0, len(flat), _CHUNK))
        self._cells = np.concatenate([_cells(part).reshape(len(part), -1) for part in parts])
        self._groups = np.repeat(np.asarray(groups, dtype=np.int64), len(TRIMS))

    def alike(self, photos: Sequence[Sequence[Fingerprint]], groups: Sequence[int]) -> Iterator[list[Alike]]:
        """For each photo the members of other groups that show the same, the nearest hash first."""
        each = _ROWS // (len(TRIMS) * len(_TURNS))
        for at in range(0, len(photos), each):
            yield from self._alike(photos[at : at + each], groups[at : at + each])

    def _alike(self, photos: Sequence[Sequence[Fingerprint]], groups: Sequence[int]) -> Iterator[list[Alike]]:
        waves = (_waves(print_.thumbnail) for photo in photos for print_ in photo)
        hashes = [_bits(_turned(wave, turn)) for wave in waves for turn in _TURNS]
        # Empty pages and symmetric things have few hashes, however they are turned.
        different, which = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
        rows, members, distances = self._index.near(different)
        starts = np.searchsorted(rows, np.arange(len(different) + 1))
        cells = _cells(np.stack([print_.thumbnail for photo in photos for print_ in photo]))
        found: list[dict[int, Alike]] = [{} for _ in photos]
        for number, row in enumerate(which.tolist()):
            place, turn = number // len(_TURNS), _TURNS[number % len(_TURNS)]
            photo, trim = divmod(place, len(TRIMS))
            if starts[row] == starts[row + 1] or np.ptp(photos[photo][trim].thumbnail) == 0:
                continue  # an empty page is like nothing
            near = slice(starts[row], starts[row + 1])
            keep = self._groups[members[near]] != groups[photo]
            if trim:  # both trimmed is nothing new
                keep &= members[near] % len(TRIMS) == 0
            mine = starts[row] + np.flatnonzero(keep)[:_TRIED]
            if not len(mine):
                continue
            turned = np.ascontiguousarray(_turned(cells[place], turn, signs=False)).reshape(-1)
            mine = mine[self._cells[members[mine]] @ turned >= _COARSE]
            if not len(mine):
                continue
            own, thumbnail = found[photo], photos[photo][trim].thumbnail
            thumbnail = np.stack([_turned(thumbnail[:, :, c], turn, signs=False) for c in range(3)], axis=2)
            alike = _likeness(thumbnail, self._thumbnails[members[mine]]) >= _ALIKE
            for pair in mine[alike]:
                one = Alike(int(members[pair]) // len(TRIMS), int(distances[pair]), turn != _TURNS[0])
                before = own.get(one.member)
                if before is None or one.distance < before.distance:
                    own[one.member] = one
        for own in found:
            yield sorted(own.values(), key=lambda one: (one.distance, one.member))


def _waves(thumbnail: Images) -> _Floats:
    """The 8x8 lowest frequencies but the constant ones, which light and vignetting move: float64 [8, 8]."""
    grey = thumbnail @ np.array([0.299, 0.587, 0.114])
    waves: _Floats = _COSINES @ grey @ _COSINES.T
    return waves


def _turned(values: npt.NDArray[_Number], turn: _Turn, *, signs: bool = True) -> npt.NDArray[_Number]:
    """Pixels or, with `signs`, waves [H, W] of a photo that is transposed, then mirrored up and down, left and right.

    Mirroring turns the sign of every second wave: of the first, the third …
    """
    transposed, down, right = turn
    values = values.T if transposed else values
    if not signs:
        return values[:: -1 if down else 1, :: -1 if right else 1]
    odd = np.where(np.arange(8) % 2 == 0, -1, 1)
    return values * (odd[:, None] if down else 1) * (odd if right else 1)  # type: ignore[return-value]


def _bits(waves: npt.NDArray[np.float64]) -> int:
    return int.from_bytes(np.packbits(waves > _FAINT).tobytes(), "big")


class _Index:
    """All hashes within 11 bits of a given one, without looking at every hash.

    Multi-index hashing (Norouzi, Punjani, Fleet 2012, arXiv 1307.2982): of two hashes that differ in at most 11 bits,
    one of the four 16-bit words differs in at most 2. So each hash is listed, for each of its words, under all 137
    words that are so near.
    """

    def __init__(self, hashes: _Hashes) -> None:
        self._hashes = hashes
        self._lists: list[tuple[_Numbers, npt.NDArray[np.int32]]] = []
        near = np.flatnonzero(_ONES <= _RADIUS).astype(np.uint16)
        for words in _words(hashes).T:
            keys = (words[:, None] ^ near).ravel()
            starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=_ONES.size))])
            self._lists.append((starts, (np.argsort(keys, kind="stable") // near.size).astype(np.int32)))

    def near(self, hashes: _Hashes) -> tuple[_Numbers, _Numbers, _Numbers]:
        """Pairs (row of `hashes`, member of the index, distance), by row, then by distance."""
        found = []
        for band, (starts, members) in enumerate(self._lists):
            words = _words(hashes)[:, band].astype(np.int64)
            start = starts[words]
            counts = starts[words + 1] - start
            row = np.repeat(np.arange(len(hashes)), counts)
            member = members[np.arange(counts.sum()) + np.repeat(start - (np.cumsum(counts) - counts), counts)]
            differing = _words(hashes[row] ^ self._hashes[member])
            ones = [_ONES[differing[:, word]] for word in range(_BANDS)]
            distance = ones[0] + ones[1] + ones[2] + ones[3]
            keep = distance <= _MAX_DISTANCE
            for earlier in ones[:band]:  # else an earlier word has named the pair
                keep &= earlier > _RADIUS
            found.append(np.stack([row[keep], member[keep], distance[keep]]))
        pairs: _Numbers = np.concatenate(found, axis=1)
        row, member, distance = pairs[:, np.lexsort([pairs[1], pairs[2], pairs[0]])]
        return row, member, distance


def _words(hashes: _Hashes) -> npt.NDArray[np.uint16]:
    return hashes.view(np.uint16).reshape(-1, _BANDS)


def _cells(thumbnails: Images) -> npt.NDArray[np.float32]:
    """Grey values in 8x8 cells without their mean, of length one: float32 [N, 8, 8] from [N, 32, 32, 3].

    Of 400 photos each of TrashNet and Clothing Co-Parsing and their copies in 17 ways, all that `_likeness` then finds
    correlate at 0.91 or more in these cells; chance neighbours among 8,000 images of noise at 0.71 or less. Comparing
    cells costs a thousandth of comparing thumbnails, and such neighbours become more as the held-out photos do.
    """
    grey = thumbnails @ np.array([0.299, 0.587, 0.114], np.float32)
    cells = grey.reshape(-1, 8, SIDE // 8, 8, SIDE // 8).mean(axis=(2, 4))
    cells -= cells.mean(axis=(1, 2), keepdims=True)
    one: npt.NDArray[np.float32] = cells / np.maximum(np.linalg.norm(cells, axis=(1, 2), keepdims=True), 1e-9)
    return one


def _likeness(thumbnail: Images, others: Images) -> _Floats:
    """How well a photo, moved and stretched a little, explains others.

    A trimmed copy's fine detail no longer lies on itself. To first order, a photo shifted and stretched is a sum of
    itself, its two derivatives and these times their coordinate, so least squares find the best shift, stretch and
    contrast in closed form. Differences of neighbouring pixels are compared, because brightness alone correlates at 0.9
    between any two things in the middle of a white board; and colours, because bottle caps differ in nothing else.

    Different objects of TrashNet came to 0.931 at most, 99 of 100 copies trimmed by 2 % on all four sides to 0.966.
    Without the four derivatives, these came to 0.871 only, less than different objects.

    Args:
        thumbnail: uint8 [32, 32, 3].
        others: uint8 [K, 32, 32, 3].

    Returns:
        float64 [K], 0..1: correlation of the others with their best explanation; 0 for negatives and empty images.
    """
    pixels = thumbnail.astype(np.float64)
    down, right = np.gradient(pixels, axis=(0, 1))
    place = np.linspace(-1, 1, SIDE)[:, None]
    terms = np.stack([pixels, down, right, place[:, None] * down, place * right])
    basis, targets = _differences(terms).T, _differences(others).T
    weights = np.linalg.lstsq(basis, targets, rcond=None)[0]
    explained, total = np.linalg.norm(basis @ weights, axis=0), np.linalg.norm(targets, axis=0)
    likeness: _Floats = np.where((weights[0] > 0) & (total > 0), explained / np.maximum(total, 1e-9), 0.0)
    return likeness


def _differences(images: npt.NDArray[np.generic]) -> _Floats:
    """Of neighbours in images [K, 32, 32, 3] averaged to 16x16 pixels: float64 [K, 1440]."""
    pixels = images.astype(np.float64)
    half = (pixels[:, ::2, ::2] + pixels[:, ::2, 1::2] + pixels[:, 1::2, ::2] + pixels[:, 1::2, 1::2]) / 4
    down, right = np.diff(half, axis=1), np.diff(half, axis=2)
    return np.concatenate([down.reshape(len(half), -1), right.reshape(len(half), -1)], axis=1)
