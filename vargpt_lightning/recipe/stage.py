"""A stage as data: what it trains, on what, for how long and how. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from vargpt_lightning.data.mixing.spec import MixBy, MixtureSpec
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.recipe.grpo import GRPOSettings
from vargpt_lightning.recipe.heads import PREFERENCES, check_head
from vargpt_lightning.recipe.preferences import CcaSettings, DpoSettings, WatchSettings
from vargpt_lightning.utils.class_paths import arguments_of, installed_module
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.files import settings_hash
from vargpt_lightning.utils.names import check_name
from vargpt_lightning.utils.ranges import Count, Factor, Range, Ranged, Rate, Share, Size, check_numbers

LearningRate = Annotated[float, Range(0, 100)]
Steps = Annotated[float, Range(0, 10**12)]
"""Steps of a stage: below 1 a share of them."""


@dataclass
class OptimizerConfig(Ranged):
    """The optimizer of a stage.

    Args:
        name: "adamw", or "muon": torch's Muon for the matrices of the blocks, and AdamW for everything else.
        lr: peak learning rate (of AdamW).
        muon_lr: peak learning rate of Muon; None uses `lr`. Updates are scaled to the size of AdamW's.
        weight_decay: decoupled weight decay, applied only to matrices, not to biases, norm weights or embeddings.
        betas: AdamW's two betas.
        clip: largest gradient norm; 0 does not clip.
    """

    place: ClassVar[str] = "optimizer"

    name: Literal["adamw", "muon"] = "adamw"
    lr: LearningRate = 1e-4
    muon_lr: LearningRate | None = None
    weight_decay: Annotated[float, Range(0, 1000)] = 0.0
    betas: tuple[Rate, Rate] = (0.9, 0.95)
    clip: Annotated[float, Range(0, 10**12)] = 1.0


@dataclass
class ScheduleConfig(Ranged):
    """The learning rate over a stage's steps, as a factor of its peak.

    Args:
        name: "cosine" and "linear" fall to `final`; "constant" stays at 1 until `decay` begins.
        warmup: length of the linear warm-up: a share of the stage if below 1, otherwise a number of steps.
        final: the factor at the last step.
        decay: "constant" only: length of the linear fall to `final` at the end: a share of the stage if below 1,
            otherwise a number of steps; 0 for none.
    """

    place: ClassVar[str] = "schedule"

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Steps = 0.1
    final: Share = 0.0
    decay: Steps = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay and self.name != "constant":
            raise UserError(f"schedule.decay={self.decay}; expected 0 with {self.name}, which falls by itself")


@dataclass
class LoraSettings(Ranged):
    """Low-rank adapters (LoRA) for the language model, merged into its weights at the end of the stage.

    Args:
        rank: rank of the two matrices added to each adapted matrix.
        alpha: the adapters' output is scaled by alpha / rank.
        dropout: dropout on the adapters' input.
        targets: which matrices of a block get adapters, by their names in the family's network; None means all of
            them.
        also: modules that are trained completely, besides the adapters, such as lm_head and embed_tokens, whose rows
            for new tokens start untrained.
    """

    place: ClassVar[str] = "lora"

    rank: Size = 64
    alpha: Annotated[float, Range(0, 1_000_000, above=True)] = 128.0
    dropout: Rate = 0.0
    targets: list[str] | None = None
    also: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is not None and not self.targets:
            raise UserError("lora.targets=[]; expected some matrices of a block, such as q_proj and v_proj")


LATER = ("objective", "self_correction", "grpo", "scales", "reference", "dpo", "cca", "watch")
"""Keys of a stage that came after the first release."""


@dataclass
class Stage(Ranged):
    """One stage of a recipe.

    Args:
        name: unique; names its folder in the run.
        train: submodules to train, by the names of `SUBMODULES`; all others are frozen.
        data: the mixture: names of corpora with numbers, whose meaning depends on `mixture`.
        mixture: what the numbers in `data` mean. "weights": relative shares of samples. "counts": samples per epoch; a
            corpus with fewer records starts over, and no record is used a third time before all were used twice.
            "passes": passes over the corpus per epoch; 1 uses each record once.
        epochs: length in epochs. An epoch has the mixture's counts or, with weights, as many samples as its corpora;
            its last step is filled up with samples of the next epoch. Give either this or `steps`.
        steps: length in optimizer steps. Give either this or `epochs`.
        batch_size: samples per batch and device; with `max_tokens` it applies only to validation.
        records: use at most this many records of each corpus, chosen by the seed; a smaller number is a subset of a
            larger one. None uses all.
        text_batch_size: samples in batches without drawings; None uses `batch_size`. Text is short, so larger batches
            of it cost little. The weights of drawings and text are then shares of batches, not of samples. Mixtures by
            weight need `steps` for it.
        max_tokens: form batches by token count instead of `batch_size`: at most this many tokens per batch and device,
            including padding, from records of similar length. At least the model's context length.
        packing: with `max_tokens`, put several records into each row up to the model's context length, with almost no
            padding; records do not see each other.
        accumulate: batches per optimizer step.
        head: which losses are used: "unified" text and image, "understanding" text, "generation" image, "tokenizer"
            those of the image tokenizer, "grpo" rewards of own drawings, "dpo" pairs of answers, "cca" pictures beside
            their own and other prompts; or the name of an installed package's objective.
        objective: a class that trains in place of the head's module: class_path, a subclass of `StageModule` in an
            installed package, and init_args. The head still says which data the stage needs.
        decoder_alone: train the visual decoder only on pictures, without the language model.
        text_weight, image_weight: weights of the text loss and of the image loss.
        label_smoothing: label smoothing of the image loss.
        average: how the image loss is averaged: "tokens" gives each visual token the same weight, as VAR does, so that
            the finest scale has most of the weight; "scales" gives each scale the same weight. The first scales decide
            what a picture shows, so "scales" helps in short trainings.
        ema: decay of an exponential moving average of the trained weights, which becomes the result of the stage; None
            turns it off.
        warmup_autoencoder: tokenizer only: share of steps without quantization at the start; then a codebook is
            initialised by k-means on the features; bits have none.
        feature_weight: tokenizer only: weight of the loss between EfficientNet features; 0 turns it off.
        flip: tokenizer only: probability of mirroring a picture.
        squared_weight: tokenizer only: weight of the squared error of the reconstruction.
        self_correction: feed codes of drawn pictures on with some of them changed, so that later scales learn to make
            up for it: `strength` and `scales`; the pictures are encoded at each step. None feeds them as they are.
        grpo: head grpo only: the reward of the model's own drawings, and how it is learned from.
        scales: of pictures in bits, draw the first so many of `model.tokenizer.scales` alone, a smaller picture; None
            draws all of them.
        lora: train adapters (LoRA) of the language model instead of its weights.
        frozen_bits: names of frozen submodules with 4 or 8: their linear weights are kept in this many bits per element
            while the stage trains; the stage writes the original weights. In a language model with adapters this
            applies to the original weights, not to the adapters.
        reference: heads that learn from preferences: the stage whose weights are the frozen reference, which is the one
            before; None means it without naming it.
        dpo, cca: settings of the head of this name; None takes their defaults.
        watch: heads that learn from preferences: records on which it is looked at whether the stage forgets, and how
            much it may; None does not look.
        chroma_weight: tokenizer only: weight of the squared error of the colour differences red - green and green -
            blue; helps with flat drawings, where colours matter more than the plain error shows.
    """

    name: str
    train: list[str]
    data: dict[str, Annotated[float, Range(0, 10**12)]]
    mixture: MixBy = "weights"
    epochs: Annotated[float, Range(0, 1_000_000, above=True)] | None = None
    steps: Count | None = None
    batch_size: Size = 8
    records: Count | None = None
    text_batch_size: Size | None = None
    max_tokens: Count | None = None
    packing: bool = False
    accumulate: Size = 1
    head: str = "unified"
    objective: dict[str, Any] | None = None
    decoder_alone: bool = False
    text_weight: Factor = 1.0
    image_weight: Factor = 1.0
    label_smoothing: Rate = 0.0
    average: Literal["tokens", "scales"] = "tokens"
    ema: Rate | None = None
    warmup_autoencoder: Rate = 0.0
    feature_weight: Factor = 0.0
    flip: Share = 0.0
    squared_weight: Factor = 1.0
    chroma_weight: Factor = 0.0
    self_correction: SelfCorrection | None = None
    grpo: GRPOSettings | None = None
    scales: Count | None = None
    reference: str | None = None
    dpo: DpoSettings | None = None
    cca: CcaSettings | None = None
    watch: WatchSettings | None = None
    lora: LoraSettings | None = None
    frozen_bits: dict[str, Annotated[int, Range(4, 8)]] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        where = f"stages.{self.name}"
        if not self.name or not all(letter.isalnum() or letter in "_-" for letter in self.name):
            raise UserError(f"stages: name {self.name[:80]!r}; expected letters, digits, - and _")
        check_name(self.name, "stages: name")
        check_numbers(self, where)
        try:
            check_head(self.head)
        except UserError as error:
            raise UserError(f"{where}.{error}") from error
        if self.objective is not None:  # its class is found by modules/objectives.py, which needs torch
            installed_module(self.objective, f"{where}.objective")
            arguments_of(self.objective, f"{where}.objective")
        if not self.train:
            raise UserError(f"{where}.train is empty: the stage would train nothing; expected names of submodules")
        if (self.epochs is None) == (self.steps is None):
            raise UserError(f"{where}: epochs={self.epochs}, steps={self.steps}; expected one of the two")
        if self.text_batch_size is not None and self.steps is None and self.mixture == "weights":
            raise UserError(
                f"{where}.text_batch_size={self.text_batch_size}; expected none in a stage counted in epochs"
            )
        self._check_tokens(where)
        if not self.data or not any(self.data.values()):
            raise UserError(f"{where}.data={self.data}; expected corpora with weights, one of them above 0")
        if self.lora and "language_model" not in self.train:
            raise UserError(f"{where}.lora: train={self.train}; expected language_model among them")
        self._check_bits(where)
        if (self.head == "grpo") != (self.grpo is not None) and self.objective is None:
            told = "a reward, such as {reward: composition}" if self.grpo is None else "none, or head grpo"
            raise UserError(f"{where}.grpo={self.grpo} with head={self.head}; expected {told}")
        self._check_preferences(where)
        if self.self_correction is not None and self.head in ("tokenizer", "understanding"):
            raise UserError(f"{where}.self_correction with head={self.head}, which draws nothing; expected none")
        if self.scales is not None and self.head == "tokenizer":
            raise UserError(f"{where}.scales={self.scales} with head=tokenizer, which learns all; expected none")
        if "image_tokenizer" in self.train or self.head == "tokenizer":
            alone = set(self.train) == {"image_tokenizer"}
            if self.head != "tokenizer" or not alone:
                raise UserError(
                    f"{where}: head={self.head}, train={self.train}; expected the image tokenizer by itself with head "
                    "tokenizer, and no other head for it"
                )

    def _check_preferences(self, where: str) -> None:
        learns = self.head in PREFERENCES
        for key in PREFERENCES:
            if getattr(self, key) is not None and self.head != key:
                raise UserError(f"{where}.{key} with head={self.head}; expected head={key}, whose settings they are")
        for key in ("reference", "watch"):
            if getattr(self, key) is not None and not learns:
                raise UserError(
                    f"{where}.{key} with head={self.head}, which has no reference; expected a head of "
                    f"{', '.join(PREFERENCES)}"
                )
        others = {
            "max_tokens": (self.max_tokens is not None, "none; use batch_size"),
            "decoder_alone": (self.decoder_alone, "false, answers have prompts"),
            "label_smoothing": (bool(self.label_smoothing), "0, log-probabilities are those of the answers"),
        }
        for key, (wrong, expected) in others.items():
            if learns and wrong:
                raise UserError(f"{where}.{key}={getattr(self, key)} with head={self.head}; expected {expected}")

    def _check_bits(self, where: str) -> None:
        trained = {part for name in self.train for part in SUBMODULES.get(name, ())}
        if self.lora:
            trained.discard("language_model")
        for name, bits in self.frozen_bits.items():
            key = f"{where}.frozen_bits"
            if name not in SUBMODULES:
                raise UserError(f"{key}: {name!r} is not a submodule; {hint(name, SUBMODULES)}")
            if bits not in (4, 8):
                raise UserError(f"{key}.{name}={bits}; expected 4 or 8")
            if name == "image_tokenizer":
                raise UserError(f"{key}: {name} computes in 32 bits always, its codes are nearest ones; leave it out")
            if trained & set(SUBMODULES[name]):
                others = " or adapters of it (lora)" if name == "language_model" else ""
                raise UserError(f"{key}.{name}={bits}: the stage trains {name}; expected a frozen submodule{others}")

    def _check_tokens(self, where: str) -> None:
        if self.packing and self.max_tokens is None:
            raise UserError(f"{where}.packing=true; expected max_tokens beside it, the tokens of a batch")
        others = {
            "records": (self.records is not None, "none, batches by tokens take whole corpora"),
            "text_batch_size": (self.text_batch_size is not None, "none, max_tokens fits batches of text too"),
            "head": (self.head == "tokenizer", "another, the image tokenizer trains on pictures alone; use batch_size"),
            "decoder_alone": (self.decoder_alone, "false, pictures alone have no rows of tokens; use batch_size"),
        }
        for key, (wrong, expected) in others.items():
            if self.max_tokens is not None and wrong:
                value = getattr(self, key)
                raise UserError(f"{where}.{key}={value} with max_tokens={self.max_tokens}; expected {expected}")

    def settings(self) -> dict[str, Any]:
        """Return the keys that a stage's result depends on; one that came later is left out where it asks for nothing,
        so that earlier hashes stay.
        """
        return {key: value for key, value in asdict(self).items() if key not in LATER or value is not None}

    def spec(self, sizes: Mapping[str, int], ranks: int = 1, groups: Mapping[str, str] | None = None) -> MixtureSpec:
        """Return the mixture of corpora of these sizes; `groups` says which are "drawn" and which are "text"."""
        if self.records is not None:
            sizes = {name: min(size, self.records) for name, size in sizes.items()}
        by_group = {"text": self.text_batch_size} if self.text_batch_size else None
        return MixtureSpec(sizes, self.data, self.mixture, self.batch_size, ranks, groups, by_group)

    def total_steps(self, sizes: Mapping[str, int], ranks: int = 1, groups: Mapping[str, str] | None = None) -> int:
        """Return the stage's optimizer steps; for `sizes`, the samples of each corpus, and `groups` see `spec`."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return -(-self.spec(sizes, ranks, groups).batches(self.epochs) // self.accumulate)


