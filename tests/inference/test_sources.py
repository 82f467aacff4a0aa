"""What parts of a sampler get besides the model, and models that do not go together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vargpt_lightning.inference.load import LoadedRun, load_run, opened
from vargpt_lightning.utils.errors import UserError


@pytest.fixture
def run(finished_run: Path) -> LoadedRun:
    return load_run(finished_run)


def drawn(run: LoadedRun, **parts: Any) -> torch.Tensor:
    """The codes of a drawing with parts."""
    visual = replace(run.settings.visual, parts=parts, cfg=50.0) if run.settings.visual else None
    ids = [*run.prompt(_asked(run)).input_ids, run.model.tokens.image_gen_start]
    prompt = replace(run.prompt(_asked(run)), input_ids=ids)
    (answer,) = run.continue_all([prompt], replace(run.settings, visual=visual, max_images=1, max_new_tokens=3))
    return answer.pictures[0].indices


def _asked(run: LoadedRun) -> Any:
    from vargpt_lightning.inference.assistant import Conversation

    conversation = Conversation()
    conversation.ask("Draw a red disc.")
    return conversation


def test_another_model_and_other_words_guide(run: LoadedRun, finished_run: Path) -> None:
    other = opened(f"{finished_run}#generation")
    with torch.no_grad():  # an untrained head hardly asks what it was given
        run.model.visual_decoder.head.weight.normal_()
    plain = drawn(run)
    run.opened = lambda where: other
    assert not torch.equal(drawn(run, autoguidance={"model": "a worse one"}), plain)
    assert not torch.equal(drawn(run, negative={"prompt": "Draw a blue square."}), plain)
    assert torch.equal(drawn(run, negative={"prompt": ""}), plain)


def test_another_models_tokens_are_refused(run: LoadedRun, finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"#pretrain cannot draw with this model: its image tokenizer has other"):
        drawn(run, autoguidance={"model": f"{finished_run}#pretrain"})
    other = opened(str(finished_run))
    other.tokenizer = type(other.tokenizer).train(["other words"], 280)
    run.opened = lambda where: other
    with pytest.raises(UserError, match=r"another cannot draw with this model: its text tokenizer is another one"):
        drawn(run, autoguidance={"model": "another"})


def test_a_model_that_is_not_there_is_refused(run: LoadedRun, finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere"):
        drawn(run, autoguidance={"model": "runs/nowhere"})
    with pytest.raises(UserError, match=r"nostage"):
        drawn(run, autoguidance={"model": f"{finished_run}#nostage"})
    run.opened = None
    with pytest.raises(UserError, match=r"expected a place where other models can be opened"):
        drawn(run, autoguidance={"model": "elsewhere"})
