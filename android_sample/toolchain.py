"""Compilers that need no Gradle: fetched once from Maven Central, each held to its SHA-256, and how they are called.

Standard library alone, so that `python build_apk.py` runs on any Python from 3.10 on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["Artifacts", "ToolError", "Toolchain", "cache_folder", "digest_of", "run"]

_HERE = Path(__file__).resolve().parent
_COMPILER = ("kotlin-compiler-embeddable", "kotlin-stdlib", "kotlin-script-runtime", "kotlin-daemon-embeddable",
             "kotlin-reflect", "kotlinx-coroutines-core-jvm", "annotations")  # fmt: skip
_PROGUARD = ("proguard-base", "proguard-core", "kotlin-metadata-jvm", "gson", "json", "log4j-api", "log4j-core",
             "kotlin-stdlib")  # fmt: skip
# Short runs: the second compiler and the parallel collector cost more than they bring (kotlinc 23 -> 10 s).
_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1200m")


class ToolError(Exception):
    """A tool is missing or failed; the text says which, and what to do."""


def cache_folder() -> Path:
    """Where fetched and compiled things are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mobile-distill" / "android"


def run(command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a tool and give what it printed.

    Raises:
        ToolError: it is not installed, or ended with another exit code than 0.
    """
    if shutil.which(command[0]) is None:
        raise ToolError(f"`{command[0]}` is not installed{_where(command[0])}")
    done = subprocess.run(
        list(command), cwd=cwd, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ToolError(f"`{Path(command[0]).name}` ended with exit code {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def _where(tool: str) -> str:
    packages = {"aapt2": "aapt", "zipalign": "zipalign", "apksigner": "apksigner", "mvn": "maven",
                "java": "default-jdk", "javac": "default-jdk", "keytool": "default-jdk"}  # fmt: skip
    return f"; on Debian and Ubuntu: apt-get install {packages[tool]}" if tool in packages else ""


def digest_of(paths: Iterable[Path], *more: str) -> str:
    """SHA-256 over names and contents of files and folders, and further text; 16 hex digits of it."""
    digest = hashlib.sha256("\0".join(more).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.relative_to(path.parent).as_posix()}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Artifacts:
    """What a file in `tools/` names, fetched once.

    Args:
        cache: folder that is kept between runs.
        name: of `tools/NAME.xml`, which says what is fetched, and `tools/NAME.txt`, which has the SHA-256 of each.

    Raises:
        ToolError: Maven or Java is not installed, an artifact cannot be had or is not what it was.
    """

    def __init__(self, cache: Path, name: str) -> None:
        self._pom, self._checksums = (_HERE / "tools" / f"{name}.{suffix}" for suffix in ("xml", "txt"))
        self.cache = cache
        self.folder = cache / f"{name}-{digest_of([self._pom, self._checksums])}"
        if not self.folder.is_dir():
            self._fetch()

    def jar(self, name: str) -> Path:
        """A fetched artifact by its name without version; of an Android library the classes."""
        for file in self.jars():
            if file.stem.startswith(f"{name}-") and file.stem[len(name) + 1].isdigit():
                return file
        raise ToolError(f"{self._pom.name} names no {name}")

    def jars(self) -> list[Path]:
        """All of them."""
        return sorted(self.folder.glob("*.jar"))

    def aar(self, name: str) -> Path:
        """A fetched Android library."""
        return self.jar(name).with_suffix(".aar")

    def _fetch(self) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        expected = dict(line.split()[::-1] for line in self._checksums.read_text(encoding="utf-8").splitlines())
        with tempfile.TemporaryDirectory(dir=self.cache) as place:
            folder = Path(place) / "fetched"
            run(["mvn", "-B", "-ntp", "-q", "-f", str(self._pom), "dependency:copy", f"-DoutputDirectory={folder}"])
            found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    raise ToolError(
                        f"{name}: SHA-256 {found.get(name, 'of nothing, it did not come')},"
                        f" {self._checksums.name} says {expected.get(name, 'nothing of it')}"
                    )
            for aar in folder.glob("*.aar"):
                with zipfile.ZipFile(aar) as packed:
                    aar.with_suffix(".jar").write_bytes(packed.read("classes.jar"))
            if not self.folder.is_dir():  # another process may have been faster
                folder.rename(self.folder)


class Toolchain(Artifacts):
    """Compilers, Android's classes and the runtime, as `tools/build.xml` names them.

    Args:
        cache: folder that is kept between runs.

    Raises:
        ToolError: Maven or Java is not installed, an artifact cannot be had or is not what it was.
    """

    def __init__(self, cache: Path) -> None:
        super().__init__(cache, "build")

    def kotlinc(self, sources: Sequence[Path], into: Path, classpath: Sequence[Path], *options: str) -> None:
        """Compile Kotlin to class files of Java 8; warnings are errors.

        Raises:
            ToolError: with what the compiler says.
        """
        self.java(
            _COMPILER,
            "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
            *("-no-stdlib", "-no-reflect", "-jvm-target", "1.8", "-Xjdk-release=8", "-Werror"),
            *("-cp", _joined([self.jar("kotlin-stdlib"), *classpath])),
            *("-d", str(into)),
            *options,
            *map(str, sources),
        )

    def proguard(self, configuration: Path) -> None:
        """Shrink by a configuration file."""
        self.java(_PROGUARD, "proguard.ProGuard", f"@{configuration}")

    def java(self, jars: Sequence[str], main: str, *arguments: str) -> str:
        """Run a class of fetched artifacts."""
        return run(["java", *_JAVA, "-cp", _joined([self.jar(name) for name in jars]), main, *arguments])


def _joined(paths: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, paths))
