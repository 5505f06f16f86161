"""A store of maps as files that other trainers read: `distill labels export` where pixels are answered."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.dense import IGNORED
from distill.core.errors import UserError
from distill.core.files import replacing, write_json
from distill.core.overlay import IGNORED_COLOR, class_colors
from distill.labels.dump import harmless
from distill.labels.map_stat import LabelledMaps
from distill.labels.maps import of_size

__all__ = ["export"]


def export(labelled: LabelledMaps, folder: Path) -> int:
    """Write masks, confidences and soft maps, one file each an image, and then the list of them.

    - masks/ID.png: palette PNG of the upright image's size; values are places in classes.json.
    - confidence/ID.png: grey PNG of the same size, 255 is 1.0.
    - soft/ID.npz: `probabilities`, float16 [G, G, C], of a grid over the whole image.
    - classes.json: value, name and colour of each class.
    - index.csv, written last: image (path), mask, confidence, soft (paths in the folder), width, height and
      mean_confidence. As in `distill.labels.dump`, no cell can start a formula.

    ID is the first 16 hex digits of the image's SHA-256. Where `data` turned a photo by its EXIF orientation, a trainer
    must do the same.

    Args:
        labelled: a store.
        folder: must be missing or empty.

    Returns:
        Number of images.

    Raises:
        UserError: the folder holds something, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no empty folder; expected the name of a new one")
    store, classes = labelled.store, labelled.manifest.classes
    colors = class_colors(len(classes))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)], palette[IGNORED] = colors, IGNORED_COLOR
    for part in ("masks", "confidence", "soft"):
        (folder / part).mkdir(parents=True)
    named = [
        {"value": value, "name": name, "color": color}
        for value, (name, color) in enumerate(zip(classes, colors.tolist(), strict=True))
    ]
    write_json(folder / "classes.json", named)
    sure = store.mean_confidence()
    with replacing(folder / "index.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "mask", "confidence", "soft", "width", "height", "mean_confidence"])
        for place, record in enumerate(labelled.records):
            name = record.id[:16]
            files = (f"masks/{name}.png", f"confidence/{name}.png", f"soft/{name}.npz")
            mask, confidence = (of_size(pixels, record.width, record.height) for pixels in store.hard(place))
            _save(mask, folder / files[0], palette)
            _save(confidence, folder / files[1])
            np.savez_compressed(folder / files[2], probabilities=store.soft(place).astype(np.float16))
            numbers = (record.width, record.height, f"{sure[place]:.4f}")
            writer.writerow([harmless(record.path), *files, *numbers])
    return len(store)


def _save(pixels: npt.NDArray[np.uint8], path: Path, palette: npt.NDArray[np.uint8] | None = None) -> None:
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path, format="PNG")
