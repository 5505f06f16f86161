"""The run folder: the only way two programs talk, and where work goes on after any interruption."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from distill import __version__
from distill.core.errors import RunFolderError
from distill.core.files import read_json, remove_torn, write_json

__all__ = ["FORMAT", "MADE_BY", "Run", "latest_run", "locks_held"]

FORMAT: Final = 1
"""Layout of the folder; a run of another format is refused."""

MADE_BY: Final = {"teacher": "teacher", "control": "baseline", "student": "student"}
"""Stages by the predictor that they make."""

_MARK = "run.json"
_HELD = "DISTILL_LOCKS"  # numbers of open files, for the processes that a holder of locks starts
_STARTED = "started.json"


class Run:
    """A run folder.

    A stage is a sub-folder. It is done when its `stage.json`, written last and by rename, holds the fingerprint of all
    that the stage depends on. `started.json` holds the fingerprint of work under way: work of another one is discarded,
    work of the same one goes on.

    Args:
        root: the folder.

    Raises:
        RunFolderError: it is no run folder, or one of another format.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        mark = root / _MARK
        if not mark.is_file():
            raise RunFolderError(f"{root} is no run folder (found no {_MARK} in it); `distill run` makes one")
        try:
            found = read_json(mark)["format"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunFolderError(f"{mark} is damaged ({error}): delete {root} or choose another `output`") from error
        if found != FORMAT:
            raise RunFolderError(
                f"{root} was made by another version (format {found}, this is mobile-distill {__version__} with format"
                f" {FORMAT}). Choose another `output`, or go on with the version that made it"
            )

    @classmethod
    def create(cls, root: Path) -> Run:
        """Open a run folder, made if needed.

        Raises:
            RunFolderError: a file is in the way, the folder holds other things, or it cannot be written.
        """
        try:
            blocking = next((p for p in (root, *root.parents) if p.exists() and not p.is_dir()), None)
            if blocking is not None:
                raise RunFolderError(f"output: {blocking} is a file, expected a folder or nothing at {root}")
            # a kill may have left `.run.json.….tmp`
            others = root.is_dir() and any(_MARK not in p.name for p in root.iterdir())
            if others and not (root / _MARK).exists():  # looked for last: another process may just have made the run
                raise RunFolderError(f"output: {root} holds files that no run made; choose a new folder")
            root.mkdir(parents=True, exist_ok=True)
            if not (root / _MARK).exists():
                write_json(root / _MARK, {"format": FORMAT, "version": __version__})
        except OSError as error:
            raise RunFolderError(f"output: cannot write to {root} ({error.strerror})") from error
        if not os.access(root, os.W_OK):
            raise RunFolderError(f"output: {root} is not writable")
        return cls(root)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it however the process ends.

        A process started with `pass_fds=locks_held()` works under the same lock, and keeps it if it outlives its
        parent. The file's content says who holds it; whether it is held says the system alone, so what a killed process
        left there misleads nobody. Files that such a process left half-written are removed.

        Raises:
            RunFolderError: another process works in it, or its file system has no locks.
        """
        path = self.root / ".lock"
        if path.exists() and any(os.path.samestat(os.fstat(held), path.stat()) for held in locks_held()):
            yield
            return
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB, _owner()) as stream:
            remove_torn(self.root)
            before = os.environ.get(_HELD, "")
            os.environ[_HELD] = f"{before} {stream.fileno()}"
            try:
                yield
            finally:
                os.environ[_HELD] = before

    @contextlib.contextmanager
    def lock_with_others(self) -> Iterator[None]:
        """Hold the folder beside others that do the same; waits while one process holds it for itself.

        Raises:
            RunFolderError: its file system has no locks.
        """
        with self._locked(fcntl.LOCK_SH, {**_owner(), "shares": True}):
            yield

    @contextlib.contextmanager
    def _locked(self, how: int, owner: dict[str, Any]) -> Iterator[TextIO]:
        """The file `.lock`, open, locked and with its owner's name."""
        path = self.root / ".lock"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, how)
            except BlockingIOError:
                raise RunFolderError(f"{self.root} is in use by {_holder(stream.read())}") from None
            except OSError as error:
                raise RunFolderError(
                    f"{path} cannot be locked ({error.strerror}): two runs at once would spoil each other, so choose an"
                    " `output` on a file system that has locks"
                ) from error
            stream.truncate()
            json.dump(owner, stream)
            stream.flush()
            yield stream

    def folder(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.root / stage

    def answers(self, predictor: str, split: str) -> Path:
        """Where the answers of a predictor to the labelled images of a split are kept, as Parquet.

        Args:
            predictor: `teacher`, `control`, `student`, or an exported file such as `tflite-int8`.
            split: validation or test.
        """
        if predictor in MADE_BY:
            return self.stage_answers(MADE_BY[predictor], split)
        return self.stage_answers("export", split, predictor)

    def stage_answers(self, stage: str, split: str, name: str = "") -> Path:
        """The same by the stage that wrote them; `name` tells those apart of which a stage has several."""
        return self.folder(stage) / "predictions" / (f"{name}.{split}.parquet" if name else f"{split}.parquet")

    def done(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        """What a finished stage said of itself, or None if it has to run."""
        try:
            found: dict[str, Any] = read_json(self.folder(stage) / "stage.json")
            same = found["fingerprint"] == fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if same else None

    def earlier(self, stage: str) -> Path:
        """Where finished work of another fingerprint waits, while the stage takes from it what still holds."""
        return self.root / f"{stage}-before"

    def begin(self, stage: str, fingerprint: str, *, set_aside: bool = False) -> Path:
        """Prepare a stage's folder: keep unfinished work of the same fingerprint, discard any other.

        Args:
            stage: its name.
            fingerprint: of all that it depends on.
            set_aside: keep finished work of another fingerprint in `earlier` until the stage is finished anew.
        """
        folder = self.folder(stage)
        if not self.begun(stage, fingerprint) and folder.exists():
            if set_aside and self.fingerprint(stage) is not None:
                shutil.rmtree(self.earlier(stage), ignore_errors=True)
                folder.rename(self.earlier(stage))
            else:
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stage.json").unlink(missing_ok=True)
        write_json(folder / _STARTED, {"stage": stage, "fingerprint": fingerprint})
        return folder

    def begun(self, stage: str, fingerprint: str) -> bool:
        """Whether a stage's folder holds work of this fingerprint, finished or not."""
        try:
            found: bool = read_json(self.folder(stage) / _STARTED)["fingerprint"] == fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return found

    def finish(self, stage: str, fingerprint: str, seconds: float, summary: dict[str, Any]) -> None:
        """Mark a stage as done; what waited in `earlier` is not needed any more."""
        shutil.rmtree(self.earlier(stage), ignore_errors=True)
        document: dict[str, Any] = {"stage": stage, "fingerprint": fingerprint, "version": __version__}
        document |= {"finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "seconds": round(seconds, 2)}
        write_json(self.folder(stage) / "stage.json", {**document, "summary": summary})

    def fingerprint(self, stage: str) -> str | None:
        """Of a finished stage: what it depends on. None where it is not finished."""
        try:
            return str(read_json(self.folder(stage) / "stage.json")["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def summary(self, stage: str) -> dict[str, Any]:
        """Summary of a finished stage.

        Raises:
            RunFolderError: it is not finished.
        """
        try:
            summary: dict[str, Any] = read_json(self.folder(stage) / "stage.json")["summary"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{self.root}: the stage {stage} is not finished; `distill run` goes on with it"
            ) from error
        return summary


def locks_held() -> tuple[int, ...]:
    """Open files for `pass_fds` of processes that work in the folder which this one holds."""
    return tuple(number for number in map(int, os.environ.get(_HELD, "").split()) if _is_open(number))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:  # whoever started this process holds the lock, and did not hand it on
        return False
    return True


def _owner() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"pid": os.getpid(), "host": platform.node(), "since": since, "command": command}


def _holder(text: str) -> str:
    """Who holds a lock, by what the file says."""
    try:
        owner = json.loads(text)
        said = f"process {owner['pid']} on {owner['host']} since {owner['since']} (`{owner['command']}`)"
        if owner.get("shares"):  # others beside it may hold on after it ended
            return f"processes that label a share each, the last to begin being {said}"
        gone = owner["host"] == platform.node() and not _lives(int(owner["pid"]))
    except (ValueError, KeyError, TypeError):  # it has the lock, and has not said yet who it is
        return "another distill process"
    return f"a process that outlived {said}: wait until it ends" if gone else said


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def latest_run(folder: Path) -> Path:
    """The run in this folder that was worked on last.

    Raises:
        RunFolderError: there is none.
    """
    marks = [p.parent for p in folder.glob(f"*/{_MARK}")]
    if not marks:
        raise RunFolderError(f"found no run in {folder}; name one with --run, or make one with `distill run`")
    return max(marks, key=lambda run: (run / ".lock").stat().st_mtime_ns if (run / ".lock").exists() else 0)
