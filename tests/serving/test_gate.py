from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.serving.conftest import Running, serving
from vargpt_lightning.serving import gate
from vargpt_lightning.serving.gate import check_address
from vargpt_lightning.serving.limits import Limits
from vargpt_lightning.utils.errors import UserError

TOKEN = "a-token-of-24-characters"
CHAT = {"messages": [{"role": "user", "content": "Is it?"}]}
FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.fixture(scope="module")
def paged(assistant) -> Iterator[Running]:
    """A server with the page, whose own applications would answer pages elsewhere."""
    pytest.importorskip("gradio")
    with serving(assistant, page=True, limits=Limits(requests_a_minute=10_000)) as found:
        yield found


def test_an_address_for_others_needs_a_token() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        check_address(host, None)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(UserError, match="expected a token"):
            check_address(host, None)
        check_address(host, TOKEN)
    with pytest.raises(UserError, match="16 or more"):
        check_address("0.0.0.0", "short")


def test_the_token_opens_everything_but_health(assistant, script, monkeypatch) -> None:
    script("Yes")
    compared = []
    real = gate.hmac.compare_digest
    monkeypatch.setattr(gate.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    with serving(assistant, token=TOKEN) as running:
        url = f"{running.url}/v1/chat/completions"
        assert httpx.get(f"{running.url}/health").status_code == 200
        for path in ("/metrics", "/v1/models", "/anything"):
            assert httpx.get(f"{running.url}{path}").status_code == 401
        wrong = httpx.post(url, json=CHAT, headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401 and wrong.json()["error"]["code"] == "invalid_api_key"
        assert b"wrong" in compared, "in constant time"
        right = httpx.post(url, json=CHAT, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert right.status_code == 200
        assert httpx.get(f"{running.url}/v1/models?token={TOKEN}").status_code == 401, "in an URL for the page alone"


def test_a_browser_gets_a_cookie(assistant) -> None:
    with serving(assistant, token=TOKEN) as running, httpx.Client(base_url=running.url) as browser:
        assert browser.get("/").status_code == 401 and browser.get("/?token=wrong").status_code == 401
        welcome = browser.get(f"/?token={TOKEN}")
        assert welcome.status_code == 303 and welcome.headers["location"] == "/"
        assert (
            "HttpOnly" in welcome.headers["set-cookie"] and "samesite=strict" in welcome.headers["set-cookie"].lower()
        )
        assert browser.get("/v1/models").status_code == 200


def test_other_names_of_this_machine_are_refused(running: Running) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        answer = httpx.get(f"{running.url}/v1/models", headers={"Host": host})
        assert answer.status_code == 421 and answer.json()["error"]["code"] == "wrong_host"
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert httpx.get(f"{running.url}/v1/models", headers={"Host": host}).status_code == 200


def test_two_hosts_and_none_are_refused(running: Running) -> None:
    port = int(running.url.rpartition(":")[2])
    for lines in (b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nHost: evil.example\r\n", b""):
        for version in (b"1.0", b"1.1"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as made:
                made.sendall(b"GET /v1/models HTTP/" + version + b"\r\n" + lines + b"Connection: close\r\n\r\n")
                assert made.recv(12)[9:12] in (b"400", b"421")


def test_what_a_foreign_page_can_post_is_refused(running: Running) -> None:
    headers = {"Content-Type": "text/plain"}
    answer = httpx.post(f"{running.url}/v1/chat/completions", content=b"{}", headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("said", FOREIGN)
def test_pages_elsewhere_send_nothing(paged: Running, method: str, said: dict[str, str]) -> None:
    asked = {**said, "Access-Control-Request-Method": "POST", "Content-Type": "application/json"}
    for path in ("/v1/chat/completions", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/"):
        answer = httpx.request(method, f"{paged.url}{path}", content=b"{}", headers=asked)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_origin"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("said", FOREIGN)
def test_pages_elsewhere_read_nothing(paged: Running, said: dict[str, str]) -> None:
    for path in ("/v1/models", "/v1/nothing", "/", "/config", "/health"):
        for method in ("GET", "HEAD"):
            answer = httpx.request(method, f"{paged.url}{path}", headers=said)
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_own_page_and_programs_send(paged: Running, script) -> None:
    script("Yes")
    for said in ({}, {"Origin": paged.url}, {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}):
        answer = httpx.post(f"{paged.url}/v1/chat/completions", json=CHAT, headers=said, timeout=30)
        assert answer.status_code == 200


def test_uploads_count_among_the_requests(assistant, script) -> None:
    script("Yes")
    with serving(assistant, page=True, limits=Limits(requests_a_minute=3)) as running:
        files = {"files": ("a.png", b"a")}
        codes = [httpx.post(f"{running.url}/gradio_api/upload", files=files).status_code for _ in range(2)]
        codes.append(httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, timeout=30).status_code)
        last = httpx.post(f"{running.url}/gradio_api/upload", files=files)
        assert codes == [200] * 3 and last.status_code == 429 and int(last.headers["Retry-After"]) > 0
