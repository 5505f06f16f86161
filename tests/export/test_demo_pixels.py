"""The page's own arithmetic, in Node: the same pixels as Pillow's, the same masks as Python's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import export.demo
from distill.core.dense import scale_map
from distill.data.views import fixed_view, render

PAGE = Path(export.demo.__file__).parent / "browser"
SIZES = [
    (1, 1), (1, 2), (2, 1), (3, 5), (7, 7), (8, 8), (13, 1), (1, 97), (17, 31), (31, 17), (32, 32), (33, 32), (64, 48),
    (97, 89), (127, 131), (160, 120), (211, 223), (224, 224), (225, 224), (256, 341), (640, 480), (997, 61), (61, 997),
    (2000, 9), (1201, 1601),
]  # fmt: skip


def node(script: str, folder: Path) -> Any:
    """What a module prints as JSON; it finds the page's modules in PAGE and its data in the folder."""
    program = shutil.which("node")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("node is missing")
        pytest.skip("node is missing")
    header = f"import {{ readFileSync, writeFileSync }} from 'node:fs'; const PAGE = {json.dumps(PAGE.as_uri())};\n"
    (folder / "script.mjs").write_text(header + script)
    done = subprocess.run([program, "script.mjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "null")


def test_pictures_are_scaled_to_the_same_bytes_as_in_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    cases = [
        {"width": w, "height": h, "size": size, "resize": resize}
        for w, h in SIZES
        for size, resize in ((32, "center_crop"), (57, "squash"))
    ]
    expected = []
    for number, case in enumerate(cases):
        w, h, size = case["width"], case["height"], case["size"]
        pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        if number % 3 == 0:  # what rounds and clips: black and white
            pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
        np.dstack([pixels, np.full((h, w), 255, np.uint8)]).tofile(tmp_path / f"{number}.rgba")
        expected.append(render(Image.fromarray(pixels), fixed_view(w, h, case["resize"]), size))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    node(
        """
        const { box, render } = await import(`${PAGE}/pixels.js`);
        JSON.parse(readFileSync("cases.json")).forEach(({ width, height, size, resize }, number) => {
          const whole = readFileSync(`${number}.rgba`);
          const read = (left, top, wide, high) => {
            const part = new Uint8ClampedArray(wide * high * 4);
            for (let y = 0; y < high; y++) {
              const from = ((top + y) * width + left) * 4;
              part.set(whole.subarray(from, from + wide * 4), y * wide * 4);
            }
            return part;
          };
          writeFileSync(`${number}.rgb`, render({ width, height, read }, box(width, height, resize), size));
        });
        """,
        tmp_path,
    )
    for number, (case, wanted) in enumerate(zip(cases, expected, strict=True)):
        found = np.fromfile(tmp_path / f"{number}.rgb", np.uint8).reshape(wanted.shape)
        np.testing.assert_array_equal(found, wanted, err_msg=str(case))


@pytest.mark.parametrize("output", ["probabilities", "logits", "class_map"])
@pytest.mark.parametrize(("width", "height"), [(16, 16), (40, 33), (5, 7), (1, 60)])
def test_masks_are_those_of_python(output: str, width: int, height: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    logits = rng.normal(0, 4, (16, 12, 5)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    probabilities[2, 3] = np.eye(5)[1]  # zeros, whose logarithm is cut
    places = logits.argmax(axis=-1).astype(np.uint8)
    given, compared = {
        "probabilities": (probabilities, np.log(np.maximum(probabilities, 1e-12))),
        "logits": (logits, logits),
        "class_map": (places, np.log(np.maximum(np.eye(5, dtype=np.float32)[places], 1e-12))),
    }[output]
    given.tofile(tmp_path / "given")
    found = node(
        f"""
        const {{ mask }} = await import(`${{PAGE}}/answers.js`);
        const bytes = new Uint8Array(readFileSync("given"));
        const values = "{output}" === "class_map" ? bytes : new Float32Array(bytes.buffer);
        const grid = {{ rows: 16, columns: 12, classes: 5 }};
        console.log(JSON.stringify([...mask(values, grid, "{output}", {width}, {height})]));
        """,
        tmp_path,
    )
    scaled = scale_map(compared, height, width)
    first, second = np.sort(scaled, axis=-1)[..., :-3:-1].transpose(2, 0, 1)
    sure = first - second > 1e-4  # of equals, as halfway between two cells of a class map, rounding decides
    assert sure.mean() > 0.85
    wanted = scaled.argmax(axis=-1)
    np.testing.assert_array_equal(np.array(found).reshape(height, width)[sure], wanted[sure])


def test_labels_come_in_the_order_of_their_shares_and_of_equals_in_that_of_the_classes(tmp_path: Path) -> None:
    found = node(
        """
        const { ranked } = await import(`${PAGE}/answers.js`);
        const said = [ranked(new Float32Array([0.25, 0.5, 0.25]), "probabilities"), ranked([1, 1000, 1], "logits")];
        console.log(JSON.stringify(said));
        """,
        tmp_path,
    )
    assert [entry["place"] for entry in found[0]] == [1, 0, 2]
    assert [entry["share"] for entry in found[0]] == [0.5, 0.25, 0.25]
    assert [entry["share"] for entry in found[1]] == [1, 0, 0]
