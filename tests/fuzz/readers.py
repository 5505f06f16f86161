"""Readers of files that come from elsewhere, with a good file each: they answer, or say what is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from distill.config import DataSettings
from distill.config_file import load_config
from distill.core.errors import DistillError
from distill.data import sources
from distill.data.candidate import MaskError
from distill.data.coco import read_coco
from distill.data.drawing import Drawing, draw
from distill.data.labelme import read_labelme
from distill.data.mask_image import read_mask_image
from distill.data.views import ViewPlan
from distill.labels.shards import shard_path
from distill.labels.store import LabelStore, Shard, finish, write_shard

__all__ = ["READERS", "Reader"]

_PLAN = ViewPlan("center_crop", 0.4, True, 0.3, 0)
_IMAGES = [f"{number:016x}" + "f" * 48 for number in range(3)]
_CONFIG = b"""task: classification
data: {unlabeled: photos, labeled: photos, validation: 0.2, test: 0.2, resize: squash}
teacher: {timm: resnet18, classes: [cat, dog], fit: {epochs: 3, lr: 1e-3}}
student: &small {timm: mobilenetv2_050, image_size: 64}
train: {epochs: 4, temperature: 2.0}
gates: {max_size_mb: 4, min_test_accuracy: 0.9}
"""
_CSV = b'path,label,split,group,labelled\na.png,cat,train,1,1\nb.png,dog,test,2,1\n"c, d.png",,train,,0\n'
_LABELME = {
    "imageWidth": 8,
    "imageHeight": 8,
    "shapes": [
        {"label": "cat", "points": [[1, 1], [6, 1], [6, 6]], "shape_type": "polygon"},
        {"label": "dog", "points": [[2, 2], [4, 4]], "shape_type": "circle"},
    ],
}
_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [8, 8], "counts": [60, 4]}, "iscrowd": 1},
    ],
}


class Reader(NamedTuple):
    """How bytes are read.

    Args:
        name: of the reader.
        good: bytes that it takes.
        read: opens bytes in an empty folder, by the function that the program uses; asserts what must hold.
        refusals: what it may raise.
    """

    name: str
    good: bytes
    read: Callable[[bytes, Path], None]
    refusals: tuple[type[Exception], ...]


def _config(content: bytes, folder: Path) -> None:
    (folder / "photos").mkdir(exist_ok=True)
    (folder / "teacher.yaml").write_bytes(content)
    load_config(folder / "teacher.yaml")


def _manifest(name: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)
        for found in sources.find(DataSettings.model_construct(manifest=folder / name)):
            assert Path(found.path).is_absolute()

    return read


def _shard() -> Shard:
    answers = np.random.default_rng(0).dirichlet(np.full(5, 0.2), size=6).astype(np.float32)
    views = [_PLAN.stored(image, index, 64, 48) for image in _IMAGES for index in range(2)]
    return Shard.of(_IMAGES, views, answers, 3)


def _store(folder: Path, shard: bytes | None = None, facts: bytes | None = None) -> LabelStore:
    write_shard(shard_path(folder, 0), _shard(), 5, "same")
    finish(folder, {"views": 2, "top_k": 3, "classes": 5, "images": 3, "shards": 1, "fingerprint": "same"})
    if shard is not None:
        shard_path(folder, 0).write_bytes(shard)
    if facts is not None:
        (folder / "store.json").write_bytes(facts)
    return LabelStore(folder)


def _read_shard(content: bytes, folder: Path) -> None:
    places, indices = np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3)
    views, answers = _store(folder).read(places, indices)
    found_views, found = _store(folder, shard=content).read(places, indices)
    assert found_views == views and np.array_equal(found, answers), "damage that no checksum showed"


def _read_facts(content: bytes, folder: Path) -> None:
    store = _store(folder, facts=content)
    store.check()
    for position in range(min(3, len(store))):
        store.targets(position)


def _mask(content: bytes, folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "image.png")
    (folder / "mask.png").write_bytes(content)
    mask, _ = read_mask_image(str(folder / "mask.png"), str(folder / "image.png"), 8, 8)
    pixels = mask.values if mask.values is not None else mask.colors
    assert pixels is not None and pixels.shape == (8, 8)


def _labelme(content: bytes, folder: Path) -> None:
    (folder / "mask.json").write_bytes(content)
    _drawn(read_labelme(str(folder / "mask.json")))


def _coco(content: bytes, folder: Path) -> None:
    (folder / "coco.json").write_bytes(content)
    for name, drawing in read_coco(str(folder / "coco.json")).items():
        assert not Path(name).is_absolute() and ".." not in Path(name).parts
        _drawn(drawing)


def _drawn(drawing: Drawing) -> None:
    """As the stage `data` does, which takes the classes from the drawings."""
    names = dict.fromkeys(shape.name for shape in drawing.shapes if shape.name is not None)
    assert draw(drawing, 8, 8, {name: place for place, name in enumerate(names, 1)}, 0).shape == (8, 8)


def _png() -> bytes:
    buffer = io.BytesIO()
    mask = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3).convert("P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    columns = {"path": ["a.png", "b.png"], "label": ["cat", "dog"], "split": ["train", "test"], "labelled": [1, 1]}
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def _shard_bytes() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_shard(shard_path(Path(folder), 0), _shard(), 5, "same")
        return shard_path(Path(folder), 0).read_bytes()


_FACTS = {"kind": "views", "views": 2, "top_k": 3, "classes": 5, "images": 3, "shards": 1, "fingerprint": "same"}

READERS = (
    Reader("config", _CONFIG, _config, (DistillError,)),
    Reader("manifest-csv", _CSV, _manifest("index.csv"), (DistillError,)),
    Reader("manifest-parquet", _parquet(), _manifest("index.parquet"), (DistillError,)),
    Reader("label-shard", _shard_bytes(), _read_shard, (DistillError,)),
    Reader("label-store", json.dumps(_FACTS).encode(), _read_facts, (DistillError,)),
    Reader("mask-png", _png(), _mask, (MaskError,)),
    Reader("mask-labelme", json.dumps(_LABELME).encode(), _labelme, (MaskError,)),
    Reader("mask-coco", json.dumps(_COCO).encode(), _coco, (DistillError, MaskError)),
)
