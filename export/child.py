"""The process that opens an exported file: `python -m export.child`. A native abort ends it, and nothing else.

Requests and answers are JSON lines on stdin and stdout; tensors travel as .npy files that the request names. Whatever
the native runtimes print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from distill.core import plugins
from distill.core.memory import peak_bytes
from distill.core.timing import sample_ms
from export.formats._base import Format, LayerRunner, Runner

__all__: list[str] = []


def _open(request: dict[str, Any]) -> tuple[Runner | LayerRunner, dict[str, Any]]:
    module = plugins.load("formats", request["format"])
    start = time.perf_counter()
    maker: Format = module.build(module.Config())
    if request.get("layers"):
        shown = maker.open_layers(Path(request["file"]))
        return shown, {"load_ms": (time.perf_counter() - start) * 1e3, "facts": {"layers": shown.layers}}
    runner = maker.open(Path(request["file"]), request["threads"])
    return runner, {"load_ms": (time.perf_counter() - start) * 1e3, "facts": runner.facts}


def _answer(runner: Runner | LayerRunner, request: dict[str, Any]) -> dict[str, Any]:
    if isinstance(runner, LayerRunner):
        values = runner.run(np.load(request["images"], allow_pickle=False))
        named: dict[str, Any] = {str(place): each for place, each in enumerate(values)}
        np.savez(request["answers"], **named)
        return {}
    if request["do"] == "predict":
        images = np.load(request["images"], allow_pickle=False)
        answers = np.concatenate([runner.run(image[None]) for image in images])
        np.save(request["answers"], answers, allow_pickle=False)
        return {}
    image = np.load(request["images"], allow_pickle=False)[:1]
    samples = sample_ms(lambda: runner.run(image), runs=request["runs"], warmup=request["warmup"])
    return {"samples_ms": samples, "peak_memory_mb": peak_bytes() / 1e6}


def _main() -> None:
    # Native code prints to file descriptor 1: keep the real stdout for answers, send the rest to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    runner: Runner | LayerRunner | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "open":
                runner, answer = _open(request)
            else:
                assert runner is not None
                answer = _answer(runner, request)
        except Exception as error:  # the parent gives it as the verdict on the file
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _main()
