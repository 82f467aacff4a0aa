"""Letters out of outputs: each reference's rules where they part, our own, and what an output without one is worth."""

from __future__ import annotations

import time

import pytest

from vargpt_lightning.evaluation.rules import letter_rules, letters
from vargpt_lightning.evaluation.rules.letter_lenient import lenient_letter
from vargpt_lightning.utils.errors import UserError

PETS = {"A": "cat", "B": "dog", "C": "red", "D": "dark red"}
LONG = 100_000


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("B", "B"),
        ("it must be B I think", "B"),
        ("A it is", "A"),
        ("A dog is here", None),  # among more than three words, A may be the article
        ("B or C", None),
        ("B. or C.", None),
        ("b", None),
        ("say (E).", "E"),  # E counts, although there are four options
        ("B.\nC)", "B"),  # the dressings are tried in turn
        ("Failed to obtain answer via API B", None),
    ],
)
def test_the_bare_letter(output, letter):
    assert letter_rules.bare_letter(output) == letter


def test_an_option_s_text_counts_when_it_is_the_only_one():
    assert letter_rules.contained_option("A CAT.", PETS) == "A"
    assert letter_rules.contained_option("dark red", PETS) is None  # "red" is in it, too


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("*B*", "B"),
        ("B is what I would say here", None),  # not among the last four words
        ("what I would say is B", "B"),
        ("B and C; the answer is **C**", "C"),
        ("the answer is about dogs", "A"),  # the reference reads the first letter behind "is"
        ("Z", letter_rules.REFUSED),
        ("Cannot determine the answer", letter_rules.REFUSED),
        ("the cat", "A"),
        ("the cat, as anybody can see on this picture of one", None),  # longer than twice all options together
    ],
)
def test_exact_matching(output, letter):
    assert letter_rules.opencompass_letter(output, PETS) == letter


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("A-ha, or B", "A"),  # the start goes before the end
        ("I mean D, or: B", "B"),
        ("see (A), the answer is C: there", "C"),
        ("first (A) then (B) is it", "B"),
        ("'D'", "D"),
        ("xAyBz", "B"),  # anywhere, the last
        ("none", None),
        ("", None),
    ],
)
def test_the_ranking_of_places(output, letter):
    assert letter_rules.ranked_letter(output, "ABCD") == letter


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("b", "B"),
        ("**(b)**", "B"),
        ("Option C", "C"),
        ("The answer is (A).\nNo: the answer is D.", "D"),
        ("<think>A? The answer is A.</think> C", "C"),
        ("\\boxed{\\text{B}}", "B"),
        ('{"answer": "D"}', "D"),
        ("the answer is a dog", "B"),  # an article, and an option's text
        ("dark red", "D"),  # "red" is part of it
        ("not A but B", "B"),
        ("B or C", None),
        ("(A) or (B)", None),
        ("A and B", None),
        ("A thing that I do not know", None),
        ("E", None),  # no option
        ("concatenate", None),  # "cat" is no word of it
        ("", None),
    ],
)
def test_a_reader_s_letter(output, letter):
    assert lenient_letter(output, PETS) == letter


def settle(letter=None, output="hm", **more):
    return letters.settle(letter, output, {}, "B", "ABCD", "7", **more)


def test_without_a_letter_an_output_is_wrong_and_counted():
    assert (settle().value, settle().status) == (0.0, "unparsed")
    assert settle(output="").status == "empty"
    assert (settle("B").value, settle("C").value, settle("B").status) == (1.0, 0.0, "ok")


def test_a_guess_depends_on_the_id_and_the_seed_alone():
    def draw(id, seed):
        return letters.settle(None, "", {}, "B", "ABCD", id, guess="random", seed=seed)

    once = [draw(str(number), 0) for number in range(400)]
    assert [draw(str(number), 0) for number in reversed(range(400))] == once[::-1]
    assert [draw(str(number), 1) for number in range(400)] != once
    assert {one.status for one in once} == {"guessed"}
    assert 0.15 < sum(one.value for one in once) / 400 < 0.35
    assert settle("C", guess="random").status == "ok"
    with pytest.raises(UserError, match=r"guess: 'best'; expected 'random'"):
        settle(guess="best")


def test_a_judge_is_asked_for_what_has_no_letter_and_counted():
    asked = []

    def judge(output, record):
        asked.append(output)
        return "I take it for B."

    assert (settle(judge=judge).value, settle(judge=judge).status) == (1.0, "judged")
    assert settle("C", judge=judge).status == "ok"
    assert settle(output="", judge=judge).status == "empty"
    assert asked == ["hm", "hm"]
    assert settle(judge=lambda output, record: "A or B").status == "unparsed"
    assert settle(judge=lambda output, record: "?", guess="random").status == "guessed"


@pytest.mark.parametrize("value", ["nan", None, float("nan"), "", "  "])
def test_what_says_that_there_is_nothing(value):
    assert letters.is_missing(value)
    with pytest.raises(UserError, match="without keys"):
        letters.key_letter({"answer": value}, "ABCD")


def test_keys_and_columns_that_cannot_be_used_are_named():
    assert letters.key_letter({"answer": " b "}, "ABCD") == "B"
    assert not letters.is_missing("None")  # a text that options have
    with pytest.raises(UserError, match="answer is 3; expected one of A, B"):
        letters.key_letter({"answer": 3}, "AB")
    with pytest.raises(UserError, match=r"column 'answer' is missing; there are question"):
        letters.key_letter({"question": "?"}, "AB")


def test_lists_written_as_strings_are_read_and_no_code_is_run():
    assert letters.as_list("['a', 'b']") == ["a", "b"] == letters.as_list(("a", "b"))
    assert letters.as_list("1,000,000") is None  # the text of a tuple, and a number
    for text in ("__import__('os').getcwd()", "[1, ", "[" * LONG, "\0", None, 3):
        assert letters.as_list(text) is None


def test_ids_that_occur_twice_are_named():
    letters.check_unique(["1", "2"])
    with pytest.raises(UserError, match="rows: 2 ids occur more than once, the first are 1, 2"):
        letters.check_unique(["1", "2", "1", "2"], "rows")


@pytest.mark.parametrize(
    "piece",
    ["A", " ", "A ", "(", "*", "answer is ", "answer is *", "answer ", "not ", "\\boxed{", "\0", "\n", "(A", "İ"],
)
def test_long_outputs_are_read_fast(piece):
    output = (piece * (LONG // len(piece) + 1))[:LONG]
    began = time.process_time()
    letter_rules.bare_letter(output)
    letter_rules.opencompass_letter(output, PETS)
    letter_rules.ranked_letter(output, "ABCD")
    lenient_letter(output, PETS)
    assert time.process_time() - began < 2
