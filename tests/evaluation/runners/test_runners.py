"""Plug-ins for other people's runners, with stand-ins that ask as lmms-eval 0.7.3, lm-eval 0.4.13 and VLMEvalKit do.

The packages themselves are not installed here; docs/runners.md says how the plug-ins were tried with them.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.evaluation.base.protocols import AnswerRequest, RefusedError
from vargpt_lightning.evaluation.runners.asking import Asked, Asker, cut, ends
from vargpt_lightning.evaluation.systems import open as systems
from vargpt_lightning.utils.errors import UserError

RED = Image.new("RGB", (4, 4), "red")


class System:
    """Answers with what it was asked, and remembers how many were asked together."""

    name, batch_size = "echo", 2

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def answer(self, requests: Sequence[AnswerRequest]) -> list[str]:
        self.sizes.append(len(requests))
        if refused := {each.id: "no room" for each in requests if each.prompt == "refuse"}:
            raise RefusedError(refused)
        return [f"{each.prompt}|{len(each.pictures)}|{each.max_new_tokens}" for each in requests]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    found = System()

    def open_system(text: str, **options: Any) -> System:
        assert text == "runs/x" and options == {"device": "cpu"}
        return found

    monkeypatch.setattr("vargpt_lightning.evaluation.runners.asking.open_system", open_system)
    return found


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts modules in the place of packages that are not installed."""

    def put(name: str, **contents: Any) -> None:
        parts = name.split(".")
        for place in range(1, len(parts) + 1):
            whole = ".".join(parts[:place])
            if whole not in sys.modules:
                monkeypatch.setitem(sys.modules, whole, types.ModuleType(whole))
        for key, value in contents.items():
            setattr(sys.modules[name], key, value)

    return put


def plug_in(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    whole = f"vargpt_lightning.evaluation.runners.{name}"
    monkeypatch.delitem(sys.modules, whole, raising=False)
    module = importlib.import_module(whole)
    monkeypatch.setitem(sys.modules, whole, module)  # gone again after the test
    return module


def test_questions_are_asked_in_batches_and_cut(system: System) -> None:
    asker = Asker("runs/x", None, device="cpu")
    seen: list[int] = []
    asked = [Asked("<image>\nWhat?", [RED], 5), Asked("One\n\nTwo", [], None, ("\n\n",)), Asked("a <image> b")]
    assert asker.answers(asked, seen.append) == ["What?|1|5", "One", "a <image> b|0|None"]
    assert system.sizes == [2, 1] and seen == [2, 1] and asker.name == "echo"
    assert Asker("runs/x", "3", device="cpu").batch_size == 3 and Asker("runs/x", "auto", device="cpu").batch_size == 2
    with pytest.raises(UserError, match="no room"):
        asker.answers([Asked("refuse")])
    assert (cut("a b c", ("c", "b")), ends(None), ends("x"), ends(["x", "y"])) == ("a ", (), ("x",), ("x", "y"))


def test_lmms_eval_asks_with_pictures_of_its_documents(
    system: System, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Base:
        rank = 0

        def __init__(self) -> None:
            self.task_dict = {"pope": {"test": {3: {"image": RED}}}}

    stand_in("lmms_eval.api.model", lmms=Base)
    stand_in("lmms_eval.models.registry_v2", ModelManifest=lambda name, **more: (name, more))
    module = plug_in("lmms_eval", monkeypatch)
    model = module.VARGPT("runs/x", batch_size="1", max_batch_size=None, device="cpu")
    settings = {"max_new_tokens": 7, "until": ["|"], "temperature": 0}
    request = types.SimpleNamespace(args=("Is it?", settings, lambda doc: [doc["image"]], 3, "pope", "test"))
    assert model.generate_until([request]) == ["Is it?"]
    settings["until"] = []
    assert model.generate_until([request]) == ["Is it?|1|7"]
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="not supported"):
            refused([request])
    name, more = module.manifest()
    assert name == "vargpt" and more["simple_class_path"] == f"{module.__name__}.VARGPT"


def test_lmms_eval_finds_the_plug_in_by_its_entry_point() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    place, _, name = project["entry-points"]["lmms_eval.models"]["vargpt"].partition(":")
    file = Path(__file__).parents[3] / "evaluation" / "runners" / f"{place.rpartition('.')[2]}.py"
    assert place.rpartition(".")[0] == "vargpt_lightning.evaluation.runners" and f"def {name}(" in file.read_text(
        "utf-8"
    )


def test_the_harness_asks_with_or_without_pictures(
    system: System, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    named: dict[str, Any] = {}

    def register_model(name: str) -> Callable[[type], type]:
        return lambda class_: named.setdefault(name, class_)

    stand_in("lm_eval.api.model", LM=object)
    stand_in("lm_eval.api.registry", register_model=register_model)
    model = plug_in("lm_eval", monkeypatch).VARGPT("runs/x", 1, device="cpu", max_batch_size=4)
    assert named["vargpt"] is type(model) and model.MULTIMODAL
    seen = types.SimpleNamespace(args=("<image>Is it?", {"max_gen_toks": 7, "until": ["</s>"]}, {"visual": [RED]}))
    bare = types.SimpleNamespace(args=("Is it?", {}))
    assert model.generate_until([seen, bare], disable_tqdm=True) == ["Is it?|1|7", "Is it?|0|None"]
    with pytest.raises(NotImplementedError, match="not supported"):
        model.loglikelihood_rolling([bare])


def test_vlmevalkit_asks_a_message_at_a_time(
    system: System, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table: dict[str, Any] = {}
    ran: list[list[str]] = []
    stand_in("vlmeval.config", supported_VLM=table)
    stand_in("vlmeval.vlm.base", BaseModel=object)
    stand_in("vlmeval.run", main=lambda: ran.append(sys.argv[1:]), load_env=lambda: None)
    module = plug_in("vlmevalkit", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["x"])
    words = ["--system", "run=runs/x", "--data", "POPE", "--system", "device=cpu", "--model", "vargpt"]
    module.main([*words, "--system", "max_new_tokens=9"])
    assert ran == [["--data", "POPE", "--model", "vargpt"]]
    RED.save(tmp_path / "red.png")
    message = [{"type": "image", "value": str(tmp_path / "red.png")}, {"type": "text", "value": "Is it?"}]
    assert table["vargpt"]().generate_inner(message) == "Is it?|1|9"
    with pytest.raises(UserError, match=r"--system: expected run=MODEL"):
        module.main(["--data", "POPE"])


def test_asking_opens_what_evaluate_opens() -> None:
    from vargpt_lightning.evaluation.runners import asking

    assert asking.open_system is systems.open_system
