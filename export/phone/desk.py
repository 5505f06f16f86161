"""A folder of ours on the phone, the screen kept on meanwhile, and everything put back at the end.

What is to be put back stands in a file on the phone before anything is changed. So a cable that came out or a killed
process costs nothing: the next visit finds the file and puts it back first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final, TextIO, final

from rich.console import Console

from distill.core.errors import DeviceError
from export.phone.adb import Adb
from export.phone.contract import PACKAGE

__all__ = ["FOLDER", "Desk", "at_desk"]

FOLDER: Final = "/data/local/tmp/mobile-distill"
"""Everything of ours on the phone; readable by apps."""
RETURN_S: float = 15.0
"""How long is waited for a phone that went away, to put things back."""
_SETTING: Final = "stay_on_while_plugged_in"
_ALWAYS: Final = "7"  # mains, USB, wireless: bits of BatteryManager.BATTERY_PLUGGED_*
_WAKE, _SLEEP = "KEYCODE_WAKEUP", "KEYCODE_SLEEP"
_END_OURS: Final = """\
p=$(cat "$1/pid" 2>/dev/null) || exit 0
case "$(cat "/proc/$p/cmdline" 2>/dev/null)" in *"$1"*) kill -9 "$p";; esac"""
"""Ends the process that the folder names, if it still is one that was started from there."""


@final
class Desk:
    """What a visit may use; made by `at_desk`."""

    def __init__(self, adb: Adb) -> None:
        self.adb = adb
        self.folder = FOLDER

    def put(self, file: Path, name: str, mode: str = "644") -> str:
        """Copy a file there under a name of ours, compared by its hash; its path on the phone."""
        self.adb.push(file, f"{FOLDER}/{name}", mode)
        return f"{FOLDER}/{name}"

    def end_ours(self) -> None:
        """End what was started from the folder and still runs, and the app's benchmark."""
        self.adb.script(_END_OURS, FOLDER)
        self.adb.shell("am", "force-stop", PACKAGE)


@contextlib.contextmanager
def at_desk(adb: Adb, console: Console) -> Iterator[Desk]:
    """Prepare the phone, and put it back however the block ends: an error, Ctrl-C, the end of the terminal.

    Raises:
        DeviceError: another process of this machine uses the phone, or it cannot be prepared.
    """
    with _alone(adb.serial), _signals_raise():
        _put_back(adb, console)  # what a visit that was cut off left behind
        try:
            _prepare(adb)
            yield Desk(adb)
        finally:
            with _uninterrupted():
                _leave(adb, console)


def _prepare(adb: Adb) -> None:
    adb.ask("mkdir", "-p", FOLDER)
    adb.ask("chmod", "755", FOLDER)
    value = adb.ask("settings", "get", "global", _SETTING).strip()
    if value != "null" and not value.isdecimal():
        raise DeviceError(
            f"the phone says that {_SETTING} is {value!r}, expected a number or null: nothing was changed"
        )
    awake = "mWakefulness=Awake" in adb.script("dumpsys power | grep mWakefulness=").text
    screen = "awake" if awake else "asleep"
    written = adb.script(f'{{ echo "$1"; echo "$2"; }} > {FOLDER}/before', value, screen)
    if written.code != 0:
        raise DeviceError(f"the phone does not let us write into {FOLDER}: {written.text.strip()[:200]}")
    adb.ask("settings", "put", "global", _SETTING, _ALWAYS)
    if not awake:
        adb.ask("input", "keyevent", _WAKE)


def _leave(adb: Adb, console: Console) -> None:
    """Put back what was changed; where the phone is gone, wait for it a little, then say what is left to do."""
    try:
        if adb.state() != "device":
            console.print(f"  the phone is gone; waiting {RETURN_S:g} s for it, to put back what was changed")
            end = time.monotonic() + RETURN_S
            while adb.state() != "device" and time.monotonic() < end:
                time.sleep(0.5)
        _put_back(adb, console)
    except DeviceError as error:
        adb.note(f"not put back: {error}")
        console.print(
            f"  NOT put back on the phone, which is gone or does not answer: {_SETTING} and {FOLDER}. The next"
            " `distill bench --device adb` with it puts both back before anything else",
            style="red",
            highlight=False,
            soft_wrap=True,
        )


def _put_back(adb: Adb, console: Console) -> None:
    """Undo what the folder on the phone says was changed; nothing where it is not there.

    Raises:
        DeviceError: the phone went away, or keeps the changed setting.
    """
    if adb.shell("test", "-d", FOLDER).code != 0:
        return
    Desk(adb).end_ours()
    adb.shell("run-as", PACKAGE, "rm", "-rf", "files/benchmark")
    adb.shell("rm", "-rf", f"/sdcard/Android/data/{PACKAGE}/files/benchmark")
    before = adb.shell("cat", f"{FOLDER}/before")
    lines = before.text.split()
    if before.code == 0 and len(lines) == 2 and (lines[0] == "null" or lines[0].isdecimal()):
        value, screen = lines
        if value == "null":
            adb.ask("settings", "delete", "global", _SETTING)
        else:
            adb.ask("settings", "put", "global", _SETTING, value)
        found = adb.ask("settings", "get", "global", _SETTING).strip()
        if found != value:
            raise DeviceError(f"the phone keeps {_SETTING} at {found}, it was {value}")
        if screen == "asleep":
            adb.shell("input", "keyevent", _SLEEP)
    adb.ask("rm", "-rf", FOLDER)


@contextlib.contextmanager
def _alone(serial: str) -> Iterator[None]:
    """One visit at a time; the system lets go however the process ends."""
    name = hashlib.sha256(serial.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobile-distill"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"phone-{name}.lock").open("w") as stream:
        _lock(stream, serial)
        yield


def _lock(stream: TextIO, serial: str) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DeviceError(f"another `distill bench` of this machine uses the phone {serial}") from error


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let a closed terminal and a polite kill end the block as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(stop, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C and its kin from what must be finished; every call in it has a limit."""
    with _handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def _handling(handler: object, *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there signals can be handled, and arrive
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
