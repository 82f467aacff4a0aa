"""Which questions of a benchmark are asked, of whom and how: written down before the first one. Imports no torch.

    OUT/<benchmark>/asked.json

Whoever scores reads the same file: no more than this, the outputs and the data is needed.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Benchmark, Record, group_of, other_id_of
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.harness.outputs import output_key
from vargpt_lightning.evaluation.rules.letters import is_missing
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import different, plain, read_json, write_json

FILE = "asked.json"
AMBIGUOUS = ""  # in place of the id of what others call two questions
SPEED = ("batch_size", "concurrency", "keep_scales", "keep_logits")  # settings that no output depends on


@dataclass(frozen=True)
class Asked:
    """What a benchmark's outputs depend on besides its data, and how many of its questions are asked.

    Args:
        benchmark: its name.
        model: what people call the system.
        digest: identifies the weights.
        settings: all else that an output depends on: precision, template, versions.
        max_new_tokens: how long an answer may be; None leaves it to the system.
        style: of the prompt.
        limit: at most so many questions; None asks all.
        seed: of the choice of these.
        source: what the questions were read from.
        data: the folder or file that was given for that.
    """

    benchmark: str
    model: str = ""
    digest: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    style: str = "llava"
    limit: int | None = None
    seed: int = 0
    source: str = ""
    data: str = ""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit: {self.limit}; expected 1 or more questions")

    @cached_property
    def context(self) -> str:
        """A fingerprint of the model and its settings."""
        return short_hash(self.digest, plain(self.settings), self.max_new_tokens)

    def write(self, folder: Path) -> None:
        """Keep this in OUT/<benchmark>."""
        write_json(folder / FILE, {"version": 1, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Asked:
        """What was asked in OUT/<benchmark>.

        Raises:
            UserError: nothing was, or the file is broken.
        """
        file = folder / FILE
        if not file.is_file():
            raise UserError(f"{file} is missing: no benchmark was asked here; `vargpt evaluate` does so")
        kept = read_json(file)
        try:
            return cls(**{name: kept[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError) as error:
            raise UserError(f"{file}: what was asked cannot be read: {error!r}") from error


def describe(system: Any) -> dict[str, Any]:
    """The name, digest and settings of a system, as `Asked` takes them; what it does not tell is empty."""
    given: Any = getattr(system, "settings", None) or {}
    values = asdict(given) if is_dataclass(given) and not isinstance(given, type) else dict(given)
    settings = {str(key): plain(value) for key, value in values.items() if key not in SPEED}
    name = getattr(system, "name", "") or type(system).__name__
    return {"model": str(name), "digest": str(getattr(system, "digest", "")), "settings": settings}


def check_free(folder: Path, asked: Asked) -> None:
    """Refuse a folder that holds what another system was asked, or the same one in another way.

    Raises:
        UserError: it does; names both.
    """
    if not (folder / FILE).is_file() or not any((*folder.glob("result.*.json"), *folder.glob("outputs/*"))):
        return
    before = Asked.read(folder)
    ways: dict[str, tuple[Any, Any]] = {
        "system": (f"{before.model} ({before.digest[:12]})", f"{asked.model} ({asked.digest[:12]})"),
        "settings": (plain(before.settings), plain(asked.settings)),
        "prompt style": (before.style, asked.style),
        "max_new_tokens": (before.max_new_tokens, asked.max_new_tokens),
    }
    for what, (old, new) in ways.items():
        if old != new:
            old, new = different(old, new)
            raise UserError(
                f"{folder} holds results of the {what} {old}, and these are of {new}; expected another --out, or "
                "--replace to write over them"
            )


@dataclass(frozen=True)
class Choice:
    """The questions that are asked, in the order of the data.

    `keys` leads from an id to the key of its output, `places` from an id to its row; `total` counts all there are.
    `others` leads from what other projects call a question to its id, where the benchmark's `other_id` says so.
    """

    keys: Mapping[str, str]
    places: Mapping[str, int]
    total: int
    others: Mapping[str, str] = field(default_factory=dict)


def choose(module: Benchmark, rows: Iterable[Record], asked: Asked) -> Choice:
    """The questions to ask: all, or a subset of whole groups that is the same each time.

    Groups come in an order made from a hash of their names, so a smaller subset is part of a larger one, and the order
    of the data plays no part. At least one group is asked.

    Raises:
        UserError: two questions share an id, one has no words, or there are none.
    """
    group = group_of(module) or module.record_id
    keys: dict[str, str] = {}
    places: dict[str, int] = {}
    groups: dict[str, str] = {}
    others: dict[str, str] = {}
    other_id = other_id_of(module)
    doubled: Counter[str] = Counter()
    for place, record in enumerate(rows):
        id_ = str(module.record_id(record))
        if is_missing(words := record.get("question", "none of its own")):
            raise UserError(f"{asked.benchmark}, question {id_!r}: question is {words!r}; expected text")
        if id_ in keys:
            doubled[id_] += 1
        keys[id_] = output_key(asked.benchmark, id_, module.prompt(record, asked.style), asked.context)
        places[id_] = place
        if asked.limit is not None:
            groups[id_] = str(group(record))
        if other_id is not None:
            other = other_id(record)
            others[other] = AMBIGUOUS if other in others else id_
    if doubled:
        raise UserError(
            f"{asked.benchmark}: {sum(doubled.values())} questions have an id that another one has, such as "
            f"{next(iter(doubled))!r}; expected each id once in {asked.source}"
        )
    if not keys:
        raise UserError(f"{asked.benchmark}: no questions in {asked.source}")
    total = len(keys)
    if asked.limit is not None and asked.limit < total:
        wanted = _some_groups(groups.values(), asked.limit, asked.seed)
        keys = {id_: key for id_, key in keys.items() if groups[id_] in wanted}
    return Choice(keys, places, total, {other: id_ for other, id_ in others.items() if id_ != AMBIGUOUS})


def _some_groups(names: Iterable[str], limit: int, seed: int) -> set[str]:
    sizes = Counter(names)
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    chosen = {order[0]}
    count = sizes[order[0]]
    for name in order[1:]:
        count += sizes[name]
        if count > limit:
            break
        chosen.add(name)
    return chosen


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
