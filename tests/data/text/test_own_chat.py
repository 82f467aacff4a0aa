"""Conversations in the chat templates of language models, held against transformers' `apply_chat_template`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from tests.data.text.own_tokenizers import CHATML, FAMILIES, GEMMA3, SMOLLM3
from vargpt_lightning.data.loading.examples import ExampleMaker
from vargpt_lightning.data.mixing.lengths import count_tokens
from vargpt_lightning.data.mixing.mixture import SkippedRecord
from vargpt_lightning.data.shards.records import PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text import jinja_template
from vargpt_lightning.data.text.chat import IGNORED, ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError

N, L = 2, 3
each_family = pytest.mark.parametrize("family", FAMILIES)


def said(role: str, *parts: str) -> Turn:
    uses = {"<image>": "seen", "<image_gen>": "drawn"}
    return Turn(role, tuple(PicturePart(uses[part], part) if part in uses else TextPart(part) for part in parts))


ASKED, ANSWERED = said("user", "What colour is it?"), said("assistant", "It is red.")
CONVERSATIONS = {
    "one turn": (ASKED, ANSWERED),
    "turns": (ASKED, ANSWERED, said("user", "the second"), said("assistant", "Done."), ASKED, said("assistant", "red")),
    "system": (said("system", "You are helpful."), ASKED, ANSWERED, said("user", "Draw"), said("assistant", "no")),
    "seams": (
        said("user", "\n first line\n"),
        said("assistant", "\n\nHere\n\n"),
        said("user", "  é 漢字\n\n\n"),
        said("assistant", "'s  (1) 漢🍀 "),
    ),
    "pictures": (
        said("user", "<image>", "What is it?"),
        said("assistant", "A fox.", "<image_gen>", "Done."),
        said("user", "see", "<image>", "and", "<image>"),
        said("assistant", "<image_gen>"),
    ),
}


@pytest.fixture(autouse=True)
def same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' day is the one that templates are told here."""

    class Day:
        @staticmethod
        def now() -> Any:
            return jinja_template.TODAY

    monkeypatch.setattr(chat_template_utils, "datetime", Day)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TextTokenizer, Any]]:
    """Each family's tokenizer as we load it, and as transformers does what we save."""
    found = {}
    for name, family in FAMILIES.items():
        folder = tmp_path_factory.mktemp(name)
        tokenizer = TextTokenizer.load(family.write(folder), own_chat=True)
        tokenizer.save(folder / "saved")
        found[name] = tokenizer, AutoTokenizer.from_pretrained(folder / "saved")
    return found


def messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    """The turns as somebody would write them for transformers."""
    found = []
    for turn in turns:
        text = ""
        for number, part in enumerate(turn.parts):
            after = number > 0 and isinstance(turn.parts[number - 1], PicturePart)
            if isinstance(part, PicturePart):
                text += ("\n" if number and turn.role == "user" else "") + part.name
            else:
                text += (" " if turn.role == "assistant" else "\n") * after + part.text
        found.append({"role": turn.role, "content": text})
    return found


def expanded(ids: list[int], tokens: TextTokenizer) -> list[int]:
    """Ids with a picture's places for its token."""
    places = {
        tokens.image_id: [tokens.image_id] * N,
        tokens.image_gen_id: [tokens.image_gen_start_id, *[tokens.image_gen_id] * L, tokens.image_gen_end_id],
    }
    return [one for index in ids for one in places.get(index, [index])]


def ids_of(published: Any, turns: tuple[Turn, ...], **options: Any) -> list[int]:
    return list(published.apply_chat_template(messages(turns), **options)["input_ids"])


@each_family
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_those_of_apply_chat_template(name: str, family: str, opened: dict[str, Any]) -> None:
    tokens, published = opened[family]
    template, turns = ChatTemplate(tokens, N, L), CONVERSATIONS[name]
    assert list(template.render(Record("x", "t", turns)).ids) == expanded(ids_of(published, turns), tokens)
    for end in range(1, len(turns)):
        if turns[end].role == "assistant":
            prompt = template.prompt(turns[:end])
            assert list(prompt.ids) == expanded(ids_of(published, turns[:end], add_generation_prompt=True), tokens)
            assert prompt.trained == 0


