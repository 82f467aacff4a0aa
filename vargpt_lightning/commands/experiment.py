"""An experiment file read and checked: the constructors are the schema."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.errors import UserError
from vargpt_lightning.models.config import VARGPTConfig
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.modules.stage import Stage, check_stages

EXAMPLE = """examples:
  vargpt fit -c experiments/openmoji.yaml
  vargpt fit -c experiments/openmoji.yaml --seed 1 --run.name second
  vargpt fit -c experiments/openmoji.yaml --from generation --model.decoder.depth 5
"""


@dataclass
class RunConfig:
    """Where a run is kept: the folder root/name; the name is the experiment file's by default."""

    root: str = "runs"
    name: str | None = None


@dataclass
class TrainerConfig:
    """What all stages' trainers share; names and meanings are those of Lightning's Trainer.

    Args:
        log_every: steps between two rows of the metrics.
        validate: validations in a stage, evenly spread; 0 for none.
        validation_batches: batches of one validation.
        checkpoint_seconds: pause between two checkpoints.
        sample_every: steps between two sample sheets, besides the one at a stage's end; 0 for none.
        samples: requests that a sample sheet draws; 0 for no sheets.
    """

    accelerator: str = "auto"
    devices: int | list[int] | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    log_every: int = 10
    validate: int = 5
    validation_batches: int = 8
    checkpoint_seconds: float = 60.0
    sample_every: int = 0
    samples: int = 16


@dataclass
class EvaluationConfig:
    """What is measured after the last stage.

    Args:
        enabled: False ends the run with its last stage.
        drawings: requests to draw for each training picture.
        heldout_drawings: also ask for the held-out pictures, whose names were never drawn.
        questions: at most so many questions of each kind and split; None asks all.
        names: training pictures whose name is asked for openly.
        feature_size: pixels at which the image metrics look at pictures.
        answer_batch, draw_batch: how many are asked at once.
    """

    enabled: bool = True
    drawings: int = 1
    heldout_drawings: bool = True
    questions: int | None = None
    names: int = 120
    feature_size: int = 64
    answer_batch: int = 64
    draw_batch: int = 48


@dataclass
class Sampling:
    """How drawings are sampled in sample sheets and in the evaluation; None takes the model's own."""

    top_k: int | None = None
    top_p: float | None = None
    cfg: float | None = None
    temperature: float | None = None


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
    files: list[str] = field(default_factory=list)
    resolved: str = ""
    start: str | None = None

    def stage_basis(self) -> dict[str, Any]:
        """What every stage's result depends on besides the stages themselves."""
        data = {key: value for key, value in asdict(self.data).items() if key not in ("cache", "workers")}
        return {"seed": self.seed, "model": self.model.to_dict(), "data": data, "precision": self.trainer.precision}


def build_parser() -> ArgumentParser:
    """Return the parser of `vargpt fit`: every key of an experiment is an option of the command."""
    # The plain "omegaconf" mode resolves before the command line is applied, and linked values go stale.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    parser = ArgumentParser(
        prog="vargpt fit",
        parser_mode="omegaconf+",
        exit_on_error=False,
        description="Train an experiment's stages, evaluate, and write the report. Run it again to go on.",
        epilog=EXAMPLE,
    )
    parser.add_argument("-c", "--config", action="config", help="experiment file; several are merged in their order")
    parser.add_argument("--base", type=str | None, default=None, help="experiment file, beside this one, to start from")
    parser.add_argument("--from", dest="start", type=str | None, default=None, help="train this stage and later anew")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    for name, kind in (("run", RunConfig), ("trainer", TrainerConfig), ("evaluation", EvaluationConfig)):
        parser.add_class_arguments(kind, name)
    parser.add_class_arguments(Sampling, "sampling")
    parser.add_class_arguments(VARGPTConfig, "model")
    parser.add_argument("--data", type=Corpora, help="where the data come from")
    parser.add_argument("--stages", type=list[Stage], help="the recipe")
    return parser


def load_experiment(arguments: Sequence[str]) -> Experiment:
    """Read and check an experiment from the command line's arguments.

    Raises:
        UserError: naming the key, its value and what was expected, or the nearest key there is.
        SystemExit: after `--help`.
    """
    parser = build_parser()
    arguments, files = _with_bases(list(arguments))
    try:
        config = parser.parse_args(arguments)
        made = parser.instantiate_classes(config)
    except UserError:
        raise
    except Exception as error:  # jsonargparse raises several kinds for one wrong value
        raise UserError(_plain(str(error), parser)) from error
    if not made.get("data"):
        raise UserError("data: nothing given; expected class_path and init_args, as in experiments/openmoji.yaml")
    stages = list(made.stages or [])
    check_stages(stages, SUBMODULES, made.data.names)
    run: RunConfig = made.run
    if run.name is None:
        run.name = Path(files[-1]).stem if files else "run"
    names = [stage.name for stage in stages]
    if made.start is not None and made.start not in names:
        raise UserError(f"--from: {made.start!r} is no stage; there are {', '.join(names)}")
    resolved = _resolved(parser, config, made)
    parts = (run, made.seed, made.model, made.data, stages, made.trainer, made.evaluation, made.sampling)
    return Experiment(*parts, files=files, resolved=resolved, start=made.start)


def _resolved(parser: ArgumentParser, config: Namespace, made: Namespace) -> str:
    """The whole configuration as YAML, with the model's settings as they came out."""
    tree = yaml.safe_load(parser.dump(config, skip_none=False, skip_validation=True))
    for key in ("config", "base", "start"):
        tree.pop(key, None)
    tree["model"] = made.model.to_dict()
    tree["run"] = asdict(made.run)
    text: str = yaml.safe_dump(_as_lists(tree), sort_keys=False, allow_unicode=True)
    return text


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _with_bases(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Put the `base` files that experiment files name before them; return the arguments and the files asked for."""
    result: list[str] = []
    files: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        name, _, value = word.partition("=")
        if name in ("-c", "--config"):
            if not value:
                position += 1
                value = arguments[position] if position < len(arguments) else ""
            for path in _chain(Path(value), ()):
                result += ["--config", str(path)]
            files.append(value)
        else:
            result.append(word)
        position += 1
    return result, files


def _chain(path: Path, after: tuple[Path, ...]) -> list[Path]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {str(path)!r}: cannot be read ({error.strerror or error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"config {path}: is no YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"config {path}: holds no keys; expected an experiment such as experiments/openmoji.yaml")
    if path in after:
        raise UserError(f"config {path}: `base` leads back to itself")
    base = tree.get("base")
    return [*(_chain(path.parent / base, (*after, path)) if base else []), path]


def _plain(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's message in one line, with the nearest key for one that there is not."""
    text = re.sub(r"\s+", " ", message).strip()
    found = re.search(r"(?:unrecognized arguments: --|does not accept option '|Key '|key ')([\w.]+)", text)
    if found and not found.group(1).isdigit():
        near = difflib.get_close_matches(found.group(1).split(".")[-1], _known(parser), n=1)
        text += f"; did you mean {near[0]!r}?" if near and near[0] not in found.group(1).split(".") else ""
    return text


def _known(parser: ArgumentParser) -> list[str]:
    names = {part for action in parser._actions for part in action.dest.split(".")}
    for kind in (Stage, *(type(default()) for default in _stage_parts())):
        names |= set(kind.__dataclass_fields__)
    return sorted(names)


def _stage_parts() -> list[Any]:
    return [part.default_factory for part in Stage.__dataclass_fields__.values() if callable(part.default_factory)]
