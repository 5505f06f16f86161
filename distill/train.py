"""The training loop: one for the fitted teacher, the student and the control."""

from __future__ import annotations

import io
import math
import os
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tensorboardX import SummaryWriter
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import nn

from distill.checkpoint import load_weights, read_state, save_state, save_weights
from distill.core.errors import CheckpointError, UserError
from distill.core.files import replacing
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.settings import TrainSettings
from distill.core.task import Task
from distill.core.types import FloatArray, ImageRecord, Images, Predictor
from distill.data.batches import Cutter, ImageCache, Loader
from distill.data.views import Resize, View
from distill.evaluate import evaluate
from distill.examples import Examples, Lesson, Places, mix
from distill.losses import LessonLoss, Targets
from distill.probe import fit_probe
from distill.ranks import ALONE, Team
from distill.torch_predictor import Network, TorchPredictor

__all__ = [
    "Batch",
    "Plan",
    "Trained",
    "begin",
    "decide",
    "parameter_groups",
    "smallest_batch",
    "started",
    "train",
    "training_mode",
]

WEIGHTS = "weights.safetensors"
_STATE = "state.pt"
_TINY = torch.finfo(torch.float32).tiny
_PROBE_IMAGES = 4000  # more do not make a better linear probe, they only take longer


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Args:
        epochs: passes made.
        best_epoch: the one whose averaged weights were kept, counted from 1.
        validation_score: of these weights, in the task's metric.
        decisions: what `auto` settings became, with the reason.
    """

    epochs: int
    best_epoch: int
    validation_score: float
    decisions: dict[str, str]


@dataclass
class _State:
    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_score: float = -1.0
    best_nll: float = math.inf


def train(
    network: Network,
    examples: Examples,
    validation: Sequence[ImageRecord],
    task: Task,
    settings: TrainSettings,
    loss: LessonLoss,
    folder: Path,
    *,
    stage: str,
    seed: int,
    cache: ImageCache,
    resize: Resize,
    metrics: MetricsLog,
    progress: Progress,
    keep_classifier: bool = False,
    watch: Callable[[int, Predictor], None] | None = None,
    team: Team = ALONE,
    decoded: Cutter | None = None,
) -> Trained:
    """Train until the last epoch or early stopping; leave the best averaged weights in `network` and in `folder`.

    AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), linear warm-up, cosine to zero, the loss, exponential
    moving average of the weights. After each epoch a checkpoint is written; the same call goes on behind it and ends
    with the same bytes as an undisturbed one on the same CPU.

    Several processes make the same call. Each takes its part of each batch, so together they see the batches that one
    process sees, and gradients are averaged as the weights of the images ask. Rank 0 alone looks at what was learnt and
    writes. A checkpoint knows nothing of how many they were: any number may go on behind it.

    Args:
        network: trained in place.
        examples: what to learn from.
        validation: labelled images that choose the epoch.
        task: scores them.
        settings: of the training.
        loss: compares the network's logits with what a lesson asks for.
        folder: for checkpoints, weights and TensorBoard.
        stage: name in metrics and progress.
        seed: of everything random.
        cache: gives the images.
        resize: shape of the fixed view.
        metrics: receives one line an epoch.
        progress: told of each batch.
        keep_classifier: start from the classifier as it is, since the network was trained before.
        watch: called after each epoch with its number, from 1, and the averaged weights.
        team: the processes that train together.
        decoded: gives the views of lessons; `cache` if left out.
    """
    plan, first = decide(settings, network), team.rank == 0
    reasons = dict(plan.reasons)
    fabric = team.fabric("bf16-mixed" if plan.bfloat16 else "32-true")
    network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if team.count > 1:
        synced = fabric.device.type == "cuda" and not plan.frozen
        if synced:  # gloo has none
            convert_sync_batchnorm(network)
        norm = "frozen" if plan.frozen else "over the whole batch" if synced else "by each one's part of the batch"
        reasons["devices"] = f"{team.count} (batch norm {norm})"
    folder.mkdir(parents=True, exist_ok=True)
    state = _State()
    torch.manual_seed(seed)
    if first and not started(folder) and not keep_classifier:
        begin(network, plan, examples, validation, cache=cache, resize=resize)
    optimizer = torch.optim.AdamW(parameter_groups(network, settings.weight_decay), lr=plan.lr, fused=True)
    ema = ModelEmaV3(network, decay=settings.ema_decay, use_warmup=True)  # that of rank 0 counts
    if started(folder):
        state = _restore(folder, network, ema, optimizer)
    team.agree(None)  # a probe takes its time, and DDP gives up after some
    model, optimizer = fabric.setup(network, optimizer)  # with the weights of rank 0
    if first:
        metrics.keep(stage, state.epoch)
    # tensorboardX and not torch.utils.tensorboard: the latter imports all of TensorFlow where that is installed
    board = SummaryWriter(str(folder / "tensorboard"), purge_step=state.epoch + 1, write_to_disk=first)
    lessons = _Lessons(examples, settings.batch_size, range(state.epoch, settings.epochs), team)
    loader = Loader(settings.workers, most=max(1, (os.cpu_count() or 1) // team.local))
    waited = spent = 0.0
    with team.threads(), closing(loader.load(decoded or cache, lessons.shown(), network.image_size)) as images:
        for epoch in range(state.epoch, settings.epochs):
            if epoch - state.best_epoch >= settings.patience:
                break
            torch.manual_seed(seed * 100_003 + epoch + (team.rank << 52))
            parts = lessons.parts(epoch)
            count, shown = len(parts), sum(map(len, parts))
            total_steps, warmup = count * settings.epochs, max(1.0, settings.warmup_epochs * count)
            training_mode(network, frozen=plan.frozen)
            losses: list[torch.Tensor] = []
            start, waited_before = time.monotonic(), loader.waited_s
            with progress.task(f"{stage} {epoch + 1}/{settings.epochs}", shown) as bar:
                for number, (part, pixels) in enumerate(zip(parts, images, strict=False)):
                    step = epoch * count + number
                    rate = plan.lr * _schedule(step, warmup, total_steps)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    batch = Batch.of(lessons.next(), pixels, fabric.device)
                    if settings.mixup > 0:  # partners are in this process's part
                        drawn_from = (seed, epoch, number, team.rank) if team.rank else (seed, epoch, number)
                        batch = batch.mixed(*mix(len(pixels), settings.mixup, drawn_from))
                    value = loss(model(batch.images), Targets(*batch[1:]))
                    if team.count > 1:  # a mean over this part, which counts by its share of the weight
                        weight = batch.weight.sum()
                        total = fabric.all_reduce(weight.clone(), reduce_op="mean")  # it writes into its argument
                        value = value * weight / total.clamp_min(_TINY)
                    fabric.backward(value)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    ema.update(network, step=step)
                    losses.append(value.detach())
                    # that of the step before: asking for this one's, a GPU would have nothing to do meanwhile
                    bar.advance(len(part), f"loss {float(losses[-2:][0]):.3f}")
            mean_loss = float(fabric.all_reduce(torch.stack(losses).double().mean(), reduce_op="mean"))
            seconds, waiting = time.monotonic() - start, loader.waited_s - waited_before
            spent, waited = spent + seconds, waited + waiting
            if not math.isfinite(mean_loss):
                raise UserError(
                    f"{stage}: the loss is no number any more in epoch {epoch + 1}: lower the learning rate"
                    f" ({plan.lr:g})"
                )
            if first:
                averaged = TorchPredictor(ema.module, str(fabric.device))
                score, _ = evaluate(averaged, task, validation, cache, resize)
                if watch is not None:
                    watch(epoch + 1, averaged)
                reached = task.main(score).value
                state.epoch = epoch + 1
                better = (reached, -score.nll) > (state.best_score, -state.best_nll)
                if better:
                    state.best_epoch, state.best_score, state.best_nll = epoch + 1, reached, score.nll
                values = {
                    "loss": mean_loss,
                    "lr": rate,
                    "validation_score": reached,
                    "validation_nll": score.nll,
                    "images_per_s": shown / seconds,
                    "data_wait": waiting / seconds,
                }
                metrics.add(stage, epoch + 1, values)
                for key, measured in values.items():
                    board.add_scalar(key, measured, epoch + 1)
                _save(folder, network, ema, optimizer, state, better=better)
            state = team.agree(state)
    network.to("cpu").eval()
    if first:
        load_weights(network.backbone, _best(folder, state))
        save_weights(network.backbone, folder / WEIGHTS)
    board.close()
    if spent > 0:
        reasons["workers"] = f"{loader.workers} (training waited {waited / spent:.1%} of its time for images)"
    return Trained(state.epoch, state.best_epoch, state.best_score, reasons)


def started(folder: Path) -> bool:
    """Whether a training in this folder goes on behind a checkpoint."""
    return (folder / _STATE).exists()


def begin(
    network: Network,
    plan: Plan,
    examples: Examples,
    validation: Sequence[ImageRecord],
    *,
    cache: ImageCache,
    resize: Resize,
) -> None:
    """Set the last layer to what training begins with: a linear probe, zero, or, of segmenters, what it was built with.

    timm's initial classifier answers a MobileNetV4 of 10 classes with a loss of 6.4 instead of -log(1/10) = 2.3, and
    the first epochs go into undoing that. Heads of segmenters do without: started at zero, one of three classes was
    still never answered after 120 steps, and learnt within 20 otherwise.
    """
    if plan.probe:
        fit_probe(network, examples.fixed(_PROBE_IMAGES), validation, cache=cache, resize=resize)
    elif not network.answers_maps:
        for parameter in network.classifier().parameters():
            nn.init.zeros_(parameter)


class _Lessons:
    """Hands batches to the threads that render them, and their targets to the loop, in the same order.

    A thread of its own makes each lesson while the one before is shown: those of pixels decode and cut masks. One epoch
    follows the other, so that the next one's first batches are ready when the validation images are scored.
    """

    def __init__(self, examples: Examples, batch_size: int, epochs: range, team: Team) -> None:
        self._examples, self._batch_size, self._epochs, self._team = examples, batch_size, epochs, team
        self._parts: dict[int, list[Places]] = {}
        self._waiting: deque[Lesson] = deque()

    def parts(self, epoch: int) -> list[Places]:
        """The batches of an epoch, of all processes together; those of earlier epochs are forgotten."""
        found = self._parts[epoch] if epoch in self._parts else self._divided(epoch)
        self._parts = {number: parts for number, parts in self._parts.items() if number >= epoch}
        return found

    def shown(self) -> Iterator[Sequence[tuple[ImageRecord, Sequence[View]]]]:
        with ThreadPoolExecutor(1, thread_name_prefix="lessons") as maker:
            making: deque[Future[Lesson]] = deque()
            for part in self._mine():
                making.append(maker.submit(self._examples.lesson, part))
                if len(making) > 1:
                    yield self._made(making.popleft())
            while making:
                yield self._made(making.popleft())

    def next(self) -> Lesson:
        return self._waiting.popleft()

    def _divided(self, epoch: int) -> list[Places]:
        parts = self._parts[epoch] = batches_of(self._examples, epoch, self._batch_size)
        return parts

    def _mine(self) -> Iterator[Places]:
        for epoch in self._epochs:
            for part in self._parts[epoch] if epoch in self._parts else self._divided(epoch):
                yield part[self._team.rank :: self._team.count]

    def _made(self, lesson: Future[Lesson]) -> Sequence[tuple[ImageRecord, Sequence[View]]]:
        self._waiting.append(lesson.result())
        return self._waiting[-1].shown


def batches_of(examples: Examples, epoch: int, size: int) -> list[Places]:
    """An epoch in batches of at most `size` images, as equal as can be."""
    places = examples.epoch(epoch)
    return np.array_split(places, math.ceil(len(places) / size))


def smallest_batch(examples: Examples, size: int) -> int:
    """Images in the smallest batch of an epoch."""
    return min(map(len, batches_of(examples, 0, size)))


class Batch(NamedTuple):
    """A lesson on the device; images uint8 [N, H, W, 3]."""

    images: torch.Tensor
    teacher: torch.Tensor
    truth: torch.Tensor
    truth_share: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, lesson: Lesson, pixels: Images, device: torch.device) -> Batch:
        tensors = [torch.from_numpy(values) for values in (pixels, *lesson[1:])]
        if device.type == "cuda":  # from pinned memory a copy goes on beside the step before
            tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
        return cls(*tensors)

    def mixed(self, partners: npt.NDArray[np.int64], share: FloatArray) -> Batch:
        """Each image laid over its partner; what is to be answered is mixed likewise from both answers."""
        other, own = torch.from_numpy(partners).to(self.images.device), torch.from_numpy(share).to(self.images.device)

        def laid_over(values: torch.Tensor) -> torch.Tensor:
            share = own.view(-1, *[1] * (values.ndim - 1))
            return values * share + values[other] * (1 - share)

        images = laid_over(self.images).round().to(torch.uint8)
        answers = laid_over(torch.lerp(self.teacher, self.truth, self.truth_share[..., None]))
        return self._replace(
            images=images, teacher=answers, truth=answers, truth_share=torch.zeros_like(self.truth_share)
        )


class Plan(NamedTuple):
    """What `auto` became, with reasons to print."""

    lr: float
    frozen: bool
    probe: bool
    bfloat16: bool
    reasons: dict[str, str]


def decide(settings: TrainSettings, network: Network) -> Plan:
    """Turn each `auto` of the settings into a choice for this network on this machine."""
    pretrained = network.pretrained
    part = pretrained and network.trained_part() is not network.backbone
    start = f"starts from {'pretrained' if pretrained else 'random'} weights{' but for its head' if part else ''}"
    lr = settings.lr if settings.lr != "auto" else 1e-3 if part else 3e-4 if pretrained else 2e-3
    frozen = pretrained if settings.batch_norm == "auto" else settings.batch_norm == "frozen"
    cuda = torch.cuda.is_available()
    bfloat16 = cuda if settings.precision == "auto" else settings.precision == "bfloat16"
    probe = not network.answers_maps and (pretrained if settings.probe == "auto" else settings.probe)
    probed = "answers by pixel" if network.answers_maps else start if settings.probe == "auto" else "set"
    return Plan(
        lr,
        frozen,
        probe,
        bfloat16,
        {
            "lr": f"{lr:g} ({start if settings.lr == 'auto' else 'set'})",
            "batch_norm": f"{'frozen' if frozen else 'train'} ({start if settings.batch_norm == 'auto' else 'set'})",
            "precision": f"{'bfloat16' if bfloat16 else 'float32'} ({'GPU' if cuda else 'CPU'})",
            "probe": f"{'yes' if probe else 'no'} ({probed})",
        },
    )


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What the optimizer is given. Biases and norm parameters (one dimension) are not decayed."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _schedule(step: int, warmup: float, total: int) -> float:
    """Factor of the learning rate: linear up, cosine down."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def training_mode(network: Network, *, frozen: bool) -> None:
    """Training mode; statistics of a head that starts from random weights are never frozen: there are none."""
    network.train()
    if frozen:
        for module in (network.trained_part() if network.pretrained else network).modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _save(
    folder: Path, network: Network, ema: ModelEmaV3, optimizer: torch.optim.Optimizer, state: _State, *, better: bool
) -> None:
    """Write tensors first and the file that names them last, so that a kill leaves the former checkpoint whole."""
    if better:
        save_weights(ema.module.backbone, _best(folder, state))
    tensors = {f"network.{k}": v for k, v in network.backbone.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.module.backbone.state_dict().items()}
    save_state(tensors, _last(folder, state.epoch))
    buffer = io.BytesIO()  # torch.save to a file hides the reason of a full disk
    torch.save({"optimizer": optimizer.state_dict(), **asdict(state)}, buffer)
    with replacing(folder / _STATE) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    _tidy(folder, state)


