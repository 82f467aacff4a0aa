"""What the checks of drawings look at: a run as it was trained, or an experiment's model with fresh weights."""

from __future__ import annotations

from pathlib import Path

import torch

from vargpt_lightning.doctor.drawings import Subject
from vargpt_lightning.inference.assistant import Assistant, Conversation
from vargpt_lightning.utils.errors import UserError

ASKED = ("Please draw a red apple.", "Show me a picture of the sea at night.")
PROMPT = 12  # tokens of a made-up prompt
MOST = 2 * 10**9  # weights of an experiment's model that is built here


def subject_of(where: Path, device: torch.device) -> Subject:
    """Return the model of a run, a converted folder, or an experiment file.

    Raises:
        UserError: it is none of these, or the model is too large to be built here.
    """
    if where.suffix in (".yaml", ".yml"):
        return _experiment(where, device)
    from vargpt_lightning.inference.load import LoadedRun, load

    assistant = load(where, device)
    # a run is loaded in 32 bits whatever it was trained in, a converted folder as it is stored
    dtype = torch.float32 if isinstance(assistant, LoadedRun) else next(assistant.model.parameters()).dtype
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    prompts = [*(_ids(assistant, text) for text in ASKED), [assistant.model.config.tokens.bos]]
    return Subject(assistant.model, prompts, visual, dtype)


def _ids(assistant: Assistant, text: str) -> list[int]:
    conversation = Conversation()
    conversation.ask(text)
    return list(assistant.prompt(conversation).input_ids)


def _experiment(file: Path, device: torch.device) -> Subject:
    from vargpt_lightning.callbacks.batch_rng import seed_everything_at
    from vargpt_lightning.checkpoints.hub import VARGPT
    from vargpt_lightning.experiment.parser import load_experiment

    experiment = load_experiment(file)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in VARGPT(experiment.model).parameters())
    if count > MOST:
        raise UserError(
            f"{file}: the model has {count / 1e9:.1f} billion weights; expected at most {MOST / 1e9:.0f} to build it "
            "here: name a run, or an experiment in small"
        )
    seed_everything_at(experiment.seed, "weights")
    model = VARGPT(experiment.model).eval().requires_grad_(False).to(device)
    given = {key: value for key, value in vars(experiment.sampling).items() if value is not None}
    tokens = model.config.tokens
    special = {value for value in vars(tokens).values() if isinstance(value, int)}
    plain = [token for token in range(model.config.language.vocabulary) if token not in special]
    prompts = [[tokens.bos, *(plain[(start + 7 * place) % len(plain)] for place in range(PROMPT))] for start in (3, 40)]
    return Subject(model, [*prompts, [tokens.bos]], model.sampling_settings(**given), torch.float32)
