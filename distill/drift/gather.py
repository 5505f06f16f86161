"""The whole of `distill drift`: images in, a document with tests, classes, teacher and what would teach most out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from distill import __version__
from distill.config import RunConfig
from distill.config_file import load_config
from distill.core.errors import DataError
from distill.core.files import sha256_of
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.task import build_task
from distill.core.types import FloatArray, ImageRecord
from distill.data.batches import ImageCache
from distill.data.candidate import walk
from distill.data.decode import DecodeError, decode
from distill.data.manifest import Manifest
from distill.drift.choose import Space, most_instructive
from distill.drift.classes import class_shares
from distill.drift.looks import STATISTICS, Disagreement, Looks, look
from distill.drift.two_sample import PERMUTATIONS, Outcome, Splits, holm
from distill.labels.leaks import find_copies
from distill.teaching import trained_teacher
from distill.trained_student import load_student

__all__ = ["FALSE_ALARMS", "Found", "gather", "part_of", "run_tests"]

FALSE_ALARMS: Final = 0.01
"""Chance of an alarm where nothing has moved. A weekly look at 1 % cries wolf once in two years, at 5 % every five
months."""

FEWEST: Final = 20
"""Images on each side; fewer show only the grossest changes."""

_MOST = 1000  # images on each side that are tested; of more, these many are drawn
_CERTAIN = 0.98  # of a probability of 1 no finite logarithm of the rest is left; 0.9 and 0.995 tell the same
_TITLES: Final = {
    "features": "student's features",
    "confidence": "student's confidence",
    "rarer": "a class comes less often",
    "more frequent": "a class comes more often",
}


@dataclass(frozen=True)
class Found:
    """What `gather` hands on.

    Args:
        document: for drift.json.
        chosen: images that would teach most, the most instructive first, with what is known of each.
        config: of the run.
    """

    document: dict[str, Any]
    chosen: list[tuple[ImageRecord, dict[str, Any]]]
    config: RunConfig


def gather(
    run: Run,
    folders: Sequence[Path],
    progress: Progress,
    *,
    reference: Path | None = None,
    teacher: bool = False,
    false_alarms: float = FALSE_ALARMS,
    count: int = 48,
) -> Found:
    """Compare new images with those that the student of a run was judged on.

    The reference is the run's validation and test images, since a student is surer of images that it was fitted to
    than of others like them.

    Args:
        run: with a finished student.
        folders: of new images, searched recursively; files are taken too.
        progress: told of long work.
        reference: folder of images to compare with, instead of those of the run.
        teacher: ask the teacher of the run about the new images too, and about as many of the reference.
        false_alarms: chance of an alarm where nothing has moved.
        count: images to name that would teach most.

    Raises:
        DataError: too few images.
        RunFolderError: the student is not finished.
    """
    network, card = load_student(run)
    config = load_config(run.root / "config.yaml")
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    task = build_task(config.task, manifest.classes)
    cache = ImageCache(config.data.max_megapixels)
    known = {record.id: record.split for record in manifest.records}
    rng = np.random.default_rng(config.seed)

    new, left_out, twice = _read(folders, config.data.max_megapixels, known, progress)
    if reference is None:
        held_out: Sequence[ImageRecord] = manifest.of("validation") + manifest.of("test")
        what = "validation and test images of the run"
    else:
        held_out, _, _ = _read([reference], config.data.max_megapixels, {}, progress)
        what = str(reference)
    tested, copies = _independent(_drawn(new, rng), cache, progress)
    compared, reference_copies = _independent(_drawn(held_out, rng), cache, progress)
    _enough(tested, "NEW_IMAGES", " that are none of the run's own" if twice else "")
    _enough(compared, "--reference" if reference else "data", "")

    labeller = trained_teacher(run, config, manifest.classes) if teacher else None
    resize = card["resize"]
    before = look(network, compared, cache, resize, progress, teacher=labeller, chunk=task.chunk)
    everything = look(network, new, cache, resize, progress, teacher=labeller, chunk=task.chunk)
    places = {record.id: place for place, record in enumerate(new)}
    now = part_of(everything, np.array([places[record.id] for record in tested]))

    rows = run_tests(before, now, false_alarms=false_alarms, seed=config.seed)
    scores = run.summary("student")["scores"].values()
    confusion = np.sum([score["confusion"] for score in scores], axis=0).tolist()
    shares = class_shares(
        manifest.classes, confusion, before.shares, now.shares, by_image=not task.by_pixel, seed=config.seed
    )
    space = Space(*_places(before, everything))
    novelty, far = space.novelty()
    hardness = everything.uncertainty if everything.teacher is None else everything.teacher.distance
    chosen = most_instructive(space, hardness, count)
    document: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": run.root.name,
        "images": [str(folder) for folder in folders],
        "task": config.task,
        "alarm": any(row["alarm"] for row in rows),
        "false_alarms": false_alarms,
        "permutations": PERMUTATIONS,
        "reference": {"what": what, "images": len(held_out), "tested": len(compared), "copies": reference_copies},
        "new": {
            "images": len(new),
            "tested": len(tested),
            "copies": copies,
            "of_the_run": twice,
            "left_out": left_out,
        },
        "tests": rows,
        "classes": None if shares is None else [row._asdict() for row in shares],
        "far": {"images": int((novelty > far).sum()), "share": float((novelty > far).mean()), "expected": 0.01},
        "teacher": None if now.teacher is None else _disagreement(before, everything, manifest.classes),
    }
    of_chosen = [(new[place], _facts(everything, place, novelty, manifest.classes)) for place in chosen]
    return Found(document, of_chosen, config)


def run_tests(before: Looks, now: Looks, *, false_alarms: float, seed: int = 0) -> list[dict[str, Any]]:
    """Five tests held together by Holm: features, confidence, classes less and more often, the plain statistics as one.

    Returns:
        One document a test, and one for each of the plain statistics: name and title, the statistic, p, p as adjusted,
        whether it is an alarm, and medians then and now where it is about one number an image.
    """
    splits = Splits(len(before.confidence), len(now.confidence), seed)
    both = {key: np.concatenate([getattr(before, key), getattr(now, key)]) for key in ("confidence", "probabilities")}
    groups: dict[str, list[tuple[str, str, Outcome]]] = {}
    if before.features is not None and now.features is not None:
        seen = splits.mmd(np.concatenate([before.features, now.features]))
        groups["features"] = [("features", "MMD squared", seen)]
    groups["confidence"] = [("confidence", "KS distance", splits.distances(both["confidence"][:, None])[0])]
    # An image speaks for "class c is left out" by (1 - p_c) / (1 - its share), the likelihood ratio where the other
    # classes keep their proportions. Its mean logarithm saw glass left out of photos of waste in 80 % of draws at
    # p <= 0.0025; the change of mean probabilities, both ways, in 53 %.
    left_out = np.log1p(-_CERTAIN * both["probabilities"])
    groups["rarer"] = [("rarer", "log likelihood ratio", splits.rise(left_out))]
    groups["more frequent"] = [("more frequent", "rise of mean probability", splits.rise(both["probabilities"]))]
    plain = splits.distances(np.concatenate([before.statistics, now.statistics]))
    groups["statistics"] = [(name, "KS distance", found) for name, found in zip(STATISTICS, plain, strict=True)]
    least = [min(outcome.p for _, _, outcome in group) for group in groups.values()]
    medians = {"confidence": (before.confidence, now.confidence)}
    medians |= {name: (before.statistics[:, n], now.statistics[:, n]) for n, name in enumerate(STATISTICS)}
    rows = []
    for group, smallest, adjusted in zip(groups.values(), least, holm(least), strict=True):
        for name, kind, outcome in group:
            p = min(1.0, max(adjusted, outcome.p * adjusted / smallest))
            then = [float(np.median(values)) for values in medians[name]] if name in medians else [None, None]
            rows.append(
                {
                    "name": name,
                    "title": _TITLES.get(name, name),
                    "kind": kind,
                    "statistic": outcome.statistic,
                    "p": outcome.p,
                    "adjusted_p": p,
                    "alarm": p <= false_alarms,
                    "median_before": then[0],
                    "median_now": then[1],
                }
            )
    return rows


def part_of(looks: Looks, places: npt.NDArray[np.int64]) -> Looks:
    """Some of the images, in the order of their places."""
    parts: dict[str, Any] = {
        name: None if values is None else values[places] for name, values in vars(looks).items() if name != "teacher"
    }
    teacher = looks.teacher
    if teacher is not None:
        teacher = Disagreement(**{name: values[places] for name, values in vars(teacher).items()})
    return Looks(**parts, teacher=teacher)


def _read(
    sources: Sequence[Path], max_megapixels: float, known: dict[str, Any], progress: Progress
) -> tuple[list[ImageRecord], dict[str, int], int]:
    """Images below folders in order of id, each once; why others were left out; how many are the run's own."""
    paths = [path for source in sources for path in (walk(source) if source.is_dir() else [str(source)])]
    reasons: Counter[str] = Counter()
    records: dict[str, ImageRecord] = {}
    twice = 0

    def read(path: str) -> ImageRecord | str:
        try:
            image = decode(path, max_megapixels)
            return ImageRecord(
                sha256_of(Path(path)), str(Path(path).absolute()), image.width, image.height, "test", None
            )
        except DecodeError as error:
            return str(error).split(" (", 1)[0]
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    with ThreadPoolExecutor(2) as pool, progress.task("reading images", len(paths)) as bar:
        for found in pool.map(read, paths):
            bar.advance(1)
            if isinstance(found, str):
                reasons[found] += 1
            elif found.id in known:
                twice += 1
            elif found.id in records:
                reasons["another file has the same bytes"] += 1
            else:
                records[found.id] = found
    return sorted(records.values(), key=lambda record: record.id), dict(reasons.most_common()), twice


