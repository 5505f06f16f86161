"""What the network is fed: the very tensor against the pixels, pixels against the file, colours that stay in range."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from distill.core.types import FloatArray, ImageRecord, Images
from distill.data.batches import iterate
from distill.data.opener import opened
from distill.data.views import View, fixed_view, render
from distill.sanity.check import Seen
from distill.sanity.subject import Subject

__all__ = ["check_colors", "check_file", "check_tensor"]

_LARGEST = 6.0  # white is 2.6 with ImageNet's mean and standard deviation, 1 with 127.5; bytes that stay bytes are 255
_BLOCKS = 8  # a side: means of blocks are the same whichever filter scaled the picture
_LEVELS = 6.0  # of 255; photos of 128 px differ by 0.2 to 0.4 between Pillow's two filters, another photo by 20
_SMALLEST = 2 * _BLOCKS  # pixels; enlarged, smaller pictures depend on the filter
_CHANGE = 40  # percent
_ROUNDED = 2  # levels


def check_tensor(subject: Subject) -> Seen:
    """The tensor that enters the first layer is the picture, channel by channel, as the normalisation declares."""
    pixels = subject.pixels
    tensor, (mean, std) = _fed(subject, pixels), _declared(subject)
    black, white = (-mean / std).min(), ((255 - mean) / std).max()
    expected = (
        f"[N, 3, S, S], channel c of pixel (y, x) is (byte - {_three(mean)}) / {_three(std)}, so black is at least"
        f" {black:.2f} and white at most {white:.2f}, both within ±{_LARGEST:g}"
    )
    wanted = (pixels.transpose(0, 3, 1, 2) - mean[:, None, None]) / std[:, None, None]
    if tensor.shape != wanted.shape:
        return Seen(False, expected, f"a tensor of {list(tensor.shape)} for images of {list(pixels.shape)}")
    off = float(np.abs(tensor - wanted).max())
    decoded = (tensor * std[:, None, None] + mean[:, None, None]).transpose(0, 2, 3, 1)
    figures = {
        "largest_difference": off,
        "channel_mean": tensor.mean(axis=(0, 2, 3)).tolist(),
        "channel_std": tensor.std(axis=(0, 2, 3)).tolist(),
        "expected_channel_mean": wanted.mean(axis=(0, 2, 3)).tolist(),
        "expected_channel_std": wanted.std(axis=(0, 2, 3)).tolist(),
        "black": black,
        "white": white,
    }
    saw = (
        f"differs by up to {off:.2g}; mean {_three(tensor.mean(axis=(0, 2, 3)))} (of the pixels"
        f" {_three(wanted.mean(axis=(0, 2, 3)))}), values {tensor.min():.2f} to {tensor.max():.2f}"
    )
    holds = off < 1e-3 and max(-black, white) <= _LARGEST and white - black > 0.5
    shown = np.clip(np.rint(decoded), 0, 255).astype(np.uint8)
    return Seen(holds, expected, saw, figures, {"fed": np.concatenate(list(shown), axis=1)})


def check_file(subject: Subject) -> Seen:
    """What is fed shows what the file shows, by another reader: RGB in this order, upright, the right part."""
    expected = f"means of {_BLOCKS}x{_BLOCKS} blocks of the fed picture within {_LEVELS:g} levels of the file's, in RGB"
    read = [(record, _read_otherwise(record, subject)) for record, _ in subject.lesson.shown]
    pairs = [(record, theirs) for record, theirs in read if theirs is not None]
    if not pairs:
        return Seen(
            None,
            expected,
            "no image is plain RGB or grey and at least 16 pixels wide, which another reader reads alike",
        )
    views = [(record, (fixed_view(record.width, record.height, subject.resize),)) for record, _ in pairs]
    (pixels,) = iterate(subject.cache, [views], subject.image_size, workers=1)
    found = []
    for picture, (_, theirs) in zip(_decoded(subject, pixels), pairs, strict=True):
        mine = _blocks(Image.fromarray(picture))
        found.append([_apart(mine, theirs), _apart(mine[..., ::-1], theirs), _apart(mine[:, ::-1], theirs)])
    as_is, bgr, mirrored = np.array(found).mean(axis=0)
    worst = float(np.array(found)[:, 0].max())
    saw = f"{as_is:.1f} levels apart over {len(found)} images, at most {worst:.1f}"
    if as_is > _LEVELS and min(bgr, mirrored) < as_is / 2:
        saw += f"; {'with red and blue swapped' if bgr < mirrored else 'mirrored'} {min(bgr, mirrored):.1f}"
    figures = {"levels_apart": as_is, "levels_apart_bgr": bgr, "levels_apart_mirrored": mirrored, "worst": worst}
    return Seen(bool(as_is <= _LEVELS), expected, saw, figures)


def check_colors(subject: Subject) -> Seen:
    """Brighter is nowhere darker: values that pass 255 stay there and do not come round to 0."""
    expected = f"no value falls where brightness rises by {_CHANGE} %, none rises where it falls, likewise of contrast"
    wrong = total = 0
    for record in [record for record, _ in subject.lesson.shown]:
        image, view = subject.cache.get(record), fixed_view(record.width, record.height, subject.resize)
        plain = _rendered(image, view, subject.image_size)
        brighter = _rendered(image, view._replace(brightness=_CHANGE), subject.image_size)
        darker = _rendered(image, view._replace(brightness=-_CHANGE), subject.image_size)
        harder = _rendered(image, view._replace(contrast=_CHANGE), subject.image_size)
        mean = float(np.asarray(Image.fromarray(plain.astype(np.uint8)).convert("L")).mean())
        light, dark = plain > mean + _ROUNDED, plain < mean - _ROUNDED
        falls = (brighter < plain - _ROUNDED) | (darker > plain + _ROUNDED)
        falls |= (light & (harder < plain - _ROUNDED)) | (dark & (harder > plain + _ROUNDED))
        wrong, total = wrong + int(falls.sum()), total + falls.size
    return Seen(wrong == 0, expected, f"{wrong} of {total} values went the wrong way", {"wrong": wrong, "of": total})


def _fed(subject: Subject, pixels: Images) -> npt.NDArray[np.float64]:
    """What the first layer is given for these pixels, float64 of the tensor's own shape."""
    caught: list[torch.Tensor] = []
    network = subject.network(answering=False).eval()
    hook = network.backbone.register_forward_pre_hook(lambda _, given: caught.append(given[0].detach()))
    try:
        with torch.no_grad():
            network(torch.from_numpy(pixels).to(subject.device))
    finally:
        hook.remove()
    tensor: npt.NDArray[np.float64] = caught[0].double().cpu().numpy()
    return tensor


