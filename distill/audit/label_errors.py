"""Labels that are probably wrong, by confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068).

cleanlab compares each label with class probabilities from a model that did not learn from it. These come, for each
image, from the first of

1. the run's teacher: its answers about validation and test images, from which it did not learn;
2. logistic regression in five folds on features of the config's student with the weights that it starts from, where
   these are trained ones;
3. the same on a small descriptor: gradients and colours of a 32x32 thumbnail.

Of 126 labels of TrashNet that were made wrong on purpose (5 %), 22 were among the first 24 suspects and 72 among the
first 100 by features of ImageNet's MobileNetV2-0.35, 10 and 33 by the descriptor.

Copies and images of one group are never parted over folds. How often the probabilities name the given label is told:
the more often, the more suspects are right.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.config import RunConfig
from distill.core import plugins
from distill.core.errors import DistillError
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.task import build_task
from distill.core.types import FloatArray, ImageRecord, Images, softmax
from distill.data.batches import ImageCache, iterate
from distill.data.manifest import Manifest
from distill.data.views import fixed_view

__all__ = ["Labelled", "Source", "Suspect", "agreement_of_masks", "descriptors", "find_suspects"]

_FOLDS: Final = 5
_FEWEST: Final = 10  # images of a class; of fewer, eight or less would have to teach it
_MOST: Final = 20_000  # images to fit to: 1,280 features of each are 100 MB
_PENALTY: Final = 0.1  # of the mean cross-entropy on standardised features; 0.01 and 1 name 77 instead of 81 % rightly
_UNLIKELY: Final = 0.1  # largest probability of a label that is called wrong
_BLOCK: Final = 512  # thumbnails described at a time, 30 MB
_CELLS: Final = 4  # of a descriptor, a side
_ANGLES: Final = 8

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """An image whose label is looked at.

    Args:
        record: the image.
        label: its truth, also where it is hidden from training.
        family: images of the same family are never parted over folds.
    """

    record: ImageRecord
    label: str
    family: str


class Source(NamedTuple):
    """Where probabilities came from.

    Args:
        by: in words.
        images: how many it was asked about.
        accuracy: share of these whose label is its likeliest class.
    """

    by: str
    images: int
    accuracy: float


class Suspect(NamedTuple):
    """A label that is probably wrong.

    Args:
        id: of the image.
        label: as given.
        likely: the class that the probabilities name.
        confidence: probability of the given label, 0..1: the lower, the likelier it is wrong.
    """

    id: str
    label: str
    likely: str
    confidence: float


def find_suspects(
    images: Sequence[Labelled],
    thumbnails: Callable[[Sequence[int]], Images],
    manifest: Manifest,
    config: RunConfig | None,
    run: Run | None,
    cache: ImageCache,
    progress: Progress,
) -> tuple[list[Suspect], list[Source], list[str]]:
    """Find labels that are probably wrong.

    Args:
        images: with one label each.
        thumbnails: gives uint8 [N, 32, 32, 3] for places in `images`; asked where no network with trained weights is at
            hand.
        manifest: names the classes.
        config: names the student whose features serve; None where a folder is audited.
        run: whose teacher's answers serve, None where there is none.
        cache: gives the images.
        progress: told of each image.

    Returns:
        The suspects, least confident first; where probabilities came from; and what could not be looked at, and why.
    """
    suspects: list[Suspect] = []
    sources: list[Source] = []
    notes: list[str] = []
    answered = _answers_of_teacher(run, manifest, config)
    asked = [one for one in images if one.record.id in answered]
    if asked:
        logits = np.stack([answered[one.record.id] for one in asked])
        found, source = _judged(asked, softmax(logits).astype(np.float64), manifest.classes, "the teacher's answers")
        suspects += found
        sources.append(source)
    counts = Counter(one.label for one in images)
    rare = sorted(name for name, count in counts.items() if count < _FEWEST)
    if rare:
        notes.append(f"labels of {', '.join(rare)} were not looked at: fewer than {_FEWEST} images each")
    places = [place for place, one in enumerate(images) if counts[one.label] >= _FEWEST]
    if len(places) > _MOST:
        notes.append(f"labels were looked at in {_MOST} of {len(places)} images, drawn at random")
        places = sorted(np.random.default_rng(0).choice(places, _MOST, replace=False).tolist())
    kept = [images[place] for place in places]
    if len({one.label for one in kept}) > 1 and len(asked) < len(kept):
        features, name = None, "features of the student's starting weights"
        try:
            features = None if config is None else _features(config, kept, manifest, cache, progress)
        except DistillError as error:
            notes.append(f"features of the student could not be had ({error})")
        if features is None:
            blocks = (places[at : at + _BLOCK] for at in range(0, len(places), _BLOCK))
            features = np.concatenate([descriptors(thumbnails(block)) for block in blocks])
            name = "gradients and colours of thumbnails"
        classes = sorted({one.label for one in kept})
        probabilities = _out_of_fold(features, [classes.index(one.label) for one in kept], [o.family for o in kept])
        if probabilities is None:
            notes.append("labels were not looked at: images of one group or copies fill whole classes")
        else:
            rest = [place for place, one in enumerate(kept) if one.record.id not in answered]
            by = f"logistic regression on {name}, {_FOLDS} folds"
            found, source = _judged([kept[place] for place in rest], probabilities[rest], classes, by)
            suspects += found
            sources.append(source)
    return sorted(suspects, key=lambda one: (one.confidence, one.id)), sources, notes


def descriptors(thumbnails: Images) -> FloatArray:
    """What a thumbnail looks like, coarsely: histograms of gradients, mean and spread of colours, in 4x4 cells.

    Args:
        thumbnails: uint8 [N, 32, 32, 3].

    Returns:
        float32 [N, 224].
    """
    values = thumbnails.astype(np.float32) / 255
    down, across = np.gradient(values.mean(axis=3), axis=(1, 2))
    strength, angle = np.hypot(down, across), np.arctan2(down, across) % np.pi
    bins = np.minimum((angle / np.pi * _ANGLES).astype(np.int64), _ANGLES - 1)
    histogram = _cells(strength[..., None] * (bins[..., None] == np.arange(_ANGLES))).mean(axis=3)
    histogram = np.sqrt(histogram / (histogram.sum(axis=(1, 2, 3), keepdims=True) + 1e-6))
    cells = _cells(values)
    parts = (histogram, cells.mean(axis=3), cells.std(axis=3))
    joined: FloatArray = np.concatenate([part.reshape(len(values), -1) for part in parts], axis=1)
    return joined


def _cells(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """[N, 32, 32, K] as [N, 4, 4, 64, K]."""
    count, side, _, last = values.shape
    split = values.reshape(count, _CELLS, side // _CELLS, _CELLS, side // _CELLS, last)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(count, _CELLS, _CELLS, -1, last)


def agreement_of_masks(run: Run | None, manifest: Manifest, config: RunConfig | None) -> dict[str, float]:
    """Mean IoU of masks and what a finished run's teacher answered about validation and test images, by image.

    The mean is over classes that occur in one of both.
    """
    found: dict[str, float] = {}
    for answers in _answers(run, manifest, config):
        counts = getattr(answers, "counts", None)
        if counts is None:
            continue
        both = np.diagonal(counts, axis1=1, axis2=2).astype(np.float64)
        either = counts.sum(axis=1) + counts.sum(axis=2) - both
        present = either > 0
        mean = np.where(present, both / np.maximum(either, 1), 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
        found |= {
            image: round(float(iou), 4)
            for image, iou, any_ in zip(answers.ids, mean, present.any(axis=1), strict=True)
            if any_
        }
    return found


def _answers_of_teacher(run: Run | None, manifest: Manifest, config: RunConfig | None) -> Mapping[str, FloatArray]:
    """Logits by image of what a finished run's teacher said of validation and test images."""
    answered: dict[str, FloatArray] = {}
    for answers in _answers(run, manifest, config):
        logits = getattr(answers, "logits", None)
        if logits is not None and logits.shape[1] == len(manifest.classes):
            answered |= dict(zip(answers.ids, logits, strict=True))
    return answered


