from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.data.conftest import asked, drawn
from tests.data.text.test_text_tokenizer import llama_like
from vargpt_lightning.data.mixing.lengths import count_tokens
from vargpt_lightning.data.shards.records import PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.chat import IGNORED, ChatTemplate, Rendered, spoken_texts
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError

N, L = 2, 3
DRAWN = "<image_gen_start>" + L * "<image_gen>" + "<image_gen_end>"


@pytest.fixture(scope="module")
def template(tokenizer: TextTokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer, N, L)


def written(template: ChatTemplate, ids: list[int]) -> str:
    return template.tokenizer.decode(ids, skip_special=False)


def trained(template: ChatTemplate, rendered: Rendered) -> str:
    return written(template, [label for label in rendered.labels if label != IGNORED])


def conversation(*records: Record) -> Record:
    return Record("all", "test", tuple(turn for record in records for turn in record.turns))


def test_a_question_about_a_picture(template: ChatTemplate) -> None:
    rendered = template.render(asked("a"))
    assert written(template, rendered.ids) == "<s>USER: <image><image>\nWhat colour is it? ASSISTANT: Red</s>"
    assert trained(template, rendered) == " Red</s>"
    assert [part.key for part in rendered.seen] == ["a"] and not rendered.drawn and not rendered.cut


def test_a_request_to_draw(template: ChatTemplate) -> None:
    rendered = template.render(drawn("b"))
    assert written(template, rendered.ids) == f"<s>USER: Draw it. ASSISTANT: Here it is:{DRAWN} Done.</s>"
    assert trained(template, rendered) == " Here it is:<image_gen_start> Done.</s>"


def test_labels_are_the_ids_or_ignored(template: ChatTemplate) -> None:
    rendered = template.render(conversation(asked("a"), drawn("b")))
    assert len(rendered.labels) == len(rendered.ids)
    assert all(label in (IGNORED, index) for label, index in zip(rendered.labels, rendered.ids, strict=True))


def test_several_turns_with_a_system_turn(template: ChatTemplate) -> None:
    record = conversation(Record("s", "t", (Turn("system", (TextPart("Be short."),)),)), asked("a"), drawn("b"))
    rendered = template.render(record)
    assert written(template, rendered.ids) == (
        "<s>Be short. USER: <image><image>\nWhat colour is it? ASSISTANT: Red</s>"
        f"USER: Draw it. ASSISTANT: Here it is:{DRAWN} Done.</s>"
    )
    assert trained(template, rendered) == " Red</s> Here it is:<image_gen_start> Done.</s>"


def test_pictures_between_and_after_texts(template: ChatTemplate) -> None:
    parts = (TextPart("First"), PicturePart("seen", "a"), TextPart("then"), PicturePart("seen", "b"))
    rendered = template.render(Record("x", "t", (Turn("user", parts),)))
    two = "<image><image>"
    assert written(template, rendered.ids) == f"<s>USER: First\n{two}\nthen\n{two}\n "
    assert [part.key for part in rendered.seen] == ["a", "b"]


def test_a_picture_alone(template: ChatTemplate) -> None:
    rendered = template.render(Record("x", "t", (Turn("assistant", (PicturePart("drawn", "a"),)),)))
    assert written(template, rendered.ids) == f"<s>ASSISTANT:{DRAWN}</s>"
    assert trained(template, rendered) == "<image_gen_start></s>"


def test_training_on_all_text(tokenizer: TextTokenizer) -> None:
    template = ChatTemplate(tokenizer, N, L, train_on="all")
    assert trained(template, template.render(asked("a"))) == "USER: \nWhat colour is it? ASSISTANT: Red</s>"
    rendered = template.render(drawn("b"))
    assert trained(template, rendered) == "USER: Draw it. ASSISTANT: Here it is:<image_gen_start> Done.</s>"


def test_special_strings_of_the_user_stay_text(template: ChatTemplate) -> None:
    rendered = template.render(asked("a", question="Is </s> or <image_gen_start> or <image> in it?"))
    tokens = template.tokenizer
    assert rendered.ids.count(tokens.image_id) == N
    assert rendered.ids.count(tokens.eos_id) == 1 and tokens.image_gen_start_id not in rendered.ids


