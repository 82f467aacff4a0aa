"""Interleaved answers: against the released code, against the training forward, and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import Golden, load_golden
from tests.models.cases import DRAWN, IDS, SEEN, golden_model, make_batch, random_codes, random_features, small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.drawing import draw_pictures
from vargpt_lightning.models.generation.generate import (
    Answer,
    GenerationSettings,
    PicturePart,
    Prompt,
    TextPart,
    Watcher,
    generate,
)
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.utils.errors import UserError

GREEDY = SamplingSettings(greedy=True)
GREEDY_ONE = GenerationSettings(max_images=1, visual=GREEDY)


def words(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("a3_vargpt_tiny_io")


@pytest.fixture(scope="module")
def official() -> VARGPT:
    return golden_model()


def chatty_model(**changes: Any) -> VARGPT:
    """A model that likes to draw: its greedy answers to PROMPTS hold no, one and several pictures amid text."""
    model = small_model(8, **changes)
    with torch.no_grad():
        model.language_model.lm_head.weight[IDS.image_gen_start] *= 1.6
    return model


@pytest.fixture(scope="module")
def chatty() -> VARGPT:
    return chatty_model()


def read(model: VARGPT, ids: Tensor, capacity: int = 60) -> LanguageCache:
    """A cache that has read text."""
    cache = LanguageCache(model.language_model, ids.shape[0], capacity)
    slots = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        cache.run(model.language_model.model.embed_tokens(ids), slots, step_mask(slots, ids.shape[1]))
    return cache


# The released code's values


def test_greedy_picture_agrees_with_the_released_code(gold: Golden, official: VARGPT) -> None:
    prompt = gold.tensors["gen.prompt"]
    cache = read(official, prompt)
    noise = gold.tensors["gen.noise"]
    settings = official.sampling_settings(greedy=True)
    drawing = draw_pictures(official, cache, [0], [6], settings, noise_RLW=noise, keep_logits=True)
    assert torch.equal(drawing.idx_BL, gold.tensors["gen.idx"])
    close(drawing.logits_BLV, gold.tensors["gen.guided_logits"])
    close(drawing.f_hat_BCHW, gold.tensors["gen.f_hat"])
    close((official.image_tokenizer.decode(drawing.f_hat_BCHW) + 1) / 2, gold.tensors["gen.img"])


def test_greedy_text_about_a_picture_agrees_with_the_released_code(gold: Golden, official: VARGPT) -> None:
    ids = gold.tensors["und.input_ids"][0].tolist()
    prompt = Prompt(ids, pixel_values=gold.tensors["und.pixel_values"][:1])
    answer = generate(official, [prompt], words, GenerationSettings(max_new_tokens=8))[0]
    assert ids + answer.token_ids == gold.tensors["und.greedy_generate"][0].tolist()


# Against the training forward


@pytest.mark.parametrize("visual_attention", ["block_causal", "causal"])
@pytest.mark.parametrize("cfg", [0.0, 2.0])
def test_drawing_gives_the_training_forward_s_logits(visual_attention: Any, cfg: float) -> None:
    """Guided logits of a drawing are those of the drawn codes, teacher-forced with and without the prompt."""
    model = small_model(visual_attention=visual_attention, prompt_dropout=1.0)
    prompt = [IDS.bos, 5, 6, 7]
    settings = SamplingSettings(greedy=True, cfg=cfg)
    cache = read(model, torch.tensor([prompt]))
    drawing = draw_pictures(model, cache, [0], [4], settings, keep_logits=True)
    batch = {**make_batch([[*prompt, *DRAWN]]), "drawn_indices": drawing.idx_BL}
    with torch.no_grad():
        with_prompt = model(batch).image_logits
        without_prompt = model.train()(batch).image_logits
    weight = torch.tensor([0, *[1 / 3] * 4, *[2 / 3] * 9, *[1] * 16])[:, None] * cfg
    close(drawing.logits_BLV, (1 + weight) * with_prompt - weight * without_prompt)
    assert (with_prompt - without_prompt).abs().max() > 0.1


def test_noise_takes_the_place_of_the_hidden_states() -> None:
    """With the setting `noise` the other half depends on the noise alone, and comes from the row's own stream."""
    model = small_model(unconditional="noise")
    settings = SamplingSettings(greedy=True, cfg=2.0)

    def logits(seed: int, rows: int) -> Tensor:
        cache = read(model, torch.tensor([[IDS.bos, 5, 6]] * rows))
        streams = [torch.Generator().manual_seed(seed + row) for row in range(rows)]
        drawn = draw_pictures(model, cache, range(rows), [3] * rows, settings, streams, keep_logits=True)
        assert drawn.logits_BLV is not None
        return drawn.logits_BLV

    two = logits(0, 2)
    close(logits(1, 1), two[1:])
    assert (two[0, 1:] - two[1, 1:]).abs().max() > 0.1
    close(two[0, :1], two[1, :1])  # No guidance at the first scale, hence no noise in it.


