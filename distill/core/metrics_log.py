"""`metrics.jsonl`: one JSON object an epoch of every training of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.core.files import write_text

__all__ = ["MetricsLog"]


class MetricsLog:
    """Lines of `{"stage", "epoch", …}`; a resumed training replaces the lines that its checkpoint does not know."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Append one epoch, counted from 1."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"stage": stage, "epoch": epoch, **values}) + "\n")

    def keep(self, stage: str, epochs: int) -> None:
        """Drop this stage's lines behind its first `epochs`, and any line a kill left half-written."""
        kept = [line for line in self.read() if line["stage"] != stage or line["epoch"] <= epochs]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def read(self) -> list[dict[str, Any]]:
        """All whole lines."""
        if not self._path.exists():
            return []
        lines = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # the last line of a process killed while writing
                continue
        return lines