def _drawn(records: Sequence[ImageRecord], rng: np.random.Generator) -> list[ImageRecord]:
    if len(records) <= _MOST:
        return list(records)
    return [records[place] for place in np.sort(rng.choice(len(records), _MOST, replace=False))]


def _independent(
    records: Sequence[ImageRecord], cache: ImageCache, progress: Progress
) -> tuple[list[ImageRecord], int]:
    """Of photos that show the same one, and how many were set aside: the tests take images for independent."""
    copies = set(find_copies(records, cache, progress))
    return [record for place, record in enumerate(records) if place not in copies], len(copies)


def _enough(records: Sequence[ImageRecord], where: str, which: str) -> None:
    if len(records) < FEWEST:
        raise DataError(f"{where}: found {len(records)} different images{which}, expected at least {FEWEST}")


def _places(before: Looks, now: Looks) -> tuple[FloatArray, FloatArray]:
    """Features; of a student without them statistics and answers."""
    if before.features is not None and now.features is not None:
        return before.features, now.features
    was, is_ = (np.concatenate([looks.statistics, looks.shares], axis=1) for looks in (before, now))
    scale = was.std(axis=0) + 1e-6
    return was / scale, is_ / scale


def _disagreement(before: Looks, now: Looks, classes: Sequence[str]) -> dict[str, Any]:
    """Agreement of teacher and student then and now with 95 % intervals, and the pairs they disagree in most."""
    from dataclasses import asdict

    from distill.core.intervals import jackknife

    assert before.teacher is not None and now.teacher is not None

    def mean(shares: npt.NDArray[np.float32]) -> dict[str, float]:
        parts = np.stack([shares, np.ones_like(shares)], axis=1).astype(np.float64)
        return asdict(jackknife(parts, lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1)))

    pairs = Counter[tuple[str, str]]()
    for said, answered in zip(now.teacher.shares, now.shares, strict=True):
        if (a := int(said.argmax())) != (b := int(answered.argmax())):
            pairs[classes[a], classes[b]] += 1
    return {
        "agreement_before": mean(before.teacher.same),
        "agreement_now": mean(now.teacher.same),
        "images_before": len(before.teacher.same),
        "images_now": len(now.teacher.same),
        "pairs": [{"teacher": a, "student": b, "images": n} for (a, b), n in pairs.most_common(10)],
    }


def _facts(looks: Looks, place: int, novelty: npt.NDArray[np.float64], classes: Sequence[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "student": classes[int(looks.shares[place].argmax())],
        "confidence": float(looks.confidence[place]),
        "uncertainty": float(looks.uncertainty[place]),
        "novelty": float(novelty[place]),
    }
    if looks.teacher is not None:
        facts["teacher"] = classes[int(looks.teacher.shares[place].argmax())]
        facts["disagreement"] = float(looks.teacher.distance[place])
    return facts
