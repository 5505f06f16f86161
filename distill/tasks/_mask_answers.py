"""What is kept of answers by pixel: counts and a mask for each image, from which every figure is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.dense import IGNORED, scale_map
from distill.core.errors import RunFolderError
from distill.core.tables import read_table, write_table
from distill.core.task import Answers
from distill.core.types import FloatArray
from distill.data.mask_file import mask_of_png, png_of_mask

__all__ = ["CONFIDENCE_BINS", "TOLERANCE", "Look", "MaskAnswers", "look", "look_at_mask"]

CONFIDENCE_BINS = 32
"""Equal bins of the largest probability: the first begins at 0, the last ends at 1."""

TOLERANCE = 0.0075
"""Share of the diagonal by which two outlines may lie apart (Csurka et al. 2013)."""

_BAND = 1 << 22  # logits that are enlarged at once: 4000x3000 pixels of 21 classes would be 1 GB, this is 17 MB
_LEAST = math.log(1e-12)  # as for one label an image: surely wrong is costly but finite

_Mask = npt.NDArray[np.uint8]
_Counts = npt.NDArray[np.int64]


class Look(NamedTuple):
    """One image's part of `MaskAnswers`, the mask as uint8 [h, w]."""

    counts: _Counts
    boundary: _Counts
    nll: float
    confidence: _Counts
    mask: _Mask


@dataclass(frozen=True)
class MaskAnswers(Answers):
    """What a predictor said about labelled images, in the pixels of the images' own fixed views.

    Ignored pixels are in none of the counts; in the masks there is an answer for them too.

    Args:
        ids: image ids, N of them.
        counts: pixels, int64 [N, C, C], [truth][answer].
        boundary: pixels of outlines, int64 [N, C, 4]: those of the truth near one of the answer, all of the truth,
            those of the answer near one of the truth, all of the answer.
        nll: sum over pixels of -log p(truth), float64 [N].
        confidence: pixels by the answer's probability, int64 [N, 2, 32]: wrong ones, right ones, in equal bins.
        masks: answered classes as PNG; read by `mask`.
    """

    ids: tuple[str, ...]
    counts: _Counts
    boundary: _Counts
    nll: npt.NDArray[np.float64]
    confidence: _Counts
    masks: tuple[bytes, ...]

    @classmethod
    def of(cls, ids: Sequence[str], looks: Sequence[Look]) -> MaskAnswers:
        """Put images together."""
        return cls(
            tuple(ids),
            np.stack([each.counts for each in looks]),
            np.stack([each.boundary for each in looks]),
            np.array([each.nll for each in looks]),
            np.stack([each.confidence for each in looks]),
            tuple(png_of_mask(each.mask) for each in looks),
        )

    @classmethod
    def joined(cls, parts: Sequence[MaskAnswers]) -> MaskAnswers:
        """Answers about several groups of images as one."""
        return cls(
            tuple(image for part in parts for image in part.ids),
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.boundary for part in parts]),
            np.concatenate([part.nll for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            tuple(mask for part in parts for mask in part.masks),
        )

    def take(self, places: Sequence[int]) -> MaskAnswers:
        return MaskAnswers(
            tuple(self.ids[place] for place in places),
            self.counts[places],
            self.boundary[places],
            self.nll[places],
            self.confidence[places],
            tuple(self.masks[place] for place in places),
        )

    def mask(self, place: int) -> _Mask:
        """Classes answered for an image, uint8 [h, w], at the size of its fixed view in its own pixels."""
        return mask_of_png(self.masks[place])

    def save(self, path: Path) -> None:
        """Write as Parquet, an image a row: image, counts, boundary, nll, confidence (flattened) and mask (PNG)."""
        import pyarrow as pa

        def lists(values: _Counts) -> pa.Array:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size)

        columns = {
            "image": pa.array(self.ids, pa.string()),
            "counts": lists(self.counts),
            "boundary": lists(self.boundary),
            "nll": pa.array(self.nll),
            "confidence": lists(self.confidence),
            "mask": pa.array(self.masks, pa.binary()),
        }
        write_table(pa.table(columns), path)

    @classmethod
    def load(cls, path: Path, classes: int) -> MaskAnswers:
        """Read what `save` wrote.

        Raises:
            RunFolderError: it is no such file, or one of another number of classes.
        """
        import pyarrow as pa

        try:
            table = read_table(path)

            def arrays(name: str, *shape: int) -> _Counts:
                flat: _Counts = table[name].combine_chunks().flatten().to_numpy()
                return flat.reshape(table.num_rows, *shape)

            return cls(
                tuple(table["image"].to_pylist()),
                arrays("counts", classes, classes),
                arrays("boundary", classes, 4),
                table["nll"].to_numpy(),
                arrays("confidence", 2, CONFIDENCE_BINS),
                tuple(table["mask"].to_pylist()),
            )
        except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError) as error:
            raise RunFolderError(
                f"{path}: expected answers by pixel in {classes} classes, found something else ({error}); delete the"
                " folder of this stage and run the same command again"
            ) from error


