"""Batches of rendered views, decoded once and prepared ahead by threads, in an order that depends on nothing else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
from PIL import Image

from distill.core.errors import DataError
from distill.core.types import ImageRecord, Images
from distill.data.decode import DecodeError, decode
from distill.data.views import View, render

__all__ = ["ImageCache", "iterate"]

_AHEAD = 3  # batches prepared before they are asked for
_CACHE_BYTES = 2_000_000_000


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
        try:
            image = decode(record.path, self._max_megapixels)
        except DecodeError as error:
            raise DataError(
                f"{record.path} was fine when the run began, now: {error}. The same command goes on"
            ) from error
        if image.size != (record.width, record.height):
            raise DataError(f"{record.path} changed while the run worked. The same command reads it anew")
        with self._lock:
            if record.id not in self._images:
                self._images[record.id] = image
                self._bytes += image.width * image.height * 3
                while self._bytes > self._max_bytes and len(self._images) > 1:
                    _, old = self._images.popitem(last=False)
                    self._bytes -= old.width * old.height * 3
        return image


def iterate(
    cache: ImageCache,
    batches: Iterable[Sequence[tuple[ImageRecord, Sequence[View]]]],
    size: int,
    workers: int,
) -> Iterator[Images]:
    """Render batch after batch, a few ahead of the reader.

    Args:
        cache: gives the images.
        batches: for each batch the records and the views of each; all views of one are cut from one decode.
        size: side of the rendered squares in pixels.
        workers: threads (Pillow releases the interpreter while it decodes and resizes).

    Yields:
        uint8 [sum of views, size, size, 3] for each batch: views of the first record, then of the second, …
    """

    def cut(record: ImageRecord, views: Sequence[View]) -> list[Images]:
        image = cache.get(record)
        return [render(image, view, size) for view in views]

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: list[list[Future[list[Images]]]] = []
        following = iter(batches)
        try:
            while True:
                while len(waiting) < _AHEAD and (batch := next(following, None)) is not None:
                    waiting.append([pool.submit(cut, record, views) for record, views in batch])
                if not waiting:
                    return
                yield np.stack([pixels for future in waiting.pop(0) for pixels in future.result()])
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
