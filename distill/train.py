"""The training loop: one for the fitted teacher, the student and the control."""

from __future__ import annotations

import io
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from lightning.fabric import Fabric
from tensorboardX import SummaryWriter
from timm.utils import ModelEmaV3
from torch import nn

from distill.checkpoint import load_weights, read_state, save_state, save_weights
from distill.core.errors import UserError
from distill.core.files import replacing
from distill.core.metrics_log import MetricsLog
from distill.core.progress import Progress
from distill.core.settings import TrainSettings
from distill.core.types import FloatArray, ImageRecord
from distill.data.batches import ImageCache, iterate
from distill.data.views import Resize, View, fixed_view, random_view
from distill.evaluate import answer
from distill.labels.store import LabelStore
from distill.losses import soft_cross_entropy
from distill.probe import fit_probe
from distill.tasks.classification import Classification
from distill.torch_predictor import Network, TorchPredictor

logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it announces each precision on stderr

__all__ = ["Drawn", "Examples", "PseudoLabelled", "Trained", "Truth", "train"]

WEIGHTS = "weights.safetensors"
_STATE = "state.pt"
_PROBE_IMAGES = 4000  # more do not make a better linear probe, they only take longer


class Drawn(NamedTuple):
    """What one place of a batch shows and should answer.

    Args:
        record: the image.
        view: what of it.
        target: float32 [C], sums to one.
    """

    record: ImageRecord
    view: View
    target: FloatArray


class Examples(ABC):
    """What an epoch shows, as a function of its number alone: a resumed run sees what an undisturbed one sees."""

    @abstractmethod
    def draw(self, epoch: int) -> list[Drawn]:
        """The epoch's examples in the order of training."""

    @abstractmethod
    def fixed(self, limit: int) -> list[Drawn]:
        """The fixed view of at most `limit` images, for the linear probe."""


