"""The whole store as one table for other programs, an image's view a row: `distill labels export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from distill.core.errors import UserError
from distill.core.files import replacing
from distill.labels.stat import Labelled
from distill.labels.store import Shard, images_a_shard

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["export", "harmless"]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")  # the last four are wide


def export(labelled: Labelled, path: Path) -> int:
    """Write every view, shard after shard, to a file that appears whole or not at all.

    Columns: image (64 hex digits), path, view, left, top, width, height, flip, brightness, contrast, saturation, then
    class_1, probability_1, … of the most probable classes, tail (probability of all others) and entropy in nats.

    In CSV, names of classes and files that a spreadsheet would take for a formula get an apostrophe in front, as
    `harmless` says; Parquet holds them as they are.

    Args:
        labelled: a store.
        path: ends in .parquet or .csv.

    Returns:
        Number of rows.

    Raises:
        UserError: another extension, or a folder of that name.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    writers: dict[str, Callable[[str, Any], Any]] = {
        ".parquet": pyarrow.parquet.ParquetWriter,
        ".csv": pyarrow.csv.CSVWriter,
    }
    kind = path.suffix.lower()
    if kind not in writers:
        raise UserError(f"{path}: expected a name that ends in .parquet or .csv")
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file")
    store = labelled.store
    safe = harmless if kind == ".csv" else str
    names = pa.array([safe(name) for name in labelled.manifest.classes])
    rows = 0
    with replacing(path) as temporary:
        first = _table(labelled, 0, names, safe)
        with writers[kind](str(temporary), first.schema) as writer:
            for number in range(store.shards):
                table = first if number == 0 else _table(labelled, number, names, safe)
                writer.write_table(table)
                rows += table.num_rows
    return rows


def harmless(text: str) -> str:
    """Text that no spreadsheet calculates: an apostrophe comes before a formula (OWASP: CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _table(labelled: Labelled, number: int, names: pa.Array, safe: Callable[[str], str]) -> pa.Table:
    import pyarrow as pa

    store = labelled.store
    shard, first = store.shard(number), number * images_a_shard(store.views)
    records = labelled.records[first : first + len(shard.images)]
    columns: dict[str, Any] = {
        "image": _each([r.id for r in records], store.views),
        "path": _each([safe(r.path) for r in records], store.views),
        "view": pa.array(np.tile(np.arange(store.views, dtype=np.int16), len(records))),
        **_numbers(shard),
    }
    for place in range(shard.ids.shape[1]):
        columns[f"class_{place + 1}"] = names.take(pa.array(shard.ids[:, place]))
        columns[f"probability_{place + 1}"] = shard.probabilities[:, place].astype(np.float32)
    columns |= {"tail": shard.tail.astype(np.float32), "entropy": shard.entropy.astype(np.float32)}
    return pa.table(columns)


def _each(texts: Sequence[str], times: int) -> pa.Array:
    import pyarrow as pa

    return pa.array(texts, pa.string()).take(pa.array(np.repeat(np.arange(len(texts)), times)))


def _numbers(shard: Shard) -> dict[str, Any]:
    """The numbers of each view by their names."""
    numbers = np.array(shard.views, dtype=np.int32)
    return {
        name: numbers[:, place].astype(np.bool_) if name == "flip" else numbers[:, place]
        for place, name in enumerate(shard.views[0]._fields)
    }
