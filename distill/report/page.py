"""`report.html`: one page that opens anywhere, in ten years too. No network, no script, every picture inside."""

from __future__ import annotations

import base64
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

from distill.core.overlay import IGNORED_COLOR, class_colors
from distill.report import figures, wording
from distill.report.masks import WRONG_COLOR
from distill.report.pictures import GROUPS, REASONS
from distill.report.sensitivity import MARGINS, look, sensitivity_curves

__all__ = ["Tile", "render"]

# The first of these that passed its proof is what the run made; int8 LiteRT is what the project is for.
_PREFERRED: Final = ("tflite-int8", "tflite-float16", "tflite-float32", "onnx-int8", "onnx-float32")
_COUNTED: Final = {"accuracy": "images", "miou": "pixels"}
"""Of what an answer is one, by the metric."""
_FILTERS: Final = {
    "capitalized": wording.capitalized,
    "percent": wording.percent,
    "points": wording.points,
    "between": wording.between,
    "megabytes": wording.megabytes,
    "millions": wording.megabytes,
    "ms": wording.milliseconds,
    "decimal": wording.decimal,
    "count": wording.count,
    "duration": wording.duration,
    "trimmed": wording.trimmed,
}


class Tile(NamedTuple):
    """One figure of the first screen.

    Args:
        title: what it is.
        value: the number.
        unit: of the number; may be empty.
        detail: what one has to know to read it.
    """

    title: str
    value: str
    unit: str
    detail: str


def render(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Write the page.

    Names, labels and paths come from files that anybody may have made: they are escaped, and a policy in the page
    forbids it to load or run anything, should that ever fail. The same report gives the same text.

    Args:
        report: the document of `report.json`.
        pictures: PNG or JPEG by the names that the report uses; a missing one is said to be missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else wording.printable(value, keep="\n\t"),
    )
    environment.filters.update(_FILTERS, along=_along)
    rows, classes = report["rows"], report["classes"]
    metric, counted = wording.printable(report["metric"]["title"]), _COUNTED[report["metric"]["key"]]
    drawn = {
        "latency": figures.score_against_latency(rows, f"{wording.printable(report['split'])} {metric}"),
        "loss": figures.loss_curves(report["curves"]),
        "validation": figures.validation_curves(report["curves"], metric),
        "confusion": _confusion(report["confusion"], classes, counted),
        "reliability": figures.reliability(report["profile"]["reliability"]),
    }
    made = _made(rows)
    groups, worse = report["groups"], report["perturbation"]
    template = environment.get_template("page.html.j2")
    html: str = template.render(
        report=report,
        made=made,
        failed=[gate for gate in report["gates"] if not gate["holds"]],
        gates=[_gate(gate) for gate in sorted(report["gates"], key=lambda gate: bool(gate["holds"]))],
        rejected=[row for row in rows if row["status"] == "rejected"],
        tiles=_tiles(report, made) if made else [],
        threads=sorted({timing["threads"] for row in rows for timing in row["latency"] or ()}),
        seconds=sum(stage["seconds"] for stage in report["stages"]),
        # Drawn by matplotlib, which escapes the text in it.
        figures={name: Markup(svg) if svg else None for name, svg in drawn.items()},  # noqa: S704
        worse=[Markup(svg) for svg in sensitivity_curves(worse["kinds"])] if worse else [],  # noqa: S704
        lines=_lines(worse["kinds"][0]["series"]) if worse else [],
        margins=MARGINS,
        scale=_scale([row["score"] for row in rows if row["score"] and row["runtime"] != "baseline"]),
        groups=_hardest_first(groups["rows"])[:GROUPS] if groups else [],
        group_scale=_scale([score for row in groups["rows"] for score in row["scores"]] if groups else []),
        teacher=next((row for row in rows if row["name"] == "teacher" and row["status"] == "ok"), None),
        compared=_compared(report),
        place=shlex.quote(wording.printable(report["folder"])),
        counted=counted,
        details=list(dict.fromkeys(name for row in rows for name in row["details"])),
        differences=any(row["max_difference"] is not None for row in rows),
        # A mask names a class by its place, and so does its colour.
        colours=[_rgb(colour) for colour in class_colors(len(classes)).tolist()],
        wrong=_rgb(WRONG_COLOR),
        ignored=_rgb(IGNORED_COLOR),
        addresses={name: address for name, image in pictures.items() if (address := _address(image))},
        environment=[(key, _flat(value)) for key, value in report["environment"].items()],
        left_out_by_reason=sorted(report["data"]["left_out_by_reason"].items(), key=lambda item: (-item[1], item[0]))[
            :REASONS
        ],
        made_at=_day_and_time(report["created_at"]),
        nothing=wording.NOTHING,
        split=report["split"],
        class_figures=[
            k for k in report["figures"] if any(k in each for each in report["profile"]["classes"].values())
        ],
        metric=metric,
    )
    return html


