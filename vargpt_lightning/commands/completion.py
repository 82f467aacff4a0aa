"""`vargpt completion`: what a shell needs to complete commands, options and names of runs. No torch, no shell's files.

The script that is printed asks `vargpt completion --words ...` at each press of the tab key.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from vargpt_lightning.commands import COMMANDS
from vargpt_lightning.commands.arguments import Parser

BASH = """_vargpt() {
    local IFS=$'\\n'
    COMPREPLY=($(vargpt completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -o bashdefault -F _vargpt vargpt
"""
ZSH = """#compdef vargpt
_vargpt() {
    local -a found
    found=("${(@f)$(vargpt completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _vargpt vargpt
"""
FISH = """function __vargpt_words
    set -l words (commandline -opc)
    vargpt completion --words $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c vargpt -a '(__vargpt_words)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
EXAMPLE = """examples:
  vargpt completion bash >> ~/.bashrc
  vargpt completion zsh >> ~/.zshrc
  vargpt completion fish > ~/.config/fish/completions/vargpt.fish
"""
ANYWHERE = ("--help", "--debug")
RUN_ARGUMENTS = ("run", "model", "source", "root")  # arguments of commands that runs are given as
DEPTH = 2  # of folders below `runs` that are looked through


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt completion",
        description="Print a script that lets a shell complete commands, options and names of runs.",
        epilog=EXAMPLE,
    )
    result.add_argument("shell", choices=tuple(SCRIPTS), help="bash, zsh or fish")
    return result


def main(argv: list[str]) -> int:
    """Print the script; with `--words`, what may stand in place of the last of them."""
    if argv[:1] == ["--words"]:
        found = candidates(argv[1:] or [""])
        sys.stdout.write("".join(f"{word}\n" for word in found))
        return 0
    sys.stdout.write(SCRIPTS[parser().parse_args(argv).shell])
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """Return what the last word of a command line, which stands behind `vargpt`, may become; files are the shell's."""
    *before, last = words
    return sorted({word for word in _possible(before, last) if word.startswith(last)})


def _possible(before: Sequence[str], last: str) -> Iterable[str]:
    given = [word for word in before if word not in ANYWHERE]
    if not given:
        return [*COMMANDS, "version", "help", "--version", *ANYWHERE]
    name, *rest = given
    if name == "fit":
        return _fit(rest, last)
    if name == "data":
        from vargpt_lightning.commands.data import VERBS

        if not rest:
            return VERBS
        name, rest = f"data_{rest[0].replace('-', '_')}", rest[1:]
    if name == "sweep" and not rest and not last.startswith("-"):
        return ["worker", "show"]
    if name == "evaluate" and rest[:1] in (["images"], ["export"]):
        name, rest = f"evaluate_{rest[0]}", rest[1:]
    found = _parser(name)
    return [] if found is None else _of_parser(found, rest, last, name)


def _parser(name: str) -> argparse.ArgumentParser | None:
    """The arguments of a command, without its main work being imported."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module(f"vargpt_lightning.commands.{name}")
        for maker in ("parser", "build_parser", "_parser"):
            if hasattr(module, maker):
                made: argparse.ArgumentParser = getattr(module, maker)()
                return made
    return None


def _of_parser(parser: argparse.ArgumentParser, rest: Sequence[str], last: str, name: str) -> Iterable[str]:
    forms = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if forms:
        if not rest:
            return [*forms[0].choices, "--help"]
        if rest[0] in forms[0].choices:
            return _of_parser(forms[0].choices[rest[0]], rest[1:], last, name)
    options = parser._option_string_actions
    if rest and (action := options.get(rest[-1])) is not None and action.nargs != 0:
        return _values(action, rest)
    if last.startswith("-"):
        return [*(option for option in options if option.startswith("--")), *ANYWHERE]
    takes_run = any(action.dest in RUN_ARGUMENTS for action in parser._actions if not action.option_strings)
    more = ["images", "export"] if name == "evaluate" and not rest else []
    return [*(runs() if takes_run else []), *more]


def _values(action: argparse.Action, rest: Sequence[str]) -> Iterable[str]:
    """What an option may be set to, where that is known."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if "--device" in action.option_strings:
        return ["cpu", "cuda", "mps", "xpu"]
    if {"--benchmarks", "--benchmark"} & set(action.option_strings):
        from vargpt_lightning.evaluation.benchmarks import names

        return [*names(), "all"]
    if "--protocol" in action.option_strings:
        from vargpt_lightning.evaluation.benchmarks.base import PROTOCOLS

        return PROTOCOLS
    if "--gpus" in action.option_strings:
        from vargpt_lightning.gpus import catalogue

        return catalogue()
    if "--stage" in action.option_strings:
        return [stage.name.split("-", 1)[1] for word in rest for stage in Path(word).glob("stages/[0-9]*-*")]
    return runs() if {"--tokenizer", "--for"} & set(action.option_strings) else []


def _fit(rest: Sequence[str], last: str) -> Iterable[str]:
    """The options of the short help; and the stages of the experiment that is named."""
    from vargpt_lightning.commands.fit_help import TEXT

    if rest[-1:] in (["-c"], ["--config"]):
        return [str(path) for path in sorted(Path("experiments").glob("*.yaml"))]
    files = [following for word, following in pairwise(rest) if word in ("-c", "--config")]
    if last.startswith("--stages.") or rest[-1:] == ["--from"]:
        names = list(_stage_names(files))
        return names if rest[-1:] == ["--from"] else [f"--stages.{name}." for name in names]
    return [
        word for word in re.findall(r"^  (?:-\w, )*(--[\w.]+)", TEXT, re.MULTILINE) if not re.search("KEY|NAME", word)
    ]


def _stage_names(files: Sequence[str]) -> Iterable[str]:
    from vargpt_lightning.errors import UserError
    from vargpt_lightning.experiment_files import chain
    from vargpt_lightning.sweep.cells import changed_stages

    with contextlib.suppress(UserError):
        trees = [tree for file in files for _, tree in chain(Path(file))]
        return [str(stage.get("name")) for stage in changed_stages(trees, {})]
    return []


def runs() -> list[str]:
    """Return the paths of the runs below `runs`."""
    from vargpt_lightning.results import find_run_folders

    return [str(path) for path in find_run_folders(Path("runs"), DEPTH)]