def look(logits: FloatArray, truth: _Mask) -> Look:
    """Compare an answer to one image with its truth, pixel by pixel.

    Logits are enlarged to the size of the truth, and the largest is the answer. What is added to all logits of a cell
    is enlarged like them and stays one number a pixel, so log-probabilities give the masks and probabilities that the
    logits behind them give.

    Args:
        logits: finite float32 [h, w, C].
        truth: uint8 [H, W], places of classes, 255 ignored.
    """
    height, width = truth.shape
    classes = logits.shape[-1]
    counts = np.zeros((classes, classes), np.int64)
    confidence = np.zeros(2 * CONFIDENCE_BINS, np.int64)
    nll = 0.0
    mask = np.empty_like(truth)
    for rows, planes in _bands(logits, height, width):
        known = truth[rows]
        best = planes.max(axis=0)
        said = np.zeros_like(known)
        for place in range(classes - 1, -1, -1):  # of equal ones the first; np.argmax takes twice as long
            said[planes[place] == best] = place
        mask[rows] = said
        counts += _confusion(said, known, classes)
        judged = known != IGNORED
        np.subtract(planes, best, out=planes)
        at_truth = np.take_along_axis(planes, np.where(judged, known, 0)[None].astype(np.intp), axis=0)[0]
        total = np.exp(planes, out=planes).sum(axis=0)  # 1 / total is the answer's probability
        nll -= float(np.maximum(at_truth - np.log(total), _LEAST)[judged].sum(dtype=np.float64))
        bins = np.minimum(CONFIDENCE_BINS / total, CONFIDENCE_BINS - 1).astype(np.int64)
        confidence += np.bincount((bins + CONFIDENCE_BINS * (said == known))[judged], minlength=2 * CONFIDENCE_BINS)
    return Look(counts, _near(mask, truth, classes), nll, confidence.reshape(2, -1), mask)


def look_at_mask(said: _Mask, truth: _Mask, classes: int) -> Look:
    """The same of an answer that is a mask, so that nothing is known of confidence.

    Args:
        said: uint8 [H, W], places of classes, 255 where nothing is said: such pixels count nowhere.
        truth: uint8 [H, W], as in `look`.
        classes: how many there are.
    """
    known = np.where(said == IGNORED, said, truth)
    mask = np.where(said == IGNORED, np.uint8(0), said)
    nothing = np.zeros((2, CONFIDENCE_BINS), np.int64)
    return Look(_confusion(mask, known, classes), _near(mask, known, classes), 0.0, nothing, mask)


def _confusion(said: _Mask, truth: _Mask, classes: int) -> _Counts:
    """Pixels that are not ignored, int64 [C, C], [truth][answer]."""
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    # 1.8 ms for 256x384 pixels, where np.bincount takes 0.3 ms; validation would take another 6.
    counts: _Counts = multiclass_confusion_matrix(
        torch.from_numpy(said.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        classes,
        ignore_index=IGNORED,
        validate_args=False,
    ).numpy()
    return counts


def _bands(logits: FloatArray, height: int, width: int) -> Iterator[tuple[slice, FloatArray]]:
    """Rows of the enlarged map from top to bottom, each band as float32 [C, rows, width].

    Class by class: scaling 64x64x9 to 256x384 takes 4 ms like this, and 14 ms at once with the classes moved then.
    """
    classes = logits.shape[-1]
    step = max(1, _BAND // (width * classes))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        box = (0.0, top / height, 1.0, rows.stop / height)
        planes = np.empty((classes, rows.stop - top, width), np.float32)
        for place in range(classes):
            planes[place] = scale_map(logits[..., place, None], rows.stop - top, width, box)[..., 0]
        yield rows, planes


def _near(mask: _Mask, truth: _Mask, classes: int) -> _Counts:
    """How much of the outlines of truth and answer lies near the other's, int64 [C, 4] as in `MaskAnswers`.

    A pixel is on its class's outline if the one beside, above or below it has another class. The image's edge is no
    outline, nor is anything where the truth is ignored or borders on that. Near is a distance between centres of at
    most 0.75 % of the diagonal, 3.5 pixels of 256x384.

    All classes are looked up in one tree, each at a height of its own: 4 ms for 256x384 pixels and 9 classes, where a
    distance transform for each class takes 26 ms and finds the same.
    """
    from scipy.spatial import cKDTree

    reach = TOLERANCE * math.hypot(*mask.shape)
    apart = sum(mask.shape)  # more than `reach`, so other classes are never near
    outlines = [_outline(labels) for labels in (truth, np.where(truth == IGNORED, truth, mask))]
    points = [np.stack([places * apart, *at], axis=1).astype(np.float64) for places, at in outlines]
    found = np.zeros((classes, 4), np.int64)
    for side, (places, _) in enumerate(outlines):
        found[:, 2 * side + 1] = np.bincount(places, minlength=classes)
        if len(points[0]) and len(points[1]):
            bound = math.nextafter(reach, math.inf)  # distances have to be less
            distances, _ = cKDTree(points[1 - side]).query(points[side], distance_upper_bound=bound)
            found[:, 2 * side] = np.bincount(places[np.isfinite(distances)], minlength=classes)
    return found


def _outline(labels: _Mask) -> tuple[_Counts, tuple[npt.NDArray[np.intp], ...]]:
    """Pixels with a neighbour of another class: their classes, int64 [M], and their rows and columns."""
    known = labels != IGNORED
    edge = np.zeros(labels.shape, np.bool_)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        parted = (labels[one] != labels[other]) & known[one] & known[other]
        edge[one] |= parted
        edge[other] |= parted
    at = np.nonzero(edge)
    return labels[at].astype(np.int64), at
