"""What all commands' arguments have in common: seeds, devices, and how they are refused."""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.cli import main
from vargpt_lightning.utils.arguments import Parser, number, positive, whole
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.gpus import parse_cluster

MODULES = [
    *("generate", "chat", "serve", "evaluate", "evaluate_export", "evaluate_images"),
    *("score", "convert", "plan", "runs", "sweep"),
    *("data.pack", "data.check", "data.show", "data.stats", "data.tokenize", "data.write_instructions", "completion"),
]
NO_SEEDS = ["-1", "nan", "1.5", "", "1e3", str(2**63), str(2**64), "9" * 5000, "²", "١"]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def every_parser() -> list[argparse.ArgumentParser]:
    found = []
    for name in MODULES:
        module = importlib.import_module(f"vargpt_lightning.commands.{name}")
        made = next(getattr(module, maker) for maker in ("parser", "build_parser", "_parser") if hasattr(module, maker))
        found += list(parsers(made()))
    return found


def test_every_command_refuses_in_one_line() -> None:
    assert all(isinstance(parser, Parser) for parser in every_parser())


@pytest.mark.parametrize("text", ["0", "-1", "²", "1.5", "", "9" * 5000])
def test_counts_are_whole_numbers_from_one(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number, 1 or more") as error:
        positive(text)
    assert len(str(error.value)) < 100
    assert positive("+12") == 12


def test_every_seed_and_device_is_looked_at() -> None:
    seeds = devices = 0
    for parser in every_parser():
        for action in parser._actions:
            if "--seed" in action.option_strings:
                seeds += 1
                assert action.type is not None and action.type(str(2**63 - 1)) == 2**63 - 1  # type: ignore[operator]
                for text in NO_SEEDS:
                    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a whole number from 0"):
                        action.type(text)  # type: ignore[operator]
            if "--device" in action.option_strings:
                devices += 1
                with pytest.raises(argparse.ArgumentTypeError, match="expected cpu, cuda"):
                    action.type("abacus")  # type: ignore[operator]
    assert seeds >= 8 and devices >= 7, "the others have another name than these"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail before any weights are read; return its one line."""

    def read(*arguments: object, **more: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(layouts, "fitting", read)

    def run(*arguments: object) -> str:
        assert main([str(word) for word in arguments]) == 2
        said = capfd.readouterr().err
        (line,) = [line for line in said.splitlines() if line.startswith("vargpt: error: ")]
        assert "Traceback" not in said
        return line

    return run


@pytest.mark.parametrize("device", ["cuda:99", "mps:5"])
def test_a_device_that_is_not_there_is_told_before_anything_is_loaded(
    device: str, finished_run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    shutil.copy(finished_run / "config.yaml", exported)
    shutil.copytree(finished_run / "tokenizer", exported / "tokenizer")
    shutil.copy(finished_run / "stages" / "02-generation" / "model.safetensors", exported)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "class": "apple", "instruction": "Draw an apple."}\n')
    images = ("evaluate", "images")
    asked = ("--prompts", prompts, "--out", tmp_path / "out")
    for words in (
        ("generate", finished_run, "Draw."),
        ("chat", finished_run),
        ("serve", finished_run, "--no-page", "--port", "0"),
        (*images, "sample", finished_run, *asked),
        (*images, "sample", exported, *asked),
        (*images, "run", finished_run, *asked),
    ):
        assert f"'{device}'" in refused(*words, "--device", device)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sed", "1"], r"--sed is no option of vargpt x; did you mean '--seed'\?; see `vargpt x --help`"),
        (["--seed"], "--seed: expected one argument"),
        (["--kind", "rad"], r"--kind: invalid choice: 'rad'.*did you mean 'red'\?"),
        (["a", "b"], "'b' is one argument too many"),
        ([], "name"),
    ],
)
def test_what_is_wrong_with_arguments_is_one_line(words: list[str], told: str) -> None:
    parser = Parser(prog="vargpt x")
    parser.add_argument("name")
    parser.add_argument("--seed")
    parser.add_argument("--kind", choices=("red", "blue"))
    with pytest.raises(UserError, match=told):
        parser.parse_args(words if words[:1] in ([], ["a"]) else ["name", *words])


def test_a_seed_below_zero_is_refused_by_fit_too(tiny_experiment: dict, tmp_path: Path, refused) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_experiment))
    for seed in ("-1", str(2**64), "nan"):
        assert "seed" in refused("fit", "-c", file, "--seed", seed)


def test_every_number_has_its_range_in_the_parser() -> None:
    """So that what is out of it is refused before torch is imported, and before anything is read."""
    for parser in every_parser():
        for action in parser._actions:
            assert action.type not in (int, float), f"{parser.prog}: {action.option_strings}"


ABSURD = ["9" * 20, "9" * 5000, "-1", "1.5", "", "nan", "²", "1e3", "0x1", "1_0"]


@pytest.mark.parametrize("text", ABSURD)
def test_whole_numbers_out_of_their_range_are_told_it(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 0 to 65,535") as error:
        whole(0, 65_535)(text)
    assert len(str(error.value)) < 100
    assert [whole(-1, 9)(each) for each in ("-1", "+9", "007")] == [-1, 9, 7]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "-0.1", "0", "1.01", "x", ""])
def test_numbers_out_of_their_range_are_told_it(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number above 0 and at most 1"):
        number(0, 1, above=True)(text)
    assert number(0, 1, above=True)("1e-3") == 0.001 and number(2, 3, zero=True)("0") == 0


REFUSED = [
    ("serve RUN --port -1", "--port: '-1'; expected a whole number from 0 to 65,535"),
    ("serve RUN --port 65536", "--port: '65536'; expected a whole number from 0 to 65,535"),
    ("serve RUN --max-batch 0", "--max-batch: '0'; expected a whole number from 1 to"),
    ("serve RUN --cfg 101", "--cfg: '101'; expected a number from 0 to 100"),
    ("plan X --gpus 100000000000000000000xH100-80GB", "--gpus: 100000000000000000000 GPUs; expected a whole number"),
    ("plan X --gpus 0xH100-80GB", "--gpus: 0 GPUs; expected a whole number from 1 to 1,000,000"),
    ("plan X --gpus ²xH100-80GB", "'²xH100-80GB' is none of the known GPUs"),
    ("plan X --efficiency nan", "--efficiency: 'nan'; expected a number above 0 and at most 1"),
    ("plan X --generate --batch 99999999999999999999", "expected a whole number from 1 to 100,000"),
    ("plan X --generate --prompt -5", "--prompt: '-5'; expected a whole number from 1 to 100,000"),
    ("convert X --out Y --to vargpt --shard infGB", "'infGB'; expected a size such as 500MB or 5GB"),
    ("data pack a:b --out c --max-rejected nan", "--max-rejected: 'nan'; expected a number from 0 to 1"),
    ("sweep worker x --lease-timeout -1", "--lease-timeout: '-1'; expected a number above 0"),
]


def test_what_is_out_of_range_is_refused_before_the_heavy_imports() -> None:
    """In a process of its own: no command of these imports torch."""
    program = (
        "import contextlib, io, sys\n"
        "from vargpt_lightning.cli import main\n"
        "for words in sys.argv[1:]:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        code = main(words.split(' '))\n"
        "    print(code, 'torch' in sys.modules, said.getvalue().strip())\n"
    )
    command = [sys.executable, "-c", program, *(words for words, _ in REFUSED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(REFUSED), done.stdout
    for (words, told), line in zip(REFUSED, lines, strict=True):
        assert line.startswith("2 False vargpt: error: "), (words, line)
        assert told in line and len(line) < 600, (words, line)


@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_a_cluster_of_absurdly_many_is_refused_with_a_short_line(digits: int) -> None:
    with pytest.raises(
        UserError, match=r"--gpus: 9+(\.\.\.)? GPUs; expected a whole number from 1 to 1,000,000"
    ) as error:
        parse_cluster(f"{'9' * digits}xH100-80GB")
    assert len(str(error.value)) < 120