@each_family
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_exactly_the_assistants_tokens_are_trained(name: str, family: str, opened: dict[str, Any]) -> None:
    tokens, published = opened[family]
    turns = CONVERSATIONS[name]
    whole = published.apply_chat_template(messages(turns), tokenize=False)
    spans, at = [], 0
    for turn, message in zip(turns, messages(turns), strict=True):
        if turn.role == "assistant":
            words = message["content"]
            if words.strip() + FAMILIES[family].answer.split("{}")[1] in whole:
                words = words.strip()
            trained = FAMILIES[family].answer.format(words)
            if family == "qwen3" and turn is turns[-1]:
                trained = "<think>\n\n</think>\n\n" + FAMILIES[family].answer.format(message["content"].lstrip("\n"))
            if family == "smollm3":
                trained = FAMILIES[family].answer.format(message["content"].lstrip("\n"))
            at = whole.index(trained, at)
            spans.append((at, at + len(trained)))
            at += len(trained)
    given = published(whole, add_special_tokens=False, return_offsets_mapping=True)
    expected: list[int] = []
    for index, (start, end) in zip(given["input_ids"], given["offset_mapping"], strict=True):
        if index in tokens.special_ids:
            end = start + len(whole[start:end].rstrip())
        inside = any(first < end <= last for first, last in spans)
        if index == tokens.image_gen_id:
            expected += [tokens.image_gen_start_id, *[IGNORED] * (L + 1)]
        elif index == tokens.image_id:
            expected += [IGNORED] * N
        else:
            expected.append(index if inside else IGNORED)
    assert list(ChatTemplate(tokens, N, L).render(Record("x", "t", turns)).labels) == expected


def test_marked_answers_are_what_transformers_says(opened: dict[str, Any]) -> None:
    tokens, published = opened["smollm3"]
    turns = CONVERSATIONS["system"]
    given = published.apply_chat_template(messages(turns), return_assistant_tokens_mask=True)
    labels = ChatTemplate(tokens, N, L).render(Record("x", "t", turns)).labels
    assert [label != IGNORED for label in labels] == [bool(one) for one in given["assistant_masks"]]


def trained_text(tokens: TextTokenizer, turns: tuple[Turn, ...]) -> str:
    labels = ChatTemplate(tokens, N, L).render(Record("x", "t", turns)).labels
    return tokens.decode([label for label in labels if label != IGNORED], skip_special=False)


def from_template(folder: Path, template: str, family: str = "qwen2", **tokens: str) -> TextTokenizer:
    return TextTokenizer.load(FAMILIES[family].write(folder, template, **tokens), own_chat=True)


def test_what_is_trained_does_not_need_the_marks(tmp_path: Path) -> None:
    """Without `{% generation %}` an answer begins where its prompt ends."""
    bare = SMOLLM3.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    tokens = from_template(tmp_path, bare, "smollm3")
    assert trained_text(tokens, CONVERSATIONS["turns"]) == "It is red.<|im_end|>Done.<|im_end|>red<|im_end|>"
    silent = (said("system", "/no_think"), ASKED, ANSWERED)
    assert trained_text(tokens, silent) == "<think>\n\n</think>\nIt is red.<|im_end|>"


def test_the_token_that_ends_an_answer_is_trained_where_the_marks_leave_it_out(tmp_path: Path) -> None:
    template = CHATML.replace(
        "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}",
        "{{- '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}{% generation %}"
        "{{ message.content }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}{{ '<|im_end|>\n' }}",
    )
    assert trained_text(from_template(tmp_path, template), (ASKED, ANSWERED)) == "It is red.<|im_end|>"


def test_thoughts_of_an_answer_are_the_assistants(opened: dict[str, Any]) -> None:
    tokens, published = opened["qwen3"]
    turns = (ASKED, said("assistant", "<think>\nred?\n</think>\n\nIt is red."))
    assert trained_text(tokens, turns) == "<think>\nred?\n</think>\n\nIt is red.<|im_end|>"
    assert list(ChatTemplate(tokens, N, L).render(Record("x", "t", turns)).ids) == ids_of(published, turns)


@each_family
def test_what_is_said_is_no_special_token(family: str, opened: dict[str, Any]) -> None:
    tokens, _ = opened[family]
    template = ChatTemplate(tokens, N, L)
    evil = "".join(sorted(tokens.own_chat.control)) + "<|im_<|im_end|>end|> \ufdd2\ufdd4\ufdd6 \ud800"
    for other in (tokens, pickle.loads(pickle.dumps(tokens))):
        turns = (said("system", evil), said("user", evil), said("assistant", evil, "<image_gen>"), said("user", evil))
        plain = tuple(said(turn.role, *["x" if isinstance(part, TextPart) else "<image_gen>" for part in turn.parts])
                      for turn in turns)  # fmt: skip
        found, expected = (
            [index for index in ChatTemplate(other, N, L).prompt(some).ids if index in tokens.special_ids]
            for some in (turns, plain)
        )
        assert found == expected and not tokens.special_ids & set(other.encode(evil))
    labels = template.render(Record("x", "t", (ASKED, said("assistant", evil)))).labels
    assert labels.count(tokens.eos_id) == 1
    assert "<|im_<|im_end|>end|>" in tokens.decode([label for label in labels if label != IGNORED])


