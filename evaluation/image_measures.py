"""Everything that is measured on a folder of drawings, and the one file in which it ends: OUT/images.json.

OUT/images.json      {"metrics", "settings", "n", "marks", "versions", "created"}
OUT/samples.jsonl    one row a drawing: id, instruction, caption, drawing, reference, clip
OUT/.work/           features and scores of an unfinished measurement, removed at its end
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.instruct_set import Prompt
from vargpt_lightning.evaluation.picture_lists import (
    ALLOWED,
    LOSSY,
    PictureFile,
    list_pictures,
    pair,
    references,
)
from vargpt_lightning.evaluation.picture_runs import ROWS, SETTINGS, drawn_rows, row_key
from vargpt_lightning.evaluation.processes import Processes
from vargpt_lightning.provenance import package_versions
from vargpt_lightning.results import now, read_json, write_json, write_jsonl

if TYPE_CHECKING:  # the command's help must not wait for torch
    from vargpt_lightning.evaluation.clip_score import ClipModel
    from vargpt_lightning.evaluation.feature_store import Measured
    from vargpt_lightning.evaluation.feature_sums import Moments

METRICS = ("fid", "sfid", "kid", "isc", "prc", "prc_vgg16", "fd_dinov2", "mind", "clip")
ON_INCEPTION = ("fid", "sfid", "kid", "isc", "prc")
TWO_SIDED = ("fid", "sfid", "kid", "prc", "prc_vgg16", "fd_dinov2")
ON_PICTURES = ("sfid", "kid", "prc", "prc_vgg16", "fd_dinov2")  # saved statistics of FID are not enough for these
PACKAGES = ("vargpt-lightning", "torch", "torchvision", "torch-fidelity", "open-clip-torch", "transformers", "pillow")
VARIANTS = ("torch_fidelity", "clean", "adm")
WORK, RESULT, SAMPLES = ".work", "images.json", "samples.jsonl"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured and how; all of it goes into the result.

    Raises UserError for a name that is not known.
    """

    metrics: tuple[str, ...] = ("fid", "isc", "clip")
    variant: str = "torch_fidelity"
    layer: str = "2048"
    inception_weights: Path | None = None
    vgg16_weights: Path | None = None
    clip_library: str = "open_clip"
    clip_model: str = "ViT-L-14"
    clip_weights: str = "openai"
    clip_quick_gelu: bool | None = None
    clip_text: str = "caption"
    clip_clamp: str = "none"
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    isc_splits: int = 10
    prc_neighbours: int = 3
    resize_and_crop: int | None = None
    batch_size: int = 64
    device: str = "cpu"
    layout: str = "contiguous"
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, given, known in (("metric", self.metrics, METRICS), ("allowance", self.allow, tuple(ALLOWED))):
            for name in given:
                if name not in known:
                    raise UserError(f"{what} {name!r}; expected some of {', '.join(known)}")
        if self.variant not in VARIANTS:
            raise UserError(f"variant {self.variant!r}; expected one of {', '.join(VARIANTS)}")
        if self.clip_library not in ("open_clip", "transformers"):
            raise UserError(f"CLIP library {self.clip_library!r}; expected open_clip or transformers")
        if self.batch_size < 1:
            raise UserError(f"batch size {self.batch_size}; expected 1 or more")


@dataclass
class _Work:
    """One measurement on its way."""

    settings: MeasureSettings
    out: Path
    processes: Processes
    progress: Progress | None
    drawings: list[PictureFile]
    prompts: list[Prompt]
    real: list[PictureFile] = field(default_factory=list)
    real_moments: Moments | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)
    n: int = 0

    def wants(self, *names: str) -> bool:
        return any(name in self.settings.metrics for name in names)


