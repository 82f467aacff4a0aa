"""The text tokenizer of a run: made once, and held against the model."""

from __future__ import annotations

import shutil

from vargpt_lightning.checkpoints.tokens import load_tokenizer
from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.text.text_tokenizer import FILE_NAME, TextTokenizer
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.models.core.config import VARGPTConfig
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
