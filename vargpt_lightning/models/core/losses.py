"""What a forward pass gives: cross-entropy of text tokens and of visual tokens, each with its counts, and the
log-probabilities of what answers say and draw.

Legend: B batch, T text+image sequence, M trained text positions, Q drawn pictures, L visual tokens, K scales,
V codebook, C width, D numbers of a visual token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vargpt_lightning.models.core.head_loss import by_chunks, head_loss
from vargpt_lightning.models.core.scales import ScaleSchedule

IGNORED = -100


@dataclass(frozen=True)
class LogProbabilities:
    """Of each token of a batch's answers, given all that stands before it; no temperature, no guidance.

    Attributes:
        text_BT: (B, T) float32 of text tokens; 0 where none is trained.
        trained_BT: where one is.
        image_QL: (Q, L) float32 of visual tokens, the sum over a token's bits; None where nothing is drawn.
        rows_Q: in which row each picture is drawn.
        numbers: numbers of a visual token: 1 index, or D bits.
    """

    text_BT: Tensor
    trained_BT: Tensor
    image_QL: Tensor | None = None
    rows_Q: Tensor | None = None
    numbers: int = 1

    def of_answers(self, mean: bool = False) -> Tensor:
        """Return what the answers of each row have together, their text and their pictures: (B,) float64.

        Args:
            mean: of text tokens and numbers of visual tokens, rather than their sum.
        """
        summed_B, count_B = self.text_BT.double().sum(1), self.trained_BT.sum(1)
        if self.image_QL is not None:
            summed_B = summed_B + self.of_drawings()
            count_B = count_B + self._numbers()
        return summed_B / count_B.clamp_min(1) if mean else summed_B

    def of_drawings(self, mean: bool = False) -> Tensor:
        """Return what the pictures of each row have together, 0 in a row without one: (B,) float64."""
        summed_B = self.text_BT.new_zeros(len(self.text_BT), dtype=torch.float64)
        if self.image_QL is None or self.rows_Q is None:
            return summed_B
        summed_B = summed_B.index_add(0, self.rows_Q, self.image_QL.double().sum(1))
        return summed_B / self._numbers().clamp_min(1) if mean else summed_B

    def _numbers(self) -> Tensor:
        """How many numbers the pictures of each row have: (B,)."""
        assert self.image_QL is not None and self.rows_Q is not None
        each = self.image_QL.shape[1] * self.numbers
        return torch.bincount(self.rows_Q, minlength=len(self.text_BT)) * each


@dataclass
class VARGPTOutput:
    """What a forward pass gives; a loss is None when the batch trains nothing of its kind.

    Attributes:
        text_loss, image_loss: means over the trained tokens.
        text_tokens, image_tokens: how many there are.
        text_correct, image_correct: how many of them the argmax gets right.
        image_loss_per_scale: (K,) mean image loss of each scale, detached.
        image_logits: (Q, L, V).
        image_indices: (Q, L), the targets.
        text_logits: (B, T, vocabulary), only when asked for.
        log_probabilities: of each token of the answers, only when asked for.
        schedule: that of the pictures.
    """

    text_loss: Tensor | None = None
    image_loss: Tensor | None = None
    text_tokens: Tensor | int = 0
    image_tokens: Tensor | int = 0
    text_correct: Tensor | int = 0
    image_correct: Tensor | int = 0
    image_loss_per_scale: Tensor | None = None
    image_logits: Tensor | None = None
    image_indices: Tensor | None = None
    text_logits: Tensor | None = None
    log_probabilities: LogProbabilities | None = None
    schedule: ScaleSchedule | None = None

    @property
    def loss(self) -> Tensor | None:
        """The sum of the losses that there are (VARGPT, section 3.3)."""
        present = [loss for loss in (self.text_loss, self.image_loss) if loss is not None]
        return torch.stack(present).sum() if present else None


class TextLoss(NamedTuple):
    """Mean loss over the trained tokens (None when there is none), their number, and how many the argmax gets right."""

    loss: Tensor | None
    tokens: Tensor
    correct: Tensor


class ImageLoss(NamedTuple):
    """Mean loss over visual tokens, their number, how many the argmax gets right, and the mean loss of each scale."""

    loss: Tensor
    tokens: Tensor
    correct: Tensor
    per_scale_K: Tensor


def text_loss(hidden_BTC: Tensor, labels_BT: Tensor, head: nn.Module) -> TextLoss:
    """Return the next-token loss: position i predicts label i+1.

    The head is applied to the positions whose successor is trained and to no other: a vocabulary's logits for a whole
    batch with its visual tokens are the largest tensor there is. Where they are many all the same they are computed in
    chunks.
    """
    targets_BT = labels_BT[:, 1:]
    trained_BT = targets_BT != IGNORED
    targets_M = targets_BT[trained_BT]
    tokens = torch.tensor(targets_M.numel(), device=targets_M.device)
    if targets_M.numel() == 0:
        return TextLoss(None, tokens, torch.zeros_like(tokens))
    hidden_MC = hidden_BTC[:, :-1][trained_BT]
    if by_chunks(head, hidden_MC):
        loss, correct = head_loss(hidden_MC, head.weight, targets_M)
        return TextLoss(loss, tokens, correct)
    logits_MV = head(hidden_MC).float()
    correct = (logits_MV.detach().argmax(-1) == targets_M).sum()
    return TextLoss(F.cross_entropy(logits_MV, targets_M), tokens, correct)


def text_log_probabilities(hidden_BTC: Tensor, labels_BT: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each trained token (B, T), 0 elsewhere, and where one is trained.

    As in the loss, position i predicts label i + 1, and the head is applied to no other positions.
    """
    trained_BT = F.pad(labels_BT[:, 1:] != IGNORED, (1, 0))
    logits_MV = head(hidden_BTC[:, :-1][trained_BT[:, 1:]]).float()
    found_M = -F.cross_entropy(logits_MV, labels_BT[trained_BT], reduction="none")
    text_BT = found_M.new_zeros(labels_BT.shape)
    text_BT[trained_BT] = found_M
    return text_BT, trained_BT


def token_losses(logits_QLV: Tensor, indices_QL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return each visual token's loss (Q, L); over flat rows, where the kernel is three times faster on CPU."""
    flat_NV, indices_N = logits_QLV.float().flatten(0, 1), indices_QL.flatten()
    losses_N = F.cross_entropy(flat_NV, indices_N, reduction="none", label_smoothing=label_smoothing)
    return losses_N.view(indices_QL.shape)


def image_loss(logits_QLV: Tensor, indices_QL: Tensor, schedule: ScaleSchedule) -> ImageLoss:
    """Return the loss of visual tokens: a position predicts its own token, there is no shift (VAR, section 3.2)."""
    losses_QL = token_losses(logits_QLV, indices_QL)
    correct = (logits_QLV.detach().argmax(-1) == indices_QL).sum()
    per_scale_K = torch.stack([losses_QL.detach()[:, part].mean() for part in schedule.slices])
    tokens = torch.tensor(indices_QL.numel(), device=indices_QL.device)
    return ImageLoss(losses_QL.mean(), tokens, correct, per_scale_K)
