"""Small tokenizers of the families of language models, in their true file format, each with a chat template.

The templates are written for these tests; they put roles, special tokens and white space where the published ones do,
and handle earlier turns, system turns and mistakes as those do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "user assistant system model What colour is it? It is red. Draw a fox, please! Here it is: Done. [INST] [/INST]",
    "You are a helpful assistant. Today: thinking <<SYS>> <</SYS>> /no_think The first line\n\nthe second",
] * 4
_PIECES = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
WITH_SYSTEM = (
    """
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
"""
    + CHATML
)
QWEN3 = """
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' and not (message.content.startswith('<tool_response>')) %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
SMOLLM3 = """
{%- set mode = '/think' %}
{%- set said = '' %}
{%- if messages[0].role == 'system' %}
    {%- set said = messages[0].content %}
    {%- if '/no_think' in said %}{% set mode = '/no_think' %}{% endif %}
    {%- set said = said.replace('/no_think', '').replace('/think', '').rstrip() %}
{%- endif %}
{{- '<|im_start|>system\nToday: ' + strftime_now('%d %B %Y') + '\n' + mode + '\n' }}
{{- (said or 'You are a helpful assistant.') + '<|im_end|>\n' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {%- generation %}
            {%- if mode == '/think' %}
                {{- '<|im_start|>assistant\n' + message.content.lstrip('\n') + '<|im_end|>\n' }}
            {%- else %}
                {{- '<|im_start|>assistant\n<think>\n\n</think>\n' + message.content.lstrip('\n') + '<|im_end|>\n' }}
            {%- endif %}
        {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}
{%- endif %}
"""
LLAMA2 = """
{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system, rest = '', messages %}
{%- endif %}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must go user, assistant, user, assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + ((system if loop.first else '') + message['content']).strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL = """
{%- if messages[0].role == 'system' %}
    {%- set system, rest = messages[0].content + '\n\n', messages[1:] %}
{%- else %}
    {%- set system, rest = '', messages %}
{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {%- set before = system if loop.index0 >= rest | length - 2 else '' %}
        {{- ' [INST] ' + before + message.content + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
LLAMA3 = """
{%- for message in messages %}
    {%- set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}
    {%- set text = head + message['content'] | trim + '<|eot_id|>' %}
    {{- bos_token + text if loop.first else text }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""
GEMMA3 = """
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set first, rest = messages[0]['content'] + '\n\n', messages[1:] %}
{%- else %}
    {%- set first, rest = '', messages %}
{%- endif %}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}
    {%- if message['content'] is string %}
        {{- message['content'] | trim }}
    {%- else %}
        {{- raise_exception('a text is expected') }}
    {%- endif %}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
"""
PHI = """
{%- for message in messages %}
    {{- '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}
"""


@dataclass(frozen=True)
class Family:
    """A family's tokenizer.

    Args:
        make: the tokenizer without added tokens.
        template: its chat template.
        special: its special tokens, in the order of their ids.
        tokens: those that tokenizer_config.json names.
        answer: what is trained of an answer, `{}` standing for its words.
        plain: added tokens that are not special.
        rstrip: whether special tokens take the white space behind them.
    """

    make: Callable[[], Tokenizer]
    template: str
    special: tuple[str, ...]
    tokens: dict[str, str]
    answer: str
    plain: tuple[str, ...] = ()
    rstrip: bool = False

    def write(self, folder: Path, template: str | None = None, in_config: bool = False, **tokens: str) -> Path:
        """Write its files; the template goes into a file of its own, or into tokenizer_config.json."""
        tokenizer = self.make()
        tokenizer.add_special_tokens([
            AddedToken(token, normalized=False, special=True, rstrip=self.rstrip and token.startswith("<|"))
            for token in self.special
        ])  # fmt: skip
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in self.plain])
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.tokens, **tokens}
        template = self.template if template is None else template
        if in_config:
            config["chat_template"] = template
        elif template:
            (folder / "chat_template.jinja").write_text(template)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return folder


def byte_level() -> Tokenizer:
    """As Qwen, LLaMA 3 and SmolLM have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece(prepend: bool = True) -> Callable[[], Tokenizer]:
    """As LLaMA 2, Mistral and Phi-3 have it, with a space before every text; Gemma has none."""

    def make() -> Tokenizer:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        steps = [normalizers.Prepend("▁")] if prepend else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
        bytes_first = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *bytes_first], show_progress=False
        )
        tokenizer.train_from_iterator(TEXTS, trainer)
        value = json.loads(tokenizer.to_str())
        # bytes are entries of the model, and no added tokens
        value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] == "<unk>"]
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prepend else []
        steps_back = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}]
        value["decoder"] = {"type": "Sequence", "decoders": [*steps_back, {"type": "Fuse"}, *strip]}
        return Tokenizer.from_str(json.dumps(value))

    return make


_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_LLAMA2 = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_HEADERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
FAMILIES = {
    "qwen2": Family(byte_level, WITH_SYSTEM, _IM, _QWEN, "{}<|im_end|>"),
    "qwen3": Family(byte_level, QWEN3, _IM, _QWEN, "{}<|im_end|>", plain=("<think>", "</think>")),
    "smollm2": Family(
        byte_level,
        WITH_SYSTEM,
        _IM,
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        "{}<|im_end|>",
    ),
    "smollm3": Family(
        byte_level,
        SMOLLM3,
        _IM,
        {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        "<|im_start|>assistant\n{}<|im_end|>\n",
        plain=("<think>", "</think>"),
    ),
    "llama2": Family(sentencepiece(), LLAMA2, ("<s>", "</s>"), _LLAMA2, " {} </s>"),
    "mistral": Family(sentencepiece(), MISTRAL, ("<s>", "</s>"), _LLAMA2, " {}</s>"),
    "llama3": Family(
        byte_level, LLAMA3, _HEADERS, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, "{}<|eot_id|>"
    ),
    "gemma3": Family(
        sentencepiece(prepend=False),
        GEMMA3,
        ("<pad>", "<eos>", "<bos>"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
        "{}<end_of_turn>",
        plain=("<start_of_turn>", "<end_of_turn>", "\n\n", "▁▁"),
    ),
    "phi": Family(
        sentencepiece(),
        PHI,
        ("<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>"),
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"},
        "{}<|end|>",
        rstrip=True,
    ),
}
