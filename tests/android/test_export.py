"""`distill export android`, and what Kotlin and the packer make of what it writes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.overlay import class_colors
from distill.data.mask_file import read_mask
from tests.workplace import Workplace

from .conftest import SAMPLE, Kotlin, litert, missing, module_of
from .golden import prepared

ASSETS = Path("src/main/assets/distill")


def _content(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def _check(assets: Path, resize: str) -> dict[str, object]:
    """Every file is what golden.json says, and every input is what Python makes of its picture."""
    manifest = json.loads((assets / "model.json").read_text())
    golden = json.loads((assets / "golden/golden.json").read_text())
    model = assets / manifest["file"]
    assert hashlib.sha256(model.read_bytes()).hexdigest() == manifest["sha256"] == golden["model_sha256"]
    assert (assets / "labels.txt").read_text().splitlines() == manifest["labels"]
    assert manifest["display"]["colors"] == class_colors(len(manifest["labels"])).tolist()
    assert manifest["resize"] == resize
    listed = {"model.json", "labels.txt", manifest["file"], "golden/golden.json"}
    assert len(golden["images"]) == 4
    for image in golden["images"]:
        for name, digest in image["sha256"].items():
            assert hashlib.sha256((assets / "golden" / name).read_bytes()).hexdigest() == digest
            listed.add(f"golden/{name}")
        pixels = np.frombuffer((assets / "golden" / image["pixels"]).read_bytes(), np.uint8)
        size = manifest["image_size"]
        shown = prepared(assets / "golden" / image["picture"], size, resize)
        np.testing.assert_array_equal(pixels.reshape(size, size, 3), shown)
        with Image.open(assets / "golden" / image["picture"]) as picture:
            assert (picture.size, picture.mode) == ((image["width"], image["height"]), "RGB")
            assert picture.size != (size, size), "so that scaling is seen"
    assert {str(file.relative_to(assets)) for file in assets.rglob("*") if file.is_file()} == listed
    return manifest


def test_a_classifier_is_written_once_and_answers_in_kotlin(finished: Workplace, kotlin: Kotlin) -> None:
    module = module_of(finished, "app")
    said = finished.run("export", "android", "--into", str(module))
    assets = module / ASSETS
    manifest = _check(assets, "center_crop")
    assert f"student.int8.tflite: {(assets / 'student.int8.tflite').stat().st_size / 1e6:.2f} MB" in said
    for image in json.loads((assets / "golden/golden.json").read_text())["images"]:
        answer = np.frombuffer((assets / "golden" / image["answer"]).read_bytes(), "<f4")
        assert answer.shape == (3,) and answer.sum() == pytest.approx(1, abs=0.01)
        assert image["best"] == np.argsort(-answer, kind="stable").tolist()
    use = (module / "USE.md").read_text()
    assert "ImageClassifier.fromAssets" in use and ", ".join(manifest["labels"]) in use  # type: ignore[arg-type]

    before = _content(module)
    finished.run("export", "android", "--into", str(module))
    assert _content(module) == before  # not even written again

    assert "OK (1 test)" in kotlin.test("ExportTest", exports=assets, litert=litert())


def test_a_segmenter_has_masks_and_answers_in_kotlin(segmented: Workplace, kotlin: Kotlin) -> None:
    module = module_of(segmented, "app")
    segmented.run("export", "android", "--into", str(module))
    assets = module / ASSETS
    manifest = _check(assets, "squash")
    assert manifest["display"]["clear"] == 0  # type: ignore[index]
    for image in json.loads((assets / "golden/golden.json").read_text())["images"]:
        mask = read_mask(assets / "golden" / image["mask"])
        assert mask.shape == (image["height"], image["width"])
        assert set(np.unique(mask)) <= {0, 1, 2}
    assert "ImageSegmenter.fromAssets" in (module / "USE.md").read_text()
    assert "OK (1 test)" in kotlin.test("ExportTest", exports=assets, litert=litert())


def test_another_file_takes_the_place_of_the_first(finished: Workplace) -> None:
    module = module_of(finished, "other")
    finished.run("export", "android", "--into", str(module))
    finished.run("export", "android", "--into", str(module), "--file", "tflite-float32")
    assets = module / ASSETS
    assert [file.name for file in assets.glob("*.tflite")] == ["student.float32.tflite"]
    assert json.loads((assets / "golden/golden.json").read_text())["tolerance"] < 0.01


def test_what_is_not_ours_is_left_alone(finished: Workplace) -> None:
    def expect(message: str, *arguments: str) -> None:
        said = finished.run("export", "android", *arguments, expect=2)
        assert message in " ".join(said.split()), said

    expect(
        "no Android module is there; expected a folder with a build.gradle.kts", "--into", str(finished.root / "photos")
    )
    expect("onnx-int8: Android runs TFLite files", "--file", "onnx-int8", "--into", str(module_of(finished, "a")))
    foreign = module_of(finished, "b")
    (foreign / ASSETS).mkdir(parents=True)
    (foreign / ASSETS / "mine.txt").write_text("mine")
    expect("found files that `distill export android` did not write", "--into", str(foreign))
    assert (foreign / ASSETS / "mine.txt").read_text() == "mine"
    page = module_of(finished, "c")
    (page / "USE.md").write_text("# My own")
    expect("found a page that `distill export android` did not write", "--into", str(page))
    assert (page / "USE.md").read_text() == "# My own"


def test_the_sample_packs_into_a_signed_apk(finished: Workplace) -> None:
    missing("java", "javac", "mvn", "aapt2", "zipalign", "apksigner")
    module = module_of(finished, "packed")
    finished.run("export", "android", "--into", str(module))
    apk = finished.root / "sample.apk"
    said = _build(apk, module / "src/main/assets")
    assert "uncompressed, as proven" in said and "golden files: 13" in said
    with zipfile.ZipFile(apk) as opened:
        assert opened.testzip() is None
        for abi in ("armeabi-v7a", "arm64-v8a"):
            assert f"lib/{abi}/libtensorflowlite_jni.so: " in said
            assert opened.getinfo(f"lib/{abi}/libtensorflowlite_jni.so").compress_type == zipfile.ZIP_STORED
        model = opened.getinfo("assets/distill/student.int8.tflite")
        assert model.compress_type == zipfile.ZIP_STORED
        assert opened.read(model) == (module / ASSETS / "student.int8.tflite").read_bytes()
        assert opened.read("assets/distill/golden/golden.json") == (module / ASSETS / "golden/golden.json").read_bytes()
    verified = subprocess.run(["apksigner", "verify", "-v", apk], capture_output=True, text=True, check=True).stdout
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in verified


def test_an_apk_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    missing("java", "mvn")
    said = _build(tmp_path / "sample.apk", tmp_path, expect=2)
    assert (
        said.strip() == f"build_apk.py: {tmp_path}/distill/model.json is not there: run `distill export android` first"
    )


def _build(apk: Path, assets: Path, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, SAMPLE / "build_apk.py", "--output", apk, "--assets", assets],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout
    return done.stdout
