"""A checkpoint opened, of whatever kind: its weights under our names, unread, and what it says of sizes.

| kind | recognised by |
|---|---|
| our directory | config.json with `model_type: vargpt_lightning` |
| a run folder | run.json; the last finished stage is taken |
| a distributed checkpoint of a run | RUN/stages/STAGE/last-*.dcp |
| a model of transformers with a vision tower, such as SigLIP or Qwen2-VL | config.json with its `model_type` |
| LLaVA-1.5, VARGPTModel, VAR and Infinity and their image tokenizers, causal language models | names of tensors |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from vargpt_lightning.checkpoints.format import CONFIG, FOLDER_SUFFIX, MODEL_TYPE, VERSION
from vargpt_lightning.checkpoints.lazy_tensors import FileTensor, Finite, MemoryTensor, open_weights
from vargpt_lightning.checkpoints.locate import locate
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.published.infer_config import scales_of_levels, sizes_of
from vargpt_lightning.checkpoints.published.layouts import Layout
from vargpt_lightning.checkpoints.published.qwen2_vl import sizes_of_qwen2_vl, whole_sections
from vargpt_lightning.data.text.text_tokenizer import FILE_NAME, TextTokenizer
from vargpt_lightning.models import vision as towers
from vargpt_lightning.models.core.config import TokenIds, VARGPTConfig
from vargpt_lightning.models.core.scales import MapSize
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.models.vision.tower import published_of
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json
from vargpt_lightning.utils.yaml_text import load_yaml, told

if TYPE_CHECKING:
    from vargpt_lightning.checkpoints.dcp.tensors import ShardedTensor


@dataclass(frozen=True)
class Checkpoint:
    """Weights under our names, not read yet, and what is known of the model that they are of.

    Attributes:
        source: what it was called when it was opened.
        path: the file or folder.
        layout: of the names in its files.
        state: our names to tensors; those of constants that modules make themselves are left out.
        constants: published names to these constants.
        sections: sections and settings of `VARGPTConfig`, as far as the checkpoint tells them.
        sampling: how drawings are sampled, of our own.
        folder: where the files lie that belong to it, such as the text tokenizer; None for a single file.
    """

    source: str
    path: Path
    layout: Layout
    state: Mapping[str, FileTensor | MemoryTensor | ShardedTensor | Finite]
    constants: dict[str, FileTensor | MemoryTensor]
    sections: dict[str, Any]
    sampling: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The submodules that it holds weights of."""
        found = {key.split(".")[0] for key in self.state}
        return tuple(name for name, attributes in SUBMODULES.items() if attributes[0] in found and len(attributes) == 1)

    @property
    def bitwise(self) -> bool:
        """Whether its pictures are bits."""
        return self.sections.get("tokenizer", {}).get("kind") == "bits"

    @property
    def whole(self) -> bool:
        """Whether it holds a whole model; EfficientNet's weights come with a package."""
        kind = self.sections.get("vision", {}).get("kind", "clip")
        seeing = {"none": {"vision_tower", "vision_projector"}, "efficientnet_lite0": {"vision_tower"}}.get(kind, set())
        row = self.sections.get("class_row") or ("start_embedding" if self.sections.get("preset") == "v1_1" else None)
        starting = set() if row == "start_embedding" else {"start_embedding"}
        return set(layouts.LAYOUT_PARTS["ours"]) <= {*self.parts, *seeing, *starting}

    @property
    def config(self) -> VARGPTConfig:
        """The whole model's configuration.

        Raises:
            UserError: the checkpoint holds some submodules alone.
        """
        if not self.whole:
            missing = ", ".join(part for part in layouts.LAYOUT_PARTS["ours"] if part not in self.parts)
            raise UserError(
                f"{self.source}: holds {', '.join(self.parts)}, but no {missing}; expected a whole model. Parts of one "
                "are named in the section init_from of an experiment"
            )
        return VARGPTConfig.from_dict(self.sections)

    def check(self) -> None:
        """Hold names and shapes of the weights against the model that they are of.

        Raises:
            UserError: one is missing, has no place or another shape.
        """
        with torch.device("meta"):
            model = VARGPTModel(self.config if self.whole else _filled_up(self.sections, self.state))
        parts = [part for part in self.parts if part != "vision_tower" or model.vision_tower is not None]
        layouts.fitting(model, self.state, parts=parts, source=self.source)