def test_cache_steps_equal_one_pass_for_rows_of_different_lengths() -> None:
    model = small_model()
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(3, 12, 32, generator=generator)
    with torch.no_grad():
        whole = model.language_model.model(embeds)
        cache = LanguageCache(model.language_model, 3, 12)
        stores = cache.keys_LBHSD.data_ptr(), cache.values_LBHSD.data_ptr()
        slots = torch.arange(7).expand(3, -1)
        cache.run(embeds[:, :7], slots, step_mask(slots, 7))
        # Rows 2 and 0 stand at 7 and 4 tokens: what is beyond a row's length is written over.
        starts = torch.tensor([[7], [4]])
        slots = starts + torch.arange(3)
        inputs = torch.stack([embeds[2, 7:10], embeds[0, 4:7]])
        hidden = cache.run(inputs, slots, step_mask(slots, 10), rows=[2, 0])
    close(hidden[0], whole[2, 7:10])
    close(hidden[1], whole[0, 4:7])
    assert stores == (cache.keys_LBHSD.data_ptr(), cache.values_LBHSD.data_ptr())


def test_a_row_used_again_holds_nothing_of_before() -> None:
    """Not even what is no number, which a mask does not hide."""
    model = small_model()
    cache = read(model, torch.tensor([[IDS.bos, 5, 6, 7]] * 2))
    cache.keys_LBHSD[:, 0], cache.values_LBHSD[:, 0] = torch.nan, torch.nan
    kept = cache.keys_LBHSD[:, 1].clone()
    cache.clear([0])
    assert not cache.keys_LBHSD[:, 0].any() and not cache.values_LBHSD[:, 0].any()
    assert torch.equal(cache.keys_LBHSD[:, 1], kept)
    moved = cache.regrouped([1], 2, 80)
    assert torch.equal(moved.keys_LBHSD[:, 0, :, :60], kept) and not moved.keys_LBHSD[:, 1:].any()
    assert (moved.rows, moved.capacity) == (3, 80)


def test_a_step_says_nothing(recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture) -> None:
    """Transformers warns where its arguments go by old names."""
    read(small_model(), torch.tensor([[1, 5, 6]]))
    assert [str(warning.message) for warning in recwarn] == [] and caplog.messages == []


# Batches


PROMPTS = [
    Prompt([IDS.bos, 5, 6, 7]),
    Prompt([IDS.bos, *SEEN, 8, 9], vision_features=random_features(1)),
    Prompt([IDS.bos, 10, *DRAWN, 11, 12, 13], drawn_indices=random_codes(1)),
    Prompt([IDS.bos, *SEEN, 8, *DRAWN, 30], vision_features=random_features(1, 5), drawn_indices=random_codes(1, 4)),
    Prompt([IDS.bos, 40, 41, 42, 43, 44, 45, 46, 47]),
]


def same(one: Answer, other: Answer) -> bool:
    pictures = [torch.equal(a.indices, b.indices) for a, b in zip(one.pictures, other.pictures, strict=False)]
    return one.token_ids == other.token_ids and one.finished == other.finished and all(pictures)


def answers(model: VARGPT, prompts: Sequence[Prompt] = PROMPTS, **changes: Any) -> list[Answer]:
    settings = GenerationSettings(max_new_tokens=10, max_images=2, visual=GREEDY, batch_size=5)
    return generate(model, prompts, words, replace(settings, **changes))


