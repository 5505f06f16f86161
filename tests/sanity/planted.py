"""Classic bugs of training, each planted by changing a function; tests and `benchmarks/planted_bugs.py` share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn
from torch.nn import functional

from distill import examples, map_examples, map_losses, stages, train
from distill.core.types import Images
from distill.data import batches, views
from distill.data.manifest import Manifest
from distill.examples import Lesson
from distill.students import smp, timm
from distill.tasks.classification import Classification
from distill.tasks.segmentation import Segmentation
from distill.torch_predictor import Network

__all__ = ["BUGS", "Bug"]

Patch = pytest.MonkeyPatch
CLASSES, PIXELS = "classification", "segmentation"


@dataclass(frozen=True)
class Bug:
    """A bug and the check that is there for it.

    Args:
        name: as people call it.
        task: in whose run it is planted.
        check: that has to fire; others may, too.
        plant: does it.
        stored: in a student that learns from stored answers, or from truth alone.
        train: settings of the training instead.
    """

    name: str
    task: str
    check: str
    plant: Callable[[Patch], None] = lambda patch: None
    stored: bool = True
    train: dict[str, Any] = field(default_factory=dict)


def _forward(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    """The network's answers changed."""
    right = Network.forward
    return lambda patch: patch.setattr(Network, "forward", lambda self, images: change(right(self, images)))


