from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Annotated, Any, get_args, get_origin

import pytest
from openai.types import image_generate_params
from openai.types.chat import completion_create_params

from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.serving import openai_requests
from vargpt_lightning.serving.limits import Limits, RefusedRequestError
from vargpt_lightning.serving.openai_messages import conversation
from vargpt_lightning.serving.openai_requests import ChatRequest, DrawRequest, parse, settings, told_parts

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}]}
DRAW: dict[str, Any] = {"prompt": "x"}
RED = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def chat(**fields: Any) -> ChatRequest:
    return parse(ChatRequest, json.dumps({**CHAT, **fields}).encode())


def draw(**fields: Any) -> DrawRequest:
    return parse(DrawRequest, json.dumps({**DRAW, **fields}).encode())


def refused(call: Any, *given: Any, **fields: Any) -> RefusedRequestError:
    with pytest.raises(RefusedRequestError) as error:
        call(*given, **fields)
    return error.value


PARAMETERS = sorted(completion_create_params.CompletionCreateParamsBase.__annotations__)
UNSUPPORTED = sorted(set(PARAMETERS) - set(ChatRequest.model_fields) - {"web_search_options"})


@pytest.mark.parametrize("key", [*UNSUPPORTED, "top_k", "min_p", "best_of", "echo", "suffix", "chat_template_kwargs"])
@pytest.mark.parametrize("value", [None, 0, 0.0, -0.0, False, "", [], {}])
def test_nothing_may_be_said_in_any_type(key: str, value: Any) -> None:
    chat(**{key: value})


NEUTRAL = {
    "top_k": [-1, -1.0],
    "repetition_penalty": [1, 1.0, None],
    "best_of": [1, 1.0],
    "tool_choice": ["none", "auto"],
    "function_call": ["none", "auto"],
    "reasoning_effort": ["none"],
    "response_format": [{"type": "text"}],
    "modalities": [["text"], ["text", "image"], ["image", "text"]],
    "stream_options": [None, {}, {"include_usage": False}],
    "stop": [None, "", [], [""]],
    "n": [None, 1, 1.0],
    "logit_bias": [{}],
    "web_search_options": [None],
    "skip_special_tokens": [True],
}
ASKED = {
    "top_k": [1, 50, 0.5, True],
    "min_p": [0.1],
    "frequency_penalty": [1, 1.0, -1, 0.1, "0"],
    "presence_penalty": [-1, 1e-9],
    "repetition_penalty": [0, 1.1],
    "logprobs": [True, 1],
    "top_logprobs": [1, -1],
    "logit_bias": [{"1": 1}],
    "tools": [[{"type": "function"}]],
    "functions": [[{}]],
    "tool_choice": ["required", {"type": "function"}],
    "reasoning_effort": ["low"],
    "response_format": [{"type": "json_object"}, {"type": "json_schema"}],
    "modalities": [["audio"], ["text", "audio"]],
    "audio": [{"voice": "a"}],
    "prediction": [{"type": "content"}],
    "web_search_options": [{}, {"search_context_size": "low"}],
    "moderation": [{"mode": "block"}],
    "echo": [True],
    "best_of": [2],
    "unknown": [1, "x", [0], {"a": None}, -1, True],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NEUTRAL.items() for value in values])
def test_what_changes_nothing_passes(key: str, value: Any) -> None:
    chat(**{key: value})


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ASKED.items() for value in values])
def test_what_there_is_not_is_refused_by_name(key: str, value: Any) -> None:
    error = refused(chat, **{key: value})
    assert error.status == 400 and error.code == "unsupported_parameter" and error.param == key and key in str(error)


DRAWING = set(image_generate_params.ImageGenerateParamsBase.__annotations__) - set(DrawRequest.model_fields)


@pytest.mark.parametrize("key", sorted(DRAWING))
@pytest.mark.parametrize("value", [None, 0, "", [], {}])
def test_nothing_may_be_said_of_a_drawing(key: str, value: Any) -> None:
    draw(**{key: value})


