"""The teacher as the config describes it: built, fitted on the labelled images where asked, mapped, tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from distill.config import RunConfig
from distill.core import plugins
from distill.core.adapted import adapted
from distill.core.ensemble import Ensemble
from distill.core.errors import StoreError, UserError
from distill.core.files import read_json, write_json
from distill.core.run import Run
from distill.core.settings import TeacherSettings
from distill.core.types import ImageRecord, Predictor
from distill.data.batches import ImageCache, iterate
from distill.data.views import fixed_view
from distill.labels.shards import PLAN, facts_of

if TYPE_CHECKING:
    from distill.torch_predictor import Network, Precision

__all__ = [
    "as_labeller",
    "build_teacher",
    "choose_precision",
    "forward_passes",
    "keep_precision",
    "load_fitted",
    "networks",
    "of_each",
    "same_threads",
    "trained_teacher",
]

T = TypeVar("T")

_PRECISION = "precision.json"
_PROBED = 16  # images that precisions are timed on
_FASTER = 1.25  # a smaller gain lies within the noise of shared machines and is not worth the rounding


def build_teacher(config: RunConfig, class_names: Sequence[str]) -> Predictor:
    """The teacher before it is fitted; where its weights are random, they are those of the run's seed."""
    import torch

    torch.manual_seed(config.seed)
    teacher: Predictor = plugins.build(config.teacher, class_names)
    return teacher


def networks(teacher: Predictor, settings: TeacherSettings) -> Iterator[tuple[str, Network, TeacherSettings]]:
    """Each network that is to be fitted, with the name of its sub-folder and its settings.

    Who asks lets go of a network before the next: an ensemble that holds one member at a time builds that one then.

    Raises:
        UserError: a teacher that is to be fitted is no torch module.
    """
    if isinstance(teacher, Ensemble):
        for number, member in enumerate(teacher.members):
            if member.settings.fit is not None:
                with teacher.turn(number) as part:
                    yield _member(number), _network_of(part), member.settings
                del part
    elif settings.fit is not None:
        yield "", _network_of(teacher), settings


def load_fitted(teacher: Predictor, settings: TeacherSettings, folder: Path) -> None:
    """Give the networks the weights that the stage `teacher` left in its folder."""
    from distill.checkpoint import load_weights

    def load(part: Predictor, name: str) -> None:
        load_weights(_network_of(part).backbone, folder / name / "weights.safetensors")

    if isinstance(teacher, Ensemble):
        fitted = {n for n, member in enumerate(teacher.members) if member.settings.fit is not None}
        teacher.when_built(lambda n, part: load(part, _member(n)) if n in fitted else None)
    elif settings.fit is not None:
        load(teacher, "")


def trained_teacher(run: Run, config: RunConfig, class_names: Sequence[str]) -> Predictor:
    """The teacher of a run as it answered for the store.

    Raises:
        RunFolderError: its stage is not finished.
    """
    run.summary("teacher")
    teacher = build_teacher(config, class_names)
    load_fitted(teacher, config.teacher, run.folder("teacher"))
    return as_labeller(teacher, class_names, config.teacher)


def as_labeller(teacher: Predictor, class_names: Sequence[str], settings: TeacherSettings) -> Predictor:
    """The teacher as it answers for the store and is scored: in the classes of the data, with its augmentation.

    Raises:
        TeacherError: its classes cannot become those of the data, or it is to be shown at other sizes than its own and
            does not take them.
    """
    from distill.labels.augmented import Augmented

    # an ensemble sees to the classes and tiles of each member by itself
    answers = teacher if isinstance(teacher, Ensemble) else adapted(teacher, class_names, settings)
    mirror, scales = settings.test_time_augmentation == "mirror", settings.test_time_scales
    return Augmented(answers, mirror=mirror, scales=scales) if mirror or scales != [1.0] else answers


