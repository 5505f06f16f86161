"""The manifest beside a file: one definition, published, true of every file that is written, and to the pixel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from distill.core.dense import scale_map
from distill.core.files import read_json
from distill.data.views import fixed_view, render
from export.manifest import ArtifactManifest, preprocessing, schema
from tests.workplace import Workplace

PUBLISHED = Path(__file__).parents[2] / "docs" / "model.schema.json"
FILES = [f"student.{precision}" for precision in ("float32.tflite", "int8.tflite", "float32.onnx", "int8.onnx")]


def test_the_published_schema_is_the_one_that_is_written_by() -> None:
    assert read_json(PUBLISHED) == json.loads(json.dumps(schema())), (
        "python -m export.manifest > docs/model.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(schema())


def manifest(place: Workplace, file: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(place.root / f"runs/teacher/export/{file}.json")
    return found


@pytest.mark.parametrize("file", [*FILES, "student.float16.tflite"])
def test_every_manifest_keeps_to_it(finished: Workplace, file: str) -> None:
    found = manifest(finished, file)
    published = jsonschema.Draft202012Validator(read_json(PUBLISHED))
    published.validate(found)
    published.validate({**found, "of_a_later_version": 1})  # readers pass over what they do not know
    assert not published.is_valid({key: value for key, value in found.items() if key != "preprocessing"})
    with pytest.raises(ValidationError, match="of_a_later_version"):  # the writer does not
        ArtifactManifest.model_validate({**found, "of_a_later_version": 1})


def test_what_it_says(finished: Workplace) -> None:
    found = manifest(finished, "student.int8.tflite")
    card = read_json(finished.root / "runs/teacher/student/student.json")
    store = read_json(finished.root / "runs/teacher/labels/store.json")
    assert found["weights_sha256"] == card["weights_sha256"]
    assert found["teacher"] == {"name": "test_resnet", "license": None, "digest": store["teacher"]["digest"]}
    assert found["description"].startswith(
        "Says which of 3 classes an image shows: green, red, violet. Taught by test_"
    )
    assert found["thresholds"] is None and found["postprocessing"] is None
    assert {"ai-edge-litert", "ai-edge-quantizer", "litert-torch", "torch"} == set(found["versions"])
    assert found["inputs"][0]["scale"] == pytest.approx(2 / 255) and found["outputs"][0]["scale"] == 0


def by_the_rule(pixels: np.ndarray, rule: dict[str, Any], size: int) -> np.ndarray:
    """What the schema says under Preprocessing, word for word, in the slowest way."""
    height, width = pixels.shape[:2]
    left, top, wide, high = 0, 0, width, height
    if rule["crop"] == "center_square":
        wide = high = min(width, height)
        left, top = (width - wide) // 2, (height - high) // 2
    bits = rule["coefficient_bits"]

    def along(line: np.ndarray, start: int, side: int) -> np.ndarray:
        scale = side / size
        reach = max(1.0, scale)
        answer = []
        for place in range(size):
            centre = start + (place + 0.5) * scale
            low, high_ = max(0, int(centre - reach + 0.5)), min(len(line), int(centre + reach + 0.5))
            weights = [max(0.0, 1 - abs((t + 0.5 - centre) / reach)) for t in range(low, high_)]
            whole = [math.trunc(weight / sum(weights) * 2**bits + 0.5) for weight in weights]
            total = sum(w * line[t].astype(np.int64) for w, t in zip(whole, range(low, high_), strict=True))
            answer.append(np.clip((total + 2 ** (bits - 1)) >> bits, 0, 255))
        return np.stack(answer).astype(np.uint8)

    rows = np.stack([along(row, left, wide) for row in pixels])
    return np.stack([along(column, top, high) for column in rows.transpose(1, 0, 2)], axis=1)


@pytest.mark.parametrize("resize", ["center_crop", "squash"])
@pytest.mark.parametrize(("width", "height"), [(91, 60), (47, 130), (20, 13), (32, 32), (33, 32)])
def test_the_resize_rule_holds_to_the_pixel(resize: Any, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = render(Image.fromarray(pixels), fixed_view(width, height, resize), 32)
    np.testing.assert_array_equal(by_the_rule(pixels, preprocessing(resize), 32), ours)


def test_the_rule_of_masks_holds(segmented: Workplace) -> None:
    rule = manifest(segmented, "student.float32.tflite")["postprocessing"]
    assert rule == {"enlarge": "bilinear", "half_pixel_centers": True, "of": "log_probabilities", "then": "argmax"}
    import torch

    values = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    maps = torch.from_numpy(values).permute(0, 3, 1, 2)
    enlarged = torch.nn.functional.interpolate(maps, size=(40, 56), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(scale_map(values, 40, 56), enlarged.permute(0, 2, 3, 1).numpy(), atol=1e-5)
