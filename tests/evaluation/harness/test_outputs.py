"""The log of outputs: appended, torn, doubled, read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from vargpt_lightning.evaluation.harness.outputs import (
    Output,
    OutputLog,
    append_rows,
    output_key,
    read_rows,
    write_rows,
)


def output(number: int, text: str = "yes") -> Output:
    return Output(f"q{number}", f"key{number}", "Is it?", text, "stop")


def lines(folder: Path) -> dict[str, int]:
    return {file.name: len(file.read_bytes().splitlines()) for file in sorted(folder.glob("*.jsonl"))}


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    log = OutputLog(tmp_path)
    log.append([output(1), output(2)])
    log.append([])
    log.append([output(3)])
    assert lines(tmp_path) == {"0-0.jsonl": 3}
    assert OutputLog(tmp_path).read({"key1", "key3", "key9"}) == {"key1": output(1), "key3": output(3)}


def test_each_attempt_and_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    first, other, second = OutputLog(tmp_path), OutputLog(tmp_path, rank=1), OutputLog(tmp_path)
    first.append([output(1)])
    other.append([output(2)])
    second.append([output(3)])
    first.append([output(4)])
    assert lines(tmp_path) == {"0-0.jsonl": 2, "0-2.jsonl": 1, "1-1.jsonl": 1}


def test_no_file_is_made_for_nothing(tmp_path: Path) -> None:
    OutputLog(tmp_path / "outputs").append([])
    assert not (tmp_path / "outputs").exists() and OutputLog(tmp_path / "outputs").read({"key1"}) == {}


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
def test_a_torn_last_line_is_passed_over_and_ended(cut: int, tmp_path: Path) -> None:
    log = OutputLog(tmp_path)
    log.append([output(1), output(2)])
    file = tmp_path / "0-0.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    whole = {"key1", "key2"} if cut == 1 else {"key1"}  # the end of the line alone was lost
    assert set(log.read({"key1", "key2", "key3"})) == whole
    log.append([output(3)])
    assert set(log.read({"key1", "key2", "key3"})) == whole | {"key3"}


def test_rows_that_are_none_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "0-0.jsonl").write_bytes(
        b'[1]\n{"id": "q1"}\n{"id": "q1", "key": "key1", "prompt": 3, "output": ""}\n\xff\xfe\n\0\0\n'
    )
    OutputLog(tmp_path).append([output(1)])
    (tmp_path / "notes.jsonl").write_text('{"id": "q1", "key": "key1", "prompt": "", "output": "no"}\n')
    assert OutputLog(tmp_path).read({"key1"}) == {"key1": output(1)}


@pytest.mark.parametrize("text", ["", "a\u2028b\u2029c\x85d", "\ud800 alone", "nul \0 end", "x" * 100_000, "Ö\r\n\t😀"])
def test_any_text_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    OutputLog(tmp_path).append([output(1, text), output(2)])
    found = OutputLog(tmp_path).read({"key1", "key2"})
    assert found == {"key1": output(1, text), "key2": output(2)}


def test_doubled_answers_are_settled_the_same_way_each_time(tmp_path: Path) -> None:
    """The latest attempt wins, then the lowest rank, then the first line, whatever order the files are found in."""
    rows = {"1-0": "b", "0-0": "a", "2-11": "e", "10-11": "d", "0-9": "c"}
    for name, text in rows.items():
        write_rows(tmp_path / f"{name}.jsonl", [output(1, text).row(), output(1, "later").row()])
    assert OutputLog(tmp_path).read({"key1"})["key1"].output == "e"
    (tmp_path / "2-11.jsonl").unlink()
    assert OutputLog(tmp_path).read({"key1"})["key1"].output == "d"
    for name in ("10-11", "0-9"):
        (tmp_path / f"{name}.jsonl").unlink()
    assert OutputLog(tmp_path).read({"key1"})["key1"].output == "a"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_answer_wins_over_a_skipped_question(order: tuple[int, int], tmp_path: Path) -> None:
    both = [Output("q1", "key1", "Is it?", skipped="no picture"), output(1)]
    for place in order:
        OutputLog(tmp_path).append([both[place]])
    assert OutputLog(tmp_path).read({"key1"}) == {"key1": output(1)}
    assert "output" not in next(row for row in read_rows(tmp_path / f"0-{order.index(0)}.jsonl"))


def test_a_key_covers_all_that_an_output_depends_on() -> None:
    facts = [("b", "1", "p", "c"), ("a", "1", "p", "c"), ("b", "2", "p", "c"), ("b", "1", "q", "c")]
    keys = {output_key(*each) for each in [*facts, ("b", "1", "p", "d"), ("b1", "", "p", "c")]}
    assert len(keys) == 6 and output_key("b", "1", "p", "c") in keys


def test_rows_are_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"a": 1}])

    def broken() -> object:
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(file, broken())  # type: ignore[arg-type]
    assert list(read_rows(file)) == [{"a": 1}] and list(tmp_path.iterdir()) == [file]


def test_a_full_disk_tears_one_line_at_most(tmp_path: Path) -> None:
    """The system stops the write in the middle, as it does at the end of a disk."""
    import resource
    import signal

    file = tmp_path / "rows.jsonl"
    append_rows(file, [{"number": number} for number in range(10)])
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 40, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_rows(file, [{"number": number} for number in range(10, 20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [row["number"] for row in read_rows(file)] == [*range(10), 10, 11]
    append_rows(file, [{"number": 99}])
    assert [row["number"] for row in read_rows(file)] == [*range(10), 10, 11, 99]
