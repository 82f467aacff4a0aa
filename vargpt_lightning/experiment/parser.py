"""An experiment file and the command line over it, read and checked: the constructors are the schema."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.experiment.changes import changed_stages
from vargpt_lightning.experiment.check import ConfigCheck
from vargpt_lightning.experiment.files import chain
from vargpt_lightning.experiment.help import USAGE
from vargpt_lightning.experiment.references import References
from vargpt_lightning.experiment.schema import SCHEMA, SECTIONS, Experiment, RunConfig, Sampling
from vargpt_lightning.models.core.config import LanguageConfig, VARGPTConfig
from vargpt_lightning.models.core.settings import MASKED_KERNELS
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.parts import check_parts
from vargpt_lightning.models.parts.base import Facts
from vargpt_lightning.recipe.heads import PREFERENCES
from vargpt_lightning.recipe.stage import Stage, check_stages
from vargpt_lightning.runs.folder import find_run_folders
from vargpt_lightning.utils.arguments import SEEDS
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.names import check_path
from vargpt_lightning.utils.ranges import Seed

DESCRIPTION = """Train an experiment's stages, evaluate the result, and write the report.

Running the same command again resumes the run; finished stages are skipped. Every key of an experiment file is an
option: `--model.decoder.depth 5` after the file overrides it, and `--stages.NAME.KEY VALUE` changes one stage.
`--stages.help` shows a stage's keys, `--data.help CLASS` those of a source of data.

examples:
  vargpt fit -c experiments/openmoji.yaml
  vargpt fit -c experiments/openmoji.yaml --seed 1 --run.name second
  vargpt fit -c experiments/openmoji.yaml --from generation --sampling.cfg 3
"""


LOW_BIT_STRATEGIES = ("auto", "single", "ddp", "fsdp2")


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples."""


class _Parser(ArgumentParser):
    """The parser, and those that jsonargparse makes of its kind for the help of one key."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        more = {"prog": "vargpt fit", "usage": USAGE, "formatter_class": _HelpFormatter, **more}
        super().__init__(*arguments, **more)

    def parse_object(self, values: Any, *, namespace: Namespace | None = None, **more: Any) -> Any:
        """As jsonargparse's; a stage's `objective` takes the place of the one before whole.

        To merge the two, it would import the class of whichever module is named, and read its signature.
        """
        if namespace is not None and "objective" in namespace:
            namespace = namespace.clone()
            namespace.pop("objective")
        return super().parse_object(values, namespace=namespace, **more)


def build_parser() -> ArgumentParser:
    """Return the parser of `vargpt fit`: every key of an experiment is an option of the command."""
    # The plain "omegaconf" mode resolves before the command line is applied, and linked values go stale.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    parser = _Parser(parser_mode="omegaconf+", exit_on_error=False, description=DESCRIPTION)
    parser.add_argument("-c", "--config", action="config", help="experiment file; several are merged in their order")
    parser.add_argument(
        "--base",
        type=str | None,
        default=None,
        help="only in files: another experiment file, relative to this one, to start from",
    )
    parser.add_argument(
        "--from", dest="start", type=str | None, default=None, help="train this stage and the later ones again"
    )
    parser.add_argument("--seed", type=Seed, default=0, help="seed of everything that is random")
    parser.add_argument("--data", type=Corpora, help="where the data come from: class_path and init_args")
    parser.add_argument("--stages", type=list[Stage], help="the recipe: a list of stages")
    for name, kind in SECTIONS.items():
        parser.add_class_arguments(kind, name)
    return parser


def load_experiment(arguments: str | Path | Sequence[str], *options: str) -> Experiment:
    """Read and check an experiment.

    Args:
        arguments: the path of its file, or the arguments of a command line: ["-c", FILE, "--seed", "1"].
        options: more arguments, such as "--seed=1".

    Raises:
        UserError: naming the key, its value and what was expected, or the nearest key there is.
        SystemExit: after `--help`.
    """
    parser = build_parser()
    given = ["-c", str(arguments)] if isinstance(arguments, (str, Path)) else list(arguments)
    checked, files = _checked([*given, *options])
    try:
        config = parser.parse_args(checked)
        made = parser.instantiate_classes(config)
    except Exception as error:  # jsonargparse raises several kinds for one wrong value
        raise _as_user_error(error) from error
    if not files and not made.get("data"):
        raise UserError("no experiment is given; expected -c FILE, such as -c experiments/openmoji.yaml")
    if not made.get("data"):
        raise UserError("data: nothing given; expected class_path and init_args, as in experiments/openmoji.yaml")
    if not 0 <= made.seed < SEEDS:
        raise UserError(f"seed={made.seed}; expected a whole number from 0 to 2**63 - 1")
    stages = list(made.stages or [])
    check_stages(stages, SUBMODULES, made.data.names)
    _check_reference(stages, bool(made.init_from))
    _check_batches(stages, made.model.language)
    _check_scales(stages, made.model)
    _check_strategy(stages, made.trainer.strategy)
    _check_parts(made.sampling, made.model)
    run: RunConfig = made.run
    if run.name is None:
        run.name = Path(files[-1]).stem if files else "run"
    check_path(run.name, "run.name")
    _check_reuse(run)
    names = [stage.name for stage in stages]
    if made.start is not None and made.start not in names:
        raise UserError(f"--from: {made.start!r} is not a stage; {hint(made.start, names)}")
    resolved = _resolved(parser, config, made)
    if unknown := [name for name in made.evaluation.benchmarks.stages or [] if name not in names]:
        raise UserError(f"evaluation.benchmarks.stages: {unknown[0]!r} is not a stage; {hint(unknown[0], names)}")
    parts = (run, made.seed, made.model, made.data, stages, made.trainer, made.evaluation, made.sampling, made.plan)
    return Experiment(*parts, files=files, resolved=resolved, start=made.start, init_from=made.init_from)


def _check_reuse(run: RunConfig) -> None:
    """Refuse what is neither a run nor a folder of runs; the run's own root may be empty still."""
    for place in run.reuse:
        path = Path(place).expanduser()
        if path.resolve() != Path(run.root).resolve() and next(find_run_folders(path), None) is None:
            there = "there is no such folder" if not path.is_dir() else "there is no run.json in it or below it"
            raise UserError(f"run.reuse={place!r}: {there}; expected a run, or a folder of runs")


