"""Benchmarks from a YAML file of columns: what is read, asked and scored, and mistakes in one line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.evaluation.pictures import write_pictures
from vargpt_lightning.commands.evaluate import main as evaluate
from vargpt_lightning.commands.score import main as score
from vargpt_lightning.evaluation import benchmarks
from vargpt_lightning.evaluation.base.benchmark import Benchmark
from vargpt_lightning.utils.errors import UserError

COLUMNS = {"question": "text", "picture": "image", "answer": "label"}


@pytest.fixture
def described(tmp_path: Path) -> Any:
    """Writes rows beside a YAML file, with pictures, and returns the file."""
    write_pictures(tmp_path / "pictures", 3)

    def write(rows: list[dict[str, Any]], **more: Any) -> Path:
        (tmp_path / "rows.jsonl").write_text(
            "".join(json.dumps({"image": "pictures/0.png", **row}) + "\n" for row in rows)
        )
        tree = {"name": "mine", "data": "rows.jsonl", "columns": COLUMNS, "metric": "exact", **more}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
        return tmp_path / "mine.yaml"

    return write


def values(file: Path, *outputs: str) -> list[float]:
    found = benchmarks.get(str(file))
    records = list(found.load(file, pictures=False))
    return [found.score(output, record).value for output, record in zip(outputs, records * len(outputs), strict=False)]


def test_it_is_a_benchmark_like_others(described: Any) -> None:
    rows = [{"text": "What?", "label": "Cat", "kind": "a"}, {"text": "Which?", "label": ["dog", "hound"], "kind": "b"}]
    file = described(rows, columns={**COLUMNS, "category": "kind"}, title="Mine")
    found = benchmarks.get(str(file))
    assert isinstance(found, Benchmark) and (found.NAME, found.TITLE, found.MAX_NEW_TOKENS) == ("mine", "Mine", 32)
    records = list(found.load(file))
    assert [found.record_id(record) for record in records] == ["0", "1"]
    assert found.pictures(records[0])[0].open().size == (32, 32)  # type: ignore[union-attr]
    assert found.prompt(records[0], "plain") == "What?" and "single word" in found.prompt(records[0])
    scores = [found.score(output, record) for output, record in zip(("cat.", "HOUND"), records, strict=True)]
    figures = found.aggregate(records, [*scores[:1], found.score("", records[1])])
    assert [each.value for each in scores] == [1, 1]
    assert (figures["accuracy"], figures["accuracy/a"], figures["accuracy/b"], figures["empty"]) == (0.5, 1, 0, 1)
    assert found.load(file)[1]["id"] == "1"


@pytest.mark.parametrize(
    ("metric", "row", "right", "wrong"),
    [
        ("contains", {"label": "red"}, "It is RED!", "It is reddish"),
        ("yes_no", {"label": "yes"}, "Yes, it is.", "It is"),
        ("number", {"label": 1200}, "There are 1,200.", "12"),
        ("choice", {"label": "B", "choices": ["cat", "dog"]}, "(B) dog", "cat"),
        ("choice", {"label": "dog", "choices": ["cat", "dog"]}, "The answer is B", "A"),
        ("vqa", {"label": ["two"] * 10}, "2", "three"),
    ],
)
def test_metrics(described: Any, metric: str, row: dict[str, Any], right: str, wrong: str) -> None:
    columns = {**COLUMNS, **({"options": "choices"} if metric == "choice" else {})}
    file = described([{"text": "?", **row}], metric=metric, columns=columns)
    assert values(file, right, wrong) == [1, 0]
    found = benchmarks.get(str(file))
    if metric == "choice":
        assert found.prompt(next(iter(found.load(file)))).startswith(
            "?\nA. cat\nB. dog\nAnswer with the option's letter"
        )


def test_the_files_own_words(described: Any) -> None:
    file = described([{"text": "?", "label": "x"}], prompt="Q: {question}\nA:", max_new_tokens=5)
    found = benchmarks.get(str(file))
    record = next(iter(found.load(file)))
    assert found.prompt(record) == found.prompt(record, "plain") == "Q: ?\nA:" and found.MAX_NEW_TOKENS == 5
    with pytest.raises(UserError, match="style: 'loud'; expected one of llava, plain"):
        found.prompt(record, "loud")


def test_parquet_and_a_saved_dataset_are_read(described: Any, tmp_path: Path) -> None:
    content = (tmp_path / "pictures" / "0.png").read_bytes()
    rows = [{"text": f"{n}?", "label": str(n), "image": {"bytes": content, "path": None}} for n in range(5)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "rows.parquet")
    saved = tmp_path / "saved" / "test"
    saved.mkdir(parents=True)
    for number, part in enumerate((table.slice(0, 2), table.slice(2))):
        with (
            pa.OSFile(str(saved / f"data-{number:05d}-of-00002.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(part, max_chunksize=2)
    names = [{"filename": f"data-{number:05d}-of-00002.arrow"} for number in range(2)]
    (saved / "state.json").write_text(json.dumps({"_data_files": names}))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train"]}))
    for data in ("rows.parquet", "saved", "saved/test"):
        file = described([], data=data)
        found = benchmarks.get(str(file))
        records = list(found.load(file))
        assert [record["question"] for record in records] == ["0?", "1?", "2?", "3?", "4?"]
        assert [record["id"] for record in found.load(file, pictures=False).take([1, 3, 4])] == ["1", "3", "4"]
        assert found.pictures(records[4])[0].bytes() == content  # type: ignore[union-attr]
    with pytest.raises(UserError, match="expected the split val; there are test, train"):
        benchmarks.get(str(file := described([], data="saved", split="val"))).load(file)
    (saved / "data-00001-of-00002.arrow").write_bytes(b"torn")
    with pytest.raises(UserError, match="is not a whole Arrow file"):
        benchmarks.get(str(file := described([], data="saved"))).load(file)
    (saved / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match="1 of its 2 files are missing, such as data-00001"):
        benchmarks.get(str(file)).load(file)


def test_a_saved_dataset_is_the_data_of_a_public_benchmark(described: Any, tmp_path: Path) -> None:
    row = {"question_id": "1", "question": "Is it?", "answer": "yes", "category": "random", "image_source": "x"}
    table = pa.Table.from_pylist([{"id": "1", **row}])
    (tmp_path / "pope").mkdir()
    with pa.OSFile(str(tmp_path / "pope" / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    (tmp_path / "pope" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
    assert [record["question"] for record in benchmarks.get("pope").load(tmp_path / "pope", pictures=False)] == [
        "Is it?"
    ]


def test_commands_take_the_file(described: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = described([{"text": "What?", "label": "cat"}, {"text": "Which?", "label": "dog"}])
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "0", "output": "Cat"}\n{"id": "1", "output": "cow"}\n')
    out = tmp_path / "out"
    assert score([str(answers), "--benchmark", str(file), "--out", str(out)]) == 0
    result = json.loads((out / "mine" / "result.exact.json").read_text())
    assert result["figures"]["accuracy"] == 0.5 and result["protocol"] == "exact"
    assert (out / "mine.html").is_file() and "50.0" in capsys.readouterr().out
    assert score([str(out)]) == 0, "again, from the outputs alone"
    assert evaluate([str(answers), "--benchmarks", str(file), "--out", str(tmp_path / "two")]) == 0
    assert json.loads((tmp_path / "two" / "mine" / "result.exact.json").read_text())["figures"] == result["figures"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metric": "exakt"}, "the metric 'exakt'; there are exact, .*; did you mean 'exact'"),
        ({"name": "pope"}, "the name 'pope' is that of another benchmark"),
        ({"name": "a b"}, "the name 'a b'; expected letters"),
        ({"nmae": "x"}, "'nmae' is no key; .*did you mean 'name'"),
        ({"columns": {"question": "q"}}, "columns lack picture, answer"),
        ({"columns": {**COLUMNS, "anser": "x"}}, "columns have 'anser'"),
        ({"columns": {**COLUMNS, "question": "words"}}, "words missing; there are"),
        ({"metric": "choice"}, "a choice has no column of options"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"prompt": "What?"}, r"expected text with \{question\} in it"),
        ({"data": "none.parquet"}, "are not there; expected a file or a folder"),
        ({"metric": "number"}, "question '0': the answer 'x'; expected a number"),
    ],
)
def test_mistakes_are_named(described: Any, more: dict[str, Any], message: str) -> None:
    file = described([{"text": "?", "label": "x"}], **more)
    with pytest.raises(UserError, match=message):
        evaluate(["openai:http://127.0.0.1:9/v1#x", "--benchmarks", str(file), "--out", str(file.parent / "out")])
