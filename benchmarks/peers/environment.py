"""An environment of its own for a peer, made once in the user's cache."""

from __future__ import annotations

import hashlib
import site
import subprocess
import sys
from pathlib import Path

from distill.core.cached import made_once

__all__ = ["UnavailableError", "python_of"]


class UnavailableError(Exception):
    """A peer cannot be had here; says why."""


def python_of(name: str, requirements: list[str], *, over_ours: bool = False) -> Path:
    """The interpreter of an environment that has these requirements.

    Args:
        name: of the peer.
        requirements: pinned, as pip takes them.
        over_ours: see the packages of this environment too, below its own, so that both train with the very same torch;
            requirements are then installed without what they depend on.

    Raises:
        UnavailableError: pip could not install them.
    """
    told = repr((sys.version_info[:2], requirements, over_ours))

    def make(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        if over_ours:
            (packages,) = folder.glob("lib/python*/site-packages")
            lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
            (packages / "below.pth").write_text("\n".join(lines) + "\n")
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, *["--no-deps"] * over_ours, *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UnavailableError((done.stderr.strip() or "pip failed").splitlines()[-1])

    folder = made_once(f"peer-{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}", make)
    return folder / "bin/python"
