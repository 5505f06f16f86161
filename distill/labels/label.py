"""The stage that asks the teacher about every view and writes the store, shard by shard, here or on many machines."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from itertools import compress, cycle, islice
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, final

from distill.config import LabelSettings
from distill.core.errors import StoreError, TeacherError
from distill.core.files import read_json, write_json
from distill.core.progress import Progress, Task
from distill.core.types import FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache, iterate
from distill.data.views import View, ViewPlan
from distill.labels import store
from distill.labels.shards import PLAN, REVISION, Kind, Store, complete, precisions, shard_path
from distill.labels.store import LabelStore

__all__ = ["Asking", "Extent", "Labelling", "Shown", "ViewLabelling", "batches_of", "whole"]

Shown = tuple[ImageRecord, Sequence[View]]
"""An image and what of it is shown."""

T = TypeVar("T")
S = TypeVar("S", bound=Store)

_DECIDES = ("revision", "class_map", "class_names", "top_k")
_MOST_CLASSES = 1 << 16  # a stored class has 16 bits
_WORKERS = 2  # one thread decodes 256 px photos and cuts 8 views of 192 px each at 1,570 views/s


class Extent(NamedTuple):
    """How much there is to ask.

    Args:
        total: questions to the teacher.
        a_shard: of these, in each shard but the last.
    """

    total: int
    a_shard: int

    @property
    def shards(self) -> int:
        """Number of them."""
        return -(-self.total // self.a_shard)

    def of(self, numbers: Iterable[int]) -> int:
        """Questions in these shards."""
        return sum(min(self.a_shard, self.total - number * self.a_shard) for number in numbers)


class Labelling(ABC, Generic[T, S]):
    """A teacher's answers on their way into a store.

    What an earlier store holds of the same teacher, asked in the same way, is taken from there; only other images are
    asked about.

    A shard's batches begin at its first image and have exactly the set size, so it has the same bytes wherever it is
    made, and a labelling that was killed ends with those of one that was not. Decoding and writing overlap the
    teacher's work. The plan, a file that becomes the store's manifest when all shards are there, keeps what whoever
    makes the next shard must keep to.

    Args:
        teacher: answers in the classes of the data.
        records: in order of id.
        folder: of the store.
        facts: written into the store's manifest.
        an_image: views of each image.
        images_a_shard: in each shard but the last.
        cache: gives the images.
        batch_size: views in one forward pass, unless the plan says another.
        earlier: opens the earlier store.
    """

    kind: ClassVar[Kind]
    decides: ClassVar[tuple[str, ...]]
    """Facts of a store, beside those of every kind, on which an answer rests."""
    unit: ClassVar[str]
    """What the teacher is asked about, for people."""

    def __init__(
        self,
        teacher: Predictor,
        records: Sequence[ImageRecord],
        folder: Path,
        facts: Mapping[str, Any],
        *,
        an_image: int,
        images_a_shard: int,
        cache: ImageCache,
        batch_size: int,
        earlier: Callable[[], S] | None,
    ) -> None:
        self._teacher, self._records, self._folder, self._cache = teacher, records, folder, cache
        self._images_a_shard = images_a_shard
        questions = an_image * teacher.passes
        self.extent = Extent(len(records) * questions, images_a_shard * questions)
        plan = folder / PLAN
        self._plan = {
            "kind": self.kind,
            "revision": REVISION,
            **facts,
            "classes": len(teacher.class_names),
            "class_names": list(teacher.class_names),
            "images": len(records),
            "shards": self.extent.shards,
            "batch_size": read_json(plan)["batch_size"] if plan.exists() else batch_size,
        }
        self._earlier = self._same(earlier) if earlier else None
        known = self._earlier
        self._plan["taken_over"] = 0 if known is None else sum(record.id in known for record in records)

    @abstractmethod
    def show(self, record: ImageRecord) -> Shown:
        """What is shown of an image."""

    @abstractmethod
    def ask(self, asking: Asking, shown: Sequence[Shown]) -> T:
        """The answers for a shard."""

    @abstractmethod
    def write(self, path: Path, known: Sequence[Shown], asked: Sequence[Shown], answers: T | None) -> None:
        """Write a shard of what the earlier store knows and of answers; called in another thread.

        Args:
            path: of the shard.
            known: images that the earlier store holds.
            asked: the others.
            answers: to these; None where there are none.
        """

    def label(self, progress: Progress) -> None:
        """Write every shard that does not exist yet, then the store's manifest.

        Where memory runs out the batch is halved for the rest of the labelling, also after an interruption.

        Raises:
            TeacherError: not even one view fits in memory, or the teacher does not answer as it should.
        """
        self._keep(self._plan["batch_size"])
        with progress.task("labelling", self.extent.total, self.unit) as task:
            self._fill(range(self.extent.shards), self._asking(task, self._keep))
        complete(self._folder)

    def settle(self, progress: Progress) -> None:
        """Write the plan, with a batch that was seen to fit in memory; a plan that exists stays.

        Raises:
            TeacherError: not even one view fits in memory.
        """
        if (self._folder / PLAN).exists():
            return
        with progress.task("settling", self._plan["batch_size"] * self._teacher.passes, self.unit) as task:
            asking = self._asking(task, lambda size: None)
            asking.patiently(lambda: asking.about([*map(whole, islice(cycle(self._records), asking.batch_size))]))
        self._keep(asking.batch_size)

    def label_part(self, numbers: Iterable[int], task: Task) -> None:
        """Write these shards where they do not exist, as the plan says.

        Raises:
            TeacherError: the batch of the plan does not fit in memory, or the teacher does not answer as it should.
        """
        self._fill(numbers, self._asking(task, self._refuse))

    def _fill(self, numbers: Iterable[int], asking: Asking) -> None:
        """One shard is written while the teacher answers for the next."""
        with ThreadPoolExecutor(1) as writer:
            written: Future[None] | None = None
            for number in numbers:
                path = shard_path(self._folder, number)
                if path.exists():
                    asking.task.skip(self.extent.of([number]))
                    continue
                first = number * self._images_a_shard
                shown = [self.show(record) for record in self._records[first : first + self._images_a_shard]]
                known, asked = self._parted(shown)
                asking.task.skip(self.extent.of([number]) * len(known) // len(shown))
                answers = self.ask(asking, asked) if asked else None
                if written is not None:
                    written.result()  # one shard waits to be written while the next is answered, not more
                written = writer.submit(self.write, path, known, asked, answers)
            if written is not None:
                written.result()

    def _same(self, earlier: Callable[[], S]) -> S | None:
        """The earlier store, where there is one whose answers this teacher would give again."""
        try:
            store = earlier()
        except StoreError:  # there is none, or it is damaged: all is asked
            return None
        return store if self._basis(store.facts) == self._basis(self._plan) else None

    def _basis(self, facts: Mapping[str, Any]) -> list[Any]:
        """What an answer rests on, beside the image."""
        teacher = facts.get("teacher")
        digest = teacher.get("digest") if isinstance(teacher, dict) else None
        settings = [facts.get(key) for key in (*_DECIDES, *self.decides)]
        return [digest, precisions(str(facts.get("precision"))), *settings]

    def _parted(self, shown: Sequence[Shown]) -> tuple[list[Shown], list[Shown]]:
        """Those that the earlier store holds, and the others."""
        if self._earlier is None:
            return [], list(shown)
        known = [record.id in self._earlier for record, _ in shown]
        return [*compress(shown, known)], [*compress(shown, (not each for each in known))]

    def _asking(self, task: Task, halved: Callable[[int], None]) -> Asking:
        return Asking(self._teacher, self._cache, self._plan["batch_size"], task, halved)

    def _keep(self, batch_size: int) -> None:
        self._plan["batch_size"] = batch_size
        write_json(self._folder / PLAN, self._plan)

    def _refuse(self, batch_size: int) -> None:
        raise TeacherError(
            f"out of memory with {self._plan['batch_size']} {self.unit} a batch, which fitted where the labelling"
            f" began; all parts of it must be asked in the same batches: set teacher.batch_size to {batch_size}"
        )


@final
class ViewLabelling(Labelling[FloatArray, LabelStore]):
    """Answers to views, one an image.

    Args:
        teacher: answers in the classes of the data.
        records: in order of id.
        folder: of the store.
        settings: number of views and top-k.
        cache: gives the images.
        plan: draws the views.
        batch_size: views in one forward pass.
        fingerprint: of all that decides the answers; written into each shard.
        facts: written into the store's manifest.
        earlier: folder of an earlier store.

    Raises:
        TeacherError: there are too many classes.
    """

    kind = "views"
    decides = ("views", "view_plan")
    unit = "views"

    def __init__(
        self,
        teacher: Predictor,
        records: Sequence[ImageRecord],
        folder: Path,
        settings: LabelSettings,
        *,
        cache: ImageCache,
        plan: ViewPlan,
        batch_size: int,
        fingerprint: str,
        facts: Mapping[str, Any],
        earlier: Path | None = None,
    ) -> None:
        if len(teacher.class_names) > _MOST_CLASSES:
            raise TeacherError(
                f"the label store holds at most {_MOST_CLASSES} classes, found {len(teacher.class_names)}"
            )
        self._views, self._k = settings.views, min(settings.top_k, len(teacher.class_names))
        self._drawn, self._fingerprint = plan, fingerprint
        super().__init__(
            teacher,
            records,
            folder,
            {**facts, "fingerprint": fingerprint, "views": self._views, "top_k": self._k},
            an_image=self._views,
            images_a_shard=store.images_a_shard(self._views),
            cache=cache,
            batch_size=batch_size,
            earlier=partial(LabelStore, earlier) if earlier else None,
        )

    def show(self, record: ImageRecord) -> Shown:
        stored = self._drawn.stored
        return record, [stored(record.id, index, record.width, record.height) for index in range(self._views)]

    def ask(self, asking: Asking, shown: Sequence[Shown]) -> FloatArray:
        return asking.patiently(lambda: softmax(asking.about(shown)))

    def write(self, path: Path, known: Sequence[Shown], asked: Sequence[Shown], answers: FloatArray | None) -> None:
        parts = []
        if known and self._earlier is not None:
            parts.append(self._earlier.about([record.id for record, _ in known]))
        if answers is not None:
            views = [view for _, chosen in asked for view in chosen]
            parts.append(store.Shard.of([record.id for record, _ in asked], views, answers, self._k))
        shard = reduce(store.Shard.joined, parts)
        store.write_shard(path, shard, len(self._teacher.class_names), self._fingerprint)


def whole(record: ImageRecord) -> Shown:
    """The whole image, squashed to the teacher's size."""
    return record, (View(0, 0, record.width, record.height, False),)


