"""Proof that a store still holds what the teacher says: `distill labels verify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill.config import RunConfig
from distill.core.errors import StoreError
from distill.core.progress import Progress
from distill.core.types import FloatArray, Images, Predictor, softmax
from distill.data.batches import ImageCache, iterate
from distill.data.views import ViewPlan
from distill.labels.again import AGAIN, ALLOWED, cut_of, number_of, same_images, same_labeller, sampled
from distill.labels.label import Shown, batches_of
from distill.labels.stat import Labelled
from distill.labels.store import Shard, images_a_shard

__all__ = ["Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """What asking the teacher again gave.

    Args:
        shards: read, with checksums that match.
        views: that were drawn again and are those of the store.
        asked: views that the teacher was asked about again.
        batches: in which it was.
        batch_size: views a batch.
        taken_over: images whose answers are of an earlier labelling.
        precision: it answered in.
        values: stored probabilities that were compared.
        above: how many differ by more than the rounding of what is stored.
        largest: largest difference.
        rounding: half a unit in the last place (float16) of the value that differs most.
    """

    shards: int
    views: int
    asked: int
    batches: int
    batch_size: int
    taken_over: int
    precision: str
    values: int
    above: int
    largest: float
    rounding: float

    def describe(self) -> Iterator[str]:
        """For people."""
        yield f"{number_of(self.shards, 'shard')} read, all checksums match"
        yield f"{self.views} views drawn again, all are those of the store"
        yield f"the teacher is the one that filled the store (same digest), answering in {self.precision}"
        batches = number_of(self.batches, "batch", "es")
        yield f"{self.asked} views asked again in {batches} of {self.batch_size}, {cut_of(self.taken_over)}"
        yield (
            f"largest difference of {self.values} probabilities: {self.largest:.2e}; rounding to float16 alone may be"
            f" {self.rounding:.2e} there"
        )
        if not self.above:
            yield "all differences are rounding of what is stored"
            return
        yield (
            f"{self.above} differ by more than that rounding: normal where another machine, thread count or library"
            f" version answers (up to about 0.005 in bfloat16); above {ALLOWED:g} it would be an error"
        )


def verify(labelled: Labelled, config: RunConfig, sample: int, progress: Progress) -> Verified:
    """Read all shards, draw all views again, and ask the teacher again about a sample of whole batches.

    The store and its folder are only read.

    Args:
        labelled: a store.
        config: of the run; its seed draws the sample.
        sample: views to ask about, rounded up to whole batches.
        progress: told of each batch.

    Raises:
        StoreError: a shard is damaged; views, teacher or precision are not those the store was filled with; or an
            answer differs by more than `ALLOWED`.
        DataError: an image of the sample has changed.
    """
    store = labelled.store
    store.check()
    plan = ViewPlan(
        config.data.resize, config.train.min_crop, config.data.mirror, config.train.color, config.seed
    )  # as `stages.Work.view_plan`
    _same_plan(asdict(plan), store.facts["view_plan"])
    for number in range(store.shards):
        _same_views(_shown(labelled, plan, number), store.shard(number))
    cache = ImageCache(config.data.max_megapixels)
    labeller, precision = same_labeller(labelled, config, cache)
    batch_size = int(store.facts["batch_size"])
    chosen = sampled(len(store), images_a_shard(store.views) * store.views, batch_size, sample, config.seed)
    asked: list[list[Shown]] = []
    stored: list[tuple[Shard, slice]] = []
    for number, places in chosen.items():
        shown, shard = _shown(labelled, plan, number), store.shard(number)
        cut = batches_of(shown, batch_size)
        asked += [cut[place] for place in places]
        stored += [(shard, slice(place * batch_size, (place + 1) * batch_size)) for place in places]
    same_images(asked)
    answers = _ask(labeller, asked, cache, progress)
    labeller.close()
    ids, kept = (
        np.concatenate([getattr(shard, name)[rows] for shard, rows in stored]) for name in ("ids", "probabilities")
    )
    differences = np.abs(np.take_along_axis(answers, ids, axis=1).astype(np.float64) - kept.astype(np.float64))
    rounding = np.spacing(kept).astype(np.float64) / 2
    worst = int(differences.argmax())
    found = Verified(
        shards=store.shards,
        views=len(store),
        asked=len(answers),
        batches=len(asked),
        batch_size=batch_size,
        taken_over=store.facts.get("taken_over", 0),
        precision=precision,
        values=differences.size,
        above=int((differences > rounding).sum()),
        largest=float(differences.flat[worst]),
        rounding=float(rounding.flat[worst]),
    )
    if not found.largest <= ALLOWED:  # written so that NaN fails
        raise StoreError(
            f"{store.folder}: the teacher now answers differently. {found.above} of {found.values} probabilities of"
            f" {found.asked} views differ by more than rounding, the largest by {found.largest:.3g} (allowed"
            f" {ALLOWED:g}); {AGAIN} after deleting the folder"
        )
    return found


def _shown(labelled: Labelled, plan: ViewPlan, number: int) -> list[Shown]:
    """Images of a shard with their views, drawn again."""
    views, a_shard = labelled.store.views, images_a_shard(labelled.store.views)
    records = labelled.records[number * a_shard : (number + 1) * a_shard]
    return [(r, [plan.stored(r.id, index, r.width, r.height) for index in range(views)]) for r in records]


def _same_plan(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    changed = [f"{name} was {then.get(name)}, is {value}" for name, value in now.items() if then.get(name) != value]
    if changed:
        raise StoreError(f"the views are not those that the teacher was asked about: {', '.join(changed)}; {AGAIN}")


def _same_views(shown: Sequence[Shown], shard: Shard) -> None:
    drawn = [(record, number, view) for record, views in shown for number, view in enumerate(views)]
    for (record, number, view), stored in zip(drawn, shard.views, strict=True):
        if view != stored:
            raise StoreError(
                f"view {number} of image {record.id[:16]} ({record.path}) is {stored} in the store, but the plan draws"
                f" {view}; {AGAIN}"
            )


def _ask(teacher: Predictor, batches: Sequence[Sequence[Shown]], cache: ImageCache, progress: Progress) -> FloatArray:
    """Probabilities float32 [N, C] of all views, batch after batch."""
    count = sum(len(views) for batch in batches for _, views in batch)
    with progress.task("asking again", count * teacher.passes, "views") as task:

        def rendered(size: int) -> Iterable[Images]:
            for images in iterate(cache, batches, size, workers=2):
                yield images
                task.advance(len(images))

        return softmax(teacher.predict_all(rendered))
