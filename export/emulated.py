"""The aarch64 build of LiteRT under QEMU: instructions that an inference takes, and its answers.

Instructions retired are no time: an in-order cortex-a53 and an out-of-order cortex-a76 need another number of cycles
for the same ones, and neither caches nor clocks are emulated. But they are the same on every machine and in every run,
so that a change of one percent is a change of the file or of the runtime's kernels.

XNNPACK chooses its kernels by what it reads of the processor: `-cpu` decides what instructions there are, and a
/proc/cpuinfo in the emulated machine's folder says the same.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from distill.core.cached import cache_folder, made_once
from distill.core.errors import ArtifactError, UserError
from distill.core.files import digest_of, sha256_of
from distill.core.progress import Progress
from distill.core.types import Images

__all__ = ["CORES", "Counted", "Emulator", "set_up"]

CORES: Final = {
    "cortex-a53": ("0xd03", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}
"""By QEMU's name the part number and the features that Linux shows: a small core, without dot products, and a large one
with them."""

_PARTS: Final = Path(__file__).parent / "arm"
_ARM_PACKAGES: Final = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1", "libatomic1")
_TIMEOUT_S: Final = 600
_Command = Sequence[str | int | Path]


class Counted(NamedTuple):
    """What one file did on one core.

    Args:
        instructions: of single inferences of the first image, one thread, without the marks' own.
        answers: of all images, as the file gives them, [N, ...].
    """

    instructions: list[int]
    answers: npt.NDArray[Any]


class Emulator:
    """The emulated machine that `set_up` has made.

    Raises:
        UserError: it has not been made.
    """

    def __init__(self) -> None:
        self._folder = _folder()
        if not self._folder.is_dir():
            raise UserError(
                "the emulated ARM machine is not set up: `distill export arm-setup` does it once (Debian or Ubuntu,"
                " about 55 MB to load and 180 MB in the cache, a minute)"
            )
        self._qemu = json.loads((self._folder / "made.json").read_text(encoding="utf-8"))

    @property
    def described(self) -> str:
        """Versions of what emulates and of what is emulated."""
        return f"{self._qemu['version']}, LiteRT {version('ai-edge-litert')} for aarch64"

    def run(self, file: Path, images: Images, core: str, runs: int = 3) -> Counted:
        """Count the instructions of a TFLite file of one input and one output.

        Args:
            file: of the same input as the images.
            images: of the input's dtype, [N, ...].
            core: of CORES.
            runs: counted inferences.

        Raises:
            ArtifactError: it does not open there.
        """
        with tempfile.TemporaryDirectory(prefix="distill-") as work:
            shown, said, log = (Path(work) / name for name in ("shown.npy", "said.npy", "counts.txt"))
            np.save(shown, images, allow_pickle=False)
            arguments: _Command = [_PARTS / "inside.py", file.resolve(), shown, said, runs]
            done = _emulate(self._folder, self._qemu["qemu"], core, arguments, log)
            if done.returncode != 0:
                how = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
                raise ArtifactError(f"{file.name}: the emulated {core} did not run it ({how[0][:300]})")
            counts = _pairs(log)
            assert len(counts) == 2 * runs, counts
            nothing = int(np.median(counts[:runs]))
            answers: npt.NDArray[Any] = np.load(said, allow_pickle=False)
        return Counted([count - nothing for count in counts[runs:]], answers)


def set_up(progress: Progress) -> Path:
    """Make the emulated machine in the user's cache, unless it is there: packages of Debian and wheels for aarch64.

    Nothing is installed: packages are unpacked into the folder.

    Raises:
        UserError: this is no Debian with gcc and its package lists, or something could not be fetched.
    """
    needed = {"apt-get": "apt", "dpkg": "dpkg", "gcc": "gcc"}
    missing = [package for program, package in needed.items() if shutil.which(program) is None]
    if sys.platform != "linux" or missing:
        raise UserError(
            f"the emulated ARM machine is made of Debian's packages, on Debian or Ubuntu; missing: {', '.join(missing)}"
        )

    def make(folder: Path) -> None:
        progress.console.print("  fetching QEMU", highlight=False)
        qemu = _fetch_qemu(folder)
        plugin: list[str | Path] = ["-o", folder / "instructions.so", _PARTS / "instructions.c"]
        _run(["gcc", "-O2", "-shared", "-fPIC", "-Wall", *plugin], "compile the plugin")
        progress.console.print("  fetching a user land for aarch64", highlight=False)
        _fetch_user_land(folder)
        progress.console.print("  fetching LiteRT for aarch64", highlight=False)
        wheels = folder / "download"
        _fetch_wheels(wheels, _python(folder).name.removeprefix("python"))
        for wheel in wheels.glob("*.whl"):
            shutil.unpack_archive(wheel, folder / "wheels", "zip")
        shutil.rmtree(wheels)
        for core in CORES:
            _write_core(folder, core)
        said = _run([folder / qemu, "--version"], "run QEMU", folder)
        found = {"qemu": qemu, "version": said.splitlines()[0].split(" (")[0].replace("qemu-aarch64 version", "QEMU")}
        (folder / "made.json").write_text(json.dumps(found), encoding="utf-8")
        _try(folder, qemu)

    return made_once(_folder().name, make)


def _folder() -> Path:
    """Named after what it is made of, so that another version of LiteRT gets a machine of its own."""
    parts = [version("ai-edge-litert"), _ARM_PACKAGES, CORES, sha256_of(_PARTS / "instructions.c"), platform.machine()]
    return cache_folder() / f"arm-{digest_of(parts)[:16]}"


def _fetch_qemu(folder: Path) -> str:
    """Where qemu-aarch64 is: Debian's dynamic one, since static builds take no plugins."""
    said = _run(
        ["apt-get", "--simulate", "--no-install-recommends", "install", "qemu-user"], "find QEMU (`apt-get update`?)"
    )
    missing = re.findall(r"^Inst (\S+)", said, re.M)
    if not missing:
        return str(shutil.which("qemu-aarch64"))
    packages = folder / "download"
    packages.mkdir()
    _run(["apt-get", "-o", "APT::Sandbox::User=", "download", *missing], "fetch QEMU", packages)
    for package in packages.glob("*.deb"):
        _run(["dpkg", "-x", package, folder / "host"], "unpack QEMU")
    shutil.rmtree(packages)
    for other in (folder / "host" / "usr" / "bin").iterdir():  # 90 MB of other processors
        if other.name != "qemu-aarch64":
            other.unlink()
    return "host/usr/bin/qemu-aarch64"