def batches_of(shown: Sequence[Shown], batch_size: int) -> list[list[Shown]]:
    """Cut views into batches of exactly `batch_size` (the last may be smaller); an image's views may part."""
    batches: list[list[Shown]] = [[]]
    free = batch_size
    for record, views in shown:
        rest = list(views)
        while rest:
            if free == 0:
                batches.append([])
                free = batch_size
            batches[-1].append((record, rest[:free]))
            rest, free = rest[free:], max(0, free - len(rest))
    return batches if batches[0] else []


class Asking:
    """Asks a teacher in batches as large as memory allows.

    Args:
        teacher: that is asked.
        cache: gives the images.
        batch_size: views in one forward pass.
        task: told of each batch.
        halved: told of a smaller batch before it is used; may refuse it by an error.
    """

    def __init__(
        self, teacher: Predictor, cache: ImageCache, batch_size: int, task: Task, halved: Callable[[int], None]
    ) -> None:
        self.teacher, self.task, self.batch_size = teacher, task, batch_size
        self._cache, self._halved = cache, halved

    def about(self, shown: Sequence[Shown]) -> FloatArray:
        """Logits float32 [sum of views, …, C]."""
        return self.teacher.predict_all(lambda size: self._render(shown, size))

    def patiently(self, work: Callable[[], T]) -> T:
        """Do all of the work for a shard; where memory runs out, do all of it again with half the batch.

        Raises:
            TeacherError: not even one view fits in memory.
        """
        while True:
            try:
                return work()
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                if self.batch_size == 1:
                    raise TeacherError(f"the teacher does not fit in memory, even for one view ({error})") from error
            self._halved(self.batch_size // 2)
            self.batch_size //= 2
            self.task.note(f"out of memory, going on with {self.batch_size} views a batch")
            torch = sys.modules.get("torch")
            if torch is not None:
                torch.cuda.empty_cache()

    def _render(self, shown: Sequence[Shown], size: int) -> Iterable[Images]:
        batches = batches_of(shown, self.batch_size)
        for images in iterate(self._cache, batches, size, _WORKERS):
            yield images
            self.task.advance(len(images))


def _is_out_of_memory(error: Exception) -> bool:
    """Torch raises its own class on a GPU and a plain RuntimeError on a CPU."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in ("out of memory", "can't allocate memory"))
