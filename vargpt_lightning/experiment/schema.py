"""The schema of an experiment file: its sections as dataclasses."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Annotated, Any, ClassVar, Literal

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.evaluation.base.figures import HEADLINE_KEYS
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.decoder.samplers import installed_sampler
from vargpt_lightning.models.parts import checked as checked_parts
from vargpt_lightning.models.parts import idle_parts
from vargpt_lightning.models.parts.base import Facts
from vargpt_lightning.recipe.init_from import InitFrom
from vargpt_lightning.recipe.plan import PlanConfig
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError, hint, nearest
from vargpt_lightning.utils.ranges import Amount, Count, Few, Range, Ranged, Seconds, Seed, Share, Size

Devices = Annotated[int, Range(-1, 65_536)]
"""How many; -1, Lightning's, for all there are."""
DeviceNumber = Annotated[int, Range(0, 65_535)]
SPEED_ALONE = ("cache", "workers", "prefetch", "pin_memory", "visual_tokens")  # what of the data no result depends on


@dataclass
class RunConfig:
    """Where a run is stored: in the folder root/name.

    Args:
        root: folder that contains the runs.
        name: name of the run's folder; by default that of the experiment file.
        reuse: runs, or folders of runs, whose finished stages are reused if everything they depend on is the same (by
            content hash). If a run in `root` is currently training such a stage, this run waits for it.
    """

    root: str = "runs"
    name: str | None = None
    reuse: list[str] = field(default_factory=list)


@dataclass
class TrainerConfig(Ranged):
    """Settings of the trainer, for all stages.

    Args:
        accelerator: Lightning's accelerator: cpu, gpu or auto.
        devices: number of devices per machine, a list of device numbers, or auto. On CPUs this is the number of
            processes; each GPU gets one process.
        num_nodes: number of machines.
        precision: Lightning's precision: 32-true, bf16-mixed, 16-mixed or bf16-true.
        strategy: how training is distributed over processes: single, ddp, fsdp, fsdp2, or a Lightning strategy; "auto"
            is single or ddp.
        sharding: see `ShardingConfig`.
        nonfinite: what to do if a loss or gradient is NaN or infinite: "stop", or "skip" the step and count it.
        oversubscribe: start more processes, of training and of reading, than cores and memory hold.
        log_every: steps between two rows of the metrics.
        validate: number of validations in a stage, evenly spaced; 0 for none.
        validation_batches: batches per validation.
        checkpoint_seconds: seconds between two checkpoints.
        sample_every: steps between two sample grids; 0 for only the one at the end of a stage.
        samples: drawings in a sample grid; 0 for no sheets.
        loggers: Lightning loggers in addition to metrics.csv, each with class_path, such as TensorBoardLogger, and
            init_args; those that accept pictures also get the sample grids.
        callbacks: Lightning callbacks in addition to ours, each with class_path, such as LearningRateMonitor or a class
            of another installed package, and init_args. Stages are reused whatever they are: they must not change what
            is learned.
    """

    place: ClassVar[str] = "trainer"

    accelerator: str = "auto"
    devices: Devices | list[DeviceNumber] | str = "auto"
    num_nodes: Annotated[int, Range(1, 100_000)] = 1
    strategy: str = "auto"
    precision: str = "32-true"
    log_every: Count = 10
    validate: Few = 5
    validation_batches: Amount = 8
    checkpoint_seconds: Seconds = 60.0
    sample_every: Amount = 0
    samples: Few = 16
    loggers: list[dict[str, Any]] = field(default_factory=list)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    nonfinite: Literal["stop", "skip"] = "stop"
    oversubscribe: bool = False


@dataclass
class BenchmarksConfig(Ranged):
    """Benchmarks that run at the ends of stages.

    Args:
        names: names of benchmarks, such as [mme, pope]; none by default.
        data: folder that contains a folder for each benchmark, or the data of the only one.
        stages: stages after which they run; None means all stages except those that train only the image tokenizer.
        limit: ask at most this many questions of each benchmark, the same ones at each stage; None asks all.
        protocol: scoring protocol: lmms_eval, official or lenient.
        style: style of the prompts.
        batch_size: questions per batch.
    """

    place: ClassVar[str] = "evaluation.benchmarks"

    names: list[str] = field(default_factory=list)
    data: str | None = None
    stages: list[str] | None = None
    limit: Count | None = 200
    protocol: str = "lmms_eval"
    style: str = "llava"
    batch_size: Size = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        from vargpt_lightning.evaluation.base.benchmark import check_protocol
        from vargpt_lightning.evaluation.benchmarks import names

        where = self.place
        if unknown := [name for name in self.names if name not in names()]:
            raise UserError(f"{where}.names: {unknown[0]!r}; {hint(unknown[0], names())}")
        if self.names and self.data is None:
            raise UserError(
                f"{where}.data: nothing given; expected the folder with the data of {', '.join(self.names)}"
            )
        check_protocol(self.protocol)