def _normalize(change: Callable[[Network, torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(Network, "normalize", change)


def _built(change: Callable[[Network], None]) -> Callable[[Patch], None]:
    """The student changed as a plugin of the user's might build it."""

    def plant(patch: Patch) -> None:
        for module in (timm, smp):
            right = module.build

            def build(config: Any, names: Sequence[str], right: Callable[..., Network] = right) -> Network:
                network = right(config, names)
                change(network)
                return network

            patch.setattr(module, "build", build)

    return plant


def _lessons(change: Callable[[Lesson], Lesson]) -> Callable[[Patch], None]:
    """Every lesson changed."""

    def plant(patch: Patch) -> None:
        for kind in (examples.Truth, examples.PseudoLabelled, map_examples.TruthMasks, map_examples.PseudoMasks):
            right = kind.lesson
            patch.setattr(kind, "lesson", lambda self, places, right=right: change(right(self, places)))

    return plant


def _losses(change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """The loss changed."""

    def plant(patch: Patch) -> None:
        for kind in (Classification, Segmentation):
            right = kind.loss
            patch.setattr(kind, "loss", lambda self, config, right=right: change(right(self, config)))

    return plant


def _mask_not_flipped(patch: Patch) -> None:
    right = views.render_mask
    patch.setattr(map_examples, "render_mask", lambda mask, view, size: right(mask, view._replace(flip=False), size))


def _mask_not_cropped(patch: Patch) -> None:
    right = views.render_mask

    def whole(mask, view, size):
        return right(mask, view._replace(left=0, top=0, width=mask.shape[1], height=mask.shape[0]), size)

    patch.setattr(map_examples, "render_mask", whole)


def _map_not_flipped(patch: Patch) -> None:
    right = map_examples._cut
    patch.setattr(
        map_examples, "_cut", lambda values, record, view, n: right(values, record, view._replace(flip=False), n)
    )


def _ignored_is_background(patch: Patch) -> None:
    right = map_examples.read_mask
    patch.setattr(map_examples, "read_mask", lambda path: np.where((mask := right(path)) == 255, 0, mask))


def _overflowing(patch: Patch) -> None:
    from PIL import Image

    def recolour(cut, view):
        changed = np.asarray(cut) * (1 + view.brightness / 100) * (1 + view.contrast / 100)
        return Image.fromarray(changed.astype(np.int64).astype(np.uint8))

    patch.setattr(views, "_recolour", recolour)


def _bgr(patch: Patch) -> None:
    from PIL import Image

    right = batches.decode
    patch.setattr(
        batches, "decode", lambda path, limit: Image.fromarray(np.asarray(right(path, limit))[..., ::-1].copy())
    )


def _batch_in_another_order(patch: Patch) -> None:
    right = batches.Loader.load

    def turned(self: batches.Loader, *arguments: Any) -> Iterator[Images]:
        for images in right(self, *arguments):
            yield images[::-1].copy()

    patch.setattr(batches.Loader, "load", turned)


def _labels_shuffled_in_the_data(patch: Patch) -> None:
    right = stages.Work.manifest

    def shuffled(self: stages.Work) -> Manifest:
        manifest = right(self)
        taught = [e.split == "train" and e.candidate.label is not None and not e.hidden for e in manifest.entries]
        labels = [e.candidate.label for e, known in zip(manifest.entries, taught, strict=True) if known]
        drawn = iter(np.random.default_rng(0).permutation(labels).tolist())
        entries = [
            replace(e, candidate=replace(e.candidate, label=next(drawn))) if known else e
            for e, known in zip(manifest.entries, taught, strict=True)
        ]
        return Manifest(entries, manifest.classes, manifest.masks)

    patch.setattr(stages.Work, "manifest", shuffled)


def _shifted(lesson: Lesson) -> Lesson:
    return lesson._replace(truth=np.roll(lesson.truth, 1, axis=-1))


def _shuffled(lesson: Lesson) -> Lesson:
    order = np.roll(np.arange(len(lesson.shown)), 1)
    return lesson._replace(teacher=lesson.teacher[order], truth=lesson.truth[order])


def _last_class_dropped(lesson: Lesson) -> Lesson:
    def without(answers):
        kept = answers[..., :-1] + answers[..., -1:] / (answers.shape[-1] - 1)
        return np.concatenate([kept, np.zeros_like(kept[..., :1])], axis=-1).astype(np.float32)

    return lesson._replace(teacher=without(lesson.teacher), truth=without(lesson.truth))


def _teacher_lacks_last_class(lesson: Lesson) -> Lesson:
    kept = lesson.teacher[..., :-1] + 1e-6
    kept = np.concatenate([kept / kept.sum(axis=-1, keepdims=True), np.zeros_like(kept[..., :1])], axis=-1)
    return lesson._replace(teacher=kept.astype(np.float32))


def _ignored_count(patch: Patch) -> None:
    right = map_losses.mixed_with_truth
    patch.setattr(map_losses, "mixed_with_truth", lambda *given: right(*given[:-1], torch.ones_like(given[-1])))


def _images_count_alike(loss: Any) -> Any:
    return lambda logits, targets: loss(logits, targets._replace(weight=torch.ones_like(targets.weight)))


def _across_images(logits: torch.Tensor) -> torch.Tensor:
    """[N, C] by way of [C, N], with `view` where the axes have to be swapped."""
    return logits.transpose(0, 1).reshape(logits.shape)


def _batch_statistics(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None


def _frozen(*, head: bool) -> Callable[[Network], None]:
    def freeze(network: Network) -> None:
        last = {id(p) for p in network.classifier().parameters()}
        for parameter in network.parameters():
            parameter.requires_grad_((id(parameter) in last) != head)

    return freeze


def _head_not_given(patch: Patch) -> None:
    right = train.parameter_groups

    def without(network: Network, decay: float) -> list[dict[str, Any]]:
        last = {id(p) for p in network.classifier().parameters()}
        groups = right(network, decay)
        return [{**group, "params": [p for p in group["params"] if id(p) not in last]} for group in groups]

    patch.setattr(train, "parameter_groups", without)


def _features(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Patch], None]:
    """What the layers before the last one give changed."""
    right = MobileNetV3.forward_features
    return lambda patch: patch.setattr(MobileNetV3, "forward_features", lambda self, x: change(right(self, x)))


def _loud_head(network: Network) -> None:
    with torch.no_grad():
        network.classifier().weight.mul_(100)


def _bias_of_another_task(network: Network) -> None:
    with torch.no_grad():
        network.classifier().bias.copy_(torch.tensor([0.0, 0.0, 6.0]))


BUGS: tuple[Bug, ...] = (
    Bug("`view` instead of `permute` in the image", CLASSES, "input tensor", _normalize(
        lambda self, images: ((images.float() - self.mean) / self.std).view(len(images), 3, *images.shape[1:3]))),
    Bug("mean and std of 0..1 taken from bytes", CLASSES, "input tensor", _normalize(
        lambda self, images: ((images.float() - self.mean / 255) / (self.std / 255)).permute(0, 3, 1, 2))),
    Bug("ImageNet's mean and std, 127.5 declared", PIXELS, "input tensor", _normalize(
        lambda self, images: ((images.float() - torch.tensor([124.0, 116.0, 104.0])) / 58).permute(0, 3, 1, 2))),
    Bug("normalised twice", CLASSES, "input tensor", _normalize(
        lambda self, images: ((((images.float() - self.mean) / self.std) - self.mean) / self.std).permute(0, 3, 1, 2))),
    Bug("red and blue swapped in the tensor", CLASSES, "input tensor", _normalize(
        lambda self, images: ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2).flip(1))),
    Bug("BGR instead of RGB from the reader", CLASSES, "input file", _bgr),
    Bug("a batch in another order than its records", PIXELS, "input file", _batch_in_another_order),
    Bug("uint8 overflow in a colour change", CLASSES, "colours", _overflowing),
    Bug("mask not flipped with the image", PIXELS, "targets", _mask_not_flipped, stored=False),
    Bug("mask not cropped with the image", PIXELS, "targets", _mask_not_cropped, stored=False),
    Bug("the teacher's map not flipped with the image", PIXELS, "targets", _map_not_flipped),
    Bug("ignored pixels read as background", PIXELS, "targets", _ignored_is_background, stored=False),
    Bug("labels one off", CLASSES, "targets", _lessons(_shifted), stored=False),
    Bug("labels one off, in masks", PIXELS, "targets", _lessons(_shifted), stored=False),
    Bug("images shuffled, labels not", CLASSES, "targets", _lessons(_shuffled), stored=False),
    Bug("images shuffled, stored answers not", CLASSES, "targets", _lessons(_shuffled)),
    Bug("labels shuffled in the data", CLASSES, "truth and teacher", _labels_shuffled_in_the_data),
    Bug("last class dropped in a map of classes", CLASSES, "classes", _lessons(_last_class_dropped), stored=False),
    Bug("last class dropped, in masks", PIXELS, "classes", _lessons(_last_class_dropped), stored=False),
    Bug("the teacher's last class mapped to nothing", CLASSES, "classes", _lessons(_teacher_lacks_last_class)),
    Bug("softmax in the model and in the loss", CLASSES, "logits", _forward(lambda logits: logits.softmax(dim=1))),
    Bug("softmax in the segmenter, too", PIXELS, "logits", _forward(lambda logits: logits.softmax(dim=1))),
    Bug("softmax twice in the loss", CLASSES, "loss", _losses(
        lambda loss: lambda logits, targets: loss(logits.softmax(dim=1), targets))),
    Bug("a loss with the wrong sign", PIXELS, "loss", _losses(
        lambda loss: lambda logits, targets: loss(-logits, targets))),
    Bug("ignored pixels count in the loss", PIXELS, "ignored", _ignored_count),
    Bug("distrusted images count in the loss", CLASSES, "ignored", _losses(_images_count_alike)),
    Bug("batch mixed by `view` across images", CLASSES, "independence", _forward(_across_images)),
    Bug("batch statistics in evaluation mode", CLASSES, "independence", _built(_batch_statistics)),
    Bug("batch statistics in evaluation mode, segmenter", PIXELS, "independence", _built(_batch_statistics)),
    Bug("softmax over the batch", CLASSES, "independence", _forward(lambda logits: logits.log_softmax(dim=0))),
    Bug("frozen head", CLASSES, "gradients", _built(_frozen(head=True))),
    Bug("frozen backbone", CLASSES, "gradients", _built(_frozen(head=False))),
    Bug("frozen backbone, segmenter", PIXELS, "gradients", _built(_frozen(head=False))),
    Bug("head not given to the optimizer", PIXELS, "gradients", _head_not_given),
    Bug("`detach` between features and head", CLASSES, "gradients", _features(torch.Tensor.detach)),
    Bug("a head that starts 100 times too loud", PIXELS, "first loss", _built(_loud_head)),
    Bug("output bias of another task", PIXELS, "output bias", _built(_bias_of_another_task)),
    Bug("dropout that is never switched off", CLASSES, "overfit", _features(
        lambda features: functional.dropout(features, 0.99))),
    Bug("frozen head, segmenter", PIXELS, "capacity", _built(_frozen(head=True))),
    Bug("an input that is always the same", CLASSES, "capacity", _normalize(
        lambda self, images: torch.zeros(len(images), 3, *images.shape[1:3]))),
    Bug("learning rate far too high", CLASSES, "learning rate", train={"lr": 3.0}),
    Bug("learning rate far too low", CLASSES, "learning rate", train={"lr": 1e-6}),
)  # fmt: skip