def measure(
    drawings: Path,
    out: Path,
    settings: MeasureSettings | None = None,
    *,
    prompts: Sequence[Prompt] = (),
    reference: Path | None = None,
    save_statistics: Path | None = None,
    export_adm: Path | None = None,
    export_adm_statistics: Path | None = None,
    clip_model: ClipModel | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures a folder of drawings and writes OUT/images.json and OUT/samples.jsonl; returns the former.

    Args:
        prompts: what was asked, paired by id; without them every picture of the folder counts, and CLIP has no words.
        reference: a folder of real pictures, or saved statistics (.npz); None takes the prompts' own references.
        save_statistics: where the drawings' feature sums go, to be a reference later.
        export_adm: where the drawings go as the ADM evaluator reads them; `export_adm_statistics`: with mu and sigma.
        clip_model: one that is loaded already; else the settings name it.

    Raises:
        UserError: whatever a person can put right: see the functions called, each of which says what it refuses.
    """
    settings = settings or MeasureSettings()
    if "mind" in settings.metrics:
        from vargpt_lightning.evaluation.frechet import monge_distance

        monge_distance()
    work = _gather(drawings, out, settings, prompts, processes or Processes(), progress)
    if work.wants(*TWO_SIDED):
        _find_reference(work, reference)
    if work.wants("clip") and not work.prompts:
        raise UserError("clip: there are no words to score; name the prompt file with --prompts")
    if work.wants(*ON_INCEPTION) or save_statistics or export_adm_statistics:
        _inception(work, save_statistics, export_adm_statistics)
    if work.wants("fd_dinov2"):
        _dinov2(work)
    if work.wants("prc_vgg16"):
        _vgg16(work)
    scores = _clip(work, clip_model) if work.wants("clip") else []
    if export_adm is not None and work.processes.first:
        from vargpt_lightning.evaluation.adm_npz import write_adm

        write_adm(export_adm, work.drawings)
    return _finish(work, scores)


def _gather(
    folder: Path,
    out: Path,
    settings: MeasureSettings,
    prompts: Sequence[Prompt],
    processes: Processes,
    progress: Progress | None,
) -> _Work:
    found = list_pictures(folder)
    work = _Work(settings, out, processes, progress, found, list(prompts))
    if prompts:
        pairs = pair(prompts, found, settings.allow)
        if (folder / ROWS).is_dir():
            _check_rows(folder, pairs.prompts)
        work.drawings, work.prompts = pairs.drawings, pairs.prompts
        for name, ids in (("missing", pairs.missing), ("unknown", pairs.unknown)):
            if ids:
                work.marks.append(f"{name}: {len(ids)} {ALLOWED[name]}, such as {ids[0]!r}")
    lossy = sum(file.path.suffix.lower() in LOSSY for file in work.drawings)
    if lossy:
        work.marks.append(f"lossy: {lossy} drawings were compressed with loss, which moves FID")
    work.n = len(work.drawings)
    return work


def _check_rows(folder: Path, prompts: Sequence[Prompt]) -> None:
    """A prompt file that was changed after the sampling would pair drawings with words that they were not drawn for."""
    drawn, how = drawn_rows(folder), read_json(folder / SETTINGS)
    for prompt in prompts:
        row = drawn.get(prompt.id)
        if row is not None and row["key"] != row_key(prompt, how["seed"], how["text"]):
            raise UserError(
                f"prompt {prompt.id!r} was changed after {folder} was sampled; sample again, or use its file"
            )


def _find_reference(work: _Work, reference: Path | None) -> None:
    from vargpt_lightning.evaluation.feature_sums import load_moments

    if reference is None:
        if not work.prompts:
            names = ", ".join(name for name in work.settings.metrics if name in TWO_SIDED)
            raise UserError(f"{names}: nothing to compare with; name --reference (a folder, or .npz) or --prompts")
        work.real = references(work.prompts)
        work.facts["reference"] = "the prompts' own pictures"
        work.facts["reference_distinct"] = len({file.path for file in work.real})
    elif reference.suffix == ".npz":
        needs = [name for name in work.settings.metrics if name in ON_PICTURES]
        if needs:
            raise UserError(f"{reference}: {', '.join(needs)} need real pictures; statistics are for fid alone")
        work.real_moments = load_moments(reference)
        work.facts["reference"] = {"file": reference.name, **work.real_moments.about}
    else:
        work.real = list_pictures(reference)
        work.facts["reference"] = str(reference)


def _measured(work: _Work, side: str, extractor: Any, sums: Sequence[str], keep: Sequence[str]) -> Measured:
    from vargpt_lightning.evaluation.feature_store import measure_features, resize_and_crop

    size = work.settings.resize_and_crop
    found = measure_features(
        work.drawings if side == "drawn" else work.real,
        extractor,
        work.out / WORK / side,
        sum_layers=sums,
        keep_layers=keep,
        batch_size=work.settings.batch_size,
        allow=work.settings.allow,
        prepare=None if size is None else resize_and_crop(size),
        prepared_as="" if size is None else f"resize and crop {size}",
        processes=work.processes,
        progress=work.progress,
        title=f"{extractor.name}, {side} pictures",
    )
    if found.broken:
        work.marks.append(f"broken: {found.broken} {side} pictures do not decode")
    if side == "drawn":
        work.n = found.count
    work.facts[f"{side}_list"] = found.digest
    work.facts[f"{side}_n"] = found.count
    return found


def _inception(work: _Work, save_statistics: Path | None, export_adm_statistics: Path | None) -> None:
    from vargpt_lightning.evaluation.frechet import inception_score, kernel_distance, moments, precision_recall
    from vargpt_lightning.evaluation.inception import SPATIAL, FeatureExtractor

    set_, layer = work.settings, work.settings.layer
    spatial = work.wants("sfid") or export_adm_statistics is not None
    sums = [layer] * (work.wants("fid") or bool(save_statistics or export_adm_statistics)) + [SPATIAL] * spatial
    keep = [layer] * work.wants("kid", "prc") + ["logits_unbiased"] * work.wants("isc")
    wanted = list(dict.fromkeys([*sums, *keep]))
    extractor = FeatureExtractor(
        wanted, set_.inception_weights, variant=set_.variant, device=set_.device, layout=set_.layout
    )
    work.facts["inception"] = {**extractor.about, "layer": layer}
    if work.real_moments is not None:
        _require_before_measuring(work.real_moments, {**extractor.about, "layer": layer})
    _enough_pictures(work, extractor.sizes(), {"fid": layer, "sfid": SPATIAL})
    drawn = _measured(work, "drawn", extractor, sums, keep)
    if save_statistics is not None and work.processes.first:
        drawn.sums[layer].save(save_statistics)
    if export_adm_statistics is not None and work.processes.first:
        _export_statistics(work, export_adm_statistics, drawn, layer)
    if work.wants("isc"):
        work.metrics |= inception_score(drawn.features["logits_unbiased"], variant=set_.variant, splits=set_.isc_splits)
    if work.real:
        real = _measured(work, "real", extractor, sums, [name for name in keep if name == layer])
        for name, on in (("fid", layer), ("sfid", SPATIAL)):
            if work.wants(name):
                _distance(work, name, moments(drawn.sums[on]), moments(real.sums[on]))
        if work.wants("kid"):
            sizes = {"subsets": set_.kid_subsets, "subset_size": set_.kid_subset_size}
            work.metrics |= kernel_distance(drawn.features[layer], real.features[layer], **sizes)
        if work.wants("prc"):
            both = drawn.features[layer], real.features[layer]
            work.metrics |= precision_recall(*both, neighbours=set_.prc_neighbours)
    elif work.real_moments is not None:
        _distance(work, "fid", moments(drawn.sums[layer]), work.real_moments)


def _require_before_measuring(real: Moments, about: dict[str, Any]) -> None:
    """Says that statistics do not fit before the drawings are measured, which may take hours."""
    from vargpt_lightning.evaluation.feature_sums import require_alike

    require_alike(about, real.about)


def _enough_pictures(work: _Work, sizes: dict[str, int], layers: dict[str, str]) -> None:
    """Refuses too few pictures before they are measured."""
    from vargpt_lightning.evaluation.frechet import check_samples

    real = len(work.real) if work.real_moments is None else work.real_moments.count
    for name, layer in layers.items():
        if work.wants(name):
            check_samples(name, sizes[layer], len(work.drawings), real, work.settings.allow)


def _distance(work: _Work, name: str, drawn: Moments, real: Moments) -> None:
    from vargpt_lightning.evaluation.frechet import check_samples, frechet_distance

    work.marks += check_samples(name, len(drawn.mu), drawn.count or 0, real.count, work.settings.allow)
    if real.count is not None and real.count != drawn.count:
        work.marks.append(f"counts_differ: {name} of {drawn.count} drawn pictures against {real.count} real ones")
    work.metrics[name] = frechet_distance(drawn, real)


def _export_statistics(work: _Work, path: Path, drawn: Measured, layer: str) -> None:
    from vargpt_lightning.evaluation.adm_npz import write_adm
    from vargpt_lightning.evaluation.inception import SPATIAL

    if layer != "2048" or work.settings.variant == "clean":
        raise UserError(
            f"ADM statistics of layer {layer}, variant {work.settings.variant}; expected layer 2048 and not clean"
        )
    pool, spatial = drawn.sums[layer], drawn.sums[SPATIAL]
    found = {"mu": pool.mean(), "sigma": pool.covariance(), "mu_s": spatial.mean(), "sigma_s": spatial.covariance()}
    write_adm(path, work.drawings, found)


def _dinov2(work: _Work) -> None:
    from vargpt_lightning.evaluation.frechet import moments
    from vargpt_lightning.evaluation.inception import DINOV2, FeatureExtractor

    extractor = FeatureExtractor(["dinov2"], name=DINOV2, device=work.settings.device, layout=work.settings.layout)
    work.facts["dinov2"] = extractor.about
    _enough_pictures(work, extractor.sizes(), {"fd_dinov2": "dinov2"})
    drawn, real = (_measured(work, side, extractor, ["dinov2"], []) for side in ("drawn", "real"))
    _distance(work, "fd_dinov2", moments(drawn.sums["dinov2"]), moments(real.sums["dinov2"]))


def _vgg16(work: _Work) -> None:
    from vargpt_lightning.evaluation.frechet import precision_recall
    from vargpt_lightning.evaluation.inception import VGG16, FeatureExtractor

    set_ = work.settings
    extractor = FeatureExtractor(["fc2_relu"], set_.vgg16_weights, name=VGG16, device=set_.device, layout=set_.layout)
    work.facts["vgg16"] = extractor.about
    drawn, real = (_measured(work, side, extractor, [], ["fc2_relu"]) for side in ("drawn", "real"))
    both = drawn.features["fc2_relu"], real.features["fc2_relu"]
    found = precision_recall(*both, neighbours=set_.prc_neighbours)
    work.metrics |= {f"{name}_vgg16": value for name, value in found.items()}


def _clip(work: _Work, model: ClipModel | None) -> list[dict[str, Any]]:
    from vargpt_lightning.evaluation import clip_score

    set_ = work.settings
    model = model or _load_clip(set_)
    rows = clip_score.score_pairs(
        model,
        work.prompts,
        work.drawings,
        work.out / WORK / "clip",
        text=set_.clip_text,
        clamp=set_.clip_clamp,
        batch_size=set_.batch_size,
        allow=set_.allow,
        processes=work.processes,
        progress=work.progress,
    )
    found = clip_score.summary(rows)
    work.metrics |= found
    work.facts["clip"] = {**model.settings, "text": set_.clip_text, "clamp": set_.clip_clamp}
    if broken := len(rows) - int(found["clip_n"]):
        work.marks.append(f"broken: {broken} drawings without a CLIP score")
    if found["clip_truncated"]:
        work.marks.append(f"truncated: {int(found['clip_truncated'])} texts were cut to the CLIP model's length")
    work.n = int(found["clip_n"])
    return rows


def _load_clip(settings: MeasureSettings) -> ClipModel:
    from vargpt_lightning.evaluation.clip_score import open_clip_model, transformers_clip

    if settings.clip_library == "transformers":
        return transformers_clip(settings.clip_weights, settings.device)
    return open_clip_model(settings.clip_model, settings.clip_weights, settings.device, settings.clip_quick_gelu)


def _finish(work: _Work, scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    given = {name: getattr(work.settings, name) for name in work.settings.__dataclass_fields__}
    marks = list(dict.fromkeys(work.marks))
    result = {"metrics": work.metrics, "settings": {**given, **work.facts}, "n": work.n, "marks": marks}
    result |= {"versions": package_versions(PACKAGES), "created": now()}
    if work.processes.first:
        write_jsonl(work.out / SAMPLES, _samples(work, scores))
        write_json(work.out / RESULT, result)
        shutil.rmtree(work.out / WORK, ignore_errors=True)
    work.processes.wait()
    return result


def _samples(work: _Work, scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    clip = {row["id"]: row["clip"] for row in scores}
    prompts = {prompt.id: prompt for prompt in work.prompts}
    rows = []
    for file in work.drawings:
        prompt = prompts.get(file.id, Prompt(file.id, ""))
        row = {"id": file.id, "instruction": prompt.instruction, "caption": prompt.caption}
        reference = None if prompt.reference is None else _short(prompt.reference, work.out)
        rows.append({**row, "drawing": _short(file.path, work.out), "reference": reference, "clip": clip.get(file.id)})
    return rows


def _short(path: Path, out: Path) -> str:
    """The path below OUT where it lies there, else the whole one."""
    try:
        return path.resolve().relative_to(out.resolve()).as_posix()
    except ValueError:
        return str(path.resolve())