def _tidy(folder: Path, state: _State) -> None:
    """Remove what a checkpoint does not name: former ones, and what a kill in the middle of a later one left."""
    kept = {_best(folder, state), _last(folder, state.epoch)}
    for old in [*folder.glob("best-*.safetensors"), *folder.glob("last-*.safetensors")]:
        if old not in kept:
            old.unlink()


def _restore(folder: Path, network: Network, ema: ModelEmaV3, optimizer: torch.optim.Optimizer) -> _State:
    found = _read_progress(folder / _STATE)
    optimizer.load_state_dict(found.pop("optimizer"))
    state = _State(**found)
    for path in {_last(folder, state.epoch), _best(folder, state)}:  # the best is read last, after the whole training
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: {_again(folder)}")
    tensors = read_state(_last(folder, state.epoch))
    for prefix, module in (("network.", network.backbone), ("ema.", ema.module.backbone)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    _tidy(folder, state)
    return state


def _read_progress(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote: a zip with a checksum for each member, which torch itself does not compare.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return found
    except Exception as error:  # on damaged bytes both raise nearly anything
        damaged = str(error).split("\n", 1)[0]
    raise CheckpointError(f"{path} is damaged ({damaged}): {_again(path.parent)}")


def _again(folder: Path) -> str:
    return f"delete the folder {folder} and run the same command again"


def _best(folder: Path, state: _State) -> Path:
    return folder / f"best-{state.best_epoch:04d}.safetensors"


def _last(folder: Path, epoch: int) -> Path:
    return folder / f"last-{epoch:04d}.safetensors"
