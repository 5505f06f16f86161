"""A network that somebody brings, with a folder of images, becomes a run folder: all that exports files speaks to that.

There is no truth. What the network itself says of the images takes its place, so that every figure of a file tells how
far it answers as the float network does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from distill.checkpoint import load_weights, save_weights
from distill.config import BenchmarkSettings, ExportSettings, Gates
from distill.core import plugins
from distill.core.errors import ArtifactError, RunFolderError, UserError
from distill.core.files import digest_of, replacing, sha256_of, write_json, write_text
from distill.core.progress import Progress
from distill.core.run import Run
from distill.core.types import FloatArray, Split
from distill.data.candidate import Candidate
from distill.data.decode import DecodeError, decode
from distill.data.manifest import Entry, Manifest
from distill.data.views import LARGEST_SIDE, fixed_view, render
from distill.trained_student import CARD

if TYPE_CHECKING:
    import torch

    from distill.data.masks import Mask
    from distill.torch_predictor import Network

__all__ = ["BROUGHT", "CHANGED", "Brought", "bring", "channels", "parse_shape"]

BROUGHT: Final = "brought.json"
"""Beside the student's card: what was brought, and how near the network here is to it."""

CHANGED: Final = 0.02
"""Share of the answers that an int8 file may change before a dearer way is tried: as many as where there is truth."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_FEWEST, _MOST = 12, 3000  # images; a third calibrates, a third chooses between ways, a third tells what came of it
_COMPARED = 8  # images on which the network here is compared with what was brought
_NEAR = 1e-3  # of the largest answer
_RESIZE: Final = "center_crop"
_MEGAPIXELS: Final = 100.0


@dataclass(frozen=True)
class Brought:
    """What somebody brings.

    Args:
        model: `module:function`, whose function makes a torch module, or a path of a .pt2 or .onnx file.
        weights: loaded into what the function makes: safetensors, or a torch file of tensors.
        shape: [1, 3, S, S] of the input; None where the file says it.
        mean: of each channel, of values 0..1.
        std: of each channel, of values 0..1.
        images: folder of photos.
        labels: file with the name of a class a line; numbers if left out.
    """

    model: str
    weights: Path | None
    shape: tuple[int, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: Path
    labels: Path | None = None

    @property
    def name(self) -> str:
        """Of the run folder, where none is given."""
        return re.sub(r"[^\w-]", "_", Path(self.model).stem if _is_file(self.model) else self.model.rpartition(":")[2])


def parse_shape(text: str) -> tuple[int, ...]:
    """`1x3x224x224` as numbers.

    Raises:
        UserError: it is no shape of one square image.
    """
    found = tuple(int(part) for part in text.split("x")) if re.fullmatch(r"\d+(x\d+)*", text) else ()
    return _square(found, f"--example: found {text!r}")


def channels(text: str, flag: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`, or one number for all three; `1/255` is a number too.

    Raises:
        UserError: it is neither, or a standard deviation is not above zero.
    """
    try:
        found = [float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        found = []
    if len(found) not in {1, 3} or (flag == "--std" and min(found) <= 0):
        above = " above zero" if flag == "--std" else ""
        raise UserError(f"{flag}: found {text!r}, expected one number{above} or three with commas between")
    return tuple(found * 3 if len(found) == 1 else found)


def bring(given: Brought, into: Path, progress: Progress) -> Run:
    """Make, or find again, the run folder of a network.

    Args:
        given: what it is.
        into: the folder; may hold the same network already.
        progress: told of long work.

    Raises:
        UserError: what was given does not fit together, or cannot be used.
        ArtifactError: the network here does not answer as what was brought.
    """
    if "teacher" in _known_config(into):
        raise RunFolderError(f"{into} is a run that was trained here: export it with --run, or choose another --into")
    run = Run.create(into)
    with run.lock():
        return _bring(given, run, progress)


def _bring(given: Brought, run: Run, progress: Progress) -> Run:
    started = time.monotonic()
    program, original = _program(given)
    size = _square(_shape_of(program), given.model)[2]
    scratch = run.root / "program.pt2"
    with replacing(scratch) as temporary:
        temporary.write_bytes(_saved(program))
    try:
        from export.own_student import network_of

        network = network_of(program, _labels(given), size, given.mean, given.std)
        entries = _read(given.images, progress)
        facts = {
            "model": given.model,
            "weights": str(given.weights) if given.weights else None,
            "mean": list(given.mean),
            "std": list(given.std),
            "images": str(given.images.resolve()),
            "classes": list(network.class_names),
        }
        asked = digest_of([facts, _digest(network), [[e.id, e.split] for e in entries]])
        if run.done("data", asked) is not None and run.done("student", asked) is not None:
            return run
        compared = _compare(original, network, given, entries)
        _write_config(run, given, network)
        folder = run.begin("data", asked)
        task = "segmentation" if network.answers_maps else "classification"
        manifest, answers = _answered(network, entries, folder, progress)
        manifest.save(folder / "manifest.parquet")
        run.finish("data", asked, time.monotonic() - started, {"digest": manifest.digest()})
        folder = run.begin("student", asked)
        module = plugins.load("tasks", task)
        judge = module.build(module.Config(), network.class_names)
        for split in ("validation", "test"):
            records = manifest.of(split)
            said = judge.examine(records, np.stack([answers[record.id] for record in records]), _RESIZE)
            said.save(run.answers("student", split))
        save_weights(network.backbone, folder / "weights.safetensors")
        scratch.replace(folder / "network.pt2")
        write_json(folder / BROUGHT, facts | {"compared": compared})
        _write_card(folder, given, network)
        run.finish("student", asked, time.monotonic() - started, {"detail": f"{given.name}, {size} px"})
    finally:
        scratch.unlink(missing_ok=True)
    return run


def _is_file(model: str) -> bool:
    return Path(model).suffix in {".pt2", ".onnx"}


def _program(
    given: Brought,
) -> tuple[torch.export.ExportedProgram, Callable[[FloatArray], FloatArray]]:
    """What was brought as a program, and a way to ask what was brought about images float32 [1, 3, S, S]."""
    from export.own_student import open_program

    path = Path(given.model)
    if _is_file(given.model):
        if not path.is_file():
            raise UserError(f"--model: there is no file {path}")
        if given.weights is not None:
            raise UserError(f"--weights: {path} has its own; leave it out")
        if path.suffix == ".pt2":
            program = open_program(path)
            if given.shape is not None and _shape_of(program) != given.shape:
                raise UserError(f"--example: {path} takes {_shape_of(program)}, found {given.shape}; leave it out")
            return program, _asking(program.module())
        return _of_onnx(path, given.shape)
    network = _own_module(given.model)
    if given.weights is not None:
        load_weights(network, given.weights)
    if given.shape is None:
        raise UserError("--example: the shape of the network's input is missing, such as --example 1x3x224x224")
    network.eval()
    return _exported(network, given.shape, given.model), _asking(network)


def _own_module(model: str) -> torch.nn.Module:
    from torch import nn

    if not re.fullmatch(r"[\w.]+:[\w.]+", model):
        raise UserError(f"--model: found {model!r}, expected module:function, or a file that ends with .pt2 or .onnx")
    module_name, _, attribute = model.partition(":")
    found: Any = plugins.import_user_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UserError(f"--model: the module {module_name} has no {attribute!r}")
        found = getattr(found, part)
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except Exception as error:
            raise UserError(f"--model: {model} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise UserError(f"--model: {model} gives a {type(found).__name__}, expected a torch.nn.Module")
    return found


def _of_onnx(
    path: Path, shape: tuple[int, ...] | None
) -> tuple[torch.export.ExportedProgram, Callable[[FloatArray], FloatArray]]:
    from export.isolated import IsolatedFile
    from export.onnx_network import input_shape, read_onnx

    said = input_shape(path)
    if len(said) == 4 and shape is not None and any(a not in {0, b} for a, b in zip(said, shape, strict=True)):
        raise UserError(f"--example: {path} takes {'x'.join(map(str, said))}, found {'x'.join(map(str, shape))}")
    if shape is None:
        if len(said) != 4 or 0 in said[1:]:
            raise UserError(f"--example: {path} leaves the size of its input open; say it, such as 1x3x224x224")
        shape = (1, *said[1:])
    _square(shape, str(path))

    def asked(images: FloatArray) -> FloatArray:
        with IsolatedFile(path, "onnx") as opened:
            answers: FloatArray = opened.run(images)
        return answers

    return _exported(read_onnx(path, shape), shape, str(path)), asked


def _exported(network: torch.nn.Module, shape: Sequence[int], model: str) -> torch.export.ExportedProgram:
    import torch

    from distill.core.quiet import quiet

    try:
        with quiet(), torch.no_grad():
            return torch.export.export(network, (torch.zeros(*shape),))
    except Exception as error:  # whatever the network raises, and torch.export's own
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"--model: torch.export cannot follow {model} for an input of {'x'.join(map(str, shape))}"
            f" ({type(error).__name__}: {reason[0][:300]})"
        ) from error


def _saved(program: torch.export.ExportedProgram) -> bytes:
    import io

    import torch

    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def _asking(network: torch.nn.Module) -> Callable[[FloatArray], FloatArray]:
    import torch

    def asked(images: FloatArray) -> FloatArray:
        with torch.no_grad():
            answers = [network(torch.from_numpy(image[None])) for image in images]
        found: FloatArray = torch.cat([_leaf(answer) for answer in answers]).numpy()
        return found

    return asked


def _leaf(answer: Any) -> torch.Tensor:
    """The one tensor of an answer that may be a dictionary or a tuple; `lift` has counted."""
    from torch.utils import _pytree as pytree

    found: torch.Tensor = pytree.tree_leaves(answer)[0]
    return found


def _shape_of(program: torch.export.ExportedProgram) -> tuple[int, ...]:
    import torch

    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names and isinstance(node.meta.get("val"), torch.Tensor):
            sizes = [each if isinstance(each, int) else 1 for each in node.meta["val"].shape]
            return tuple(sizes)
    return ()


def _square(shape: Sequence[int], found: str) -> tuple[int, ...]:
    if len(shape) != 4 or shape[0] != 1 or shape[1] != 3 or shape[2] != shape[3] or not 16 <= shape[2] <= 1024:
        said = "" if "found" in found else f": its input is {'x'.join(map(str, shape))}"
        raise UserError(f"{found}{said}, expected 1x3xSxS: one square RGB image of 16 to 1024 pixels, channels first")
    return tuple(shape)


def _labels(given: Brought) -> list[str]:
    if given.labels is None:
        return []
    try:
        names = [line.strip() for line in given.labels.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels: {given.labels} cannot be read ({error})") from error
    if len(set(names)) != len(names):
        raise UserError(f"--labels: {given.labels} names a class twice")
    return names


def _read(folder: Path, progress: Progress) -> list[Entry]:
    """Every image of a folder, with its use: by hash, so that the same images have the same."""
    if not folder.is_dir():
        raise UserError(f"--images: {folder} is no folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)[:_MOST]

    def read(path: Path) -> Entry | None:
        try:
            image = decode(path, _MEGAPIXELS)
            seen = path.stat()
            found = Candidate(str(path.resolve()), "unlabeled", None, False, None, seen.st_size, seen.st_mtime_ns)
            if max(image.size) > LARGEST_SIDE:
                return None
            return Entry(found, sha256_of(path), image.width, image.height, None, "")
        except (DecodeError, OSError):
            return None

    with ThreadPoolExecutor() as pool, progress.task("reading images", len(paths)) as task:
        entries: dict[str, Entry] = {}
        for entry in pool.map(read, paths):
            task.advance(1)
            if entry is not None:
                entries.setdefault(entry.id, entry)
    if len(entries) < _FEWEST:
        raise UserError(
            f"--images: {folder} holds {len(entries)} different images that can be read, at least {_FEWEST} are needed;"
            " 300 photos of what the network will see serve well"
        )
    uses: tuple[Split, ...] = ("train", "validation", "test")
    from dataclasses import replace

    return [replace(entries[key], split=uses[place % 3]) for place, key in enumerate(sorted(entries))]


def _compare(
    original: Callable[[FloatArray], FloatArray], network: Network, given: Brought, entries: Sequence[Entry]
) -> dict[str, Any]:
    """Whether the network here answers as what was brought does, on real images.

    Raises:
        ArtifactError: it does not.
    """
    import torch

    pixels = np.stack([_pixels(entry, network.image_size) for entry in entries[:_COMPARED]])
    mean, std = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (given.mean, given.std))
    shown = ((pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - mean) / std).astype(np.float32)
    expected = original(shown)
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels))
    probabilities = bool(expected.min() >= 0 and np.allclose(expected.sum(axis=1), 1, atol=1e-3))
    found = (logits.softmax(dim=1) if probabilities else logits).numpy()
    if found.shape != expected.shape:
        raise ArtifactError(f"{given.model} answers {list(expected.shape)}, the network made of it {list(found.shape)}")
    difference = float(np.abs(found - expected).max())
    largest = float(np.abs(expected).max())
    if not difference <= _NEAR * largest:
        raise ArtifactError(
            f"{given.model} answers up to {largest:.4g}, the network made of it up to {difference:.4g} otherwise, on"
            f" {len(pixels)} images; please report it"
        )
    return {"images": len(pixels), "max_difference": difference, "largest_answer": largest}