def open_checkpoint(
    where: str | Path, scales: Sequence[MapSize] | None = None, sizes: bool = True, **options: object
) -> Checkpoint:
    """Open a checkpoint; no tensor is read but small ones that tell a size.

    Args:
        where: a file, a folder, or a hub id (see `locate`, whose `options` are taken).
        scales: side lengths of the token maps, for published weights that leave them open.
        sizes: False does without the sizes of published weights that no config.json lies beside.

    Raises:
        UserError: there is none, it cannot be read, or it is of no known kind.
    """
    path = locate(where, **options)
    if (path / "run.json").is_file():
        return _open_run(path, str(where))
    if path.suffix == FOLDER_SUFFIX and path.is_dir():
        return _open_unfinished(path.resolve(), str(where))
    config = read_json(path / CONFIG) if path.is_dir() and (path / CONFIG).is_file() else None
    raw = open_weights(path)
    if is_own(config):
        return _open_own(path, str(where), config or {}, raw)
    kind = towers.of_model_type(str((config or {}).get("model_type")))
    if kind is not None and not layouts.is_whole_qwen2_vl(raw):
        return _open_tower(path, str(where), config or {}, raw, kind)
    return _open_published(path, str(where), config, raw, scales, sizes or config is not None)


def is_own(config: Any) -> bool:
    """Whether the content of a config.json is of our directory format."""
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE


def _open_own(
    path: Path, source: str, config: Mapping[str, Any], raw: dict[str, FileTensor | MemoryTensor]
) -> Checkpoint:
    if config.get("version") != VERSION:
        raise UserError(f"{path / CONFIG}: version {config.get('version')!r}; this release reads {VERSION}")
    sections = config.get("model")
    if not isinstance(sections, dict):
        raise UserError(f"{path / CONFIG}: there is no section `model`")
    state = layouts.from_official(raw, "ours").state
    return Checkpoint(source, path, "ours", state, {}, sections, dict(config.get("sampling") or {}), path)


def _open_run(path: Path, source: str) -> Checkpoint:
    folder = RunFolder(path)
    finished = [stage for stage in folder.stages() if stage.status == "finished" and stage.weights.is_file()]
    if not finished:
        raise UserError(f"{path}: none of the run's stages is finished; there are no weights to take")
    return _of_run(folder, source, layouts.from_official(open_weights(finished[-1].weights), "ours").state)


def _open_unfinished(path: Path, source: str) -> Checkpoint:
    """The checkpoint of a stage on its way; a frozen tower, which it leaves out, comes from where the stage had it."""
    folder, index = RunFolder(path.parents[2]), StageFolder(path.parent).index
    from vargpt_lightning.checkpoints.dcp.tensors import open_distributed

    state: dict[str, Any] = dict(open_distributed(path, "model.vargpt."))
    made = _of_run(folder, source, layouts.from_official(state, "ours").state)
    kind = made.sections.get("vision", {}).get("kind")
    if "vision_tower" in made.parts or kind in (None, "none", "efficientnet_lite0"):
        return made
    before = [stage for stage in folder.stages() if stage.index == index - 1 and stage.weights.is_file()]
    given = _experiment(folder).get("init_from") or {}
    where = str(before[0].weights) if before else given.get("vision_tower") or given.get("model")
    if not where:
        raise UserError(f"{source}: has no vision tower, and the run has no weights that it began with")
    tower = open_checkpoint(where, sizes=False).state
    state = {**made.state, **{key: value for key, value in tower.items() if key.startswith("vision_tower.")}}
    return Checkpoint(source, path, "ours", state, {}, made.sections, made.sampling, made.folder)


