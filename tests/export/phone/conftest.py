"""A real `adb` with a server of its own, phones on nobody's desk, and a run whose files are to be timed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from distill.core.console import run_command
from distill.core.progress import Progress
from distill.core.run import Run
from export.bench import benchmark
from export.files import Exporter, open_artifact
from tests.export.phone.fake_phone import FakePhone
from tests.workplace import Workplace


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program; its server listens on a port of ours and has keys of its own, and is ended with the tests."""
    program = shutil.which("adb")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no adb: see .ci/run")
        pytest.skip("needs Android's adb (Debian and Ubuntu: apt install adb)")
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        free.close()
        home = tmp_path_factory.mktemp("home")
        for name in ("HOME", "ANDROID_SDK_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home))
        patch.delenv("ANDROID_SERIAL", raising=False)
        subprocess.run([program, "start-server"], check=True, capture_output=True, timeout=60)
        try:
            listed = subprocess.run([program, "devices"], check=True, capture_output=True, text=True, timeout=60).stdout
            if listed.strip().splitlines()[1:]:
                pytest.skip("a real phone is connected: it is not disturbed")
            yield program
        finally:
            subprocess.run([program, "kill-server"], check=False, capture_output=True, timeout=60)


@dataclass
class Table:
    """Where phones are plugged in."""

    adb: str
    stack: ExitStack

    def plug(self, phone: FakePhone) -> str:
        """Switch a phone on and connect it; its serial."""
        self.stack.enter_context(phone.daemon)
        serial = f"127.0.0.1:{phone.daemon.port}"
        self.stack.callback(self._call, "disconnect", serial)
        self._call("connect", serial)
        return serial

    def again(self, phone: FakePhone) -> None:
        """Plug in a phone that was unplugged."""
        phone.daemon.plug_in()
        serial = f"127.0.0.1:{phone.daemon.port}"
        self._call("disconnect", serial)
        self._call("connect", serial)

    def _call(self, *arguments: str) -> None:
        with suppress(subprocess.TimeoutExpired):  # a phone that does not answer; the server knows of it all the same
            subprocess.run([self.adb, *arguments], check=False, capture_output=True, timeout=4)


@pytest.fixture
def table(adb: str) -> Iterator[Table]:
    with ExitStack() as stack:
        yield Table(adb, stack)


@pytest.fixture(scope="session")
def exported(finished: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, to be copied again by whoever writes into it, and what its files answer."""
    root = tmp_path_factory.mktemp("exported")
    shutil.copytree(finished.root / "runs/teacher", root / "run")
    run, progress = Run(root / "run"), Progress(Console(quiet=True))
    exporter = Exporter(run, progress)
    (root / "answers").mkdir()
    for name in ("tflite-int8", "tflite-float32"):
        manifest = exporter.make(name)
        with open_artifact(run, manifest, 1) as opened:
            answers = opened.run(exporter.examples(manifest["image_size"], 8))
        (root / "answers" / manifest["sha256"]).write_bytes(answers.tobytes())
        (root / "answers" / f"{manifest['sha256']}.json").write_text(json.dumps([1, *answers.shape[1:]]))
    return root


@dataclass
class Bench:
    """`distill bench --device adb` as a call: what the user sees, and the exit code."""

    run: Path
    said: Callable[[], str]

    def __call__(self, *names: str, device: str = "adb", binary: Path | None = None, expect: int = 0) -> str:
        def work() -> None:
            options = {"benchmark_model": [binary]} if binary else {}
            benchmark(Run(self.run), Progress(Console(width=400)), names or ["tflite-int8"], device, options)

        code = run_command(work)
        said = self.said()
        assert code == expect, said
        return said

    def settings(self, **values: int) -> None:
        """Change the benchmark's settings in the run's config."""
        config = self.run / "config.yaml"
        text = config.read_text()
        for name, value in values.items():
            head, _, tail = text.partition("benchmark:\n")
            lines = [f"  {name}: {value}" if line.startswith(f"  {name}:") else line for line in tail.splitlines()]
            text = f"{head}benchmark:\n" + "\n".join(lines) + "\n"
        config.write_text(text)

    @property
    def document(self) -> dict:
        return json.loads((self.run / "benchmark/benchmark-adb.json").read_text())

    @property
    def log(self) -> str:
        return (self.run / "benchmark/adb.log").read_text()


@pytest.fixture
def bench(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    shutil.copytree(exported / "run", tmp_path / "run")

    def said() -> str:
        out, err = capsys.readouterr()
        return out + err

    return Bench(tmp_path / "run", said)


@pytest.fixture
def make_phone(exported: Path, tmp_path: Path) -> Callable[..., FakePhone]:
    """A new phone; a slow one of a single core unless told otherwise."""
    number = iter(range(10))

    def make(clocks: dict[int, int] | None = {0: 1300}, *, app: bool = True) -> FakePhone:  # noqa: B006
        phone = FakePhone(tmp_path / f"phone{next(number)}", clocks, app=app)
        shutil.copytree(exported / "answers", phone.folder / "answers", dirs_exist_ok=True)
        return phone

    return make
