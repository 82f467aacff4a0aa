"""Finished evaluations against each other: what is found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.compare.made import write_evaluation, write_scores
from vargpt_lightning.evaluation.base.paired_tests import BOOTSTRAP, MCNEMAR, mcnemar_exact
from vargpt_lightning.evaluation.compare.comparison import Comparison, compare
from vargpt_lightning.evaluation.compare.pictures import shown_changes
from vargpt_lightning.evaluation.compare.systems import Scoring, names_of, read_systems, shared_sets
from vargpt_lightning.evaluation.compare.write import verdicts, write_comparison
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings
from vargpt_lightning.utils.errors import UserError


def compared(
    *paths: Path, allow: tuple[str, ...] = (), wanted: tuple[str, ...] = (), protocol: str | None = None
) -> Comparison:
    systems = read_systems(paths, Scoring(None, None, Path("unused"), BenchmarkSettings()))
    sets, left = shared_sets(systems, wanted, protocol)
    return compare(systems, sets, allow, left)


def test_runs_are_compared_on_their_questions_and_drawings(tmp_path: Path) -> None:
    first = write_evaluation(tmp_path / "one", [n % 4 == 0 for n in range(60)], [0] * 5 + [3] * 25)
    second = write_evaluation(tmp_path / "two", [n % 2 == 0 for n in range(60)], [0] * 20 + [3] * 10)
    found = compared(first, second)
    assert [line.title for line in found.lines] == ["questions, train", "questions, heldout", "drawings, train"]
    train, heldout, drawn = found.lines
    assert (train.test.n, heldout.test.n, heldout.test.groups) == (20, 40, 30)
    assert (heldout.test.base, heldout.test.other) == (0.25, 0.5) and heldout.test.test == BOOTSTRAP
    assert (drawn.test.n, drawn.test.better, drawn.test.worse, drawn.test.test) == (30, 15, 0, MCNEMAR)
    assert drawn.test.p == mcnemar_exact(15, 0) and drawn.p_holm == 3 * drawn.test.p
    assert {kind: test.difference for kind, test in heldout.parts.items()} == {"colour": 0.5, "name": 0.0}
    assert len(found.changed) == 15 + 15 and set(found.changed["run"]) == {"two"}
    assert verdicts(found)[2].startswith("drawings, train: two is better than one by 50.0 points (+33.3 to +66.7; p")
    shown = shown_changes(found, 2)
    asked, drawing = (
        next(each for each in shown if each.title == title) for title in ("questions, heldout", "drawings, train")
    )
    assert [words for words, _ in asked.pictures] == ["asked about"] and asked.better
    assert [words for words, _ in drawing.pictures] == ["asked for", "one", "two"]
    assert all(uri.startswith("data:image/jpeg;base64,") for _, uri in drawing.pictures)


def test_groups_that_must_be_right_as_a_whole_are_a_line_of_their_own(tmp_path: Path) -> None:
    first = write_scores(tmp_path / "one", [1, 0] * 30, "mme", group=2)
    second = write_scores(tmp_path / "two", [1, 1] * 20 + [0, 1] * 10, "mme", group=2)
    single, whole = compared(first, second).lines
    assert (single.title, whole.title) == ("mme, lmms_eval", "mme, lmms_eval, whole groups")
    assert (single.test.n, single.test.groups, whole.test.n) == (60, 30, 30)
    assert (whole.test.base, whole.test.other, whole.test.test) == (0.0, pytest.approx(2 / 3), MCNEMAR)
    assert single.test.difference == pytest.approx(80 / 120 + 10 / 60 - 0.5) and len(single.parts) == 2


def test_all_are_corrected_together_and_what_is_not_shared_is_named(tmp_path: Path) -> None:
    first = write_scores(tmp_path / "a", [0, 1] * 40)
    for name, values in (("b", [1, 1] * 5 + [0, 1] * 35), ("c", [0, 1] * 40)):
        write_scores(tmp_path / name, values)
    write_scores(tmp_path / "b", [1.0], "gqa")
    found = compared(first, tmp_path / "b", tmp_path / "c")
    better, same = found.lines
    assert (better.test.p, better.p_holm, same.p_holm) == (2 / 2**5, 4 / 2**5, 1.0)
    assert found.remarks == ["gqa is left out: a, c was not asked it"]
    assert "about" in verdicts(found)[0] and "not told apart from a: +0.0" in verdicts(found)[1]
    assert compared(first, tmp_path / "b", wanted=("pope",)).remarks == []
    with pytest.raises(UserError, match="--benchmarks mmu: expected some of pope, pope/lmms_eval, gqa"):
        compared(first, tmp_path / "b", wanted=("mmu",))


def test_different_questions_prompts_and_rules_are_refused_with_which(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", [True] * 12)
    with pytest.raises(
        UserError, match="questions, heldout: n differs: 8 and 6 of base and fewer; fewer lacks 2, such"
    ):
        compared(base, write_evaluation(tmp_path / "fewer", [True] * 10))
    assert compared(base, tmp_path / "fewer", allow=("n",)).lines[1].test.n == 6
    (line,) = compared(base, tmp_path / "fewer", wanted=("questions/train",)).lines
    assert (line.title, line.test.n) == ("questions, train", 4)
    with pytest.raises(UserError, match=r"prompts of 4 questions differ, such as 'q0': 'What is 0\?' and 'Eh\?'"):
        compared(base, write_evaluation(tmp_path / "other", [True] * 12, prompt="Eh?"))
    assert compared(base, tmp_path / "other", allow=("prompts",)).lines[0].test.n == 4
    with pytest.raises(UserError, match="the answers of 4 questions differ, such as 'q0': 'Red' and 'Lime'"):
        compared(base, write_evaluation(tmp_path / "keys", [True] * 12, expected="Lime"), allow=("n", "prompts"))
    one = write_scores(tmp_path / "scores", [1, 0], scoring={"guess": "random"})
    with pytest.raises(
        UserError, match=r"pope, lmms_eval: the protocols differ: scoring is .'guess': 'random'. and No"
    ):
        compared(one, write_scores(tmp_path / "unguessed", [1, 0]))
    with pytest.raises(UserError, match="pope: the protocols differ: scores by lmms_eval, official by official"):
        compared(one, write_scores(tmp_path / "official", [1, 0], protocol="official"))
    with pytest.raises(UserError, match="nothing was asked of all of them"):
        compared(base, one)


def test_drawings_of_other_seeds_are_paired_by_prompt_and_it_says_so(tmp_path: Path) -> None:
    first = write_evaluation(tmp_path / "one", [True], [0] * 30)
    found = compared(first, write_evaluation(tmp_path / "two", [True], [1] * 30, seed=7), wanted=("drawings",))
    assert found.lines[0].test.worse == 30
    assert "the seeds of 30 questions differ, such as 'd0': '0' and '7' of one and two; paired by" in found.remarks[0]


def test_what_is_no_finished_evaluation_is_refused(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", [True] * 12)
    with pytest.raises(UserError, match="1 to compare; expected two"):
        compared(base)
    with pytest.raises(UserError, match="base is given twice"):
        compared(base, base)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no finished evaluation"):
        compared(base, tmp_path / "empty")
    (write_evaluation(tmp_path / "half", [True]) / "evaluation" / "metrics.json").write_text('{"complete": false}')
    with pytest.raises(UserError, match="is not complete"):
        compared(base, tmp_path / "half")
    (tmp_path / "x.jsonl").write_text("{}")
    with pytest.raises(UserError, match="needs --benchmarks NAME and --data DIR"):
        compared(base, tmp_path / "x.jsonl")
    assert names_of([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]


def test_drawings_of_a_prompt_file_are_compared_by_clip_score(tmp_path: Path) -> None:
    for name, more in (("one", 0.0), ("two", 1.5)):
        rows = [
            {"id": f"d{n}", "instruction": f"Draw {n}", "drawing": "x.png", "clip": 20 + n + more} for n in range(30)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (line,) = compared(tmp_path / "one", tmp_path / "two").lines
    assert line.title == "pictures, CLIP score" and line.test.difference == pytest.approx(0.015)


def test_prompt_following_is_compared_by_prompts_and_shows_both_drawings(tmp_path: Path) -> None:
    def system(name: str, good: int, judge: str = "same", seed: int = 0) -> Path:
        pictures = tmp_path / "drawings" / name
        pictures.mkdir(parents=True)
        for number in range(80):
            Image.new("RGB", (8, 8), "red").save(pictures / f"q{number}.png")
        settings = {"judge": {"model": judge}, "sampling": {"seed": seed}}
        values = [1.0] * good + [0.0] * (80 - good)
        more: dict[str, Any] = {"drawings": str(pictures), "settings": settings, "protocol": "official"}
        return write_scores(tmp_path / name, values, "geneval", group=4, **more)

    base = system("base", 20)
    found = compared(base, system("better", 60))
    single, whole = found.lines
    assert (single.title, single.test.n, single.test.groups) == ("geneval, official", 80, 20)
    assert (whole.title, whole.test.difference) == ("geneval, official, whole groups", 0.5)
    shown = shown_changes(found, 2)
    assert [[words for words, _ in each.pictures] for each in shown] == [["base", "better"]] * 2
    with pytest.raises(
        UserError, match=r"geneval, official: the protocols differ: judge is model=same and model=other"
    ):
        compared(base, system("judged", 60, judge="other"))
    assert "drawn with the seeds 0 and 3" in compared(base, system("seeded", 60, seed=3)).remarks[0]


def test_all_forms_are_written_and_say_the_same(tmp_path: Path) -> None:
    first = write_evaluation(tmp_path / "on_e", [n % 4 == 0 for n in range(60)], [0] * 5 + [3] * 25)
    second = write_evaluation(tmp_path / "two", [n % 2 == 0 for n in range(60)], [0] * 20 + [3] * 10)
    (second / "evaluation" / "drawings" / "d7.png").unlink()
    found = compared(first, second)
    page = write_comparison(found, tmp_path / "out", 20)
    made = {file.suffix: file.read_text() for file in page.parent.iterdir() if file.name.startswith("compare")}
    assert made.keys() == {".md", ".html", ".tex", ".json"}
    numbers = json.loads(made[".json"])
    drawn = numbers["lines"][2]
    assert (drawn["questions"], drawn["n"], drawn["better"], drawn["difference"]) == ("drawings, train", 30, 15, 0.5)
    assert len((page.parent / "changed.jsonl").read_text().splitlines()) == 30
    assert "| **drawings, train** | 30 | 16.7 | 66.7 | +50.0 \\[" in made[".md"].replace("[+", "\\[+")
    assert r"drawings, train & 30 & 16.7 & 66.7 & +50.0" in made[".tex"] and r"on\_e" in made[".tex"]
    assert made[".html"].count("<article") == 30 and made[".html"].count("data:image/jpeg") >= 15 + 2 * 15
    assert "d7.png" in made[".html"]