def _pixels(entry: Entry, size: int) -> Any:
    view = fixed_view(entry.width, entry.height, _RESIZE)
    return render(decode(entry.candidate.path, _MEGAPIXELS), view, size)


def _answered(
    network: Network, entries: Sequence[Entry], folder: Path, progress: Progress
) -> tuple[Manifest, dict[str, FloatArray]]:
    """A manifest whose truth is what the network says, and the logits by image."""
    from dataclasses import replace

    from distill.torch_predictor import TorchPredictor

    predictor = TorchPredictor(network, "cpu")
    names, masks = network.class_names, folder / "masks" if network.answers_maps else None
    known, answers = list[Entry](), dict[str, FloatArray]()
    with progress.task("answering", len(entries)) as task:
        for entry in entries:
            logits = predictor.predict(_pixels(entry, network.image_size)[None])[0]
            task.advance(1)
            if not np.isfinite(logits).all():
                raise UserError(f"{entry.candidate.path}: the network answers with values that are no numbers")
            if entry.split != "train":
                answers[entry.id] = logits
            if masks is None:
                known.append(replace(entry, candidate=replace(entry.candidate, label=names[int(logits.argmax())])))
            else:
                made = _write_mask(entry, logits, masks)
                known.append(replace(entry, mask=made.key, pixels=made.pixels))
    return Manifest(sorted(known, key=lambda e: e.candidate.path), names, masks), answers


