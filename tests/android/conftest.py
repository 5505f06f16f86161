"""Kotlin on this PC: the core and its tests, compiled once for each state of their sources."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.workplace import Workplace

SAMPLE = Path(__file__).parents[2] / "android_sample"
_CORE = SAMPLE / "inference/src/main/kotlin/org/mobiledistill/inference/core"
_TESTS = SAMPLE / "core-tests/src/test"


def missing(*tools: str) -> None:
    """Skip where a tool is not installed; in CI all of them are, so there that is a failure."""
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(lacking)}")


def module_of(place: Workplace, name: str) -> Path:
    """A folder that looks like an Android module."""
    module = place.root / name
    (module / "src/main").mkdir(parents=True, exist_ok=True)
    return module


def litert() -> Path:
    """The runtime's shared library, the one that Python's answers come from."""
    import ai_edge_litert

    return Path(ai_edge_litert.__path__[0]) / "libLiteRt.so"


@dataclass(frozen=True)
class Kotlin:
    """The compiled core with its tests."""

    classpath: str

    def test(self, *classes: str, **properties: object) -> str:
        """Run JUnit classes of the core with system properties `distill.NAME`; what they print."""
        done = subprocess.run(
            [
                *("java", "-Xmx600m", "-XX:+UseSerialGC", "-cp", self.classpath),
                *(f"-Ddistill.{name}={value}" for name, value in properties.items()),
                "org.junit.runner.JUnitCore",
                *(f"org.mobiledistill.inference.core.{name}" for name in classes),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="session")
def toolchain() -> ModuleType:
    """`android_sample/toolchain.py`."""
    missing("java", "mvn")
    sys.path.insert(0, str(SAMPLE))
    import toolchain as module

    return module


@pytest.fixture(scope="session")
def kotlin(toolchain: ModuleType) -> Kotlin:
    cache = toolchain.cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
        tools = toolchain.Toolchain(cache)
        tests = _TESTS / "kotlin"
        compiled = cache / f"core-{toolchain.digest_of([_CORE, tests], tools.folder.name)}"
        libraries = [tools.jar(name) for name in ("junit", "hamcrest-core", "jna")]
        if not compiled.is_dir():
            for old in cache.glob("core-*"):
                shutil.rmtree(old)
            beside = cache / "core.tmp"
            shutil.rmtree(beside, ignore_errors=True)
            # Nothing of Android is on the path: the core compiles without.
            tools.kotlinc([_CORE, tests], beside, libraries)
            beside.rename(compiled)
    parts = [compiled, _TESTS / "resources", tools.jar("kotlin-stdlib"), *libraries]
    return Kotlin(os.pathsep.join(map(str, parts)))
