"""Small pictures of images that a page shows: bounded in number and size."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from PIL import Image

from distill.audit.document import Finding
from distill.core.overlay import background, class_colors, overlay
from distill.core.progress import Progress
from distill.data.decode import DecodeError, decode
from distill.data.manifest import Manifest
from distill.data.mask_file import read_mask

__all__ = ["SHOWN", "SHOWN_PAIRS", "Pictures"]

SHOWN: Final = 24
"""Images shown of a finding."""

SHOWN_PAIRS: Final = 16
"""Pairs shown of a finding."""

_SIDE: Final = 200  # of a picture in pixels, at most
_QUALITY: Final = 80  # about 7 kB a picture


class Pictures:
    """Draws images of a manifest, with their masks laid over them.

    Args:
        manifest: knows the masks.
        max_megapixels: of an image.
    """

    def __init__(self, manifest: Manifest, max_megapixels: float) -> None:
        self._max_megapixels = max_megapixels
        self._masks = {record.path: record.mask or record.hidden_mask for record in manifest.records}
        self._colors = class_colors(len(manifest.classes))
        self._clear = background(manifest.classes)

    def of(self, findings: Sequence[Finding], more: Iterable[str], progress: Progress) -> dict[str, bytes]:
        """JPEG by path; files that cannot be read are left out.

        Args:
            findings: whose first images and pairs are drawn.
            more: paths of further images.
            progress: told of each picture.
        """
        paths: list[str] = []
        for finding in findings:
            paths += [image.path for image in finding.images[:SHOWN]]
            paths += [image.path for pair in finding.pairs[:SHOWN_PAIRS] for image in (pair.first, pair.second)]
        wanted = list(dict.fromkeys([*paths, *more]))
        drawn: dict[str, bytes] = {}
        with ThreadPoolExecutor() as pool, progress.task("drawing pictures", len(wanted)) as task:
            for path, picture in zip(wanted, pool.map(self._drawn, wanted), strict=True):
                if picture is not None:
                    drawn[path] = picture
                task.advance(1)
        return drawn

    def _drawn(self, path: str) -> bytes | None:
        try:
            image = decode(path, self._max_megapixels)
        except (DecodeError, ValueError):
            return None
        # A strip of 1x5000 pixels would become one of no width.
        scale = min(1.0, _SIDE / max(image.size))
        size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        mask = self._masks.get(path)
        if mask is not None:
            values = Image.fromarray(read_mask(mask)).resize(size, Image.Resampling.NEAREST)
            laid = overlay(np.asarray(small), np.asarray(values), self._colors, clear=self._clear, outline=True)
            small = Image.fromarray(laid)
        data = io.BytesIO()
        small.save(data, "JPEG", quality=_QUALITY)
        return data.getvalue()
