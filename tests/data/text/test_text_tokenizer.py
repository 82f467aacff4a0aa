from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vargpt_lightning.data.text.text_tokenizer import SPECIAL_TOKENS, TextTokenizer
from vargpt_lightning.utils.errors import UserError

TEXTS = ["USER: What is a shamrock? ASSISTANT: Other plant, Animals & Nature", "Please draw a shamrock."] * 5
TRICKY = "Say <image> and </s>, <image_gen_start> <pad>."


@pytest.mark.parametrize("text", ["a shamrock", "  two  spaces\nand a line", "Curaçao, naïve, 日本, 🍀", "", TRICKY])
def test_decoding_gives_the_text_back(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_never_turns_into_special_tokens(tokenizer: TextTokenizer) -> None:
    assert not set(tokenizer.encode(TRICKY)) & set(tokenizer.token_ids().values())


def test_pickled_or_loaded_it_still_does_not(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for other in (pickle.loads(pickle.dumps(tokenizer)), TextTokenizer.load(tmp_path)):
        assert other.encode(TRICKY) == tokenizer.encode(TRICKY)
        assert other.token_ids() == tokenizer.token_ids() and other.added == 0


def test_special_tokens_are_left_out_or_written(tokenizer: TextTokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode("Red"), tokenizer.image_gen_start_id, tokenizer.eos_id]
    assert tokenizer.decode(ids) == "Red"
    assert tokenizer.decode(ids, skip_special=False) == "<s>Red<image_gen_start></s>"


def test_training_is_deterministic_and_keeps_to_its_size() -> None:
    one, two = (TextTokenizer.train(TEXTS, 300) for _ in range(2))
    assert one.vocabulary == two.vocabulary == 300
    assert [one.encode(text) for text in TEXTS] == [two.encode(text) for text in TEXTS]
    assert len(one.encode("shamrock")) < len("shamrock")


def test_an_options_letter_is_one_piece_right_behind_its_name() -> None:
    tokenizer = TextTokenizer.train(["It is a wolf (B).", "wolf (A), dog (B), cat (C)"] * 3, 300)
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("wolf (A), cat (C)")]
    assert [piece for piece in pieces if "(" in piece or ")" in piece] == [" (A)", " (C)"]
    unseen = "zebra (D), f(x) (AB) ( C )"
    assert tokenizer.decode(tokenizer.encode(unseen)) == unseen


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="vocabulary: 100; expected at least 263"):
        TextTokenizer.train(TEXTS, 100)


def llama_like(folder: Path) -> Path:
    """A tokenizer of the kind that LLaVA-1.5 has: a space marks a word's start, `<image>` and `<pad>` at the end."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    )
    tokenizer.add_special_tokens(["<image>", "<pad>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def test_a_language_models_tokenizer_gets_what_it_lacks(tmp_path: Path) -> None:
    raw = Tokenizer.from_file(str(llama_like(tmp_path) / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.added == 3 and tokenizer.vocabulary == raw.get_vocab_size() + 3
    for token in ("<s>", "</s>", "<image>", "<pad>"):
        assert raw.token_to_id(token) in tokenizer.token_ids().values()
    new = [tokenizer.image_gen_start_id, tokenizer.image_gen_end_id, tokenizer.image_gen_id]
    assert new == [raw.get_vocab_size() + i for i in range(3)]
    assert not set(tokenizer.encode("a <image> b")) & set(tokenizer.token_ids().values())


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        TextTokenizer.load(tmp_path / "none")
    (tmp_path / "tokenizer.json").write_text('{"half": ')
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
        TextTokenizer.load(tmp_path)


def test_all_special_tokens_have_ids(tokenizer: TextTokenizer) -> None:
    assert len(set(tokenizer.token_ids().values())) == len(SPECIAL_TOKENS) == 7


EVERY = "a " + " ".join(SPECIAL_TOKENS) + "".join(SPECIAL_TOKENS) + " b</s"


def sentencepiece_like(folder: Path) -> Path:
    """As LLaMA's: the special tokens are in the vocabulary too, and `<image>` is one that was added and not special."""
    letters = sorted(set("▁" + EVERY.replace(" ", "")))
    vocabulary = {piece: place for place, piece in enumerate(["<unk>", "<s>", "</s>", *letters, "s>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("s", ">"), ("<", "s>")], unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<image>", normalized=False), AddedToken("<pad>", normalized=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def unigram_like(folder: Path) -> Path:
    """As T5's: left to itself the model takes `</s>` in a text for one piece, since none is likelier."""
    pieces = [(token, 0.0) for token in ("<unk>", "<s>", "</s>", "<pad>")]
    pieces += [(letter, -3.0) for letter in sorted(set("▁" + EVERY.replace(" ", "")))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("write", [llama_like, sentencepiece_like, unigram_like])
def test_what_a_user_types_is_no_special_token_of_any_tokenizer(write: Callable[[Path], Path], tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(write(tmp_path))
    for other in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        ids, offsets = other.encode_with_offsets(EVERY)
        assert not set(ids) & set(other.token_ids().values())
        assert len(ids) == len(offsets) and all(0 <= start <= end <= len(EVERY) for start, end in offsets)
        assert [end for _, end in offsets] == sorted(end for _, end in offsets)
    if write is not llama_like:  # whose small vocabulary lacks letters
        assert tokenizer.decode(tokenizer.encode(EVERY)).replace(" ", "") == EVERY.replace(" ", "")


def test_half_a_surrogate_pair_is_a_letter_like_others(tokenizer: TextTokenizer) -> None:
    ids, offsets = tokenizer.encode_with_offsets("a \ud800 b")
    assert tokenizer.decode(ids) == "a \ufffd b" and offsets[-1][1] == 5
