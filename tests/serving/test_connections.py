"""Connections that wait keep nobody out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.serving.conftest import Running, serving
from vargpt_lightning.serving import connections, gate

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def impatient(assistant, monkeypatch) -> Iterator[Running]:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.8)
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.8)
    with serving(assistant) as found:
        yield found


def opened(running: Running, sent: bytes = b"") -> socket.socket:
    port = int(running.url.rpartition(":")[2])
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    made.sendall(sent)
    return made


def rest_of(connection: socket.socket) -> int:
    """How many bytes still come until the server closes the connection, in whatever way."""
    count = 0
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(2**20):
            count += len(piece)
    return count


def test_many_connections_without_a_request_keep_nobody_out(assistant) -> None:
    with serving(assistant) as running:
        idle = [opened(running) for _ in range(300)]
        assert httpx.get(f"{running.url}/v1/models").status_code == 200
        for one in idle:
            one.close()


def test_the_one_that_waits_longest_makes_room(assistant, monkeypatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 3)
    with serving(assistant) as running:
        idle = [opened(running) for _ in range(4)]
        assert rest_of(idle[0]) == 0
        assert httpx.get(f"{running.url}/v1/models").status_code == 200


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"])
def test_requests_that_are_being_sent_keep_nobody_out(assistant, monkeypatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 6)
    monkeypatch.setattr(gate, "REQUESTS", 3)
    with serving(assistant) as running:
        slow = [opened(running, sent) for _ in range(8)]
        for _ in range(2):
            assert httpx.get(f"{running.url}/v1/models").status_code == 200
        for one in slow:
            one.close()


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", HEAD + b"X-A: "])
def test_a_connection_whose_request_does_not_come_is_closed(impatient: Running, sent: bytes) -> None:
    assert rest_of(opened(impatient, sent)) == 0


def test_headers_that_drip_do_not_count_as_a_request(impatient: Running) -> None:
    slow = opened(impatient, HEAD)
    with pytest.raises(OSError):
        for _ in range(200):
            slow.sendall(b"X-A: 1\r\n")
            time.sleep(0.05)


@pytest.mark.parametrize("length", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
def test_a_body_that_does_not_end_is_refused(impatient: Running, length: bytes) -> None:
    answer = opened(impatient, HEAD + length).recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer.lower()


def test_a_body_that_nobody_reads_keeps_no_connection(impatient: Running) -> None:
    slow = opened(impatient, HEAD.replace(b"chat", b"chit") + b"Content-Length: 100\r\n\r\n{")
    assert slow.recv(10_000).startswith(b"HTTP/1.1 404")
    rest_of(slow)


def test_an_answer_may_take_longer_than_a_request(impatient: Running, script, assistant, monkeypatch) -> None:
    script("Yes")
    whole = assistant.continue_all
    monkeypatch.setattr(assistant, "continue_all", lambda *given: (time.sleep(1.5), whole(*given))[1])
    body = {"messages": [{"role": "user", "content": "Is it?"}]}
    with httpx.Client(base_url=impatient.url, timeout=30) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200


def test_a_client_that_takes_nothing_of_its_answer_is_left(impatient: Running, monkeypatch) -> None:
    metrics = impatient.service.metrics
    monkeypatch.setattr(metrics, "text", lambda: b"a" * 2**25)
    slow = opened(impatient, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(1.5)
    assert rest_of(slow) < 2**25


def test_the_limit_counts_requests(assistant, script, monkeypatch) -> None:
    script("Yes")
    monkeypatch.setattr(gate, "REQUESTS", 1)
    held = threading.Event()
    whole = assistant.continue_all
    monkeypatch.setattr(assistant, "continue_all", lambda *given: held.wait(20) and whole(*given))
    with serving(assistant) as running:
        url, body = f"{running.url}/v1/chat/completions", {"messages": [{"role": "user", "content": "Is it?"}]}
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(httpx.post(url, json=body, timeout=60).status_code))
        asking.start()
        while running.service.engine.running == 0:
            time.sleep(0.01)
        full = httpx.get(f"{running.url}/v1/models")
        assert full.status_code == 503 and full.json()["error"]["code"] == "server_overloaded"
        assert int(full.headers["Retry-After"]) > 0
        assert httpx.get(f"{running.url}/health").status_code == 200
        held.set()
        asking.join()
        assert answers == [200] and httpx.get(f"{running.url}/v1/models").status_code == 200
