"""Progress of long work: bars with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

__all__ = ["Progress", "Task"]

_LINE_EVERY_S = 15.0  # on something that is no terminal, a line this often shows that work goes on


class Task:
    """One running count."""

    def __init__(self, console: Console, bars: RichProgress | None, name: str, total: int, unit: str) -> None:
        self._console, self._bars, self._name, self._total, self._unit = console, bars, name, total, unit
        self._done = self._skipped = 0
        self._start = self._shown = time.monotonic()
        self._id: TaskID | None = bars.add_task(name, total=total, rate="") if bars else None

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more as done; `note` is shown behind the rate."""
        self._done += count
        now = time.monotonic()
        rate = (self._done - self._skipped) / max(now - self._start, 1e-9)
        shown = f"{rate:.0f} {self._unit}/s {note}" if rate >= 10 else f"{rate:.1f} {self._unit}/s {note}"
        if self._bars is not None and self._id is not None:
            self._bars.update(self._id, completed=self._done, rate=shown)
        elif now - self._shown > _LINE_EVERY_S:
            self._shown = now
            left = (self._total - self._done) / max(rate, 1e-9)
            self._console.print(
                f"  {self._name}: {self._done}/{self._total}, {shown}, {left:.0f} s left", highlight=False
            )

    def skip(self, count: int) -> None:
        """Count `count` as done before: they say nothing about the rate."""
        self._skipped += count
        self.advance(count)

    def note(self, text: str) -> None:
        """Say something worth a line of its own."""
        self._console.print(f"  {self._name}: {text}", highlight=False, markup=False)


class Progress:
    """Hands out tasks; all of them write to one console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        """Count up to `total` while the block runs."""
        if not self.console.is_terminal:
            yield Task(self.console, None, name, total, unit)
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with RichProgress(
            *columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=self.console, transient=True
        ) as bars:
            yield Task(self.console, bars, name, total, unit)
