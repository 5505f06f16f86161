"""Small images with masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distill.config import DataSettings, MaskSettings
from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.types import Split
from distill.data.manifest import Manifest, scan
from distill.data.mask_file import read_mask
from distill.data.sources import find

SaveImage = Callable[..., Path]
SaveMask = Callable[[Path, object], Path]
ReadMasks = Callable[..., Manifest]


@pytest.fixture
def save_mask() -> SaveMask:
    """Writes rows of numbers as a grey image, rows of triples as an RGB one."""

    def save(path: Path, rows: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(rows, np.uint8)).save(path)
        return path

    return save


@pytest.fixture
def read_masks(progress: Progress, tmp_path: Path) -> ReadMasks:
    """Finds and scans a run's images with their masks; `masks` holds settings of masks."""

    def scanned(masks: dict[str, object] | None = None, **values: object) -> Manifest:
        settings = DataSettings(**values, masks=MaskSettings(**masks or {}))  # type: ignore[arg-type]
        return scan(find(settings, "segmentation"), settings, None, progress, tmp_path / "run" / "masks")

    return scanned


def truth(manifest: Manifest, name: str, split: Split = "train") -> list[list[int]]:
    """The mask of the image of this name (without ending), as rows of numbers."""
    (record,) = [r for r in manifest.of(split) if Path(r.path).stem == name]
    rows: list[list[int]] = read_mask(str(record.mask)).tolist()
    return rows


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        read()
    return str(caught.value)


def grid(rows: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Rows of digits as a mask."""
    return np.array([[int(digit) for digit in row] for row in rows], np.uint8)
