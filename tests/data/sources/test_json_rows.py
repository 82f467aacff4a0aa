from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from vargpt_lightning.data.sources import json_rows as module
from vargpt_lightning.data.sources.base import RowError
from vargpt_lightning.data.sources.json_rows import json_parts, json_rows
from vargpt_lightning.utils.errors import UserError


def rows_of(path: Path, rows: int = 3) -> list[tuple[int, Any]]:
    return [row for part in json_parts("test", path, {}, rows=rows) for row in json_rows(part)]


def nasty(count: int) -> list[Any]:
    rng = random.Random(1)
    texts = ['a"b\\', "[{,]}", "ünï\u2028 \U0001f600", "\\u005d", "", "x" * 300, "\x85\x9f"]
    return [
        {"id": number, "deep": [{"t": rng.choice(texts)} for _ in range(rng.randrange(5))], "n": -1.5e3}
        for number in range(count)
    ]


@pytest.mark.parametrize("style", ["compact", "ascii", "pretty", "lines", "bom", "crlf"])
@pytest.mark.parametrize("chunk", [7, 2**20])
def test_every_row_is_found_wherever_a_chunk_ends(
    tmp_path: Path, style: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    values = nasty(40)
    text = json.dumps(values, ensure_ascii=style == "ascii", indent=2 if style in ("pretty", "bom") else None)
    if style in ("lines", "crlf"):
        end = "\r\n" if style == "crlf" else "\n"
        text = end.join(json.dumps(value, ensure_ascii=False).replace("\x85", "\\u0085") for value in values)
        values = json.loads("[" + ",".join(text.split(end)) + "]")
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8-sig" if style == "bom" else "utf-8"))
    assert rows_of(path) == list(enumerate(values))
    parts = json_parts("test", path, {}, rows=3)
    assert len(parts) == 14 and [part.first for part in parts] == list(range(0, 40, 3))
    # each by itself, in any order
    assert [value for _, value in json_rows(parts[5])] == values[15:18]


def test_a_list_may_be_empty_and_may_hold_what_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(" [ ] ")
    assert rows_of(path) == []
    path.write_text('[1, "a", null, {"b": [12]}, 345]')
    assert [value for _, value in rows_of(path, rows=1)] == [1, "a", None, {"b": [12]}, 345]


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"b": 2}',
        '[{"a": 1}, {"b": ',
        '[{"a": 1},',
        '[{"a": 1}, {"b": "cut in a te',
        "[",
        '{"a": 1}\n{"b": 2}\n{"c": ',
    ],
)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cut.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"cut\.json.*cut off.*expected a JSON list"):
        rows_of(path)


@pytest.mark.parametrize(
    "text", ["", "hello", '[{"a": 1} {"b": 2}]', '[{"a": tru}]', "[1] [2]", '{\n "a": 1\n}', "PAR1....", "\0"]
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"odd\.json"):
        rows_of(path)


def test_a_mistake_early_in_a_long_file_is_found_without_reading_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1000)
    path = tmp_path / "odd.json"
    path.write_text('[{"a" 1}, ' + '{"b": "cc"},' * 10000)
    with pytest.raises(UserError, match="byte 6"):
        rows_of(path)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200000)
    with pytest.raises(UserError, match=r"deep\.json"):
        rows_of(path)


def test_a_bad_line_in_the_middle_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n{"a": 3}\n')
    rows = rows_of(path)
    assert [number for number, _ in rows] == [0, 1, 2]
    assert isinstance(rows[1][1], RowError) and "line 2 is no JSON" in str(rows[1][1])
    assert rows[2][1] == {"a": 3}


def test_a_file_that_shrinks_under_the_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(nasty(20)))
    parts = json_parts("test", path, {}, rows=5)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.json"):
        list(json_rows(parts[-1]))


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2**16)
    path = tmp_path / "big.json"
    row = json.dumps({"id": 1, "text": "y" * 1000})
    path.write_text("[" + ",".join([row] * 8000) + "]")
    tracemalloc.start()
    count = sum(1 for part in json_parts("test", path, {}, rows=100) for _ in json_rows(part))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < path.stat().st_size / 4
