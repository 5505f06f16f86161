"""All checks in order, and how they are done: nothing of the training is touched, neither weights nor random state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from distill import __version__
from distill.core.errors import DistillError, SanityFailed
from distill.core.files import replacing, write_json
from distill.sanity import answers, fed, learning, start, targets
from distill.sanity.check import Check, Result, Status
from distill.sanity.subject import Pictures, Subject

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["CHECKS", "FORMAT", "describe", "document", "examine", "failures", "keep"]

FORMAT = 1
"""Of `sanity.json`."""

CHECKS: tuple[Check, ...] = (
    Check(
        "input tensor",
        fed.check_tensor,
        (
            "`view` or `reshape` where `permute` is meant: [N, H, W, 3] read as [N, 3, H, W]",
            "normalised twice or not at all, or mean and std of 0..1 taken from bytes",
            "red and blue swapped, or mean and std of another model",
        ),
        True,
    ),
    Check(
        "input file",
        fed.check_file,
        (
            "BGR instead of RGB (OpenCV reads BGR)",
            "images of a batch in another order than their records",
            "mirrored or cut elsewhere than the view says; EXIF orientation left out",
        ),
        True,
    ),
    Check(
        "colours",
        fed.check_colors,
        ("uint8 arithmetic that overflows: 250 times 1.4 is 94; compute in float or int and clip",),
        True,
    ),
    Check(
        "targets",
        targets.check_targets,
        (
            "the image is mirrored or cropped and its mask is not",
            "images are shuffled and their labels are not, or the other way round",
            "labels one off: class ids that begin at 1",
            "ignored pixels (255) read as a class",
        ),
        True,
    ),
    Check(
        "classes",
        targets.check_classes,
        (
            "the last class is lost in a map of classes (range to n - 1, or `< n - 1`)",
            "classes in another order than the outputs",
            "teacher.class_map names no teacher class for it",
        ),
        True,
    ),
    Check(
        "truth and teacher",
        targets.check_truth_and_teacher,
        (
            "labels shuffled or one off where they were written",
            "teacher.classes in another order than the weights' outputs, or a wrong class_map",
        ),
        True,
    ),
    Check(
        "logits",
        answers.check_logits,
        ("softmax (or sigmoid) in the model and again in the loss: gradients nearly vanish",),
        True,
    ),
    Check(
        "loss",
        answers.check_loss,
        ("softmax twice: of the logits, then in the loss", "a sign, or log of what is a log already"),
        True,
    ),
    Check(
        "ignored",
        answers.check_ignored,
        ("weights or ignore_index are not handed to the loss", "the mean is taken over all cells"),
        True,
    ),
    Check(
        "independence",
        answers.check_independence,
        (
            "a `view` or `reshape` that mixes images of a batch; a softmax or norm over the batch axis",
            "batch norm that uses the batch in evaluation mode (track_running_stats=False, `eval()` not passed on)",
        ),
        True,
    ),
    Check(
        "gradients",
        answers.check_gradients,
        (
            "requires_grad is off, or the optimizer is given only some parameters",
            "a `detach`, `no_grad` or `.data` in the forward pass",
            "a part of the network that is not used",
        ),
        True,
    ),
    Check(
        "first loss",
        start.check_start,
        (
            "the last layer starts with large weights: the first epochs go into undoing that",
            "features far from unit scale: a missing or a second normalisation",
            "a probe that was fitted to other labels",
        ),
        False,
    ),
    Check(
        "output bias",
        start.check_bias,
        ("a bias copied from another task, or of classes in another order", "an initial answer that is sure already"),
        False,
    ),
    Check(
        "overfit",
        learning.check_overfit,
        (
            "labels that do not belong to the images; softmax twice; frozen layers",
            "a loss that is not the one meant, or regularisation that cannot be switched off",
            "equal images with different labels",
        ),
        False,
    ),
    Check(
        "capacity",
        learning.check_capacity,
        (
            "layers that do not learn: frozen, not in the optimizer, cut off by `detach`",
            "an input that is constant",
        ),
        False,
    ),
    Check(
        "learning rate",
        learning.check_rate,
        (
            "train.lr far too high: the loss rises or is no number; take a third of the rate of the least loss",
            "train.lr far too low: nothing is learnt in the time there is; leave it on auto",
        ),
        False,
    ),
)


def examine(
    subject: Subject, *, quick: bool, names: Sequence[str] | None = None, told: Callable[[str], None] | None = None
) -> tuple[list[Result], Pictures]:
    """Do the checks; torch's random state is as before afterwards.

    Args:
        subject: what is checked.
        quick: only those that take well under a second.
        names: only these; all if left out.
        told: called with each check's name before it begins.

    Returns:
        A result for each check, and pictures by file name without ending.

    Raises:
        DistillError: images or labels cannot be read any more.
    """
    chosen = [check for check in CHECKS if check.name in names] if names else CHECKS
    chosen = [check for check in chosen if check.quick or not quick]
    pictures: Pictures = {}
    results = []
    devices = [torch.cuda.current_device()] if subject.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        for check in chosen:
            if told is not None:
                told(check.name)
            result, drawn = _done(check, subject)
            results.append(result)
            pictures |= drawn
    return results, pictures


def _done(check: Check, subject: Subject) -> tuple[Result, Pictures]:
    began = time.monotonic()
    try:
        seen = check.look(subject)
    except DistillError:
        raise
    except Exception as error:  # a student of the user's may lack what a check needs; that is no bug of training
        said = f"could not be done ({type(error).__name__}: {str(error).split(chr(10), 1)[0]})"
        return Result(check.name, "skipped", "", said, (), {}, (), time.monotonic() - began), {}
    status: Status = "skipped" if seen.holds is None else "passed" if seen.holds else "failed"
    named = {f"{check.name.replace(' ', '-')}-{name}": picture for name, picture in seen.pictures.items()}
    causes = tuple(check.causes) if status == "failed" else ()
    figures: dict[str, Any] = _plain(seen.figures)
    spent = time.monotonic() - began
    return Result(check.name, status, seen.expected, seen.saw, causes, figures, tuple(named), spent), named


def document(results: Sequence[Result], *, quick: bool, learns_from: str) -> dict[str, Any]:
    """What `sanity.json` holds.

    Args:
        results: of the checks.
        quick: whether the long ones were left out.
        learns_from: `teacher` (stored answers) or `truth`.
    """
    return {
        "format": FORMAT,
        "version": __version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "learns_from": learns_from,
        "passed": sum(result.status == "passed" for result in results),
        "failed": sum(result.status == "failed" for result in results),
        "skipped": sum(result.status == "skipped" for result in results),
        "seconds": round(sum(result.seconds for result in results), 3),
        "checks": [{**asdict(result), "seconds": round(result.seconds, 3)} for result in results],
    }


def keep(folder: Path, found: Mapping[str, Any], pictures: Pictures) -> None:
    """Write `sanity.json` and `sanity/NAME.png` into a run folder; the document last."""
    for name, picture in pictures.items():
        with replacing(folder / "sanity" / f"{name}.png") as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
    write_json(folder / "sanity.json", found)


def failures(found: Mapping[str, Any]) -> SanityFailed | None:
    """What is to be raised where a check failed."""
    lines = []
    for check in found["checks"]:
        if check["status"] == "failed":
            lines.append(f"{check['name']}: expected {check['expected']}; saw {check['saw']}")
            lines += [f"    usual cause: {cause}" for cause in check["causes"]]
    if not lines:
        return None
    count = found["failed"]
    return SanityFailed("\n  ".join([f"{count} sanity {'check' if count == 1 else 'checks'} failed:", *lines]))


def describe(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The document for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from distill.report.wording import printable

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "", "expected", "saw"):
        table.add_column(name, overflow="fold")
    for check in found["checks"]:
        cells = (check["name"], check["status"], check["expected"], check["saw"])
        style = {"failed": "bold red", "skipped": "dim", "passed": ""}[check["status"]]
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
        for cause in check["causes"]:
            table.add_row("", "", Text(f"usual cause: {printable(cause)}"), "", style="red")
    yield table
    learnt = "the teacher's stored answers" if found["learns_from"] == "teacher" else "truth alone"
    yield (
        f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped in {found['seconds']:.1f} s;"
        f" it learns from {learnt}"
    )


def _plain(value: Any) -> Any:
    """As JSON has it: numpy's numbers become Python's, what is no number None."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
