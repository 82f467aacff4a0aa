"""The points on which the paper (arXiv 2501.12327) and the authors' released code differ, and the presets of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vargpt_lightning.utils.ranges import require, require_choice

MASKED_KERNELS = ("sdpa", "eager", "flex_attention")  # attention that takes masks
Preset = Literal["paper", "official"]
VisualAttention = Literal["block_causal", "causal"]
Unconditional = Literal["dropped_prompt", "noise"]
TextLoss = Literal["answer", "all"]
AfterImage = Literal["continue", "stop"]
ClassRow = Literal["null", "start_token"]


@dataclass(frozen=True)
class Settings:
    """The points on which the paper and the released code differ, all of them decided.

    Args:
        visual_attention: what the tokens of a drawn picture attend to inside the language model: "block_causal": all
            tokens of their own and earlier scales; "causal": only the tokens before them.
        unconditional: the unconditional half of classifier-free guidance: "dropped_prompt" hides the context from the
            picture, "noise" replaces the hidden states by Gaussian noise.
        prompt_dropout: probability of hiding a drawn picture's context in training.
        text_loss: text targets in a row with a drawn picture: "answer": the labels only; "all": every token, including
            the user's text and padding.
        top_p: nucleus (top-p) for sampling visual tokens.
        after_image: whether an answer continues after its picture.
        class_row: class condition of the decoder in training; inference always uses the null row.
    """

    visual_attention: VisualAttention = "block_causal"
    unconditional: Unconditional = "dropped_prompt"
    prompt_dropout: float = 0.1
    text_loss: TextLoss = "answer"
    top_p: float = 0.95
    after_image: AfterImage = "continue"
    class_row: ClassRow = "null"

    def __post_init__(self) -> None:
        require_choice("visual_attention", self.visual_attention, ("block_causal", "causal"))
        require_choice("unconditional", self.unconditional, ("dropped_prompt", "noise"))
        require_choice("text_loss", self.text_loss, ("answer", "all"))
        require_choice("after_image", self.after_image, ("continue", "stop"))
        require_choice("class_row", self.class_row, ("null", "start_token"))
        require(0.0 <= self.prompt_dropout <= 1.0, "prompt_dropout", self.prompt_dropout, "a number from 0 to 1")
        require(0.0 <= self.top_p <= 1.0, "top_p", self.top_p, "a number from 0 to 1")


PRESETS: dict[str, Settings] = {
    "paper": Settings(),
    "official": Settings(
        visual_attention="causal",
        unconditional="noise",
        prompt_dropout=0.0,
        text_loss="all",
        top_p=0.96,
        after_image="stop",
        class_row="start_token",
    ),
}
"""Settings by preset: the paper's, and those of the authors' released code."""

PRESET_STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "paper": {
        "pretrain": ("generation_projectors",),
        "understanding": ("language_model", "vision_projector"),
        "generation": ("visual_decoder", "generation_projectors"),
    },
    "official": {
        "pretrain": ("generation_projectors",),
        "understanding": ("language_model",),
        "generation": ("visual_decoder", "generation_projectors"),
    },
}
"""What each of the three stages trains; the released code keeps the vision projector frozen in the second."""
