"""How many copies of test images, hidden among unlabelled photos, the stage `data` finds.

From each set of photos 30 images of the test set are drawn, copied in each of these ways, and laid into the unlabelled
pool beside all photos that are there anyway: the same bytes; saved again as JPEG of three qualities, PNG, WebP;
resized; mirrored, upside down, turned; trimmed by 1, 2, 3 and 5 % of each side; and some of these together. The stage
`data` then says, as in `distill run --until data`, what it leaves out. A photo of training or validation that it leaves
out although nobody copied it here is accused, unless it is one of `SECOND_SHOTS`.

    python benchmarks/leakage.py --data /path/to/trashnet [--data /path/to/clothing] [--images 30]

A folder of data holds index.csv (`path` or `image`, `split`, and a label or a mask). Last line of stdout: one JSON
object with the key `sets`: for each set `found` by kind, and `accused`, the share of innocent images.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

from distill import pipeline, stages
from distill.config_file import load_config
from distill.core.environment import describe_environment
from distill.core.files import read_json

Change = Callable[[Image.Image], Image.Image]


def _trimmed(share: float) -> Change:
    def cut(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop((round(share * w), round(share * h), round((1 - share) * w), round((1 - share) * h)))

    return cut


def _resized(scale: float) -> Change:
    return lambda image: image.resize(
        (round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC
    )


def _chained(*changes: Change) -> Change:
    def chain(image: Image.Image) -> Image.Image:
        for change in changes:
            image = change(image)
        return image

    return chain


def _quarter(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_90)


def _same(image: Image.Image) -> Image.Image:
    return image


KINDS: dict[str, tuple[str, Change | None, str, dict[str, Any]]] = {
    "same bytes": ("copied", None, ".jpg", {}),
    "JPEG, quality 90": ("re-encoded", _same, ".jpg", {"quality": 90}),
    "JPEG, quality 60": ("re-encoded", _same, ".jpg", {"quality": 60}),
    "JPEG, quality 30": ("re-encoded", _same, ".jpg", {"quality": 30}),
    "PNG": ("re-encoded", _same, ".png", {}),
    "WebP, quality 60": ("re-encoded", _same, ".webp", {"quality": 60}),
    "half the size": ("resized", _resized(0.5), ".jpg", {"quality": 85}),
    "a quarter of the size": ("resized", _resized(0.25), ".jpg", {"quality": 85}),
    "twice the size": ("resized", _resized(2.0), ".jpg", {"quality": 85}),
    "squashed to 224x224": ("resized", lambda image: image.resize((224, 224)), ".jpg", {"quality": 85}),
    "mirrored": ("flipped", ImageOps.mirror, ".jpg", {"quality": 85}),
    "upside down": ("flipped", ImageOps.flip, ".jpg", {"quality": 85}),
    "turned by a quarter": ("flipped", _quarter, ".jpg", {"quality": 85}),
    "mirrored, half, JPEG 60": ("combined", _chained(ImageOps.mirror, _resized(0.5)), ".jpg", {"quality": 60}),
    "brighter by 10 %, WebP": ("combined", lambda image: ImageEnhance.Brightness(image).enhance(1.1), ".webp", {}),
    "trimmed by 1 %": ("cropped", _trimmed(0.01), ".jpg", {"quality": 85}),
    "trimmed by 2 %": ("cropped", _trimmed(0.02), ".jpg", {"quality": 85}),
    "trimmed by 3 %": ("cropped", _trimmed(0.03), ".jpg", {"quality": 85}),
    "trimmed by 5 %": ("cropped", _trimmed(0.05), ".jpg", {"quality": 85}),
    "trimmed by 5 %, mirrored, half": (
        "cropped",
        _chained(_trimmed(0.05), ImageOps.mirror, _resized(0.5)),
        ".jpg",
        {"quality": 60},
    ),
}  # fmt: skip

_CONFIGS = {
    "label": """\
data: {manifest: index.csv, leaks: drop}
teacher: {timm: test_resnet, pretrained: false}
student: {timm: mobilenetv4_conv_small, pretrained: false}
""",
    "mask": """\
