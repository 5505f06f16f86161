"""A teacher that needs no fitting: it knows the colours of the test's photos."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tests.workplace import COLOURS

_COLOURS = np.array(list(COLOURS.values()), np.float32)  # green, red, violet; also background, disc, square


def labels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits [N, 3] by the mean colour."""
    return _near(images.mean(axis=(1, 2), dtype=np.float32))


def masks(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits [N, S/2, S/2, 3] by the colour around each pixel."""
    return _near(ndimage.uniform_filter(images.astype(np.float32), (0, 3, 3, 0))[:, ::2, ::2])


def _near(colours: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    apart = np.square(colours[..., None, :] - _COLOURS).sum(axis=-1)
    return -apart / np.float32(2 * 30**2)
