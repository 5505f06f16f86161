"""Label Studio's JSON: tasks with choices, brush strokes or polygons, and the teacher's answers as predictions.

Images are named as local files (`/data/local-files/?d=…`), which Label Studio serves where it is started with
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from distill.core.files import write_text
from distill.core.types import ImageRecord
from distill.data.corrections import Answer
from distill.labels.maps import of_size
from distill.review.formats._found import Finder, Found, Painting, areas, mask_of
from distill.review.runs import lengths_of
from distill.review.subject import Item, Subject

__all__ = ["decoded", "encoded", "read", "write"]

_CONTROL: Final = "class"  # `name` of the tag in the labelling config
_IMAGE: Final = "image"
_LENGTHS: Final = (3, 4, 8, 16)  # bits of a stretch's length, the four choices that a file begins with
_CHANNELS: Final = 4  # a brush stroke is a picture with opacity; all channels are the same

_Pixels = npt.NDArray[np.uint8]


def write(subject: Subject, said: Mapping[str, Answer], path: Path) -> int:
    """Write all images as tasks; answers are annotations, what is suggested are predictions.

    Returns:
        Number of annotations.
    """
    tasks, answered = [], 0
    for number, item in enumerate(subject.items.values(), start=1):
        answer, annotations = said.get(item.record.id), []
        if answer is not None and answer.action in ("label", "mask"):
            result = _label(answer.label) if answer.label else _masks(mask_of(subject, answer), item.record, subject)
            annotations.append({"result": result, "completed_by": {"email": answer.user}, "was_cancelled": False})
        elif answer is not None:
            annotations.append({"result": [], "completed_by": {"email": answer.user}, "was_cancelled": True})
        answered += bool(annotations)
        data = {"image": f"/data/local-files/?d={quote(item.record.path.lstrip('/'))}", "id": item.record.id}
        predictions = [{"model_version": "teacher", "score": item.sure, "result": _suggested(item, subject)}]
        tasks.append(
            {"id": number, "data": data, "annotations": annotations, "predictions": predictions if item.sure else []}
        )
    write_text(path, json.dumps(tasks, indent=1, ensure_ascii=True, allow_nan=False) + "\n")
    return answered


def _suggested(item: Item, subject: Subject) -> list[dict[str, Any]]:
    if not subject.by_pixel:
        return _label(item.suggestion)
    record = item.record
    return _masks(of_size(subject.suggested(record), record.width, record.height), record, subject)


def _label(name: str) -> list[dict[str, Any]]:
    return [{"from_name": _CONTROL, "to_name": _IMAGE, "type": "choices", "value": {"choices": [name]}}]


def _masks(mask: _Pixels, record: ImageRecord, subject: Subject) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{record.id[:8]}-{number}",
            "from_name": _CONTROL,
            "to_name": _IMAGE,
            "type": "brushlabels",
            "original_width": record.width,
            "original_height": record.height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": list(encoded(inside.astype(np.uint8).ravel().repeat(_CHANNELS) * np.uint8(255))),
                "brushlabels": [name],
            },
        }
        for number, (name, inside) in enumerate(areas(mask, subject.classes))
    ]


def read(subject: Subject, path: Path, finder: Finder) -> Iterator[Found | str]:
    """Read annotations, several of one task in their order; what a person cancelled is passed over.

    Yields:
        What was found, or what is wrong with an annotation.

    Raises:
        ValueError, OSError: it is no JSON of tasks.
    """
    tasks = json.loads(path.read_bytes())
    if not isinstance(tasks, list):
        raise ValueError("expected a list of tasks")
    for number, task in enumerate(tasks):
        try:
            record = finder.find(_named(task["data"]))
            annotations = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
            found = [_found(subject, record, annotation) for annotation in annotations]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            yield f"task {number}: {error if isinstance(error, ValueError) else f'is no task ({error!r})'}"
            continue
        yield from (each for each in found if each is not None)


def _named(data: Mapping[str, Any]) -> str:
    """The address of a task's image, or our own id where it came back."""
    texts = [str(data[key]) for key in ("id", _IMAGE, "img") if isinstance(data.get(key), str)]
    texts += [value for value in data.values() if isinstance(value, str)]
    if not texts:
        raise ValueError("its data names no image")
    return texts[0]


