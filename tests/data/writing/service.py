"""A chat service over real HTTP that answers as a test says, and counts what it was asked and what it charged for."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-456"
Script = Callable[[str, int], Any]


def said(text: Any, finish: str = "stop", tokens: tuple[int, int] | None = (100, 20)) -> dict[str, Any]:
    """A body of an answer, with the tokens that it took."""
    body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
    if tokens:
        body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return body


def wrote(request: str, answer: str = "Here it is:") -> dict[str, Any]:
    """A body of an answer of the right form."""
    return said(json.dumps({"request": request, "answer": answer}))


def good(caption: str, attempt: int) -> Any:
    """What a good model answers."""
    return wrote(f"Could you draw {caption} for me?", f"Here is {caption}:")


class Service(ThreadingHTTPServer):
    """`script` gets the caption and how often it was asked before, and returns a body or (status, body, headers).

    `asked` counts requests by caption, `paid` those that were answered with 200.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Script = good) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.times: list[float] = []
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Service:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        caption = body["messages"][-1]["content"].removeprefix("Caption: ")
        with self.server.lock:
            attempt = self.server.asked[caption]
            self.server.asked[caption] += 1
            self.server.bodies.append(body)
            self.server.headers.append(self.headers)
            self.server.times.append(time.monotonic())
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            reply = self.server.script(caption, attempt)
        finally:
            with self.server.lock:  # before the reply: who has it may ask again at once
                self.server.now -= 1
        self._answer(caption, reply)

    def _answer(self, caption: str, what: Any) -> None:
        status, content, headers = what if isinstance(what, tuple) else (200, what, {})
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status == 200:  # the work was done, whether or not anybody still listens
            with self.server.lock:
                self.server.paid[caption] += 1
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)
        except OSError:  # the asker is gone
            pass

    def log_message(self, *_: Any) -> None:
        pass
