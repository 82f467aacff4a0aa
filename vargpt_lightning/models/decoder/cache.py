"""What the visual decoder keeps of a drawing: keys, values and modulations, plain or with hooks into them.

Shapes: B rows, H heads, L tokens, D head dimension, C width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vargpt_lightning.models.decoder.attention import LayerCache
from vargpt_lightning.models.parts.base import Branch, Hooks, Kept

Rows = slice | Sequence[int]


class DecoderCache:
    """Keys, values and modulations of one generation; usable again from scale 0.

    Attributes:
        length: tokens that were given to it, of all scales so far.
        k: the scale that is computed.
    """

    def __init__(self, layers: Sequence[LayerCache], length: int = 0, head_modulation: Tensor | None = None) -> None:
        self.layers, self.length, self.head_modulation = list(layers), length, head_modulation
        self.k = 0

    @classmethod
    def empty(
        cls, depth: int, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device
    ) -> DecoderCache:
        """Return a cache with room for all tokens, allocated once and written in place."""
        return cls([
            LayerCache(torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device))
            for _ in range(depth)
        ])  # fmt: skip

    @classmethod
    def hooked(cls, depth: int, hooks: Sequence[Hooks]) -> DecoderCache:
        """Return a cache that grows with what is kept, and asks hooks what that is."""
        made = cls([])
        made.layers = [HookedCache(made, layer, hooks) for layer in range(depth)]
        return made

    def of(self, rows: Rows) -> DecoderCache:
        """Return the cache of some rows: for a slice a view of this one, otherwise a copy."""
        modulation = None if self.head_modulation is None else self.head_modulation[rows]
        made = DecoderCache([layer.of(rows) for layer in self.layers], self.length, modulation)
        for layer in made.layers:
            if isinstance(layer, HookedCache):
                layer.whole = made
        return made


class HookedCache(LayerCache):
    """A layer's keys and values as far as hooks keep them."""

    def __init__(self, whole: DecoderCache, layer: int, hooks: Sequence[Hooks]) -> None:
        super().__init__(torch.empty(0), torch.empty(0))
        self.whole, self.layer, self.hooks = whole, layer, hooks

    def extend(self, span: slice, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        """Put one scale's keys and values behind the others, and return all."""
        if span.start == 0:
            self.keys_BHLD, self.values_BHLD = k_BHLD, v_BHLD
        else:
            self.keys_BHLD = torch.cat((self.keys_BHLD, k_BHLD), dim=2)
            self.values_BHLD = torch.cat((self.values_BHLD, v_BHLD), dim=2)
        return self.keys_BHLD, self.values_BHLD

    def of(self, rows: Rows) -> LayerCache:
        """Return the cache of some rows."""
        made = HookedCache(self.whole, self.layer, self.hooks)
        made.keys_BHLD, made.values_BHLD = self.keys_BHLD[rows], self.values_BHLD[rows]
        made.modulation_B16C = None if self.modulation_B16C is None else self.modulation_B16C[rows]
        return made

    def attended(self, q_BHLD: Tensor) -> None:
        """Let hooks choose what is kept, now that a scale has attended."""
        for hook in self.hooks:
            found = hook.cache(self.layer, self.whole.k, q_BHLD, self.keys_BHLD, self.values_BHLD)
            self.keys_BHLD, self.values_BHLD = found

    def kept(self, branch: Branch, x_BLC: Tensor) -> Kept | None:
        """Return the tokens that the first hook with a choice keeps."""
        found = (hook.tokens(self.layer, self.whole.k, branch, x_BLC) for hook in self.hooks)
        return next((each for each in found if each is not None), None)

    def restored(self, branch: Branch, y_BLC: Tensor) -> None:
        """Tell the hooks what a branch gave."""
        for hook in self.hooks:
            hook.restored(self.layer, self.whole.k, branch, y_BLC)
