"""Each fault, what the user sees of it, and that the phone is left as it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from export.table import benchmark_table
from tests.export.phone.conftest import Bench, Table
from tests.export.phone.fake_phone import FakePhone, write_binary
from tests.export.phone.faults import FAULTS, HOSTILE, Fault, markdown

MakePhone = Callable[..., FakePhone]
DOCUMENT = Path(__file__).parents[3] / "docs/benchmark-on-a-phone.md"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr("export.phone.app.JOB_S", 3.0)
    monkeypatch.setattr("export.phone.benchmark_model.JOB_S", 3.0)
    monkeypatch.setattr("export.phone.desk.RETURN_S", 3.0)
    monkeypatch.setattr("export.phone.rounds.COOL_S", 0.4)
    monkeypatch.setattr("export.phone.rounds.POLL_S", 0.1)


def seen(pattern: str, said: str) -> bool:
    parts = [re.escape(part) for part in " ".join(pattern.split()).split("…")]
    return re.search(".*?".join(parts), " ".join(said.split()), re.IGNORECASE) is not None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(
    fault: Fault, table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "a command hangs" in fault.name:
        monkeypatch.setattr("export.phone.adb.QUICK_S", 2.0)
    phone = make_phone(app=fault.way != "binary")
    fault.arrange(phone)
    table.plug(phone)
    before = phone.state()
    bench.settings(rounds=fault.rounds)
    binary = write_binary(tmp_path / "program") if fault.way != "app" else None
    said = bench(binary=binary, expect=fault.code)
    if fault.code == 0:
        shown = Console(width=400)
        shown.print(benchmark_table(bench.document))
        said += bench.said()
    for pattern in fault.sees:
        assert seen(pattern, said), f"{pattern}\n--- said:\n{said}"
    assert "Traceback" not in said
    if fault.state != "as before":
        assert phone.state() != before
        phone.faults.unplug_at = None
        table.again(phone)
        phone.say(**{"app.behaviour": "refuses"})
        bench(expect=3)
    wait_for_end(phone)
    assert phone.state() == before


def wait_for_end(phone: FakePhone) -> None:
    """What was ended needs a moment to be gone."""
    end = time.monotonic() + 10
    while phone.state()["running"] and time.monotonic() < end:
        time.sleep(0.05)


def test_no_phone(adb: str, bench: Bench) -> None:
    assert seen("adb sees no phone: connect one by USB, switch on", bench(expect=2))


def test_several_phones(table: Table, bench: Bench, make_phone: MakePhone) -> None:
    phones = [make_phone(), make_phone()]
    serials = [table.plug(phone) for phone in phones]
    said = bench(expect=2)
    assert seen("adb sees 2 phones, …(device), …(device): name one with --device adb:SERIAL", said)
    assert all(serial in said for serial in serials)
    assert all(not phone.daemon.commands for phone in phones)
    bench(device=f"adb:{serials[1]}")
    assert not phones[0].daemon.commands and phones[1].daemon.commands


def test_a_serial_is_compared_and_never_run(
    table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    phone = make_phone()
    serial = table.plug(phone)
    for named in (HOSTILE, "-H", "--help", f"{serial} ; reboot"):
        said = bench(device=f"adb:{named}", expect=2)
        assert f"adb knows no phone {named!r}; it lists {serial} (device)" in said
    assert not phone.daemon.commands and not list(tmp_path.rglob("PWNED"))


def test_names_of_files_here_never_reach_the_phones_shell(
    table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    phone = make_phone()
    table.plug(phone)
    before = phone.state()
    bench.run = bench.run.rename(tmp_path / HOSTILE)
    binary = write_binary(tmp_path / f"-s {HOSTILE}.d" / "-p a b\nc")
    bench(binary=binary)
    assert len(bench.document["rows"]) == 2
    assert phone.state() == before
    assert not [command for command in phone.daemon.commands if "PWNED" in command]
    assert not list(tmp_path.rglob("PWNED"))


def test_no_adb(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PATH", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert "found no `adb` on PATH or in ANDROID_HOME: install Android's platform-tools" in bench(expect=2)


def test_neither_app_nor_binary(table: Table, bench: Bench, make_phone: MakePhone) -> None:
    phone = make_phone(app=False)
    table.plug(phone)
    before = phone.state()
    said = bench(expect=2)
    assert "nothing on the phone can run a file: install the sample app (org.mobiledistill.sample" in said
    assert phone.state() == before


@pytest.mark.parametrize(
    ("machine", "bits", "says"),
    [
        (62, 2, "none runs on this phone, which takes arm64-v8a, armeabi-v7a, armeabi: program is for x86_64"),
        (0, 2, "none runs on this phone, which takes arm64-v8a, armeabi-v7a, armeabi: found no Android program in it"),
        (None, 0, "there is no such file or folder"),
    ],
)
def test_a_binary_for_another_phone(
    table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path, machine: int | None, bits: int, says: str
) -> None:
    phone = make_phone()
    table.plug(phone)
    before = phone.state()
    if machine is not None:
        write_binary(tmp_path / "program", machine, bits)
    assert says in bench(binary=tmp_path / "program", expect=2)
    assert phone.state() == before


def test_two_visits_at_once(table: Table, bench: Bench, make_phone: MakePhone) -> None:
    from export.phone.desk import _alone

    phone = make_phone()
    serial = table.plug(phone)
    with _alone(serial):
        assert f"another `distill bench` of this machine uses the phone {serial}" in bench(expect=2)


@pytest.mark.parametrize(
    ("way", "how"),
    [("app", signal.SIGINT), ("binary", signal.SIGINT), ("app", signal.SIGHUP), ("binary", signal.SIGKILL)],
)
def test_stopped_in_the_middle(
    table: Table, bench: Bench, make_phone: MakePhone, tmp_path: Path, how: signal.Signals, way: str
) -> None:
    phone = make_phone(app=way == "app")
    phone.say(**{f"{way}.behaviour": "hangs"})
    table.plug(phone)
    before = phone.state()
    command = [
        sys.executable,
        "-m",
        "distill",
        "bench",
        "--device",
        "adb",
        "--run",
        str(bench.run),
        "--file",
        "tflite-int8",
    ]
    if way == "binary":
        command += ["--benchmark-model", str(write_binary(tmp_path / "program"))]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    end = time.monotonic() + 120
    while not any("am instrument" in text or "--graph=" in text for text in phone.daemon.commands):
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.1)
    time.sleep(0.5)
    assert phone.state() != before
    os.killpg(process.pid, how)  # as a terminal does
    if how == signal.SIGINT:  # and again by an impatient user, while things are put back
        while not any("force-stop" in text for text in phone.daemon.commands):
            assert time.monotonic() < end and process.poll() is None, process.communicate()
            time.sleep(0.005)
        os.killpg(process.pid, how)
    said, _ = process.communicate(timeout=60)
    if how == signal.SIGKILL:  # nobody could put anything back: the next visit does
        phone.say(**{f"{way}.behaviour": "refuses"})
        bench(expect=3, binary=tmp_path / "program" if way == "binary" else None)
    else:
        assert process.returncode == 130, said
        assert "stopped; finished work is kept" in said and "NOT put back" not in said
    wait_for_end(phone)
    assert phone.state() == before


def test_the_documents_table_is_this_list() -> None:
    assert markdown() in DOCUMENT.read_text(encoding="utf-8"), "put `python -m tests.export.phone.faults` into it"
