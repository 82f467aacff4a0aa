"""The text tokenizer: a small byte-level BPE trained on given texts, or one that comes with a language model."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from vargpt_lightning.data.text.chat_files import ChatFiles
from vargpt_lightning.data.text.marks import BREAK, Spans, clean
from vargpt_lightning.data.text.own_chat import OwnChat, Written
from vargpt_lightning.data.text.text_pieces import Pieces
from vargpt_lightning.utils.errors import UserError

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
IMAGE, IMAGE_GEN_START, IMAGE_GEN, IMAGE_GEN_END = "<image>", "<image_gen_start>", "<image_gen>", "<image_gen_end>"
# the last three in the order in which VARGPT-LLaVA-v1 has them after LLaVA-1.5's vocabulary
PICTURE_TOKENS = (IMAGE, IMAGE_GEN_START, IMAGE_GEN_END, IMAGE_GEN)
SPECIAL_TOKENS = (PAD, BOS, EOS, *PICTURE_TOKENS)
VARGPT_NAMES = {
    "<|image_gen_start|>": IMAGE_GEN_START,
    "<|image_gen_end|>": IMAGE_GEN_END,
    "<|image_gen_pad|>": IMAGE_GEN,
}
"""What VARGPT-LLaVA-v1 calls the tokens of drawn pictures."""
QWEN2_VL_NAMES = {"<|image_pad|>": IMAGE}
"""What Qwen2-VL calls the token of seen pictures, which stand between two others."""
_AROUND = ("<|vision_start|>", "<|vision_end|>")
FILE_NAME = "tokenizer.json"
_BYTES = 256
_SURROGATE = re.compile("[\ud800-\udfff]")
# GPT-2's pieces of text, and before them an option's letter in brackets: "wolf (B)" is a name and its letter, so that
# the letter follows its name at once, which is what a small model's attention finds first.
_PIECES = r" ?\([A-Z]\)|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class TextTokenizer:
    """Texts to token ids and back, with the special tokens that pictures need.

    Special tokens that are missing are added at the end of the vocabulary: `added` says how many, so that a language
    model's embeddings can grow by as many rows. Text never turns into special tokens, whatever it contains: they are
    put in by id alone.

    Args:
        tokenizer: the tokenizers library's.
        chat: the chat template that it came with, if conversations are written by that. The tokens that pad, begin a
            text and end an answer are the template's then.

    Attributes:
        own_chat: the chat template; None for the package's own format.

    Raises:
        UserError: a special token stands for something else already, or the chat template cannot be used.
    """

    def __init__(self, tokenizer: Tokenizer, chat: ChatFiles | None = None) -> None:
        names = SPECIAL_TOKENS
        self.own_chat = None if chat is None else _own_chat(tokenizer, chat)
        if chat is not None and self.own_chat is not None:
            begin = self.own_chat.begin or chat.tokens.get("bos_token", BOS)
            names = (chat.tokens.get("pad_token", PAD), begin, self.own_chat.end, *PICTURE_TOKENS)
        _check_free(tokenizer, {} if chat is None else chat.tokens)
        before = tokenizer.get_vocab_size(with_added_tokens=True)
        # the template's own tokens stay as they are: some take the white space beside them
        own = (
            names
            if chat is None
            else (token for token in names if token in SPECIAL_TOKENS or not _has(tokenizer, token))
        )
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in own])
        self.added = tokenizer.get_vocab_size(with_added_tokens=True) - before
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = self.own_chat is None
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        ids = [vocabulary[token] for token in names]
        self.pad_id, self.bos_id, self.eos_id, self.image_id = ids[:4]
        self.image_gen_start_id, self.image_gen_end_id, self.image_gen_id = ids[4:]
        control = () if self.own_chat is None else self.own_chat.control
        self._special_ids = frozenset(ids) | {vocabulary[token] for token in control if token in vocabulary}

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int = 1500) -> TextTokenizer:
        """Train a byte-level BPE of at most `vocabulary` entries, special tokens included, on the texts.

        The same texts in the same order give the same tokenizer. Raises UserError below 263 entries (the bytes and
        the special tokens).
        """
        smallest = _BYTES + len(SPECIAL_TOKENS)
        if vocabulary < smallest:
            raise UserError(f"text tokenizer vocabulary: {vocabulary}; expected at least {smallest}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PIECES), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | Path, own_chat: bool | None = False, image: int | None = None) -> TextTokenizer:
        """Load a `tokenizer.json`, or a folder that has one, or any tokenizer folder that transformers reads.

        Args:
            path: the file or the folder.
            own_chat: whether conversations are written by the chat template beside it; None does so unless this
                package has trained the tokenizer.
            image: the id of seen pictures, which may be that of a token of Qwen2-VL's.

        Raises:
            UserError: there is none, it cannot be read, or its chat template is wanted and cannot be used.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        if not path.exists():
            raise UserError(f"text tokenizer {path}: no such file or folder; expected {FILE_NAME} or a folder with it")
        try:
            read = Tokenizer.from_file(str(file)) if file.exists() else _from_transformers(path)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise UserError(f"text tokenizer {file}: cannot be read ({error})") from error
        try:
            found = _with_our_names(read, image)
        except UserError as error:
            raise UserError(f"text tokenizer {file}: {error}") from error
        folder = path if path.is_dir() else path.parent
        wanted = not _trained_here(found) if own_chat is None else own_chat
        chat = ChatFiles.read(folder) if wanted else None
        try:
            return cls(found, chat)
        except UserError as error:
            raise UserError(f"text tokenizer {folder if wanted else file}: {error}") from error

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into the folder (created), with the chat template's files, and return its path."""
        path = Path(folder) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
        if self.own_chat is not None:
            self.own_chat.files.write(path.parent)
        return path

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"tokenizer": self._tokenizer.to_str()}
        return state if self.own_chat is None else {**state, "chat": self.own_chat.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # the setting that keeps text from turning into special tokens is not part of the saved tokenizer
        self.__init__(Tokenizer.from_str(state["tokenizer"]), state.get("chat"))  # type: ignore[misc]

    @cached_property
    def _pieces(self) -> Pieces | None:
        return Pieces.of(self._tokenizer, self._special_ids, _PIECES)

    @property
    def joins_turns(self) -> bool:
        """Whether a conversation is encoded across its turns, as a language model's own tokenizer is used.

        Those that `train` makes have the special tokens in front, and have learned each turn by itself.
        """
        return not _trained_here(self._tokenizer)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text: those that pictures need, and the tokenizer's own."""
        added = self._tokenizer.get_added_tokens_decoder()
        return self._special_ids | {index for index, token in added.items() if token.special}

    @property
    def vocabulary(self) -> int:
        """The number of token ids, special tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def token_ids(self) -> dict[str, int]:
        """Return the special tokens' ids under their names without brackets: pad, bos, eos, image, image_gen_..."""
        names = ("pad", "bos", "eos", "image", "image_gen_start", "image_gen_end", "image_gen")
        return {name: getattr(self, f"{name}_id") for name in names}

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids; strings like `<image>` in it are ordinary characters."""
        return self.encode_spans([text])[0].tolist()

    def encode_spans(self, spans: Sequence[str]) -> list[array[int]]:
        """Return the token ids of the joined texts, each with the text that holds the last character it stands for.

        They come as arrays of type "q", which become tensors without a look at each.
        """
        found = self._pieces.encode(spans) if self._pieces else None
        if found is not None:
            return found
        ids, offsets = self.encode_with_offsets("".join(spans))
        if len(spans) == 1:
            return [array("q", ids)]
        ends = list(accumulate(map(len, spans)))
        result = [array("q") for _ in spans]
        for index, (_, end) in zip(ids, offsets, strict=True):
            result[bisect_right(ends, max(end - 1, 0))].append(index)
        return result

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the text's token ids and, for each, the first and last-plus-one character it stands for.

        Half a surrogate pair, which no tokenizer takes, counts as U+FFFD.
        """
        if self.own_chat is not None:
            return self._encode_said(clean(text), Spans([(0, len(text))]))
        encoding = self._tokenizer.encode(_SURROGATE.sub("\ufffd", text), add_special_tokens=False)
        if self._special_ids.isdisjoint(encoding.ids):
            return encoding.ids, encoding.offsets
        return self._without_special(text, encoding.ids, encoding.offsets)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many token ids each text has; many texts at once are encoded in parallel."""
        if self.own_chat is not None:
            return [len(self.encode(text)) for text in texts]
        whole = [_SURROGATE.sub("\ufffd", text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(whole, add_special_tokens=False)
        ids = (encoding.ids for encoding in encodings)
        return [
            len(found) if self._special_ids.isdisjoint(found) else len(self.encode(text))
            for text, found in zip(texts, ids, strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """A hash of all that token ids depend on."""
        told = self._tokenizer.to_str()
        if self.own_chat is not None:
            told += json.dumps([self.own_chat.files.template, self.own_chat.files.tokens])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def encode_written(self, written: Written) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of a conversation that the chat template wrote, and where each stands in its text."""
        return self._encode_said(written.text, written.said)

    def _encode_said(self, text: str, said: Spans) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode a text with the special tokens in it, of which those in what is said stay text.

        There they are broken by a code point that no text has; what that one becomes is left out again.
        """
        assert self.own_chat is not None
        breaks = [found.start() + 1 for found in self.own_chat.controls.finditer(text) if found.start() in said]
        pieces = (text[start:end] for start, end in pairwise([0, *breaks, len(text)]))
        encoding = self._tokenizer.encode(BREAK.join(pieces), add_special_tokens=False)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        stands = {place + number for number, place in enumerate(breaks)}
        ends = sorted(stands)
        for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if start in stands and end == start + 1:
                continue
            first, last = start - bisect_left(ends, start), end - bisect_left(ends, end)
            if index in self._special_ids and first in said:  # of a vocabulary that has it as a word
                continue
            ids.append(index)
            offsets.append((first, last))
        return ids, offsets

    def _without_special(
        self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode the stretches anew that the tokenizer's own vocabulary made special tokens of (`</s>` in Unigram)."""
        found: list[tuple[int, tuple[int, int]]] = []
        for index, (start, end) in zip(ids, offsets, strict=True):
            if index not in self._special_ids:
                found.append((index, (start, end)))
                continue
            for place in range(start, end):  # a letter by itself is never a special token
                known = self._tokenizer.token_to_id(text[place])
                letter = [known] if known is not None else self._letter(text[place])
                found += [(part, (place, place + 1)) for part in letter if part not in self._special_ids]
        return [index for index, _ in found], [span for _, span in found]

    def _letter(self, letter: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(letter, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Return the text of token ids; special tokens are left out, or written as they are called."""
        ids = [index for index in ids if not skip_special or index not in self._special_ids]
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special)


def _own_chat(tokenizer: Tokenizer, chat: ChatFiles) -> OwnChat:
    added = tokenizer.get_added_tokens_decoder().values()
    ours = (chat.tokens.get("pad_token", PAD), chat.tokens.get("bos_token", BOS), *PICTURE_TOKENS)
    special = {*(token.content for token in added if token.special), *chat.tokens.values(), *ours}
    seen = IMAGE
    renamed_to = not any(_has(tokenizer, token) for token in QWEN2_VL_NAMES)
    if renamed_to and all(_has(tokenizer, token) for token in (IMAGE, *_AROUND)):
        seen = IMAGE.join(_AROUND)  # it is Qwen2-VL's own
    return OwnChat(chat, sorted(special), [token.content for token in added], (seen, IMAGE_GEN))


def _check_free(tokenizer: Tokenizer, roles: Mapping[str, str]) -> None:
    """Refuse a tokenizer in which one of our special tokens means something else."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in PICTURE_TOKENS:
        if token not in added and _has(tokenizer, token):
            raise UserError(f"special token {token!r}: it is a word of this vocabulary already; expected it to be free")
    for role, token in roles.items():
        if token in PICTURE_TOKENS:
            raise UserError(f"special token {token!r}: it is this tokenizer's {role}; expected one for pictures")


def _has(tokenizer: Tokenizer, token: str) -> bool:
    return tokenizer.token_to_id(token) is not None


def _trained_here(tokenizer: Tokenizer) -> bool:
    """Whether `TextTokenizer.train` has made it, which puts the special tokens in front."""
    return [tokenizer.id_to_token(index) for index in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return the text of a tokenizer.json whose special tokens have other names; their ids stay."""
    tree = json.loads(text)
    for token in tree.get("added_tokens", ()):
        token["content"] = names.get(token["content"], token["content"])
    words = tree["model"].get("vocab")
    if isinstance(words, dict):
        tree["model"]["vocab"] = {names.get(word, word): index for word, index in words.items()}
    return json.dumps(tree, ensure_ascii=False)


def _with_our_names(tokenizer: Tokenizer, image: int | None) -> Tokenizer:
    """The tokenizer with VARGPT's names of picture tokens changed to ours, and Qwen2-VL's where that has the id."""
    names = dict(VARGPT_NAMES)
    if image is not None and tokenizer.id_to_token(image) in QWEN2_VL_NAMES:
        names |= QWEN2_VL_NAMES
    there = [name for name in names if _has(tokenizer, name)]
    for name in there:
        if _has(tokenizer, names[name]):
            raise UserError(
                f"special token {names[name]!r}: {name!r} is there too and stands for the same; expected one of them"
            )
    return Tokenizer.from_str(renamed(tokenizer.to_str(), names)) if there else tokenizer


def _from_transformers(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
