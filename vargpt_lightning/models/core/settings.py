"""The points on which papers and their authors' released code differ, and the presets of both.

Those of VARGPT (arXiv 2501.12327), and of VARGPT-v1.1 (arXiv 2504.02949), which has a preset of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from vargpt_lightning.utils.ranges import require, require_choice

MASKED_KERNELS = ("sdpa", "eager", "flex_attention")  # attention that takes masks
Preset = Literal["paper", "official", "v1_1"]
Published = Literal["paper", "official"]
VisualAttention = Literal["block_causal", "causal"]
Unconditional = Literal["dropped_prompt", "noise", "present_scale"]
TextLoss = Literal["answer", "all", "every_id"]
AfterImage = Literal["continue", "stop"]
ClassRow = Literal["null", "start_token", "start_embedding"]
CrossAttention = Literal["learned", "hidden", "embeddings"]
ConditionDropout = Literal["apart", "together"]
SeenPositions = Literal["plain", "grid"]
LongPrompts = Literal["refuse", "repeat"]


@dataclass(frozen=True)
class Settings:
    """The points on which papers and released code differ, all of them decided.

    Args:
        visual_attention: what the tokens of a drawn picture attend to inside the language model: "block_causal": all
            tokens of their own and earlier scales; "causal": only the tokens before them.
        unconditional: the unconditional half of classifier-free guidance: "dropped_prompt" hides the context from the
            picture, "noise" replaces the hidden states by Gaussian noise, "present_scale" gives the language model the
            present scale alone, without prompt and without earlier scales.
        prompt_dropout: probability of hiding a drawn picture's context in training.
        condition_dropout: "apart": decoder.class_dropout drops the decoder's own condition (class, start embedding, or
            the prompt that it reads as embeddings) by itself; "together": prompt_dropout drops the context, that
            condition and what the cross-attention reads, all of them or none.
        text_loss: text targets in a row with a drawn picture: "answer": the labels only; "all": every token, including
            the user's text and padding; "every_id": the places of seen pictures as well.
        top_p: nucleus (top-p) for sampling visual tokens.
        after_image: whether an answer continues after its picture.
        class_row: condition of the decoder: "null": none; "start_token": in training the class of that id, in inference
            none; "start_embedding" (bits): a learned row.
        cross_attention: bits: what the decoder's cross-attention reads: "learned": one learned row; "hidden": the
            language model's hidden states before the picture, through generation_projector_out; "embeddings": the
            embeddings of what stands before the picture, which make its condition too, as Infinity reads a prompt.
        picture_multiple: the places of a drawn picture in a sequence are filled up to a multiple of this; what fills
            them is trained by nothing.
        seen_positions: positions of seen pictures in training, where the language model's have three dimensions:
            "grid": row and column, "plain": one number after the other. Generation always has the grid.
        drawn_in_evaluation: put pictures to draw into their places in evaluation mode; otherwise the loss is that of
            the labels alone, and placeholders are read as words.
        correction_in_evaluation: a stage's self_correction changes codes in evaluation mode too.
        drop_in_evaluation: `decoder.drop_in_evaluation`.
        scale_weighted: `decoder.scale_weighted`.
        long_prompts: `decoder.long_prompts`.
    """

    visual_attention: VisualAttention = "block_causal"
    unconditional: Unconditional = "dropped_prompt"
    prompt_dropout: float = 0.1
    condition_dropout: ConditionDropout = "apart"
    text_loss: TextLoss = "answer"
    top_p: float = 0.95
    after_image: AfterImage = "continue"
    class_row: ClassRow = "null"
    cross_attention: CrossAttention = "learned"
    picture_multiple: int = 1
    seen_positions: SeenPositions = "grid"
    drawn_in_evaluation: bool = True
    correction_in_evaluation: bool = False
    drop_in_evaluation: bool = False
    scale_weighted: bool = True
    long_prompts: LongPrompts = "refuse"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            require_choice(name, getattr(self, name), get_args(choices))
        require(0.0 <= self.prompt_dropout <= 1.0, "prompt_dropout", self.prompt_dropout, "a number from 0 to 1")
        require(0.0 <= self.top_p <= 1.0, "top_p", self.top_p, "a number from 0 to 1")
        require(self.picture_multiple >= 1, "picture_multiple", self.picture_multiple, "1 or more")


_CHOICES: dict[str, Any] = {
    "visual_attention": VisualAttention,
    "unconditional": Unconditional,
    "condition_dropout": ConditionDropout,
    "text_loss": TextLoss,
    "after_image": AfterImage,
    "class_row": ClassRow,
    "cross_attention": CrossAttention,
    "seen_positions": SeenPositions,
    "long_prompts": LongPrompts,
}

DECODER_SETTINGS = ("drop_in_evaluation", "scale_weighted", "long_prompts")
"""The settings that are keys of the decoder's section."""

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
"""Settings of VARGPT by preset: the paper's, and those of the authors' released code."""

V1_1: dict[str, Settings] = {
    "paper": Settings(
        visual_attention="causal",
        condition_dropout="together",
        top_p=0.97,
        class_row="start_embedding",
        cross_attention="hidden",
        long_prompts="repeat",
    ),
    "official": Settings(
        visual_attention="causal",
        unconditional="present_scale",
        prompt_dropout=0.0,
        text_loss="every_id",
        top_p=0.97,
        after_image="stop",
        class_row="start_embedding",
        cross_attention="hidden",
        picture_multiple=128,
        seen_positions="plain",
        drawn_in_evaluation=False,
        correction_in_evaluation=True,
        drop_in_evaluation=True,
        scale_weighted=False,
    ),
}
"""Settings of the preset v1_1: as VARGPT-v1.1 and Infinity describe it, and as the authors' released code does it."""

PRESET_SAMPLING: dict[str, dict[str, Any]] = {
    # the released code's guidance 3 weighs logits with the prompt by 3 and without by -2
    "v1_1": {"cfg": 2.0, "cfg_schedule": "constant", "temperature": 0.5},
}
"""How drawings are sampled by preset, where it is not as `SamplingSettings` has it."""


def preset_settings(preset: str, published: str | None) -> Settings:
    """Return the settings of a preset; `published` says whose v1_1 is meant, None the paper's."""
    return V1_1[published or "paper"] if preset == "v1_1" else PRESETS[preset]


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
