"""Whether the settings of drawing act: what must change a drawing does, and what must not does not.

Guided logits are compared, and codes: an untrained model's logits differ where its codes hardly do.

Legend: L visual tokens of all scales, l those of the first, V codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.doctor.findings import Check, Fault, Noteworthy
from vargpt_lightning.models.core.exact import exact_buffers
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings, Prompt
from vargpt_lightning.models.generation.generate import generate

PART = "drawings"
SAME = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far logits of the same question may be apart, relative to the largest: other batches round otherwise."""
MANY_ROWS = 4


@dataclass
class Drawn:
    """Codes (L,) of a drawing and the guided logits (L, V) that they were drawn from."""

    codes: Tensor
    logits: Tensor


@dataclass
class Subject:
    """A model to look at, and how it draws.

    Args:
        model: in evaluation mode, on its device.
        prompts: token ids of two different requests, and of next to none; drawing follows at once.
        sampling: the run's or experiment's own.
        dtype: that its weights must have; None: whichever they have.
    """

    model: VARGPT
    prompts: Sequence[Sequence[int]]
    sampling: SamplingSettings
    dtype: torch.dtype | None = None

    def draw(self, rows: Sequence[tuple[int, int]], seed: int = 0, **changes: Any) -> list[Drawn]:
        """Draw in one batch.

        Args:
            rows: (which prompt, number of its random stream), a drawing each.
            changes: of the sampling settings.
        """
        visual = replace(self.sampling, **changes)
        start = self.model.config.tokens.image_gen_start
        prompts = [Prompt([*self.prompts[number], start], row=row, seed=seed) for number, row in rows]
        settings = GenerationSettings(
            max_new_tokens=1, max_images=1, visual=visual, keep_logits=True, batch_size=len(rows)
        )
        found = []
        for answer in generate(self.model, prompts, lambda ids: "", settings):
            picture = answer.pictures[0]
            assert picture.logits is not None
            found.append(Drawn(picture.indices, picture.logits.float()))
        return found

    @property
    def tolerance(self) -> float:
        """How far rounding may take logits apart, relative to the largest."""
        return SAME.get(next(self.model.parameters()).dtype, SAME[torch.bfloat16])


def drawing_checks(subject: Subject) -> Iterator[Check]:
    """The checks of a model's drawings."""
    yield Check(PART, "types of weights", partial(types, subject))
    yield Check(PART, "the same seed twice", partial(same_seed, subject))
    yield Check(PART, "another batch", partial(other_batch, subject))
    yield Check(PART, "another seed", partial(other_seed, subject))
    yield Check(PART, "with and without the prompt", partial(prompt_acts, subject))
    yield Check(PART, "with and without guidance", partial(guidance_acts, subject))
    yield Check(PART, "top-k and temperature", partial(filters_act, subject))


def types(subject: Subject) -> str:
    """All weights have one type, the expected one; what must stay in 32 bits does; drawing gives finite logits."""
    model = subject.model
    found = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    wanted = subject.dtype or next(model.parameters()).dtype
    if found != {wanted}:
        names = [name for name, each in model.named_parameters() if each.dtype != wanted and each.is_floating_point()]
        raise Fault(f"weights are {_names(found)}, expected {_names({wanted})}, such as {names[0]}")
    buffers = dict(model.named_buffers())
    kept = [name for name in exact_buffers(model) if name in buffers and buffers[name].is_floating_point()]
    if wrong := [name for name in kept if buffers[name].dtype not in (torch.float32, torch.float64)]:
        raise Fault(f"{wrong[0]} is {_names({buffers[wrong[0]].dtype})}, expected float32 whatever the weights are")
    (drawn,) = subject.draw([(0, 0)])
    if not bool(drawn.logits.isfinite().all()):
        raise Fault("logits of a drawing are no numbers")
    return f"weights are {_names(found)}, {len(kept)} buffers stay in 32 bits"


def _names(dtypes: set[torch.dtype]) -> str:
    return " and ".join(sorted(str(each).removeprefix("torch.") for each in dtypes))


def same_seed(subject: Subject) -> str:
    """One drawing made twice is the same."""
    (first,), (second,) = subject.draw([(0, 0)]), subject.draw([(0, 0)])
    if not torch.equal(first.codes, second.codes):
        raise Fault(f"{_changed(first, second)} between two drawings of one prompt and seed; expected none")
    return "equal, code by code"


def other_batch(subject: Subject) -> str:
    """A drawing among others is the one that it is alone."""
    (alone,) = subject.draw([(0, 0)])
    among = subject.draw([(1, 1), (0, 0), (1, 2), (0, 3)])[1]
    apart = _apart(alone, among, _first_scale(subject))
    if apart > subject.tolerance:
        raise Fault(f"logits of a drawing move by {apart:.1e} in another batch; expected at most {subject.tolerance}")
    if torch.equal(alone.codes, among.codes):
        return f"equal, code by code; logits within {apart:.0e}"
    place = int((alone.codes != among.codes).nonzero()[0])
    there = _apart(alone, among, slice(place, place + 1))
    if there > subject.tolerance:
        raise Fault(f"code {place} of a drawing is another one in another batch, its logits by {there:.1e}")
    return Noteworthy(f"code {place} was a near tie (logits within {there:.0e}) and fell otherwise, with what follows")


