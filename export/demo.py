"""A static folder with a page that runs an exported file in the browser, by LiteRT.js (WebAssembly)."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socketserver
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from distill.core.cached import made_once
from distill.core.errors import UserError
from distill.core.files import read_json, replacing, sha256_of, write_json, write_text
from distill.core.overlay import background, class_colors
from distill.core.progress import Progress
from distill.core.run import Run
from export.files import Exporter, check_takes_bytes

__all__ = ["Demo", "make_demo", "serve"]

_PAGE: Final = Path(__file__).parent / "browser"
_OURS: Final = ("index.html", "page.css", "page.js", "pixels.js", "answers.js")
# Of the four builds those that need no cross-origin isolation, which few static servers give: one for browsers with
# relaxed SIMD, one for those without. A browser fetches one of them.
_BUILDS: Final = ("litert_wasm_internal", "litert_wasm_compat_internal")
_ABOUT: Final = "model.json"
_LEFT_OUT: Final = ("calibration", "ladder", "key")
"""Of a file's manifest: names of the user's images, and what only export asks for."""


class Demo(NamedTuple):
    """A folder that was written.

    Args:
        folder: to be put on any static web server as it is.
        bytes: of all its files.
        fetched: bytes that one browser loads, at most.
    """

    folder: Path
    bytes: int
    fetched: int


def make_demo(run: Run, progress: Progress, into: Path | None = None, name: str = "tflite-int8") -> Demo:
    """Write the page, the runtime, the model and what the page must know of it. Doing it again changes nothing.

    Args:
        run: with a trained student.
        progress: told of long work.
        into: a new folder, an empty one, or one that this has written before; `demo` in the run folder if left out.
        name: of the artifact, made if missing.

    Raises:
        ArtifactError: the file did not pass its proof.
        UserError: the folder holds other things, the file is no TFLite file, or npm is missing or failed.
    """
    if not name.startswith("tflite-"):
        raise UserError(f"--file {name}: the page runs TFLite files, e.g. tflite-int8")
    folder = run.folder("demo") if into is None else into
    if (folder.exists() and not folder.is_dir()) or (
        folder.is_dir() and any(folder.iterdir()) and not _is_demo(folder)
    ):
        raise UserError(f"{folder} holds other things than a demo; choose a new folder by --into")
    manifest = Exporter(run, progress).make(name)
    check_takes_bytes(manifest, "the page")
    runtime = _runtime(progress)
    about = {key: value for key, value in manifest.items() if key not in _LEFT_OUT}
    labels = manifest["labels"]
    about |= {"run": run.root.resolve().name, "colors": class_colors(len(labels)).tolist(), "clear": background(labels)}
    kept = {folder / _ABOUT}

    def put(source: Path, *place: str) -> None:
        target = folder.joinpath(*place)
        kept.add(target)
        if not target.is_file() or sha256_of(target) != sha256_of(source):
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)

    for file in _OURS:
        put(_PAGE / file, file)
    packages = runtime / "node_modules" / "@litertjs"
    put(packages / "core" / "dist" / "index.js", "litert", "core.js")
    put(packages / "wasm-utils" / "dist" / "index.js", "litert", "wasm-utils.js")
    for build in _BUILDS:
        for ending in (".js", ".wasm"):
            put(packages / "core" / "wasm" / f"{build}{ending}", "litert", "wasm", f"{build}{ending}")
    put(run.folder("export") / manifest["file"], manifest["file"])
    notice = folder / "litert" / "NOTICE.txt"
    write_text(notice, _notice(packages))
    kept.add(notice)
    for old in folder.glob("*.tflite"):  # of another export
        if old not in kept:
            old.unlink()
    write_json(folder / _ABOUT, about)
    sizes = {path: path.stat().st_size for path in kept}
    builds = [sum(size for path, size in sizes.items() if path.stem == build) for build in _BUILDS]
    return Demo(folder, sum(sizes.values()), sum(sizes.values()) - sum(builds) + max(builds))


def serve(folder: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve a folder to this machine alone until Ctrl-C.

    The page needs no header that a static server lacks, threads of WebAssembly would: `Cross-Origin-Opener-Policy` and
    `Cross-Origin-Embedder-Policy`.

    Args:
        folder: the root of what is served.
        port: on 127.0.0.1; 0 for any free one.
        ready: told the address.

    Raises:
        UserError: the port is taken.
    """
    try:
        server = _Server(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; choose another, or 0 for any free one") from error
    with server, contextlib.suppress(KeyboardInterrupt):
        ready(f"http://localhost:{server.server_address[1]}/")
        server.serve_forever()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # the system's own table may know .js as text/plain, which no browser runs as a module
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".tflite": "application/octet-stream",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        pass


def _is_demo(folder: Path) -> bool:
    try:
        return "mobile_distill" in read_json(folder / _ABOUT)
    except (OSError, ValueError, TypeError):
        return False


def _runtime(progress: Progress) -> Path:
    """LiteRT.js in the cache: by npm, in the version and with the checksums of our lock file."""
    lock = _PAGE / "package-lock.json"

    def fetch(folder: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise UserError(
                "found no `npm`, which fetches the page's runtime (LiteRT.js, 10 MB) once: install Node.js"
                " (e.g. `apt install npm`), or make the demo on a machine that has it; the folder can be copied"
            )
        progress.console.print("  fetching LiteRT.js by npm, once", highlight=False)
        for name in ("package.json", lock.name):
            shutil.copyfile(_PAGE / name, folder / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(f"`npm ci` could not fetch LiteRT.js (exit code {done.returncode}): {_reason(done.stderr)}")

    return made_once(f"litert-js-{sha256_of(lock)[:16]}", fetch)


def _reason(log: str) -> str:
    """What npm says went wrong, without its stack and where it keeps its log."""
    lines = [line.removeprefix("npm error").strip() for line in log.splitlines() if line.startswith("npm error")]
    noise = ("at ", "code ", "errno ", "syscall ", "A complete log")
    said = " ".join(line for line in lines if not line.startswith(noise))
    return (said.partition(" code: ")[0] or log.strip())[:400]


def _notice(packages: Path) -> str:
    lines = ["The files in this folder are parts of these packages from npm, unchanged:"]
    for name in ("core", "wasm-utils"):
        found = json.loads((packages / name / "package.json").read_text(encoding="utf-8"))
        lines.append(f"  {found['name']} {found['version']}, licence {found['license']}, (c) Google LLC")
    return "\n".join([*lines, "The Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0", ""])
