"""Training photos that are copies of validation or test photos: with them, the score measures memory.

The stage `data` drops files of the same bytes. A copy that was saved again, made smaller, mirrored or trimmed has other
bytes and is found here, in two steps. A 64-bit perceptual hash (Zauner 2010, "Implementation and benchmarking of
perceptual image hash functions": signs of low frequencies of the cosine transform) names candidates, then a comparison
of thumbnails decides: on a white board the hashes of different objects come as near as those of copies.

Measured on 2,524 photos of TrashNet and 2,098 of Clothing Co-Parsing (short side 256), each against its own copy:

    ============================================  ========  ========
    found, in percent                             TrashNet  Clothing
    ============================================  ========  ========
    PNG; half the size; squashed to 224x224         100       100
    JPEG of quality 60                              100       100
    mirrored                                        100       100
    mirrored, half the size, JPEG of quality 60      99.8     100
    brightness +10 %, contrast +20 %, gamma 0.8     100       100
    trimmed by 1 % on each of four sides            100       100
    trimmed by 2 % on each of four sides             98.8      99.5
    trimmed by 2 % at left and top alone             98.7      99.5
    turned grey                                      84.0      87.8
    trimmed by 5 % on each of four sides             19.3       0.1
    ============================================  ========  ========

False alarms: none. Of 5.4 million pairs of files, each also mirrored, the hash named 184; 43 of them were called
copies, and by eye each is a second shot of a scene hardly moved, or one photo edited twice. Between the splits as
`index.csv` gives them, 11 of 1,773 training photos of TrashNet and 4 of 1,708 of Clothing Co-Parsing show what a
validation or test photo shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.progress import Progress
from distill.core.types import ImageRecord, Images
from distill.data.batches import ImageCache

__all__ = ["Fingerprint", "Leak", "find_copies", "find_leaks", "fingerprint"]

_Hashes = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

_SIDE = 32  # of a thumbnail in pixels; Zauner's size
_CHUNK = 256  # photos in work at a time: bounds memory, 690 MB even where 10,000 held-out hashes are all equal
_BANDS = 4  # 16-bit words of a hash
_RADIUS = 2  # differing bits within a word that are looked up
_MAX_DISTANCE = _BANDS * (_RADIUS + 1) - 1  # 11: more bits would leave every word with at least 3
_TRIED = 32  # candidates compared by thumbnail: a fixed camera gives all its photos nearly the same hash
_ALIKE = 0.95  # least correlation of copies; see `_likeness`
_FAINT = 64.0  # a wave of a quarter grey level; on a plain or symmetric image the sign of less is chance

_ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(axis=1, dtype=np.uint8)
_COSINES: _Floats = np.cos(np.pi / _SIDE * np.outer(np.arange(1, 9), np.arange(_SIDE) + 0.5))


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
    """A photo of the pool that shows what a held-out photo shows.

    Args:
        image: id of the photo of the pool.
        of: id of the held-out photo it copies; of several, the one of the nearest hash.
        split: where that one is: validation or test.
        distance: bits in which the hashes differ, 0..11; for a mirrored copy those of the mirrored photo.
    """

    image: str
    of: str
    split: str
    distance: int


def fingerprint(image: Image.Image) -> Fingerprint:
    """Reduce a photo to what survives copying.

    Args:
        image: mode RGB, any size.
    """
    thumbnail = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
    return Fingerprint(_hash(thumbnail), thumbnail)


def find_leaks(
    pool: Sequence[ImageRecord], held_out: Sequence[ImageRecord], cache: ImageCache, progress: Progress
) -> list[Leak]:
    """Find the photos of the pool that copy a held-out photo, also mirrored.

    The held-out photos are indexed, then the pool passes by once, so memory does not grow with it: 11 KB are kept for
    each held-out photo. Looking up 1,000,000 photos among 10,000 took 5 s on one core, with hashes spread as those of
    real photos are; reading the photos takes longer by far (2 ms each at a short side of 256).

    Args:
        pool: photos to train on.
        held_out: photos that training must not have seen.
        cache: gives the images.
        progress: told of each photo.

    Returns:
        At most one leak for each photo of the pool, in the order of the pool.
    """
    if not pool or not held_out:
        return []
    leaks: list[Leak] = []
    with ThreadPoolExecutor() as threads, progress.task("looking for leaks", len(held_out) + len(pool)) as task:

        def fingerprints(records: Sequence[ImageRecord]) -> Iterator[list[Fingerprint]]:
            for at in range(0, len(records), _CHUNK):
                chunk = list(threads.map(lambda record: fingerprint(cache.get(record)), records[at : at + _CHUNK]))
                yield chunk
                task.advance(len(chunk))

        known = [print_ for chunk in fingerprints(held_out) for print_ in chunk]
        mirrored = [_mirror(print_) for print_ in known]
        thumbnails = np.stack([print_.thumbnail for print_ in (*known, *mirrored)])
        index = _Index(np.array([print_.hash for print_ in (*known, *mirrored)], dtype=np.uint64))
        del known, mirrored
        for number, chunk in enumerate(fingerprints(pool)):
            rows, members, distances = index.near(np.array([print_.hash for print_ in chunk], dtype=np.uint64))
            for row in np.unique(rows):
                mine = np.flatnonzero(rows == row)[:_TRIED]
                alike = _likeness(chunk[row].thumbnail, thumbnails[members[mine]]) >= _ALIKE
                if alike.any():
                    first = mine[alike.argmax()]
                    of = held_out[members[first] % len(held_out)]
                    leaks.append(Leak(pool[number * _CHUNK + row].id, of.id, of.split, int(distances[first])))
    return leaks


def find_copies(records: Sequence[ImageRecord], cache: ImageCache, progress: Progress) -> list[int]:
    """Find the photos that copy an earlier one of the same list, also mirrored.

    Args:
        records: photos.
        cache: gives the images.
        progress: told of each photo.

    Returns:
        Their places, in order.
    """
    if not records:
        return []
    with ThreadPoolExecutor() as threads, progress.task("looking for copies", len(records)) as task:
        prints: list[Fingerprint] = []
        for print_ in threads.map(lambda record: fingerprint(cache.get(record)), records):
            prints.append(print_)
            task.advance(1)
    both = [*prints, *map(_mirror, prints)]
    hashes = np.array([print_.hash for print_ in both], dtype=np.uint64)
    thumbnails = np.stack([print_.thumbnail for print_ in both])
    rows, members, _ = _Index(hashes).near(hashes[: len(prints)])
    copies = []
    for row in np.unique(rows):
        mine = members[(rows == row) & (members % len(prints) < row)][:_TRIED]
        if len(mine) and (_likeness(prints[row].thumbnail, thumbnails[mine]) >= _ALIKE).any():
            copies.append(int(row))
    return copies


def _mirror(original: Fingerprint) -> Fingerprint:
    thumbnail = original.thumbnail[:, ::-1]
    return Fingerprint(_hash(thumbnail), thumbnail)


def _hash(thumbnail: Images) -> int:
    """Signs of the 8x8 lowest frequencies but the constant ones, which light and vignetting move."""
    grey = thumbnail @ np.array([0.299, 0.587, 0.114])
    signs = _COSINES @ grey @ _COSINES.T > _FAINT
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


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
    place = np.linspace(-1, 1, _SIDE)[:, None]
    terms = np.stack([pixels, down, right, place[:, None] * down, place * right])
    basis, targets = _differences(terms).T, _differences(others).T
    weights = np.linalg.lstsq(basis, targets, rcond=None)[0]
    explained, total = np.linalg.norm(basis @ weights, axis=0), np.linalg.norm(targets, axis=0)
    likeness: _Floats = np.where((weights[0] > 0) & (total > 0), explained / np.maximum(total, 1e-9), 0.0)
    return likeness


def _differences(images: npt.NDArray[np.generic]) -> _Floats:
    """Of neighbours in images [K, 32, 32, 3] averaged to 16x16 pixels: float64 [K, 1440]."""
    half = images.reshape(len(images), _SIDE // 2, 2, _SIDE // 2, 2, 3).mean(axis=(2, 4))
    down, right = np.diff(half, axis=1), np.diff(half, axis=2)
    return np.concatenate([down.reshape(len(half), -1), right.reshape(len(half), -1)], axis=1)