def forward_passes(teacher: Predictor, settings: TeacherSettings) -> list[float]:
    """What answering a view takes, in forward passes of one image of each member's own size, or the one teacher's."""
    views = 2 if settings.test_time_augmentation == "mirror" else 1
    pixels = views * sum(scale**2 for scale in settings.test_time_scales)
    members = [member.settings for member in teacher.members] if isinstance(teacher, Ensemble) else [settings]
    return [pixels * member.tiles**2 for member in members]


def keep_precision(labeller: Predictor, earlier: Path, folder: Path) -> None:
    """Let a labelling answer in the precision that was measured for an earlier one by the same teacher.

    Args:
        labeller: the teacher as it is asked.
        earlier: folder of a store, which may not exist.
        folder: of the labelling; a choice that was made in it stays.
    """
    if (folder / _PRECISION).exists():
        return
    try:
        chosen, then = read_json(earlier / _PRECISION), facts_of(earlier)["teacher"]["digest"]
    except (OSError, ValueError, KeyError, TypeError, StoreError):
        return
    if then == labeller.digest():
        write_json(folder / _PRECISION, chosen)


def choose_precision(
    teacher: Predictor, settings: TeacherSettings, records: Sequence[ImageRecord], cache: ImageCache, folder: Path
) -> str:
    """Let torch networks, also of an ensemble, answer in the precision that is set or measured to be faster here.

    The choice is kept in the folder of the labels: a labelling that goes on after an interruption must not choose anew.

    Returns:
        The precision and why, for people.
    """
    from distill.torch_predictor import TorchPredictor

    def choose(part: Predictor) -> dict[str, str]:
        if not isinstance(part, TorchPredictor):
            return {"precision": "the teacher's own", "reason": "no torch module"}
        if settings.precision != "auto":
            return {"precision": settings.precision, "reason": "set"}
        from distill.torch_timing import faster_precision

        shown = [(r, (fixed_view(r.width, r.height, "squash"),)) for r in records[:_PROBED]]
        images = next(iter(iterate(cache, [shown], part.image_size, workers=2)))
        precision, speedup = faster_precision(part, images, _FASTER)
        return {"precision": precision, "reason": f"bfloat16 measured {speedup:.2f} times as fast"}

    chosen: list[dict[str, str]]
    if settings.precision == "auto" and (folder / _PRECISION).exists():
        chosen = read_json(folder / _PRECISION)
    else:
        chosen = of_each(teacher, choose)
        if settings.precision == "auto":
            write_json(folder / _PRECISION, chosen)

    def apply(number: int, part: Predictor) -> None:
        if isinstance(part, TorchPredictor):
            part.precision = _as_precision(chosen[number]["precision"])

    if isinstance(teacher, Ensemble):
        teacher.when_built(apply)
    else:
        apply(0, teacher)
    return "; ".join(f"{choice['precision']} ({choice['reason']})" for choice in chosen)


@contextmanager
def same_threads(folder: Path) -> Iterator[int]:
    """Let torch compute with as many threads as where the labelling in this folder began, wherever it goes on.

    On a CPU their number decides the last bits: sums are taken in other orders (of four networks of timm three answered
    1e-7 to 3e-5 otherwise with two threads than with one).
    """
    import torch

    before, plan = torch.get_num_threads(), folder / PLAN
    known = read_json(plan).get("threads", before) if plan.exists() else before
    torch.set_num_threads(known)
    try:
        yield known
    finally:
        torch.set_num_threads(before)


def of_each(teacher: Predictor, ask: Callable[[Predictor], T]) -> list[T]:
    """Ask each member of an ensemble in its turn, or the one teacher there is."""
    if not isinstance(teacher, Ensemble):
        return [ask(teacher)]
    found = []
    for number in range(len(teacher.members)):
        with teacher.turn(number) as part:
            found.append(ask(part))
        del part
    return found


def _as_precision(name: str) -> Precision:
    return "bfloat16" if name == "bfloat16" else "float32"


def _member(number: int) -> str:
    return f"member-{number}"


def _network_of(teacher: Predictor) -> Network:
    from distill.torch_predictor import TorchPredictor

    if not isinstance(teacher, TorchPredictor):
        raise UserError("teacher.fit: only torch models can be fitted")
    network: Network = teacher.network
    return network