def _answers(run: Run | None, manifest: Manifest, config: RunConfig | None) -> Iterator[Any]:
    """What a finished run's teacher said, where the classes are still those of the run."""
    if run is None or config is None or not (run.folder("teacher") / "stage.json").exists():
        return
    if tuple(run.summary("data")["classes"]) != manifest.classes:
        return
    task = build_task(config.task, manifest.classes)
    for split in ("validation", "test"):
        path = run.answers("teacher", split)
        if path.exists():
            yield task.load_answers(path)


def _features(
    config: RunConfig, images: Sequence[Labelled], manifest: Manifest, cache: ImageCache, progress: Progress
) -> FloatArray | None:
    """float32 [N, F] from the student's starting weights; None where these are random."""
    import torch

    torch.manual_seed(config.seed)
    network = plugins.build(config.student, manifest.classes)
    if not network.pretrained:
        return None
    network.eval()
    resize, size = config.data.resize, 32
    shown = [(one.record, (fixed_view(one.record.width, one.record.height, resize),)) for one in images]
    batches = [shown[at : at + size] for at in range(0, len(shown), size)]
    parts = []
    with torch.inference_mode(), progress.task("features of labelled images", len(shown)) as task:
        for pixels in iterate(cache, batches, network.image_size, workers=2):
            parts.append(network.features(torch.from_numpy(pixels)).numpy())
            task.advance(len(pixels))
    features: FloatArray = np.concatenate(parts)
    return features


