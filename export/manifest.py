"""The manifest beside an exported file (`student.int8.tflite.json`): what an app, a page or a benchmark needs to know.

This is the one definition: the exporter writes through it, and the JSON Schema in `docs/` is printed from it by
`python -m export.manifest`. A field is never renamed and never means something else; new ones may come.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from export.about import MEAN, STD, About

__all__ = ["ArtifactManifest", "postprocessing", "preprocessing", "schema"]

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]

_TITLE: Final = "mobile-distill: manifest of an exported file"


class _Part(BaseModel):
    """Closed to who writes, open to who reads: a reader meets fields of later versions, and passes over them."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        json_schema_extra=lambda found: found.pop("additionalProperties", None),
    )


class Interval(_Part):
    """A figure with its interval of 95 %."""

    value: float
    low: float
    high: float


class Metric(_Part):
    """What right means in this task."""

    key: str
    """Name of the figure in `scores`."""
    title: str
    """Name for people."""


class Tensor(_Part):
    """An input or output."""

    name: str
    dtype: str
    """As NumPy names it: uint8, float32."""
    shape: list[int]
    """-1 stands for a side that is left open."""
    scale: float
    """A quantized value q means scale * (q - zero_point). 0: not quantized, q is what it means."""
    zero_point: int


class Preprocessing(_Part):
    """How an image becomes the input, to the pixel.

    1. The image is turned by its EXIF orientation; transparency is laid over white; what remains is RGB, 8 bits.
    2. A box is chosen. `none`: the whole image. `center_square`: side = min(width, height),
       left = (width - side) // 2, top = (height - side) // 2.
    3. The box is scaled to image_size x image_size, first along every row, then along every column. For place i of a
       line: scale = side of the box / image_size, reach = max(1, scale), centre = start of the box + (i + 0.5) * scale.
       Pixels t from max(0, trunc(centre - reach + 0.5)) up to, but without, min(side of the image,
       trunc(centre + reach + 0.5)) count; they may lie outside the box. Each weighs
       max(0, 1 - |t + 0.5 - centre| / reach) over the sum of these, in float64, as a whole number
       w = trunc(weight * 2**coefficient_bits + 0.5). The answer, after each of both directions, is
       (sum of w * pixel + 2**(coefficient_bits - 1)) >> coefficient_bits, clipped to 0..255.
       In Pillow these are two calls: `rows = image.resize((S, height), BILINEAR, box=(left, 0, right, height))`, then
       `rows.resize((S, S), BILINEAR, box=(0, top, S, bottom))`. (One call does the same before Pillow 13, which scales
       the columns of tall images first.)
    4. The bytes go in as they are. Of a byte x the network sees (x - mean) / std; `normalized_by` says who does that.
    """

    orientation: Literal["upright"]
    alpha: Literal["white"]
    color: Literal["RGB"]
    crop: Literal["none", "center_square"]
    filter: Literal["triangle"]
    antialias: Literal[True]
    half_pixel_centers: Literal[True]
    coefficient_bits: Literal[22]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[float], Field(min_length=3, max_length=3)]
    normalized_by: Literal["file"]


class Postprocessing(_Part):
    """How a map becomes a mask of the size of the box that was cut out of the image.

    Cells are areas: the first begins where the box begins, the last ends where it ends (half-pixel centres). Beyond the
    centres of the outer cells values stay as they are. Where a box has fewer pixels than the map has cells, the filter
    widens as in `preprocessing`. Of equal values the first class counts.
    """

    enlarge: Literal["bilinear"]
    half_pixel_centers: Literal[True]
    of: Literal["log_probabilities", "logits", "one_hot"]
    """What is enlarged: log(max(p, 1e-12)) of probabilities p; logits; of a class map ones and zeros for each class."""
    then: Literal["argmax"]


class Teacher(_Part):
    """Who taught the student."""

    name: str
    """As the config names it; of an ensemble its members, with ` + ` between them."""
    license: str | None
    """Of its weights, as their card or file states it, unchanged; of an ensemble each member's. null: not known."""
    digest: str
    """Changes when its answers may."""


