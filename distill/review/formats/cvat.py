"""CVAT for images 1.1: one XML file with a tag, or masks and polygons, for each image."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # what is read goes through `_parsed`
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from distill.core.files import write_text
from distill.core.types import ImageRecord
from distill.data.corrections import Answer
from distill.review.formats._found import Finder, Found, Painting, areas, mask_of
from distill.review.runs import filled, lengths_of
from distill.review.subject import Subject

__all__ = ["read", "write"]

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(subject: Subject, said: Mapping[str, Answer], path: Path) -> int:
    """Write all images, those that were answered with their classes.

    Returns:
        Number of images with a class or mask.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for name in subject.classes:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = _clean(name)
    answered = 0
    for number, item in enumerate(subject.items.values()):
        record, answer = item.record, said.get(item.record.id)
        values = {"id": number, "name": record.path.lstrip("/"), "width": record.width, "height": record.height}
        image = ET.SubElement(root, "image", {key: _clean(str(value)) for key, value in values.items()})
        if answer is None or answer.action not in ("label", "mask"):
            continue
        answered += 1
        if answer.label:
            ET.SubElement(image, "tag", {"label": _clean(answer.label), "source": "manual"})
            continue
        for order, (name, inside) in enumerate(areas(mask_of(subject, answer), subject.classes)):
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            top, left = int(rows[0]), int(columns[0])
            cut = inside[top : rows[-1] + 1, left : columns[-1] + 1]
            runs = lengths_of(cut.ravel())[1].tolist()
            runs = [0, *runs] if cut[0, 0] else runs  # the first run is outside
            values = {"label": name, "source": "manual", "occluded": 0, "rle": ", ".join(map(str, runs))}
            values |= {"left": left, "top": top, "width": cut.shape[1], "height": cut.shape[0], "z_order": order}
            ET.SubElement(image, "mask", {key: _clean(str(value)) for key, value in values.items()})
    ET.indent(root)
    write_text(path, '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n")
    return answered


def _clean(text: str) -> str:
    """Text without the characters that no XML can hold."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def read(subject: Subject, path: Path, finder: Finder) -> Iterator[Found | str]:
    """Read the images that have a tag, a mask or a polygon; later shapes and higher `z_order` lie above.

    Yields:
        What was found, or what is wrong with an image.

    Raises:
        ValueError, OSError: it is no such XML.
    """
    root = _parsed(path)
    if root.tag != "annotations":
        raise ValueError(f"found <{root.tag}>, expected <annotations>, as in CVAT for images 1.1")
    for image in root.iter("image"):
        kinds = ("tag",) if not subject.by_pixel else ("mask", "polygon")
        parts = sorted((part for part in image if part.tag in kinds), key=lambda part: int(part.get("z_order", 0)))
        if not parts:
            continue
        try:
            yield _found(subject, finder.find(image.attrib["name"]), parts)
        except (ValueError, KeyError) as error:
            lacking = f"lacks {error}" if isinstance(error, KeyError) else error
            yield f"image {image.get('id', '')} {image.get('name', '')!r}: {lacking}"


def _found(subject: Subject, record: ImageRecord, parts: list[Any]) -> Found:
    if not subject.by_pixel:
        names = [part.attrib["label"] for part in parts]
        if len(names) > 1 or names[0] not in subject.classes:
            raise ValueError(f"found {', '.join(names)}, expected one of {', '.join(subject.classes)}")
        return Found(record, label=names[0])
    painting = Painting(record, subject.classes)
    for part in parts:
        name = part.attrib["label"]
        if part.tag == "polygon":
            points = [[float(number) for number in pair.split(",")] for pair in part.attrib["points"].split(";")]
            painting.polygon(name, points)
            continue
        left, top, width, height = (int(part.attrib[key]) for key in ("left", "top", "width", "height"))
        runs = [int(number) for number in part.attrib["rle"].split(",")]
        fits = 0 <= left < left + width <= record.width and 0 <= top < top + height <= record.height
        if not fits or min(runs) < 0 or sum(runs) != width * height:
            raise ValueError(
                f"a mask of {sum(runs)} pixels in {width}x{height} at ({left}, {top}) of an image of"
                f" {record.width}x{record.height}"
            )
        inside = np.zeros((record.height, record.width), np.bool_)
        inside[top : top + height, left : left + width] = filled(runs).reshape(height, width)
        painting.area(name, inside)
    return Found(record, mask=painting.mask)


def _parsed(path: Path) -> Any:
    """The root of an XML file; one that declares a document type is refused, since entities can grow or open files.

    Raises:
        ValueError: it is no XML, or declares a document type.
    """
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator=None)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which these files never do")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML ({error})") from None
    return builder.close()
