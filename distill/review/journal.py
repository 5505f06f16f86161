"""Writing the journal: an answer is on the disk before the page is told that it is saved."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from distill.core.errors import RunFolderError
from distill.data.corrections import JOURNAL, MASKS, Answer, Log, read_journal
from distill.data.mask_file import save_mask

__all__ = ["Journal"]


@final
class Journal:
    """A journal that this process alone adds to.

    Lines are added and flushed to the disk together; where that fails, the file is cut to what it was. A torn last line
    is cut off when the journal is opened.

    Args:
        folder: of the journal, made if needed.
        classes: that are reviewed.

    Raises:
        RunFolderError: another process writes it.
        DataError: it is damaged.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / JOURNAL
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.log: Log = read_journal(path) if os.fstat(self._file).st_size else Log()
            self.torn = self.log.torn
            os.ftruncate(self._file, self.log.end)
            if self.log.classes != tuple(classes):
                self.append([{"classes": list(classes)}])
            _flush(folder)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise RunFolderError(
                    f"{path} is in use by another `distill review`: open the page that it serves, or end it"
                ) from None
            raise
        except BaseException:
            os.close(self._file)
            raise

    def append(self, rows: Sequence[dict[str, Any]]) -> list[Answer]:
        """Add lines; they are on the disk when this returns.

        Args:
            rows: without `n` and `time`.

        Returns:
            Those that are answers.

        Raises:
            OSError: the disk is full or broken; nothing was added.
        """
        whole = [{"n": self.log.lines + place, "time": round(time.time(), 3), **row} for place, row in enumerate(rows)]
        data = b"".join(json.dumps(row, ensure_ascii=True).encode() + b"\n" for row in whole)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self.log.end)
            raise
        self.log.end += len(data)
        added = []
        for row in whole:
            self.log.take(row)
            if "image" in row:
                added.append(self.log.answers[row["n"]])
        return added

    def keep_mask(self, mask: npt.NDArray[np.uint8]) -> str:
        """Write a mask, uint8 [H, W], flushed to the disk; equal masks are one file.

        Returns:
            Name of its file without ending: SHA-256 of its size and pixels.
        """
        key = save_mask(mask, self.folder / MASKS)
        _flush(self.folder / MASKS)
        _flush(self.folder)
        return key

    def close(self) -> None:
        """Let others write."""
        os.close(self._file)


def _flush(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
