"""Answers and drawings that somebody else wrote: found by id, counted, and never matched in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from tests.evaluation.conftest import colour_features
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, Drawing, HasExpectedIds, ImageModel, TextModel
from vargpt_lightning.evaluation.run.runner import evaluate
from vargpt_lightning.evaluation.systems.files import Drawings, Predictions
from vargpt_lightning.utils.errors import UserError

ROWS = [
    {"id": "a", "output": "yes", "finish": None},
    {"id": "b", "output": "no", "finish": "length"},
    {"id": "3", "output": " 7 "},
]


def written(path: Path, rows: Any) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(system: Any, *ids: str) -> list[str]:
    return [reply.text for reply in system.answer([AnswerRequest(id_, "?") for id_ in ids])]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
def test_answers_are_found_by_id(tmp_path: Path, name: str) -> None:
    system = Predictions(written(tmp_path / name, ROWS))
    assert isinstance(system, TextModel) and isinstance(system, HasExpectedIds)
    system.expect("pope", ["a", "b", "3"])
    assert system.counts == {"missing": 0, "duplicate": 0, "unknown": 0}
    replies = system.answer([AnswerRequest(id_, "?") for id_ in ("3", "b", "a")])
    assert [reply.text for reply in replies] == [" 7 ", "no", "yes"]
    assert [reply.finish for reply in replies] == ["", "length", ""]


def test_an_object_of_ids_and_outputs_is_a_file_of_answers(tmp_path: Path) -> None:
    assert ask(Predictions(written(tmp_path / "p.json", {"a": "x", "b": "y"})), "b", "a") == ["y", "x"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"question_id": 12, "prompt": "?", "text": "cat"}, "cat"),
        ({"question_id": 12, "answer": "cat"}, "cat"),
        ({"id": 12.0, "answer": "dog", "prediction": "cat"}, "cat"),  # beside a prediction, the right answer
        ({"id": "12", "response": 4}, "4"),
    ],
)
def test_other_peoples_names_of_columns(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    assert ask(Predictions(written(tmp_path / "p.jsonl", [row])), "12") == [text]


def test_each_benchmark_has_its_own_answers(tmp_path: Path) -> None:
    rows = [{"id": "1", "benchmark": name, "output": name} for name in ("pope", "mme")]
    system = Predictions(written(tmp_path / "p.jsonl", [*rows, {"id": "2", "output": "both"}]))
    for name in ("pope", "mme"):
        system.expect(name, ["1", "2"])
        assert ask(system, "1", "2") == [name, "both"]


def test_wrong_ids_are_counted_and_refused_unless_allowed_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", [*ROWS, {"id": "x", "output": "?"}, {"id": "n", "output": None}])
    ids = ["a", "b", "c", "d", "n"]
    with pytest.raises(UserError, match=r"3 missing \(such as 'c'\), 2 unknown \(such as '3'\); allow by name"):
        Predictions(path).expect("mme", ids)
    with pytest.raises(UserError, match="ids for mme: 2 unknown"):
        Predictions(path, allow=("missing",)).expect("mme", ids)
    with pytest.raises(UserError, match="1 missing"):
        ask(Predictions(path), "c")
    system = Predictions(path, allow="missing,unknown")
    system.expect("mme", ids)
    assert system.counts == {"missing": 3, "duplicate": 0, "unknown": 2}
    assert ask(system, "a", "c", "n") == ["yes", "", ""]
    assert system.settings["allow"] == ["missing", "unknown"]


def test_ids_that_are_known_and_not_asked_are_not_unknown(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", [{"id": id_, "output": "yes"} for id_ in "abcd"])
    system = Predictions(path)
    system.expect("mme", ["a", "c"], known=["a", "b", "c", "d", "e"])
    assert system.counts == {"missing": 0, "duplicate": 0, "unknown": 0}
    with pytest.raises(UserError, match=r"1 missing \(such as 'e'\), 1 unknown \(such as 'd'\)"):
        system.expect("mme", ["a", "e"], known={"a": 0, "b": 1, "c": 2, "e": 3})


def test_ids_that_are_there_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", [*ROWS, {"id": "a", "output": "second"}, {"id": "a", "output": "third"}])
    with pytest.raises(UserError, match=r"2 duplicate \(such as 'a'\)"):
        Predictions(path)
    system = Predictions(path, allow=("duplicate",))
    assert ask(system, "a") == ["yes"] and system.counts["duplicate"] == 2
    with pytest.raises(UserError, match="allow: 'twice'; expected some of missing, duplicate, unknown"):
        Predictions(path, allow=("twice",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'{"id": "a", "output": "x"}\n{"id": "b", "out', "line 2: not readable as JSON"),
        ("p.jsonl", b'{"id": "a", "output": "\xff"}\n', "line 1: not readable as JSON"),
        ("p.jsonl", b'{"output": "x"}\n', "row 1: has the id None; expected id or question_id"),
        ("p.jsonl", b'{"id": true, "output": "x"}\n', "has the id True"),
        ("p.jsonl", b'{"id": "a", "said": "x"}\n', "row 1: has id, said; expected"),
        ("p.jsonl", b'{"id": "a", "output": ["x"]}\n', r"output is \['x'\]; expected text"),
        ("p.jsonl", b'["a", "x"]\n', "expected an object"),
        ("p.jsonl", b"\n", "holds no answers"),
        ("p.json", b'"x"', "expected a list of answers"),
        ("p.parquet", b"PAR1 no", "not readable as parquet"),
        ("p.ods", b"id,output", "expected a file of answers"),
    ],
)
def test_files_that_cannot_be_read_say_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Predictions(tmp_path / name)


def test_a_parquet_file_of_something_else_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the columns question, answer; expected id or question_id"):
        Predictions(written(tmp_path / "p.parquet", [{"question": "?", "answer": "x"}]))


def test_another_file_is_another_system(tmp_path: Path) -> None:
    one = Predictions(written(tmp_path / "a.jsonl", ROWS))
    same = Predictions(written(tmp_path / "b.jsonl", ROWS))
    other = Predictions(written(tmp_path / "c.jsonl", ROWS[:2]))
    assert one.digest == same.digest != other.digest and one.name == "a"


def folder_of(tmp_path: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = tmp_path / "drawings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path / "drawings"


def asked(*ids: str) -> list[Drawing]:
    return [Drawing(id_, f"draw {id_}", number) for number, id_ in enumerate(ids)]


def test_drawings_are_found_by_id(tmp_path: Path) -> None:
    odd = "n01440764/a b?"
    folder = folder_of(tmp_path, "1.png", "cats/2.JPG", f"{file_stem(odd)}.webp")
    system = Drawings(folder)
    assert isinstance(system, ImageModel)
    requests = asked("cats/2", odd, "1")
    system.expect_drawings(requests)
    replies = system.draw([one.prompt for one in requests], [one.seed for one in requests])
    reds = [reply.pictures[0].getpixel((4, 4))[0] for reply in replies]
    assert reds == pytest.approx([1, 2, 0], abs=2) and all(reply.pictures[0].mode == "RGB" for reply in replies)


def test_drawings_that_are_missing_or_too_many(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.png", "x.png", "x.jpg")
    with pytest.raises(UserError, match=r"1 duplicate \(such as 'x'\)"):
        Drawings(folder)
    with pytest.raises(UserError, match=r"1 missing \(such as 'b'\), 1 unknown \(such as 'x'\)"):
        Drawings(folder, allow=("duplicate",)).expect_drawings(asked("a", "b"))
    system = Drawings(folder, allow=("missing", "duplicate", "unknown"))
    system.expect_drawings(asked("a", "b"))
    assert system.counts == {"missing": 1, "duplicate": 1, "unknown": 1}
    assert [len(reply.pictures) for reply in system.draw(["draw a", "draw b"], [0, 1])] == [1, 0]
    with pytest.raises(UserError, match="no id is known for the prompt 'draw z'"):
        system.draw(["draw z"], [0])
    with pytest.raises(UserError, match="'a' and 'b' have the same prompt and seed"):
        system.expect_drawings([Drawing("a", "same", 0), Drawing("b", "same", 0)])


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    system = Drawings(folder)
    system.expect_drawings(asked("a", "b"))
    with pytest.raises(UserError, match=r"b\.png: not readable as a picture"):
        system.draw(["draw b"], [1])


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pictures; expected <id> with one of"):
        Drawings(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        Drawings(tmp_path / "none")


def test_a_folder_of_drawings_goes_through_the_runner(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for picture, drawing in zip(world.pictures, world.drawings, strict=True):
        picture.image.save(folder / f"{file_stem(drawing.id)}.png")
    system = Drawings(folder)
    system.expect_drawings(world.drawings)
    metrics = evaluate(
        None, system, questions=[], drawings=world.drawings, pictures=world.pictures, out=tmp_path / "out",
        features=colour_features, model=system.digest,
    )  # fmt: skip
    assert metrics["drawings"]["train"]["identification"]["rate_1"] == 1


def test_files_need_no_torch() -> None:
    code = "import sys, vargpt_lightning.evaluation.systems.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