def _lines(series: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Name and look of each predictor's line, for the legend."""
    return [{"name": one["name"], "look": look(one["name"])} for one in series]


def _hardest_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Groups by the score of the last predictor; those of few images, of which little is known, behind the others."""
    return sorted(rows, key=lambda row: (row["small"], row["scores"][-1]["value"]))


def _confusion(confusion: Mapping[str, Any] | None, classes: Sequence[str], counted: str) -> str | None:
    if confusion is None:
        return None
    return figures.confusion_matrix(classes, confusion["counts"], in_percent=counted == "pixels")


def _day_and_time(iso: str) -> str:
    """`2026-11-20 19:41 UTC`; what is no such time stays as it is."""
    try:
        moment = datetime.fromisoformat(iso.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
    except ValueError:
        return iso
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _made(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the file that the run was for; None if no file passed."""
    passed = {row["name"]: row for row in rows if row["status"] == "ok"}
    return next((passed[name] for name in _PREFERRED if name in passed), None)


def _gate(gate: Mapping[str, Any]) -> dict[str, Any]:
    limit, found = wording.compared(gate["limit"], gate["found"])
    return {**gate, "limit": limit, "found": found, "title": wording.gate(gate["name"])}


def _scale(scores: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Ends of an axis that holds all of these intervals, in steps of 5 %; None of no scores."""
    if not scores:
        return None
    low, high = min(score["low"] for score in scores), max(score["high"] for score in scores)
    first, last = math.floor(20 * low), math.ceil(20 * high)
    return {"low": first / 20, "high": max(last, first + 1) / 20}


def _along(value: float, scale: Mapping[str, float]) -> str:
    """A place on a whisker's axis of 120 units, with room for the dots at its ends; what lies outside is cut."""
    share = (value - scale["low"]) / (scale["high"] - scale["low"])
    return f"{4 + 112 * min(max(share, 0.0), 1.0):.1f}"


def _compared(report: Mapping[str, Any]) -> int:
    """Images, or pixels, on which it was counted who is right."""
    if report["masks"]:
        return sum(line["pixels"] for line in (report["masks"]["disagreements"] or {"counts": ()})["counts"])
    return sum(line["images"] for line in (report["disagreements"] or {"counts": ()})["counts"])


def _tiles(report: Mapping[str, Any], made: Mapping[str, Any]) -> list[Tile]:
    score, gain, drop = made["score"], report["gain"], made["drop"]
    single = next((timing for timing in made["latency"] or () if timing["threads"] == 1), None)
    tiles = [Tile("Size", wording.megabytes(made["bytes"]), "MB", _smaller(report["rows"], made))]
    title = f"{wording.capitalized(report['split'])} {report['metric']['title']}"
    if score:
        detail = f"95 % interval {wording.between(score)}; {wording.count(made['images'])} images"
        detail += _taught_by(report["rows"])
        tiles.append(Tile(title, wording.points(score["value"]), "%", detail))
    else:
        tiles.append(Tile(title, wording.NOTHING, "", "not scored"))
    if on_phone := _on_phone(report, made):
        here = f"; here {wording.milliseconds(single['p50_ms'])} ms" if single else ""
        detail = f"p50 in the app on a phone, threads: {on_phone['threads']}{here}"
        tiles.append(Tile("Latency", wording.milliseconds(on_phone["p50_ms"]), "ms", detail))
    elif single:
        detail = f"p50 at 1 thread on this machine; p90 {wording.milliseconds(single['p90_ms'])} ms"
        tiles.append(Tile("Latency", wording.milliseconds(single["p50_ms"]), "ms", detail))
    else:
        tiles.append(Tile("Latency", wording.NOTHING, "", "not timed"))
    if gain:
        value = wording.points(gain["value"], signed=True)
        tiles.append(Tile("Gain by the teacher", value, "points", f"student against control; {_certainty(gain)}"))
    else:
        tiles.append(Tile("Gain by the teacher", wording.NOTHING, "", "there is no control to compare with"))
    if drop:
        detail = f"against the float student; {_certainty(drop)}"
        tiles.append(Tile("Lost in the file", wording.points(drop["value"]), "points", detail))
    else:
        tiles.append(Tile("Lost in the file", wording.NOTHING, "", "not compared with the student"))
    if made["agreement"] is None:
        tiles.append(Tile("Same answer", wording.NOTHING, "", "not compared with the student"))
    else:
        parts = made["partitions"]
        detail = "" if parts is None else f"; {parts} partition{'' if parts == 1 else 's'}"
        agreement = wording.points(made["agreement"])
        tiles.append(Tile("Same answer", agreement, "%", f"agreement with the student{detail}"))
    return tiles


def _on_phone(report: Mapping[str, Any], made: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Its times in the app on one thread, where a phone was asked."""
    rows = (report["phone"] or {"rows": ()})["rows"]
    named = [row for row in rows if row["name"] == made["name"] and row["way"] == "app"]
    return min(named, key=lambda row: row["threads"], default=None)


def _taught_by(rows: Sequence[Mapping[str, Any]]) -> str:
    score = next((row["score"] for row in rows if row["name"] == "teacher"), None)
    return f"; the teacher {wording.percent(score['value'])}" if score else ""


def _smaller(rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> str:
    teacher = next((row["bytes"] for row in rows if row["name"] == "teacher"), None)
    if not teacher or not made["bytes"]:
        return str(made["detail"])
    return f"{100 * made['bytes'] / teacher:.2g} % of the teacher's {wording.megabytes(teacher)} MB"


def _certainty(interval: Mapping[str, float]) -> str:
    """The bounds, and the plain word where they leave the sign open."""
    open_sign = interval["low"] <= 0 <= interval["high"]
    return f"{wording.between(interval)}{', so it may be none' if open_sign else ''}"


def _address(image: bytes) -> str | None:
    """A `data:` address by the bytes themselves; None for anything but PNG and JPEG (an SVG could hold a script)."""
    kinds = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
    kind = next((kind for start, kind in kinds.items() if image.startswith(start)), None)
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}" if kind else None


def _rgb(colour: Sequence[int]) -> str:
    return f"rgb({', '.join(map(str, colour))})"


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
