"""The same few images after every epoch: what the student says of them while it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from distill.core.dense import scale_map
from distill.core.files import read_json, replacing, write_json
from distill.core.overlay import background, class_colors, overlay
from distill.core.types import FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache
from distill.data.views import Resize, fixed_view, render

__all__ = ["Strip", "varied"]

_IMAGES = 8


@final
class Strip:
    """Asks about a fixed batch after each epoch and keeps the answers as `strip.json` and pictures.

    `strip.json`: `images` (id, path, truth), `picture` of the images side by side, and `epochs`: number, `answers` of
    labels (answer, confidence, truth_probability for each image), or `picture` of the masks laid over the images. It
    goes on behind the epochs that it has, as training does. A batch of 8 costs what evaluating 8 images costs.

    Args:
        folder: made if needed.
        records: labelled images.
        cache: gives the images.
        resize: shape of the fixed view.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], cache: ImageCache, resize: Resize) -> None:
        self._folder, self._cache, self._resize = folder, cache, resize
        self._records = varied(records, _IMAGES)

    def __call__(self, epoch: int, predictor: Predictor) -> None:
        """Ask after an epoch, counted from 1."""
        pixels = self._pixels(predictor.image_size)
        logits, names = predictor.predict(pixels), predictor.class_names
        entry: dict[str, Any] = {"epoch": epoch}
        if logits.ndim == 4:
            entry["picture"] = f"epoch-{epoch:04d}"
            self._save(np.concatenate(_laid_over(pixels, logits, names), axis=1), entry["picture"])
        else:
            entry["answers"] = self._said(softmax(logits), names)
        write_json(self._folder / "strip.json", self._with(entry, pixels))

    def _pixels(self, size: int) -> Images:
        views = [fixed_view(record.width, record.height, self._resize) for record in self._records]
        pairs = zip(self._records, views, strict=True)
        return np.stack([render(self._cache.get(record), view, size) for record, view in pairs])

    def _said(self, probabilities: FloatArray, names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "answer": names[int(row.argmax())],
                "confidence": float(row.max()),
                "truth_probability": float(row[names.index(str(record.label))]),
            }
            for record, row in zip(self._records, probabilities, strict=True)
        ]

    def _with(self, entry: dict[str, Any], pixels: Images) -> dict[str, Any]:
        """The document with one epoch more; those that were begun and lost are made anew."""
        path = self._folder / "strip.json"
        before = read_json(path)["epochs"] if path.exists() else []
        if not path.exists():
            self._save(np.concatenate(list(pixels), axis=1), "images")
        images = [{"id": r.id, "path": r.path, "truth": r.label} for r in self._records]
        epochs = [each for each in before if each["epoch"] < entry["epoch"]]
        return {"format": 1, "images": images, "picture": "images", "epochs": [*epochs, entry]}

    def _save(self, picture: Images, name: str) -> None:
        with replacing(self._folder / f"{name}.png") as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")


def varied(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """At most `count` records, of as many classes as there are, always the same ones."""
    seen: dict[str | None, int] = {}
    ranked = []
    for record in sorted(records, key=lambda each: each.id):
        seen[record.label] = turn = seen.get(record.label, -1) + 1
        ranked.append((turn, record.id, record))
    return [record for _, _, record in sorted(ranked, key=lambda each: each[:2])[:count]]


def _laid_over(pixels: Images, logits: FloatArray, names: Sequence[str]) -> list[Images]:
    colors, clear = class_colors(len(names)), background(names)
    side = pixels.shape[1]
    masks = [scale_map(answer, side, side).argmax(axis=-1).astype(np.uint8) for answer in logits]
    return [overlay(picture, mask, colors, clear=clear) for picture, mask in zip(pixels, masks, strict=True)]
