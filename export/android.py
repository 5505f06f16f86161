"""What an Android app needs of an exported model: file, manifest, labels, and pictures with expected answers."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.dense import scale_map
from distill.core.errors import UserError
from distill.core.files import read_json, replacing
from distill.core.overlay import background, class_colors
from distill.data.batches import ImageCache
from distill.data.manifest import Manifest
from distill.data.mask_file import png_of_mask
from distill.data.views import fixed_view, render
from export.files import Exporter, check_takes_bytes
from export.isolated import IsolatedFile

if TYPE_CHECKING:
    from distill.core.progress import Progress
    from distill.core.run import Run
    from distill.core.types import ImageRecord

__all__ = ["ASSETS", "Bundle", "bundle", "sample_app"]

ASSETS: Final = Path("src/main/assets/distill")
"""Where the files go within an Android module; the folder is ours."""

_MANIFEST, _GOLDEN, _USE = "model.json", "golden/golden.json", "USE.md"
_PICTURES: Final = 4
_LONGEST: Final = 512  # pixels of a golden picture's longer side: large enough to be scaled down, 4 take about 1 MB
_BEST: Final = 5
_LEAST: Final = 1e-12  # probabilities of zero become this before the logarithm, as everywhere
_TOLERANCE: Final = {"int8": 0.1, "float16": 0.002, "float32": 0.002}
"""Difference of probabilities that counts as the same. On x86-64, TensorFlow 2.16.1 (which the app has) differs from
LiteRT 2.3 by 4e-7, int8 and float; the built-in int8 kernels of 2.14, which round at other places, by up to 0.074."""
_FIRST_LINE = "# The model in this module"


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Args:
        folder: of the assets.
        use: the page that says how to use them.
        sizes: bytes of each file by its name in the folder.
        manifest: as it stands in `model.json`.
    """

    folder: Path
    use: Path
    sizes: Mapping[str, int]
    manifest: Mapping[str, Any]


def sample_app() -> Path:
    """The sample's app, beside this package in a clone of the repository.

    Raises:
        UserError: this is an installation without it.
    """
    app = Path(__file__).parents[1] / "android_sample" / "app"
    if not app.is_dir():
        raise UserError(
            f"{app} is not there: the sample app comes with a clone of the repository; name your own: --into PATH"
        )
    return app


def bundle(run: Run, into: Path, progress: Progress, *, name: str = "tflite-int8") -> Bundle:
    """Write a model with all an app needs into an Android module; the same run gives the same bytes.

    `ASSETS` gets the model, `model.json` (its manifest and the colours of its classes), `labels.txt`, and in `golden/`
    real pictures (of the validation or test split), the pixels that become the model's input, its answers on this
    machine and, for segmentation, the mask at the picture's size.

    Args:
        run: whose student is finished; the artifact is made unless it exists.
        into: folder of the module, with a `build.gradle.kts`, `build.gradle` or `src/main`.
        progress: told of long work.
        name: of the artifact, a TFLite file.

    Raises:
        UserError: `into` is no module, its assets are not ours, or the artifact is none that Android runs.
        ArtifactError: the file did not pass.
    """
    if not name.startswith("tflite-"):
        raise UserError(f"{name}: Android runs TFLite files, expected tflite-int8, tflite-float16 or tflite-float32")
    _check_module(into)
    exporter = Exporter(run, progress)
    manifest = exporter.make(name)
    check_takes_bytes(manifest, "the Android library")
    model = run.folder("export") / manifest["file"]
    manifest = manifest | {"display": _display(manifest["labels"])}
    files: dict[str, bytes] = {
        manifest["file"]: model.read_bytes(),
        "labels.txt": "".join(f"{' '.join(label.split())}\n" for label in manifest["labels"]).encode(),
        **_golden(run, model, manifest),
        _MANIFEST: _json(manifest),  # last: it says that the others are there
    }
    folder = into / ASSETS
    _clear(folder, set(files))
    for file, content in files.items():
        _write(folder / file, content)
    use = into / _USE
    _write(use, _use(manifest).encode())
    return Bundle(folder, use, {file: len(content) for file, content in files.items()}, manifest)


def _check_module(into: Path) -> None:
    marks = ("build.gradle.kts", "build.gradle", "src/main")
    if not into.is_dir() or not any((into / mark).exists() for mark in marks):
        raise UserError(
            f"{into}: no Android module is there; expected a folder with a build.gradle.kts, as the `app` of a project"
        )
    assets, use = into / ASSETS, into / _USE
    if assets.is_dir() and any(assets.iterdir()) and not _ours(assets):
        raise UserError(f"{assets}: found files that `distill export android` did not write; move them elsewhere")
    if use.exists() and not use.read_text(encoding="utf-8", errors="replace").startswith(_FIRST_LINE):
        raise UserError(f"{use}: found a page that `distill export android` did not write; rename it")


def _ours(assets: Path) -> bool:
    try:
        return "mobile_distill" in read_json(assets / _MANIFEST)
    except (OSError, ValueError):
        return False


def _clear(folder: Path, kept: set[str]) -> None:
    """Remove what an earlier export left and this one does not write."""
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:  # so that Gradle packs nothing anew
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _display(labels: list[str]) -> dict[str, Any]:
    """How masks are drawn, here and in reports."""
    return {"colors": class_colors(len(labels)).tolist(), "clear": background(labels)}


