"""Metadata inside a TFLite file, as MediaPipe Tasks, Android Studio and TFLite Support read it.

What is said stands in a flatbuffer of its own (identifier M001, `metadata_schema.fbs` of TFLite Support and MediaPipe),
which the model keeps as a buffer named TFLITE_METADATA; the labels are zipped behind the model, so that `unzip` lists
them. A reader of models begins at the file's start, a reader of archives at its end.

The tools that usually write this read the model's flatbuffer and write it anew. That loses the weights which
ai-edge-quantizer stores behind it, since their places count from the start of the file: 1.9 MB became 0.4 MB, and the
file no longer ran. Here nothing of the model is written anew. Its bytes move back as a block, which changes no distance
within them; a new root stands in front and points into it; what counts from the start of the file is raised.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from distill.core.errors import ArtifactError
from distill.core.flatbuffer import (
    Byte,
    Uint32,
    blob,
    child,
    floats,
    number,
    numbers,
    place_of,
    places,
    root_of,
    string,
    table,
    tables,
    vector,
)
from export.about import LABELS_FILE, About

if TYPE_CHECKING:
    from flatbuffers.table import Table

__all__ = ["METADATA", "with_metadata"]

METADATA: Final = "TFLITE_METADATA"
_BLOCK: Final = 64  # bytes; weights are aligned to 16, so the model may move by any multiple of that
_PARSER: Final = "1.0.0"  # version of both metadata schemas: what is used here stood in the first
_LATER: Final = 0xFFFFFFFF  # stands for a distance that is not known yet

# Numbers of fields in the TFLite schema's tables.
_VERSION, _SUBGRAPHS, _BUFFERS, _METADATA = 0, 2, 4, 6
_FIELDS = 10  # of a model; behind the version all of them point at something
_TENSORS, _INPUTS, _OPERATORS = 0, 1, 3  # of a subgraph
_SHAPE, _TYPE, _QUANTIZATION = 0, 1, 4  # of a tensor
_INT8 = 9  # of its types
_SCALE, _ZERO_POINT = 2, 3  # of its quantization
_BUFFER_OFFSET, _OPTIONS_OFFSET = 1, 9  # of a buffer, of an operator

# Numbers of the metadata schemas' enumerations.
_FEATURES, _IMAGE = Byte(1), Byte(2)
_RGB, _GREY = Byte(1), Byte(2)
_NORMALIZATION = Byte(1)
_AXIS_LABELS, _VALUE_LABELS = Byte(2), Byte(3)
_NO_ACTIVATION, _SOFTMAX = Byte(0), Byte(2)


def with_metadata(model: bytes, about: About) -> bytes:
    """A TFLite file that says what it is.

    Args:
        model: a TFLite file of one input [1, H, W, 3], bytes as uint8, as int8 less 128 or as float32, and one output.
        about: what is said.

    Returns:
        A file that runs as `model` does. The same arguments give the same bytes.

    Raises:
        ArtifactError: the model has metadata already, or is laid out in a way that is not known here.
    """
    root = _root(model)
    front = _front(root, _described(about, _taken(root)))
    moved = bytearray(model)
    for place in _counted_from_the_start(root):
        (offset,) = struct.unpack_from("<Q", moved, place)
        if offset > 1:  # 0 and 1 say that nothing is stored behind the flatbuffer
            struct.pack_into("<Q", moved, place, offset + len(front))
    whole = io.BytesIO()
    whole.write(front + moved)
    # Stored, since readers on phones take the bytes as they lie; no date, since that would be another file each time.
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo(LABELS_FILE, date_time=(1980, 1, 1, 0, 0, 0))
        entry.create_system, entry.external_attr = 3, 0o100644 << 16
        archive.writestr(entry, about.lines.encode())
    return whole.getvalue()


def _front(root: Table, metadata: bytes) -> bytes:
    """What stands before the old model: a root with one buffer and one metadata more, else with the same fields."""
    import flatbuffers

    listed = {slot: [each.Pos for each in tables(root, slot)] for slot in (_BUFFERS, _METADATA)}
    kept = [slot for slot in range(1, _FIELDS) if slot not in listed and place_of(root, slot) is not None]
    builder = flatbuffers.Builder(1024)
    data = table(builder, {0: blob(builder, metadata)})
    name = builder.CreateString(METADATA)
    entry = table(builder, {0: name, 1: Uint32(len(listed[_BUFFERS]))})
    fields: dict[int, int | Uint32] = {_VERSION: Uint32(number(root, _VERSION, "I"))}
    for slot, last in ((_BUFFERS, data), (_METADATA, entry)):
        builder.StartVector(4, len(listed[slot]) + 1, 4)
        builder.PrependUOffsetTRelative(last)
        for _ in listed[slot]:
            builder.PrependUint32(_LATER)
        fields[slot] = int(builder.EndVector())
    builder.Finish(table(builder, fields | dict.fromkeys(kept, Uint32(_LATER))), b"TFL3")
    front = builder.Output()
    front += bytes(-len(front) % _BLOCK)

    # Only now is it known how far behind the old tables, vectors and strings will lie.
    new = root_of(front)
    targets: dict[int, int] = {}
    for slot in kept:
        old, place = place_of(root, slot), place_of(new, slot)
        assert old is not None and place is not None
        targets[place] = root.Indirect(old)
    for slot, tabled in listed.items():
        targets |= dict(zip(places(new, slot), tabled, strict=False))
    for place, target in targets.items():
        struct.pack_into("<I", front, place, len(front) + target - place)
    return bytes(front)


class _Taken(NamedTuple):
    """The input tensor.

    Args:
        height: in pixels.
        width: in pixels.
        scale: of a quantized tensor, else 0.
        zero_point: of a quantized tensor, as if it held bytes: an int8 tensor holds bytes less 128.
    """

    height: int
    width: int
    scale: float
    zero_point: int


def _described(about: About, taken: _Taken) -> bytes:
    """The metadata's own flatbuffer: ModelMetadata."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    text = builder.CreateString
    entry = {0: text(LABELS_FILE), 1: text("Names of the classes, one a line.")}
    labels = table(builder, {**entry, 2: _VALUE_LABELS if about.output == "class_map" else _AXIS_LABELS})
    # What a reader does before it hands over bytes. A float file normalises them itself. The input tensor of an int8
    # file has a scale and a zero point, by which readers quantize what they have normalised: both steps together must
    # leave every byte as it was. (The usual mean of 127.5 beside a zero point of 128 would give x + 0.5.)
    mean, std = (float(taken.zero_point), 1 / taken.scale) if taken.scale else (0.0, 1.0)
    options = table(builder, {0: floats(builder, mean), 1: floats(builder, std)})
    size = table(builder, {0: Uint32(taken.width), 1: Uint32(taken.height)})
    picture = table(builder, {0: _RGB, 1: size})
    image: dict[int, int | Byte | Uint32] = {
        0: text("image"),
        1: text(about.input_description),
        3: table(builder, {0: _IMAGE, 1: picture}),
        4: vector(builder, [table(builder, {0: _NORMALIZATION, 1: options})]),
        5: table(builder, {0: floats(builder, 255), 1: floats(builder, 0)}),
    }
    if about.dense:  # one grey picture a class: what a content is has dimensions 1 and 2
        range_ = table(builder, {0: Uint32(1), 1: Uint32(2)})
        content = table(builder, {0: _IMAGE, 1: table(builder, {0: _GREY}), 2: range_})
    else:
        content = table(builder, {0: _FEATURES, 1: table(builder, {})})
    answer: dict[int, int | Byte | Uint32] = {
        0: text(about.output),
        1: text(about.output_description),
        3: content,
        6: vector(builder, [labels]),
    }
    if about.output == "probabilities":
        answer[5] = table(builder, {0: floats(builder, 1), 1: floats(builder, 0)})
    graph: dict[int, int | Byte | Uint32] = {
        2: vector(builder, [table(builder, image)]),
        3: vector(builder, [table(builder, answer)]),
    }
    if about.dense:
        custom = {0: text("SEGMENTER_METADATA"), 1: blob(builder, _segmenter(about))}
        graph[9] = vector(builder, [table(builder, custom)])
    model: dict[int, int | Byte | Uint32] = {
        0: text(about.name),
        1: text(about.description),
        2: text(about.version),
        3: vector(builder, [table(builder, graph)]),
        7: text(_PARSER),
    }
    builder.Finish(table(builder, model), b"M001")
    return bytes(builder.Output())


