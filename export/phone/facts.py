"""What a phone says of itself: model, processor and its clusters of cores, memory, heat and battery."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

from distill.core.errors import DeviceError
from export.phone.adb import Adb

__all__ = ["THERMAL", "Cluster", "Conditions", "Phone", "read_conditions", "read_phone"]

THERMAL: Final = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Names of Android's thermal status, 0 to 6; from 1 on the phone slows itself down."""
_CHARGING: Final = {"1": "unknown", "2": "charging", "3": "discharging", "4": "not charging", "5": "full"}
_BETWEEN: Final = "== battery =="
_PROPERTIES: Final = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.product.cpu.abilist",
    "ro.product.cpu.abi",
)
_CPUS: Final = "/sys/devices/system/cpu"


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind.

    Args:
        cores: their numbers, ascending.
        max_mhz: highest clock.
    """

    cores: tuple[int, ...]
    max_mhz: int

    @property
    def mask(self) -> str:
        """For `taskset`: hexadecimal, one bit a core."""
        return f"{sum(1 << core for core in self.cores):x}"

    def __str__(self) -> str:
        first, last = self.cores[0], self.cores[-1]
        whole = self.cores == tuple(range(first, last + 1))
        cores = ",".join(map(str, self.cores)) if not whole else str(first) if first == last else f"{first}-{last}"
        return f"cpu{cores} {self.max_mhz / 1000:.1f} GHz"


@dataclass(frozen=True)
class Phone:
    """One phone; None where it does not say."""

    model: str
    soc: str | None
    abis: tuple[str, ...]
    """What its system runs, best first."""
    android: str
    sdk: int
    page_size: int | None
    """Bytes."""
    memory_mb: float | None
    """RAM, in MB of 1,000,000 bytes."""
    cores: int
    clusters: tuple[Cluster, ...]
    """Slowest first; none where the clocks cannot be read."""

    def as_dict(self) -> dict[str, Any]:
        """For the document: clusters by their names."""
        return {**asdict(self), "abis": list(self.abis), "clusters": [str(cluster) for cluster in self.clusters]}


@dataclass(frozen=True)
class Conditions:
    """How warm the phone is and what feeds it; None where it does not say."""

    thermal_status: int | None
    """0 to 6, see THERMAL; Android 10 and later."""
    battery_c: float | None
    battery_percent: int | None
    charging: str | None
    """charging, discharging, not charging, full or unknown."""
    powered: str | None
    """AC, USB, Wireless, Dock, or battery."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        parts = []
        if self.thermal_status is not None:
            parts.append(f"thermal status {self.thermal_status} ({THERMAL[self.thermal_status]})")
        if self.battery_c is not None:
            parts.append(f"battery {self.battery_c:.1f} °C")
        if self.battery_percent is not None:
            parts.append(f"{self.battery_percent} %, {self.charging}, on {self.powered}")
        return ", ".join(parts) or "the phone does not tell its temperature"


def read_phone(adb: Adb) -> Phone:
    """Ask a phone what it is.

    Raises:
        DeviceError: it went away, or does not answer as Android does.
    """
    # These alone: all of them would put the phone's serial and its owner's accounts into the log.
    said = adb.script('for p in "$@"; do echo "$p=$(getprop "$p")"; done', *_PROPERTIES).text
    properties = {key: value.strip() for key, _, value in (line.partition("=") for line in said.splitlines())}
    sdk, android = properties.get("ro.build.version.sdk", ""), properties.get("ro.build.version.release", "")
    if not sdk.isdecimal() or not android:
        raise DeviceError("the phone does not answer `getprop` as Android does: it names no version")
    abis = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
    if not abis:
        raise DeviceError("the phone names no ABI (ro.product.cpu.abilist): no file can be chosen for it")
    maker, name = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "unknown")
    soc = [properties.get(f"ro.soc.{key}", "") for key in ("manufacturer", "model")]
    board = properties.get("ro.board.platform") or properties.get("ro.hardware")
    page = adb.shell("getconf", "PAGE_SIZE")
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", adb.shell("cat", "/proc/meminfo").text, re.MULTILINE)
    cores, clusters = _cores(adb)
    return Phone(
        model=name if name.lower().startswith(maker.lower()) else f"{maker} {name}",
        soc=" ".join(filter(None, soc)) or board or None,
        abis=tuple(abis.split(",")),
        android=android,
        sdk=int(sdk),
        page_size=int(page.text) if page.code == 0 and page.text.strip().isdecimal() else None,
        memory_mb=int(memory[1]) * 1024 / 1e6 if memory else None,
        cores=cores,
        clusters=clusters,
    )


def read_conditions(adb: Adb) -> Conditions:
    """How warm it is now.

    Raises:
        DeviceError: it went away.
    """
    heat, _, battery = adb.script(f"dumpsys thermalservice; echo; echo {_BETWEEN}; dumpsys battery").text.partition(
        f"\n{_BETWEEN}\n"
    )
    thermal = _numbers(r"^\s*Thermal Status: (\d+)\s*$", heat)
    tenths = _numbers(r"^\s*temperature: (-?\d+)\s*$", battery)
    level = _numbers(r"^\s*level: (\d+)\s*$", battery)
    status = re.search(r"^\s*status: (\d)\s*$", battery, re.MULTILINE)
    sources = re.findall(r"^\s*(AC|USB|Wireless|Dock) powered: true\s*$", battery, re.MULTILINE)
    return Conditions(
        thermal_status=thermal if thermal is not None and thermal < len(THERMAL) else None,
        # A sensor that is not there reads as 0 or worse; phones stop charging below 0 and above 45.
        battery_c=tenths / 10 if tenths is not None and -300 < tenths < 1000 else None,
        battery_percent=level if level is not None and level <= 100 else None,
        charging=_CHARGING.get(status[1]) if status else None,
        powered=("+".join(sources) or "battery") if "powered:" in battery else None,
    )


def _cores(adb: Adb) -> tuple[int, tuple[Cluster, ...]]:
    """How many cores there are, and which belong together by their highest clock."""
    said = adb.script(
        f"cd {_CPUS} && for c in cpu[0-9]*; do f=$(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null); echo $c $f; done"
    ).text
    found = {int(number): clock for number, clock in re.findall(r"^cpu(\d+)(?: (\d+))?$", said, re.MULTILINE)}
    clocks = sorted((int(clock) // 1000, core) for core, clock in found.items() if clock)
    if len(clocks) != len(found):  # a core that is off, or may not be asked: no cluster can be told
        return max(len(found), 1), ()
    grouped = groupby(clocks, key=lambda pair: pair[0])
    return max(len(found), 1), tuple(Cluster(tuple(core for _, core in pairs), mhz) for mhz, pairs in grouped)


def _numbers(pattern: str, text: str) -> int | None:
    """The one number that stands there; None where there is none or where there are several different ones."""
    found = {int(number) for number in re.findall(pattern, text, re.MULTILINE)}
    return found.pop() if len(found) == 1 else None
