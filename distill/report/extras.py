"""What other commands left in the run folder: the audit, the checks before training, what was looked at.

A file that is missing, damaged or of an earlier state of the run counts as not there: the page then names the command
that makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from distill.core.files import read_json
from distill.core.run import Run
from distill.report.pictures import AUDITED, EPOCHS, HEAT_MAPS, as_jpeg, copy_of, scaled_photo

__all__ = ["audited", "behind", "checked", "learnt", "looked_at", "notes", "perturbed", "short"]

_LATER: Final = (
    "audit/audit.json", "sanity.json", "looking/looking.json", "looking/perturbation.json",
    "benchmark/benchmark-adb.json",
)  # fmt: skip
"""Written by other commands, maybe after the report."""

_EACH: Final = 4  # pictures of a finding of the audit
_UNCHANGED: Final = {"brightness": 1.0}
"""The level that changes nothing, where it lies between the others and not before them."""


def audited(run: Run, max_megapixels: float, pictures: dict[str, bytes]) -> Any:
    """What `distill audit` found, with a few images a finding; None where it was not asked since images were read.

    Args:
        run: its folder.
        max_megapixels: larger images are not opened.
        pictures: gets the images.

    Returns:
        For `report.json`: `levels`, `findings` (level, title, meaning, rule, count, `shown` of picture, path, split,
        label and detail), and `notes`.
    """
    path = run.root / "audit" / "audit.json"
    found = _read(path)
    if found is None or path.stat().st_mtime < (run.folder("data") / "stage.json").stat().st_mtime:
        return None
    findings, left = [], AUDITED
    for number, finding in enumerate(found["findings"]):
        shown: list[dict[str, Any]] = []
        pairs = [
            image
            for pair in finding["pairs"]
            for image in (pair["first"], {**pair["second"], "detail": pair["detail"]})
        ]
        for image in (pairs or finding["images"])[: min(_EACH, left)] if finding["level"] != "note" else ():
            drawn = scaled_photo(image["path"], max_megapixels)
            if drawn is not None:
                name = f"audit-{number}-{len(shown)}"
                pictures[name] = drawn
                shown.append({**image, "picture": name, "path": short(image["path"])})
        left -= len(shown)
        kept = {key: finding[key] for key in ("level", "title", "meaning", "rule", "count")}
        findings.append({**kept, "shown": shown})
    return {"levels": found["levels"], "findings": findings, "notes": found["notes"]}


def checked(run: Run) -> Any:
    """What `distill sanity`, or its quick part before the training, saw; None where nothing was checked."""
    found = _read(run.root / "sanity.json")
    if found is None:
        return None
    kept = ("name", "status", "expected", "saw", "causes")
    checks = [{key: check[key] for key in kept} for check in found["checks"]]
    named = ("quick", "learns_from", "passed", "failed", "skipped", "seconds")
    return {**{key: found[key] for key in named}, "checks": checks}


def looked_at(run: Run, pictures: dict[str, bytes]) -> Any:
    """What `distill look` drew of this student: `filters` and `heat_maps`; None where it was not asked."""
    folder = run.root / "looking"
    found = _of_now(run, _read(folder / "looking.json"))
    if found is None:
        return None
    filters = found["filters"]
    if filters is not None:
        _take(pictures, filters["picture"], copy_of(folder / f"{filters['picture']}.png"))
    maps = []
    for item in found["mistakes"][:HEAT_MAPS]:
        _take(pictures, item["picture"], copy_of(folder / f"{item['picture']}.png"))
        maps.append({**item, "path": short(item["path"])})
    return {"filters": filters, "heat_maps": maps}


def perturbed(run: Run, pictures: dict[str, bytes]) -> Any:
    """Scores of `distill perturb` in the order in which they are drawn; None where it was not asked of these files.

    Returns:
        `split`, `images` and `kinds`: `name`, `unit`, `levels` (from one end to the other, None for the photos as they
        are), `series` of `name` and `scores` (value, low, high), one a level, and `picture`: how one photo looks then.
    """
    folder = run.root / "looking"
    found = _of_now(run, _read(folder / "perturbation.json"))
    if found is None:
        return None
    rows = _rows_of(folder / "perturbation-examples.png", len(found["kinds"]))
    kinds = []
    for number, (kind, levels) in enumerate(found["kinds"].items()):
        given: list[float | None] = [None, *levels["levels"]]
        order = sorted(range(len(given)), key=_places(kind, given).__getitem__)
        series = []
        for curve in found["curves"]:
            scores = {(row["kind"], row["level"]): row["score"] for row in curve["rows"]}
            said = [scores["none", 0.0] if given[at] is None else scores[kind, given[at]] for at in order]
            series.append({"name": curve["name"], "scores": said})
        name = f"perturbed-{number}"
        _take(pictures, name, _tiles(rows[number], len(given), order) if rows else None)
        known = {"name": kind, "unit": levels["unit"], "levels": [given[at] for at in order]}
        kinds.append({**known, "series": series, "picture": name})
    return {"split": found["split"], "images": found["images"], "kinds": kinds}


def learnt(run: Run, best_epoch: int | None, pictures: dict[str, bytes]) -> Any:
    """What the student said of the same few images while it learnt; None where nothing was kept.

    Returns:
        `images` (truth, picture; one picture of all, `strip`, where masks are answered) and a few `epochs` from first
        to last: number, whether it was `kept`, and `answers` of labels or the `picture` of the masks.
    """
    folder = run.folder("student") / "strip"
    found = _read(folder / "strip.json")
    if found is None or not found["epochs"]:
        return None
    epochs = found["epochs"]
    places = {int(place) for place in np.geomspace(1, len(epochs), EPOCHS - 1).round()}
    places |= {place for place, each in enumerate(epochs, 1) if each["epoch"] == best_epoch}
    chosen = [{**epochs[place - 1], "kept": epochs[place - 1]["epoch"] == best_epoch} for place in sorted(places)]
    images = [{"truth": each["truth"], "path": short(each["path"])} for each in found["images"]]
    if "answers" in chosen[0]:
        rows = _rows_of(folder / f"{found['picture']}.png", 1)
        for number, image in enumerate(images):
            image["picture"] = f"strip-{number}"
            _take(pictures, f"strip-{number}", _tiles(rows[0], len(images), [number]) if rows else None)
    else:
        _take(pictures, "strip", copy_of(folder / f"{found['picture']}.png"))
        for each in chosen:
            name = f"strip-{each['epoch']}"
            _take(pictures, name, copy_of(folder / f"{each['picture']}.png"))
            each["picture"] = name
    return {"images": images, "epochs": chosen}


def behind(run: Run) -> bool:
    """Whether something that the report shows came into the run folder after the report was written."""
    report = run.root / "report.json"
    later = [run.root / name for name in _LATER]
    return report.exists() and any(p.exists() and p.stat().st_mtime > report.stat().st_mtime for p in later)


def notes(parts: Mapping[str, Any]) -> Iterator[str]:
    """What the first screen has to say of these parts, by their keys in `report.json`."""
    audit, sanity = parts["audit"], parts["sanity"]
    for finding in audit["findings"] if audit else ():
        if finding["level"] == "error":
            yield f"The audit found an error: {finding['title']} ({finding['count']})."
    if sanity and sanity["failed"]:
        names = [check["name"] for check in sanity["checks"] if check["status"] == "failed"]
        yield f"Checks before training failed: {', '.join(names)}."


def short(path: str) -> str:
    """The last three parts: folder names often are classes and splits."""
    return str(Path(*Path(path).parts[-3:]))


def _read(path: Path) -> Any:
    try:
        found = read_json(path)
        return found if found["format"] == 1 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_now(run: Run, found: Any) -> Any:
    """The document if it is about the files that the run has now."""
    made_from = (found or {}).get("made_from")
    if not made_from or any(run.fingerprint(stage) != known for stage, known in made_from.items()):
        return None
    return found


def _places(kind: str, levels: Sequence[float | None]) -> list[float]:
    """Where each level lies between the others; None is the photo as it is."""
    if kind not in _UNCHANGED:
        return list(range(len(levels)))
    return [_UNCHANGED[kind] if level is None else level for level in levels]


def _take(pictures: dict[str, bytes], name: str, picture: bytes | None) -> None:
    if picture is not None:
        pictures[name] = picture


def _rows_of(path: Path, count: int) -> list[Image.Image]:
    """The rows of a picture that has `count` of them; none where it is gone."""
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return []
    height = whole.height // count
    return [whole.crop((0, row * height, whole.width, (row + 1) * height)) for row in range(count)]


def _tiles(row: Image.Image, count: int, order: Sequence[int]) -> bytes:
    """Some of the `count` squares of a row, side by side."""
    side = row.width // count
    laid = Image.new("RGB", (side * len(order), row.height))
    for place, at in enumerate(order):
        laid.paste(row.crop((at * side, 0, (at + 1) * side, row.height)), (place * side, 0))
    return as_jpeg(laid)
