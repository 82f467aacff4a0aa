"""Benchmarks asked, killed, resumed, shared by processes, and scored without the model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation import squares
from tests.evaluation.squares import Painter, write_data
from tests.forks import start
from tests.ranks import run_ranks, said
from vargpt_lightning.evaluation.base.protocols import RefusedError, Reply, UnfinishedError
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings, run_benchmark
from vargpt_lightning.evaluation.harness.score import score_benchmark
from vargpt_lightning.evaluation.harness.select import Asked, choose
from vargpt_lightning.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
MODULE = squares.this()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("squares"))


def ask(system: Any, data: Path, out: Path, **settings: Any) -> dict[str, Any]:
    return run_benchmark(system, MODULE, data, out, BenchmarkSettings(**settings))["lmms_eval"]


def outputs(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.glob("squares/outputs/*.jsonl")) for row in read_rows(file)]


def ids() -> list[str]:
    return [f"{number}/{question}" for number in range(10) for question in ("Which colour?", "Which paint?")]


def test_all_is_asked_scored_and_told(data: Path, tmp_path: Path) -> None:
    system = Painter(settings={"precision": "fp32", "batch_size": 3})
    result = ask(system, data, tmp_path, batch_size=8)
    assert result == json.loads((tmp_path / "squares/result.lmms_eval.json").read_text())
    assert result["figures"] | {"low": 0, "high": 0} == {
        "accuracy": 0.5, "accuracy/blue": 0.5, "n": 20.0, "empty": 0.0, "unparsed": 0.0, "guessed": 0.0, "judged": 0.0,
        "truncated": 10.0, "low": 0, "high": 0,
    }  # fmt: skip
    assert (result["benchmark"], result["title"], result["headline"], result["scale"]) == (
        "squares", "Squares", "accuracy", 100
    )  # fmt: skip
    assert (result["model"], result["digest"], result["settings"]) == ("painter", "paint-1", {"precision": "fp32"})
    assert (result["protocol"], result["style"], result["max_new_tokens"]) == ("lmms_eval", "llava", 4)
    assert (result["limit"], result["partial"], result["skipped"], result["missing"]) == (None, False, 0, 0)
    assert (result["asked"], result["total"]) == (20, 20)
    assert "squares.parquet" in result["rows_source"] and result["versions"]["python"]
    assert result["asking"]["batch_size"] == 8 and system.batches == [8, 8, 4]
    rows = list(read_rows(tmp_path / "squares/scores.lmms_eval.jsonl"))
    assert rows[1] == {
        "id": "0/Which paint?", "value": 0.0, "parsed": "RED", "status": "truncated", "output": "RED",
        "finish": "length", "prompt": "Which paint? (llava)", "answer": None, "category": None, "group": "0",
    }  # fmt: skip
    assert [row["id"] for row in rows] == [squares.record_id(record) for record in squares.load(data)]
    assert {row["prompt"] for row in outputs(tmp_path)} == {"Which colour? (llava)", "Which paint? (llava)"}


def test_what_was_asked_is_not_asked_again(data: Path, tmp_path: Path) -> None:
    first = ask(Painter(), data, tmp_path)
    again = Painter()
    assert ask(again, data, tmp_path)["figures"] == first["figures"] and again.asked == []


@pytest.mark.parametrize(
    "change",
    [{"system": Painter("paint-2")}, {"system": Painter(settings={"dtype": "bf16"})}, {"style": "plain"},
     {"max_new_tokens": 5}],
)  # fmt: skip
def test_outputs_of_others_are_not_taken_over(change: dict[str, Any], data: Path, tmp_path: Path) -> None:
    ask(Painter(), data, tmp_path)
    settings = dict(change)
    other = settings.pop("system", None) or Painter()
    other.asked.clear()
    ask(other, data, tmp_path, **settings)
    assert len(other.asked) == 20


def test_a_batch_is_kept_before_the_next_is_asked(data: Path, tmp_path: Path) -> None:
    class Stops(Painter):
        def answer(self, requests: Any) -> Any:
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().answer(requests)

    with pytest.raises(KeyboardInterrupt):
        ask(Stops(), data, tmp_path, batch_size=4)
    assert len(outputs(tmp_path)) == 12
    again = Painter()
    ask(again, data, tmp_path, batch_size=4)
    assert len(again.asked) == 8 and len(outputs(tmp_path)) == 20


def test_what_a_system_finished_before_it_gave_up_is_kept(data: Path, tmp_path: Path) -> None:
    class GivesUp(Painter):
        def answer(self, requests: Any) -> Any:
            raise UnfinishedError("the service is gone", {requests[1].id: Reply("red", finish="stop")})

    with pytest.raises(UserError, match="the service is gone"):
        ask(GivesUp(), data, tmp_path, batch_size=4)
    assert [(row["id"], row["output"]) for row in outputs(tmp_path)] == [("0/Which paint?", "red")]
    again = Painter()
    ask(again, data, tmp_path)
    assert len(again.asked) == 19


# ---------------------------------------------------------------------------------------------------------- killed


def begin(data: Path, out: Path, *options: str) -> Any:
    """Ask the squares in a process of its own, which may be killed."""
    return start(out.with_name("log"), squares.main, [str(data), str(out), *options])


def finish(data: Path, out: Path, *options: str, processes: int = 1) -> dict[str, float]:
    """Ask the squares to the end; return the figures that were told."""
    log = out.with_name("log")
    assert run_ranks(processes, log, squares.main, [str(data), str(out), *options]) == [0] * processes, said(log, 1)
    figures: dict[str, float] = json.loads(said(log, processes).rpartition("} ")[0] + "}")
    return figures


def wait_for_lines(file: Path, count: int) -> None:
    until = time.monotonic() + 60
    while not file.is_file() or file.read_text().count("\n") < count:
        assert time.monotonic() < until, "nothing was asked"
        time.sleep(0.005)


def test_killed_anywhere_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    """kill -9 at several moments, with half a line left behind; nothing that was kept is asked again."""
    expected = ask(Painter(), data, tmp_path / "unbroken")["figures"]
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    for stop in (3, 8, 15):
        process = begin(data, out, "pause=0.05", f"log={log}")
        wait_for_lines(log, stop)
        process.kill()
        process.join()
        newest = max(out.glob("squares/outputs/*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes() + b'{"id": "9/Which col')
    kept = {row["id"] for row in outputs(out)}
    before = Counter(log.read_text().split("\n")[:-1])
    assert 12 <= len(kept) < 20 and not (out / "squares/result.lmms_eval.json").exists()
    assert finish(data, out, f"log={log}") == expected
    after = Counter(log.read_text().split("\n")[:-1]) - before
    assert set(after) == {squares.record_id(record) for record in squares.load(data)} - kept
    assert max(Counter(row["id"] for row in outputs(out)).values()) == 1


def test_two_processes_end_as_one_and_take_up_each_others_work(data: Path, tmp_path: Path) -> None:
    """A run of one process is killed and two go on; each question is asked once, and the result is that of one."""
    expected = ask(Painter(), data, tmp_path / "one")["figures"]
    out, log = tmp_path / "two", tmp_path / "asked.txt"
    process = begin(data, out, "pause=0.05", f"log={log}")
    wait_for_lines(log, 4)
    process.kill()
    process.join()
    kept = {row["id"] for row in outputs(out)}
    log.unlink()
    assert finish(data, out, "batch=3", f"log={log}", processes=2) == expected
    asked = Counter(log.read_text().split("\n")[:-1])
    assert set(asked) == {squares.record_id(record) for record in squares.load(data)} - kept
    assert max(asked.values()) == 1
    ranks = Counter(file.name[0] for file in out.glob("squares/outputs/*.jsonl") for _ in read_rows(file))
    assert ranks["1"] == len(asked) // 2, "an even share, without padding"
    one, two = (list(read_rows(tmp_path / name / "squares/scores.lmms_eval.jsonl")) for name in ("one", "two"))
    assert one == two
    assert json.loads((out / "squares/result.lmms_eval.json").read_text())["asking"]["processes"] == 2


def test_sigterm_loses_nothing(data: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    process = begin(data, out, "pause=0.05", f"log={log}")
    wait_for_lines(log, 5)
    process.terminate()
    process.join()
    assert process.exitcode != 0 and len(outputs(out)) >= 4


# ------------------------------------------------------------------------------------------------------ batch sizes


def test_an_automatic_batch_is_halved_until_it_fits(data: Path, tmp_path: Path) -> None:
    system = Painter(fits=3)
    result = ask(system, data, tmp_path, batch_size="auto")
    assert system.batches == [16, 8, 4, 2, *[2] * 9] and result["asking"]["batch_size"] == 2
    assert result["asking"]["batch_size_asked"] == "auto" and result["figures"]["n"] == 20
    assert Counter(system.asked).most_common(1)[0][1] == 1


def test_an_automatic_batch_starts_as_the_system_wishes(data: Path, tmp_path: Path) -> None:
    system = Painter()
    system.batch_size = 7  # type: ignore[attr-defined]
    ask(system, data, tmp_path, batch_size="auto")
    assert system.batches == [7, 7, 6]


@pytest.mark.parametrize(("fits", "size", "said"), [(0, "auto", "a batch of 1"), (3, 4, "expected a smaller")])
def test_short_memory_is_said(fits: int, size: Any, said: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"memory is too short.*out of memory.*{said}|memory is too short.*{said}"):
        ask(Painter(fits=fits), data, tmp_path, batch_size=size)


def test_other_errors_are_not_taken_for_short_memory(data: Path, tmp_path: Path) -> None:
    class Broken(Painter):
        def answer(self, requests: Any) -> Any:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        ask(Broken(), data, tmp_path, batch_size="auto")


def test_too_few_answers_are_refused(data: Path, tmp_path: Path) -> None:
    class Lazy(Painter):
        def answer(self, requests: Any) -> Any:
            return super().answer(requests)[1:]

    with pytest.raises(ValueError, match="15 came back for 16 requests"):
        ask(Lazy(), data, tmp_path)
    assert outputs(tmp_path) == []


# ------------------------------------------------------------------------------------------------------------ limits


def test_a_limit_takes_whole_groups_and_is_marked(data: Path, tmp_path: Path) -> None:
    system = Painter()
    result = ask(system, data, tmp_path, limit=7)
    assert Counter(Counter(id_.split("/")[0] for id_ in system.asked).values()) == {2: 3}
    assert (result["limit"], result["asked"], result["total"], result["seed"]) == (7, 6, 20, 0)
    again = Painter()
    ask(again, data, tmp_path / "again", limit=7)
    assert again.asked == system.asked
    more = Painter()
    ask(more, data, tmp_path, limit=12)
    assert len(more.asked) == 6, "a larger limit asks what is new alone"


def test_a_limit_above_all_is_none(data: Path, tmp_path: Path) -> None:
    assert ask(Painter(), data, tmp_path, limit=500)["limit"] is None


def test_the_choice_depends_on_the_seed_and_not_on_the_order(data: Path) -> None:
    records = list(squares.load(data, pictures=False))

    def chosen(seed: int, rows: Any) -> set[str]:
        return set(choose(MODULE, rows, Asked("squares", limit=8, seed=seed)).keys)

    assert chosen(0, records) == chosen(0, records[::-1]) != chosen(1, records)


def test_one_group_is_asked_at_least(data: Path, tmp_path: Path) -> None:
    assert ask(Painter(), data, tmp_path, limit=1)["asked"] == 2


@pytest.mark.parametrize("changes", [{"limit": 0}, {"batch_size": 0}, {"batch_size": "many"}, {"max_new_tokens": -1}])
def test_settings_that_cannot_be_are_named(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(UserError, match=f"{name}: .*expected a whole number above 0"):
        BenchmarkSettings(**changes)
    with pytest.raises(UserError, match="protocol: 'strict'"):
        BenchmarkSettings(protocols=("strict",))


# --------------------------------------------------------------------------------------------------------- bad input


def test_broken_pictures_are_counted_and_never_scored(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", broken=(2, 5))
    system = Painter()
    result = ask(system, data, tmp_path / "out")
    assert (result["figures"]["n"], result["skipped"], result["partial"]) == (16.0, 4, True)
    assert not any(id_.startswith(("2/", "5/")) for id_ in system.asked)
    told = list(read_rows(tmp_path / "out/squares/skipped.jsonl"))
    assert [row["id"][0] for row in told] == ["2", "2", "5", "5"] and "does not decode" in told[0]["reason"]
    assert {row["id"][0] for row in read_rows(tmp_path / "out/squares/scores.lmms_eval.jsonl")} == set("01346789")
    size = len(outputs(tmp_path / "out"))
    ask(Painter(), data, tmp_path / "out")
    assert len(outputs(tmp_path / "out")) == size, "skipping the same again writes nothing"


def test_a_repaired_picture_is_asked(tmp_path: Path) -> None:
    ask(Painter(), write_data(tmp_path / "data", broken=(2,)), tmp_path / "out")
    system = Painter()
    result = ask(system, write_data(tmp_path / "data"), tmp_path / "out")
    assert system.asked == ["2/Which colour?", "2/Which paint?"]
    assert (result["figures"]["n"], result["skipped"], result["partial"]) == (20.0, 0, False)


class Choosy(Painter):
    """Refuses squares by their number, and batches larger than `fits` run out of its memory."""

    refuses: tuple[str, ...] = ("1/", "7/")

    def answer(self, requests: Any) -> Any:
        wrong = {r.id: f"question {r.id!r}: too long" for r in requests if r.id.startswith(self.refuses)}
        if wrong:
            raise RefusedError(wrong)
        return super().answer(requests)


@pytest.mark.parametrize(("batch", "fits"), [(1, 99), (4, 99), ("auto", 99), ("auto", 2)])
def test_questions_that_a_system_refuses_are_counted(data: Path, tmp_path: Path, batch: Any, fits: int) -> None:
    system = Choosy(fits=fits)
    result = ask(system, data, tmp_path, batch_size=batch)
    assert (result["figures"]["n"], result["skipped"], result["partial"]) == (16.0, 4, True)
    assert sorted(system.asked) == sorted(id_ for id_ in ids() if id_[0] not in "17"), "each of the others once"
    reason = "question '1/Which colour?': too long"
    assert result["skipped_because"][0] == reason and len(result["skipped_because"]) == 4
    assert next(read_rows(tmp_path / "squares/skipped.jsonl")) == {"id": "1/Which colour?", "reason": reason}
    size = len(outputs(tmp_path))
    ask(Choosy(), data, tmp_path)
    assert len(outputs(tmp_path)) == size, "refusing the same again writes nothing"
    able = Choosy()
    able.refuses = ("7/",)
    assert ask(able, data, tmp_path)["skipped"] == 2 and able.asked == ["1/Which colour?", "1/Which paint?"]


def test_a_refusal_of_no_question_is_an_error(data: Path, tmp_path: Path) -> None:
    class Confused(Painter):
        def answer(self, requests: Any) -> Any:
            raise RefusedError({"somebody else's": "no"})

    with pytest.raises(RefusedError, match="no"):
        ask(Confused(), data, tmp_path)


def test_pictures_that_were_replaced_do_not_keep_their_answers(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    ask(Painter(), data, tmp_path / "out", limit=4)
    assert all(len(row["pictures"]) == 16 for row in outputs(tmp_path / "out"))
    write_data(data, size=9)
    with pytest.raises(UserError, match=r"the picture of '.*' in .*data is not the one that the answer in .*outputs"):
        ask(Painter(), data, tmp_path / "out")
    assert ask(Painter(), data, tmp_path / "other")["figures"]["n"] == 20


def test_no_picture_at_all_is_an_error(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", squares=3, broken=(0, 1, 2))
    with pytest.raises(UserError, match=r"none of 6 questions has an output; the first: picture .* does not decode"):
        ask(Painter(), data, tmp_path / "out")


def test_doubled_ids_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "record_id", lambda record: str(record["number"]))
    with pytest.raises(UserError, match=r"squares: 10 questions have an id that another one has, such as '0'"):
        ask(Painter(), data, tmp_path)


@pytest.mark.parametrize("words", [None, "nan", " "])
def test_a_question_without_words_is_refused(tmp_path: Path, words: str | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = write_data(tmp_path / "data")
    rows = pq.read_table(data / "squares.parquet").to_pylist()
    rows[2]["question"] = words
    pq.write_table(pa.Table.from_pylist(rows), data / "squares.parquet")
    system = Painter()
    with pytest.raises(UserError, match=f"squares, question '1/{words}': question is {words!r}; expected text"):
        ask(system, data, tmp_path / "out")
    assert system.asked == []


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    data = write_data(tmp_path / "data")
    pq.write_table(pq.read_table(data / "squares.parquet").slice(0, 0), data / "squares.parquet")
    with pytest.raises(UserError, match="squares: no questions in"):
        ask(Painter(), data, tmp_path / "out")


# ----------------------------------------------------------------------------------------------------------- scoring


def test_scoring_again_needs_no_model(data: Path, tmp_path: Path) -> None:
    ask(Painter(), data, tmp_path)
    again = score_benchmark(MODULE, data, tmp_path / "squares", "lenient")
    assert again["figures"]["accuracy"] == 1.0 and again["protocol"] == "lenient" and again["digest"] == "paint-1"
    assert (tmp_path / "squares/result.lmms_eval.json").is_file()


def test_scoring_imports_no_torch(data: Path, tmp_path: Path) -> None:
    ask(Painter(), data, tmp_path)
    code = (
        "import sys; from pathlib import Path; from tests.evaluation import squares\n"
        "from vargpt_lightning.evaluation.harness.score import score_benchmark\n"
        f"score_benchmark(squares, Path({str(data)!r}), Path({str(tmp_path / 'squares')!r}), 'official')\n"
        "print({'torch', 'transformers', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_missing_outputs_are_counted_and_refused(data: Path, tmp_path: Path) -> None:
    ask(Painter(), data, tmp_path, batch_size=4)
    (file,) = tmp_path.glob("squares/outputs/*.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:13]))
    with pytest.raises(UserError, match=r"squares: 7 of 20 outputs are missing in .*, such as '6/Which paint\?'"):
        score_benchmark(MODULE, data, tmp_path / "squares", "lmms_eval")
    result = score_benchmark(MODULE, data, tmp_path / "squares", "lmms_eval", allow_partial=True)
    assert (result["figures"]["n"], result["missing"], result["partial"]) == (13.0, 7, True)


def test_scoring_where_nothing_was_asked_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asked\.json is missing"):
        score_benchmark(MODULE, data, tmp_path / "squares", "lmms_eval")
    (tmp_path / "squares").mkdir()
    (tmp_path / "squares/asked.json").write_text('{"benchmark": "squares"}')
    with pytest.raises(UserError, match="what was asked cannot be read"):
        score_benchmark(MODULE, data, tmp_path / "squares", "lmms_eval")


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Seven times the pictures (227 MB more, each in two rows) take no more memory."""
    code = (
        "import resource, sys; from pathlib import Path; from tests.evaluation import squares\n"
        "from vargpt_lightning.evaluation.harness.run import BenchmarkSettings, run_benchmark\n"
        "run_benchmark(squares.Painter(), squares, Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    for number, count in enumerate((20, 150)):
        data = write_noise(tmp_path / f"data{number}", count)
        done = subprocess.run(
            [sys.executable, "-c", code, str(data), str(tmp_path / f"out{number}")],
            cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert re.fullmatch(r"\d+\n", done.stdout), done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 75, peaks


def write_noise(folder: Path, squares_count: int) -> Path:
    """Pictures of 875 KB each, two rows a picture."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    folder.mkdir()
    schema = pq.read_schema(write_data(folder) / "squares.parquet")
    with pq.ParquetWriter(folder / "squares.parquet", schema) as writer:
        for number in range(squares_count):
            buffer = io.BytesIO()
            Image.frombytes("RGB", (540, 540), os.urandom(3 * 540 * 540)).save(buffer, "PNG", compress_level=0)
            image = {"bytes": buffer.getvalue(), "path": None}
            rows = [
                {"number": number, "question": question, "colour": "red", "image": image}
                for question in ("Which colour?", "Which paint?")
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return folder
