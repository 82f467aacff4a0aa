from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from vargpt_lightning.data.openmoji.pictures import Emoji
from vargpt_lightning.data.openmoji.questions import (
    ABSENT_SHARE,
    HELDOUT_COUNTS,
    LETTERS,
    PRESENT_SHARE,
    QuestionCounts,
    QuestionWriter,
    facts,
)
from vargpt_lightning.data.openmoji.wording import kind_label, kind_phrase, phrase
from vargpt_lightning.data.shards.records import Record


@pytest.fixture(scope="module")
def train(emoji: list[Emoji]) -> list[Emoji]:
    return [each for each in emoji if each.split == "train"]


@pytest.fixture(scope="module")
def records(train: list[Emoji]) -> list[Record]:
    writer = QuestionWriter(train)
    return [record for each in train for record in writer.questions(each, QuestionCounts())]


def of_kind(records: list[Record], kind: str) -> list[Record]:
    return [record for record in records if record.meta["kind"] == kind]


def test_every_kind_is_asked(records: list[Record], train: list[Emoji]) -> None:
    counts = Counter(record.meta["kind"] for record in records)
    pictures = len(train)
    assert counts["category"] == counts["subcategory"] == counts["name"] == 2 * pictures
    assert counts["yesno"] == 6 * pictures and counts["choice"] == 4 * pictures
    assert 0.9 * 2 * pictures < counts["colour"] <= 2 * pictures


def test_the_answer_stands_in_the_turn_and_in_the_meta(records: list[Record]) -> None:
    for record in records:
        given, key = record.turns[1].text, record.meta["answer"]
        assert given.endswith(f": {record.meta['name']} ({key})") if record.meta["kind"] == "choice" else given == key
        assert record.pictures("seen")[0].key == record.meta["picture_sha"]


def test_the_same_seed_writes_the_same_and_another_does_not(train: list[Emoji]) -> None:
    def written(seed: int) -> list[Record]:
        return list(QuestionWriter(train, seed).questions(train[3], QuestionCounts()))

    assert written(0) == written(0)
    assert written(0) != written(1)


def test_a_picture_is_written_about_by_its_own_code_point(train: list[Emoji]) -> None:
    writer = QuestionWriter(train)
    alone = list(writer.questions(train[5], QuestionCounts()))
    list(writer.questions(train[6], QuestionCounts()))
    assert list(writer.questions(train[5], QuestionCounts())) == alone


def test_yes_and_no_are_balanced_in_every_sort(records: list[Record]) -> None:
    counts = Counter((record.meta["about"], record.meta["answer"]) for record in of_kind(records, "yesno"))
    for about in ("category", "subcategory", "colour"):
        assert counts[about, "Yes"] == pytest.approx(counts[about, "No"], rel=0.1)


def test_the_words_of_a_colour_question_give_nothing_away(records: list[Record]) -> None:
    asked: dict[str, Counter[str]] = {}
    for record in of_kind(records, "yesno"):
        for colour in ("orange", "brown", "red", "gray", "green"):
            if record.meta["about"] == "colour" and colour in record.turns[0].text:
                asked.setdefault(colour, Counter())[record.meta["answer"]] += 1
    for counts in asked.values():
        assert 0.3 < counts["Yes"] / counts.total() < 0.7


def test_answers_about_colours_are_true(records: list[Record], train: list[Emoji]) -> None:
    by_code = {each.codepoint: each for each in train}
    checked = 0
    for record in of_kind(records, "yesno"):
        if record.meta["about"] != "colour":
            continue
        words = record.turns[0].text.replace("?", "").split()
        colours = by_code[record.meta["codepoint"]].colours
        colour = next(
            word
            for word in words
            if word in (["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray"])
        )
        share = colours.get(colour, 0.0)
        assert share >= PRESENT_SHARE if record.meta["answer"] == "Yes" else share < ABSENT_SHARE
        checked += 1
    assert checked > len(train)


def test_answers_about_kinds_are_true(records: list[Record]) -> None:
    for record in of_kind(records, "yesno"):
        true = {"category": record.meta["category"], "subcategory": kind_phrase(record.meta["subcategory"])}
        about = record.meta["about"]
        if about in true:
            said = record.turns[0].text.rstrip("?")
            assert said.endswith(" " + true[about]) == (record.meta["answer"] == "Yes"), said


def test_choices_hold_the_name_at_the_letter(records: list[Record]) -> None:
    for record in of_kind(records, "choice"):
        options, letter = record.meta["options"], record.meta["answer"]
        assert len(set(options)) == 4 and options[LETTERS.index(letter)] == record.meta["name"]
        option = f"{record.meta['name']} ({letter})"
        assert option in record.turns[0].text and record.turns[1].text.endswith(f": {option}")