def check_stages(stages: Sequence[Stage], submodules: Iterable[str], corpora: Iterable[str] | None = None) -> None:
    """Refuse a plan with duplicate names, unknown submodules or unknown corpora.

    Raises:
        UserError: naming the stage, the value and what there is.
    """
    known, seen = list(submodules), set[str]()
    any_corpus, there = corpora is None, list(corpora or ())
    if not stages:
        raise UserError("stages: the list is empty; expected at least one stage")
    for place, stage in enumerate(stages):
        if stage.name in seen:
            raise UserError(f"stages: the name {stage.name!r} occurs twice; expected names that differ")
        seen.add(stage.name)
        if place and stage.reference not in (None, before := stages[place - 1].name):
            raise UserError(
                f"stages.{stage.name}.reference={stage.reference!r}; expected {before!r}, the stage before it, whose "
                "weights it begins with"
            )
        for name in stage.train:
            if name not in known:
                raise UserError(f"stages.{stage.name}.train: {name!r} is not a submodule; {hint(name, known)}")
        for key, asked in (("data", list(stage.data)), ("watch.data", stage.watch.data if stage.watch else [])):
            for name in asked:
                if any_corpus or name in there:
                    continue
                raise UserError(f"stages.{stage.name}.{key}: {name!r} is not a corpus; {hint(name, there)}")


def stage_hashes(stages: Sequence[Mapping[str, Any]], shared: Any) -> list[str]:
    """Return a content hash for each stage: its own settings, what all stages share, and the stages before it."""
    hashes: list[str] = []
    before = settings_hash(shared)
    for stage in stages:
        before = settings_hash([before, stage])
        hashes.append(before)
    return hashes
