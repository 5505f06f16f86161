"""The phone's side of the adb protocol on loopback: enough for the real `adb` to connect, run commands and push files.

What runs is this machine's `sh`, with the fake phone's programs first on its PATH and Android's folders mapped into a
folder of the test. It can be unplugged, run full, damage what it is given, not answer, or not trust this computer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_COMMANDS = ("CNXN", "OPEN", "OKAY", "WRTE", "CLSE", "AUTH")
_CODE = {name: int.from_bytes(name.encode(), "little") for name in _COMMANDS}
_NAME = {code: name for name, code in _CODE.items()}
_VERSION, _PIECE = 0x01000001, 256 * 1024
_TOKEN = 1
MAPPED = ("/data/local/tmp", "/sdcard", "/sys/devices/system/cpu", "/proc/meminfo")


@dataclass
class Faults:
    """What is wrong with the phone; may be changed while it runs."""

    trusts: bool = True
    answers: bool = True
    shell_v2: bool = True
    """Android 7 and later."""
    room: int | None = None
    """Bytes that can be pushed."""
    damages: bool = False
    """The last byte of what is pushed arrives changed."""
    unplug_after: int | None = None
    """Bytes of a push after which the cable comes out."""
    unplug_at: str | None = None
    """Text of a command at which the cable comes out."""
    stays_away: bool = True
    """Once unplugged; else it can be reached again at once."""


class Daemon:
    """Listens on a port of loopback while the block runs; never on the one that adb takes for an emulator's.

    Args:
        root: of the phone's file system.
        environment: of its commands.
        faults: what is wrong with it.
    """

    def __init__(self, root: Path, environment: Mapping[str, str], faults: Faults) -> None:
        self.root, self.faults, self._environment = root, faults, dict(environment)
        self.port = 0
        self.commands: list[str] = []
        self.plugged = True
        self._processes: list[subprocess.Popen[bytes]] = []
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Daemon:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        for process in self.running():
            os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Commands that have not ended, whoever still listens to them."""
        return [process for process in self._processes if process.poll() is None]

    def plug_in(self) -> None:
        self.plugged = True

    def unplug(self) -> None:
        """From the loop: every connection breaks, and no new one is taken."""
        self.plugged = not self.faults.stays_away
        for link in list(self._links):
            link.abort()

    def mapped(self, text: str) -> str:
        """Text of a command with Android's folders replaced by those of the test."""
        return re.sub("|".join(map(re.escape, MAPPED)), lambda found: str(self.root) + found[0], text)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        self.commands.append(command)
        process = subprocess.Popen(
            ["sh", "-c", self.mapped(command)],
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        if not self.plugged:
            link.abort()
            return
        self._links.add(link)
        await link.run()
        self._links.discard(link)

    async def _stop(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.abort()
        await asyncio.sleep(0.05)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@dataclass(eq=False)
class _Stream:
    """One service over a connection."""

    link: _Link
    own: int
    other: int
    incoming: bytearray = field(default_factory=bytearray)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def read(self, count: int) -> bytes:
        while len(self.incoming) < count:
            if self.closed:
                raise ConnectionError
            self.news.clear()
            await self.news.wait()
        data = bytes(self.incoming[:count])
        del self.incoming[:count]
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            if self.closed:
                raise ConnectionError
            self.taken.clear()
            await self.link.send("WRTE", self.own, self.other, data[start : start + _PIECE])
            await self.taken.wait()

    def end(self) -> None:
        self.closed = True
        self.news.set()
        self.taken.set()


class _Link:
    """One connection of the adb server."""

    def __init__(self, daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._daemon, self._reader, self._writer = daemon, reader, writer
        self._streams: dict[int, _Stream] = {}
        self._services: set[asyncio.Task[None]] = set()

    def abort(self) -> None:
        self._writer.transport.abort()
        for stream in self._streams.values():
            stream.end()

    async def send(self, name: str, first: int, second: int, data: bytes = b"") -> None:
        code = _CODE[name]
        head = struct.pack("<6I", code, first, second, len(data), sum(data) & 0xFFFFFFFF, code ^ 0xFFFFFFFF)
        self._writer.write(head + data)
        await self._writer.drain()

    async def run(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                code, first, second, size, _, _ = struct.unpack("<6I", await self._reader.readexactly(24))
                data = await self._reader.readexactly(size) if size else b""
                await self._take(_NAME.get(code, ""), first, second, data)
        self.abort()

    async def _take(self, name: str, first: int, second: int, data: bytes) -> None:
        faults = self._daemon.faults
        stream = self._streams.get(second)
        if name == "CNXN" and faults.answers:
            if not faults.trusts:
                await self.send("AUTH", _TOKEN, 0, b"0123456789abcdefghij")
                return
            features = "shell_v2,cmd" if faults.shell_v2 else "cmd"
            about = f"device::ro.product.name=desk;ro.product.model=desk;ro.product.device=desk;features={features}"
            await self.send("CNXN", _VERSION, _PIECE, about.encode())
        elif name == "AUTH" and first == 2:  # a signature by a key we do not know: ask for another, then for the owner
            await self.send("AUTH", _TOKEN, 0, b"0123456789abcdefghij")
        elif name == "OPEN":
            opened = _Stream(self, len(self._services) + 1, first)
            self._streams[opened.own] = opened
            await self.send("OKAY", opened.own, opened.other)
            self._services.add(asyncio.ensure_future(self._serve(opened, data.rstrip(b"\0").decode())))
        elif name == "WRTE" and stream:
            stream.incoming += data
            stream.news.set()
            await self.send("OKAY", stream.own, stream.other)
        elif name == "OKAY" and stream:
            stream.taken.set()
        elif name == "CLSE" and stream:
            stream.end()

    async def _serve(self, stream: _Stream, service: str) -> None:
        kind, _, argument = service.partition(":")
        with contextlib.suppress(ConnectionError):
            if kind == "sync":
                await self._sync(stream)
            elif kind.startswith("shell") or kind == "exec":
                await self._command(stream, kind, argument)
            await self.send("CLSE", stream.own, stream.other)
        stream.end()

    async def _command(self, stream: _Stream, kind: str, command: str) -> None:
        faults = self._daemon.faults
        if faults.unplug_at is not None and faults.unplug_at in command:
            faults.unplug_at = None
            self._daemon.commands.append(command)
            self._daemon.unplug()
            return
        process = self._daemon.start(command)
        assert process.stdout is not None
        second = "v2" in kind
        loop = asyncio.get_running_loop()
        with process.stdout:
            while data := await loop.run_in_executor(None, os.read, process.stdout.fileno(), 65536):
                if kind == "shell":
                    data = data.replace(b"\n", b"\r\n")  # the terminal that Android before 7 has in between
                await stream.write(struct.pack("<BI", 1, len(data)) + data if second else data)
        code = await loop.run_in_executor(None, process.wait)
        if second:
            await stream.write(struct.pack("<BIB", 3, 1, code if code >= 0 else 128 - code))

    async def _sync(self, stream: _Stream) -> None:
        while True:
            kind, size = struct.unpack("<4sI", await stream.read(8))
            if kind == b"QUIT":
                return
            argument = (await stream.read(size)).decode()
            if kind == b"STAT":
                try:
                    found = os.lstat(self._daemon.mapped(argument))
                    answer = (found.st_mode, found.st_size, int(found.st_mtime))
                except OSError:
                    answer = (0, 0, 0)
                await stream.write(struct.pack("<4s3I", b"STAT", *answer))
            elif kind == b"SEND":
                await self._receive(stream, argument.rpartition(",")[0])
            else:
                await self._refuse(stream, f"unsupported {kind!r}")

    async def _receive(self, stream: _Stream, path: str) -> None:
        faults, data = self._daemon.faults, bytearray()
        while True:
            kind, size = struct.unpack("<4sI", await stream.read(8))
            if kind == b"DONE":
                break
            data += await stream.read(size)
            if faults.unplug_after is not None and len(data) > faults.unplug_after:
                faults.unplug_after = None
                Path(self._daemon.mapped(path)).write_bytes(data)
                self._daemon.unplug()
                raise ConnectionError
        target = Path(self._daemon.mapped(path))
        if faults.room is not None and len(data) > faults.room:
            target.write_bytes(data[: faults.room])
            await self._refuse(stream, "write failed: No space left on device")
            return
        if faults.room is not None:
            faults.room -= len(data)
        if faults.damages:
            data[-1] ^= 1
        try:
            target.write_bytes(data)
        except OSError as error:
            await self._refuse(stream, f"couldn't create file: {error.strerror}")
            return
        target.chmod(0o600)
        await stream.write(struct.pack("<4sI", b"OKAY", 0))

    async def _refuse(self, stream: _Stream, why: str) -> None:
        await stream.write(struct.pack("<4sI", b"FAIL", len(why)) + why.encode())
