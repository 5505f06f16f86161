"""The stage that asks the teacher about every view and writes the store, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.config import LabelSettings
from distill.core.progress import Progress
from distill.core.types import FloatArray, ImageRecord, Predictor, softmax
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, View, stored_view
from distill.labels import store

__all__ = ["label"]


def label(
    teacher: Predictor,
    records: Sequence[ImageRecord],
    folder: Path,
    settings: LabelSettings,
    *,
    cache: ImageCache,
    resize: Resize,
    min_area: float,
    mirror: bool,
    seed: int,
    batch_size: int,
    facts: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Ask the teacher about every stored view of every record; shards that exist are kept.

    A shard's batches begin at its first image, so a labelling that was killed ends with the same bytes as one that was
    not.

    Args:
        teacher: answers in the classes of the data.
        records: in order of id.
        folder: of the store.
        settings: views and top-k.
        cache: gives the images.
        resize: shape of the fixed view.
        min_area: smallest share of a random crop.
        mirror: whether views are mirrored.
        seed: of the views.
        batch_size: views in one forward pass, at most; whole images are kept together.
        facts: written into the store's manifest.
        progress: told of each image.
    """
    k = min(settings.top_k, len(teacher.class_names))
    images_a_batch = max(1, batch_size // settings.views)
    shards = [records[at : at + store.IMAGES_A_SHARD] for at in range(0, len(records), store.IMAGES_A_SHARD)]

    def with_views(record: ImageRecord) -> tuple[ImageRecord, list[View]]:
        size = (record.width, record.height)
        numbers = range(settings.views)
        return record, [
            stored_view(record.id, i, *size, resize, seed=seed, min_area=min_area, mirror=mirror) for i in numbers
        ]

    with progress.task("labelling", len(records)) as task:
        for number, shard in enumerate(shards):
            path = store.shard_path(folder, number)
            if path.exists():
                task.advance(len(shard))
                continue
            rows: list[store.Row] = []
            shown = [with_views(record) for record in shard]
            batches = [shown[at : at + images_a_batch] for at in range(0, len(shown), images_a_batch)]
            for batch, images in zip(batches, iterate(cache, batches, teacher.image_size, workers=2), strict=True):
                probabilities = softmax(teacher.predict(images))
                views = [(record, i, view) for record, chosen in batch for i, view in enumerate(chosen)]
                rows += [_row(*view, p, k) for view, p in zip(views, probabilities, strict=True)]
                task.advance(len(batch))
            store.write_shard(path, rows)
    store.finish(
        folder,
        {
            **facts,
            "views": settings.views,
            "top_k": k,
            "classes": len(teacher.class_names),
            "class_names": list(teacher.class_names),
            "rows": len(records) * settings.views,
            "shards": len(shards),
        },
    )


def _row(record: ImageRecord, index: int, view: View, probabilities: FloatArray, k: int) -> store.Row:
    order = np.argsort(-probabilities, kind="stable")[:k].astype(np.uint16)
    top = probabilities[order].astype(np.float16)
    return store.Row(record.id, index, view, order, top, max(0.0, 1.0 - float(top.astype(np.float32).sum())))