def _found(subject: Subject, record: ImageRecord, annotation: Mapping[str, Any]) -> Found | None:
    by = annotation.get("completed_by")
    user = str(by.get("email", "") if isinstance(by, dict) else by or "")
    results = [result for result in annotation["result"] if result.get("type")]
    if not subject.by_pixel:
        named = [result["value"]["choices"] for result in results if result["type"] == "choices"]
        if not named:
            return None
        if len(named) > 1 or len(named[0]) != 1 or named[0][0] not in subject.classes:
            raise ValueError(f"found {named}, expected one of {', '.join(subject.classes)}")
        return Found(record, label=named[0][0], user=user)
    painting = Painting(record, subject.classes)
    for result in results:
        kind, value = result["type"], result["value"]
        if kind not in ("brushlabels", "polygonlabels"):
            continue
        size = (result["original_width"], result["original_height"])
        if size != (record.width, record.height) or result.get("image_rotation"):
            raise ValueError(
                f"drawn on {size[0]}x{size[1]} pixels turned by {result.get('image_rotation') or 0} degrees, expected"
                f" {record.width}x{record.height} turned by 0 like {record.path}"
            )
        (name,) = value[kind]
        if kind == "brushlabels":
            flat = decoded(bytes(value["rle"]), record.width * record.height * _CHANNELS)
            painting.area(name, flat.reshape(record.height, record.width, _CHANNELS)[..., -1] > 0)
        else:
            corners = np.array(value["points"], np.float64) * [record.width / 100, record.height / 100]
            painting.polygon(name, corners)
    return Found(record, mask=painting.mask, user=user)


def encoded(values: _Pixels) -> bytes:
    """Bytes as Label Studio packs them (@thi.ng/rle-pack): a stretch of equal ones as its length and value.

    Number of values (32 bits), bits a value less one (5), bits of the four kinds of length less one (4 each); then for
    each stretch a bit that says whether its values are equal, which kind of length (2), length less one, value.
    """
    parts = [f"{len(values):032b}", f"{7:05b}", *(f"{bits - 1:04b}" for bits in _LENGTHS)]
    most = 1 << _LENGTHS[-1]
    for value, length in zip(*lengths_of(values), strict=True):
        for left in range(int(length), 0, -most):
            steps = min(left, most) - 1
            kind = next(n for n, bits in enumerate(_LENGTHS) if steps < 1 << bits)
            parts.append(f"1{kind:02b}{steps:0{_LENGTHS[kind]}b}{value:08b}")
    bits = "".join(parts)
    size = math.ceil(len(bits) / 8)
    return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def decoded(packed: bytes, expected: int) -> _Pixels:
    """What `encoded` packed, uint8 [expected].

    Raises:
        ValueError: it is damaged, or holds another number of values.
    """
    bits = f"{int.from_bytes(packed, 'big'):0{8 * len(packed)}b}" if packed else ""
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise ValueError("a brush stroke ends too early")
        return int(bits[at - count : at], 2)

    if (found := take(32)) != expected:
        raise ValueError(f"a brush stroke has {found} values, expected {expected}")
    word = take(5) + 1
    kinds = [take(4) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(f"a brush stroke has {word} bits a value, expected at most 8")
    values = np.zeros(expected, np.uint8)
    place = 0
    while place < expected:
        equal = take(1)
        last = place + take(kinds[take(2)]) + 1
        if last > expected:
            raise ValueError("a brush stroke is longer than its image")
        values[place:last] = take(word) if equal else [take(word) for _ in range(place, last)]
        place = last
    return values