def _check_parts(sampling: Sampling, model: VARGPTConfig) -> None:
    """Refuse parts of the sampler that do not fit the model, such as lists of another length than there are scales."""
    try:
        check_parts(sampling.given_parts, Facts.of(model, 1.0 if sampling.cfg is None else sampling.cfg))
    except UserError as error:
        raise UserError(f"sampling.{error}") from error


def _check_reference(stages: Sequence[Stage], given: bool) -> None:
    """Refuse a first stage that learns from preferences without weights, or beside a stage that is not there."""
    if stages[0].reference is not None:
        raise UserError(
            f"stages.{stages[0].name}.reference={stages[0].reference!r}: no stage is before it; expected null, which "
            "takes the weights of init_from"
        )
    if stages[0].head in PREFERENCES and not given:
        raise UserError(
            f"stages.{stages[0].name}.head={stages[0].head}: no stage is before it, whose weights would be the "
            "reference; expected one, or init_from with the weights of a trained model"
        )


def _check_batches(stages: Sequence[Stage], language: LanguageConfig) -> None:
    """Refuse batches that the longest record does not fit, and packing where attention cannot keep records apart."""
    for stage in stages:
        where, context = f"stages.{stage.name}", language.max_positions
        if stage.max_tokens is not None and stage.max_tokens < context:
            raise UserError(
                f"{where}.max_tokens={stage.max_tokens}; expected at least model.language.max_positions={context}, the "
                "longest record"
            )
        if stage.packing and language.attention not in MASKED_KERNELS:
            raise UserError(
                f"{where}.packing=true with model.language.attention={language.attention!r}; expected attention that "
                f"takes masks: {', '.join(MASKED_KERNELS)}"
            )


