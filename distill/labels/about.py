"""What a look at any label store shares: the images it is about, who filled it, tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distill.core.errors import StoreError
from distill.core.run import Run
from distill.core.types import ImageRecord
from distill.data.manifest import Manifest
from distill.data.rows import Rows
from distill.labels.shards import Store
from distill.report.wording import percent, points

__all__ = ["figures_table", "images_of", "share_of", "teacher_lines"]


def images_of(run: Run, store: Store) -> tuple[Manifest, Rows[ImageRecord]]:
    """All images of a run, and those that its store is about, in its order.

    Raises:
        StoreError: the store is about other images or classes than the run now has.
    """
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    records = manifest.of("train")
    named = store.facts.get("class_names")
    if named != list(manifest.classes):
        raise StoreError(
            f"{store.folder} answers in the classes {named}, the images now have {list(manifest.classes)}; run the same"
            " command again to label anew"
        )
    if not store.is_about(records.values("id")):
        raise StoreError(
            f"{store.folder} is about {store.images} other images than the {len(records)} that the run now trains on;"
            " run the same command again to label anew"
        )
    return manifest, records


def teacher_lines(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Who filled the store, and how."""
    teacher = document["teacher"]
    yield "teacher", f"{teacher['name']}, {teacher['image_size']} px, digest {teacher['digest'][:12]}"
    yield "precision", f"{document['precision']}, {document['batch_size']} views a batch"


def share_of(interval: Mapping[str, float]) -> str:
    """A share with its interval: `67.3 % [62.1, 72.0]`."""
    return f"{percent(interval['value'])} [{points(interval['low'])}, {points(interval['high'])}]"


def figures_table(title: str, *columns: str) -> Any:
    """An empty table of figures for the terminal; the column `class` holds names."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name == "class" else "right")
    return table
