"""The label store of maps: what the teacher said about the pixels of each image, seen whole.

A shard has one row an image: the first 8 bytes of its hash, the teacher's mean confidence, and

- a soft map of G x G cells over the whole image, whatever its shape: for each cell the k most probable classes and
  their probabilities in steps of 1/255, the rest being the tail (the probability of all others), all through zlib;
- the most probable class of each pixel and, in steps of 1/85, its probability (the confidence), each as a grey PNG of
  the upright image's size, or of 1,024 pixels along the longer side where that is less.

k is at most 4: on 20 street photos a 21-class DeepLab's soft maps (G = 64) then took 4.8 kB an image and were, summed
over classes, 0.003 off; with 2 classes kept 3.6 kB and 0.009, with 8 5.5 kB and 0.003, which is the steps' own error.
One class fewer than there are is always enough, since the tail then is that class's probability. The steps of the
confidence make 11.2 kB of 16.5; what is read is off by at most 0.006.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.errors import StoreError
from distill.core.types import FloatArray
from distill.data.mask_file import mask_of_png
from distill.labels import shards
from distill.labels.shards import Store, blobs, values, write_columns

__all__ = [
    "IMAGES_A_SHARD",
    "LONGEST_SIDE",
    "MOST_CLASSES",
    "STEP",
    "Entry",
    "MapStore",
    "Sizes",
    "finish",
    "kept_classes",
    "of_size",
    "stored_size",
    "write_shard",
]

IMAGES_A_SHARD = 64
"""In each shard but the last; a teacher at 1 image/s takes a minute for them: what a kill may cost."""

LONGEST_SIDE = 1024
"""Pixels of a stored mask; teachers answer on grids of 33 to 512 cells, so larger masks hold nothing more."""

MOST_CLASSES = 255
"""A stored class has 8 bits, and 255 means ignored."""

STEP = 1 / 255
"""Of a stored soft probability; what is read is off by at most this."""

_FORMAT = "maps-1"
_MOST_KEPT = 4  # classes a cell
_CONFIDENCE_STEP = 3  # of 255
_PNG_LEVEL = 6  # masks are 27 % and confidences 22 % smaller than at level 1; at 9 another 7 %, in 7 times the time

_Pixels = npt.NDArray[np.uint8]


class Entry(NamedTuple):
    """What the teacher said about one image, as it is stored."""

    soft: bytes
    mask: bytes
    confidence: bytes
    mean_confidence: float

    @classmethod
    def of(cls, soft: FloatArray, mask: _Pixels, confidence: FloatArray, k: int) -> Entry:
        """Put an image's answers together.

        Args:
            soft: float32 [G, G, C] probabilities, rows sum to one.
            mask: uint8 [H, W], most probable class of each pixel.
            confidence: float32 [H, W], its probability.
            k: classes to keep a cell.
        """
        steps = np.rint(confidence * np.float32(255 / _CONFIDENCE_STEP)).astype(np.uint8) * np.uint8(_CONFIDENCE_STEP)
        return cls(_packed(soft, k), _png(mask), _png(steps), float(confidence.mean(dtype=np.float64)))


class Sizes(NamedTuple):
    """Bytes of all images' soft maps, masks and confidences."""

    soft: int
    mask: int
    confidence: int


def kept_classes(top_k: int, classes: int) -> int:
    """Classes kept a cell where `labels.top_k` are asked for."""
    return max(1, min(top_k, _MOST_KEPT, classes - 1))


def stored_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of the stored mask of an image."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def of_size(pixels: _Pixels, width: int, height: int) -> _Pixels:
    """A stored mask or confidence at another size, uint8 [height, width]; the nearest pixel's value."""
    if pixels.shape == (height, width):
        return pixels
    rows, columns = (
        ((np.arange(wanted) + 0.5) * there / wanted).astype(np.intp)
        for wanted, there in zip((height, width), pixels.shape, strict=True)
    )
    scaled: _Pixels = pixels[rows[:, None], columns]
    return scaled


def write_shard(path: Path, images: Sequence[str], entries: Sequence[Entry], fingerprint: str) -> None:
    """Write one shard atomically; the same entries give the same bytes.

    Args:
        path: of the shard.
        images: 64 hex digits each, N of them.
        entries: N.
        fingerprint: of all that decides the answers.
    """
    import pyarrow as pa

    columns = {
        "mean_confidence": pa.array(np.array([entry.mean_confidence for entry in entries], np.float32)),
        **{name: pa.array([getattr(entry, name) for entry in entries], pa.binary()) for name in Sizes._fields},
    }
    write_columns(path, images, columns, layout=_FORMAT, fingerprint=fingerprint)