def test_greedy_answers_do_not_depend_on_their_neighbours(chatty: VARGPT) -> None:
    together, alone = answers(chatty), answers(chatty, batch_size=1)
    assert {len(answer.pictures) for answer in together} == {0, 1, 2}
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("unconditional", ["dropped_prompt", "noise"])
def test_sampled_answers_depend_on_seed_and_row_alone(unconditional: Any) -> None:
    model = chatty_model(unconditional=unconditional)
    sampling: dict[str, Any] = {"temperature": 1.0, "text_top_p": 0.95, "visual": SamplingSettings(top_k=20)}
    together = answers(model, **sampling)
    assert any(answer.pictures for answer in together)
    alone = answers(model, batch_size=1, **sampling)
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))
    third = answers(model, [replace(PROMPTS[2], row=2)], **sampling)[0]
    assert same(third, together[2])
    assert not same(answers(model, [PROMPTS[2]], **sampling)[0], together[2])
    assert not same(answers(model, seed=1, **sampling)[2], together[2])


def test_continued_answer_equals_one_in_a_single_go(chatty: VARGPT) -> None:
    """An answer given back as context, pictures and all, goes on as if it had never stopped."""
    whole = answers(chatty, max_new_tokens=12, max_images=3)
    assert any(len(answer.pictures) > 1 for answer in whole)
    for prompt, expected in zip(PROMPTS, whole, strict=True):
        begun = answers(chatty, [prompt], max_new_tokens=5, max_images=3)[0]
        if begun.finished == "end":
            assert same(begun, expected)
            continue
        codes = [x for x in (prompt.drawn_indices, begun.drawn_indices) if x is not None]
        context = replace(
            prompt,
            input_ids=[*prompt.input_ids, *begun.token_ids],
            drawn_indices=torch.cat(codes) if codes else None,
        )
        left = 3 - len(begun.pictures)
        rest = answers(chatty, [context], max_new_tokens=7, max_images=left)[0]
        assert begun.token_ids + rest.token_ids == expected.token_ids
        for drawn, wanted in zip(begun.pictures + rest.pictures, expected.pictures, strict=True):
            assert torch.equal(drawn.indices, wanted.indices)


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_written_text_has_the_training_forward_s_logits(chatty: VARGPT, number: int) -> None:
    """Before, between and after pictures, each text step computes what one pass over the whole answer does."""
    prompt, steps = PROMPTS[number], []
    hook = chatty.language_model.lm_head.register_forward_hook(lambda _, __, logits: steps.append(logits))
    answer = answers(chatty, [prompt])[0]
    hook.remove()
    row = [*prompt.input_ids, *answer.token_ids]
    codes = [x for x in (prompt.drawn_indices, answer.drawn_indices) if x is not None]
    batch = make_batch([row]) | ({"drawn_indices": torch.cat(codes)} if codes else {})
    if prompt.vision_features is not None:
        batch["vision_features"] = prompt.vision_features
    with torch.no_grad():
        logits = chatty(batch, return_text_logits=True).text_logits[0]
    visual = (IDS.image_gen, IDS.image_gen_end)
    chosen = [i - 1 for i in range(len(prompt.input_ids), len(row)) if row[i] not in visual]
    close(torch.cat(steps), logits[chosen])


# The shape of answers


def test_parts_follow_the_tokens(chatty: VARGPT) -> None:
    answer = max(answers(chatty, keep_scales=True), key=lambda one: len(one.parts))
    assert {type(part) for part in answer.parts} == {TextPart, PicturePart}
    rebuilt: list[int] = []
    for part in answer.parts:
        if isinstance(part, TextPart):
            assert part.text == words(list(part.token_ids))
            rebuilt += part.token_ids
        else:
            rebuilt += DRAWN
            assert part.image.size == (16, 16) and part.indices.shape == (30,)
            assert [one.size for one in part.scales] == [(16, 16)] * 4
            assert part.scales[-1].tobytes() == part.image.tobytes() != part.scales[0].tobytes()
            picture = chatty.image_tokenizer.decode_indices(part.indices[None])[0]
            levels = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0)
            drawn = torch.frombuffer(bytearray(part.image.tobytes()), dtype=torch.uint8).view_as(levels)
            # the scales were added up in another order: a sum beside a half may round to the next level
            assert (drawn.int() - levels.int()).abs().max() <= 1 and (drawn != levels).float().mean() < 0.01
    assert rebuilt == [token for token in answer.token_ids if token != IDS.eos]


