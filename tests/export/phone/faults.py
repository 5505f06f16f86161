"""Everything that goes wrong with a phone, what the user sees of it, and in what state the phone is afterwards.

`docs/benchmark-on-a-phone.md` shows this list as a table; `python -m tests.export.phone.faults` prints it. In the
sentences … stands for anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tests.export.phone.fake_phone import FakePhone

__all__ = ["FAULTS", "Fault", "markdown"]

State = Literal["as before", "as before, once it is back"]
_GONE: Final = "NOT put back on the phone, which is gone or does not answer: …the next `distill bench --device adb`…"
HOSTILE: Final = "x'; touch PWNED; $(touch PWNED) \"`touch PWNED`"


def _nothing(phone: FakePhone) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Args:
        name: for people.
        sees: the sentences that the user sees, each with … for anything.
        code: exit code of the command.
        arrange: makes it happen.
        way: what runs the file: the app, the binary, or both.
        state: of the phone afterwards.
        rounds: of the benchmark.
    """

    name: str
    sees: tuple[str, ...]
    code: int = 3
    arrange: Callable[[FakePhone], None] = _nothing
    way: Literal["app", "binary", "both"] = "app"
    state: State = "as before"
    rounds: int = 1


def _says(**state: str) -> Callable[[FakePhone], None]:
    def arrange(phone: FakePhone) -> None:
        phone.say(**{name.replace("_", "."): value for name, value in state.items()})

    return arrange


def _has(**faults: object) -> Callable[[FakePhone], None]:
    def arrange(phone: FakePhone) -> None:
        for name, value in faults.items():
            setattr(phone.faults, name, value)

    return arrange


def _app(behaviour: str, sees: str, what: str) -> Fault:
    return Fault(f"app: {what}", (f"not timed: tflite-int8, app: {sees}",), arrange=_says(app_behaviour=behaviour))


def _binary(behaviour: str, sees: str, what: str) -> Fault:
    told = f"not timed: tflite-int8, benchmark_model: {sees}"
    return Fault(f"binary: {what}", (told,), arrange=_says(binary_behaviour=behaviour), way="binary")


