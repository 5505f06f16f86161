"""How often `distill drift` cries wolf, and what it sees: draws of real photos, as they are and changed.

Takes a run with a finished student of classification. Its validation and test photos, which the student was not
fitted to, are one pool without near-copies. In each draw the pool is split at random into a reference and the rest, and
the new images are drawn from the rest: so reference and new images are exchangeable, whatever blocks the splits were
made by, and every alarm on unchanged images is a false one. The changed images are of the same draws:

- blurred: Gaussian, radius in pixels of a photo whose short side is 256; a student at 128 px sees half of it
- darker: every value times 0.73 (one stop less light, at a gamma of 2.2) or 0.53 (two stops)
- a class left out of the new images, or twice as often as it was (every second photo of the others left out)

Two rows show what the test cannot know: new images drawn in blocks of neighbouring file numbers (as from one walk;
images are then not independent), and a reference of training images, which the student was fitted to.

    python benchmarks/drift.py RUN [--draws 20 --images 300 --reference 400 --unchanged 200]

Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from distill.config_file import load_config
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.types import ImageRecord
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.drift.gather import FALSE_ALARMS, part_of, run_tests
from distill.drift.looks import Looks, look
from distill.labels.leaks import find_copies
from distill.trained_student import load_student

_LEVELS = (FALSE_ALARMS, 0.05)  # the tool's own, and a lax one
_BLOCK = 10  # neighbouring file numbers of a class
_Change = Callable[[Image.Image], Image.Image]

CHANGES: dict[str, _Change] = {
    "blurred, radius 1": lambda image: image.filter(ImageFilter.GaussianBlur(1 * min(image.size) / 256)),
    "blurred, radius 2": lambda image: image.filter(ImageFilter.GaussianBlur(2 * min(image.size) / 256)),
    "darker by one stop": lambda image: image.point(lambda value: round(value * 0.5 ** (1 / 2.2))),
    "darker by two stops": lambda image: image.point(lambda value: round(value * 0.25 ** (1 / 2.2))),
}


class _Changed(ImageCache):
    """Images as a change leaves them."""

    def __init__(self, change: _Change) -> None:
        super().__init__(100.0)
        self._change = change

    def get(self, record: ImageRecord) -> Image.Image:
        return self._change(super().get(record))


def main() -> None:
    """Draw, test, count alarms."""
    options = _options()
    progress = Progress(Console(quiet=True))
    run = Run(options.run)
    network, card = load_student(run)
    config = load_config(options.run / "config.yaml")
    manifest = Manifest.load(options.run / "data" / "manifest.parquet")
    cache = ImageCache(config.data.max_megapixels)
    held_out = manifest.of("validation", labelled=True) + manifest.of("test", labelled=True)
    copies = set(find_copies(held_out, cache, progress))
    pool = [record for place, record in enumerate(held_out) if place not in copies]
    resize = card["resize"]
    start = time.monotonic()
    clean = look(network, pool, cache, resize, progress)
    seconds = time.monotonic() - start
    fitted = look(network, manifest.of("train")[: options.reference], cache, resize, progress)
    changed = {name: look(network, pool, _Changed(change), resize, progress) for name, change in CHANGES.items()}
    labels = np.array([record.label for record in pool])
    blocks = np.array([_block(record) for record in pool])

    rows: list[dict[str, Any]] = []

    def add(name: str, draws: int, case: Callable[[np.random.Generator], tuple[Looks, Looks]]) -> None:
        seeds = range(options.seed, options.seed + draws)
        drawn_by = {seed: case(np.random.default_rng(seed)) for seed in seeds}
        tests = [run_tests(*pair, false_alarms=_LEVELS[0], seed=seed) for seed, pair in drawn_by.items()]
        least = [min(row["adjusted_p"] for row in found) for found in tests]
        seen = {row["name"]: sum(found[n]["alarm"] for found in tests) for n, row in enumerate(tests[0])}
        alarms = {str(level): int(sum(p <= level for p in least)) for level in _LEVELS}
        rows.append({"name": name, "draws": draws, "alarms": alarms, "by_test": seen})

    def drawn(rng: np.random.Generator, allowed: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple[Any, Any]:
        order = rng.permutation(len(pool))
        reference, rest = order[: options.reference], order[options.reference :]
        return reference, (rest if allowed is None else rest[allowed(rest)])[: options.images]

    def same(rng: np.random.Generator) -> tuple[Looks, Looks]:
        reference, new = drawn(rng)
        return part_of(clean, reference), part_of(clean, new)

    def of(name: str) -> Callable[[np.random.Generator], tuple[Looks, Looks]]:
        def case(rng: np.random.Generator) -> tuple[Looks, Looks]:
            reference, new = drawn(rng)
            return part_of(clean, reference), part_of(changed[name], new)

        return case

    def without(label: str) -> Callable[[np.random.Generator], tuple[Looks, Looks]]:
        def case(rng: np.random.Generator) -> tuple[Looks, Looks]:
            reference, new = drawn(rng, lambda rest: labels[rest] != label)
            return part_of(clean, reference), part_of(clean, new)

        return case

    def twice(label: str) -> Callable[[np.random.Generator], tuple[Looks, Looks]]:
        def case(rng: np.random.Generator) -> tuple[Looks, Looks]:
            reference, new = drawn(rng, lambda rest: (labels[rest] == label) | (np.arange(len(rest)) % 2 == 0))
            return part_of(clean, reference), part_of(clean, new)

        return case

    def in_blocks(rng: np.random.Generator) -> tuple[Looks, Looks]:
        order = np.argsort(rng.permutation(blocks.max() + 1)[blocks], kind="stable")
        return part_of(clean, order[options.images :]), part_of(clean, order[: options.images])

    def against_fitted(rng: np.random.Generator) -> tuple[Looks, Looks]:
        return fitted, part_of(clean, drawn(rng)[1])

    start = time.monotonic()
    add("the same data", options.draws, same)
    testing = (time.monotonic() - start) / options.draws
    add("the same data, more draws", options.unchanged, same)  # those of the first row among them
    for name in CHANGES:
        add(name, options.draws, of(name))
    for label in manifest.classes:
        share = float((labels == label).mean())
        add(f"without {label} ({100 * share:.0f} %)", options.draws, without(label))
    for label in manifest.classes:
        add(f"{label} twice as often", options.draws, twice(label))
    add("in blocks of neighbouring photos", options.draws, in_blocks)
    add("against training images", options.draws, against_fitted)

    names = list(rows[0]["by_test"])
    table = Table("new images", "draws", *(f"alarms at {level:.0%}" for level in _LEVELS), *names)
    for row in rows:
        table.add_row(
            row["name"], str(row["draws"]), *map(str, row["alarms"].values()), *(str(row["by_test"][n]) for n in names)
        )
    Console(width=160).print(table)
    facts = {"pool": len(pool), "copies": len(copies), "images": options.images, "reference": options.reference}
    times = {"looking_s_an_image": round(seconds / len(pool), 4), "testing_s_a_draw": round(testing, 2)}
    print(json.dumps({"rows": rows, **facts, **times}))


def _block(record: ImageRecord) -> int:
    """Number of a block of neighbouring photos, by class and file number."""
    found = re.fullmatch(r"(.*?)(\d+)", Path(record.path).stem)
    assert found, f"{record.path}: expected a name that ends with a number"
    return _BLOCKS.setdefault((found[1], int(found[2]) // _BLOCK), len(_BLOCKS))


_BLOCKS: dict[tuple[str, int], int] = {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--reference", type=int, default=400)
    parser.add_argument("--unchanged", type=int, default=200, help="draws of the same data, for the rate")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw")
    return parser.parse_args()


if __name__ == "__main__":
    main()
