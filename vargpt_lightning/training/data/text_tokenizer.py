"""The text tokenizer of a run: made once, and held against the model."""

from __future__ import annotations

import shutil

from vargpt_lightning.checkpoints.tokens import check_tokens
from vargpt_lightning.data.text.text_tokenizer import FILE_NAME, TextTokenizer
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.runs.folder import RunFolder


def run_tokenizer(experiment: Experiment, run: RunFolder, make: bool = True) -> TextTokenizer:
    """The run's text tokenizer; it is made, or made again while no stage has used it."""
    file = run.tokenizer / FILE_NAME
    if not make:
        return TextTokenizer.load(file)
    if not file.is_file() or not any(folder.record.get("hash") for folder in run.stages()):
        temporary = run.tokenizer.with_name(".tokenizer.tmp")
        experiment.data.text_tokenizer().save(temporary)
        shutil.rmtree(run.tokenizer, ignore_errors=True)
        temporary.rename(run.tokenizer)
    tokenizer = TextTokenizer.load(file)
    check_tokens(experiment.model, tokenizer, run.tokenizer)
    return tokenizer