def _out_of_fold(features: FloatArray, labels: Sequence[int], families: Sequence[str]) -> _Floats | None:
    """float64 [N, C] by models that saw neither the image nor its family; None where a class cannot be parted."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.asarray(labels)
    places = {family: number for number, family in enumerate(dict.fromkeys(families))}
    groups = np.array([places[family] for family in families])
    if any(len(set(groups[truth == label].tolist())) < _FOLDS for label in set(labels)):
        return None
    probabilities: _Floats = np.zeros((len(truth), truth.max() + 1))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    for learnt, held in folds.split(features, truth, groups):
        if len(set(truth[learnt].tolist())) <= truth.max():
            return None
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (_PENALTY * len(learnt)), max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a probability do not matter here
            model.fit(features[learnt], truth[learnt])
        probabilities[held] = model.predict_proba(features[held])
    return probabilities


def _judged(
    images: Sequence[Labelled], probabilities: _Floats, classes: Sequence[str], by: str
) -> tuple[list[Suspect], Source]:
    """Labels that confident learning calls wrong."""
    from cleanlab.filter import find_label_issues

    present = sorted({classes.index(one.label) for one in images})
    labels = np.array([present.index(classes.index(one.label)) for one in images])
    own = probabilities[:, present] + 1e-9
    own /= own.sum(axis=1, keepdims=True)
    accuracy = float((own.argmax(axis=1) == labels).mean())
    source = Source(by, len(images), accuracy)
    if len(present) < 2:
        return [], source
    ranked = find_label_issues(
        labels, own, return_indices_ranked_by="self_confidence", filter_by="confident_learning", n_jobs=1, verbose=False
    )
    suspects = []
    for place in ranked.tolist():
        likely = int(own[place].argmax())
        if likely != labels[place]:
            confidence = float(own[place, labels[place]])
            if confidence > _UNLIKELY:
                continue
            one = images[place]
            suspects.append(Suspect(one.record.id, one.label, classes[present[likely]], round(confidence, 4)))
    return suspects, source
