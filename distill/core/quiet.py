"""Keeping what native libraries print out of our own output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet(log: Path = Path(os.devnull)) -> Iterator[None]:
    """Send what is printed, warned and logged meanwhile, also by native code, into a file.

    Handlers that libraries add to the root logger are taken away again: absl's would repeat our own messages.
    """
    handlers = logging.getLogger().handlers[:]
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("wb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            logging.getLogger().handlers[:] = handlers
            for number, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
