from __future__ import annotations

import httpx
import pytest

from tests.serving.conftest import Running, serving
from vargpt_lightning.errors import UserError
from vargpt_lightning.serving import gate
from vargpt_lightning.serving.gate import check_address

TOKEN = "a-token-of-24-characters"
CHAT = {"messages": [{"role": "user", "content": "Is it?"}]}


def test_an_address_for_others_needs_a_token() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        check_address(host, None)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(UserError, match="expected a token"):
            check_address(host, None)
        check_address(host, TOKEN)
    with pytest.raises(UserError, match="16 or more"):
        check_address("0.0.0.0", "short")


def test_the_token_opens_everything_but_health(speaker, script, monkeypatch) -> None:
    script("Yes")
    compared = []
    real = gate.hmac.compare_digest
    monkeypatch.setattr(gate.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    with serving(speaker, token=TOKEN) as running:
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


def test_a_browser_gets_a_cookie(speaker) -> None:
    with serving(speaker, token=TOKEN) as running, httpx.Client(base_url=running.url) as browser:
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


def test_what_a_foreign_page_can_post_is_refused(running: Running) -> None:
    headers = {"Content-Type": "text/plain"}
    answer = httpx.post(f"{running.url}/v1/chat/completions", content=b"{}", headers=headers)
    assert answer.status_code == 415
