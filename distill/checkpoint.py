"""Weights in and out: safetensors, or torch files opened with `weights_only=True`. Never a pickle.

What is written here carries a checksum of its tensors, compared whenever it is read.
"""

from __future__ import annotations

import pickle
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from distill.core.errors import CheckpointError
from distill.core.files import replacing

__all__ = ["load_weights", "read_state", "save_state", "save_weights"]

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
_PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.")
_SHOWN = 8
_CHECKSUM = "checksum"


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name, wrappers (`state_dict`, `model`, …) and prefixes (`module.`, …) taken off.

    Raises:
        CheckpointError: not a checkpoint, damaged, or one that needs unpickling of arbitrary objects.
    """
    return _bare(_tensors(path))


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
            stream.seek(0)
            if start[8:] == b"{":  # the content decides, not the name: safetensors is eight bytes of length, then JSON
                found: object = _whole(path)
            elif start.startswith((b"PK\3\4", b"\x80")):  # torch writes a zip, in old days a bare pickle
                found = torch.load(stream, map_location="cpu", weights_only=True)
            else:
                raise CheckpointError(f"{path}: neither a safetensors nor a torch file")
    except CheckpointError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: a damaged or truncated safetensors file ({error})") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path}: not opened, because it holds more than tensors{f' ({named[1]})' if named else ''} or is damaged,"
            " and unpickling the rest could run code. Save its state_dict() alone, best with"
            " safetensors.torch.save_file"
        ) from error
    except Exception as error:  # on damaged bytes torch raises nearly anything: RuntimeError, KeyError, OSError …
        reason = str(error).split("\n", 1)[0].split(". ", 1)[0] or type(error).__name__
        raise CheckpointError(f"{path}: a damaged or truncated torch file ({reason})") from error
    while isinstance(found, Mapping) and (wrapper := _wrapper_of(found)):
        found = found[wrapper]
    if not isinstance(found, Mapping) or not any(isinstance(v, torch.Tensor) for v in found.values()):
        raise CheckpointError(f"{path}: found no tensors by name, expected a state_dict")
    return {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}


def _whole(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: they are not those that were written, where the file says so: those of others do not.
    """
    with safe_open(path, framework="pt") as opened:
        found = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
        written = (opened.metadata() or {}).get(_CHECKSUM)
    if written is not None and written != _checksum(found):
        raise CheckpointError(f"{path} is damaged (its checksum does not match)")
    return found


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """CRC-32 over names, types, shapes and bytes: it finds damage, not malice; 1 GB/s."""
    crc = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _wrapper_of(found: Mapping[str, object]) -> str | None:
    return next((wrapper for wrapper in _WRAPPERS if isinstance(found.get(wrapper), Mapping)), None)


def _bare(state: dict[str, torch.Tensor], known: Iterable[str] = ()) -> dict[str, torch.Tensor]:
    """Take off prefixes that all names share, until one of the known names appears."""
    while not any(key in state for key in known) and (
        prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)
    ):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_weights(module: nn.Module, path: Path, *, replace: tuple[str, ...] = ()) -> None:
    """Load a checkpoint strictly.

    Args:
        module: receives the weights.
        path: safetensors or torch file.
        replace: prefixes of parameters that may be missing or of other shape, because they are trained anew (the
            classifier layer). They keep their present values.

    Raises:
        CheckpointError: anything else is missing, unexpected or of another shape; all of it is listed.
    """
    own = module.state_dict()
    state = _bare(_tensors(path), own)
    fresh = {key for key in own if key.startswith(replace)} if replace else set()
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    missing = sorted(set(own) - set(state) - fresh - {k for k in own if k.endswith("num_batches_tracked")})
    unexpected = sorted(k for k in state if k not in own and not (replace and k.startswith(replace)))
    shapes = sorted(
        f"{k}: found {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in state
        if k in own and k not in fits and k not in fresh
    )
    if missing or unexpected or shapes:
        parts = [("missing", missing), ("not part of this model", unexpected), ("of another shape", shapes)]
        listed = "\n".join(f"  {len(names)} {what}: {_some(names)}" for what, names in parts if names)
        raise CheckpointError(f"{path} does not fit this model:\n{listed}")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in fits.items()}, strict=False)


def load_features(features: nn.Module, classifier: nn.Module, path: Path) -> None:
    """Load the weights of a timm classifier into the feature extractor that timm makes of it.

    Args:
        features: receives the weights.
        classifier: of the same name and arguments; what it has behind the features may be missing in the file.
        path: safetensors or torch file.

    Raises:
        CheckpointError: the file does not fit, or the extractor calls its weights otherwise than the classifier does.
    """
    own, known = features.state_dict(), classifier.state_dict()
    if lacking := sorted(set(own) - set(known)):
        raise CheckpointError(
            f"{path} does not fit: as an encoder {type(classifier).__name__} calls its weights otherwise than as a"
            f" classifier ({_some(lacking)})"
        )
    load_weights(classifier, path, replace=tuple({f"{key.rsplit('.', 1)[0]}." for key in known if key not in own}))
    features.load_state_dict({key: value for key, value in classifier.state_dict().items() if key in own})


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's state_dict as safetensors, atomically; the same values give the same bytes."""
    save_state(dict(module.state_dict()), path)


def save_state(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors by name as safetensors, atomically."""
    with replacing(path) as temporary:
        # Through Python's own write: save_file hides the reason of a full disk in an exception of its own.
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
        temporary.write_bytes(save(tensors, {_CHECKSUM: _checksum(tensors)}))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
