"""What a system said to a benchmark's questions, appended as it comes. Imports no torch.

    OUT/<benchmark>/outputs/<rank>-<number>.jsonl      id, key, prompt, pictures; output and finish, or skipped

Each process of each attempt appends to a file of its own. A row's key covers all that its output depends on, so an
output of another model, of other settings or to another prompt is never taken for the one that is looked for. It does
not cover the pictures, which nobody reads to look for an answer: their fingerprint stands beside the output.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.utils.files import plain

LENGTH = "length"


@dataclass(frozen=True)
class Output:
    """What was said to one question.

    `finish` is "stop", "length" or "" for unknown; `skipped` says why the question could not be asked, and then there
    is no output. `pictures` is a fingerprint of what was shown, "" where nothing was.
    """

    id: str
    key: str
    prompt: str
    output: str = ""
    finish: str = ""
    skipped: str = ""
    pictures: str = ""

    def row(self) -> dict[str, str]:
        """The row as it is kept."""
        row = {"id": self.id, "key": self.key, "prompt": self.prompt}
        row |= {"pictures": self.pictures} if self.pictures else {}
        return row | ({"skipped": self.skipped} if self.skipped else {"output": self.output, "finish": self.finish})


def output_key(benchmark: str, id_: str, prompt: str, context: str) -> str:
    """A fingerprint of a question as it is asked; `context` is one of the model and its settings."""
    return short_hash(benchmark, id_, prompt, context)


class OutputLog:
    """The outputs of a benchmark: those of all processes and attempts to read, a file of one's own to append to.

    Args:
        folder: OUT/<benchmark>/outputs; it need not exist.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._file: Path | None = None

    def append(self, outputs: Iterable[Output]) -> None:
        """Appends outputs and waits until they are on the disk."""
        rows = [output.row() for output in outputs]
        if rows:
            append_rows(self._own_file(), rows)

    def read(self, keys: Collection[str]) -> dict[str, Output]:
        """The outputs of the keys asked for that are there, by key.

        A key that was answered more than once (two processes that did not know of each other, a kill in a bad moment)
        has the answer of the latest attempt, of the lowest rank in it, of its first line: the same answer whoever
        reads. An answer wins over a skipped question.
        """
        wanted = keys if isinstance(keys, (set, frozenset, dict)) else set(keys)
        found: dict[str, Output] = {}
        for file in self._files():
            for row in read_rows(file):
                output = _output(row)
                if output is None or output.key not in wanted:
                    continue
                before = found.get(output.key)
                if before is None or (before.skipped and not output.skipped):
                    found[output.key] = output
        return found

    def _files(self) -> list[Path]:
        """The files in the order in which they win."""
        return [file for _, _, file in sorted((-number, rank, file) for rank, number, file in self._numbered())]

    def _numbered(self) -> Iterator[tuple[int, int, Path]]:
        for file in self.folder.glob("*.jsonl"):
            if match := re.fullmatch(r"(\d+)-(\d+)\.jsonl", file.name):
                yield int(match[1]), int(match[2]), file

    def _own_file(self) -> Path:
        """A file that no other process has: made at the first output, with the first number that is free for all."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = 1 + max((number for _, number, _ in self._numbered()), default=-1)
            while self._file is None:
                file = self.folder / f"{self.rank}-{number}.jsonl"
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                    self._file = file
                number += 1
        return self._file


def _output(row: Mapping[str, Any]) -> Output | None:
    """The row as an output; None for one that is not whole."""
    texts = {name: row.get(name, "") for name in Output.__dataclass_fields__}
    whole = row.keys() >= {"id", "key", "prompt"} and ("output" in row or row.get("skipped"))
    return Output(**texts) if whole and all(isinstance(text, str) for text in texts.values()) else None


# ------------------------------------------------------------------------------------------------------------- rows


def _line(row: Mapping[str, Any]) -> bytes:
    # ASCII: an answer may hold separators that some readers take for the end of a line, and halves of characters
    return json.dumps(plain(row)).encode("ascii") + b"\n"


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows to a file that is this process's own, and waits until they are on the disk.

    On a full disk the last line may be torn; it is ended first when more is appended.
    """
    content = b"".join(_line(row) for row in rows)
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            content = content if file.read(1) == b"\n" else b"\n" + content
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file one after the other; a line that a kill tore apart is left out, a missing file is empty."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a file by rows that are made while they are written, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.writelines(map(_line, rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
