"""Log-probabilities of answers: those of a softmax in float64, token by token and together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.tiny import TREE
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.losses import LogProbabilities

TOKENS, VISUAL = TREE["model"]["tokens"], 5


def model_of(kind: str) -> VARGPT:
    tree = copy.deepcopy(TREE["model"])
    if kind == "bits":
        tree["tokenizer"]["kind"] = "bits"
    torch.manual_seed(0)
    return VARGPT(VARGPTConfig.from_dict(tree)).eval()


def batch_for(model: VARGPT) -> dict[str, Any]:
    """A row that draws two pictures, one that only writes, one that draws one; padded."""
    start, end, gen = TOKENS["image_gen_start"], TOKENS["image_gen_end"], TOKENS["image_gen"]
    picture = [start, *[gen] * VISUAL, end]
    rows = [[1, 20, *picture, 21, *picture, 2], [1, 30, 31, 32, 2], [1, 40, 41, *picture, 2]]
    longest = max(map(len, rows))
    ids_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels_BT = ids_BT.masked_fill((ids_BT == gen) | (ids_BT == end) | (ids_BT == 0), -100)
    labels_BT[:, :2] = -100
    bits = model.image_tokenizer.numbers
    codes = torch.randint(2, (3, VISUAL, bits)) if bits else torch.randint(16, (3, VISUAL))
    return {"input_ids": ids_BT, "attention_mask": ids_BT != 0, "labels": labels_BT, "drawn_indices": codes}


@pytest.mark.parametrize("kind", ["codes", "bits"])
def test_they_are_those_of_a_softmax(kind: str) -> None:
    model = model_of(kind)
    batch = batch_for(model)
    with torch.no_grad():
        output = model(batch, log_probabilities=True, return_text_logits=True)
    found = output.log_probabilities
    every_BTV = output.text_logits.double().log_softmax(-1)
    codes = batch["drawn_indices"]
    if kind == "bits":
        pairs = output.image_logits.double().unflatten(-1, (-1, 2)).log_softmax(-1)
        image_QL = pairs.gather(-1, codes[..., None])[..., 0].sum(-1)
    else:
        image_QL = output.image_logits.double().log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    rows, numbers = [0, 0, 2], 4 if kind == "bits" else 1
    for row, labels_T in enumerate(batch["labels"].tolist()):
        wanted, count = 0.0, 0
        for place, label in enumerate(labels_T):
            value = float(every_BTV[row, place - 1, label]) if label >= 0 else 0.0
            assert float(found.text_BT[row, place]) == pytest.approx(value, abs=1e-5)
            wanted, count = wanted + value, count + (label >= 0)
        drawn = [float(image_QL[q].sum()) for q in range(3) if rows[q] == row]
        assert float(found.of_drawings()[row]) == pytest.approx(sum(drawn), abs=1e-4)
        each = len(drawn) * VISUAL * numbers
        assert float(found.of_answers()[row]) == pytest.approx(wanted + sum(drawn), abs=1e-4)
        assert float(found.of_answers(mean=True)[row]) == pytest.approx((wanted + sum(drawn)) / (count + each), 1e-4)
        assert float(found.of_drawings(mean=True)[row]) == pytest.approx(sum(drawn) / max(each, 1), 1e-4)


def test_without_pictures_there_are_none_of_drawings() -> None:
    model = model_of("codes")
    batch = {key: value[1:2] for key, value in batch_for(model).items() if key != "drawn_indices"}
    with torch.no_grad():
        found: LogProbabilities = model(batch, log_probabilities=True).log_probabilities
    assert found.image_QL is None and found.of_drawings().tolist() == [0.0]
    assert float(found.of_answers()) < 0


def test_a_hidden_prompt_is_not_seen() -> None:
    model = model_of("codes")
    batch = {key: value[-1:] for key, value in batch_for(model).items()}
    other = {**batch, "input_ids": batch["input_ids"].masked_fill(batch["input_ids"] == 41, 50)}

    def drawing(rows: dict[str, Any], hidden: bool) -> float:
        with torch.no_grad():
            found = model(rows, log_probabilities=True, hidden_Q=torch.tensor([hidden])).log_probabilities
        return float(found.of_drawings())

    assert drawing(batch, False) != drawing(other, False)
    assert drawing(batch, True) == drawing(other, True)
