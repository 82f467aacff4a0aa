"""How much of its codes an image tokenizer uses in training: rows for the log, and a warning of a collapse.

Legend: S scales, D bits of a token.
"""

from __future__ import annotations

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.modules.metrics import CodebookUsage

COLLAPSED_BELOW = 1.0
"""Percent of a scale's codes in use, or of the entropy that a bit could have."""
MOST_IDLE_BITS = 0.75
"""The share of a scale's bits that may be without use."""


class CodeUsage(nn.Module):
    """What is logged of the codes, by name; a scale whose codes collapse is warned of, once.

    Of indices: for each scale the percentage of codes in use. Of bits, since the last time: for each scale the mean
    entropy of its bits, and for each bit that over all scales; 100 percent is a bit that is 1 half of the time.
    """

    def __init__(self, tokenizer: ImageTokenizer | BitTokenizer) -> None:
        super().__init__()
        self.indices = CodebookUsage(tokenizer.schedule.num_scales)
        self._warned: set[int] = set()

    def values(self, tokenizer: ImageTokenizer | BitTokenizer) -> dict[str, float]:
        """Return percentages by name."""
        return self._of_bits(tokenizer) if isinstance(tokenizer, BitTokenizer) else self._of_indices(tokenizer)

    def _of_indices(self, tokenizer: ImageTokenizer) -> dict[str, float]:
        self.indices.update(tokenizer.quantize.codes_in_use())
        percents = self.indices.compute().tolist()
        self.indices.reset()
        for k, percent in enumerate(percents):
            if percent < COLLAPSED_BELOW:
                wrong = f"uses {percent:.1f} % of the codes; its codebook has collapsed or is too large for the data"
                self._warn(tokenizer, k, wrong)
        return {f"codebook_usage_scale_{k + 1}": percent for k, percent in enumerate(percents)}

    def _of_bits(self, tokenizer: BitTokenizer) -> dict[str, float]:
        used_SD = tokenizer.usage.used_SD().cpu()
        tokenizer.usage.reset()
        for k, idle in enumerate((used_SD < COLLAPSED_BELOW).sum(1).tolist()):
            if idle > MOST_IDLE_BITS * used_SD.shape[1]:
                wrong = f"has the same value in {idle} of its {used_SD.shape[1]} bits nearly always"
                self._warn(tokenizer, k, f"{wrong}; a larger tokenizer.entropy_weight may help")
        scales, bits = used_SD.mean(1).tolist(), used_SD.mean(0).tolist()
        named = {f"bit_usage_scale_{k + 1}": percent for k, percent in enumerate(scales)}
        return named | {f"bit_usage_bit_{bit}": percent for bit, percent in enumerate(bits)}

    def _warn(self, tokenizer: ImageTokenizer | BitTokenizer, k: int, wrong: str) -> None:
        if k not in self._warned:
            self._warned.add(k)
            height, width = tokenizer.schedule.shapes[k]
            rank_zero_warn(f"image tokenizer: scale {k + 1} ({height}x{width}) {wrong}")
