"""`export verify`: whether a file opens, answers, and answers as another file or a run's student does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from distill.core import plugins
from distill.core.errors import ArtifactError, UserError
from distill.core.files import read_json, sha256_of
from distill.core.progress import Progress
from distill.core.run import Run
from distill.data.decode import DecodeError, decode
from distill.trained_student import load_student
from export.files import Exporter
from export.formats._base import Format
from export.gpu import gpu_compatibility
from export.isolated import IsolatedFile, fed_pixels, real_answers
from export.layers import IMAGES, layer_noise

if TYPE_CHECKING:
    from rich.console import RenderableType

    from export.graph import Output, Tensors

__all__ = ["MADE_UP", "describe", "verify"]

MADE_UP: Final = 16
"""Images that are made up where there are no real ones: coarse noise, enlarged."""

_TIMEOUT_S = 15.0  # for one request; opening a whole MobileNet takes 0.1 s
_ALIKE = 0.9  # share of real images or pixels that two files of one student call the same; made-up ones prove nothing
_BATCH = 8  # images of one request
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_MOST = 200  # images of a folder
_WORST = 12  # layers that are printed

_Tensors = npt.NDArray[Any]


def verify(
    file: Path,
    progress: Progress,
    *,
    run: Run | None = None,
    against: Path | None = None,
    images: Path | None = None,
    layers: bool = False,
    gpu: bool = False,
) -> dict[str, Any]:
    """Look at a file in a process of its own, whatever it holds.

    Args:
        file: TFLite or ONNX; need not be made by this project.
        progress: told of long work.
        run: scores the file on its images and compares it with its student.
        against: another file, shown the same images.
        images: folder of photos to show to both; those of the run, or made-up ones, if left out.
        layers: compare each layer with the one of the run's student; of TFLite files.
        gpu: ask TensorFlow's analyzer whether the GPU delegate takes the file.

    Returns:
        A document: `file`, `bytes`, `sha256`, `problems` (sentences; none where all is well), and as far as it got
        `format`, `load_ms`, `inputs`, `outputs`, `partitions`, `outside`, `operators`, `answers` (what kind), `shown`
        (which images), `against` (file, agreement, max_difference, snr_db), `scores` by split,
        `layers` (name, snr_db and dtype of each, worst first) and `gpu` (compatible, warnings, analyzer).

    Raises:
        UserError: a file or folder does not exist, or is none that can be shown or opened.
    """
    if layers and (run is None or file.suffix != ".tflite"):
        raise UserError(
            "--layers compares the layers of a TFLite file with those of the student it was made of: add --run"
        )
    found = _about(file)
    if gpu:
        found["gpu"] = gpu_compatibility(file)
        if found["gpu"]["compatible"] is None:
            found["problems"].append(f"TensorFlow's analyzer: {found['gpu']['warnings'][0]}")
    try:
        with IsolatedFile(file, found["format"], timeout_s=_TIMEOUT_S) as opened:
            found |= {"load_ms": opened.load_ms, **opened.facts}
            if lacking := _unlike_ours(opened.facts):
                found["problems"].append(f"it opens, but was not asked: {lacking}")
                return found
            pixels, source = _images(opened.facts, run, images, progress)
            shown, how = _fed(pixels, _tensors(file, opened.facts))
            found["shown"] = source + how
            answers = _asked(opened, shown)
            answers = real_answers(answers, opened.facts["outputs"][0])
            found["answers"] = _kind(file, answers)
            again = real_answers(opened.run(shown[:1]), opened.facts["outputs"][0])
            found["problems"] += _wrong(answers, again)
            if against is not None:
                found["against"] = _compare(against, opened.facts, pixels, answers, found["answers"])
                found["problems"] += [f"{against.name}: {each}" for each in found["against"].pop("problems")]
                agreement = found["against"].get("agreement", 1.0)
                if agreement < _ALIKE and (run is not None or images is not None):
                    found["problems"].append(
                        f"{against.name}: names the same class on {agreement:.3f}, at least {_ALIKE:g} are expected"
                    )
    except ArtifactError as error:
        found["problems"].append(str(error))
    if run is not None and not found["problems"]:
        try:
            tensors = _tensors(file, found) or "float"
            found["scores"] = Exporter(run, progress).examine(file, found["format"], found["answers"], tensors)
        except ArtifactError as error:
            found["problems"].append(str(error))
    if layers and run is not None and not found["problems"]:
        shown = Exporter(run, progress).examples(load_student(run)[0].image_size, IMAGES)
        try:
            noise = layer_noise(file, found["format"], load_student(run)[0], shown, _tensors(file, found) or "float")
            found["layers"] = [layer.as_dict() for layer in noise]
        except ArtifactError as error:
            found["problems"].append(str(error))
    return found


def describe(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What was found, for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(found):
        table.add_row(name, Text(value))
    yield table
    if "layers" in found:
        yield _layers_table(found["layers"])
    for problem in found["problems"]:
        yield Text(f"problem: {problem}", style="red")
    if not found["problems"]:
        yield Text("no problem found", style="green")


def _layers_table(layers: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The worst layers; the last is what the answer is made of."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"{len(layers)} layers and sums, worst first", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("module of the student", overflow="fold")
    table.add_column("dB above its error", justify="right")
    table.add_column("in the file")
    for layer in layers[:_WORST]:
        snr = "the same" if layer["snr_db"] is None else f"{layer['snr_db']:.1f}"
        table.add_row(layer["name"], snr, layer["dtype"])
    if len(layers) > _WORST:
        table.caption = f"and {len(layers) - _WORST} better ones (--json lists all)"
    return table


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "file", f"{found['file']}, {found['bytes'] / 1e6:.2f} MB, sha256 {found['sha256'][:12]}"
    if "inputs" not in found:
        return
    yield "opened in", f"{found['load_ms']:.0f} ms by {found['runtime']}"
    for side in ("inputs", "outputs"):
        for tensor in found[side]:
            scale = f", scale {tensor['scale']:.6g}, zero point {tensor['zero_point']}" if tensor["scale"] else ""
            yield side[:-1], f"{tensor['name']}: {tensor['dtype']} {tensor['shape']}{scale}"
    if found["partitions"] is not None:
        outside = ", ".join(f"{count} {name}" for name, count in found["outside"].items())
        yield "partitions", f"{found['partitions']}, outside them {outside or 'nothing'}"
    yield "operators", ", ".join(f"{count} {name}" for name, count in found["operators"].items())
    if "answers" in found:
        yield "answers", f"{found['answers']}, asked about {found['shown']}"
    if "against" in found:
        other = found["against"]
        if "agreement" in other:
            snr = "the same" if other["snr_db"] is None else f"{other['snr_db']:.1f} dB above the difference"
            yield (
                "against",
                f"{other['file']}: same class on {other['agreement']:.4f}, largest difference"
                f" {other['max_difference']:.4g}, {snr}",
            )
    if "gpu" in found:
        said = found["gpu"]
        verdict = {True: "looks compatible", False: "not all of it", None: "not known"}[said["compatible"]]
        yield "GPU delegate", f"{'; '.join([verdict, *said['warnings']])} (by {said['analyzer']}, nothing was run)"
    for split, score in found.get("scores", {}).items():
        metric, drop = score["metric"], score["drop"]
        value = score[metric["key"]]
        yield (
            split,
            f"{metric['title']} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}], lost"
            f" {drop['value']:.3f} [{drop['low']:.3f}, {drop['high']:.3f}], agrees with the student on"
            f" {score['agreement']:.3f}",
        )


def _about(file: Path) -> dict[str, Any]:
    """What is known without opening it."""
    formats: dict[str, tuple[str, Format]] = {}
    for name in plugins.names("formats"):
        module = plugins.load("formats", name)
        maker: Format = module.build(module.Config())
        formats[maker.suffix] = name, maker
    if file.suffix not in formats:
        raise UserError(f"{file}: expected a file that ends with {' or '.join(sorted(formats))}")
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    name, maker = formats[file.suffix]
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        "sha256": sha256_of(file),
        "format": name,
        "runtime": maker.runtime,
        "problems": [],
    }


def _unlike_ours(facts: Mapping[str, Any]) -> str:
    """Why a file cannot be asked about images; empty if it can."""
    if (len(facts["inputs"]), len(facts["outputs"])) != (1, 1):
        return f"it has {len(facts['inputs'])} inputs and {len(facts['outputs'])} outputs, expected one of each"
    ((shape, dtype),) = [(each["shape"], each["dtype"]) for each in facts["inputs"]]
    if len(shape) != 4 or min(shape) < 1 or shape[0] != 1 or shape[3] != 3 or dtype not in {"uint8", "int8", "float32"}:
        return f"its input is {dtype} {shape}, expected uint8, int8 or float32 [1, H, W, 3]"
    return ""


def _images(
    facts: Mapping[str, Any], run: Run | None, folder: Path | None, progress: Progress
) -> tuple[npt.NDArray[np.uint8], str]:
    """What the file is shown, uint8 [N, H, W, 3], and where that comes from."""
    (taken,) = facts["inputs"]
    height, width = taken["shape"][1:3]
    if folder is not None:
        pixels, source = _of_folder(folder, height, width)
    elif run is not None and height == width:
        pixels, source = Exporter(run, progress).examples(height, _MOST), f"images of {run.root}"
    else:
        cells = np.random.default_rng(0).integers(0, 256, (MADE_UP, 8, 8, 3), dtype=np.uint8)
        rows, columns = (np.arange(side) * 8 // side for side in (height, width))
        pixels, source = cells[:, rows][:, :, columns], "made-up images"
    return pixels, f"{len(pixels)} {source}"


def _tensors(file: Path, facts: Mapping[str, Any]) -> Tensors | None:
    """How a file takes pixels: floats of its own normalisation (None) unless the manifest beside it says 0..255."""
    dtype: str = facts["inputs"][0]["dtype"]
    if dtype != "float32":
        return "int8" if dtype == "int8" else "bytes"
    try:
        return "float" if read_json(file.with_name(file.name + ".json"))["tensors"] == "float" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fed(pixels: npt.NDArray[np.uint8], tensors: Tensors | None) -> tuple[_Tensors, str]:
    """Pixels as a file takes them, and how that was done."""
    if tensors is None:  # most files of unknown normalisation use this
        return pixels.astype(np.float32) / np.float32(127.5) - 1, ", as (x - 127.5) / 127.5"
    return fed_pixels(pixels, tensors), {"bytes": "", "int8": ", less 128", "float": ", as numbers 0 to 255"}[tensors]


def _of_folder(folder: Path, height: int, width: int) -> tuple[npt.NDArray[np.uint8], str]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    shown = []
    for path in paths[:_MOST]:
        try:
            shown.append(np.asarray(decode(path).resize((width, height), 2)))
        except DecodeError:
            continue
    if not shown:
        raise UserError(f"--images: {folder} holds no image that can be read")
    return np.stack(shown), f"images of {folder}"


def _asked(opened: IsolatedFile, shown: _Tensors) -> _Tensors:
    """A few at a time: a request has a time limit."""
    return np.concatenate([opened.run(shown[start : start + _BATCH]) for start in range(0, len(shown), _BATCH)])


def _wrong(answers: _Tensors, again: _Tensors) -> Iterator[str]:
    """What no file should do."""
    if not np.isfinite(answers).all():
        yield "it answers with values that are no numbers"
    elif not np.array_equal(answers[:1], again):
        yield "it answers the same image differently when asked again"
    elif len(answers) > 1 and (answers == answers[:1]).all():
        yield "it answers all images alike"


def _kind(file: Path, answers: _Tensors) -> Output:
    """What the manifest beside the file says that it answers; else what its answers look like."""
    try:
        said: Output = read_json(file.with_name(file.name + ".json"))["output"]
    except (OSError, ValueError, KeyError, TypeError):
        if answers.dtype == np.uint8 and answers.ndim == 3:
            return "class_map"
        sums = answers.astype(np.float64).sum(axis=-1)
        return "probabilities" if answers.min() >= 0 and np.allclose(sums, 1, atol=0.02) else "logits"
    return said


def _compare(
    other: Path, facts: Mapping[str, Any], pixels: npt.NDArray[np.uint8], answers: _Tensors, kind: Output
) -> dict[str, Any]:
    """Show another file the same, each as it takes it, and compare its answers."""
    about = _about(other)
    found: dict[str, Any] = {"file": str(other), "problems": []}
    try:
        with IsolatedFile(other, about["format"], timeout_s=_TIMEOUT_S) as opened:
            if lacking := _unlike_ours(opened.facts):
                return found | {"problems": [f"it opens, but cannot be compared: {lacking}"]}
            (mine,), (its,) = facts["inputs"], opened.facts["inputs"]
            if mine["shape"] != its["shape"]:
                return found | {"problems": [f"its input is {its['dtype']} {its['shape']}, not {mine['shape']}"]}
            shown, _ = _fed(pixels, _tensors(other, opened.facts))
            said = real_answers(_asked(opened, shown), opened.facts["outputs"][0])
    except ArtifactError as error:
        return found | {"problems": [str(error)]}
    if said.shape != answers.shape:
        return found | {"problems": [f"it answers {list(said.shape[1:])}, not {list(answers.shape[1:])}"]}
    if not np.isfinite(answers).all() or not np.isfinite(said).all():
        return found | {"problems": ["one of both answers with values that are no numbers"]}
    one, two = answers.astype(np.float64), said.astype(np.float64)
    same = one == two if kind == "class_map" else one.argmax(axis=-1) == two.argmax(axis=-1)
    noise = float(((one - two) ** 2).mean())
    found |= {
        "agreement": float(same.mean()),
        "max_difference": float(np.abs(one - two).max()),
        "snr_db": float(10 * np.log10(((two - two.mean()) ** 2).mean() / noise)) if noise else None,
    }
    return found