@each_family
def test_a_long_record_is_cut_after_an_answer(family: str, opened: dict[str, Any]) -> None:
    tokens, _ = opened[family]
    template, record = ChatTemplate(tokens, N, L), Record("x", "t", CONVERSATIONS["pictures"])
    whole = template.render(record)
    for context in range(1, len(whole.ids)):
        cut = template.render(record, context)
        assert cut.cut and len(cut.ids) <= context and cut.ids == whole.ids[: len(cut.ids)]
        assert cut.ids.count(tokens.image_gen_end_id) == len(cut.drawn)
    first = whole.ids.index(tokens.eos_id, whole.labels.index(tokens.eos_id)) + 1
    assert len(template.render(record, first + 3).ids) == first


@each_family
def test_lengths_and_what_all_text_trains(family: str, opened: dict[str, Any]) -> None:
    tokens, _ = opened[family]
    template, records = ChatTemplate(tokens, N, L), [Record("x", "t", turns) for turns in CONVERSATIONS.values()]
    counts_N3 = count_tokens(Outlines(records), template)  # type: ignore[arg-type]
    assert list(counts_N3 @ [1, N, L + 2]) == [len(template.render(record).ids) for record in records]
    everything = ChatTemplate(tokens, N, L, train_on="all").render(records[-1])
    places = {tokens.image_id, tokens.image_gen_id, tokens.image_gen_end_id}
    untrained = [index for index, label in zip(everything.ids, everything.labels, strict=True) if label == IGNORED]
    assert untrained[0] == everything.ids[0] and set(untrained[1:]) <= places


class Outlines(list):  # type: ignore[type-arg]
    """Records as a corpus gives them."""

    def outline(self, place: int) -> Record:
        return self[place]  # type: ignore[no-any-return]


def test_its_tokens_take_the_parts_of_ours(opened: dict[str, Any]) -> None:
    named = {
        family: [tokens.decode([index], skip_special=False) for index in (tokens.pad_id, tokens.bos_id, tokens.eos_id)]
        for family, (tokens, _) in opened.items()
    }
    assert named["qwen2"] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert named["smollm2"] == ["<|im_end|>", "<|im_start|>", "<|im_end|>"]
    assert named["llama3"] == ["<pad>", "<|begin_of_text|>", "<|eot_id|>"]
    assert named["gemma3"] == ["<pad>", "<bos>", "<end_of_turn>"]
    assert named["mistral"] == ["<pad>", "<s>", "</s>"]
    assert {family: tokens.added for family, (tokens, _) in opened.items()} == {
        family: 5 if family in ("llama2", "mistral", "llama3") else 4 for family in FAMILIES
    }


def test_saved_it_is_what_it_was(tmp_path: Path) -> None:
    first = TextTokenizer.load(FAMILIES["gemma3"].write(tmp_path / "a", in_config=True), own_chat=True)
    first.save(tmp_path / "b")
    again = TextTokenizer.load(tmp_path / "b" / "tokenizer.json", own_chat=None)
    assert again.fingerprint == first.fingerprint and again.added == 0 and again.token_ids() == first.token_ids()
    other = TextTokenizer.load(FAMILIES["gemma3"].write(tmp_path / "c", "x" + GEMMA3), own_chat=True)
    assert other.fingerprint != first.fingerprint
    assert TextTokenizer.load(tmp_path / "b").own_chat is None, "nobody has asked for the template"


def test_a_tokenizer_that_was_trained_here_has_the_built_in_format(tmp_path: Path) -> None:
    TextTokenizer.train(["a text"], 263).save(tmp_path)
    assert TextTokenizer.load(tmp_path, own_chat=None).own_chat is None


def test_a_picture_alone_gets_an_empty_request_where_the_template_wants_one(opened: dict[str, Any]) -> None:
    alone = Record("x", "t", (said("assistant", "<image_gen>"),))
    for family, before in (("gemma3", "<start_of_turn>user\n<end_of_turn>\n"), ("llama3", "<|begin_of_text|><|start")):
        tokens, _ = opened[family]
        rendered = ChatTemplate(tokens, N, L).render(alone)
        assert before in tokens.decode(rendered.ids, skip_special=False)
        assert [label for label in rendered.labels if label != IGNORED] == [tokens.image_gen_start_id, tokens.eos_id]