def test_options_stand_in_order_and_no_letter_is_a_good_guess(records: list[Record], train: list[Emoji]) -> None:
    chosen = of_kind(records, "choice")
    assert all(record.meta["options"] == sorted(record.meta["options"], key=str.lower) for record in chosen)
    counts = Counter(record.meta["answer"] for record in chosen)
    assert set(counts) == set(LETTERS) and max(counts.values()) < 0.32 * counts.total()


def test_wrong_names_come_from_the_same_split(emoji: list[Emoji]) -> None:
    held_out = [each for each in emoji if each.split == "val"]
    names = {each.name for each in held_out}
    for each in held_out:
        for record in QuestionWriter(held_out).questions(each, HELDOUT_COUNTS):
            assert set(record.meta.get("options", [])) <= names


def test_held_out_pictures_are_never_named(emoji: list[Emoji]) -> None:
    held_out = [each for each in emoji if each.split == "test"]
    written = [r for each in held_out for r in QuestionWriter(held_out).questions(each, HELDOUT_COUNTS)]
    assert {record.meta["kind"] for record in written} == {"category", "subcategory", "colour", "yesno", "choice"}


def test_an_unclear_main_colour_is_not_asked_for(train: list[Emoji]) -> None:
    two = replace(train[0], colours={"red": 0.51, "blue": 0.49})
    kinds = {record.meta["kind"] for record in QuestionWriter(train).questions(two, QuestionCounts())}
    assert "colour" not in kinds and "yesno" in kinds


def test_a_small_pool_is_not_asked_what_it_cannot(train: list[Emoji]) -> None:
    written = list(QuestionWriter(train[:1]).questions(train[0], QuestionCounts()))
    assert {record.meta["kind"] for record in written} >= {"category", "yesno"}
    assert "choice" not in {record.meta["kind"] for record in written}
    assert all(record.meta["answer"] == "Yes" for record in of_kind(written, "yesno"))


def test_facts_show_no_picture_and_cover_held_out_names(emoji: list[Emoji]) -> None:
    written = list(facts(emoji))
    assert all(not record.pictures() for record in written)
    assert {record.meta["codepoint"] for record in written} == {each.codepoint for each in emoji}
    shamrock = [record for record in written if record.meta["name"] == "shamrock"]
    assert ("What is a shamrock?", "Other plant, Animals & Nature") in [
        (record.turns[0].text, record.turns[1].text) for record in shamrock
    ]


def test_facts_name_the_option_that_fits(emoji: list[Emoji]) -> None:
    subcategory = {each.name: each.subcategory for each in emoji}
    asked = [record for record in facts(emoji) if record.turns[0].text.startswith(("Which of these", "Choose"))]
    assert len(asked) == 40 * len(emoji)
    for record in asked:
        options = dict(re.findall(r"(?:^|, | )([^,?.]+) \(([A-D])\)", re.split(r"[?.] ", record.turns[0].text)[1]))
        name, letter = re.fullmatch(r".+: (.+) \(([A-D])\)", record.turns[1].text).groups()  # type: ignore[union-attr]
        assert options[name] == letter and len(options) == 4
        kinds = [subcategory[option] for option in options]
        assert kinds.count(record.meta["subcategory"]) == 1 and subcategory[name] == record.meta["subcategory"]


def test_drawings_ask_answer_and_draw(train: list[Emoji]) -> None:
    shamrock = next(each for each in train if each.name == "shamrock")
    written = list(QuestionWriter(train).drawings(shamrock, 8))
    assert "Please draw a shamrock." in {record.turns[0].text for record in written}
    assert len({record.turns[0].text for record in written}) == 8
    for record in written:
        (picture,) = record.pictures("drawn")
        assert picture.data == shamrock.png and record.turns[1].text.startswith(("Here", "Sure", "Your", "Of"))
    (alone,) = QuestionWriter(train).picture(shamrock).turns
    assert alone.role == "assistant" and alone.text == ""


def test_names_in_sentences(emoji: list[Emoji]) -> None:
    by_name = {each.name: phrase(each) for each in emoji}
    assert by_name["owl"] == "an owl" and by_name["unicorn"] == "a unicorn" and by_name["grapes"] == "grapes"
    assert by_name["glass of milk"] == "a glass of milk" and by_name["octopus"] == "an octopus"
    assert phrase(replace(emoji[0], name="Norway", subcategory="country-flag")) == "the flag of Norway"


@pytest.mark.parametrize(
    ("subcategory", "label", "words"),
    [
        ("animal-mammal", "mammal", "a mammal"),
        ("plant-other", "other plant", "another plant"),
        ("food-asian", "Asian food", "Asian food"),
        ("food-fruit", "fruit", "fruit"),
        ("country-flag", "country flag", "a country flag"),
    ],
)
def test_kinds_in_words(subcategory: str, label: str, words: str) -> None:
    assert kind_label(subcategory) == label
    assert kind_phrase(subcategory) == words