def test_kept_logits_are_those_that_codes_were_drawn_from(chatty: VARGPT) -> None:
    settings = SamplingSettings(greedy=True, cfg=2.0)
    pictures = [part for one in answers(chatty, visual=settings, keep_logits=True) for part in one.pictures]
    assert pictures and all(part.logits is not None for part in pictures)
    for part in pictures:
        assert part.logits is not None and torch.equal(part.logits.argmax(dim=-1), part.indices)
    plain = [part for one in answers(chatty, visual=settings) for part in one.pictures]
    assert all(part.logits is None for part in plain)
    assert [part.indices.tolist() for part in plain] == [part.indices.tolist() for part in pictures]


def test_no_more_pictures_than_allowed(chatty: VARGPT) -> None:
    free = answers(chatty)
    none = answers(chatty, max_images=0)
    assert sum(len(answer.pictures) for answer in free) > 0
    assert all(not answer.pictures and IDS.image_gen_start not in answer.token_ids for answer in none)
    assert all(len(answer.pictures) <= 1 for answer in answers(chatty, max_images=1))


def test_text_ends_at_the_end_token_and_at_the_limit(chatty: VARGPT) -> None:
    limited = answers(chatty, max_new_tokens=3, max_images=0)
    assert all(len(answer.token_ids) == 3 for answer in limited if answer.finished == "length")
    first = limited[0].token_ids[0]
    ended = answers(chatty_model(tokens=replace(IDS, eos=first)), max_images=0)[0]
    assert ended.finished == "end" and ended.token_ids == [first] and ended.parts == []


def test_text_has_no_white_space_around_it(chatty: VARGPT) -> None:
    def spaced(ids: list[int]) -> str:
        return f" \n{words(ids)}  " if ids else ""

    settings = GenerationSettings(max_new_tokens=12)
    plain = generate(chatty, PROMPTS, words, settings)
    assert [one.text for one in generate(chatty, PROMPTS, spaced, settings)] == [one.text for one in plain]
    blank = generate(chatty, PROMPTS, lambda ids: " " * len(ids), settings)
    assert [one.parts for one in blank] and all(len(one.parts) == len(one.pictures) for one in blank)
    assert all(one.text == "" for one in blank)


def test_an_answer_ends_before_a_stop(chatty: VARGPT) -> None:
    whole = answers(chatty, max_images=0, max_new_tokens=12)[0]
    fifth = words(whole.token_ids).split(" ")[4]
    cut = answers(chatty, max_images=0, max_new_tokens=12, stop=("none of it", f" {fifth}"))[0]
    assert cut.finished == "stop" and whole.text.partition(f" {fifth}")[0] == cut.text
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)] and len(cut.token_ids) <= 5


def test_placeholders_are_never_written() -> None:
    model = small_model()
    with torch.no_grad():
        model.language_model.lm_head.weight[[IDS.image, IDS.image_gen, IDS.image_gen_end, IDS.pad, IDS.bos]] *= 50
    for answer in answers(model, max_images=0, temperature=1.0, max_new_tokens=20):
        assert not {IDS.image, IDS.image_gen, IDS.image_gen_end, IDS.pad, IDS.bos} & set(answer.token_ids)


@pytest.mark.parametrize(("after_image", "finished"), [("continue", "length"), ("stop", "picture")])
def test_answer_goes_on_after_its_picture_or_stops(after_image: Any, finished: str) -> None:
    model = small_model(after_image=after_image)
    answer = answers(model, [Prompt([IDS.bos, 5, IDS.image_gen_start])], max_images=1)[0]
    assert answer.finished == finished
    assert answer.token_ids[:31] == DRAWN[1:]
    assert (len(answer.parts) > 1) == (after_image == "continue")


def test_start_token_at_the_end_of_a_prompt_is_drawn_from(chatty: VARGPT) -> None:
    """The picture is the one of an answer that wrote the same text and the start token by itself."""
    prompt = PROMPTS[2]
    written = answers(chatty, [prompt])[0]
    begun = written.token_ids[: written.token_ids.index(IDS.image_gen_start) + 1]
    given = answers(chatty, [replace(prompt, input_ids=[*prompt.input_ids, *begun])])[0]
    assert given.token_ids[:31] == DRAWN[1:]
    assert torch.equal(given.pictures[0].indices, written.pictures[0].indices)