def test_a_prompt_ends_where_the_answer_begins(template: ChatTemplate) -> None:
    record = conversation(drawn("b"), asked("a"))
    prompt, whole = template.prompt(record.turns[:-1]), template.render(record)
    assert written(template, prompt.ids).endswith("What colour is it? ASSISTANT:")
    assert whole.ids[: len(prompt.ids)] == prompt.ids
    assert [part.key for part in prompt.drawn] == ["b"] and [part.key for part in prompt.seen] == ["a"]
    assert prompt.trained == 0


def test_a_prompt_longer_than_the_context(template: ChatTemplate) -> None:
    turns = asked("a").turns[:1]
    length = len(template.prompt(turns).ids)
    template.prompt(turns, context=length + 5, reserve=5)
    with pytest.raises(UserError, match=f"{length} tokens; the model's context holds {length - 1}"):
        template.prompt(turns, context=length - 1)
    with pytest.raises(UserError, match=f"{length} tokens and 6 for the answer.*holds {length + 5}"):
        template.prompt(turns, context=length + 5, reserve=6)


@pytest.mark.parametrize("turns", [(), asked("a").turns])
def test_a_prompt_without_a_question(template: ChatTemplate, turns: tuple[Turn, ...]) -> None:
    with pytest.raises(UserError, match="last turn is not the user's"):
        template.prompt(turns)


def test_a_long_record_is_cut_after_an_answer(template: ChatTemplate) -> None:
    record = conversation(asked("a"), drawn("b"))
    first, whole = template.render(asked("a")), template.render(record)
    for context in range(len(first.ids), len(whole.ids)):
        cut = template.render(record, context)
        assert cut.cut and cut.ids == first.ids and cut.labels == first.labels
        assert [part.key for part in cut.seen] == ["a"] and not cut.drawn
    assert not template.render(record, len(whole.ids)).cut


def test_one_long_turn_is_cut_in_its_text_never_in_a_picture(template: ChatTemplate) -> None:
    tokens = template.tokenizer
    whole = template.render(drawn("b"))
    for context in range(1, len(whole.ids)):
        cut = template.render(drawn("b"), context)
        assert cut.cut and len(cut.ids) <= context and cut.ids == whole.ids[: len(cut.ids)]
        assert cut.ids.count(tokens.image_gen_id) == L * len(cut.drawn)
        assert cut.ids.count(tokens.image_gen_start_id) == cut.ids.count(tokens.image_gen_end_id) == len(cut.drawn)
    assert len(template.render(asked("a"), 8).seen) == 1


def test_answers_begin_at_the_word_with_a_llama_like_tokenizer(tmp_path: Path) -> None:
    template = ChatTemplate(TextTokenizer.load(llama_like(tmp_path)), N, L)
    rendered = template.render(asked("a", "plant", question="What is a shamrock?"))
    prompt = template.prompt(asked("a", question="What is a shamrock?").turns[:1])
    assert rendered.ids[: len(prompt.ids)] == prompt.ids
    assert all(label == IGNORED for label in rendered.labels[: len(prompt.ids)])
    assert all(label != IGNORED for label in rendered.labels[len(prompt.ids) :])
    assert template.tokenizer.decode(rendered.ids[len(prompt.ids) :]).strip() == "plant"


def llava(raw: Tokenizer, tokens: TextTokenizer, text: str) -> list[int]:
    """LLaVA-1.5's `tokenizer_image_token` on what its template `vicuna_v1` writes; `|` stands for the answers' ends."""
    ids = [tokens.bos_id]
    for number, chunk in enumerate(text.replace("<image>", "\0I\0").replace("|", "\0E\0").split("\0")):
        places = {"I": [tokens.image_id] * N, "E": [tokens.eos_id]}
        ids += places[chunk] if number % 2 else raw.encode(chunk, add_special_tokens=False).ids
    return ids


def said(role: str, *parts: str) -> Turn:
    found = [PicturePart("seen", "a") if part == "<image>" else TextPart(part) for part in parts]
    return Turn(role, tuple(found))  # type: ignore[arg-type]


