"""A language model behind an OpenAI-compatible chat endpoint writes instruction data; each request is paid for once.

What was answered stands in the manifest and is never asked again. A request that was sent and got nothing usable (a
time-out, a connection that broke, a process that was killed) may have been paid for: it is not sent again unless
`ask_unanswered` says so.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.ledger import ANSWERED, REFUSED, RELEASED, SENT, UNANSWERED, Ledger
from vargpt_lightning.data.writing.replies import REFUSED as DECLINED
from vargpt_lightning.data.writing.replies import read_reply
from vargpt_lightning.data.writing.seeds import MARK, Seeds
from vargpt_lightning.data.writing.spending import Budget, Pace
from vargpt_lightning.data.writing.templates import Written
from vargpt_lightning.utils.capacity import MOST_AT_A_TIME
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.http.calls import CallError, RetryPolicy, StoppedError, with_retries
from vargpt_lightning.utils.http.chat_endpoint import KEY_REFUSALS, REFUSALS, ChatEndpoint, Said, read_answer

NOT_ASKED, FAILED, CUT = "not asked", "failed", "cut short"


@dataclass(frozen=True)
class WriterSettings:
    """How a service is asked to write.

    Args:
        url: such as http://localhost:8000/v1.
        model: its name there.
        seed: of the choice of examples, and of the seeds that the service is sent.
        temperature: of its sampling.
        max_new_tokens: of an answer.
        examples: shown before each caption.
        tries: requests for a caption whose answers were of the wrong form, each paid for; 1 asks once.
        concurrency: requests on their way at a time.
        requests_per_minute: at most; None is no limit.
        retries, timeout, backoff, longest_wait: see `utils.http.calls.RetryPolicy`.
        max_failures: captions in a row that fail or are turned down before the run stops.
        max_requests, max_tokens: spending limits over all runs into a folder; None is no limit.
        ask_unanswered: send again what may have been paid for already.
        key_variable: the environment variable with the key; unset, no key is sent.
        length_field: what the service calls the length: max_tokens, or max_completion_tokens.
        json_mode: ask the service for a JSON object by `response_format`.
        extra: further fields of the request's body.

    Raises:
        UserError: a value out of its range.
    """

    url: str
    model: str
    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int = 256
    examples: int = 3
    tries: int = 1
    concurrency: int = 8
    requests_per_minute: float | None = None
    retries: int = 5
    timeout: float = 120.0
    backoff: float = 1.0
    longest_wait: float = 120.0
    max_failures: int = 10
    max_requests: int | None = None
    max_tokens: int | None = None
    ask_unanswered: bool = False
    key_variable: str = "OPENAI_API_KEY"
    length_field: str = "max_tokens"
    json_mode: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"temperature": 0, "max_new_tokens": 1, "examples": 0, "tries": 1, "concurrency": 1, "retries": 0}
        least |= {"backoff": 0, "longest_wait": 0, "max_failures": 1, "max_requests": 0, "max_tokens": 0}
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and not given >= value:
                raise UserError(f"writer {name}: {given}; expected {value} or more")
        for name in ("timeout", "requests_per_minute"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise UserError(f"writer {name}: {given}; expected more than 0")
        if self.concurrency > MOST_AT_A_TIME:
            raise UserError(
                f"writer concurrency: {self.concurrency}; expected {MOST_AT_A_TIME} or less, each is a thread"
            )


@dataclass(frozen=True)
class Request:
    """One request: its body, and the row of it that goes into the manifest."""

    body: dict[str, Any]
    row: dict[str, Any]
    tokens: int

    @property
    def key(self) -> str:
        return str(self.row["key"])


class EndpointWriter:
    """Asks for captions (`ask`), then tells what came of each (`written`), out of the manifest."""

    def __init__(self, seeds: Seeds, settings: WriterSettings) -> None:
        self.seeds, self.own = seeds, settings
        self.endpoint = ChatEndpoint(settings.url, settings.model, settings.key_variable)

    @property
    def settings(self) -> dict[str, Any]:
        """All that a request depends on; no key."""
        names = ("model", "seed", "temperature", "max_new_tokens", "examples", "length_field", "json_mode", "extra")
        chosen = {name: value for name, value in asdict(self.own).items() if name in names}
        return {"writer": "endpoint", "url": self.endpoint.url, **chosen, "seeds": self.seeds.digest}

    def request(self, caption: Caption, number: int, attempt: int) -> Request:
        """The request for the n-th text of a caption; another attempt has another seed, so it is another request."""
        rng = random.Random(f"{self.own.seed}:{number}:{caption.id}")
        seed = _seed(self.own.seed, caption.id, number, attempt)
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": self._messages(caption, rng),
            "temperature": self.own.temperature,
            "seed": seed,
            self.own.length_field: self.own.max_new_tokens,
        }
        if self.own.json_mode:
            body["response_format"] = {"type": "json_object"}
        body |= self.own.extra
        prompt = json.dumps(body["messages"], sort_keys=True)
        whole = f"{self.endpoint.url}\0{number}:{caption.id}\0{json.dumps(body, sort_keys=True)}"
        row: dict[str, Any] = {"key": _hash(whole)[:32]}
        row |= {"id": caption.id, "number": number, "attempt": attempt, "model": self.endpoint.model}
        row |= {"seed": seed, "prompt_hash": _hash(prompt)[:16]}
        return Request(body, row, len(prompt.encode()) // 2 + self.own.max_new_tokens)

    def written(self, caption: Caption, number: int, ledger: Ledger) -> Written | str:
        """What the service wrote, or the reason why there is nothing."""
        reason = NOT_ASKED
        for attempt in range(self.own.tries):
            request = self.request(caption, number, attempt)
            state = ledger.state(request.key)
            if state == ANSWERED:
                found = _outcome(ledger.row(request.key))
                if isinstance(found, Written):
                    return found
                reason = found
            elif state:
                reason = {REFUSED: DECLINED, RELEASED: FAILED}.get(state, UNANSWERED)
        return reason

    def ask(
        self, items: Iterable[tuple[Caption, int]], ledger: Ledger, progress: Callable[[int], None] | None = None
    ) -> bool:
        """Ask for all texts that are not in the manifest; False when a spending limit ended it before.

        Raises:
            UserError: the service turned the run away, or too many captions in a row failed; what was answered is kept.
        """
        return _Asking(self, ledger, progress).run(items)

    def _messages(self, caption: Caption, rng: random.Random) -> list[dict[str, str]]:
        own = self.seeds
        messages = [{"role": "system", "content": own.system}]
        count = min(self.own.examples, len(own.captions))
        prompts = rng.sample(own.prompts, min(count, len(own.prompts)))
        answers = rng.sample(own.answers, min(count, len(own.answers)))
        for place, example in enumerate(rng.sample(own.captions, count)):
            request, answer = prompts[place % len(prompts)], answers[place % len(answers)]
            reply = {"request": request.replace(MARK, example), "answer": answer.replace(MARK, example)}
            messages.append({"role": "user", "content": f"Caption: {example}"})
            messages.append({"role": "assistant", "content": json.dumps(reply, ensure_ascii=False)})
        return [*messages, {"role": "user", "content": f"Caption: {caption.text}"}]


class _Asking:
    """One run over the captions: its threads, what stops them, and what they share."""

    def __init__(self, writer: EndpointWriter, ledger: Ledger, progress: Callable[[int], None] | None) -> None:
        self.writer, self.ledger, self.own, self.progress = writer, ledger, writer.own, progress
        self.budget = Budget(lambda: (ledger.requests, sum(ledger.tokens.values())), *self._limits())
        self.pace = Pace(self.own.requests_per_minute)
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.in_a_row, self.within_limits = 0, True

    def _limits(self) -> tuple[int | None, int | None]:
        return self.own.max_requests, self.own.max_tokens

    def run(self, items: Iterable[tuple[Caption, int]]) -> bool:
        pool = ThreadPoolExecutor(self.own.concurrency, thread_name_prefix="writer")
        waiting: set[Future[None]] = set()
        try:
            for caption, number in items:
                if self.stop.is_set():
                    break
                waiting.add(pool.submit(self._item, caption, number))
                if len(waiting) >= 4 * self.own.concurrency:
                    waiting = self._settle(waiting)
            while waiting:
                waiting = self._settle(waiting)
        finally:
            # What is on its way is paid for: it is waited for, and written down.
            self.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return self.within_limits

    def _settle(self, waiting: set[Future[None]]) -> set[Future[None]]:
        done, left = wait(waiting, return_when=FIRST_COMPLETED)
        for call in done:
            call.result()
        if self.progress is not None:
            self.progress(len(done))
        return set(left)

    def _item(self, caption: Caption, number: int) -> None:
        """Ask for one text, again while what comes back has the wrong form and there are tries left."""
        for attempt in range(self.own.tries):
            request = self.writer.request(caption, number, attempt)
            state = self.ledger.state(request.key)
            if state in ("", RELEASED) or (state == UNANSWERED and self.own.ask_unanswered):
                if self.stop.is_set() or not self._within_budget(request):
                    return
                state = self.ledger.state(request.key)
            if state in ("", RELEASED, UNANSWERED, REFUSED):
                return
            if isinstance(_outcome(self.ledger.row(request.key)), Written):
                return

    def _within_budget(self, request: Request) -> bool:
        if not self.budget.take(request.tokens, self.stop):
            if not self.stop.is_set():
                self.within_limits = False
                self.stop.set()
            return False
        try:
            self._send(request)
        finally:
            self.budget.give_back(request.tokens)
        return True

    def _send(self, request: Request) -> None:
        own = self.own
        policy = RetryPolicy(own.retries, own.timeout, own.backoff, own.longest_wait)
        try:
            with_retries(lambda: self._call(request), policy, self.stop)
        except StoppedError:
            return
        except CallError as error:
            self._failed(request, error)
        else:
            with self.lock:
                self.in_a_row = 0

    def _call(self, request: Request) -> None:
        """Send it once; the manifest knows before and after."""
        self.pace.wait(self.stop)
        if self.stop.is_set():
            raise StoppedError
        self.ledger.write(SENT, request.row)
        try:
            body = self.writer.endpoint.post(request.body, self.own.timeout, {"Idempotency-Key": request.key})
            said = read_answer(body)
        except CallError as error:
            event = UNANSWERED if error.reached else REFUSED if error.status in REFUSALS else RELEASED
            text = self.writer.endpoint.without_key(str(error))
            self.ledger.write(event, {**request.row, "status": error.status, "reason": text})
            if error.wait is not None and error.again and error.wait <= self.own.longest_wait:
                self.pace.hold(error.wait)
            if error.reached and not self.own.ask_unanswered:
                raise CallError(str(error), error.status, again=False, reached=True) from error
            raise
        self.ledger.write(ANSWERED, {**request.row, **_usage(body, request, said), **_said(said)})

    def _failed(self, request: Request, error: CallError) -> None:
        """Count it; raise UserError when the run had better stop."""
        final = not error.again and not error.reached and error.status not in REFUSALS
        with self.lock:
            self.in_a_row += 1
            too_many = self.in_a_row >= self.own.max_failures
        if not final and not too_many:
            return
        self.stop.set()
        count = f" ({self.in_a_row} captions in a row failed)" if too_many else ""
        hint = f"; {self.writer.endpoint.key_hint()}" if error.status in KEY_REFUSALS else ""
        where = f"{self.writer.endpoint.url}, model {self.writer.endpoint.model!r}, caption {request.row['id']!r}"
        text = f"{where}: {error}{hint}{count}; what was answered is kept, the same command resumes"
        raise UserError(self.writer.endpoint.without_key(text)) from error


def _outcome(row: Mapping[str, Any]) -> Written | str:
    """What an answered request brought."""
    if row.get("refused"):
        return DECLINED
    found = read_reply(str(row.get("output", "")))
    return CUT if isinstance(found, str) and row.get("finish") == "length" else found


def _said(said: Said) -> dict[str, Any]:
    return {"finish": said.finish, "output": said.text, **({"refused": True} if said.refused else {})}


def _usage(body: Any, request: Request, said: Said) -> dict[str, Any]:
    """The tokens that it took: by the service's account, else estimated (half a token a byte), and marked so."""
    usage = body.get("usage") if isinstance(body, dict) else None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    if len(counts) == 2 and all(isinstance(count, int) and count >= 0 for count in counts):
        return {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
    asked = len(json.dumps(request.body["messages"], sort_keys=True).encode()) // 2
    return {"prompt_tokens": asked, "completion_tokens": len(said.text.encode("utf-8", "replace")) // 2, "guess": True}


def _seed(*parts: Any) -> int:
    """A seed of 31 bits, as all services take it."""
    return int(_hash(":".join(map(str, parts)))[:8], 16) >> 1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