def _of_run(folder: RunFolder, source: str, state: dict[str, Any]) -> Checkpoint:
    experiment = _experiment(folder)
    sampling = {key: value for key, value in (experiment.get("sampling") or {}).items() if value is not None}
    return Checkpoint(source, folder.path, "ours", state, {}, experiment["model"], sampling, folder.tokenizer)


def _experiment(folder: RunFolder) -> dict[str, Any]:
    try:
        experiment = load_yaml(folder.config_text)
    except yaml.YAMLError as error:
        place, problem = told(error)
        raise UserError(f"{folder.path / 'config.yaml'}{place}: {problem}") from error
    if not isinstance(experiment, dict) or not isinstance(experiment.get("model"), dict):
        raise UserError(f"{folder.path / 'config.yaml'}: expected a run's configuration with a section `model`")
    return experiment


def _open_tower(
    path: Path, source: str, config: Mapping[str, Any], raw: dict[str, FileTensor | MemoryTensor], kind: str
) -> Checkpoint:
    published = published_of(towers.get(kind))
    assert published is not None  # of those alone `kind` is one
    try:
        state, derived = layouts.from_tower(raw, published)
        sections = {"vision": {"kind": kind, **published.sizes(config)}}
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return Checkpoint(source, path, "tower", state, {key: raw[key] for key in derived}, sections)


def _open_published(
    path: Path,
    source: str,
    published: dict[str, Any] | None,
    raw: dict[str, FileTensor | MemoryTensor],
    scales: Any,
    sizes: bool,
) -> Checkpoint:
    try:
        layout = layouts.detect_layout(raw)
        if layout == "ours" and sizes:
            raise UserError(f"holds weights of ours without their {CONFIG}; expected the folder of a model or a run")
        state, derived = layouts.from_official(raw, layout)
        constants = {key: raw[key] for key in derived}
        for key, stored in constants.items():
            if key.endswith("lvl_1L"):
                scales = scales or scales_of_levels(stored.part().flatten().tolist())
        if layout in ("qwen2_vl", "vargpt_v1_1"):
            sections = sizes_of_qwen2_vl(state, published, scales) if sizes else {}
        else:
            sections = sizes_of(state, published, scales, causal=layout == "causal") if sizes else {}
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    plain: dict[str, Any] = {
        key: value if isinstance(value, dict) else asdict(value) for key, value in sections.items()
    }
    if layout == "vargpt_v1_1":
        plain = whole_sections(sections, any(".ln_q." in key for key in state if key.startswith("generation_")))
        plain["tokens"] |= _own_ids(path, plain["tokens"])
    if layout == "vargpt":
        plain |= {"preset": "official", "unused_layer_norm": any(".ln_q." in key for key in state)}
        plain.setdefault("tokens", asdict(TokenIds()))
    folder = path if path.is_dir() else None
    return Checkpoint(source, path, layout, state, constants, plain, folder=folder)


def _own_ids(path: Path, told: dict[str, int]) -> dict[str, int]:
    """The ids of special tokens by the tokenizer beside the weights, where it has those that the weights tell."""
    if not (path / FILE_NAME).is_file():
        return {}
    own = TextTokenizer.load(path, None, told.get("image")).token_ids()
    return {key: value for key, value in own.items() if key in ("bos", "pad")}


def _filled_up(sections: Mapping[str, Any], state: Mapping[str, Any]) -> VARGPTConfig:
    """A model around some submodules, to hold their weights against; what is not known of it does not matter."""
    ids = dict(zip((each.name for each in fields(TokenIds)), range(7), strict=True))
    known = {key: value for key, value in sections.items() if key != "tokens"}
    if "vision" not in known:
        known["vision"] = {"kind": "none"}
    ends = [value for key, value in state.items() if key.startswith("vision_projector.") and key.endswith(".bias")]
    if "language" not in known and ends:  # a projector ends at the language model's width
        known["language"] = {"width": ends[-1].shape[0], "heads": 1}
    return VARGPTConfig.from_dict({**known, "tokens": ids, "class_row": "null"})
