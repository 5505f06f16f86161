"""Reading photos from a folder, a tar archive, a Parquet table and a URL, against the bare decoder.

Whatever the form, a photo is decoded by Pillow, and that takes most of the time: the ceiling is decoding bytes that lie
in memory already. The stage `data` reads in order and hashes as well; later stages read in an order of their own. A
member of a tar is one read at a known place. A row of a table costs its row group, so in order nothing is lost, and in
random order, where the table does not fit in the memory kept for groups, each photo pays for a hundred.

Figures are images for each second of processor time, median of interleaved rounds: that is what a machine with other
work tells reliably. Files are in the system's cache; disks and networks add their own time.

    python benchmarks/sources.py [--images 400 --rounds 5]

Last line of stdout: one JSON object, images a second by form and order, with the ratio to the bare decoder.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from _photos import make_photos
from rich.console import Console
from rich.table import Table

from distill.config import DataSettings
from distill.core.files import sha256_of_stream
from distill.data import parquet_rows
from distill.data.decode import decode, decode_stream
from distill.data.opener import opened
from distill.data.sources import find

_BUCKET = "memory://benchmark/photos.tar"


def main() -> None:
    """Write the same photos in each form, then read them in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        forms = _write(Path(root), options.images)
        (Path(root) / "golden" / "a").mkdir(parents=True)
        (Path(root) / "golden" / "a" / "x.jpg").touch()
        listed: dict[str, float] = {}
        addresses: dict[str, list[str]] = {}
        for form, source in forms.items():
            settings = DataSettings.model_validate({"unlabeled": str(source), "validation": str(Path(root) / "golden")})
            start = time.process_time()
            addresses[form] = [c.path for c in find(settings) if c.origin == "unlabeled"]
            listed[form] = (time.process_time() - start) / options.images * 1e6
        photos = [Path(path).read_bytes() for path in addresses["folder"]]
        order = np.random.default_rng(0).permutation(options.images).tolist()
        shuffled = {form: [paths[place] for place in order] for form, paths in addresses.items()}
        works: dict[tuple[str, str], Callable[[], None]] = {("bare decoder", "in order"): lambda: _bare(photos)}
        for form in forms:
            works[form, "in order"] = lambda form=form: _in_order(addresses[form])  # type: ignore[misc]
            works[form, "random"] = lambda form=form: _random(shuffled[form])  # type: ignore[misc]
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in works}
        for _ in range(options.rounds):
            for key, work in works.items():
                # Random order with one group kept stands for a table that is larger than what is kept.
                parquet_rows._groups = parquet_rows._Groups()
                parquet_rows._CACHE_BYTES = 0 if key[1] == "random" else 512_000_000
                start = time.process_time()
                work()
                seconds[key].append(time.process_time() - start)
    rates = {key: options.images / statistics.median(taken) for key, taken in seconds.items()}
    bare = rates["bare decoder", "in order"]
    table = Table("source", "listing, us an image", "data stage, images/s", "of bare", "random, images/s", "of bare")
    table.add_row("bare decoder", "", f"{bare:,.0f}", "1.00", "", "")
    for form in forms:
        first, other = rates[form, "in order"], rates[form, "random"]
        table.add_row(
            form, f"{listed[form]:.0f}", f"{first:,.0f}", f"{first / bare:.2f}", f"{other:,.0f}", f"{other / bare:.2f}"
        )
    Console().print(table)
    print(
        json.dumps(
            {
                "images": options.images,
                "rounds": options.rounds,
                "listing_us_an_image": listed,
                "images_a_cpu_second": {f"{form}, {order}": round(rate, 1) for (form, order), rate in rates.items()},
                "of_bare_decoder": {f"{form}, {order}": round(rate / bare, 3) for (form, order), rate in rates.items()},
            }
        )
    )


def _write(root: Path, images: int) -> dict[str, Path | str]:
    records = make_photos(root / "photos", images)
    paths = sorted(Path(record.path) for record in records)
    with tarfile.open(root / "photos.tar", "w") as tar:
        for path in paths:
            tar.add(path, arcname=path.name)
    content = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    tables = {}
    for rows in (10, 100):
        tables[rows] = root / f"rows{rows}.parquet"
        pyarrow.parquet.write_table(pa.table({"image": content}), tables[rows], row_group_size=rows)
    with fsspec.open(_BUCKET, "wb") as copy:
        copy.write((root / "photos.tar").read_bytes())
    forms: dict[str, Path | str] = {"folder": root / "photos", "tar": root / "photos.tar", "tar behind a URL": _BUCKET}
    return forms | {f"parquet, {rows} rows a group": path for rows, path in tables.items()}


def _bare(photos: list[bytes]) -> None:
    for photo in photos:
        decode_stream(io.BytesIO(photo))


def _in_order(addresses: list[str]) -> None:
    """As the stage `data` reads."""
    for address in addresses:
        with opened(address) as stream:
            decode_stream(stream)
            stream.seek(0)
            sha256_of_stream(stream)


def _random(addresses: list[str]) -> None:
    """As later stages read."""
    for address in addresses:
        decode(address)


if __name__ == "__main__":
    main()