@final
class Truth(Examples):
    """Labelled images under fresh random views: the fitted teacher and the control learn from these.

    Args:
        records: labelled images.
        task: knows the classes.
        epoch_size: images an epoch; more than there are images repeats them under other views, so that the control
            takes as many steps as the student.
        resize: shape of views.
        min_area: smallest share of a random crop.
        mirror: whether views are mirrored.
        label_smoothing: share of the target that is spread evenly (Szegedy et al. 2016, arXiv 1512.00567).
        seed: of order and views.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        task: Classification,
        *,
        epoch_size: int,
        resize: Resize,
        min_area: float,
        mirror: bool,
        label_smoothing: float,
        seed: int,
    ) -> None:
        self._records, self._epoch_size = records, epoch_size
        self._resize, self._min_area, self._mirror, self._seed = resize, min_area, mirror, seed
        self._targets = _smooth(len(task.class_names), label_smoothing)[task.truth([r.label for r in records])]

    def draw(self, epoch: int) -> list[Drawn]:
        passes = math.ceil(self._epoch_size / len(self._records))
        drawn: list[Drawn] = []
        for number in range(passes):
            for place in _order(len(self._records), self._seed, epoch, number):
                record = self._records[place]
                size = (record.width, record.height)
                index = 2 + epoch * passes + number
                view = random_view(
                    record.id,
                    index,
                    *size,
                    self._resize,
                    seed=self._seed,
                    min_area=self._min_area,
                    mirror=self._mirror,
                )
                drawn.append(Drawn(record, view, self._targets[place]))
        return drawn[: self._epoch_size]

    def fixed(self, limit: int) -> list[Drawn]:
        return [
            Drawn(r, fixed_view(r.width, r.height, self._resize), t)
            for r, t in zip(self._records[:limit], self._targets[:limit], strict=True)
        ]


@final
class PseudoLabelled(Examples):
    """Images under exactly the views that the teacher answered, each once an epoch, one stored view after another.

    Args:
        records: images of the store.
        store: the teacher's answers.
        task: knows the classes.
        truth_weight: share of the truth in the target of an image that has one.
        label_smoothing: share of that truth that is spread evenly.
        seed: of the order.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        store: LabelStore,
        task: Classification,
        *,
        truth_weight: float,
        label_smoothing: float,
        seed: int,
    ) -> None:
        self._records, self._store, self._task = records, store, task
        self._truth_weight, self._seed = truth_weight, seed
        self._truth = _smooth(len(task.class_names), label_smoothing)

    def draw(self, epoch: int) -> list[Drawn]:
        return [self._one(self._records[place], epoch) for place in _order(len(self._records), self._seed, epoch, 0)]

    def fixed(self, limit: int) -> list[Drawn]:
        return [self._of(record, 0) for record in self._records[:limit]]

    def _one(self, record: ImageRecord, epoch: int) -> Drawn:
        return self._of(record, (epoch + int(record.id[:4], 16)) % self._store.views)

    def _of(self, record: ImageRecord, index: int) -> Drawn:
        target = self._store.target(record.id, index)
        if record.label is not None:
            truth = self._truth[self._task.truth([record.label])[0]]
            target = self._truth_weight * truth + (1 - self._truth_weight) * target
        return Drawn(record, self._store.view(record.id, index), target)


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Args:
        epochs: passes made.
        best_epoch: the one whose averaged weights were kept, counted from 1.
        validation_accuracy: of these weights.
        decisions: what `auto` settings became, with the reason.
    """

    epochs: int
    best_epoch: int
    validation_accuracy: float
    decisions: dict[str, str]


@dataclass
class _State:
    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_nll: float = math.inf


def train(
    network: Network,
    examples: Examples,
    validation: Sequence[ImageRecord],
    task: Classification,
    settings: TrainSettings,
    folder: Path,
    *,
    stage: str,
    seed: int,
    cache: ImageCache,
    resize: Resize,
    metrics: MetricsLog,
    progress: Progress,
) -> Trained:
    """Train until the last epoch or early stopping; leave the best averaged weights in `network` and in `folder`.

    AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), linear warm-up, cosine to zero, soft cross-entropy, exponential
    moving average of the weights. After each epoch a checkpoint is written; the same call goes on behind it and ends
    with the same bytes as an undisturbed one on the same CPU.

    Args:
        network: trained in place.
        examples: what to learn from.
        validation: labelled images that choose the epoch.
        task: scores them.
        settings: of the training.
        folder: for checkpoints, weights and TensorBoard.
        stage: name in metrics and progress.
        seed: of everything random.
        cache: gives the images.
        resize: shape of the fixed view.
        metrics: receives one line an epoch.
        progress: told of each batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = _decide(settings, network)
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision="bf16-mixed" if plan.bfloat16 else "32-true",
    )
    network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = _State()
    torch.manual_seed(seed)
    if not (folder / _STATE).exists():
        if plan.probe:
            shown = [(d.record, d.view, d.target) for d in examples.fixed(_PROBE_IMAGES)]
            fit_probe(network, shown, validation, task, cache=cache, resize=resize)
        else:
            # timm's initial classifier answers a MobileNetV4 of 10 classes with a loss of 6.4 instead of -log(1/10) =
            # 2.3, and the first epochs go into undoing that.
            nn.init.zeros_(network.classifier().weight)
            nn.init.zeros_(network.classifier().bias)
    optimizer = torch.optim.AdamW(_groups(network, settings.weight_decay), lr=plan.lr, fused=True)
    ema = ModelEmaV3(network, decay=settings.ema_decay, use_warmup=True)
    if (folder / _STATE).exists():
        state = _restore(folder, network, ema, optimizer)
    metrics.keep(stage, state.epoch)
    # tensorboardX and not torch.utils.tensorboard: the latter imports all of TensorFlow where that is installed
    board = SummaryWriter(str(folder / "tensorboard"), purge_step=state.epoch + 1)
    model, optimizer = fabric.setup(network, optimizer)
    for epoch in range(state.epoch, settings.epochs):
        if epoch - state.best_epoch >= settings.patience:
            break
        torch.manual_seed(seed * 100_003 + epoch)
        drawn = examples.draw(epoch)
        count = math.ceil(len(drawn) / settings.batch_size)
        batches = [[drawn[i] for i in part] for part in np.array_split(np.arange(len(drawn)), count)]
        total_steps, warmup = count * settings.epochs, max(1.0, settings.warmup_epochs * count)
        _training_mode(network, frozen=plan.frozen)
        losses: list[torch.Tensor] = []
        start = time.monotonic()
        images = iterate(
            cache, [[(d.record, (d.view,)) for d in batch] for batch in batches], network.image_size, settings.workers
        )
        with progress.task(f"{stage} {epoch + 1}/{settings.epochs}", len(drawn)) as bar:
            for number, (batch, pixels) in enumerate(zip(batches, images, strict=True)):
                step = epoch * count + number
                rate = plan.lr * _schedule(step, warmup, total_steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                targets = torch.from_numpy(np.stack([d.target for d in batch])).to(fabric.device)
                loss = soft_cross_entropy(model(torch.from_numpy(pixels).to(fabric.device)), targets)
                fabric.backward(loss)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                ema.update(network, step=step)
                losses.append(loss.detach())
                bar.advance(len(batch), f"loss {float(losses[-1]):.3f}")
        seconds = time.monotonic() - start
        logits = answer(TorchPredictor(ema.module, str(fabric.device)), validation, cache, resize)
        score = task.score(logits, task.truth([r.label for r in validation]))
        mean_loss = float(torch.stack(losses).double().mean())
        if not math.isfinite(mean_loss):
            raise UserError(
                f"{stage}: the loss is no number any more in epoch {epoch + 1}: lower the learning rate ({plan.lr:g})"
            )
        state.epoch = epoch + 1
        better = (score.accuracy.value, -score.nll) > (state.best_accuracy, -state.best_nll)
        if better:
            state.best_epoch, state.best_accuracy, state.best_nll = epoch + 1, score.accuracy.value, score.nll
        values = {
            "loss": mean_loss,
            "lr": rate,
            "validation_accuracy": score.accuracy.value,
            "validation_nll": score.nll,
            "images_per_s": len(drawn) / seconds,
        }
        metrics.add(stage, epoch + 1, values)
        for key, value in values.items():
            board.add_scalar(key, value, epoch + 1)
        _save(folder, network, ema, optimizer, state, better=better)
    load_weights(network.backbone, _best(folder, state))
    network.to("cpu").eval()
    save_weights(network.backbone, folder / WEIGHTS)
    board.close()
    return Trained(state.epoch, state.best_epoch, state.best_accuracy, plan.reasons)


class _Plan(NamedTuple):
    """What `auto` became, with reasons to print."""

    lr: float
    frozen: bool
    probe: bool
    bfloat16: bool
    reasons: dict[str, str]


def _decide(settings: TrainSettings, network: Network) -> _Plan:
    pretrained = network.pretrained
    start = "starts from pretrained weights" if pretrained else "starts from random weights"
    lr = settings.lr if settings.lr != "auto" else 3e-4 if pretrained else 2e-3
    frozen = pretrained if settings.batch_norm == "auto" else settings.batch_norm == "frozen"
    cuda = torch.cuda.is_available()
    bfloat16 = cuda if settings.precision == "auto" else settings.precision == "bfloat16"
    probe = pretrained if settings.probe == "auto" else settings.probe
    return _Plan(
        lr,
        frozen,
        probe,
        bfloat16,
        {
            "lr": f"{lr:g} ({start if settings.lr == 'auto' else 'set'})",
            "batch_norm": f"{'frozen' if frozen else 'train'} ({start if settings.batch_norm == 'auto' else 'set'})",
            "precision": f"{'bfloat16' if bfloat16 else 'float32'} ({'GPU' if cuda else 'CPU'})",
            "probe": f"{'yes' if probe else 'no'} ({start if settings.probe == 'auto' else 'set'})",
        },
    )


def _smooth(classes: int, amount: float) -> FloatArray:
    """Row c is the target of class c, float32 [C, C]."""
    targets: FloatArray = ((1 - amount) * np.eye(classes) + amount / classes).astype(np.float32)
    return targets


def _order(count: int, seed: int, epoch: int, number: int) -> list[int]:
    return [int(i) for i in np.random.default_rng([seed, epoch, number, 7]).permutation(count)]


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and norm parameters (one dimension) are not decayed."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _schedule(step: int, warmup: float, total: int) -> float:
    """Factor of the learning rate: linear up, cosine down."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def _training_mode(network: nn.Module, *, frozen: bool) -> None:
    network.train()
    if frozen:
        for module in network.modules():
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
    kept = {_best(folder, state), _last(folder, state.epoch)}
    for old in [*folder.glob("best-*.safetensors"), *folder.glob("last-*.safetensors")]:
        if old not in kept:
            old.unlink()


def _restore(folder: Path, network: Network, ema: ModelEmaV3, optimizer: torch.optim.Optimizer) -> _State:
    found = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(found.pop("optimizer"))
    state = _State(**found)
    tensors = read_state(_last(folder, state.epoch))
    for prefix, module in (("network.", network.backbone), ("ema.", ema.module.backbone)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return state


def _best(folder: Path, state: _State) -> Path:
    return folder / f"best-{state.best_epoch:04d}.safetensors"


def _last(folder: Path, epoch: int) -> Path:
    return folder / f"last-{epoch:04d}.safetensors"
