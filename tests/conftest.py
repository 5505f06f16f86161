"""Shared by all tests: small images, a progress that says nothing, and one small run through every stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from distill.core.progress import Progress

from .workplace import SHAPES, Workplace, prepare, write_photos, write_shapes

SaveImage = Callable[..., Path]
MINE = [
    *("--model", "my_net:small", "--example", "1x3x32x32", "--weights", "weights.safetensors"),
    *("--labels", "labels.txt", "--images", "pictures", "--mean", "0.45", "--std", "0.22", "--into", "runs/mine"),
]
"""Arguments by which `export` is told of the network on `desk`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker makes each expensive fixture, and runs all that reads it; the rest goes file by file."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            shared = {"finished", "segmented", "desk"} & set(getattr(item, "fixturenames", ()))
            item.add_marker(pytest.mark.xdist_group("-".join(sorted(shared)) or item.nodeid.split("::")[0]))


@pytest.fixture
def save_image() -> SaveImage:
    """Writes a small noisy image: the same number gives the same pixels, another number others."""

    def save(path: Path, number: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(quiet=True))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, photos: Path) -> Workplace:
    """A new place with the shared photos and config."""
    return prepare(tmp_path, photos)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Workplace:
    """A workplace whose run is finished; tests read it, and change nothing but its report."""
    place = prepare(tmp_path_factory.mktemp("finished"), photos)
    place.run("run", "teacher.yaml")
    return place


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A workplace whose run of segmentation is finished; tests read it, and change nothing."""
    root = tmp_path_factory.mktemp("segmented")
    write_shapes(root / "shapes")
    (root / "teacher.yaml").write_text(SHAPES)
    place = Workplace(root)
    place.run("run", "teacher.yaml")
    return place


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Workplace:
    """A folder with somebody's code, weights and photos, and the int8 file made of them."""
    root = tmp_path_factory.mktemp("desk")
    from safetensors.torch import save_file

    from tests.export import brought_net

    shutil.copy(Path(brought_net.__file__), root / "my_net.py")
    (root / "pictures").symlink_to(photos / "unlabeled")
    save_file(brought_net.small(3).state_dict(), root / "weights.safetensors")
    (root / "labels.txt").write_text("green\nred\nviolet\nother\nnone\n")
    place = Workplace(root)
    place.run("tflite", "--quantize", *MINE, module="export")
    return place
