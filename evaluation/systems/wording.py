"""How a question and its pictures become the text that a transformers model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vargpt_lightning.utils.errors import UserError

TEMPLATES = ("auto", "chat", "vicuna", "plain", "bare")
"""auto: the model's chat template, else what its kind is known to want. chat: the chat template. vicuna: LLaVA-1.5's
conversation. plain: the pictures, a line each, then the question. bare: the question alone, for models whose processor
places the pictures itself."""

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: {} ASSISTANT:"
)

# Kinds of models that were published without a chat template.
_KNOWN = {"chameleon": "plain", "instructblip": "bare", "blip-2": "bare"}

Wording = Callable[[str, int], str]
"""Question and number of pictures in, the model's prompt out."""


def choose_template(asked: str, processor: Any, config: Any) -> str:
    """Returns the template that is used where `asked` was asked for.

    Raises:
        UserError: there is no such template, the model has no chat template, or nothing is known of its kind.
    """
    if asked not in TEMPLATES:
        raise UserError(f"template: {asked!r}; expected one of {', '.join(TEMPLATES)}")
    kind, has_one = config.model_type, _chat_template(processor) is not None
    if asked == "chat" and not has_one:
        raise UserError(f"template: 'chat', but this {kind} model has no chat template; expected another")
    if asked != "auto":
        return asked
    if has_one:
        return "chat"
    if kind in ("llava", "vipllava") and config.get_text_config().model_type == "llama":
        return "vicuna"
    if kind not in _KNOWN:
        raise UserError(f"template: this {kind} model has no chat template; choose one of {', '.join(TEMPLATES[2:])}")
    return _KNOWN[kind]


def wording(template: str, processor: Any) -> Wording:
    """Returns how prompts are worded by a template that `choose_template` gave.

    Pictures come before the question. A question that holds the model's picture token once for each picture has them
    there; other uses of that token in a question are text, and are written apart so that they stay text.
    """
    token = picture_token(processor)

    def word(prompt: str, pictures: int) -> str:
        placed = token is not None and template != "bare" and pictures > 0 and prompt.count(token) == pictures
        if token is not None and not placed:
            prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
        if template == "chat":
            return _chat(processor, prompt, pictures, token if placed else None)
        lines = "" if placed or token is None or template == "bare" else f"{token}\n" * pictures
        return VICUNA.format(lines + prompt) if template == "vicuna" else lines + prompt

    return word


def picture_token(processor: Any) -> str | None:
    """The text that stands for a picture in a prompt, None where the model has none."""
    token = getattr(processor, "image_token", None)
    return None if token is None else str(getattr(token, "content", token))


def _chat(processor: Any, prompt: str, pictures: int, token: str | None) -> str:
    texts = prompt.split(token) if token is not None else [""] * pictures + [prompt]
    content: list[dict[str, str]] = []
    for number, text in enumerate(texts):
        content += [{"type": "image"}] if number else []
        content += [{"type": "text", "text": text}] if text else []
    owner = processor if getattr(processor, "chat_template", None) is not None else processor.tokenizer
    said: Any = content
    if owner is not processor:  # a template of words alone
        said = "\n".join(
            picture_token(processor) or "" if part["type"] == "image" else part["text"] for part in content
        )
    turns = [{"role": "user", "content": said}]
    return str(owner.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def _chat_template(processor: Any) -> Any:
    own = getattr(processor, "chat_template", None)
    return own if own is not None else getattr(processor.tokenizer, "chat_template", None)
