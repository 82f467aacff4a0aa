"""What a part of a sampler is: arguments that say how, and hooks that do it in one drawing. Imports no torch.

Legend: R rows that draw, G those of them with guidance, N rows of the decoder (R, or R + G), l tokens of a scale,
V codebook, C code size or width, H heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.images import to_images
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vargpt_lightning.models.core.config import VARGPTConfig
    from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer

Branch = Literal["attention", "feed_forward"]


@dataclass(frozen=True)
class Facts:
    """What parts can be held against before anything is drawn.

    Attributes:
        shapes: height and width of the token maps.
        depth: blocks of the visual decoder.
        vocabulary: number of codes.
        cfg: guidance strength, 0 for none.
        cfg_schedule: how it grows.
        greedy: whether the likeliest codes are taken.
        bits: whether codes are bits, not indices.
    """

    shapes: tuple[tuple[int, int], ...]
    depth: int
    vocabulary: int
    cfg: float
    cfg_schedule: str = "linear"
    greedy: bool = False
    bits: bool = False

    @classmethod
    def of(cls, config: VARGPTConfig, cfg: float, cfg_schedule: str = "linear", greedy: bool = False) -> Facts:
        """Return the facts of a model by its configuration, and of its settings."""
        shapes = ScaleSchedule(tuple(config.tokenizer.scales)).shapes
        codes, bits = config.tokenizer.vocabulary, config.tokenizer.kind == "bits"
        return cls(shapes, config.decoder.depth, codes, cfg, cfg_schedule, greedy, bits)

    @property
    def scales(self) -> int:
        """How many there are."""
        return len(self.shapes)


class Step(Protocol):
    """A model that draws, as parts see it: logits of one scale after the other."""

    def logits(self, k: int, input_RlC: Tensor | None, second: bool) -> tuple[Tensor, Tensor | None]:
        """Return logits (R, l, V) of scale k, and those of the second half (G, l, V) where it is wanted."""

    def probe(self, k: int, input_RlC: Tensor) -> Tensor:
        """Return logits (R, l, V) of scale k for another input than it then gets; nothing of it is kept."""

    def drop_second(self) -> None:
        """Compute no second half from now on."""

    def read_second(self, ids: Sequence[int]) -> None:
        """Let the second half go on from these text tokens; before the first scale."""

    def second_values(self, k: int) -> list[Tensor]:
        """Return the decoder's cached values (G, H, l, D) of scale k in the second half, a view of each layer's."""

    def use_int8(self, blocks: int) -> None:
        """Let the first blocks of the decoder multiply with weights of 8 bits; before the first scale."""

    def regroup(self, rows: Sequence[int]) -> None:
        """Go on with these rows, by their places."""


@dataclass
class Scale:
    """How one scale is drawn: what `Hooks.before_scale` may change.

    Attributes:
        k: its number.
        input_RlC: what the picture is so far, at the size of this scale; None for the first.
        weights: guidance weight of each row.
        second: whether there is a second half; once there is none, there is none any more.
        step: the model that draws it.
        against: another model, whose logits stand in for the second half's.
        skipped: leave it out: the picture stays as it is.
    """

    k: int
    input_RlC: Tensor | None
    weights: list[float]
    second: bool
    step: Step
    against: Step | None = None
    skipped: bool = False


class Sources(Protocol):
    """Where parts get what no model holds: text as ids, other models, scorers of pictures."""

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a request with this text, up to where the answer begins."""

    def model(self, where: str) -> Any:
        """Return another model that draws with the same tokens; raises UserError where it cannot."""

    def scorer(self, name: str) -> Any:
        """Return a function from pictures and what was asked for to a number each, the larger the better."""


@dataclass(frozen=True)
class Drawing:
    """A drawing that is about to begin, for all its rows.

    Attributes:
        facts: of the model and of the settings.
        tokenizer: of the pictures.
        step: the model that draws.
        streams: random streams, one for each row.
        requests: what each row was asked for, as its last text.
        others: opens another model's step, which has read the same contexts.
        sources: text as ids, scorers.
        images: turns pictures in [-1, 1] into those that scorers see.
    """

    facts: Facts
    tokenizer: MultiScaleTokenizer
    step: Step
    streams: Sequence[torch.Generator]
    requests: Sequence[str]
    others: Any
    sources: Sources
    images: Any = to_images

    @property
    def last(self) -> int:
        """The number of the last scale."""
        return self.facts.scales - 1


class Kept(Protocol):
    """Tokens that a branch of a block is computed for, of all that it gets."""

    def take(self, x_NlC: Tensor) -> Tensor:
        """Return those tokens (N, n, C)."""

    def restore(self, y_NnC: Tensor) -> Tensor:
        """Return what the branch gave for them, filled up to all tokens (N, l, C)."""


class Hooks:
    """What a part does in one drawing; each hook does nothing unless a part has its own."""

    def before_scale(self, scale: Scale) -> None:
        """Change how a scale is drawn."""

    def logits(self, scale: Scale, cond_RlV: Tensor, second_GlV: Tensor | None, guided_RlV: Tensor) -> Tensor:
        """Return the logits that codes are drawn from, in place of the guided ones."""
        return guided_RlV

    def after_scale(self, scale: Scale, f_hat_RCHW: Tensor) -> list[int] | None:
        """Return the rows that go on, by their places, where these are not all in their order."""
        return None

    def tokens(self, layer: int, k: int, branch: Branch, x_NlC: Tensor) -> Kept | None:
        """Return the tokens that a block's branch is computed for, None for all."""
        return None

    def restored(self, layer: int, k: int, branch: Branch, y_NlC: Tensor) -> None:
        """Learn what a branch gave for all tokens."""

    def cache(self, layer: int, k: int, q_NHlD: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values (N, H, S, D) that a layer keeps after a scale has attended to them."""
        return keys, values

    def regroup(self, rows: Sequence[int]) -> None:
        """Follow the rows that go on; for parts that keep something of each row."""


class Part:
    """The arguments of a part; a subclass is a frozen dataclass whose types say what each may be.

    Attributes:
        name: its name.
        rank: parts of lower rank come first.
        excludes: names of parts that it does not go with.
        inside: whether it has hooks inside of the decoder (`tokens`, `cache`).
        indices_alone: whether it takes logits for those of one code each, which a model in bits has not.
    """

    name: ClassVar[str]
    rank: ClassVar[int] = 50
    excludes: ClassVar[tuple[str, ...]] = ()
    inside: ClassVar[bool] = False
    indices_alone: ClassVar[bool] = False

    @property
    def candidates(self) -> int:
        """Pictures that are drawn for each row, of which one goes on."""
        return 1

    def check(self, facts: Facts) -> None:
        """Make sure that it fits a model; raises UserError where it does not."""

    def idle(self, facts: Facts) -> str:
        """Return why it changes nothing on a model; an empty text where it does change something."""
        return ""

    def begin(self, drawing: Drawing) -> Hooks:
        """Return its hooks for one drawing."""
        return Hooks()


class PartModule(Protocol):
    """A file with a part."""

    NAME: str
    TITLE: str
    PART: type[Part]


UNGUIDED = "cfg is 0, so that there is no guidance"


def check_length(key: str, given: Sequence[Any], facts: Facts) -> None:
    """Raise UserError unless there is one value for each scale."""
    if len(given) != facts.scales:
        maps = ", ".join(f"{height} x {width}" for height, width in facts.shapes)
        expected = f"one for each of the {facts.scales} scales: {maps}"
        raise UserError(f"parts.{key}: got {len(given)} values, expected {expected}")