def _fetch_user_land(folder: Path) -> None:
    """libc, libstdc++ and Python for arm64, by an apt with a state of its own: this machine's is not touched."""
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    settings: dict[str, str | Path] = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*apt, "update"], "read Debian's list of packages for arm64")
    _run([*apt, "--yes", "--download-only", "install", *_ARM_PACKAGES], "fetch Debian's packages for arm64")
    for package in (state / "cache" / "archives").glob("*.deb"):
        _run(["dpkg", "-x", package, folder / "root"], "unpack Debian's packages for arm64")
    shutil.rmtree(state)


def _fetch_wheels(folder: Path, python: str) -> None:
    """LiteRT as it is installed here, and NumPy, for aarch64 and that version of Python."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--no-deps"]
    pip += ["--only-binary=:all:", "--python-version", python]
    for tag in ("manylinux2014", "manylinux_2_27", "manylinux_2_28"):
        pip += ["--platform", f"{tag}_aarch64"]
    wanted = [f"ai-edge-litert=={version('ai-edge-litert')}", f"numpy=={_numpy_for(python)}"]
    _run([*pip, *wanted], "fetch LiteRT for aarch64")


def _write_core(folder: Path, core: str) -> None:
    """The folder that the emulator shows as /, with the processor that it emulates instead of this machine's."""
    root = folder / "cores" / core
    (root / "proc").mkdir(parents=True)
    (root / "sys" / "devices").mkdir(parents=True)
    for name in sorted(path.name for path in (folder / "root").iterdir() if path.name in {"lib", "usr"}):
        (root / name).symlink_to(Path("../../root") / name)
    part, features = CORES[core]
    lines = {
        "processor": "0",
        "BogoMIPS": "38.40",
        "Features": features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": part,
        "CPU revision": "4",
    }
    text = "".join(f"{key}\t: {value}\n" for key, value in lines.items())
    (root / "proc" / "cpuinfo").write_text(text, encoding="utf-8")


def _try(folder: Path, qemu: str) -> None:
    """Import the runtime and count something, so that what is broken says so now.

    Raises:
        UserError: it does not work.
    """
    log = folder / "try.txt"
    script = "import os, ai_edge_litert.interpreter; os.getppid(); sum(range(1000)); os.getppid()"
    done = _emulate(folder, qemu, "cortex-a53", ["-c", script], log)
    counts = _pairs(log) if log.exists() else []
    if done.returncode != 0 or len(counts) != 1 or not 5_000 < counts[0] < 500_000:
        raise UserError(f"the emulated ARM machine does not work: {(done.stderr or str(counts)).strip()[-400:]}")
    log.unlink()


def _emulate(folder: Path, qemu: str, core: str, arguments: _Command, log: Path) -> subprocess.CompletedProcess[str]:
    root = folder / "cores" / core
    command = [folder / qemu, "-cpu", core, "-L", root, "-plugin", folder / "instructions.so"]
    command += ["-d", "plugin", "-D", log]
    # The emulated program gets nothing of this machine's settings, which may name its libraries.
    for setting in (
        f"PYTHONHOME={root}/usr",
        f"PYTHONPATH={folder}/wheels",
        "PYTHONDONTWRITEBYTECODE=1",
        "TF_CPP_MIN_LOG_LEVEL=3",
    ):
        command += ["-E", setting]
    command += ["-U", "LD_LIBRARY_PATH", _python(folder), *arguments]
    environment = _environment(folder)
    try:
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(f"the emulated {core} gave no answer within {_TIMEOUT_S} s") from error


def _environment(folder: Path) -> dict[str, str]:
    """Of the emulator itself, which may bring libraries of its own."""
    found = {"PATH": os.environ.get("PATH", ""), "HOME": str(Path.home()), "LANG": "C.UTF-8"}
    libraries = sorted({str(path.parent) for path in (folder / "host").rglob("*.so*")})
    return {**found, "LD_LIBRARY_PATH": ":".join(libraries)} if libraries else found


def _python(folder: Path) -> Path:
    (found,) = (folder / "root" / "usr" / "bin").glob("python3.[0-9]*")
    return found


def _numpy_for(python: str) -> str:
    """The newest NumPy that still has wheels for this Python and a libc as old as Debian's."""
    return "2.2.6" if python in {"3.10", "3.11"} else version("numpy")


def _pairs(log: Path) -> list[int]:
    """Instructions between the first mark and the second, the third and the fourth, and so on."""
    found = [int(count) for count in re.findall(r"^instructions (\d+)$", log.read_text(encoding="utf-8"), re.M)]
    return found[1::2]


def _run(command: _Command, what: str, folder: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    if folder is not None and (folder / "host").is_dir():
        environment |= _environment(folder)
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise UserError(f"could not {what}: `{command[0]}` ended with exit code {done.returncode}: {said}")
    return done.stdout
