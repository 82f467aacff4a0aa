"""`vargpt completion`: what a shell needs to complete commands, options and names of runs. No torch, no shell's files.

The script that is printed asks `vargpt completion --words ...` at each press of the tab key.
"""

from __future__ import annotations

import argparse
import sys

from vargpt_lightning.commands.completion_words import main as words
from vargpt_lightning.utils.arguments import Parser

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
        return words(argv[1:])
    sys.stdout.write(SCRIPTS[parser().parse_args(argv).shell])
    return 0