FAULTS: Final = (
    Fault("it does not trust this computer", ("the phone … is unauthorized: unlock it and allow USB debugging in the"
          " dialog it shows, then try again",), 2, _has(trusts=False)),
    Fault("it does not answer", ("the phone … is offline: it does not answer: unplug it and plug it in again, or switch"
          " USB debugging off and on",), 2, _has(answers=False)),
    Fault("a command hangs", ("the phone did not finish `getconf PAGE_SIZE` within … s",), 2,
          lambda phone: (phone.folder / "bin/getconf").write_text("#!/bin/sh\nexec sleep 5\n") and None),
    Fault("it is no Android", ("the phone does not answer `getprop` as Android does: it names no version",), 2,
          _says(properties="[ro.product.model]: [toaster]")),
    Fault("the cable comes out in the middle of a push, and is put back", ("the phone went away during copying"
          " student.int8.tflite to it (adb says: …): plug it in and try again",), 2, _has(unplug_after=50_000,
          stays_away=False)),
    Fault("the cable comes out in the middle of a push, and stays out", ("the phone went away during copying"
          " student.int8.tflite to it (adb says: …): plug it in and try again", "the phone is gone; waiting … to put"
          " back what was changed", _GONE), 2, _has(unplug_after=50_000), state="as before, once it is back"),
    Fault("the cable comes out while the app runs", ("the phone went away during `am instrument …` (adb says: …): plug"
          " it in and try again", _GONE), 2, _has(unplug_at="am instrument"), state="as before, once it is back"),
    Fault("the cable comes out while things are put back", (_GONE,), 0, _has(unplug_at="run-as org.mobiledistill.sample"
          " rm"), state="as before, once it is back"),
    Fault("no room", ("no room for student.int8.tflite (… MB) in /data/local/tmp/mobile-distill on the phone: free some"
          " space there",), 2, _has(room=100_000)),
    Fault("a file arrives damaged", ("input.bin arrived damaged on the phone (sha256 …, here …): try another cable or"
          " port",), 2, _has(damages=True)),
    Fault("a file is in the way of the folder", ("the phone answers `mkdir -p /data/local/tmp/mobile-distill` with exit"
          " code 1: …File exists",), 2, lambda phone: (phone.root / "data/local/tmp/mobile-distill").write_text("") and
          None),
    Fault("a setting that makes no sense", ("the phone says that stay_on_while_plugged_in is 'what?', expected a number"
          " or null: nothing was changed",), 2, lambda phone: (phone.folder / "settings/stay_on_while_plugged_in")
          .write_text("what?") and None),
    Fault("the app is of an older version", ("the app org.mobiledistill.sample 0.1.0 on the phone has no benchmark:"
          " install the one of this version",), 2, _says(app_behaviour="no benchmark")),
    _app("crashes", "the app wrote no result: Process crashed.", "crashes"),
    _app("hangs", "the app hung: no end within … s", "hangs"),
    _app("refuses", "the app says (model): Internal error: cannot create interpreter", "refuses the file"),
    _app("garbage", "what the app wrote is no result: Invalid JSON: …", "writes garbage"),
    _app("cut", "what the app wrote is no result: Invalid JSON: …", "writes half a result"),
    _app("not a number", "what the app wrote is no result: …", "writes NaN as a time"),
    _app("too few", "the app answered something else: 4 times, asked for 5", "times too few runs"),
    _app("another file", "the app answered something else: model_sha256 is 000…, asked for …", "runs another file"),
    _app("wrong answers", "it answers otherwise than here: … % off, at most 5 % are allowed, over 8 images",
         "answers otherwise than this machine"),
    Fault("binary: lacks execution or a loader on the phone", ("… does not start on the phone (…Permission denied): it"
          " is for arm64-v8a; …",), 2, _says(binary_behaviour="no execution"), "binary"),
    Fault("binary: a library is missing", ("… does not start on the phone (CANNOT LINK EXECUTABLE …): it is for"
          " arm64-v8a; …",), 2, _says(binary_behaviour="no library"), "binary"),
    _binary("crashes", "benchmark_model crashed (SIGSEGV): …", "crashes"),
    _binary("hangs", "benchmark_model hung: no end within … s", "hangs"),
    _binary("refuses", "benchmark_model failed with exit code 1: ERROR: Benchmarking failed.", "refuses the file"),
    _binary("garbage", "benchmark_model wrote 0 lines of inference timings, expected one; …", "writes garbage"),
    _binary("cut", "benchmark_model wrote 0 lines of inference timings, expected one; …", "stops half way"),
    Fault("one of two ways crashes", ("not timed: tflite-int8, benchmark_model: benchmark_model crashed (SIGSEGV): …",),
          0, _says(binary_behaviour="crashes"), "both"),
    Fault("it gets hot and cools down", ("the phone is hot (thermal status 2 (moderate), …): it may cool for … s",), 0,
          _says(thermal="0\n2\n2\n0")),
    Fault("it stays hot", ("the phone is hot (thermal status 3 (severe), …): it may cool for … s", "it is still hot"
          " (thermal status 3 (severe), …): going on, and marking what is measured", "throttled: thermal status 3"
          " (severe)"), 0, _says(thermal="0\n3")),
    Fault("the battery warms, and it tells no thermal status", ("hot: the battery warmed by 5 °C or more",), 0,
          _says(thermal="none", tenths="285\n340")),
    Fault("it slows down from round to round", ("drift: a round took 40 % more than the first one",), 0,
          _says(app_behaviour="drifts"), rounds=3),
)  # fmt: skip


def markdown() -> str:
    """All of it in Markdown, with what other tests of this folder hold."""
    lines = ["| what goes wrong | what the user sees | exit code | the phone afterwards |", "|---|---|---|---|"]
    for fault in FAULTS:
        sees = "<br>".join(fault.sees).replace("|", "\\|")
        lines.append(f"| {fault.name} | {sees} | {fault.code} | {fault.state} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