def test_what_a_drawing_may_be() -> None:
    for size in (None, "", "auto"):
        draw(size=size, response_format="", output_format="")
    for fields in ({"quality": "hd", "style": "vivid"}, {"background": "opaque"}, {"output_compression": 100}):
        draw(**fields)
    for fields in ({"background": "transparent"}, {"output_compression": 50}, {"svg": {"a": 1}}, {"stop": "x"}):
        assert refused(draw, **fields).code == "unsupported_parameter"
    for fields in ({"response_format": "url"}, {"output_format": "jpeg"}, {"partial_images": -1}):
        assert refused(draw, **fields).param in fields


RANGES: dict[str, tuple[list[Any], str]] = {
    "temperature": ([-1, 2.1, 1e-300, 1e-40, 1e308], "to 2$"),
    "top_p": ([-0.1, 1.1], "from 0 to 1"),
    "image_top_p": ([-0.1, 7], "from 0 to 1"),
    "image_temperature": ([-1, 1e-300, 1e-40, 1e308], "0.0001 to 1000"),
    "image_top_k": ([-1, -(10**30)], "0"),
    "cfg": ([-1, 1e308, 101], "0 .* to 100"),
    "seed": ([2**63, -(2**63) - 1, 10**40], re.escape("-2**63 to 2**63 - 1")),
    "n": ([0, -1], "1 or more"),
    "max_tokens": ([0, -1], "1 or more"),
    "max_completion_tokens": ([0], "1 or more"),
    "max_images": ([-1], "0 or more"),
    "stop": ([list("abcde")], "4"),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, (values, _) in RANGES.items() for value in values])
def test_values_out_of_their_range_are_told_the_range(assistant, key: str, value: Any) -> None:
    error = refused(lambda: settings(assistant, chat(**{key: value}), Limits()))
    assert error.status == 400 and error.param == key and error.code == "invalid_value"
    assert str(error).startswith(f"{key}: got ") and re.search(RANGES[key][1], str(error))


@pytest.mark.parametrize("key", [key for key in RANGES if key not in ("stop", "n")])
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(assistant, key: str, word: str) -> None:
    body = json.dumps({**CHAT, key: 12345}).replace("12345", word).encode()
    error = refused(lambda: settings(assistant, parse(ChatRequest, body), Limits()))
    assert error.status == 400 and error.param == key


def test_a_top_p_of_0_is_the_likeliest(assistant) -> None:
    asked = settings(assistant, chat(top_p=0, temperature=1, image_top_p=0), Limits())
    assert asked.temperature == 0 and asked.visual is not None and asked.visual.greedy
    asked = settings(assistant, chat(top_p=0.5, temperature=1, image_temperature=1), Limits())
    assert (asked.temperature, asked.text_top_p) == (1, 0.5) and asked.visual is not None and not asked.visual.greedy
    assert settings(assistant, chat(stop="a"), Limits()).stop == ("a",)
    assert settings(assistant, chat(stop=["a", "", "b"]), Limits()).stop == ("a", "b")


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def pictured(url: str = RED) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def prompted(assistant, *messages: dict[str, Any]) -> str:
    """The prompt as text, a star in place of each picture."""
    made = conversation(assistant, chat(messages=list(messages)).messages, Limits())
    text = assistant.tokenizer.decode(assistant.prompt(made).input_ids, skip_special=False)
    return re.sub(r"(<image>)+|<image_gen_start>(<image_gen>)+<image_gen_end>", "*", text)


