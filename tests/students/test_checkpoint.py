"""Weights in and out: what fits is loaded, what does not is listed, and nothing is ever executed."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distill.checkpoint import load_weights, read_state, save_state, save_weights
from distill.core.errors import CheckpointError
from distill.torch_predictor import Network


def small(classes: int = 3, width: int = 4) -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, width, 3))
    model.add_module("norm", nn.BatchNorm2d(width))
    model.add_module("head", nn.Linear(width, classes))
    return model


def seeded(classes: int = 3, width: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = small(classes, width)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn_like(tensor))
    return model


def equal(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[key]) for key, value in first.state_dict().items())


def error(do: Callable[..., object], *arguments: object, **named: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        do(*arguments, **named)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_saved_and_loaded(tmp_path: Path) -> None:
    first, second = seeded(), seeded(seed=1)
    assert not equal(first, second)
    save_weights(first, tmp_path / "a.safetensors")
    load_weights(second, tmp_path / "a.safetensors")
    assert equal(first, second)
    save_weights(second, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    save_state({"a": tensor, "b": tensor, "c": tensor.T}, tmp_path / "a.safetensors")
    found = read_state(tmp_path / "a.safetensors")
    assert torch.equal(found["b"], tensor)
    assert torch.equal(found["c"], tensor.T)


WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "arch": "mobilenetv2"},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "model.": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "compiled and parallel": lambda state: {"model": {f"_orig_mod.module.{key}": v for key, v in state.items()}},
    "model in state_dict": lambda state: {"model": {"state_dict": state}},
    "averaged weights first": lambda state: {
        "state_dict_ema": state,
        "state_dict": {k: v + 1 for k, v in state.items()},
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_usual_wrappers(path: Path, kind: str, zipped: bool) -> None:
    first, second = seeded(), seeded(seed=1)
    torch.save(WRAPPED[kind](first.state_dict()), path, _use_new_zipfile_serialization=zipped)
    load_weights(second, path)
    assert equal(first, second)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    first, second = seeded(), seeded(seed=1)
    save_file(dict(first.state_dict()), tmp_path / "a.bin")
    load_weights(second, tmp_path / "a.bin")
    assert equal(first, second)
    torch.save(seeded(seed=2).state_dict(), tmp_path / "b.safetensors")
    load_weights(second, tmp_path / "b.safetensors")
    assert equal(seeded(seed=2), second)


def test_safetensors_of_every_header_length_are_known(path: Path) -> None:
    starts = set()
    for length in range(1, 300, 8):
        save_file({"n" * length: torch.ones(1)}, path)
        starts.add(path.read_bytes()[0])
        assert list(read_state(path)) == ["n" * length]
    assert 0x80 in starts  # looks like the first byte of a pickle


def test_a_prefix_that_the_model_has_itself_stays(tmp_path: Path) -> None:
    first = Network(seeded(), ["a", "b", "c"], 32, [0.5] * 3, [0.5] * 3, pretrained=False)
    second = Network(seeded(seed=1), ["a", "b", "c"], 32, [0.5] * 3, [0.5] * 3, pretrained=False)
    save_weights(first, tmp_path / "network.safetensors")
    load_weights(second, tmp_path / "network.safetensors")
    assert equal(first, second)
    load_weights(second.backbone, tmp_path / "network.safetensors")  # and what fits the inside goes there


def test_half_precision_is_widened(path: Path) -> None:
    first, second = seeded(), seeded(seed=1)
    torch.save({key: v.half() if v.is_floating_point() else v for key, v in first.state_dict().items()}, path)
    load_weights(second, path)
    assert second.stem.weight.dtype == torch.float32
    np.testing.assert_allclose(second.stem.weight.detach(), first.stem.weight.detach(), rtol=1e-3)


def test_missing_unexpected_and_misshapen_weights_are_all_listed(path: Path) -> None:
    model = seeded()
    state = dict(model.state_dict())
    del state["norm.bias"]
    state["extra.weight"] = torch.zeros(2)
    state["head.weight"] = torch.zeros(5, 4)
    torch.save(state, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert error(load_weights, model, path).splitlines() == [
        f"{path} does not fit this model:",
        "  1 missing: norm.bias",
        "  1 not part of this model: extra.weight",
        "  1 of another shape: head.weight: found (5, 4), expected (3, 4)",
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_more_weights_than_the_model_has_are_another_model(path: Path) -> None:
    torch.save({**seeded().state_dict(), "second_head.weight": torch.zeros(2)}, path)
    assert error(load_weights, seeded(), path) == (
        f"{path} does not fit this model:\n  1 not part of this model: second_head.weight"
    )


def test_another_architecture(path: Path) -> None:
    torch.save({f"layer{n}.weight": torch.zeros(1) for n in range(20)}, path)
    told = error(load_weights, seeded(), path).splitlines()
    assert told[1] == (
        "  8 missing: head.bias, head.weight, norm.bias, norm.running_mean, norm.running_var, norm.weight, stem.bias,"
        " stem.weight"
    )
    assert told[2].startswith("  20 not part of this model: layer0.weight, layer1.weight, layer10.weight,")
    assert told[2].endswith(" and 12 more")


def test_old_files_without_the_count_of_batches(path: Path) -> None:
    first, second = seeded(), seeded(seed=1)
    torch.save({k: v for k, v in first.state_dict().items() if "num_batches" not in k}, path)
    load_weights(second, path)
    assert equal(first, second)


@pytest.mark.parametrize("found", ["other classes", "missing", "fitting", "other name"])
def test_a_head_that_is_trained_anew_may_be_anything(path: Path, found: str) -> None:
    first = seeded(classes=1000 if found == "other classes" else 3)
    state = dict(first.state_dict())
    if found in {"missing", "other name"}:
        head = {key: state.pop(key) for key in ("head.weight", "head.bias")}
        if found == "other name":
            state |= {f"head.inner.{key}": value for key, value in head.items()}
    torch.save(state, path)
    second = seeded(seed=1)
    before = second.head.weight.detach().clone()
    load_weights(second, path, replace=("head.",))
    assert torch.equal(second.stem.weight, first.stem.weight)
    kept = torch.equal(second.head.weight, before)
    assert kept == (found != "fitting")


def test_the_rest_of_the_model_must_fit_even_where_the_head_is_new(path: Path) -> None:
    state = dict(seeded(classes=7).state_dict())
    del state["stem.bias"]
    torch.save(state, path)
    assert error(load_weights, seeded(), path, replace=("head.",)) == (
        f"{path} does not fit this model:\n  1 missing: stem.bias"
    )


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, path: Path, form: str) -> None:
    mark = tmp_path / "was-run"
    content = {"state_dict": dict(seeded().state_dict()), "extra": Evil(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    told = error(read_state, path)
    assert told.startswith(f"{path}: not opened, because it holds more than tensors")
    assert told.endswith(
        " or is damaged, and unpickling the rest could run code. Save its state_dict() alone, best with"
        " safetensors.torch.save_file"
    )
    assert not mark.exists()
    with path.open("rb") as stream:  # the test can fail: this file does run code where it is unpickled in full
        if form == "pickle":
            pickle.load(stream)
            assert mark.exists()


def test_the_foreign_object_is_named(path: Path) -> None:
    torch.save({"state_dict": seeded().state_dict(), "args": argparse.Namespace(lr=1)}, path)
    assert "more than tensors (argparse.Namespace) or is damaged," in error(read_state, path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file(path: Path, kind: str, part: float) -> None:
    if kind == "safetensors":
        save_file(dict(seeded().state_dict()), path)
    else:
        torch.save(seeded().state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    told = error(read_state, path)
    starts = [f"{path}: a damaged or truncated {'safetensors' if kind == 'safetensors' else 'torch'} file ("]
    if kind == "legacy":  # a bare pickle that ends early cannot be told from one that holds something else
        starts.append(f"{path}: not opened, because it holds more than tensors")
    assert told.startswith(tuple(starts))


def test_damaged_files_never_crash(path: Path) -> None:
    rng = np.random.default_rng(0)
    for zipped in (True, False):
        torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        for _ in range(60):
            broken = bytearray(content)
            for place in rng.integers(0, min(len(broken), 400), 2):
                broken[place] = rng.integers(0, 256)
            path.write_bytes(broken)
            try:
                assert read_state(path)
            except CheckpointError as caught:
                assert str(caught).startswith(str(path))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK", b"<html>404 not found</html>", b"\0" * 100, b"version https://git-lfs"]
)
def test_what_is_no_checkpoint(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert error(read_state, path).startswith((f"{path}: neither a safetensors nor", f"{path}: a damaged"))


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {}}, torch.ones(3)], ids=str)
def test_no_tensors_by_name(path: Path, content: object) -> None:
    torch.save(content, path)
    assert error(read_state, path) == f"{path}: found no tensors by name, expected a state_dict"


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert error(read_state, tmp_path / "no.pth") == f"{tmp_path}/no.pth: cannot be read (No such file or directory)"
    assert error(read_state, tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"
