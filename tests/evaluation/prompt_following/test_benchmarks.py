"""Benchmarks of prompt-following: what is read, what is drawn and asked, and figures that can be worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.installed import install, on_the_path
from vargpt_lightning.evaluation import prompt_following
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.base.prompt_benchmark import Detection, PromptBenchmark, weighted_interval
from vargpt_lightning.evaluation.prompt_following import dpg_bench, geneval, t2i_compbench, wise
from vargpt_lightning.evaluation.rules.prompt_words import Words, prompt_words
from vargpt_lightning.utils.errors import UserError

HEADING = "item_id,text,proposition_id,dependency,tuple,question_natural_language\n"


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_all_four_are_found_and_whole() -> None:
    assert prompt_following.names() == ("dpg_bench", "geneval", "t2i_compbench", "wise")
    assert all(isinstance(prompt_following.get(name), PromptBenchmark) for name in prompt_following.names())


def test_an_installed_package_brings_its_own(tmp_path: Path) -> None:
    group = "vargpt_lightning.prompt_benchmarks"
    project = f'[project]\nname = "theirs"\nversion = "1"\n[project.entry-points."{group}"]\nmine = "theirs.mine"\n'
    own = Path(geneval.__file__).read_text("utf-8").replace('NAME = "geneval"', 'NAME = "mine"')
    install(tmp_path / "site", project, {"theirs/__init__.py": "", "theirs/mine.py": own})
    with on_the_path(tmp_path / "site"):
        assert prompt_following.get("mine").NAME == "mine" and "mine" in prompt_following.names()
    with pytest.raises(UserError, match="benchmark of prompt-following: 'mine'; there are dpg_bench"):
        prompt_following.get("mine")


# ------------------------------------------------------------------------------------------------------------ GenEval


def seen(label: str, left: float, top: float, score: float = 0.95, colour: str = "") -> Detection:
    return Detection(label, score, (left, top, left + 10, top + 10), colour)


def test_geneval_draws_four_pictures_of_each_line(tmp_path: Path) -> None:
    row = {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"}
    records = geneval.load(write(tmp_path / "evaluation_metadata.jsonl", row, row).parent)
    assert [record["id"] for record in records] == ["00000", "00001"]
    assert geneval.picture_ids(records[1], 2) == ["00001/samples/0000", "00001/samples/0001"]


@pytest.mark.parametrize(
    ("objects", "right"),
    [
        ([seen("cat", 0, 0), seen("dog", 50, 0)], 1),
        ([seen("cat", 0, 0), seen("dog", 0, 50)], 0),  # below, not right of
        ([seen("cat", 0, 0), seen("dog", 11, 0)], 1),
        ([seen("cat", 0, 0), seen("dog", 1.5, 0)], 0),  # nearer than a tenth of both sizes
        ([seen("cat", 0, 0), seen("dog", 50, 0, 0.3)], 0),  # 0.3 is not above the threshold
        ([seen("dog", 50, 0)], 0),
        ([seen("cat", 99, 0, 0.4), seen("cat", 0, 0), seen("dog", 50, 0)], 1),  # the surest cat counts
    ],
)
def test_geneval_places(objects: list[Detection], right: float) -> None:
    include = [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}]
    assert geneval.score({"objects": objects}, {"tag": "position", "include": include}).value == right


def test_geneval_counts_sure_objects_alone() -> None:
    record = {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]}
    cats = [seen("cat", 0, 0), seen("cat", 20, 0), seen("cat", 40, 0, 0.9)]
    assert geneval.score({"objects": cats}, record).value == 1
    assert (
        geneval.score({"objects": [*cats, seen("cat", 60, 0, 0.91)]}, record).parsed == "3 cat, expected fewer than 3"
    )
    assert geneval.score({"objects": cats[:1]}, record).parsed == "1 cat, expected 2 or more"


def test_geneval_needs_the_colours_it_asks_for() -> None:
    record = {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}]}
    assert geneval.checks(record)[0].colours == ("cat",)
    assert [geneval.score({"objects": [seen("cat", 0, 0, colour=c)]}, record).value for c in ("red", "blue")] == [1, 0]
    with pytest.raises(UserError, match="a cat has no colour; expected one of red"):
        geneval.score({"objects": [seen("cat", 0, 0)]}, record)


def test_geneval_is_the_mean_over_kinds_of_prompts() -> None:
    records = [{"id": "0", "tag": "counting"}] * 2 + [{"id": "1", "tag": "position"}] * 4
    figures = geneval.aggregate(records, [Score(1.0), Score(0.0), *[Score(0.0)] * 4])
    assert (figures["overall"], figures["counting"], figures["position"]) == (0.25, 0.5, 0)
    assert figures["pictures"] == pytest.approx(1 / 6) and figures["prompts"] == 0.5 and figures["n"] == 6


# ---------------------------------------------------------------------------------------------------------- DPG-Bench


def test_dpg_reads_its_table_as_the_authors_do(tmp_path: Path) -> None:
    rows = [
        "a,words,1,0,entity - whole (dog),A dog?",
        "a,words,2,1,attribute - color (dog),Red?",
        "b,more,1,0,global (x),Bright?",
    ]
    (tmp_path / "dpg_bench.csv").write_text(HEADING + "\n".join(rows) + "\n")
    one, other = dpg_bench.load(tmp_path)
    assert one["questions"] == {"2": {"text": "Red?", "after": ["1"], "category": "attribute - color"}}
    assert math.isnan(dpg_bench.score({"2": "yes"}, one).value), "what it depends on is the row that is not read"
    assert dpg_bench.score({"1": "Yes."}, other).value == 1
    figures = dpg_bench.aggregate(
        [one, other], [dpg_bench.score({"2": "yes"}, one), dpg_bench.score({"1": "no"}, other)]
    )
    assert figures["left_out"] == 1 and figures["score"] == 0 and figures["l1/global"] == 0
    with pytest.raises(UserError, match="there is no such file; expected the authors' table"):
        dpg_bench.load(tmp_path / "none")
    (tmp_path / "dpg_bench.csv").write_text("item_id\n1\n")
    with pytest.raises(UserError, match="lacks the column proposition_id"):
        dpg_bench.load(tmp_path)


def test_dpg_no_is_inherited_and_categories_are_of_the_last_picture() -> None:
    questions = {
        "1": {"after": [], "category": "entity - whole"},
        "2": {"after": ["1"], "category": "attribute - color"},
        "3": {"after": ["2"], "category": "attribute - size"},
    }
    record = {"id": "a", "questions": questions}
    first = dpg_bench.score({"1": "no", "2": "yes", "3": "yes"}, record)
    last = dpg_bench.score({"1": "yes", "2": "yes", "3": "no"}, record)
    assert first.value == 0 and last.value == pytest.approx(2 / 3)
    figures = dpg_bench.aggregate([record] * 2, [first, last])
    assert figures["score"] == pytest.approx(1 / 3)
    assert figures["l1/attribute"] == 0.5 and figures["l2/attribute - color"] == 1 and figures["l1/entity"] == 1


def test_dpg_reads_the_authors_lines(tmp_path: Path) -> None:
    records = [{"id": "a", "questions": {"1": {"text": "Is it red, or blue?"}, "2": {"text": "Big?"}}}]
    file = tmp_path / "x_detail.txt"
    lines = ["in, out/a.png, (0, 0, 8, 8), Is it red, or blue?, yes", "in, out/a.png, (8, 0, 16, 8), Big?, no"]
    file.write_text("\n".join(lines) + "\n")
    assert dpg_bench.read_results(file, records) == {"a/0": {"1": "yes"}, "a/1": {"2": "no"}}
    file.write_text("a.png, None, What?, yes\n")
    with pytest.raises(UserError, match=r"line 1: .* is no answer to a question"):
        dpg_bench.read_results(file, records)


# ------------------------------------------------------------------------------------------------------ T2I-CompBench


def test_t2i_categories_and_what_is_asked(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a red cat and a blue dog\r\n")
    write(
        tmp_path / "color_val.words.jsonl",
        {"prompt": "a red cat and a blue dog", "phrases": ["a red cat", "a blue dog"]},
    )
    (tmp_path / "non_spatial_val.txt").write_text("A man reads.\n")
    (tmp_path / "complex_val.txt").write_text("The cat sits on the mat.\nThe dog is near the sofa.\n")
    (tmp_path / "complex_val_spatial.txt").write_text("the dog is near the sofa\n")
    (tmp_path / "complex_val_action.txt").write_text("")
    words: list[dict[str, Any]] = [
        {"prompt": "The cat sits on the mat.", "phrases": ["The cat"], "without_adjectives": "The cat sits"},
        {"prompt": "The dog is near the sofa.", "phrases": ["The dog", "the sofa"], "objects": ["dog", "sofa"]},
    ]
    write(tmp_path / "complex_val.words.jsonl", *words)
    color, plain, both, near = t2i_compbench.load(tmp_path)
    assert [check.text for check in t2i_compbench.checks(color)] == ["a red cat?", "a blue dog?"]
    assert t2i_compbench.picture_ids(color, 2)[1] == "color/samples/a red cat and a blue dog_000001"
    assert [(each.kind, each.text) for each in t2i_compbench.checks(plain)] == [("similarity", "A man reads.")]
    assert [each.name for each in t2i_compbench.checks(both)] == ["0", "objects", "similarity"]
    assert t2i_compbench.checks(both)[2].text == "The cat sits"
    assert [each.name for each in t2i_compbench.checks(near)] == ["0", "1", "objects"]
    objects = [seen("dog", 0, 0, 1.0), seen("sofa", 20, 0, 1.0)]
    found = t2i_compbench.score({"0": "yes", "1": "0.5", "objects": objects}, near)
    assert found.parsed == {"spatial": 1.0, "attribute": 0.5} and found.value == 0.75
    figures = t2i_compbench.aggregate([color, plain], [Score(0.5), Score(0.3)])
    assert (figures["mean"], figures["color"], figures["non_spatial"]) == (0.4, 0.5, 0.3)


def test_t2i_says_whose_words_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "shape_val.txt").write_text("an oval sink\n")
    write(tmp_path / "shape_val.words.jsonl", {"prompt": "another", "phrases": []})
    with pytest.raises(UserError, match="has no words of 'an oval sink'"):
        t2i_compbench.load(tmp_path)
    with pytest.raises(UserError, match="no prompts; expected the authors' files"):
        t2i_compbench.load(tmp_path / "none")
    with pytest.raises(UserError, match="expected yes, no, or a probability"):
        t2i_compbench.bound({"0": "7"}, Words(("a cat",)))


def token(text: str, pos: str) -> Any:
    return SimpleNamespace(text=text, pos_=pos)


class Parsed(list[Any]):
    """A sentence as spaCy gives it: slices have a text."""

    noun_chunks: list[Any]

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return SimpleNamespace(text=" ".join(each.text for each in found)) if isinstance(place, slice) else found


def test_words_of_a_parsed_sentence() -> None:
    tags = ["DET", "ADJ", "NOUN", "AUX", "ADP", "NOUN", "ADP", "DET", "ADJ", "PROPN", "PROPN"]
    words = ["The", "red", "hat", "is", "on", "top", "of", "the", "brown", "Rolls", "Royce"]
    doc = Parsed([token(*each) for each in zip(words, tags, strict=True)])
    doc.noun_chunks = [SimpleNamespace(text=text) for text in ("The red hat", "top", "the brown Rolls Royce")]
    found = prompt_words(doc, complete=True)
    assert found.phrases == ("The red hat", "the brown Rolls Royce")
    assert found.objects is None, "no name ends before the sentence does"
    assert found.without_adjectives == "The hat is on top of the Rolls Royce"
    assert prompt_words(doc).objects == ("hat", "top")
    doc.append(token(".", "PUNCT"))
    assert prompt_words(doc, complete=True).objects == ("hat", "Royce")


# --------------------------------------------------------------------------------------------------------------- WISE


def prompts(*numbers: int) -> list[dict[str, Any]]:
    return [{"Prompt": f"p{number}", "Explanation": "it", "prompt_id": number} for number in numbers]


def test_wise_tells_its_two_releases_apart(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "culture_verified.json").write_text(json.dumps(prompts(450, 641)))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "time.json").write_text(json.dumps(prompts(450, 641)))
    new, old = wise.load(tmp_path / "new"), wise.load(tmp_path / "old")
    assert [record["category"] for record in new] == ["TIME", "BIOLOGY"]
    assert [record["category"] for record in old] == ["TIME", "SPACE"]
    assert "p450" in wise.checks(new[0])[0].text and "Score:" in wise.checks(new[0])[0].text
    assert wise.score({"verdict": "Score: 1"}, new[0]).value == 1
    assert wise.score({"verdict": "2\n1\n0"}, old[0]).value == pytest.approx((0.7 * 2 + 0.2) / 2)
    assert wise.score({"verdict": "I cannot say"}, old[0]).status == "unparsed"
    (tmp_path / "new" / "judge.txt").write_text("Is it {prompt}?")
    assert wise.checks(wise.load(tmp_path / "new")[0])[0].text == "Is it p450?"
    (tmp_path / "new" / "culture_verified.json").write_text(json.dumps(prompts(1, 1)))
    with pytest.raises(UserError, match="prompt_id 1 comes twice"):
        wise.load(tmp_path / "new")


def test_wise_weighs_its_parts_and_needs_all_of_them() -> None:
    numbers = (1, 401, 521, 641, 761, 881)
    records = [{"id": str(n), "rule": wise.VERIFIED, "category": wise.part_of(n, wise.VERIFIED)} for n in numbers]
    scores = [Score(1.0), *[Score(0.0)] * 5]
    assert wise.aggregate(records, scores)["wiscore"] == pytest.approx(0.4)
    some = wise.aggregate(records[:2], [Score(1.0), Score(math.nan, None, "unparsed")])
    assert math.isnan(some["wiscore"]) and some["CULTURE"] == 1 and some["n"] == 1 and some["unparsed"] == 1


def test_an_interval_resamples_prompts_within_parts() -> None:
    sure = weighted_interval([1, 1, 0, 0], ["a", "b", "c", "d"], ["x", "x", "y", "y"])
    assert sure == (0.5, 0.5), "within each part all prompts are alike"
    low, high = weighted_interval([1, 0, math.nan], ["a", "b", "c"], ["x", "x", "x"])
    assert low == 0 and high == 1
    together = weighted_interval([1, 1, 0, 0] * 10, list("aabb") * 10, ["x"] * 40)
    assert together == (0, 1), "two prompts, whatever the number of their pictures"