def _segmenter(about: About) -> bytes:
    """What MediaPipe's ImageSegmenter does with the answers: ImageSegmenterOptions."""
    import flatbuffers

    builder = flatbuffers.Builder(64)
    version = builder.CreateString(_PARSER)
    activation = _SOFTMAX if about.output == "logits" else _NO_ACTIVATION
    builder.Finish(table(builder, {0: activation, 1: version}), b"V001")
    return bytes(builder.Output())


def _root(model: bytes) -> Table:
    """The model's root.

    Raises:
        ArtifactError: it is none that can be given metadata.
    """
    if model[4:8] != b"TFL3":
        raise ArtifactError("metadata cannot be written: this is no TFLite file")
    root = root_of(model)
    if any(root.Offset(4 + 2 * slot) for slot in range(_FIELDS, _FIELDS + 16)):
        raise ArtifactError("metadata cannot be written: the file's schema is newer than the one known here")
    if METADATA in [string(each, 0) for each in tables(root, _METADATA)]:
        raise ArtifactError("metadata cannot be written: the file has some already")
    return root


def _taken(root: Table) -> _Taken:
    graph = tables(root, _SUBGRAPHS)[0]
    (place,) = numbers(graph, _INPUTS, "i")
    tensor = tables(graph, _TENSORS)[place]
    _, height, width, _ = numbers(tensor, _SHAPE, "i")
    quantization = child(tensor, _QUANTIZATION)
    scales = [] if quantization is None else numbers(quantization, _SCALE, "f")
    if quantization is None or not scales:
        return _Taken(height, width, 0.0, 0)
    zero_point = (numbers(quantization, _ZERO_POINT, "q") or [0])[0]
    return _Taken(height, width, scales[0], zero_point + 128 * (number(tensor, _TYPE, "b") == _INT8))


def _counted_from_the_start(root: Table) -> Iterator[int]:
    """Where the file holds distances from its own start: of weights and options that lie behind the flatbuffer."""
    found = [place_of(buffer, _BUFFER_OFFSET) for buffer in tables(root, _BUFFERS)]
    for graph in tables(root, _SUBGRAPHS):
        found += [place_of(operator, _OPTIONS_OFFSET) for operator in tables(graph, _OPERATORS)]
    return (place for place in found if place is not None)
