"""The stage that asks the teacher about every view and writes the store, shard by shard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from distill.config import LabelSettings
from distill.core.errors import TeacherError
from distill.core.files import read_json, write_json
from distill.core.progress import Progress, Task
from distill.core.types import FloatArray, ImageRecord, Images, Predictor, softmax
from distill.data.batches import ImageCache, iterate
from distill.data.views import View, ViewPlan
from distill.labels import store
from distill.labels.shards import shard_path

__all__ = ["Asking", "Shown", "batches_of", "fill", "label"]

Shown = tuple[ImageRecord, Sequence[View]]
"""An image and what of it is shown."""

T = TypeVar("T")

_PLAN = "plan.json"
_MOST_CLASSES = 1 << 16  # a stored class has 16 bits
_WORKERS = 2  # one thread decodes 256 px photos and cuts 8 views of 192 px each at 1,570 views/s


def label(
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
    progress: Progress,
) -> None:
    """Ask the teacher about every stored view of every record; shards that exist are kept.

    A shard's batches begin at its first image, so a labelling that was killed ends with the same bytes as one that was
    not. Decoding and writing overlap the teacher's work. Where memory runs out the batch is halved for the rest of the
    labelling, also after an interruption.

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
        progress: told of each batch.

    Raises:
        TeacherError: not even one view fits in memory, or there are too many classes.
    """
    if len(teacher.class_names) > _MOST_CLASSES:
        raise TeacherError(f"the label store holds at most {_MOST_CLASSES} classes, found {len(teacher.class_names)}")
    k = min(settings.top_k, len(teacher.class_names))

    def show(record: ImageRecord) -> Shown:
        drawn = [plan.stored(record.id, index, record.width, record.height) for index in range(settings.views)]
        return record, drawn

    def write(path: Path, shown: Sequence[Shown], answers: FloatArray) -> None:
        views = [view for _, chosen in shown for view in chosen]
        shard = store.Shard.of([record.id for record, _ in shown], views, answers, k)
        store.write_shard(path, shard, len(teacher.class_names), fingerprint)

    with progress.task("labelling", len(records) * settings.views * teacher.passes, "views") as task:
        asking = Asking(teacher, cache, folder / _PLAN, batch_size, task)

        def ask(shown: Sequence[Shown]) -> FloatArray:
            return asking.patiently(lambda: softmax(asking.about(shown)))

        shards = fill(folder, records, store.images_a_shard(settings.views), show, ask, write, asking)
    store.finish(
        folder,
        {
            **facts,
            "fingerprint": fingerprint,
            "views": settings.views,
            "top_k": k,
            "classes": len(teacher.class_names),
            "class_names": list(teacher.class_names),
            "images": len(records),
            "shards": shards,
            "batch_size": asking.batch_size,
        },
    )


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
    """Asks a teacher in batches as large as memory allows; remembers that size in a file.

    Args:
        teacher: that is asked.
        cache: gives the images.
        plan: file in which a smaller batch is kept.
        batch_size: views in one forward pass, unless the file says another.
        task: told of each batch.
    """

    def __init__(self, teacher: Predictor, cache: ImageCache, plan: Path, batch_size: int, task: Task) -> None:
        self.teacher, self.task = teacher, task
        self._cache, self._plan = cache, plan
        self.batch_size: int = read_json(plan)["batch_size"] if plan.exists() else batch_size

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
            self.batch_size //= 2
            self.task.note(f"out of memory, going on with {self.batch_size} views a batch")
            write_json(self._plan, {"batch_size": self.batch_size})
            torch = sys.modules.get("torch")
            if torch is not None:
                torch.cuda.empty_cache()

    def _render(self, shown: Sequence[Shown], size: int) -> Iterable[Images]:
        batches = batches_of(shown, self.batch_size)
        for images in iterate(self._cache, batches, size, _WORKERS):
            yield images
            self.task.advance(len(images))


def fill(
    folder: Path,
    records: Sequence[ImageRecord],
    a_shard: int,
    show: Callable[[ImageRecord], Shown],
    ask: Callable[[Sequence[Shown]], T],
    write: Callable[[Path, Sequence[Shown], T], None],
    asking: Asking,
) -> int:
    """Write every shard that does not exist yet; one is written while the teacher answers for the next.

    Args:
        folder: of the store.
        records: in order of id.
        a_shard: images in each shard but the last.
        show: what is shown of an image.
        ask: gives the answers for a shard.
        write: writes a shard; called in another thread.
        asking: is told of shards that exist.

    Returns:
        Number of shards.
    """
    parts = [records[at : at + a_shard] for at in range(0, len(records), a_shard)]
    with ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for number, part in enumerate(parts):
            path = shard_path(folder, number)
            if path.exists():
                asking.task.skip(len(part) * len(show(part[0])[1]) * asking.teacher.passes)
                continue
            shown = [show(record) for record in part]
            answers = ask(shown)
            if written is not None:
                written.result()  # one shard waits to be written while the next is answered, not more
            written = writer.submit(write, path, shown, answers)
        if written is not None:
            written.result()
    return len(parts)


def _is_out_of_memory(error: Exception) -> bool:
    """Torch raises its own class on a GPU and a plain RuntimeError on a CPU."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in ("out of memory", "can't allocate memory"))
