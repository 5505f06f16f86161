"""Batches of rendered views, decoded once and prepared ahead by threads, in an order that depends on nothing else."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from threading import Lock, Semaphore
from typing import Literal, Protocol, final

import numpy as np
from PIL import Image

from distill.core.errors import DataError
from distill.core.types import ImageRecord, Images
from distill.data.decode import DecodeError, decode
from distill.data.views import View, render

__all__ = ["Cutter", "ImageCache", "Loader", "iterate"]

_AHEAD = 3  # batches prepared before they are asked for
_CACHE_BYTES = 2_000_000_000
_FIRST = 2  # threads that `auto` begins with
_LOOKED_AT_S, _TOO_MUCH = 0.5, 0.02  # how often it looks whether it needs another, and the share of waiting that asks


class Cutter(Protocol):
    """Gives views of images."""

    def cut(self, record: ImageRecord, views: Sequence[View], size: int) -> list[Images]:
        """Views of one image as squares, uint8 [size, size, 3] each."""


class ImageCache:
    """Decoded images, kept until they fill 2 GB; the last used stay. Safe to use from several threads."""

    def __init__(self, max_megapixels: float, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_megapixels, self._max_bytes = max_megapixels, max_bytes
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, record: ImageRecord) -> Image.Image:
        """The upright RGB image.

        Raises:
            DataError: the file vanished or changed since the stage `data` read it.
        """
        with self._lock:
            image = self._images.get(record.id)
            if image is not None:
                self._images.move_to_end(record.id)
                return image
        image = self.decode(record)
        with self._lock:
            if record.id not in self._images:
                self._images[record.id] = image
                self._bytes += image.width * image.height * 3
                while self._bytes > self._max_bytes and len(self._images) > 1:
                    _, old = self._images.popitem(last=False)
                    self._bytes -= old.width * old.height * 3
        return image

    def decode(self, record: ImageRecord) -> Image.Image:
        """The same, from the file, without keeping it.

        Raises:
            DataError: as `get`.
        """
        try:
            image = decode(record.path, self._max_megapixels)
        except DecodeError as error:
            raise DataError(
                f"{record.path} was fine when the run began, now: {error}. The same command goes on"
            ) from error
        if image.size != (record.width, record.height):
            raise DataError(f"{record.path} changed while the run worked. The same command reads it anew")
        return image

    def cut(self, record: ImageRecord, views: Sequence[View], size: int) -> list[Images]:
        """Views of one image as squares, uint8 [size, size, 3] each.

        Raises:
            DataError: as `get`.
        """
        image = self.get(record)
        return [render(image, view, size) for view in views]


def iterate(
    cache: Cutter,
    batches: Iterable[Sequence[tuple[ImageRecord, Sequence[View]]]],
    size: int,
    workers: int,
) -> Iterator[Images]:
    """Render batch after batch, a few ahead of the reader: see `Loader.load`."""
    return Loader(workers).load(cache, batches, size)


@final
class Loader:
    """Renders batches ahead in threads, and knows how long it was waited for.

    Args:
        workers: threads (Pillow releases the interpreter while it decodes and resizes). auto: begins with 2, and one
            more works whenever a reader waited for over 2 % of half a second or longer.
        most: threads of auto.
    """

    def __init__(self, workers: int | Literal["auto"], most: int = 1) -> None:
        self._grows = workers == "auto"
        self.workers = min(_FIRST, most) if workers == "auto" else workers
        self._most = most if self._grows else self.workers
        self.waited_s = 0.0
        self._permits = Semaphore(self.workers)
        self._since, self._waited_then = time.perf_counter(), 0.0

    def load(
        self, cache: Cutter, batches: Iterable[Sequence[tuple[ImageRecord, Sequence[View]]]], size: int
    ) -> Generator[Images, None, None]:
        """Render batch after batch, a few ahead of the reader.

        Args:
            cache: gives the images.
            batches: for each batch the records and the views of each; all views of one are cut from one decode.
            size: side of the rendered squares in pixels.

        Yields:
            uint8 [sum of views, size, size, 3] for each batch: views of the first record, then of the second, …
        """

        def cut(record: ImageRecord, views: Sequence[View], target: Images) -> None:
            with self._permits:
                for place, pixels in enumerate(cache.cut(record, views, size)):
                    target[place] = pixels

        with ThreadPoolExecutor(self._most, thread_name_prefix="decode") as pool:
            waiting: deque[tuple[Images, list[Future[None]]]] = deque()
            following = iter(batches)
            try:
                while True:
                    asked = time.perf_counter()
                    while len(waiting) < _AHEAD and (batch := next(following, None)) is not None:
                        ends = list(accumulate((len(views) for _, views in batch), initial=0))
                        images = np.empty((ends[-1], size, size, 3), np.uint8)
                        jobs = zip(batch, ends, strict=False)
                        futures = [pool.submit(cut, *one, images[at : at + len(one[1])]) for one, at in jobs]
                        waiting.append((images, futures))
                    if not waiting:
                        return
                    for future in waiting[0][1]:
                        future.result()
                    images, _ = waiting.popleft()
                    self._count(time.perf_counter() - asked)
                    yield images
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _count(self, waited: float) -> None:
        """Add to what was waited, and let another thread work where it was too much."""
        self.waited_s += waited
        now = time.perf_counter()
        if not self._grows or now - self._since < _LOOKED_AT_S:
            return
        if self.waited_s - self._waited_then > _TOO_MUCH * (now - self._since) and self.workers < self._most:
            self.workers += 1
            self._permits.release()
        self._since, self._waited_then = now, self.waited_s
