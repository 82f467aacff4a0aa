"""Samplers of installed packages: what they are given, and what is refused of what they return."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.installed import install, on_the_path
from tests.models.decoder.test_sampling import fixed_step, seeded
from vargpt_lightning.models.decoder import samplers
from vargpt_lightning.models.decoder.sampling import SamplingSettings, next_scale_loop
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.utils.errors import UserError

PROJECT = """
[project]
name = "tiny-samplers"
version = "2.0"
[project.entry-points."vargpt_lightning.samplers"]
"""
SAMPLERS = """
import torch

CALLS = []


def second(logits_BlV, settings, generator):
    CALLS.append((tuple(logits_BlV.shape), settings, generator))
    return logits_BlV.topk(2, dim=-1).indices[..., 1]


def drawn(logits_BlV, settings, generator):
    chances_NV = logits_BlV.softmax(dim=-1).flatten(0, 1)
    return torch.multinomial(chances_NV, 1, generator=generator).view(logits_BlV.shape[:-1])


def short(logits_BlV, settings, generator):
    return logits_BlV.argmax(dim=-1)[:, :1]


def outside(logits_BlV, settings, generator):
    return logits_BlV.argmax(dim=-1) * 0 + logits_BlV.shape[-1]


def listed(logits_BlV, settings, generator):
    return logits_BlV.argmax(dim=-1).tolist()


NOTHING = 0
"""
NAMES = ("second", "drawn", "short", "outside", "listed", "NOTHING")


@pytest.fixture(autouse=True)
def site(tmp_path: Path) -> Iterator[None]:
    entries = "".join(f'{name} = "tiny_samplers.some:{name}"\n' for name in NAMES)
    entries += 'away = "tiny_samplers.away:sample"\n'
    install(tmp_path, PROJECT + entries, {"tiny_samplers/__init__.py": "", "tiny_samplers/some.py": SAMPLERS})
    with on_the_path(tmp_path):
        yield


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    sizes = {"channels": 8, "channel_multipliers": (1, 2), "residual_blocks": 1, "code_size": 4, "vocabulary": 16}
    return ImageTokenizer(scales=(1, 2), **sizes).eval()  # type: ignore[arg-type]


def test_it_sees_guided_logits_before_temperature_and_filters(tokenizer: ImageTokenizer) -> None:
    settings = SamplingSettings(sampler="second", temperature=5.0, top_k=1, cfg=2.0)
    drawing = next_scale_loop(fixed_step(tokenizer, 3), tokenizer, settings, seeded(0), keep_logits=True)
    assert drawing.logits_BLV is not None
    assert torch.equal(drawing.idx_BL, drawing.logits_BLV.topk(2, dim=-1).indices[..., 1])
    from tiny_samplers.some import CALLS  # type: ignore[import-not-found]

    assert [shape for shape, _, _ in CALLS] == [(3, 1, 16), (3, 4, 16)]
    assert all(isinstance(stream, torch.Generator) and given is settings for _, given, stream in CALLS)


def test_rows_with_generators_of_their_own_are_independent(tokenizer: ImageTokenizer) -> None:
    settings = SamplingSettings(sampler="drawn", cfg=0.0)
    together = next_scale_loop(fixed_step(tokenizer, 2), tokenizer, settings, [seeded(4), seeded(5)])
    alone = next_scale_loop(fixed_step(tokenizer, 1), tokenizer, settings, [seeded(4)])
    assert torch.equal(together.idx_BL[:1], alone.idx_BL)


def test_greedy_takes_the_likeliest_whatever_the_sampler(tokenizer: ImageTokenizer) -> None:
    settings = SamplingSettings(sampler="second", greedy=True, cfg=0.0)
    drawing = next_scale_loop(fixed_step(tokenizer, 1), tokenizer, settings, keep_logits=True)
    assert drawing.logits_BLV is not None
    assert torch.equal(drawing.idx_BL, drawing.logits_BLV.argmax(dim=-1))


WRONG = [
    ("short", r"sampler 'short': tiny-samplers 2.0 \(tiny_samplers.some:short\) returned \(1, 1\) .*expected \(1, 4\)"),
    ("outside", r"sampler 'outside': tiny-samplers 2.0 .* chose codes from 16 to 16; expected 0 to 15"),
    ("listed", r"sampler 'listed': tiny-samplers 2.0 .* returned list; expected \(1, 1\) of torch.int64"),
]


@pytest.mark.parametrize(("name", "told"), WRONG, ids=[name for name, _ in WRONG])
def test_what_are_no_codes_is_refused(name: str, told: str, tokenizer: ImageTokenizer) -> None:
    with pytest.raises(UserError, match=told):
        next_scale_loop(fixed_step(tokenizer, 1), tokenizer, SamplingSettings(sampler=name, cfg=0.0))


UNKNOWN = [
    ({"sampler": "secnd"}, r"^sampler: 'secnd'; there are default, .*second.*did you mean 'second'"),
    ({"sampler": "away"}, r"sampler 'away': tiny-samplers 2.0 .* cannot be imported: ModuleNotFoundError"),
    ({"sampler": "NOTHING"}, r"sampler 'NOTHING': tiny-samplers 2.0 .* is no function; expected one such as"),
    ({"sampler": "second", "smooth": True}, r"^smooth: got True, expected False with the sampler 'second'"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "told"), UNKNOWN, ids=[told for _, told in UNKNOWN])
def test_settings_refuse_it_before_anything_is_drawn(keys: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        SamplingSettings(**keys)  # type: ignore[arg-type]


def test_names_are_listed_without_an_import() -> None:
    assert samplers.names() == ("default", *sorted([*NAMES, "away"]))
    assert "tiny_samplers.some" not in sys.modules
    assert SamplingSettings(sampler="second").recorded()["sampler"] == "second"
