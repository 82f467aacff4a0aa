from __future__ import annotations

import io
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from vargpt_lightning.serving import incoming_pictures
from vargpt_lightning.serving.incoming_pictures import fetch, is_public, picture_from_url
from vargpt_lightning.serving.limits import Limits, RefusedRequestError

PRIVATE = ["127.0.0.1", "10.0.0.1", "172.16.5.5", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"]
PRIVATE += ["224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0"]
PRIVATE += [
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "::127.0.0.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("8.8.8.8") and is_public("2606:4700:4700::1111")


@pytest.fixture
def host():
    """A server of a picture that notes who was asked for; its port and the notes."""
    content = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(content, "PNG")
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Host"]))
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", "/red.png")
            self.end_headers()
            self.wfile.write(content.getvalue() if self.path != "/endless" else b"a" * 10_000)

        def log_message(self, *given) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, seen
    server.shutdown()
    server.server_close()


def test_a_remote_picture_is_fetched_from_the_address_that_was_checked(host, monkeypatch) -> None:
    port, seen = host
    asked = []

    def resolve(name, *given, **options):
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(incoming_pictures.socket, "getaddrinfo", resolve)
    content = fetch(f"http://pictures.example:{port}/red.png?a=b", 10_000, allowed=lambda address: True)
    assert Image.open(io.BytesIO(content)).size == (9, 7)
    assert seen == [("/red.png?a=b", f"pictures.example:{port}")] and asked[0] == "pictures.example"
    for path in ("moved", "endless"):
        with pytest.raises(RefusedRequestError, match=r"HTTP 302|more than 5000 bytes"):
            fetch(f"http://pictures.example:{port}/{path}", 5000, allowed=lambda address: True)
    assert len(seen) == 3, "redirects are not followed"
    with pytest.raises(RefusedRequestError, match="not public"):
        fetch(f"http://pictures.example:{port}/red.png", 10_000)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{}/a", "http://localhost:{}/a", "http://0x7f000001:{}/a", "http://[::ffff:127.0.0.1]:{}/a"],
)
def test_this_machine_is_never_asked(host, url: str) -> None:
    port, seen = host
    with pytest.raises(RefusedRequestError):
        picture_from_url(url.format(port), Limits(), remote=True)
    assert seen == []


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "http://", "http://[", "//a", "", "http://a:99999/", "data:", "http://\n"]
)
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedRequestError):
        picture_from_url(url, Limits(), remote=True)
