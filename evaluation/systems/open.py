"""A system to evaluate, from one word of the command line.

runs/name                        a run folder of this project, or an exported directory
openai:http://host:8000/v1#name  a model behind an OpenAI-compatible endpoint
answers.jsonl, .json, .parquet   a file of answers with ids
drawings/                        a folder of pictures named by ids
path/to/model, owner/name        a transformers model, local or from the hub
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vargpt_lightning.checkpoints.locate import check_place
from vargpt_lightning.data.sources.endings import is_picture
from vargpt_lightning.inference.named import finished_stage
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError, near_path

ENDPOINT = "openai:"
PREDICTIONS = (".jsonl", ".json", ".parquet", ".tsv", ".csv", ".xlsx")
KINDS = (
    "a run folder, openai:http://host/v1#model, a file of answers (.jsonl, .json, .parquet), a folder of drawings, "
    "a directory with a transformers model, or a hub id owner/name"
)


def open_system(text: str, **options: Any) -> Any:
    """Return what the command line's MODEL stands for: something that answers, draws, or both.

    Args:
        text: a folder, a file, an endpoint or a hub id.
        options: those of its kind: stage, cfg, top_k, ... (ours); dtype, template, ... (transformers); concurrency,
            retries, ... (endpoint); allow (files). Options that are None are left out, and `device` is taken wherever
            the system runs.

    Raises:
        UserError: nothing of the kinds above is there, it is broken, or an option does not go with it.
    """
    given = {key: value for key, value in options.items() if value is not None}
    check_system(text, given.get("stage"))
    if text.startswith(ENDPOINT):
        return _endpoint(text, given)
    path = Path(text).expanduser()
    if path.is_file():
        return _predictions(path, given)
    if path.is_dir():
        return _folder(path, given)
    return _transformers(text, given)


def open_detector(text: str, device: str | None = None) -> Any:
    """Return a detector: of transformers by folder or hub id, or a file (.jsonl) of detections.

    Raises:
        UserError: it is neither, or broken.
    """
    path = Path(text).expanduser()
    if path.is_file():
        from vargpt_lightning.evaluation.systems.detections import DetectionFile

        return DetectionFile(path)
    from vargpt_lightning.evaluation.systems.detector import TransformersDetector

    return TransformersDetector(text, device)


def check_system(text: str, stage: str | None = None) -> None:
    """Make sure that MODEL is there, or may be on the hub; nothing is loaded.

    Raises:
        UserError: there is no such file or folder, or the run has no such finished stage.
    """
    path = Path(text).expanduser()
    if text.startswith(ENDPOINT) or path.is_file():
        return
    if path.is_dir():
        if (path / "run.json").is_file():
            finished_stage(RunFolder(path), stage)
        return
    if path.suffix in PREDICTIONS or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise UserError(f"{text}: there is no such file or folder; expected {KINDS}{near_path(path)}")
    check_place(text)


def runs_here(text: str) -> bool:
    """Whether a system computes on this machine: an endpoint and a file of answers do not."""
    return not text.startswith(ENDPOINT) and not Path(text).expanduser().is_file()


def _folder(path: Path, options: Mapping[str, Any]) -> Any:
    if (path / "run.json").is_file() or is_exported(path):
        return _ours(path, options)
    if (path / "config.json").is_file():
        return _transformers(str(path), options)
    if _holds_drawings(path):
        from vargpt_lightning.evaluation.systems.files import Drawings

        return Drawings(path, **_taken(options, ("allow",), "a folder of drawings", idle=("device",)))
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
    raise UserError(f"{path}: holds {there}; expected {KINDS}")


def _holds_drawings(path: Path) -> bool:
    """Whether pictures lie in a folder, or in folders below one that holds nothing but folders (ids with slashes)."""
    files = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    places = files or path.rglob("*")
    return any(is_picture(place.name) and place.is_file() for place in places)


def is_exported(path: Path) -> bool:
    """Whether a folder holds one of our models by itself: its configuration, its tokenizer and its weights."""
    if (path / "config.json").is_file():
        from vargpt_lightning.utils.files import read_json

        config = read_json(path / "config.json")
        return isinstance(config, dict) and config.get("model_type") == "vargpt_lightning"
    return all((path / name).exists() for name in ("config.yaml", "tokenizer", "model.safetensors"))


def _ours(path: Path, options: Mapping[str, Any]) -> Any:
    from dataclasses import replace

    from vargpt_lightning.evaluation.systems.own import OwnSystem
    from vargpt_lightning.inference.load import Assistant, LoadedRun, load_exported, load_run
    from vargpt_lightning.inference.sizes import size_named
    from vargpt_lightning.models.decoder.sampling import SamplingSettings

    drawing = tuple(SamplingSettings.__dataclass_fields__)
    is_run = (path / "run.json").is_file()
    loading = ("stage", "device") if is_run else ("device",)
    what = "a model of this project" if is_run else "an exported directory"
    taken = _taken(options, (*loading, *drawing, "size"), what)
    size = taken.pop("size", None)
    sampling = {key: taken.pop(key) for key in drawing if key in taken}
    name = path.resolve().name
    assistant: Assistant = load_run(path, **taken) if is_run else load_exported(path, **taken)
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    assistant.settings = replace(assistant.settings, visual=replace(visual, **sampling))
    if size is not None:
        assistant.settings = replace(assistant.settings, size=size_named(str(size), assistant.model.config.tokenizer))
    return OwnSystem(assistant, f"{name}/{assistant.stage.name}" if isinstance(assistant, LoadedRun) else name)


def _predictions(path: Path, options: Mapping[str, Any]) -> Any:
    from vargpt_lightning.evaluation.systems.files import Predictions

    if path.suffix not in PREDICTIONS:
        raise UserError(f"{path}: {path.suffix or 'no'} suffix; a file of answers ends with {', '.join(PREDICTIONS)}")
    return Predictions(path, **_taken(options, ("allow",), "a file of answers", idle=("device",)))


def _endpoint(text: str, options: Mapping[str, Any]) -> Any:
    from vargpt_lightning.evaluation.systems.openai_endpoint import EndpointSettings, OpenAIEndpoint

    url, _, model = text.removeprefix(ENDPOINT).partition("#")
    known = tuple(EndpointSettings.__dataclass_fields__)
    return OpenAIEndpoint(url, model, EndpointSettings(**_taken(options, known, "an endpoint", idle=("device",))))


def _transformers(text: str, options: Mapping[str, Any]) -> Any:
    from vargpt_lightning.evaluation.systems.transformers_model import TransformersModel, with_options

    return TransformersModel(text, with_options(**options))


def _taken(options: Mapping[str, Any], known: tuple[str, ...], what: str, idle: tuple[str, ...] = ()) -> dict[str, Any]:
    """The options that go with a kind of system; those of `idle` are left out of it in silence."""
    if unknown := sorted(set(options) - set(known) - set(idle)):
        raise UserError(f"option {unknown[0]!r} does not go with {what}; expected {', '.join(known) or 'none'}")
    return {key: value for key, value in options.items() if key in known}
