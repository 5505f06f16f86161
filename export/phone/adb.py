"""The `adb` program: finding the one phone that is meant, running commands on it, moving files to and from it.

Every call has a time limit. A command's output ends in a line of our own with its exit code: without that line the
connection broke, whatever `adb` says (before Android 7 it knows no exit codes at all). Arguments are quoted for the
phone's shell one by one; the caller's own words never become shell text.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, NamedTuple, final

from distill.core.errors import DeviceError
from distill.core.files import sha256_of

__all__ = ["Adb", "Answer", "TookTooLong", "find_adb", "find_phone"]

QUICK_S: float = 30.0
"""Limit of a command that takes well under a second on a healthy phone."""
_START_S: Final = 20.0  # the server of adb starts in about three
_SLOWEST_PUSH: Final = 500_000  # bytes a second; a phone on USB 2 takes sixty times as many
_IN_LOG: Final = 200_000  # characters of one answer
_HELP: Final = {
    "unauthorized": "unlock it and allow USB debugging in the dialog it shows, then try again",
    "offline": "it does not answer: unplug it and plug it in again, or switch USB debugging off and on",
    "authorizing": "unlock it and allow USB debugging in the dialog it shows, then try again",
    "connecting": "it does not answer yet: try again, or unplug it and plug it in again",
    "no permissions": "this user may not use the USB device: add the udev rules of your system's Android packages",
    "recovery": "start Android on it",
    "sideload": "start Android on it",
    "bootloader": "start Android on it",
}


class Answer(NamedTuple):
    """What a command on the phone said, stdout and stderr as they came, and its exit code."""

    text: str
    code: int


class TookTooLong(DeviceError):  # noqa: N818 - says what happened
    """A command did not end within its limit; what it started may still run."""


@final
class Adb:
    """One phone.

    Args:
        program: the `adb` to use.
        serial: of the phone, as `adb devices` lists it.
        log: file that every call and answer is added to.
    """

    def __init__(self, program: str, serial: str, log: Path) -> None:
        self._program, self.serial, self.log = program, serial, log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")

    def shell(self, *arguments: str, limit_s: float | None = None) -> Answer:
        """Run one command with these arguments.

        Raises:
            DeviceError: the phone went away.
            TookTooLong: it did not end in time.
        """
        return self.script(shlex.join(arguments), limit_s=limit_s)

    def script(self, text: str, *arguments: str, limit_s: float | None = None) -> Answer:
        """Run shell text of our own, with the arguments as $1, $2, …; raises as `shell` does."""
        mark = f"done-{secrets.token_hex(6)}"
        wrapped = f"sh -c {shlex.quote(text)} {shlex.join(['sh', *arguments])}" if arguments else f"( {text} )"
        said, code = self._call(
            ["shell", f"{wrapped} 2>&1; r=$?; echo; echo {mark}:$r"], QUICK_S if limit_s is None else limit_s, text
        )
        found = said.decode("utf-8", "replace").replace("\r\n", "\n")
        end = re.search(rf"\n?{mark}:(\d+)\s*$", found)
        if end is None:
            raise DeviceError(self._why(f"`{_short(text)}`", found or f"adb ended with exit code {code}"))
        return Answer(found[: end.start()], int(end.group(1)))

    def ask(self, *arguments: str) -> str:
        """What a command says that has to succeed.

        Raises:
            DeviceError: it did not, or the phone went away.
        """
        said = self.shell(*arguments)
        if said.code != 0:
            raise DeviceError(f"the phone answers `{shlex.join(arguments)}` with exit code {said.code}: {_last(said)}")
        return said.text

    def push(self, file: Path, target: str, mode: str = "644") -> None:
        """Copy a file to the phone, read it back and compare.

        Args:
            file: here.
            target: absolute path there, of our own making.
            mode: of the copy, octal.

        Raises:
            DeviceError: there is no room, it arrived otherwise, or the phone went away.
        """
        size = file.stat().st_size
        limit = QUICK_S + size / _SLOWEST_PUSH
        said, code = self._call(["push", str(file.absolute()), target], limit, f"push {file.name}")
        if code != 0:
            text = said.decode("utf-8", "replace")
            if "No space left" in text:
                folder = target.rpartition("/")[0]
                raise DeviceError(
                    f"no room for {file.name} ({size / 1e6:.1f} MB) in {folder} on the phone: free some space there"
                )
            raise DeviceError(self._why(f"copying {file.name} to it", text))
        arrived = hashlib.sha256(self.output('chmod "$1" "$2" && cat "$2"', mode, target, limit_s=limit)).hexdigest()
        if arrived != sha256_of(file):
            raise DeviceError(
                f"{file.name} arrived damaged on the phone (sha256 {arrived[:12]}…, here {sha256_of(file)[:12]}…):"
                " try another cable or port"
            )

    def output(self, text: str, *arguments: str, limit_s: float | None = None) -> bytes:
        """Unchanged bytes that shell text of our own writes; its arguments are $1, $2 and so on.

        Whether it succeeded, and whether all of it came, cannot be seen: compare lengths or hashes.

        Raises:
            TookTooLong: it did not end in time.
        """
        wrapped = f"sh -c {shlex.quote(text)} {shlex.join(['sh', *arguments])}"
        return self._call(["exec-out", wrapped], QUICK_S if limit_s is None else limit_s, text, binary=True)[0]

    def state(self) -> str:
        """What `adb` says of it: `device` if it can be used; empty if it is gone."""
        return dict(_listed(self._program)).get(self.serial, "")

    def note(self, text: str) -> None:
        """Add a line of our own to the log."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"# {text}\n")

    def _call(
        self, arguments: list[str], limit_s: float, what: str, *, binary: bool = False
    ) -> tuple[bytes, int | None]:
        start = time.monotonic()
        said, code = _run([self._program, "-s", self.serial, *arguments], limit_s)
        text = f"{len(said)} bytes" if binary else said.decode("utf-8", "replace")[:_IN_LOG]
        with self.log.open("a", encoding="utf-8") as stream:
            ended = f"no end within {limit_s:g} s" if code is None else f"exit code {code}"
            # The serial names a person's phone; the log is made to be shown.
            stream.write(f"$ adb {shlex.join(arguments)}\n{text}\n# {ended}, {time.monotonic() - start:.2f} s\n")
        if code is None:
            raise TookTooLong(f"the phone did not finish `{_short(what)}` within {limit_s:g} s")
        return said, code

    def _why(self, doing: str, said: str) -> str:
        state = self.state()
        if state != "device":
            return f"the phone went away during {doing} (adb says: {state or 'not there'}): plug it in and try again"
        return f"the phone broke off {doing}: {_last(Answer(said, 1))}"