@dataclass
class EvaluationConfig(Ranged):
    """What is evaluated after the last stage.

    Args:
        enabled: False ends the run after its last stage.
        drawings: number of requests to draw for each training picture.
        drawings_limit: ask for at most this many training pictures, and as many of each held-out split; None asks for
            all.
        heldout_drawings: also ask for the held-out pictures, which the model was never trained to draw.
        scene_drawings: number of requests of each kind (colour, count, pair) to draw scenes, of trained and of held-out
            combinations each.
        repeats: draw 64 of the requests, spread over all, so many times more with other seeds: how much drawings of one
            request differ.
        questions: ask at most this many questions of each kind and split; None asks all.
        names: number of training pictures whose name is asked for without options.
        seed: seed for choosing questions and for drawing; None uses the experiment's seed.
        feature_size: picture size in pixels for the image metrics.
        answer_batch, draw_batch: batch size for questions and for drawings.
        aims: goals for headline metrics, by key, such as identification_1; the report says whether they were reached.
        benchmarks: benchmarks that run at the ends of stages.
        judges: names of judges that score the drawings besides: identification, or those of installed packages.
    """

    place: ClassVar[str] = "evaluation"

    enabled: bool = True
    drawings: Few = 1
    drawings_limit: Amount | None = None
    heldout_drawings: bool = True
    scene_drawings: Amount = 120
    repeats: Few = 0
    questions: Amount | None = None
    names: Amount = 120
    seed: Seed | None = None
    feature_size: Annotated[int, Range(32, 4096)] = 128
    answer_batch: Size = 64
    draw_batch: Size = 48
    aims: dict[str, Annotated[float, Range(-(10**9), 10**9)]] = field(default_factory=dict)
    benchmarks: BenchmarksConfig = field(default_factory=BenchmarksConfig)
    judges: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judges:
            from vargpt_lightning.evaluation.judges import get

            for name in self.judges:
                try:
                    get(name)
                except UserError as error:
                    raise UserError(f"{self.place}.judges: {error}") from error
        for key in self.aims:
            if key not in HEADLINE_KEYS:
                near = nearest(key, HEADLINE_KEYS)
                known = f"did you mean {near!r}?" if near else f"there are {', '.join(HEADLINE_KEYS)}"
                raise UserError(f"evaluation.aims.{key} is no headline metric; {known}")


@dataclass
class Sampling(Ranged):
    """How drawings are sampled in sample grids and in the evaluation; None uses the model's default.

    Args:
        top_k: number of codes kept per position; 0 keeps all. The default of a new model is 900.
        top_p: probability mass kept per position, after top-k; 0 and 1 keep all. The default is `model.top_p`.
        cfg: strength of guidance, growing linearly from 0 at the first scale to this value at the last; 0 turns it off.
            The default of a new model is 1.5.
        temperature: the logits are divided by this after guidance. The default of a new model is 1.
        sampler: how codes are chosen: default, by the keys above, or the name of an installed package's sampler.
        parts: parts of the sampler by name, each with its arguments, such as {guided_scales: {stop: 3}}; see
            docs/samplers.md.
    """

    place: ClassVar[str] = "sampling"

    top_k: Amount | None = None
    top_p: Share | None = None
    cfg: Annotated[float, Range(0, 100)] | None = None
    temperature: Annotated[float, Range(0.001, 1000)] | None = None
    sampler: str | None = None
    parts: dict[str, dict[str, Any] | None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.parts = dict(checked_parts(self.parts)) if self.parts else None
        except UserError as error:
            raise UserError(f"{self.place}.{error}") from error
        if self.sampler is not None:
            try:
                installed_sampler(self.sampler)
            except UserError as error:
                raise UserError(f"{self.place}.{error}") from error

    @property
    def given_parts(self) -> dict[str, dict[str, Any]]:
        """The parts with their arguments, none where none are given."""
        return {name: arguments or {} for name, arguments in (self.parts or {}).items()}


@dataclass
class Experiment:
    """A whole experiment, checked."""

    run: RunConfig
    seed: int
    model: VARGPTConfig
    data: Corpora
    stages: list[Stage]
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    sampling: Sampling
    plan: PlanConfig
    files: list[str] = field(default_factory=list)
    resolved: str = ""
    start: str | None = None
    init_from: InitFrom = field(default_factory=InitFrom)

    def idle_parts(self) -> dict[str, str]:
        """Return the parts of the sampler that change nothing on this model, with the reason why."""
        cfg = 1.0 if self.sampling.cfg is None else self.sampling.cfg
        return idle_parts(self.sampling.given_parts, Facts.of(self.model, cfg))

    def stage_basis(self) -> dict[str, Any]:
        """The settings that every stage's result depends on besides the stages themselves."""
        data = asdict(self.data) if is_dataclass(self.data) else dict(vars(self.data))
        data = {key: value for key, value in data.items() if key not in SPEED_ALONE}
        basis = {"seed": self.seed, "model": self.model.to_dict(), "data": data, "precision": self.trainer.precision}
        return {**basis, "init_from": asdict(self.init_from)} if self.init_from else basis


SECTIONS = {
    "run": RunConfig,
    "trainer": TrainerConfig,
    "evaluation": EvaluationConfig,
    "sampling": Sampling,
    "plan": PlanConfig,
    "model": VARGPTConfig,
    "init_from": InitFrom,
}
SCHEMA = {"base": str | None, "seed": Seed, **SECTIONS, "stages": list[Stage], "data": Corpora}
