"""The page's server: this machine alone, a token in the address, images by id, nothing from elsewhere.

What keeps others out, and against whom:

- It listens on 127.0.0.1, so nothing but this machine reaches it.
- The address holds 256 random bits, new at each start; the page keeps them in a cookie that scripts cannot read and
  that requests from other sites do not carry (SameSite=Strict). Both are compared in constant time.
- `Host` must be this machine: a foreign name that was bound to 127.0.0.1 (DNS rebinding) is refused.
- A request that changes something must carry an `Origin` that is the page's own.
- The page may load nothing but what is served here (Content-Security-Policy), be shown in no frame, and tells nobody
  where it came from. It puts names on itself as text.
- An image is asked for by its id, decoded and encoded anew: no path ever comes from outside, and no byte of a file
  reaches the browser as it is.
"""

from __future__ import annotations

import contextlib
import hmac
import http.server
import io
import json
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast, final
from urllib.parse import parse_qs, urlsplit

from distill.core.errors import DistillError, UserError
from distill.core.overlay import IGNORED_COLOR, background, class_colors
from distill.data.decode import DecodeError, decode
from distill.review.desk import Desk, Refused

__all__ = ["Server"]

LARGEST_BODY: Final = 4_000_000
"""Bytes of a request; a mask of 1,024x1,024 pixels with 200,000 runs has 1.6 million."""

