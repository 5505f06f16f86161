"""A flipped byte, a cut end or a vanished file of a run is a sentence, never another result."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.checkpoint import load_weights, read_state, save_state, save_weights
from distill.core.errors import DistillError
from distill.data.candidate import Candidate
from distill.data.manifest import Entry, Manifest
from distill.data.mask_file import read_mask, save_mask
from distill.data.views import ViewPlan
from distill.labels.shards import shard_path
from distill.labels.store import LabelStore, Shard, finish, write_shard
from distill.tasks._label_answers import LabelAnswers
from distill.tasks._mask_answers import MaskAnswers, look

RNG = np.random.default_rng(5)
IDS = sorted(RNG.bytes(32).hex() for _ in range(6))
CLASSES = ("cat", "dog", "pony")


def manifest(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "manifest.parquet"
    found = [
        Candidate(f"/photos/{name}.png", "labeled", CLASSES[int(name[0], 16) % 3], False, None, 9, 7) for name in IDS
    ]
    Manifest([Entry(c, i, 8, 6, "train", "") for c, i in zip(found, IDS, strict=True)], CLASSES).save(path)

    def read() -> object:
        loaded = Manifest.load(path)
        return loaded.entries, loaded.classes, loaded.masks

    return path, read


def label_answers(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "test.parquet"
    LabelAnswers(tuple(IDS), RNG.normal(size=(6, 3)).astype(np.float32), np.arange(6) % 3).save(path)

    def read() -> object:
        loaded = LabelAnswers.load(path)
        return loaded.ids, loaded.logits.tobytes(), loaded.truth.tobytes()

    return path, read


def mask_answers(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "test.parquet"
    truth = RNG.integers(0, 3, (12, 16)).astype(np.uint8)
    looks = [look(RNG.normal(size=(6, 8, 3)).astype(np.float32), truth) for _ in IDS]
    MaskAnswers.of(IDS, looks).save(path)

    def read() -> object:
        loaded = MaskAnswers.load(path, 3)
        arrays = (loaded.counts, loaded.boundary, loaded.nll, loaded.confidence)
        return loaded.ids, *(values.tobytes() for values in arrays), loaded.masks

    return path, read


def label_shard(folder: Path) -> tuple[Path, Callable[[], object]]:
    plan = ViewPlan("center_crop", 0.4, True, 0.2, 0)
    views = [plan.stored(image, index, 40, 30) for image in IDS for index in range(4)]
    answers = RNG.dirichlet(np.ones(3), size=24).astype(np.float32)
    write_shard(shard_path(folder, 0), Shard.of(IDS, views, answers, 2), 3, "fingerprint")
    finish(folder, {"classes": 3, "views": 4, "top_k": 2, "images": 6, "shards": 1, "fingerprint": "fingerprint"})

    def read() -> object:
        store = LabelStore(folder)
        store.check()
        places, indices = np.repeat(np.arange(6), 4), np.tile(np.arange(4), 6)
        return [np.asarray(values).tobytes() for values in store.read(places, indices)], store.image(3)

    return shard_path(folder, 0), read


def mask(folder: Path) -> tuple[Path, Callable[[], object]]:
    key = save_mask(RNG.integers(0, 3, (24, 32)).astype(np.uint8), folder)
    path = folder / f"{key}.png"
    return path, lambda: read_mask(path).tobytes()


def weights(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "weights.safetensors"
    save_weights(network(), path)

    def read() -> object:
        loaded = network()
        load_weights(loaded, path)
        return {name: tensor.numpy().tobytes() for name, tensor in loaded.state_dict().items()}

    return path, read


def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


KINDS = [manifest, label_answers, mask_answers, label_shard, mask, weights]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_is_a_sentence_or_changes_nothing(
    tmp_path: Path, kind: Callable[[Path], tuple[Path, Callable[[], object]]]
) -> None:
    """Bits that say nothing (padding, statistics) may flip; nothing that is read may become another."""
    path, read = kind(tmp_path)
    whole, said = path.read_bytes(), read()
    noticed = 0
    for place in range(0, len(whole), max(1, len(whole) // 80)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            assert read() == said, f"byte {place} of {len(whole)}"
        except DistillError as error:
            assert path.name in str(error) or str(path.parent) in str(error)
            noticed += 1
    assert noticed > 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_or_empty_or_vanished_file_is_a_sentence(
    tmp_path: Path, kind: Callable[[Path], tuple[Path, Callable[[], object]]]
) -> None:
    path, read = kind(tmp_path)
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        if path.suffix == ".png" and length == len(whole) - 1:
            continue  # the last byte of a PNG says nothing
        with pytest.raises(DistillError, match=r"damaged|not an image|neither a safetensors|no mask"):
            read()
    path.unlink()
    with pytest.raises(DistillError, match=r"missing|cannot be read|no mask can be read"):
        read()


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_says_so_and_leaves_nothing(
    tmp_path: Path, kind: Callable[[Path], tuple[Path, Callable[[], object]]]
) -> None:
    """No file may grow beyond 64 bytes; `run_command` makes one sentence of an OSError of this number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OSError, match=r"File too large|Error writing") as caught:
            kind(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG, caught.value
    assert not list(tmp_path.iterdir())


def test_weights_of_others_need_no_checksum(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
    assert read_state(tmp_path / "theirs.safetensors")["a"].tolist() == [1.0, 1.0]


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.tensor(True), "c": torch.zeros(0, 2, dtype=torch.bfloat16)}
    save_state(tensors, tmp_path / "one.safetensors")
    save_state(dict(reversed(tensors.items())), tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert read_state(tmp_path / "one.safetensors")["b"].tolist() == [0, 1, 2]


def test_masks_that_no_digest_names_are_read_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "theirs.png")
    assert read_mask(tmp_path / "theirs.png").sum() == 16