class Ladder(_Part):
    """The ways to int8 that were tried."""

    limit: float
    """What may be lost on validation."""
    chosen: int
    """Number of the rung that was kept."""
    rungs: list[dict[str, Any]]


class ArtifactManifest(_Part):
    """What is known of an exported file."""

    manifest_version: Literal[1]
    """Of this layout."""
    name: str
    """Format and precision, such as tflite-int8."""
    description: str
    """One or two sentences; the file says the same of itself."""
    task: str
    """classification: one label an image; segmentation: one a pixel."""
    metric: Metric
    file: str
    """Name of the file, in the folder of the manifest."""
    format: str
    """tflite or onnx."""
    precision: Literal["float32", "float16", "int8"]
    runtime: str
    """What it was run by when it was proven."""
    key: Hex
    """Digest of all that the file depends on; another one means another file."""
    sha256: Hex
    """Of the file."""
    weights_sha256: Hex
    """Of the student's weights."""
    bytes: Count
    """Size of the file."""
    image_size: Annotated[int, Field(ge=1)]
    """Side of the square input in pixels."""
    resize: Literal["center_crop", "squash"]
    """What is shown of an image that is no square: the middle, or all of it, out of shape. See preprocessing."""
    interpolation: str
    """For people. See preprocessing."""
    preprocessing: Preprocessing
    output: Literal["probabilities", "logits", "class_map"]
    """What is answered: float32 [1, C], of pixels [1, h, w, C]; a class map is uint8 [1, h, w], places in labels."""
    tensors: Literal["bytes", "int8", "float"] = "bytes"
    """How the input holds the bytes, and the output what is answered. bytes: as uint8, answers as float32. int8: less
    128, answers as int8 by the scale and zero point of the output. float: both as float32."""
    postprocessing: Postprocessing | None
    """null where an image gets one label: the largest answer, of equal ones the first."""
    labels: list[str]
    """Names of the C classes in the order of the answers."""
    thresholds: dict[str, float] | None
    """Least probability, by label, from which on an answer counts. null: the largest counts, however small."""
    teacher: Teacher | None
    """null where the student was made before this was noted, or was not taught here."""
    calibration: list[Hex]
    """SHA-256 of the images that ranges of int8 come from, never of the test set; none where nothing was calibrated."""
    mobile_distill: str
    """Version of the program."""
    versions: dict[str, str]
    """Of the packages that wrote and ran it."""
    load_ms: float
    """Time to open it here."""
    inputs: list[Tensor]
    outputs: list[Tensor]
    partitions: Count | None
    """Parts of the graph that the delegate runs; null where the runtime has none."""
    outside: dict[str, Count]
    """Operators in none of them, by name."""
    operators: dict[str, Count]
    """All operators, by name."""
    scores: dict[str, dict[str, Any]]
    """By split: what the file scored, and how it compares with the student (drop, agreement, max_difference)."""
    ladder: Ladder | None = None
    """Of int8 files."""


def preprocessing(resize: str) -> dict[str, Any]:
    """What `distill.data.views.render` does with a fixed view of `distill.data.decode`."""
    return {
        "orientation": "upright",
        "alpha": "white",
        "color": "RGB",
        "crop": "center_square" if resize == "center_crop" else "none",
        "filter": "triangle",
        "antialias": True,
        "half_pixel_centers": True,
        "coefficient_bits": 22,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "normalized_by": "file",
    }


def postprocessing(about: About) -> dict[str, Any] | None:
    """What `distill.core.dense.scale_map` does with the answers; None where images are answered."""
    if not about.dense:
        return None
    scaled = {"probabilities": "log_probabilities", "logits": "logits", "class_map": "one_hot"}[about.output]
    return {"enlarge": "bilinear", "half_pixel_centers": True, "of": scaled, "then": "argmax"}


class _Untitled(GenerateJsonSchema):
    """Without the names of fields once more as their titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    found = ArtifactManifest.model_json_schema(mode="serialization", schema_generator=_Untitled)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": _TITLE}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