USER: dict[str, Any] = {"role": "user", "content": "?"}
PARTS = {
    "two texts": ([said("a."), said("b.")], "<s>USER: a.\nb. ASSISTANT:"),
    "between pictures": (
        [said("a"), pictured(), said("b"), said("c"), pictured()],
        "<s>USER: a\n*\nb\nc\n*\n ASSISTANT:",
    ),
    "white space beside": ([said("a \n"), pictured(), said("\nb")], "<s>USER: a\n*\nb ASSISTANT:"),
    "lines inside": ([said("a\n\n b")], "<s>USER: a\n\n b ASSISTANT:"),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_become_lines(assistant, case: str) -> None:
    content, expected = PARTS[case]
    assert prompted(assistant, {"role": "user", "content": content}) == expected


def test_parts_of_the_others_become_lines(assistant) -> None:
    system = {"role": "system", "content": [said("Be kind."), said("Be brief.")]}
    answer = {"role": "assistant", "content": [said("a"), said("b"), pictured(), said("c")]}
    assert prompted(assistant, system, USER, answer, USER) == (
        "<s>Be kind.\nBe brief. USER: ? ASSISTANT: a\nb* c</s>USER: ? ASSISTANT:"
    )


MESSAGES: dict[str, Any] = {
    "both kinds": {"role": "user", "content": [{**said("a"), "image_url": {"url": RED}}]},
    "both kinds, a picture": {"role": "user", "content": [{**pictured(), "text": "a"}]},
    "audio in a text": {"role": "user", "content": [{**said("a"), "input_audio": {"data": "a"}}]},
    "no text": {"role": "user", "content": [{"type": "text"}, said("a")]},
    "empty text": {"role": "user", "content": [said(""), said("a")]},
    "blank text": {"role": "user", "content": [said(" \n"), pictured()]},
    "no picture": {"role": "user", "content": [{"type": "image_url"}, said("a")]},
    "empty picture": {"role": "user", "content": [pictured(""), said("a")]},
    "picture is null": {"role": "user", "content": [{"type": "image_url", "image_url": None}]},
    "no parts": {"role": "user", "content": []},
    "nothing": {"role": "user", "content": ""},
    "null": {"role": "user", "content": None},
    "assistant null": {"role": "assistant", "content": None},
    "tool calls": {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
    "tool calls beside text": {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]},
    "function call": {"role": "assistant", "content": "a", "function_call": {"name": "f"}},
    "audio": {"role": "assistant", "content": "a", "audio": {"id": "1"}},
    "refusal": {"role": "assistant", "content": "a", "refusal": "no"},
    "refusal part": {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    "audio part": {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "a"}}]},
    "file part": {"role": "user", "content": [{"type": "file", "file": {"file_id": "a"}}, said("a")]},
    "picture of the system": {"role": "system", "content": [pictured()]},
    "tool": {"role": "tool", "content": "a", "tool_call_id": "1"},
    "order without pictures": {"role": "assistant", "content": "a", "parts": [{"type": "image", "image": 0}]},
    "order twice": {
        "role": "assistant",
        "content": "",
        "images": [pictured()],
        "parts": [{"type": "image", "image": 0}] * 2,
    },
    "order of another text": {"role": "assistant", "content": "a", "parts": [{"type": "text", "text": "b"}]},
    "order of a user": {"role": "user", "content": "a", "parts": [{"type": "text", "text": "a"}]},
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_that_are_refused(assistant, case: str) -> None:
    error = refused(prompted, assistant, USER, MESSAGES[case], USER)
    assert error.status == 400 and error.param and error.param.startswith("messages.1")


def test_messages_may_say_nothing_in_words(assistant) -> None:
    extra = {"tool_calls": [], "function_call": None, "audio": None, "refusal": None, "annotations": [], "name": "Ann"}
    assert prompted(assistant, USER, {"role": "assistant", "content": "", **extra}, USER).endswith("ASSISTANT:")
    assert prompted(assistant, {**USER, "name": "Ann", "content": [{**said("a"), "image_url": None}]})


@pytest.mark.parametrize("value", ["[" * 40, '{"a":' * 40, "[" + "1," * 40], ids=["lists", "objects", "values"])
def test_bodies_of_too_many_values_are_refused_before_they_are_read(monkeypatch, value: str) -> None:
    monkeypatch.setattr(openai_requests, "MOST_VALUES", 30)
    monkeypatch.setattr(ChatRequest, "model_validate_json", lambda body: pytest.fail("was read"))
    error = refused(parse, ChatRequest, b'{"stop": ' + value.encode())
    assert error.status == 400 and re.search(r"has 4[12] brackets and commas; expected 30 at most", str(error))


def test_more_messages_than_there_may_be_are_refused() -> None:
    assert len(chat(messages=CHAT["messages"] * 1000).messages) == 1000
    error = refused(chat, messages=CHAT["messages"] * 1001)
    assert error.param == "messages" and "at most 1000 items" in str(error)


@pytest.mark.parametrize("temperature", [1e-5, 3.0])
def test_a_temperature_is_told_the_range_of_the_api(assistant: Any, temperature: float) -> None:
    error = refused(lambda: settings(assistant, chat(temperature=temperature), Limits()))
    assert str(error).startswith(f"temperature: got {temperature!r}, expected ") and str(error).endswith(" to 2")


