"""Proof that a store of maps still holds what the teacher says: `distill labels verify` where pixels are answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from distill.config import RunConfig
from distill.core.errors import StoreError
from distill.core.progress import Progress
from distill.core.types import Images
from distill.data.batches import ImageCache, iterate
from distill.labels import maps
from distill.labels.again import AGAIN, ALLOWED, cut_of, number_of, same_images, same_labeller, sampled
from distill.labels.label import Shown, batches_of, whole
from distill.labels.map_label import Answer, answer_of
from distill.labels.map_stat import LabelledMaps
from distill.labels.maps import STEP, MapStore

__all__ = ["VerifiedMaps", "verify"]


@dataclass(frozen=True)
class VerifiedMaps:
    """What asking the teacher again gave.

    Args:
        shards: read, with checksums that match.
        asked: images that the teacher was asked about again.
        batches: in which it was.
        batch_size: images a batch.
        taken_over: images whose answers are of an earlier labelling.
        precision: it answered in.
        values: stored soft probabilities that were compared.
        above: how many differ by more than a step.
        largest: largest difference.
        pixels: of masks that were compared.
        equal: how many have the same class.
    """

    shards: int
    asked: int
    batches: int
    batch_size: int
    taken_over: int
    precision: str
    values: int
    above: int
    largest: float
    pixels: int
    equal: int

    def describe(self) -> Iterator[str]:
        """For people."""
        yield f"{number_of(self.shards, 'shard')} read, all checksums match"
        yield f"the teacher is the one that filled the store (same digest), answering in {self.precision}"
        batches = number_of(self.batches, "batch", "es")
        asked, cut = number_of(self.asked, "image"), cut_of(self.taken_over)
        yield f"{asked} asked again in {batches} of {self.batch_size}, {cut}"
        yield (
            f"largest difference of {self.values} soft probabilities: {self.largest:.2e}; they are stored in steps of"
            f" {STEP:.2e}"
        )
        share = 100 * self.equal / self.pixels
        yield f"{share:.4f} % of {self.pixels} mask pixels are equal ({self.pixels - self.equal} are not)"
        if not self.above:
            yield "all differences are rounding of what is stored"
            return
        yield (
            f"{self.above} differ by more than a step: normal where another machine, thread count or library version"
            f" answers (up to about 0.005 in bfloat16); above {STEP + ALLOWED:.3g} it would be an error"
        )


def verify(labelled: LabelledMaps, config: RunConfig, sample: int, progress: Progress) -> VerifiedMaps:
    """Read all shards, and ask the teacher again about a sample of whole batches.

    The store and its folder are only read. Logits of one batch are held at once.

    Args:
        labelled: a store.
        config: of the run; its seed draws the sample.
        sample: images to ask about, rounded up to whole batches.
        progress: told of each batch.

    Raises:
        StoreError: a shard is damaged; teacher or precision are not those the store was filled with; or a probability
            differs by more than `ALLOWED` and a step.
        DataError: an image of the sample has changed.
    """
    store, records = labelled.store, labelled.records
    store.check()
    cache = ImageCache(config.data.max_megapixels)
    labeller, precision = same_labeller(labelled, config, cache)
    batch_size = int(store.facts["batch_size"])
    asked = []
    for number, places in sampled(len(store), maps.IMAGES_A_SHARD, batch_size, sample, config.seed).items():
        first = number * maps.IMAGES_A_SHARD
        cut = batches_of([whole(record) for record in records[first : first + maps.IMAGES_A_SHARD]], batch_size)
        asked += [cut[place] for place in places]
    same_images(asked)
    images = sum(map(len, asked))
    largest, values, above, pixels, equal = 0.0, 0, 0, 0, 0
    with progress.task("asking again", images) as task:
        for batch in asked:
            logits = labeller.predict_all(partial(_rendered, cache, batch))
            for (record, _), each in zip(batch, logits, strict=True):
                place = store.position(record.id)
                answer = answer_of(each, record, store.grid)
                differences = _differences(store, place, answer)
                largest = max(largest, float(differences.max()))  # NaN cannot be: `answer_of` refuses it
                values, above = values + differences.size, above + int((differences > STEP * (1 + 1e-6)).sum())
                mask, _ = store.hard(place)
                pixels, equal = pixels + mask.size, equal + int((mask == answer.mask).sum())
            task.advance(len(batch))
    labeller.close()
    found = VerifiedMaps(
        shards=store.shards,
        asked=images,
        batches=len(asked),
        batch_size=batch_size,
        taken_over=store.facts.get("taken_over", 0),
        precision=precision,
        values=values,
        above=above,
        largest=largest,
        pixels=pixels,
        equal=equal,
    )
    if largest > STEP + ALLOWED:
        raise StoreError(
            f"{store.folder}: the teacher now answers differently. {above} of {values} soft probabilities of {images}"
            f" images differ by more than a step, the largest by {largest:.3g} (allowed {STEP + ALLOWED:.3g}), and"
            f" {pixels - equal} of {pixels} mask pixels; {AGAIN} after deleting the folder"
        )
    return found


def _rendered(cache: ImageCache, batch: Sequence[Shown], size: int) -> Iterator[Images]:
    return iterate(cache, [batch], size, workers=2)


def _differences(store: MapStore, place: int, answer: Answer) -> npt.NDArray[np.float64]:
    """By how much the stored probabilities of an image differ from an answer, float64 in no order."""
    ids, steps = store.kept(place)
    now = np.take_along_axis(answer.soft, ids.astype(np.intp), axis=-1)
    differences: npt.NDArray[np.float64] = np.abs(now.astype(np.float64) - steps * STEP)[steps > 0]
    return differences
