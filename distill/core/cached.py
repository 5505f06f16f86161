"""Folders in the user's cache, made once and whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_folder", "made_once"]


def cache_folder() -> Path:
    """`mobile-distill` in `$XDG_CACHE_HOME`, else in `~/.cache`; it may not exist yet."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"  # relative ones count as unset
    return base / "mobile-distill"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache; where it is missing `make` fills an empty one, which is then moved into place.

    A folder that is there is whole: what was interrupted never got its name. Of two processes that make it at a time
    the second keeps what the first made.

    Args:
        name: changes with whatever decides the content.
        make: may raise; nothing is left behind then.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        make(work)
        work.chmod(0o755)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