_PAGE: Final = Path(__file__).parent / "page"
_FILES: Final = {
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/drawing.js": "text/javascript; charset=utf-8",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LONGEST_SIDE: Final = 1600  # pixels of a picture that is shown
_EXACT_SIDE: Final = 512  # up to here pictures are sent as they are
_MOST_NAMED: Final = 1000  # images that a page says it has
_PATIENCE: Final = 30  # seconds for one request
_KEYS: Final = "123456789acdghjklmnoqstwy"
"""Of classes, in their order; the page needs the other letters."""


@final
class Server(http.server.ThreadingHTTPServer):
    """Serves a desk until it is shut down.

    Args:
        desk: gives images out and takes answers in.
        port: on 127.0.0.1; 0 for any free one.
        user: name that a page begins with.

    Raises:
        UserError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64  # a browser opens six connections, and several people may begin at once
    allow_reuse_address = True

    def __init__(self, desk: Desk, port: int, user: str) -> None:
        self.desk, self.user, self.token = desk, user, secrets.token_urlsafe(32)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--port {port}: {reason}; choose another, or 0 for any free one") from None

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until Ctrl-C.

        Args:
            ready: told the address.
        """
        with self, contextlib.suppress(KeyboardInterrupt):
            ready(self.url)
            self.serve_forever(poll_interval=0.1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; nothing else is expected here, and the page says what failed."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mobile-distill"
    sys_version = ""
    timeout = _PATIENCE

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    @property
    def _server(self) -> Server:
        return cast(Server, self.server)

    def do_GET(self) -> None:
        try:
            address = urlsplit(self.path)
        except ValueError:  # such as http://[
            self._json(400, {"error": "expected an address"})
            return
        if not self._is_this_machine() or not self._has_token(address.query):
            return
        path, desk = address.path, self._server.desk
        kind, _, image = path.strip("/").partition("/")
        if path == "/":
            cookie = f"{self._cookie}={self._server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._answer(200, (_PAGE / "index.html").read_bytes(), "text/html; charset=utf-8", {"Set-Cookie": cookie})
        elif path in _FILES:
            self._answer(200, (_PAGE / path[1:]).read_bytes(), _FILES[path])
        elif path == "/about":
            self._json(200, self._about())
        elif kind == "image" and image in desk.subject.items:
            self._picture(image)
        elif kind == "mask" and image in desk.subject.items and desk.subject.by_pixel:
            user = parse_qs(address.query).get("user", [""])[0]
            try:
                self._json(200, desk.mask(image, user))
            except (DistillError, OSError) as error:
                self._json(500, {"error": str(error)})
        else:
            self._json(404, {"error": "there is nothing here"})

    def do_POST(self) -> None:
        self.close_connection = True  # until the body is read, nothing else may be read from this connection
        if not self._is_this_machine() or not self._has_token("") or not self._is_our_page():
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not length.isascii() or not length.isdecimal():
            self._json(411, {"error": "expected a Content-Length"})
            return
        if len(length) > 9 or int(length) > LARGEST_BODY:
            self._json(413, {"error": f"more than {LARGEST_BODY} bytes"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            self._json(400, {"error": "expected JSON"})
            return
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        work = {"/next": self._next, "/answers": self._answers}.get(self.path)
        if work is None:
            self._json(404, {"error": "there is nothing here"})
            return
        try:
            if not isinstance(body, dict):
                raise Refused("expected an object")
            self._json(200, work(body))
        except Refused as reason:
            self._json(400, {"error": str(reason)})
        except (DistillError, OSError) as error:  # the disk is full
            self._json(500, {"error": str(error)})

    def _next(self, body: dict[str, Any]) -> dict[str, Any]:
        client, user, count = (body.get(key) for key in ("client", "user", "count"))
        lists = [body.get(key, []) for key in ("held", "skipped")]
        if not isinstance(client, str) or not isinstance(count, int):
            raise Refused("expected client, user and count")
        if not all(isinstance(each, list) and len(each) <= _MOST_NAMED for each in lists):
            raise Refused(f"expected held and skipped, each of at most {_MOST_NAMED} images")
        held, skipped = ([str(image) for image in each] for each in lists)
        return self._server.desk.next(client[:64], cast(str, user), count, held, skipped)

    def _answers(self, body: dict[str, Any]) -> dict[str, Any]:
        user, entries = body.get("user"), body.get("entries")
        if not isinstance(entries, list) or not isinstance(user, str):
            raise Refused("expected user and entries")
        saved = self._server.desk.take(user, entries)
        return {**saved._asdict(), **self._server.desk.counts(user)}

    def _about(self) -> dict[str, Any]:
        subject = self._server.desk.subject
        colors = class_colors(len(subject.classes)).tolist()
        keys = [*_KEYS, *[""] * len(subject.classes)]
        classes = [
            {"name": name, "color": color, "key": key}
            for name, color, key in zip(subject.classes, colors, keys, strict=False)
        ]
        clear = background(subject.classes)
        return {
            "title": subject.title,
            "by_pixel": subject.by_pixel,
            "classes": classes,
            "clear": clear,
            "ignored": IGNORED_COLOR,
            "user": self._server.user,
            **self._server.desk.counts(),
        }

    def _picture(self, image: str) -> None:
        subject = self._server.desk.subject
        record = subject.items[image].record
        try:
            picture = decode(record.path, subject.max_megapixels)
        except DecodeError as error:
            self._json(410, {"error": f"{record.path}: {error}"})
            return
        if picture.size != (record.width, record.height):
            self._json(410, {"error": f"{record.path} is another image now"})
            return
        stream = io.BytesIO()
        if max(picture.size) <= _EXACT_SIDE:
            picture.save(stream, "PNG", compress_level=1)
        else:
            picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            picture.save(stream, "JPEG", quality=88)
        kind = "image/png" if max(record.width, record.height) <= _EXACT_SIDE else "image/jpeg"
        self._answer(200, stream.getvalue(), kind, {"Cache-Control": "private, max-age=3600"})

    def _is_this_machine(self) -> bool:
        """Whether the browser believes to speak to this machine; any port, since a tunnel may change it."""
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            name = None
        if name in {"127.0.0.1", "localhost"} and len(self.headers.get_all("Host", [])) == 1:
            return True
        self._refuse("the address must be http://127.0.0.1")
        return False

    def _is_our_page(self) -> bool:
        if self.headers.get_all("Origin") == [f"http://{self.headers['Host']}"]:
            return True
        self._refuse("this did not come from the page")
        return False

    def _has_token(self, query: str) -> bool:
        given = parse_qs(query).get("token", [])
        for part in self.headers.get("Cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie:
                given.append(value)
        expected = self._server.token.encode()
        if any([hmac.compare_digest(token.encode("utf-8", "replace"), expected) for token in given[:4]]):  # noqa: C419
            return True
        self._refuse("open the address that `distill review` printed: it has the token of this start")
        return False

    @property
    def _cookie(self) -> str:
        return f"review-{self._server.port}"  # cookies know no ports

    def _refuse(self, reason: str) -> None:
        self.close_connection = True
        self._json(403, {"error": reason})

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fields = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            **(headers or {}),
        }
        for name, value in fields.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: the address holds the token."""