def _write_mask(entry: Entry, logits: FloatArray, folder: Path) -> Mask:
    """What the network says of each pixel of its view, as truth by pixel; outside the view 255."""
    from distill.core.dense import IGNORED
    from distill.data.masks import kept_mask
    from distill.tasks._mask_answers import look

    view = fixed_view(entry.width, entry.height, _RESIZE)
    said = look(logits, np.full((view.height, view.width), IGNORED, np.uint8)).mask
    mask = np.full((entry.height, entry.width), IGNORED, np.uint8)
    mask[view.top : view.top + view.height, view.left : view.left + view.width] = said
    return kept_mask(mask, folder, logits.shape[-1])


def _digest(network: Network) -> str:
    import hashlib

    seen = hashlib.sha256(str(network.backbone.graph).encode())
    for name, value in sorted(network.backbone.state_dict().items()):
        seen.update(name.encode() + value.contiguous().numpy().tobytes())
    return seen.hexdigest()


def _write_config(run: Run, given: Brought, network: Network) -> None:
    """What `distill run` would have written; how files are made stays as it is where it was changed by hand."""
    before = _known_config(run.root)
    files = ExportSettings(files=["tflite-float32", "tflite-int8"])
    document = {
        "task": "segmentation" if network.answers_maps else "classification",
        "data": {"unlabeled": str(given.images.resolve()), "resize": _RESIZE},
        "student": {"model": given.model, "image_size": network.image_size},
        "export": files.model_dump(mode="json"),
        "benchmark": BenchmarkSettings().model_dump(mode="json"),
        "gates": Gates(max_int8_drop=CHANGED).model_dump(mode="json"),
        "seed": 0,
    }
    kept = {key: before[key] for key in ("export", "benchmark", "gates") if key in before}
    write_text(run.root / "config.yaml", yaml.safe_dump(document | kept, sort_keys=False, allow_unicode=True))


def _known_config(root: Path) -> dict[str, Any]:
    """What `config.yaml` of a folder holds; nothing where there is none."""
    path = root / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunFolderError(f"{path} cannot be read ({error})") from error
    return found if isinstance(found, dict) else {}


def _write_card(folder: Path, given: Brought, network: Network) -> None:
    """As `distill.trained_student.save_card` does; the program's path is relative to the card."""
    settings = {
        "image_size": network.image_size,
        "program": "network.pt2",
        "program_sha256": sha256_of(folder / "network.pt2"),
        "mean": list(given.mean),
        "std": list(given.std),
    }
    card = {
        "plugin": "export.own_student",
        "settings": settings,
        "class_names": list(network.class_names),
        "image_size": network.image_size,
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": sha256_of(folder / "weights.safetensors"),
        "resize": _RESIZE,
        "max_megapixels": _MEGAPIXELS,
    }
    write_json(folder / CARD, card)