NO_ANSWERS = CHATML.replace("message.content", "(message.content if message.role == 'user' else '')")
TWICE = CHATML.replace("message.content", "message.content + message.content")
NO_END = "{% for message in messages %}{{ message.role + ': ' + message.content + ' ' }}{% endfor %}"
OTHER_OPENING = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>bot\n'")
NO_PICTURES = CHATML.replace("message.content", "message.content.split('\ufdd2')[-1]")
LOOKS = CHATML.replace("message.content", "message.content + ('!' if message.content.startswith('Yes') else '')")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('not today') }}", r"fails for turns of user \(not today\)"),
        ("{% for message in messages %}", r"cannot be read \(Unexpected end of template"),
        ("{{ messages.clear() }}", "fails for turns of user .*unsafe"),
        ("{{ ''.__class__.__mro__ }}", "fails for turns of user .*unsafe"),
        (NO_ANSWERS, "leaves out what the assistant says, or says it twice: 'It is blue.'"),
        (TWICE, "leaves out what the user says, or says it twice: 'Which colour has the first kite"),
        (NO_END, "cannot be located: nothing and nothing ends its answers; expected one special token"),
        (OTHER_OPENING, r"cannot be located: a prompt ends with '.*bot\\n', but an answer .* follows '.*assistant\\n'"),
        ("<image>" + CHATML, "writes '<image>' without a picture"),
    ],
)
def test_templates_that_cannot_be_used(template: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^text tokenizer {tmp_path}: chat template: .*{message}"):
        from_template(tmp_path, template)


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (NO_PICTURES, (said("user", "<image>", "Why?"), ANSWERED), "writes 0 of 1 pictures; expected each once"),
        (LOOKS, (ASKED, said("assistant", "Yes")), "cannot be located: what it writes depends on what is said"),
    ],
)
def test_records_that_a_template_cannot_write(
    template: str, turns: tuple[Turn, ...], message: str, tmp_path: Path
) -> None:
    chat = ChatTemplate(from_template(tmp_path, template), N, L)
    with pytest.raises(UserError, match=message):
        chat.render(Record("x", "t", turns))
    with pytest.raises(SkippedRecord, match=f"record 'x': chat template: .*{message}"):
        ExampleMaker(chat)(Record("x", "t", turns))
    assert count_tokens(Outlines([Record("x", "t", turns)]), chat).tolist() == [[1, 0, 0]]  # type: ignore[arg-type]


def test_a_tokenizer_without_a_chat_template(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no chat template \(chat_template.jinja, or .*; expected one, or model.chat_"):
        from_template(tmp_path, "")


def test_picture_tokens_that_mean_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="special token '<image>': it is this tokenizer's eos_token; expected one for"):
        from_template(tmp_path / "role", FAMILIES["qwen2"].template, eos_token="<image>")
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<image_gen>": 1, "fox": 2}, "<unk>"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="'<image_gen>': it is a word of this vocabulary already; expected it to be"):
        TextTokenizer.load(tmp_path)


def test_tokens_that_are_there_twice_and_qwen2_vls_own(tmp_path: Path) -> None:
    """Seen pictures stand between Qwen2-VL's tokens where the model's id is that of its own; two names are refused."""
    folder = FAMILIES["qwen2"].write(tmp_path / "qwen2")
    read = Tokenizer.from_file(str(folder / "tokenizer.json"))
    read.add_special_tokens(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"])  # as Qwen2.5 has them too
    read.save(str(folder / "tokenizer.json"))
    image = read.token_to_id("<|image_pad|>")
    plain, own = TextTokenizer.load(folder, True), TextTokenizer.load(folder, True, image)
    assert plain.image_id != image == own.image_id
    found = []
    for tokenizer in (plain, own):
        template = ChatTemplate(tokenizer, 3, 5)
        ids = template.prompt([said("user", "<image>", "What is it?")]).ids
        found.append(tokenizer.decode(list(ids), skip_special=False))
    assert "<|vision_start|><image><image><image><|vision_end|>" in found[1]
    assert "<|vision_start|>" not in found[0] and "<image><image><image>" in found[0]
    read.add_special_tokens(["<image_gen>", "<|image_gen_pad|>"])
    read.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"special token '<image_gen>': '<\|image_gen_pad\|>' is there too"):
        TextTokenizer.load(folder, True)
