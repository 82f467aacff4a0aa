"""The text tokenizer of a run: made once, and held against the model."""

from __future__ import annotations

import shutil
from pathlib import Path

from vargpt_lightning.checkpoints.tokens import load_tokenizer
from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.text.text_tokenizer import FILE_NAME, TextTokenizer
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.recipe.heads import PREFERENCES
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError


def run_tokenizer(experiment: Experiment, run: RunFolder, make: bool = True) -> TextTokenizer:
    """The run's text tokenizer; it is made, or made again while no stage has used it."""
    file = run.tokenizer / FILE_NAME
    if not make:
        return TextTokenizer.load(file, experiment.model.own_chat)
    if not file.is_file() or not any(folder.record.get("hash") for folder in run.stages()):
        temporary = run.tokenizer.with_name(".tokenizer.tmp")
        data_tokenizer(experiment.data, experiment.model).save(temporary)
        shutil.rmtree(run.tokenizer, ignore_errors=True)
        temporary.rename(run.tokenizer)
    return load_tokenizer(experiment.model, file, run.tokenizer)


def check_reference_tokenizer(experiment: Experiment, tokenizer: TextTokenizer) -> None:
    """Refuse a first stage that learns from preferences beside a run whose text tokenizer is another one.

    Raises:
        UserError: naming both, and what to write.
    """
    place = experiment.init_from.model
    file = Path(place or "").expanduser() / "tokenizer" / FILE_NAME
    if experiment.stages[0].head not in PREFERENCES or not place or not file.is_file():
        return
    other = TextTokenizer.load(file, experiment.model.own_chat).fingerprint
    if other != tokenizer.fingerprint:
        raise UserError(
            f"init_from.model={place}: its text tokenizer is {other}, the experiment's is {tokenizer.fingerprint}; the "
            f"reference would read other words. Expected data.tokenizer: {file.parent}"
        )


def data_tokenizer(data: Corpora, model: VARGPTConfig) -> TextTokenizer:
    """The text tokenizer that the data name or train, with the chat template that the model writes conversations by."""
    if path := getattr(data, "tokenizer", ""):
        return TextTokenizer.load(path, model.own_chat, model.tokens.image)
    if model.chat_template == "tokenizer":
        raise UserError(
            "model.chat_template: 'tokenizer', but data names no tokenizer, and one that is trained on texts has no "
            "chat template; expected data.tokenizer, the folder of a language model's, or built_in"
        )
    return data.text_tokenizer()
