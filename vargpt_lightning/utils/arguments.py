"""What the commands' arguments have in common: how they are refused, and the values that several take. No torch."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vargpt_lightning.utils.errors import UserError, nearest

SEEDS = 2**63  # what every generator here takes
MOST = 10**12
"""Of anything that is counted: more is a slip of the finger."""
PIXELS = 2**20
"""Of a side."""
WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
NUMBER = re.compile(r"\+?[0-9]{1,19}")  # Python turns no text of more than 4300 digits into a number


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps its lines, and which says in one line what it refuses, with the nearest name."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **more)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = list(sys.argv[1:] if args is None else args)
        found, rest = self.parse_known_args(words, namespace)
        if rest:
            self.error(self._unknown(rest[0], words))
        return found

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            UserError: always; `vargpt` prints it and exits with code 2.
        """
        message = re.sub(r"^argument ([^:]+): ", lambda found: f"{_full_name(found[1])}: ", message)
        raise UserError(f"{self._closer(message)}; see `{self.prog} --help`")

    def _unknown(self, word: str, words: Sequence[str]) -> str:
        if not word.startswith("-") or word == "-":
            return f"{word!r} is one argument too many"
        known = [option for parser in self._parsers(words) for option in parser._option_string_actions]
        option = word.partition("=")[0]
        close = nearest(option, [each for each in known if each.startswith("--")])
        return f"{option} is no option of {self.prog}" + (f"; did you mean '{close}'?" if close else "")

    def _parsers(self, words: Sequence[str]) -> list[argparse.ArgumentParser]:
        """This parser, and that of the form of the command that was chosen."""
        found: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [parser for name, parser in action.choices.items() if name in words]
        return found

    def _closer(self, message: str) -> str:
        """The message, and the nearest of the values that there are where another one was given."""
        refused = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if refused is None:
            return message
        close = nearest(refused[1], [name.strip("' ") for name in refused[2].split(",")])
        return message + (f"; did you mean '{close}'?" if close else "")


def seed_number(text: str) -> int:
    """Read the seed of random choices: a whole number, 0 to 2**63 - 1."""
    if not NUMBER.fullmatch(text) or int(text) >= SEEDS:
        raise argparse.ArgumentTypeError(f"{_shown(text)}; expected a whole number from 0 to 2**63 - 1")
    return int(text)


def positive(text: str) -> int:
    """Read how many: a whole number, 1 or more."""
    if not NUMBER.fullmatch(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{_shown(text)}; expected a whole number, 1 or more")
    return int(text)


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """Return what reads a whole number from `least` to `most`, for `add_argument(type=...)`."""

    def read(text: str) -> int:
        if not WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{_shown(text)}; expected a whole number from {least:,} to {most:,}")
        return int(text)

    return read


def number(least: float, most: float, *, above: bool = False, zero: bool = False) -> Callable[[str], float]:
    """Return what reads a number from `least` to `most`, for `add_argument(type=...)`; nan and inf are none.

    Args:
        above: `least` itself is left out.
        zero: 0 is taken, too.
    """
    low = f"above {least:,} and at most" if above else f"from {least:,} to"
    expected = f"{'0 or ' if zero else ''}a number {low} {most:,}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (zero and value == 0) and not ((least < value if above else least <= value) and value <= most):
            raise argparse.ArgumentTypeError(f"{_shown(text)}; expected {expected}")
        return value

    return read


def _full_name(option: str) -> str:
    """The option's first name with two dashes: argparse lists all, such as -n/--number."""
    names = option.split("/")
    return next((name for name in names if name.startswith("--")), names[-1])


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def device_name(text: str) -> str:
    """Read the name of a device, such as cpu or cuda:0; whether it is there is found out where torch is loaded."""
    from vargpt_lightning.utils.names import check_device

    try:
        return check_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def more_options(words: Sequence[str]) -> dict[str, Any]:
    """The values of `--option KEY=VALUE`, numbers and truth values as such.

    Raises:
        UserError: no equals sign.
    """
    import yaml

    from vargpt_lightning.utils.yaml_text import load_yaml

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--option {word}: expected KEY=VALUE, such as concurrency=8")
        try:
            found[key.strip().replace("-", "_")] = load_yaml(value) if value else ""
        except yaml.YAMLError:
            found[key.strip().replace("-", "_")] = value
    return found
