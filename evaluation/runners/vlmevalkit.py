"""VLMEvalKit with our systems in it.

    python -m vargpt_lightning.evaluation.runners.vlmevalkit --system run=runs/openmoji --data POPE --model vargpt

VLMEvalKit has no entry points for models: this module adds ours to its table and hands over to its `run`. Tried with
ms-vlmeval 0.0.20, as VLMEvalKit is called on PyPI.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from PIL import Image
from vlmeval.config import supported_VLM
from vlmeval.vlm.base import BaseModel

from vargpt_lightning.evaluation.runners.asking import Asked, Asker
from vargpt_lightning.utils.arguments import more_options
from vargpt_lightning.utils.errors import UserError

NAME, OPTION = "vargpt", "--system"


class VARGPT(BaseModel):
    """A system as VLMEvalKit asks one, a question at a time; see `Asker` for the arguments.

    Args:
        max_new_tokens: of an answer; VLMEvalKit names no length.
    """

    INTERLEAVE = False

    def __init__(self, run: str, max_new_tokens: int = 512, **options: Any) -> None:
        super().__init__()
        self.asker, self.length = Asker(run, 1, **options), max_new_tokens

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer one question about the pictures before it."""
        words = "\n".join(str(part["value"]) for part in message if part["type"] == "text")
        pictures = []
        for part in message:
            if part["type"] == "image":
                with Image.open(part["value"]) as picture:
                    pictures.append(picture.convert("RGB"))
        return self.asker.answers([Asked(words, pictures, self.length)])[0]


def main(words: list[str]) -> None:
    """Add our system under the name vargpt, and run VLMEvalKit with the other words.

    Raises:
        UserError: no run is named.
    """
    options: list[str] = []
    while OPTION in words:
        place = words.index(OPTION)
        options += words[place + 1 : place + 2]
        words = words[:place] + words[place + 2 :]
    given = more_options(options)
    if "run" not in given:
        raise UserError(f"{OPTION}: expected run=MODEL, and perhaps device=NAME or others, each after {OPTION}")
    supported_VLM[NAME] = partial(VARGPT, **given)
    from vlmeval.run import load_env
    from vlmeval.run import main as run

    sys.argv = [sys.argv[0], *words]
    load_env()
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
