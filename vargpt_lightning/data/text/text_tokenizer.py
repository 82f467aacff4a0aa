"""The text tokenizer: a small byte-level BPE trained on given texts, or one that comes with a language model."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from vargpt_lightning.data.text.text_pieces import Pieces
from vargpt_lightning.utils.errors import UserError

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
IMAGE, IMAGE_GEN_START, IMAGE_GEN, IMAGE_GEN_END = "<image>", "<image_gen_start>", "<image_gen>", "<image_gen_end>"
# the last three in the order in which VARGPT-LLaVA-v1 has them after LLaVA-1.5's vocabulary
SPECIAL_TOKENS = (PAD, BOS, EOS, IMAGE, IMAGE_GEN_START, IMAGE_GEN_END, IMAGE_GEN)
VARGPT_NAMES = {
    "<|image_gen_start|>": IMAGE_GEN_START,
    "<|image_gen_end|>": IMAGE_GEN_END,
    "<|image_gen_pad|>": IMAGE_GEN,
}
"""What VARGPT-LLaVA-v1 calls the tokens of drawn pictures."""
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
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        before = tokenizer.get_vocab_size(with_added_tokens=True)
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        self.added = tokenizer.get_vocab_size(with_added_tokens=True) - before
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        ids = [vocabulary[token] for token in SPECIAL_TOKENS]
        self.pad_id, self.bos_id, self.eos_id, self.image_id = ids[:4]
        self.image_gen_start_id, self.image_gen_end_id, self.image_gen_id = ids[4:]
        self._special_ids = frozenset(ids)

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
    def load(cls, path: str | Path) -> TextTokenizer:
        """Load a `tokenizer.json`, or a folder that has one, or any tokenizer folder that transformers reads.

        Raises UserError when there is none or it cannot be read.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        if not path.exists():
            raise UserError(f"text tokenizer {path}: no such file or folder; expected {FILE_NAME} or a folder with it")
        try:
            return cls(_with_our_names(Tokenizer.from_file(str(file)) if file.exists() else _from_transformers(path)))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise UserError(f"text tokenizer {file}: cannot be read ({error})") from error

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into the folder (created) and return its path."""
        path = Path(folder) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
        return path

    def __getstate__(self) -> dict[str, str]:
        return {"tokenizer": self._tokenizer.to_str()}

    def __setstate__(self, state: dict[str, str]) -> None:
        # the setting that keeps text from turning into special tokens is not part of the saved tokenizer
        self.__init__(Tokenizer.from_str(state["tokenizer"]))  # type: ignore[misc]

    @cached_property
    def _pieces(self) -> Pieces | None:
        return Pieces.of(self._tokenizer, self._special_ids, _PIECES)

    @property
    def joins_turns(self) -> bool:
        """Whether a conversation is encoded across its turns, as a language model's own tokenizer is used.

        Those that `train` makes have the special tokens in front, and have learned each turn by itself.
        """
        return self._special_ids != frozenset(range(len(SPECIAL_TOKENS)))

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
        encoding = self._tokenizer.encode(_SURROGATE.sub("\ufffd", text), add_special_tokens=False)
        if self._special_ids.isdisjoint(encoding.ids):
            return encoding.ids, encoding.offsets
        return self._without_special(text, encoding.ids, encoding.offsets)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many token ids each text has; many texts at once are encoded in parallel."""
        clean = [_SURROGATE.sub("\ufffd", text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        ids = (encoding.ids for encoding in encodings)
        return [
            len(found) if self._special_ids.isdisjoint(found) else len(self.encode(text))
            for text, found in zip(texts, ids, strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """A hash of all that token ids depend on."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()[:16]

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


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return the text of a tokenizer.json whose special tokens have other names; their ids stay."""
    tree = json.loads(text)
    for token in tree.get("added_tokens", ()):
        token["content"] = names.get(token["content"], token["content"])
    words = tree["model"].get("vocab")
    if isinstance(words, dict):
        tree["model"]["vocab"] = {names.get(word, word): index for word, index in words.items()}
    return json.dumps(tree, ensure_ascii=False)


def _with_our_names(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with VARGPT-LLaVA-v1's names of picture tokens changed to ours."""
    if not set(VARGPT_NAMES) & set(tokenizer.get_vocab(with_added_tokens=True)):
        return tokenizer
    return Tokenizer.from_str(renamed(tokenizer.to_str(), VARGPT_NAMES))


def _from_transformers(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