@pytest.mark.parametrize("unconditional", ["dropped_prompt", "noise"])
def test_bfloat16_draws(unconditional: Any) -> None:
    model = chatty_model(unconditional=unconditional).bfloat16()
    prompt = replace(PROMPTS[1], input_ids=[*PROMPTS[1].input_ids, IDS.image_gen_start])
    assert len(answers(model, [prompt], visual=None)[0].pictures[0].indices) == 30


# What does not fit


def test_no_picture_is_begun_where_the_context_has_no_room(chatty: VARGPT) -> None:
    small = chatty_model(language=replace(chatty.config.language, max_positions=34))
    roomy, tight = answers(chatty, PROMPTS[:1])[0], answers(small, PROMPTS[:1], max_new_tokens=100)[0]
    assert roomy.pictures and not tight.pictures
    assert 4 + len(tight.token_ids) <= 35 and tight.finished == "length"


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (Prompt([]), "prompt 0: got 0 tokens"),
        (Prompt([IDS.image_gen_start]), "expected some before"),
        (Prompt([5] * 512), "expected fewer than the context's 512"),
        (Prompt([*[5] * 490, IDS.image_gen_start]), "room for a picture of 30 tokens"),
        (Prompt([5, *SEEN]), "positions wait for tokens of seen pictures"),
        (Prompt([5, *DRAWN]), "positions wait for tokens of drawn pictures"),
    ],
)
def test_prompts_that_cannot_be_answered_are_refused(chatty: VARGPT, prompt: Prompt, match: str) -> None:
    with pytest.raises(UserError, match=match):
        answers(chatty, [prompt])


@pytest.mark.parametrize("change", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"text_top_p": 2}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        GenerationSettings(**change)


def test_every_module_has_its_mode_again(chatty: VARGPT) -> None:
    chatty.eval()
    chatty.visual_decoder.train()
    before = [module.training for module in chatty.modules()]
    answers(chatty, PROMPTS[:1])
    assert [module.training for module in chatty.modules()] == before
    chatty.eval()


# Prompts that join


class Doors(Watcher):
    """Lets prompts join one after the other, two steps apart, and keeps the answers."""

    def __init__(self, later: list[Prompt]) -> None:
        self.later, self.steps, self.most = later, 0, 0
        self.answers: dict[int, Answer] = {}

    def joining(self, running: int) -> list[Prompt]:
        self.steps, self.most = self.steps + 1, max(self.most, running)
        return [self.later.pop(0)] if self.later and (self.steps % 2 == 0 or not running) else []

    def ended(self, row: int, answer: Answer) -> None:
        self.answers[row] = answer


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_who_joins_is_answered_as_alone(chatty: VARGPT, temperature: float) -> None:
    """Rows join and leave in the middle of others; none has another answer for it, and slots are used again."""
    own = [
        GenerationSettings(8 + 3 * i, i % 3, temperature, 5 * i, visual=SamplingSettings(top_k=5 + i)) for i in range(5)
    ]
    wanted = [replace(prompt, row=i, settings=own[i]) for i, prompt in enumerate(PROMPTS)] * 2
    doors = Doors(wanted[1:])
    first = answers(chatty, wanted[:1])
    assert same(generate(chatty, wanted[:1], words, watcher=doors)[0], first[0])
    assert sorted(doors.answers) == list(range(10)) and 1 < doors.most < 10
    for i, prompt in enumerate(wanted):
        assert same(doors.answers[i], answers(chatty, [prompt])[0])


def test_a_row_that_draws_waits_for_no_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from vargpt_lightning.models.generation import generate as module

    monkeypatch.setattr(module, "PATIENCE", 5)
    drawn: list[int] = []

    class Clock(Watcher):
        words = 0

        def text(self, row: int, text: str) -> None:
            self.words += row == 0

        def part(self, row: int, part: TextPart | PicturePart) -> None:
            if isinstance(part, PicturePart):
                drawn.append(self.words)

    prompts = [Prompt([IDS.bos, 5, 6, 7]), Prompt([IDS.bos, 5, 6, IDS.image_gen_start])]
    long = GenerationSettings(max_new_tokens=40, max_images=0)
    generate(small_model(8), [replace(prompts[0], settings=long), prompts[1]], words, GREEDY_ONE, Clock())
    assert drawn == [6]