def fields_of(kind: type) -> dict[str, str]:
    """The fields of a request by what they take: a number, a whole number, true or false, a text."""
    words = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}
    found = {}
    for name, field in kind.model_fields.items():  # type: ignore[attr-defined]
        inside = [each for each in get_args(field.annotation) if each is not type(None)] or [field.annotation]
        plain = get_args(inside[0])[0] if get_origin(inside[0]) is Annotated else inside[0]
        if get_origin(field.annotation) is not list and (word := words.get(getattr(plain, "__name__", ""))):
            found[name] = word
    return found


WRONG_TYPES = {
    "a number": ["1", "0.5", True, False, [1], {}],
    "a whole number": ["1", True, 1.5, "x", [], {}],
    "true or false": ["true", "false", 0, 1, "yes", [True]],
    "a text": [1, True, 0.5, ["x"], {}],
}


@pytest.mark.parametrize("kind", [ChatRequest, DrawRequest])
def test_values_of_another_type_are_refused_by_name(kind: Any) -> None:
    """ "1" and true are no numbers, whichever field they are given for."""
    fields = fields_of(kind)
    assert {"cfg", "n", "stream", "model", "image_sampler"} <= fields.keys() and len(set(fields.values())) == 4
    for name, expected in fields.items():
        for value in WRONG_TYPES[expected]:
            body = json.dumps({**(CHAT if kind is ChatRequest else DRAW), name: value}).encode()
            error = refused(parse, kind, body)
            assert (error.status, error.param) == (400, name)
            assert str(error) == f"{name}: got {json.dumps(value)}, expected {expected}"


def test_parts_of_the_sampler_are_a_clients_to_choose_but_not_files(assistant: Any) -> None:
    found = settings(assistant, draw(image_parts={"guided_scales": {"stop": 2}}), Limits())
    assert found.visual is not None and found.visual.parts == {"guided_scales": {"stop": 2}}
    for parts, told in (
        ({"guided_scale": {}}, "image_parts: part of a sampler: 'guided_scale'"),
        ({"weights": {"values": [1.0]}}, "image_parts: parts.weights.values: got 1 values"),
        ({"autoguidance": {"model": "/etc"}}, "image_parts: autoguidance.model is the server's to choose"),
    ):
        error = refused(settings, assistant, draw(image_parts=parts), Limits())
        assert (error.status, error.param) == (400, "image_parts") and str(error).startswith(told)
    best_of = {"scorer": "pickscore"}
    own = replace(assistant.settings, visual=SamplingSettings(parts={"best_of": best_of}))
    many = {"best_of": {**best_of, "candidates_each": 200}}
    error = refused(settings, replace(assistant, settings=own), draw(image_parts=many), Limits())
    assert str(error).startswith("image_parts: got 200 candidates of a picture, expected")
    own = replace(assistant.settings, visual=SamplingSettings(parts={"autoguidance": {"model": "runs/a"}}))
    assistant = replace(assistant, settings=own)
    assert settings(assistant, draw(image_parts={"autoguidance": {"model": "runs/a"}}), Limits()).visual is not None


def test_parts_that_change_nothing_are_told_of(assistant: Any) -> None:
    idle = settings(assistant, draw(cfg=0, image_parts={"schedule": {}, "diversear": {}}), Limits())
    assert told_parts(assistant, idle) == {"idle_parts": {"schedule": "cfg is 0, so that there is no guidance"}}
    assert told_parts(assistant, settings(assistant, draw(cfg=1, image_parts={"schedule": {}}), Limits())) == {}


def test_values_below_the_first_level_are_refused_by_their_path() -> None:
    error = refused(chat, stream_options={"include_usage": 1})
    assert error.param == "stream_options.include_usage" and "expected true or false" in str(error)
    content = [{"type": "image_url", "image_url": {"url": 1}}]
    error = refused(chat, messages=[{"role": "user", "content": content}])
    assert error.param == "messages.0.content.0.image_url.url" and "got 1, expected a text" in str(error)
    assert len(str(refused(chat, temperature="9" * 10_000))) < 200, "long values are cut"
    assert chat(n=1.0, temperature=1).n == 1, "JSON does not tell 1.0 from 1"