def other_seed(subject: Subject) -> str:
    """Another seed, and another row, are other drawings."""
    free: dict[str, Any] = {"greedy": False, "temperature": 1.0, "top_k": 0, "top_p": 0.0}
    rows = [(0, row) for row in range(MANY_ROWS)]
    drawn = subject.draw(rows, **free)
    changed = subject.draw(rows, seed=1, **free)
    if all(torch.equal(one.codes, other.codes) for one, other in zip(drawn, changed, strict=True)):
        raise Fault(f"{MANY_ROWS} drawings with the seeds 0 and 1 are the same; expected others")
    if all(torch.equal(drawn[0].codes, other.codes) for other in drawn[1:]):
        raise Fault(f"{MANY_ROWS} drawings of one prompt in one batch are the same; expected a random stream of each")
    said = f"{_changed(drawn[0], changed[0])} change with the seed"
    return (
        Noteworthy(f"{said}; greedy sampling is set, for which seeds mean nothing") if subject.sampling.greedy else said
    )


def prompt_acts(subject: Subject) -> str:
    """Another prompt, and next to none, are other logits from the first scale on."""
    asked, other, nothing = subject.draw([(0, 0), (1, 0), (2, 0)], cfg=0.0)
    _must_move("leaving the prompt out", asked, nothing, subject)
    return _must_move("another prompt", asked, other, subject)


def guidance_acts(subject: Subject) -> str:
    """Guided logits are (1 + t) with the prompt less t without: they move with the strength, in proportion to it."""
    draws = [subject.draw([(0, 0)], cfg=cfg, cfg_schedule="constant")[0] for cfg in (0.0, 1.0, 2.0)]
    said = _must_move("guidance", draws[0], draws[1], subject)
    first = _first_scale(subject)
    plain, once, twice = (drawn.logits[first] for drawn in draws)
    bent = float((twice - plain - 2 * (once - plain)).abs().max())
    size = float((twice - plain).abs().max())
    if bent > max(0.01 * size, 4 * subject.tolerance * float(plain.abs().max())):
        raise Fault(
            f"guidance of 2 does not move logits twice as far as guidance of 1: off by {bent:.1e} of {size:.1e}"
        )
    own = subject.sampling.cfg
    return said if own else Noteworthy(f"{said}; it is off in these settings (cfg 0)")


def filters_act(subject: Subject) -> str:
    """With top_k 1, and with a temperature near zero, the likeliest code is drawn."""
    plain: dict[str, Any] = {"greedy": False, "smooth": False, "sampler": "default"}
    ways: dict[str, dict[str, Any]] = {"top_k 1": {"top_k": 1}, "temperature 0.0001": {"temperature": 1e-4, "top_k": 0}}
    for name, changes in ways.items():
        (drawn,) = subject.draw([(0, 0)], **plain, **changes)
        gap_L = drawn.logits.max(dim=-1).values - drawn.logits.gather(1, drawn.codes[:, None])[:, 0]
        if float(gap_L.max()) > 0.01:
            raise Fault(f"{name}: a code was drawn whose logit is {float(gap_L.max()):.2g} below the largest")
    return "the likeliest code is drawn"


def _must_move(what: str, one: Drawn, other: Drawn, subject: Subject) -> str:
    """Say how far logits of the first scale are apart, more than rounding takes them."""
    apart = _apart(one, other, _first_scale(subject))
    if apart <= noise(subject):
        raise Fault(f"{what} changes nothing: logits move by {apart:.1e} of the largest; expected more")
    return f"logits move by {apart:.1e} of the largest, {_changed(one, other)} change"


def noise(subject: Subject) -> float:
    """How far the logits of one drawing are apart by rounding alone, ten times over, in batches of one and of four."""
    (alone,) = subject.draw([(0, 0)], cfg=0.0)
    among = subject.draw([(0, 0), (1, 1), (1, 2), (0, 3)], cfg=0.0)[0]
    return 10 * max(_apart(alone, among, _first_scale(subject)), torch.finfo(torch.float32).eps)


def _first_scale(subject: Subject) -> slice:
    return subject.model.schedule.slices[0]


def _apart(one: Drawn, other: Drawn, part: slice) -> float:
    """The largest difference of logits, relative to the largest."""
    size = float(one.logits[part].abs().max()) or 1.0
    return float((one.logits[part] - other.logits[part]).abs().max()) / size


def _changed(one: Drawn, other: Drawn) -> str:
    return f"{int((one.codes != other.codes).sum())} of {len(one.codes)} codes"