def _golden(run: Run, model: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """Pictures and what becomes of them, by file name."""
    size, resize = int(manifest["image_size"]), manifest["resize"]
    pictures = _pictures(run)
    views = [fixed_view(*picture.size, resize) for picture in pictures]
    pixels = np.stack([render(picture, view, size) for picture, view in zip(pictures, views, strict=True)])
    with IsolatedFile(model, manifest["format"]) as opened:
        answers = opened.run(pixels)
    files: dict[str, bytes] = {}
    images: list[dict[str, Any]] = []
    for number, (picture, view, shown, answer) in enumerate(zip(pictures, views, pixels, answers, strict=True)):
        parts = {"picture": (".png", _png(picture)), "pixels": (".rgb", shown.tobytes())}
        classes = answer.dtype == np.uint8
        parts["answer"] = (".u8", answer.tobytes()) if classes else (".f32", answer.astype("<f4").tobytes())
        if manifest["task"] == "segmentation":
            mask = _mask(answer, manifest["output"], view.width, view.height)
            parts["mask"] = (".mask.png", png_of_mask(mask))
        written = {f"{number}{suffix}": content for suffix, content in parts.values()}
        files |= {f"golden/{file}": content for file, content in written.items()}
        images.append(
            {
                **{part: f"{number}{suffix}" for part, (suffix, _) in parts.items()},
                "width": picture.width,
                "height": picture.height,
                "best": _best(answer) if manifest["task"] == "classification" else None,
                "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in written.items()},
            }
        )
    document = {
        "golden_version": 1,
        "model_sha256": manifest["sha256"],
        "runtime": manifest["runtime"],
        "tolerance": _tolerance(manifest, answers),
        "images": images,
    }
    return {**files, _GOLDEN: _json(document)}


def _pictures(run: Run) -> list[Image.Image]:
    """Photos that the student did not learn from, spread over the split, none larger than `_LONGEST`."""
    manifest = Manifest.load(run.folder("data") / "manifest.parquet")
    records: Sequence[ImageRecord] = manifest.of("test") or manifest.of("validation")
    chosen = [records[i * len(records) // _PICTURES] for i in range(_PICTURES)] if len(records) > _PICTURES else records
    card = read_json(run.folder("student") / "student.json")
    cache = ImageCache(card["max_megapixels"])
    found = []
    for record in chosen:
        picture = cache.get(record).copy()
        picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
        found.append(picture)
    return found


def _mask(answer: npt.NDArray[Any], output: str, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The class of each pixel of the part of a picture that the model saw, uint8 [height, width]."""
    if output == "class_map":  # each pixel takes the class under its centre
        rows, columns = (
            (2 * np.arange(n) + 1) * side // (2 * n) for n, side in zip((height, width), answer.shape, strict=True)
        )
        nearest: npt.NDArray[np.uint8] = answer[rows[:, None], columns[None, :]]
        return nearest
    scores = np.log(np.maximum(answer, _LEAST)).astype(np.float32) if output == "probabilities" else answer
    mask: npt.NDArray[np.uint8] = scale_map(scores, height, width).argmax(axis=-1).astype(np.uint8)
    return mask


def _best(answer: npt.NDArray[Any]) -> list[int]:
    return [int(place) for place in np.argsort(-answer, kind="stable")[:_BEST]]


def _tolerance(manifest: Mapping[str, Any], answers: npt.NDArray[Any]) -> float:
    """Largest difference of an answer that counts as the same on a phone: its runtime is another version."""
    if manifest["output"] == "class_map":
        return 0.0
    spread = 1.0 if manifest["output"] == "probabilities" else float(np.ptp(answers))
    return _TOLERANCE[manifest["precision"]] * spread


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


_CLASSIFY = """\
import org.mobiledistill.inference.ImageClassifier
import org.mobiledistill.inference.Photos

// Once, for example in onCreate; it reads the model from the assets.
val classifier = ImageClassifier.fromAssets(this)

// For every picture, on any thread but the main one:
val bitmap = Photos.decode(contentResolver, uri)
val best = classifier.classify(bitmap).firstOrNull()
label.text = best?.let { "${it.label} ${(it.score * 100).toInt()} %" } ?: "nothing"

// At the end, for example in onDestroy.
classifier.close()
"""

_SEGMENT = """\
import org.mobiledistill.inference.ImageSegmenter
import org.mobiledistill.inference.Photos

// Once, for example in onCreate; it reads the model from the assets.
val segmenter = ImageSegmenter.fromAssets(this)

// For every picture, on any thread but the main one:
val bitmap = Photos.decode(contentResolver, uri)
val segmentation = segmenter.segment(bitmap)
picture.setImageBitmap(segmentation.overlay(bitmap))

// At the end, for example in onDestroy.
segmenter.close()
"""


def _use(manifest: Mapping[str, Any]) -> str:
    """The page beside the assets."""
    code = _SEGMENT if manifest["task"] == "segmentation" else _CLASSIFY
    labels = ", ".join(manifest["labels"][:8]) + (", …" if len(manifest["labels"]) > 8 else "")
    return f"""{_FIRST_LINE}

`{ASSETS}/` holds `{manifest["file"]}` ({manifest["bytes"] / 1e6:.2f} MB, {manifest["task"]}: {labels}), and all the
library `org.mobiledistill.inference` needs to know of it. The files are written by `distill export android`; the same
command replaces them.

1. In `settings.gradle.kts`, with the path of your clone of mobile-distill:

   ```kotlin
   include(":inference")
   project(":inference").projectDir = file("../mobile-distill/android_sample/inference")
   ```

2. In this module's `build.gradle.kts`; a model that is packed compressed cannot be mapped, and the library refuses it:

   ```kotlin
   android {{
       androidResources {{ noCompress += "tflite" }}
   }}
   dependencies {{
       implementation(project(":inference"))
   }}
   ```

3. In your Kotlin:

   ```kotlin
{_indented(code)}   ```

Errors are subclasses of `org.mobiledistill.inference.core.ModelException`, whose message says what to do.
"""


def _indented(text: str) -> str:
    return "".join(f"   {line.rstrip()}\n" if line.strip() else "\n" for line in text.splitlines())