def find_adb() -> str:
    """Path of the `adb` program: on PATH, or of an Android SDK.

    Raises:
        DeviceError: there is none.
    """
    sdks = [os.environ.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT")]
    places = [Path(sdk) for sdk in [*sdks, str(Path.home() / "Android" / "Sdk")] if sdk]
    candidates = [shutil.which("adb"), *(str(place / "platform-tools" / "adb") for place in places)]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise DeviceError(
        "found no `adb` on PATH or in ANDROID_HOME: install Android's platform-tools (Debian and Ubuntu: `apt install"
        " adb`)"
    )


def find_phone(program: str, serial: str = "") -> str:
    """Serial of the one phone that is meant and can be used.

    Args:
        program: `adb`.
        serial: what the user named; empty for the only one there is.

    Raises:
        DeviceError: none, several, or one that cannot be used; the text says what to do.
    """
    listed = _listed(program)
    told = ", ".join(f"{name} ({state})" for name, state in listed)
    if serial and serial not in dict(listed):
        raise DeviceError(f"adb knows no phone {serial!r}; it lists {told or 'none'}")
    if not listed:
        raise DeviceError(
            "adb sees no phone: connect one by USB, switch on `Developer options > USB debugging` on it, and look at"
            " `adb devices`"
        )
    if not serial and len(listed) > 1:
        raise DeviceError(f"adb sees {len(listed)} phones, {told}: name one with --device adb:SERIAL")
    name = serial or listed[0][0]
    state = dict(listed)[name]
    if state != "device":
        kind = next((kind for kind in _HELP if state.startswith(kind)), "")
        raise DeviceError(f"the phone {name} is {state}: {_HELP.get(kind, 'it cannot be used like that')}")
    return name


def _listed(program: str) -> list[tuple[str, str]]:
    """Serials and states."""
    said, code = _run([program, "devices"], _START_S)
    text = said.decode("utf-8", "replace")
    if code != 0:
        raise DeviceError(
            f"`{program} devices` {'did not end' if code is None else 'failed'}: {_last(Answer(text, 1))}"
        )
    lines = text.replace("\r", "").partition("List of devices attached\n")[2].splitlines()
    return [(name, state) for line in lines for name, tab, state in [line.partition("\t")] if tab]


def _run(command: list[str], limit_s: float) -> tuple[bytes, int | None]:
    """Output and exit code; None for one that was ended by its limit.

    It is in a session of its own: a Ctrl-C in the terminal is ours to handle, and must not cut the calls that put the
    phone back.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            return said, None
        except BaseException:
            process.kill()
            raise
        return said, process.returncode


def _last(said: Answer) -> str:
    lines = [line.strip() for line in said.text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
