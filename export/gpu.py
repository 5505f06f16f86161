"""Whether TensorFlow's analyzer thinks that Android's GPU delegate takes all of a TFLite file. It is asked, not run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from distill.core.errors import UserError

__all__ = ["gpu_compatibility"]

_TIMEOUT_S = 120.0  # importing TensorFlow takes ten seconds of them
_WARNING = "GPU COMPATIBILITY WARNING:"
_FINE = "looks compatible with GPU delegate"


def gpu_compatibility(file: Path) -> dict[str, Any]:
    """Ask `tf.lite.experimental.Analyzer` in a process of its own.

    Args:
        file: TFLite.

    Returns:
        `compatible` (None where it said nothing of use), `warnings` (its sentences, or how its process ended) and
        `analyzer` (whose opinion it is).

    Raises:
        UserError: the file is no TFLite file, or the extra `tensorflow` is not installed.
    """
    if file.suffix != ".tflite":
        raise UserError(f"--gpu: {file} is no TFLite file, and the GPU delegate takes no others")
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "--gpu asks TensorFlow's analyzer, which is not installed: pip install 'mobile-distill[tensorflow]'"
        )
    command = [sys.executable, "-m", "export.gpu", str(file)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return _found(None, [f"no answer within {_TIMEOUT_S:g} s"])
    said = done.stdout.decode("utf-8", errors="replace").splitlines()
    warnings = [line.partition(_WARNING)[2].strip() for line in said if _WARNING in line]
    if done.returncode == 0 and (warnings or any(_FINE in line for line in said)):
        return _found(not warnings, list(dict.fromkeys(warnings)))
    last = done.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
    return _found(
        None, [f"the analyzer ended with exit code {done.returncode}{''.join(f': {each[:200]}' for each in last)}"]
    )


def _found(compatible: bool | None, warnings: list[str]) -> dict[str, Any]:
    from importlib.metadata import version

    return {"compatible": compatible, "warnings": warnings, "analyzer": f"TensorFlow {version('tensorflow')}"}


def _main() -> None:
    import tensorflow

    tensorflow.lite.experimental.Analyzer.analyze(model_path=sys.argv[1], gpu_compatibility=True)


if __name__ == "__main__":
    _main()