CONVERSATIONS: dict[str, tuple[list[Turn], str]] = {
    "two turns": (
        [said("user", "<image>", "the cat"), said("assistant", "the cat"), said("user", "the cat")],
        "USER: <image>\nthe cat ASSISTANT: the cat|USER: the cat ASSISTANT:",
    ),
    "system": (
        [said("system", "Be short."), said("user", "a"), said("assistant", "b"), said("user", "<image>", "c")],
        "Be short. USER: a ASSISTANT: b|USER: <image>\nc ASSISTANT:",
    ),
    "picture in the middle": (
        [
            said("user", "see", "<image>", "then"),
            said("assistant", "yes (1)"),
            said("user", "<image>", " 2"),
            said("assistant", "漢字 é\n"),
            said("user", "é?\n"),
        ],
        "USER: see\n<image>\nthen ASSISTANT: yes (1)|USER: <image>\n 2 ASSISTANT: 漢字 é\n|USER: é?\n ASSISTANT:",
    ),
    "empty answer": (
        [said("user", "a"), said("assistant", ""), said("user", "b")],
        "USER: a ASSISTANT:|USER: b ASSISTANT:",
    ),
}


def byte_level(folder: Path) -> Path:
    """A tokenizer of the kind that Qwen and LLaMA 3 have: words with the space before them."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator([text for _, text in CONVERSATIONS.values()] * 20, trainer)
    raw.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("make", [llama_like, byte_level])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_have_the_ids_that_llava_gives_them(name: str, make: Any, tmp_path: Path) -> None:
    raw = Tokenizer.from_file(str(make(tmp_path) / "tokenizer.json"))
    tokens = TextTokenizer.load(tmp_path)
    template = ChatTemplate(tokens, N, L)
    turns, text = CONVERSATIONS[name]
    prompt = template.prompt(turns)
    assert list(prompt.ids) == llava(raw, tokens, text)
    if any(turn.role == "assistant" and turn.parts == (TextPart(""),) for turn in turns):
        return  # an answer that may be asked about, but that no record has
    whole = Record("x", "t", (*turns, said("assistant", "the end")))
    rendered = template.render(whole)
    trained = [place for place, label in enumerate(rendered.labels) if label != IGNORED]
    expected: list[int] = []
    for number, turn in enumerate(whole.turns):
        if turn.role == "assistant":  # from the prompt's end to the answer's, which has its own token
            begin = len(template.prompt(whole.turns[:number]).ids)
            expected += range(begin, rendered.ids.index(tokens.eos_id, begin) + 1)
    assert trained == expected, "exactly the answers' tokens are trained"
    assert rendered.ids[: len(prompt.ids)] == prompt.ids, "an answer goes on from its prompt"
    counts = count_tokens(_Source([whole]), template)  # type: ignore[arg-type]
    assert counts[0] @ [1, N, L + 2] == len(rendered.ids)


class _Source(list):  # type: ignore[type-arg]
    """Records as a corpus gives them."""

    def outline(self, place: int) -> Record:
        return self[place]  # type: ignore[no-any-return]


def test_the_packages_own_tokenizers_have_each_turn_by_itself(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    """Models that were trained with them know no other seams."""
    assert not tokenizer.joins_turns and TextTokenizer.load(llama_like(tmp_path)).joins_turns
    turns = asked("a").turns
    one, other = (ChatTemplate(tokenizer, N, L).render(Record("x", "t", part)).ids for part in (turns[:1], turns[1:]))
    assert list(ChatTemplate(tokenizer, N, L).render(asked("a")).ids) == [*one, *other[1:]]


def test_texts_for_the_tokenizer_are_as_rendered(template: ChatTemplate) -> None:
    assert list(spoken_texts(asked("a"))) == ["USER: ", "\nWhat colour is it? ", "ASSISTANT: Red"]
    assert list(spoken_texts(drawn("b"))) == ["USER: Draw it. ", "ASSISTANT: Here it is:", " Done."]


def test_unknown_train_on(tokenizer: TextTokenizer) -> None:
    with pytest.raises(UserError, match="'answers'; expected 'answer' or 'all'"):
        ChatTemplate(tokenizer, N, L, train_on="answers")  # type: ignore[arg-type]