def finish(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `store.json`, the last file: from now on the folder is a store of maps."""
    shards.finish(folder, "maps", facts)


@final
class MapStore(Store):
    """A finished store of maps, memory-mapped.

    Args:
        folder: holds the shards and `store.json`.

    Raises:
        StoreError: a shard is missing, damaged or of another labelling, or the store was not finished or holds views.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "maps", _FORMAT, ("mean_confidence", *Sizes._fields), ("grid", "top_k"))
        self.grid, self._k = self.numbers["grid"], self.numbers["top_k"]

    def __len__(self) -> int:
        return self.images

    def soft(self, position: int) -> FloatArray:
        """Probabilities of the classes in each cell of a grid over the whole image at a place, float32 [G, G, C].

        Rows sum to one; the tail is spread evenly over the classes that were not kept.
        """
        ids, steps = self.kept(position)
        dense = _dense(ids.reshape(-1, self._k), steps.reshape(-1, self._k), self.classes)
        return dense.reshape(self.grid, self.grid, self.classes)

    def kept(self, position: int) -> tuple[_Pixels, _Pixels]:
        """The soft map as it is stored.

        Returns:
            Classes, the most probable first, and their probabilities in steps of 1/255, uint8 [G, G, k] both; where
            there is no step, the class says nothing.
        """
        number, packed = self._blob(position, "soft")
        try:
            flat = np.frombuffer(zlib.decompress(packed), np.uint8)
            ids, steps = flat.reshape(2, self.grid, self.grid, self._k)
        except (zlib.error, ValueError) as error:
            raise self._damaged(number, error) from error
        return ids, steps

    def hard(self, position: int) -> tuple[_Pixels, _Pixels]:
        """The most probable class of each pixel of the image at a place, and its probability.

        Returns:
            Classes and confidences, uint8 [H, W] both; a confidence of 255 is 1.0. H and W are those of the upright
            image, or of its stored size (`stored_size`) where a side is longer than `LONGEST_SIDE`.
        """
        found = []
        for name in ("mask", "confidence"):
            number, png = self._blob(position, name)
            try:
                found.append(mask_of_png(png))
            except Exception as error:  # Pillow raises nearly anything; the checksum has let these bytes pass
                raise self._damaged(number, error) from error
        return found[0], found[1]

    def entry(self, position: int) -> Entry:
        """What is stored of the image at a place, as it is stored."""
        number, row = divmod(position, IMAGES_A_SHARD)
        soft, mask, confidence = (self._blob(position, name)[1] for name in Sizes._fields)
        return Entry(soft, mask, confidence, float(values(self.batch(number), "mean_confidence")[row]))

    def mean_confidence(self) -> FloatArray:
        """Mean probability of the most probable class over the pixels of each image, float32 [N]."""
        parts = [values(self.batch(number), "mean_confidence") for number in range(self.shards)]
        return np.concatenate([*parts, np.zeros(0, np.float32)])

    def sizes(self) -> Sizes:
        """Bytes of what is kept, without the frames of the shards."""
        totals = dict.fromkeys(Sizes._fields, 0)
        for number in range(self.shards):
            for name in totals:
                starts, _ = blobs(self.batch(number), name)
                totals[name] += int(starts[-1] - starts[0])
        return Sizes(**totals)

    def _blob(self, position: int, name: str) -> tuple[int, bytes]:
        number, row = divmod(position, IMAGES_A_SHARD)
        starts, data = blobs(self.batch(number), name)
        return number, data[starts[row] : starts[row + 1]].tobytes()

    def _damaged(self, number: int, error: Exception) -> StoreError:
        return StoreError(f"{shards.shard_path(self.folder, number)} is damaged ({error}): {self._again}")


def _packed(soft: FloatArray, k: int) -> bytes:
    """The k most probable classes of each cell, then their probabilities in steps of 1/255, through zlib.

    Sums from the most probable class on are rounded, not the probabilities: so they and the tail add up to one. A
    probability of no step takes the id of the first class, which packs better and is read over.
    """
    cells = soft.reshape(-1, soft.shape[-1])
    ids = np.argsort(-cells, axis=1, kind="stable")[:, :k]
    sums = np.rint(np.cumsum(np.take_along_axis(cells, ids, axis=1), axis=1, dtype=np.float64) * 255)
    steps = np.diff(np.minimum(sums, 255), axis=1, prepend=0)
    steps = -np.sort(-steps, axis=1)  # rounding may have turned two round
    ids = np.where(steps > 0, ids, ids[:, :1])
    return zlib.compress(ids.astype(np.uint8).tobytes() + steps.astype(np.uint8).tobytes(), 9)


def _dense(ids: _Pixels, steps: _Pixels, classes: int) -> FloatArray:
    """Probabilities float32 [N, C] from ids and steps, [N, k]."""
    tail = 255 - steps.sum(axis=1, dtype=np.int64)
    others = np.maximum(1, classes - (steps > 0).sum(axis=1))
    dense = np.empty((len(ids), classes), np.float32)
    dense[:] = (tail / (255 * others))[:, None]
    rows = np.arange(len(ids))
    for place in reversed(range(ids.shape[1])):  # the first class is written last, over what has its id but no step
        dense[rows, ids[:, place]] = steps[:, place] / np.float32(255)
    return dense


def _png(pixels: _Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()
