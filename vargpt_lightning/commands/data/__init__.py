"""`vargpt data`: corpora packed, checked, looked at and written. Imports a verb's code only when it is called."""

from __future__ import annotations

import importlib
import sys

from vargpt_lightning.utils.errors import UserError, hint

VERBS = {
    "pack": "pack corpora into shards: llava:FILE, captions:FOLDER, ...",
    "check": "compare a packed folder with its index: hashes, counts, records, pictures",
    "show": "show random records as the model will see them",
    "stats": "show what packed folders are made of",
    "overlap": "find evaluation records in the training data, by pictures and questions",
    "tokenize": "encode the drawn pictures of packed folders to visual tokens, once",
    "prefer": "make pairs of a run's drawings, the one that a judge prefers beside the other",
    "write-instructions": "write instructions to draw from captions",
}
HELP = ("-h", "--help", "help")


def usage() -> str:
    """Return the text of `vargpt data --help`."""
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: vargpt data VERB [ARGUMENTS]",
            "",
            "Corpora from the files they are published as to the shards that training reads.",
            "",
            "verbs:",
            *(f"  {name:<{width}}  {text}" for name, text in VERBS.items()),
            "",
            "`vargpt data VERB --help` shows a verb's own arguments, with an example.",
            "",
            "example:",
            "  vargpt data pack llava:llava_v1_5_mix665k.json,pictures=images --out data/llava-v1_5-mix665k",
            "",
        ]
    )


def main(argv: list[str]) -> int:
    """Run a verb and return its exit code.

    Raises:
        UserError: there is no such verb.
    """
    if not argv or argv[0] in HELP:
        sys.stdout.write(usage())
        return 0 if argv else 2
    if argv[0] not in VERBS:
        raise UserError(_unknown(argv[0]))
    module = importlib.import_module(f"vargpt_lightning.commands.data.{argv[0].replace('-', '_')}")
    return int(module.main(argv[1:]) or 0)


def _unknown(verb: str) -> str:
    return f"unknown verb '{verb}' of vargpt data; {hint(verb, VERBS, cutoff=0.5)}"