task: segmentation
data: {manifest: index.csv, leaks: drop, masks: {values: {0: background, "1-58": object}}}
teacher: {smp: unet, encoder: tu-test_resnet, encoder_weights: null}
student: {smp: lraspp, encoder: mobilenetv4_conv_small, pretrained: false}
""",
}
"""Settings behind `data` do not matter here."""

SECOND_SHOTS = {
    "trashnet": {
        *("cardboard15", "cardboard386", "metal120", "metal122", "metal221", "paper123", "paper147", "paper152"),
        *("paper176", "paper2", "paper349", "paper474", "paper68"),
    },
    "clothing": {"0078", "0732", "1074", "1707"},
}
"""Photos of training and validation that show what a test or validation photo shows: the same tray, the same crumpled
page, the same person in the same place. Judged by eye, pair by pair; one is the same file."""


def main() -> None:
    """Hide, look, count, print."""
    options = _options()
    console, sets = Console(width=110), []
    for folder in options.data:
        with tempfile.TemporaryDirectory() as work:
            sets.append(_measure(folder.absolute(), Path(work), options))
    table = Table(caption=f"copies left out by the stage data, of {options.images} of each kind")
    for heading in ("", "kind", *(one["name"] for one in sets)):
        table.add_column(heading)
    for kind, (group, *_) in KINDS.items():
        table.add_row(group, kind, *(str(one["found"][kind]) for one in sets))
    table.add_section()
    for key, said in (
        ("innocent", "photos of training and validation"),
        ("second_shots", "left out: second shots of a held-out scene"),
        ("left_out_more", "left out only since the copies are there"),
    ):
        table.add_row("accused", said, *(str(one[key]) for one in sets))
    table.add_row("", "share of innocent photos accused", *(f"{100 * one['accused']:.2f} %" for one in sets))
    console.print(table)
    print(json.dumps({"sets": sets, "environment": describe_environment(0), "images": options.images}))


def _measure(folder: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    rows = list(csv.DictReader((folder / "index.csv").open()))
    column, truth = ("path" if "path" in rows[0] else "image"), ("mask" if "mask" in rows[0] else "label")
    for row in rows:
        for key in {column, "mask"} & set(row):
            row[key] = row[key] and str(folder / row[key])
    innocent = {row[column] for row in rows if row["split"] != "test"}
    before = _left_out(rows, work / "before", truth)
    drawn = random.Random(options.seed).sample([row for row in rows if row["split"] == "test"], options.images)
    (work / "pool").mkdir()
    hidden: dict[str, str] = {}
    for kind, (_, change, ending, saving) in KINDS.items():
        for row in drawn:
            path = work / "pool" / f"{len(hidden)}{ending}"
            if change is None:
                shutil.copyfile(row[column], path)
            else:
                with Image.open(row[column]) as image:
                    change(image.convert("RGB")).save(path, **saving)
            hidden[str(path)] = kind
            rows.append({**dict.fromkeys(rows[0], ""), column: str(path), "split": "unlabelled"})
    after = _left_out(rows, work / "after", truth)
    found = Counter(kind for path, kind in hidden.items() if path in after)
    accused = {path for path in innocent & after if Path(path).stem not in SECOND_SHOTS.get(folder.name, set())}
    return {
        "name": folder.name,
        "found": {kind: found[kind] for kind in KINDS},
        "innocent": len(innocent),
        "second_shots": len(innocent & after) - len(accused),
        "left_out_more": len(innocent & after - before),
        "accused": round(len(accused) / len(innocent), 5),
    }


def _left_out(rows: list[dict[str, str]], work: Path, truth: str) -> set[str]:
    """Paths of images that a run leaves out of training and validation as copies."""
    work.mkdir()
    manifest = work / "index.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (work / "teacher.yaml").write_text(_CONFIGS[truth])
    config = load_config(work / "teacher.yaml", [f"output={work / 'run'}"])
    run = pipeline.run(config, Console(quiet=True), until="data")
    return {pair["image"] for pair in read_json(run / "data" / stages.LEAKS)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="may be given several times")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
