"""Training on rewards of the model's own drawings: groups of drawings of one request, the better ones made likelier.

Legend: B requests, G drawings of each, Q = B G drawings, T tokens of a row, L visual tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.protocol import Sharding
from vargpt_lightning.models.core.losses import IGNORED
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings, Prompt
from vargpt_lightning.models.generation.generate import generate
from vargpt_lightning.modules.base import Batch, samples_of
from vargpt_lightning.modules.preferences.grpo_loss import advantages, grpo_terms
from vargpt_lightning.modules.step_counts import DRAWN_KEYS, SEEN_KEYS
from vargpt_lightning.modules.unified import UnifiedModule
from vargpt_lightning.recipe.grpo import GRPOSettings
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError

Reward = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[float]]
"""From drawings and what each was asked for to a number each, the larger the better."""
ANY = SamplingSettings(top_k=0, top_p=0.0, cfg=0.0, temperature=1.0)
"""The policy itself: nothing is cut off, and nothing guides it."""
DRAWN_TOGETHER = 64


@dataclass
class Drawn:
    """Drawings of a batch, their advantages (Q,), and the log-probabilities (Q, L) under the policy that drew them.

    `drawn_QL` is None until they are computed; `figures` are those of the rewards, for the log; `size` says which of
    the model's sizes they have.
    """

    rows: dict[str, Tensor]
    advantages_Q: Tensor
    figures: dict[str, float]
    drawn_QL: Tensor | None = None
    size: int = 0

    def to(self, device: torch.device) -> Drawn:
        """Return the same on a device; what is planned stays where it is."""
        rows = {name: value if device.type == "meta" else value.to(device) for name, value in self.rows.items()}
        held = None if self.drawn_QL is None else self.drawn_QL.to(device)
        return Drawn(rows, self.advantages_Q.to(device), self.figures, held, self.size)


class GRPOModule(UnifiedModule):
    """Group relative policy optimization (see `grpo_loss`) of drawings; the words of requests and answers stay.

    Each row of a batch is a request, up to where its picture begins. The model draws `group` pictures of it without
    guidance, a reward scores them, and what was drawn better than the others becomes likelier. Groups whose rewards are
    all the same train nothing, and are counted. The reference is the model as the module was given it: a copy is kept
    of what the stage trains. Dropout is off.

    A drawing's random stream follows from the step and from the request's place in the batch of all processes.

    Attributes:
        scorers: finds a reward by its name; whoever makes the module sets it.

    Raises:
        UserError: the stage has no settings of `grpo`, or more scales than the model.
    """

    scorers: Callable[[str], Reward] | None = None

    def __init__(self, vargpt: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> None:
        super().__init__(vargpt, stage, total_steps, **more)
        if stage.grpo is None:
            raise UserError(
                f"stages.{stage.name}.grpo: head grpo without settings; expected a reward, such as composition"
            )
        self.settings: GRPOSettings = stage.grpo
        scales = vargpt.schedule.num_scales
        if self.settings.scales is not None and self.settings.scales > scales:
            raise UserError(
                f"stages.{stage.name}.grpo.scales={self.settings.scales}; expected at most {scales}, the model's"
            )
        # in a list, so that it is no submodule, and no part of a checkpoint
        self._reference = [_frozen_copy(vargpt, stage)] if self.settings.kl else []
        self._kept: dict[int, Drawn] = {}
        self._found: Reward | None = None

    @property
    def reference(self) -> VARGPT | None:
        """The frozen model that divergences are measured from; None where `kl` is 0."""
        return self._reference[0] if self._reference else None

    def mean_names(self) -> list[str]:
        return ["reward", "reward_spread", "groups_alike", "kl", "clipped"]

    def on_fit_start(self) -> None:
        """Look for the reward, and bring the reference to the device.

        Raises:
            UserError: the weights are spread over processes, which cannot draw so.
        """
        if isinstance(self.trainer.strategy, Sharding):
            raise UserError(
                f"stages.{self.stage.name}.head=grpo draws with whole weights; expected trainer.strategy single or ddp"
            )
        if self.reference is not None:
            self.reference.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the drawings that further steps train on."""
        super().on_save_checkpoint(checkpoint)
        if self.settings.updates > 1:
            kept = {part: vars(drawn.to(torch.device("cpu"))) for part, drawn in self._kept.items()}
            checkpoint["grpo"] = Processes(self.trainer.global_rank, self.trainer.world_size).gather(kept)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take these drawings up; with another number of processes new ones are drawn."""
        super().on_load_checkpoint(checkpoint)
        every = checkpoint.get("grpo", [])
        if len(every) == self.trainer.world_size:
            self._kept = {part: Drawn(**value) for part, value in every[self.trainer.global_rank].items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.vargpt.eval()  # a dropped unit would be noise in the ratio
        part = batch_idx % self.stage.accumulate
        if self.stage_step % self.settings.updates == 0 or part not in self._kept:
            self._kept[part] = self._draw(batch)
        drawn = self._kept[part].to(self._place)
        now_QL = self._log_probabilities(self.vargpt, drawn)
        if drawn.drawn_QL is None:
            drawn.drawn_QL = now_QL.detach()
        self._kept[part] = drawn
        reference_QL = None
        if self.reference is not None:
            with torch.no_grad():
                reference_QL = self._log_probabilities(self.reference, drawn)
        terms = grpo_terms(
            now_QL,
            drawn.drawn_QL,
            reference_QL,
            drawn.advantages_Q,
            self.settings.clip,
            self.settings.kl,
            self._trained(drawn.size),
        )
        told_B = (drawn.advantages_Q.view(-1, self.settings.group) != 0).any(dim=1)  # of a group without variance not
        loss_B = terms.loss_Q.view(-1, self.settings.group).mean(dim=1) * told_B.to(now_QL)
        self._log(batch, drawn, terms.kl_Q, terms.clipped_Q)
        share = self.share_of(batch)
        own = share.own.rows if share else samples_of(batch)
        factor = share.parts / max(1, share.step.rows) if share else 1 / max(1, own)
        return loss_B[:own].sum() * factor if own else loss_B.sum() * 0

    @property
    def _place(self) -> torch.device:
        """Where the weights are."""
        return next(self.vargpt.visual_decoder.parameters()).device

    @torch.no_grad()
    def _draw(self, batch: Batch) -> Drawn:
        """Draw a group for each row, score it, and return what is trained on."""
        group, ids_BT = self.settings.group, batch["input_ids"]
        own = self._own_rows(batch)
        self._check_rows(batch, own)
        rows = {name: batch[name].repeat_interleave(group, dim=0) for name in ("input_ids", "attention_mask")}
        rows["labels"] = torch.full_like(rows["input_ids"], IGNORED)
        sized = self.vargpt.of(batch)
        if self._place.type == "meta":  # planned, not trained
            shape = (len(rows["input_ids"]), *sized.image_tokenizer.code_shape)
            rows["drawn_indices"] = torch.zeros(shape, dtype=torch.long, device=self._place)
            return Drawn(rows, torch.ones(shape[0], device=self._place), {}, size=sized.size)
        prompts = self._prompts(batch)
        settings = GenerationSettings(
            visual=ANY, max_images=1, max_new_tokens=1, batch_size=DRAWN_TOGETHER, size=sized.size
        )
        pictures = [answer.pictures[0] for answer in generate(self.vargpt, prompts, lambda ids: "", settings)]
        self.vargpt.eval()
        rows["drawn_indices"] = torch.stack([each.indices for each in pictures]).to(ids_BT.device)
        requests = [request for request in batch["rows"].requests for _ in range(group)]
        rewards_BG = self._rewards([each.image for each in pictures[: own * group]], requests).view(-1, group)
        gained_BG = advantages(rewards_BG).float().to(ids_BT.device)
        idle_Q = torch.zeros((len(ids_BT) - own) * group, device=ids_BT.device)
        alike = int((gained_BG == 0).all(dim=1).sum())
        figures = {"reward": float(rewards_BG.mean()), "groups_alike": alike / max(1, own)} if own else {}
        figures |= {"reward_spread": float(rewards_BG.std(dim=1).mean())} if own else {}
        return Drawn(rows, torch.cat((gained_BG.flatten(), idle_Q)), figures, size=sized.size)

    def _prompts(self, batch: Batch) -> list[Prompt]:
        """The rows up to where the picture begins, each as often as it is drawn."""
        share = self.share_of(batch)
        first = share.before.rows if share else 0
        start, seed = self.vargpt.tokens.image_gen_start, self._row_seed + self.stage_step
        found = []
        for row, ids_T in enumerate(batch["input_ids"].tolist()):
            context = ids_T[: ids_T.index(start) + 1]
            streams = range((first + row) * self.settings.group, (first + row + 1) * self.settings.group)
            found += [Prompt(context, row=number, seed=seed % 2**63) for number in streams]
        return found

    def _rewards(self, pictures: Sequence[Image.Image], requests: Sequence[str]) -> Tensor:
        """What the reward gives for drawings, (Q,) float64.

        Raises:
            UserError: there is none, or it gives what is no number.
        """
        name, where = self.settings.reward, f"stages.{self.stage.name}.grpo.reward"
        if self._found is None:
            if self.scorers is None:
                raise UserError(f"{where}={name!r}: nobody finds rewards; expected `scorers` of the module to be set")
            self._found = self.scorers(name)
        scores: list[float] = []
        for begin in range(0, len(pictures), self.settings.reward_batch):
            some = slice(begin, begin + self.settings.reward_batch)
            scores += [float(score) for score in self._found(pictures[some], requests[some])]
        if len(scores) != len(pictures):
            raise UserError(
                f"{where}={name!r}: got {len(scores)} numbers for {len(pictures)} drawings; expected as many"
            )
        for score, request in zip(scores, requests, strict=False):
            if not math.isfinite(score):
                raise UserError(f"{where}={name!r}: got {score} for {request!r}; expected a number")
        return torch.tensor(scores, dtype=torch.float64)

    def _log_probabilities(self, model: VARGPT, drawn: Drawn) -> Tensor:
        """The log-probability of each visual token, (Q, L)."""
        ids_QT = drawn.rows["input_ids"]
        hidden_Q = torch.zeros(len(ids_QT), dtype=torch.bool, device=ids_QT.device)
        batch = {**drawn.rows, "size": drawn.size}
        found = model(batch, log_probabilities=True, hidden_Q=hidden_Q).log_probabilities
        return cast(Tensor, found.image_QL)

    def _trained(self, size: int) -> Tensor | None:
        """Which visual tokens of a size count, (L,); None for all."""
        if self.settings.scales is None:
            return None
        schedule = self.vargpt.at(size).schedule
        trained_L = torch.zeros(schedule.num_tokens, dtype=torch.bool, device=self._place)
        trained_L[: schedule.slices[self.settings.scales - 1].stop] = True
        return trained_L

    def _own_rows(self, batch: Batch) -> int:
        share = self.share_of(batch)
        return share.own.rows if share else samples_of(batch)

    def _check_rows(self, batch: Batch, own: int) -> None:
        """Make sure that each row is a request for one drawing.

        Raises:
            UserError: one is not.
        """
        where = f"stages.{self.stage.name}.data: head grpo"
        if any(batch.get(name) is not None for name in SEEN_KEYS):
            raise UserError(f"{where} draws for requests in words; expected no record with a picture that is seen")
        starts_B = (batch["input_ids"][:own] == self.vargpt.tokens.image_gen_start).sum(dim=1)
        pictures = next((len(batch[name]) for name in DRAWN_KEYS if batch.get(name) is not None), 0)
        if pictures and (starts_B == 1).all() and "segment_ids" not in batch:
            return
        raise UserError(
            f"{where} draws one picture for each record; expected records with one drawing, in rows of their own"
        )

    def _log(self, batch: Batch, drawn: Drawn, kl_Q: Tensor, clipped_Q: Tensor) -> None:
        own = self._own_rows(batch) * self.settings.group
        self.last_counts = {
            "text_tokens": 0,
            "image_tokens": drawn.rows["drawn_indices"].shape[1] * own,
            "samples": own,
        }
        values: dict[str, Tensor | float | None] = dict(drawn.figures)
        if own:
            apart = None if self.reference is None else kl_Q[:own].mean()
            values |= {"kl": apart, "clipped": clipped_Q[:own].mean()}
        self.log_losses(values, "train", self._own_rows(batch))


def _frozen_copy(model: VARGPT, stage: Stage) -> VARGPT:
    """A copy of a model that shares what the stage does not train."""
    copied = copied_parts(model, stage)
    shared = {id(module): module for module in model.children() if module not in copied}
    return copy.deepcopy(model, shared).eval().requires_grad_(False)


def copied_parts(model: VARGPT, stage: Stage) -> list[nn.Module]:
    """Return the parts of a model that the reference has copies of: those that the stage trains."""
    trained = {attribute for name in stage.train for attribute in SUBMODULES[name]}
    return [module for name, module in model.named_children() if name in trained]
