"""A model behind an OpenAI-compatible chat endpoint (`POST URL/chat/completions`).

The key comes from an environment variable. It is sent in the Authorization header and appears nowhere else: not in
settings, not in errors, not in files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.http.calls import CallError, http_client, post_json

PATH = "/chat/completions"
REFUSALS = (400, 413, 422)
"""Statuses by which services turn down one question, not its asker."""
KEY_REFUSALS = (401, 403)


@dataclass(frozen=True)
class Said:
    """An answer: its text, and how it ended ("stop", "length", or "" where that is not known)."""

    text: str
    finish: str
    refused: bool = False


class ChatEndpoint:
    """A model of a service.

    Args:
        url: such as http://localhost:8000/v1.
        model: its name there.
        key_variable: the environment variable with the key; unset, no key is sent.

    Raises:
        UserError: the URL or the model is missing, or the URL holds a name, a password or a query.
    """

    def __init__(self, url: str, model: str, key_variable: str = "OPENAI_API_KEY") -> None:
        self.url, self.model = _checked(url, model).rstrip("/").removesuffix(PATH), model
        self.key_variable = key_variable
        self._client = http_client(self.url)

    @property
    def digest(self) -> str:
        """A hash of where the model is and what it is called; what its weights are, only the service knows."""
        return hashlib.sha256(f"{self.url}\0{self.model}".encode()).hexdigest()[:16]

    def post(self, body: Mapping[str, Any], timeout: float, headers: Mapping[str, str] | None = None) -> Any:
        """Posts a request once and returns the JSON that comes back; raises CallError."""
        sent = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        if key := self._key():
            sent["Authorization"] = f"Bearer {key}"
        return post_json(self._client, self.url + PATH, json.dumps(body).encode(), sent, timeout)

    def without_key(self, text: str) -> str:
        """The text with stars for the key: services repeat it in their refusals."""
        return text.replace(key, "***") if (key := self._key()) else text

    def key_hint(self) -> str:
        """Where the key is taken from, and whether there is one."""
        known = "is set" if self._key() else "is not set"
        return f"the key is taken from {self.key_variable}, which {known}"

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()


def _checked(url: str, model: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not model:
        example = "http://localhost:8000/v1 and llava, together openai:http://localhost:8000/v1#llava"
        raise UserError(f"endpoint: expected openai:URL#model: an address and the name of a model, such as {example}")
    if parts.username or parts.password or parts.query:
        raise UserError("endpoint: the URL holds a name, a password or a query; expected the key in the environment")
    return url


def read_answer(found: Any) -> Said:
    """The answer in a body that came back; raises CallError for a body of another form."""
    try:
        choice = found["choices"][0]
        message = choice["message"]
        content = message["content"] if "content" in message else message["refusal"]
    except (KeyError, IndexError, TypeError) as error:
        raise CallError(f"malformed: {json.dumps(found)[:200]}", reached=True) from error
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    refused = bool(message.get("refusal"))
    if content is None:  # a refusal, or a length that was used up by thinking
        content = message.get("refusal") or ""
    if not isinstance(content, str):
        raise CallError(f"malformed: the content is {json.dumps(content)[:100]}", reached=True)
    finish = choice.get("finish_reason")
    return Said(content, finish if finish in ("stop", "length") else "", refused or finish == "content_filter")
