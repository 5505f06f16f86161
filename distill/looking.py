"""`distill look` and `distill perturb`: what a trained student looks at, and what it cannot bear.

Everything goes to `looking/` in the run folder: pictures, and a JSON document that names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from distill.core.dense import scale_map
from distill.core.errors import UserError
from distill.core.files import read_json, replacing, write_json
from distill.core.task import Task
from distill.core.types import FloatArray, ImageRecord, Images, softmax
from distill.data.manifest import Manifest
from distill.data.views import fixed_view, render
from distill.perturbation import KINDS, kinds_for, perturbed, sensitivity, shown
from distill.report.wording import between, points
from distill.stages import Work, forward
from distill.tasks._label_answers import LabelAnswers
from distill.teaching import trained_teacher
from distill.torch_predictor import Network, TorchPredictor
from distill.trained_student import load_student

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["describe", "grad_cam", "look", "perturb"]

_MISTAKES: Final = 12
_FILTER_PIXELS: Final = 8  # of the picture, a weight
_EXAMPLE_PIXELS: Final = 96
_HEAT: Final = 0.7  # opacity of the hottest place


def look(work: Work) -> dict[str, Any]:
    """Draw the first layer's filters, and, of labels, what the worst mistakes were made of.

    Returns:
        The document of `looking/looking.json`: `made_from`, `filters` (picture, layer, shape) and `mistakes` (picture,
        path, truth, answer, confidence; the picture has the photo, the heat map of the answer and that of the truth
        side by side).

    Raises:
        RunFolderError: the student is not finished.
    """
    folder = work.run.root / "looking"
    network, _ = load_student(work.run)
    document: dict[str, Any] = {"format": 1, "made_from": _made_from(work, "student")}
    document |= {"filters": _filters(network, folder), "mistakes": []}
    manifest = work.manifest()
    task = work.task(manifest)
    if not task.by_pixel:
        document["mistakes"] = _heat_maps(work, network, manifest, task, folder)
    write_json(folder / "looking.json", document)
    return document


def perturb(work: Work, count: int) -> dict[str, Any]:
    """Score teacher, student and int8 file on photos that are worse than the test set's.

    Args:
        work: of a run whose student is finished; where files are exported, the int8 one takes part.
        count: images at most.

    Returns:
        The document of `looking/perturbation.json`: `made_from`, `split`, `images`, `metric`, `kinds` (unit and levels)
        and `curves`, for each predictor rows of kind, level, score (value, low, high) and nll; `none` is the photos as
        they are. Pictures: `perturbation-examples.png`, a row a kind, from mild to hard.
    """
    config, manifest, cache, folder = work.config, work.manifest(), work.cache(), work.run.root / "looking"
    task = work.task(manifest)
    split, records = shown(manifest, count)
    resize = config.data.resize
    network, _ = load_student(work.run)
    files = []
    if (work.run.folder("export") / "student.int8.tflite.json").exists():  # first: it may not open
        forward(["perturb", "--run", str(work.run.root), "--images", str(count)])
        files.append(read_json(folder / "perturbation-tflite-int8.json"))
    predictors = {
        "teacher": trained_teacher(work.run, config, manifest.classes),
        "student": TorchPredictor(network),
    }
    curves = [
        {"name": name, "rows": sensitivity(predictor, task, records, cache, resize, work.progress)}
        for name, predictor in predictors.items()
    ]
    _examples(folder, task, [records[0]], work)
    document = {
        "format": 1,
        "made_from": _made_from(work, "teacher", "student", "export"),
        "split": split,
        "images": len(records),
        "metric": task.metric._asdict(),
        "kinds": {kind: {"unit": levels.unit, "levels": levels.values} for kind, levels in kinds_for(task).items()},
        "curves": [*curves, *files],
    }
    write_json(folder / "perturbation.json", document)
    return document


def describe(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The scores under perturbation for the terminal: one line a kind and level, in percent."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("photos", "level", *(curve["name"] for curve in document["curves"])):
        table.add_column(name, justify="left" if name == "photos" else "right", overflow="fold")
    for rows in zip(*(curve["rows"] for curve in document["curves"]), strict=True):
        kind, level = rows[0]["kind"], rows[0]["level"]
        scores = [f"{points(row['score']['value'])} ({between(row['score'])})" for row in rows]
        table.add_row("as they are" if kind == "none" else kind, "" if kind == "none" else f"{level:g}", *scores)
    yield table
    yield "; ".join(f"{kind}: {levels['unit']}" for kind, levels in document["kinds"].items())
    yield f"{document['metric']['title']} on {document['images']} {document['split']} images, %, with 95 % intervals"


def _made_from(work: Work, *stages: str) -> dict[str, str]:
    """Fingerprints of what was looked at, by which a reader knows that it is of these files and no earlier ones."""
    found = {stage: work.run.fingerprint(stage) for stage in stages}
    return {stage: fingerprint for stage, fingerprint in found.items() if fingerprint is not None}


def _filters(network: Network, folder: Path) -> dict[str, Any] | None:
    """The weights of the first convolution as pictures, mid-grey for zero; None where it does not take RGB."""
    found = next(((n, m) for n, m in network.backbone.named_modules() if isinstance(m, nn.Conv2d)), None)
    if found is None or found[1].weight.shape[1] != 3:
        return None
    name, layer = found
    weights = layer.weight.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
    scaled = 0.5 + 0.5 * weights / np.maximum(np.abs(weights).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    tiles = np.rint(scaled * 255).astype(np.uint8).repeat(_FILTER_PIXELS, 1).repeat(_FILTER_PIXELS, 2)
    _save(_grid(tiles, 8), folder / "filters.png")
    return {"picture": "filters", "layer": name, "shape": list(layer.weight.shape)}


def _heat_maps(work: Work, network: Network, manifest: Manifest, task: Task, folder: Path) -> list[dict[str, Any]]:
    """Grad-CAM of the most confident mistakes (Selvaraju et al. 2017, arXiv 1610.02391)."""
    split = "test" if manifest.of("test", labelled=True) else "validation"
    answers = task.load_answers(work.run.answers("student", split))
    assert isinstance(answers, LabelAnswers)
    confidence = softmax(answers.logits).max(axis=1)
    said = answers.logits.argmax(axis=1)
    wrong = [int(i) for i in (-confidence).argsort(kind="stable") if said[i] != answers.truth[i]][:_MISTAKES]
    records, cache = {record.id: record for record in manifest.records}, work.cache()
    made = []
    for number, place in enumerate(wrong):
        record = records[answers.ids[place]]
        view = fixed_view(record.width, record.height, work.config.data.resize)
        pixels = render(cache.get(record), view, network.image_size)
        classes = [int(said[place]), int(answers.truth[place])]
        laid = [_warmed(pixels, heat) for heat in grad_cam(network, pixels, classes)]
        _save(np.concatenate([pixels, *laid], axis=1), folder / f"heat-{number}.png")
        made.append(
            {
                "picture": f"heat-{number}",
                "path": record.path,
                "truth": manifest.classes[classes[1]],
                "answer": manifest.classes[classes[0]],
                "confidence": float(confidence[place]),
            }
        )
    return made


def grad_cam(network: Network, pixels: npt.NDArray[np.uint8], classes: Sequence[int]) -> list[FloatArray]:
    """Where the last feature maps speak for each of these classes (Selvaraju et al. 2017, arXiv 1610.02391).

    ReLU of the maps weighted by the mean gradient of the class's logit, made to have a maximum of 1.

    Args:
        network: a classifier with timm's `forward_features` and `forward_head`.
        pixels: uint8 [S, S, 3].
        classes: places of classes.

    Returns:
        float32 [S, S] in 0..1 for each class; zeros where nothing speaks for it.

    Raises:
        UserError: the network does not say what its features are.
    """
    backbone: Any = network.backbone
    if not hasattr(backbone, "forward_features"):
        raise UserError(f"{type(backbone).__name__} has no forward_features: heat maps need the last feature maps")
    device = next(network.parameters()).device
    network.eval()
    maps = backbone.forward_features(network.normalize(torch.from_numpy(pixels[None].copy()).to(device)))
    maps = maps.detach().requires_grad_()
    logits = backbone.forward_head(maps)
    heats = []
    for place in classes:
        (gradient,) = torch.autograd.grad(logits[0, place], maps, retain_graph=True)
        heat = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu()[0].detach().float().cpu().numpy()
        scaled = scale_map(heat[..., None] / max(float(heat.max()), 1e-12), len(pixels), len(pixels))
        heats.append(np.ascontiguousarray(scaled[..., 0], dtype=np.float32))
    return heats


def _warmed(pixels: Images, heat: FloatArray) -> Images:
    """Red over a grey photo where it is hot."""
    grey = pixels.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    share = _HEAT * heat[..., None]
    laid: Images = np.rint(grey * (1 - share) + np.array([255, 40, 0]) * share).clip(0, 255).astype(np.uint8)
    return laid


def _examples(folder: Path, task: Task, records: Sequence[ImageRecord], work: Work) -> None:
    """A row for each kind: the photo as it is, then from mild to hard."""
    rows = []
    for record in records:
        image = work.cache().get(record)
        view = fixed_view(record.width, record.height, work.config.data.resize)
        for kind in kinds_for(task):
            shots = [image, *(perturbed(image, kind, level) for level in KINDS[kind].values)]
            rows.append(np.concatenate([render(shot, view, _EXAMPLE_PIXELS) for shot in shots], axis=1))
    _save(np.concatenate(rows), folder / "perturbation-examples.png")


def _grid(tiles: Images, across: int) -> Images:
    """Tiles [N, h, w, 3] in rows, with a white line between them."""
    framed = np.pad(tiles, ((0, -len(tiles) % across), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(framed[at : at + across]), axis=1) for at in range(0, len(framed), across)]
    return np.concatenate(rows)


def _save(picture: Images, path: Path) -> None:
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
