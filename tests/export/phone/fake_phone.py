"""A phone on nobody's desk: Android's commands as small programs over files, behind our own adb daemon."""

from __future__ import annotations

import os
import stat
import struct
import sys
from pathlib import Path

from tests.export.phone.daemon import Daemon, Faults

HERE = Path(__file__).parent
PROPERTIES = {
    "ro.product.manufacturer": "Desk",
    "ro.product.model": "Nobody A1",
    "ro.soc.manufacturer": "Unisoc",
    "ro.soc.model": "T606",
    "ro.build.version.release": "13",
    "ro.build.version.sdk": "33",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
}
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 2
  health: 2
  level: 83
  voltage: 4236
  temperature: {tenths}
  technology: Li-ion
"""
CLOCKS = {0: 1612, 1: 1612, 2: 1612, 3: 1612, 4: 1612, 5: 1612, 6: 2002, 7: 2002}

# Each is text of `sh`; $PHONE is the folder with the phone's state. A list of values gives one a call, the last again.
PROGRAMS = {
    "getprop": """sed -nE "s/^\\[$1\\]: \\[(.*)\\]$/\\1/p" "$PHONE/properties\"""",
    "getconf": "echo 4096",
    "dumpsys": """\
next() { v=$(head -n 1 "$1"); if [ "$(wc -l < "$1")" -gt 1 ]; then sed -i 1d "$1"; fi; echo "$v"; }
case "$1" in
  thermalservice) s=$(next "$PHONE/thermal"); [ "$s" = none ] && echo "Can't find service: thermalservice" && exit 0
    printf 'IsStatusOverride: false\\nThermalEventListeners:\\n\\tcallbacks: 1\\nThermal Status: %s\\n' "$s";;
  battery) sed "s/{tenths}/$(next "$PHONE/tenths")/" "$PHONE/battery";;
  power) echo "  mWakefulness=$(cat "$PHONE/wakefulness")";;
  package) echo "    versionName=0.1.0";;
esac""",
    "settings": """\
f="$PHONE/settings/$3"
case "$1" in
  get) if [ -e "$f" ]; then cat "$f"; else echo null; fi;;
  put) echo "$4" > "$f";;
  delete) rm -f "$f"; echo "Deleted 1 rows";;
esac""",
    "input": """\
case "$2" in KEYCODE_WAKEUP) echo Awake;; KEYCODE_SLEEP) echo Asleep;; esac > "$PHONE/wakefulness\"""",
    "pm": '[ -e "$PHONE/app" ] && echo "package:/data/app/base.apk"',
    "run-as": '[ -e "$PHONE/run-as-broken" ] && exit 1; shift; cd "$PHONE/app" && exec "$@"',
    "logcat": "echo 'F libc: Fatal signal 11 (SIGSEGV)'",
    "taskset": 'echo "$1" >> "$PHONE/masks"; shift; exec "$@"',
    "am": """\
case "$1" in
  instrument) exec "$PYTHON" -I -S "$HERE/fake_app.py" "$5";;
  force-stop) [ -e "$PHONE/app.pid" ] && kill -9 "$(cat "$PHONE/app.pid")"; rm -f "$PHONE/app.pid";;
esac""",
    "arm": 'exec "$PYTHON" -I -S "$HERE/fake_binary.py" "$@"',
}


class FakePhone:
    """Its state is files in a folder; `daemon` is its end of the cable.

    Args:
        folder: of its own.
        clocks: highest clock by core, MHz.
        app: whether the sample app is installed.
    """

    def __init__(self, folder: Path, clocks: dict[int, int] | None = None, *, app: bool = True) -> None:
        self.folder, self.root, self.faults = folder, folder / "root", Faults()
        programs = folder / "bin"
        for place in (
            programs,
            folder / "settings",
            folder / "answers",
            self.root / "data/local/tmp",
            self.root / "proc",
        ):
            place.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        for core, clock in (CLOCKS if clocks is None else clocks).items():
            place = self.root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            place.mkdir(parents=True)
            (place / "cpuinfo_max_freq").write_text(f"{clock * 1000}\n")
        if app:
            (folder / "app").mkdir()
        (self.root / "proc/meminfo").write_text("MemTotal:        3825108 kB\nMemFree:  99 kB\n")
        self.say(battery=BATTERY, tenths="285", thermal="0", wakefulness="Asleep")
        self.say(**{"app.behaviour": "", "binary.behaviour": ""})
        self.properties(PROPERTIES)
        (folder / "settings/stay_on_while_plugged_in").write_text("3\n")
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PHONE": str(folder),
            "PYTHON": sys.executable,
            "HERE": str(HERE),
        }
        self.daemon = _Phone(self.root, environment, self.faults)

    def say(self, **state: str) -> None:
        """Set files of its state: what `dumpsys` tells, one value a line, and how the programs behave."""
        for name, value in state.items():
            (self.folder / name).write_text(value + "\n")

    def properties(self, values: dict[str, str]) -> None:
        (self.folder / "properties").write_text("".join(f"[{key}]: [{value}]\n" for key, value in values.items()))

    def state(self) -> dict[str, object]:
        """All that a visit may change, to be compared before and after."""
        return {
            "settings": {path.name: path.read_text() for path in (self.folder / "settings").iterdir()},
            "screen": (self.folder / "wakefulness").read_text(),
            "files": sorted(str(path.relative_to(self.root)) for path in (self.root / "data").rglob("*")),
            "of the app": sorted(
                str(path.relative_to(self.folder))
                for folder in (self.folder / "app", self.root / "sdcard")
                for path in folder.rglob("*")
                if path.is_file()
            ),
            "running": [process.args for process in self.daemon.running()],
        }


class _Phone(Daemon):
    """Runs ARM programs by their stand-in: a copied binary is ARM's, and this machine is not."""

    def mapped(self, text: str) -> str:
        here = super().mapped(text)
        program = f"{self.root}/data/local/tmp/mobile-distill/benchmark_model"
        return here.replace(f" {program} --", f" arm {program} --")


def write_binary(path: Path, machine: int = 183, bits: int = 2) -> Path:
    """The header of an ELF file for a machine (183: arm64), and nothing that could run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<4sBBB9xHH", b"\x7fELF", bits, 1, 1, 3, machine) + b"\0" * 4000)
    path.chmod(path.stat().st_mode & ~stat.S_IXUSR)
    return path