def _check_scales(stages: Sequence[Stage], model: VARGPTConfig) -> None:
    """Refuse a stage that draws more scales than there are, or some of indices."""
    for stage in stages:
        try:
            model.at_scales(stage.scales)
        except UserError as error:
            raise UserError(f"stages.{stage.name}.scales={stage.scales}: {error}") from error


def _check_strategy(stages: Sequence[Stage], strategy: str) -> None:
    """Refuse weights in few bits where it is not known what becomes of them, and Muon where matrices are flattened."""
    for stage in stages:
        if strategy == "fsdp" and stage.optimizer.name == "muon" and stage.head != "tokenizer":
            raise UserError(
                f"stages.{stage.name}.optimizer.name=muon with trainer.strategy=fsdp, which flattens matrices; "
                "expected adamw, or trainer.strategy=fsdp2"
            )
        if stage.frozen_bits and strategy not in LOW_BIT_STRATEGIES:
            raise UserError(
                f"stages.{stage.name}.frozen_bits with trainer.strategy={strategy!r}; expected one of "
                f"{', '.join(LOW_BIT_STRATEGIES)}"
            )


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


def _checked(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Put the `base` files that experiment files name before them; return the arguments and the files asked for.

    All keys, values and references in the files and the arguments are checked on the way. Options of one stage,
    `--stages.NAME.KEY VALUE`, become the whole list of stages.
    """
    check = ConfigCheck(SCHEMA, {"data": Corpora})
    result: list[str] = []
    files: list[str] = []
    trees = []
    changes: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("-c", "--config"):
            value = value if equals else next(words, "")
            if not value:
                raise UserError(f"{name}: expected an experiment file after it")
            for path, tree in chain(Path(value)):
                check.tree(tree, str(path))
                trees.append(tree)
                result += ["--config", str(path)]
            files.append(value)
        elif name.startswith("--stages.") and name != "--stages.help":
            value = value if equals else next(words, "")
            if not value:
                raise UserError(f"{name}: expected a value after it")
            changes[name.removeprefix("--")] = _value(value)
        else:
            result.append(word)
    check.arguments(result)
    lists = [*trees, *stage_lists(result)]
    if changes or sum("stages" in tree or "stages+" in tree for tree in lists) > 1:
        tree = {"stages": changed_stages(lists, changes)}
        if changes:
            check.tree(tree, "command line")
        trees.append(tree)
        whole = {"stages": [whole_stage(Stage, stage) for stage in tree["stages"]]}
        result.append(f"--config={json.dumps(whole)}")  # as a file, not a value, so that its ${...} are resolved
    check.references(trees)
    references = References(SCHEMA, check.classes)
    for tree in trees:
        references.add(tree)
    references.add_options(result)
    references.check()
    return result, files


def whole_stage(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with the defaults of all that is not given: the parser would take it from the list before."""
    made = dict(given)
    for entry in fields(kind):
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if is_dataclass(default) and isinstance(value := given.get(entry.name, {}), Mapping):
            made[entry.name] = whole_stage(type(default), value)
        elif entry.name not in given and default is not MISSING:
            made[entry.name] = default
    return made


def stage_lists(words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lists of stages that stand on a command line, each as a file with it alone would hold it."""
    found = []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--stages", "--stages+"):
            stages = _value(value if equals else "".join(words[place + 1 : place + 2]))
            found.append({name.removeprefix("--"): stages if isinstance(stages, list) else [stages]})
    return found


def _value(text: str) -> Any:
    """A value of the command line as YAML reads it; 1e-3 is a number too."""
    try:
        value = yaml.safe_load(text)
        return float(value) if isinstance(value, str) and value.lstrip("+-")[:1].isdigit() else value
    except (yaml.YAMLError, ValueError):
        return text


def _as_user_error(error: Exception) -> UserError:
    """The error of a constructor that the parser has wrapped, its key in full; else the parser's own in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            section = str(cause).split(":")[0].split(".")[0].split("=")[0]
            return UserError(f"model.{cause}") if section in VARGPTConfig.__dataclass_fields__ else cause
        cause = cause.__cause__ or cause.__context__
    return UserError(" ".join(re.sub(r"(full_key|object_type)\S* ?\S*", "", str(error)).split()))
