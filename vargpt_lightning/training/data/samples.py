"""What a stage's sample grid shows: drawings of fixed prompts, or reconstructions while only a tokenizer is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from PIL import Image

from vargpt_lightning.callbacks.samples import Draw
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.openmoji.pictures import ATTRIBUTION
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN, Record
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.evaluation.systems.own import OwnModel
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.inference.load import Assistant, opened
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings, to_images
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.stage_data import StageData

MANY = 5000
Shown = list[tuple[Image.Image, str]]


def generation_settings(experiment: Experiment, model: VARGPT) -> GenerationSettings:
    """Return the generation settings of an experiment: greedy text, pictures as its `sampling` says."""
    return GenerationSettings(visual=_visual(experiment, model), seed=experiment.seed, max_new_tokens=48)


def _visual(experiment: Experiment, model: VARGPT) -> SamplingSettings:
    given = {key: value for key, value in vars(experiment.sampling).items() if value is not None}
    return model.sampling_settings(**given)


def requests_for(
    experiment: Experiment, model: VARGPT, tokenizer: TextTokenizer, data: StageData, stage: Stage
) -> tuple[Draw, str]:
    """Return the function that draws a stage's sample grid, and whom to credit below it."""
    count = experiment.trainer.samples
    note = ATTRIBUTION if type(data.corpora).__name__ == "OpenMoji" else ""
    if stage.head == "tokenizer":
        return lambda: _reconstructions(model, data, count), note
    if stage.decoder_alone:
        return lambda: _alone(model, count, experiment), note
    records = one_for_each_picture(data.sources("train").values(), count)
    prompts = [request_of(record) for record in records]

    def draw() -> Shown:
        settings = generation_settings(experiment, model)
        assistant = Assistant(model=model, tokenizer=tokenizer, settings=settings, opened=opened)
        said = OwnModel(assistant).draw(prompts, list(range(len(prompts)))) if prompts else []
        shown: Shown = []
        for prompt, answer in zip(prompts, said, strict=True):
            shown += [(part.image, prompt) for part in answer.parts if hasattr(part, "image")][:1]
        return shown

    return draw, note


def _reconstructions(model: VARGPT, data: StageData, count: int) -> Shown:
    x_B3HW = data.drawn_pictures(max(1, count // 2))
    copies = to_images(model.image_tokenizer.reconstruct(x_B3HW))
    pairs = zip(to_images(x_B3HW), copies, strict=True)
    return [cell for real, copy in pairs for cell in ((real, "picture"), (copy, "reconstruction"))]


def _alone(model: VARGPT, count: int, experiment: Experiment) -> Shown:
    labels_B = torch.full((count,), model.null_class, device=model.language_model.lm_head.weight.device)
    generators = [torch.Generator().manual_seed(experiment.seed + row) for row in range(count)]
    sampling = replace(_visual(experiment, model), cfg=0.0, parts={})
    drawing = model.visual_decoder.generate(model.image_tokenizer, labels_B, sampling=sampling, generator=generators)
    return [(image, "") for image in to_images(model.image_tokenizer.decode(drawing.f_hat_BCHW))]


def one_for_each_picture(sources: Iterable[ShardDataset], count: int) -> list[Record]:
    """Return requests for different pictures, spread over the corpora."""
    found: dict[str, Record] = {}
    for source in sources:
        # a corpus of millions is not read for a sheet
        for place in range(0, len(source) if source.draws else 0, max(1, len(source) // MANY)):
            record = source[place]
            if record.turns[0].role == "user" and record.pictures(DRAWN):
                found.setdefault(record.pictures(DRAWN)[0].key, record)
    keys = sorted(found)
    step = max(1, len(keys) // max(count, 1))
    return [found[key] for key in keys[::step][:count]]


def request_of(record: Record) -> str:
    """Return what the user asks for in a record."""
    return next(turn.text for turn in record.turns if turn.role == "user")
