"""The server: who is let in, what is given out, and what is not."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.core.errors import UserError
from distill.review.server import LARGEST_BODY, Server
from distill.review.subject import Subject
from tests.review.conftest import serving


@pytest.fixture
def server(photos_to_sort: Subject) -> Iterator[Server]:
    with serving(photos_to_sort) as running:
        yield running


def ask(
    server: Server, path: str, *, body: Any = None, token: str | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """A request as the page makes it, but for what is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    token = server.token if token is None else token
    fields = {"Host": f"127.0.0.1:{server.port}", "Cookie": f"other=1; review-{server.port}={token}"}
    if body is not None:
        fields["Origin"] = f"http://127.0.0.1:{server.port}"
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(
            "GET" if body is None else "POST", path, body, {name: value for name, value in fields.items() if value}
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


NEXT = {"client": "page", "user": "ann", "count": 3, "held": []}


def test_only_this_machine_is_listened_to(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UserError, match=f"--port {server.port}: .*; choose another, or 0 for any free one"):
        Server(server.desk, server.port, "ann")


def test_the_token_opens_the_page_and_a_cookie_keeps_it_open(server: Server) -> None:
    status, page, headers = ask(server, f"/?token={server.token}", Cookie="")
    assert (status, page[:15]) == (200, b"<!doctype html>")
    assert headers["Set-Cookie"] == f"review-{server.port}={server.token}; HttpOnly; SameSite=Strict; Path=/"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "no-referrer")
    assert len(server.token) >= 43  # 256 bits
    for path in ("/", "/about", "/page.js", f"/image/{next(iter(server.desk.subject.items))}"):
        assert ask(server, path)[0] == 200
        for token in ("", "x", server.token[:-1], server.token + "x", "\u00e9"):
            assert ask(server, path, token=token)[0] == 403
            assert ask(server, path + "?token=wrong", Cookie="")[0] == 403
    assert ask(server, "/next", body=NEXT)[0] == 200
    assert ask(server, "/next", body=NEXT, token="wrong")[0] == 403
    assert ask(server, f"/next?token={server.token}", body=NEXT, Cookie="")[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0", "[::1", "", "localhost@evil.example"]
)
def test_foreign_names_of_this_machine_are_refused(server: Server, host: str) -> None:
    assert ask(server, f"/?token={server.token}", Host=host or " ")[0] == 403


def test_a_tunnel_may_change_the_port(server: Server) -> None:
    assert ask(server, "/next", body=NEXT, Host="localhost:9999", Origin="http://localhost:9999")[0] == 200


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_other_sites_change_nothing(server: Server, origin: str) -> None:
    image = next(iter(server.desk.subject.items))
    entry = {"key": "12345678", "image": image, "action": "label", "label": "cat"}
    assert ask(server, "/answers", body={"user": "ann", "entries": [entry]}, Origin=origin)[0] == 403
    assert server.desk.counts()["answered"] == 0


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/image/../../../etc/passwd",
        "/image/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/image//etc/passwd",
        "/image/0.png",
        "/image/" + "0" * 64,
        "/page/page.js",
        "/server.py",
        "/mask/" + "0" * 64,
        "/journal.jsonl",
    ],
)
def test_nothing_is_found_by_path(server: Server, path: str) -> None:
    status, body, _ = ask(server, path)
    assert (status, json.loads(body)) == (404, {"error": "there is nothing here"})


def test_an_address_that_is_none_is_refused(server: Server) -> None:
    assert ask(server, "http://[")[0] == 400
    assert ask(server, f"/?token={server.token}", Host="[")[0] == 403


def test_bodies_are_bounded(server: Server) -> None:
    for length in (str(LARGEST_BODY + 1), "9" * 30):
        assert raw(server, f"Content-Length: {length}".encode())[:12] == b"HTTP/1.1 413"
    for length in ("-1", "1e3", "\u0661", ""):
        assert raw(server, f"Content-Length: {length}".encode())[:12] == b"HTTP/1.1 411"
    assert raw(server, b"Transfer-Encoding: chunked")[:12] == b"HTTP/1.1 411"
    for body in (b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"user": 1}', b'{"user": "a", "entries": 1}'):
        assert ask(server, "/answers", body=body)[0] == 400
    assert ask(server, "/next", body={**NEXT, "held": ["x"] * 1001})[0] == 400
    assert ask(server, "/next", body={**NEXT, "user": None})[0] == 400
    assert ask(server, "/answers", body={"user": "ann", "entries": [1, None, {}]})[0] == 200
    assert server.desk.counts()["answered"] == 0


def raw(server: Server, field: bytes) -> bytes:
    """The first bytes of the answer to a POST with this field."""
    host = f"127.0.0.1:{server.port}".encode()
    cookie = f"review-{server.port}={server.token}".encode()
    lines = [b"POST /answers HTTP/1.1", b"Host: " + host, b"Origin: http://" + host, b"Cookie: " + cookie, field]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n{}")
        return connection.recv(100)


def test_pictures_are_encoded_anew(server: Server) -> None:
    record = next(iter(server.desk.subject.items.values())).record
    path = Path(record.path)
    status, body, headers = ask(server, f"/image/{record.id}")
    assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "image/png", "nosniff")
    with Image.open(io.BytesIO(body)) as picture, Image.open(path) as original:
        assert picture.tobytes() == original.tobytes()
    path.write_bytes(b"<script>alert(1)</script>")
    status, body, _ = ask(server, f"/image/{record.id}")
    assert status == 410
    assert json.loads(body) == {"error": f"{path}: not an image that Pillow can read"}
    path.unlink()
    assert ask(server, f"/image/{record.id}")[0] == 410


def test_a_disk_that_fills_is_said_and_nothing_is_acknowledged(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    image = next(iter(server.desk.subject.items))

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.desk._journal, "append", full)
    entry = {"key": "12345678", "image": image, "action": "label", "label": "cat"}
    status, body, _ = ask(server, "/answers", body={"user": "ann", "entries": [entry]})
    assert (status, "No space left on device" in json.loads(body)["error"]) == (500, True)
    assert server.desk.counts()["answered"] == 0