def _declared(subject: Subject) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of bytes by channel, as the network has them."""
    student = subject.student
    mean, std = (np.broadcast_to(part.double().cpu().numpy(), 3) for part in (student.mean, student.std))
    return mean, std


def _decoded(subject: Subject, pixels: Images) -> Images:
    """Pictures from the very tensor, uint8 [N, S, S, 3]."""
    tensor, (mean, std) = _fed(subject, pixels), _declared(subject)
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        return pixels  # the check of the tensor says so
    decoded: Images = np.clip(np.rint(tensor.transpose(0, 2, 3, 1) * std + mean), 0, 255).astype(np.uint8)
    return decoded


def _read_otherwise(record: ImageRecord, subject: Subject) -> FloatArray | None:
    """Block means of the fixed view, by Pillow alone; None of images that readers or filters may take differently."""
    view = fixed_view(record.width, record.height, subject.resize)
    if min(view.width, view.height) < _SMALLEST:
        return None
    with opened(record.path) as stream, Image.open(stream) as image:
        if image.mode not in {"RGB", "L"} or "transparency" in image.info:
            return None
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return _blocks(upright.crop((view.left, view.top, view.left + view.width, view.top + view.height)))


def _blocks(image: Image.Image) -> FloatArray:
    """Means of blocks, float32 [8, 8, 3]."""
    means: FloatArray = np.asarray(image.resize((_BLOCKS, _BLOCKS), Image.Resampling.BOX), dtype=np.float32)
    return means


def _apart(one: FloatArray, other: FloatArray) -> float:
    return float(np.abs(one - other).mean())


def _rendered(image: Image.Image, view: View, size: int) -> npt.NDArray[np.int64]:
    return render(image, view, size).astype(np.int64)


def _three(values: npt.NDArray[np.float64]) -> str:
    """One number where all channels have the same."""
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else f"({', '.join(shown)})"
