"""Everything that is measured on a folder of drawings, and the one file in which it ends: OUT/images.json.

OUT/images.json      {"metrics", "settings", "n", "marks", "versions", "created"}, and the sampled "model", "digest"
OUT/samples.jsonl    one row a drawing: id, instruction, caption, drawing, reference, clip and other scores
OUT/.work/           features and scores of an unfinished measurement, removed at its end
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.files import file_stem, short_hash
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import (
    ALLOWED,
    LOSSY,
    list_pictures,
    pair,
)
from vargpt_lightning.evaluation.images.picture_runs import ROWS, SETTINGS, drawn_rows, row_key
from vargpt_lightning.evaluation.images.settings import (
    ON_INCEPTION,
    PACKAGES,
    PAIRED,
    RESULT,
    SAMPLES,
    TWO_SIDED,
    WORK,
    Measurement,
    MeasureSettings,
    Progress,
)
from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.provenance import package_versions
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, write_json, write_jsonl

RULES = ("variant", "clip_model", "clip_weights", "clip_text")  # figures of two of these are not comparable
NAMED = {"model": "name", "digest": "digest"}  # of the system that drew, as benchmarks name it

if TYPE_CHECKING:  # the command's help must not wait for torch
    from vargpt_lightning.evaluation.features.clip import ClipModel


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
    left_out: Collection[str] = (),
    processes: Processes | None = None,
    progress: Progress | None = None,
    replace: bool = True,
) -> dict[str, Any]:
    """Measures a folder of drawings and writes OUT/images.json and OUT/samples.jsonl; returns the former.

    Args:
        prompts: what was asked, paired by id; without them every picture of the folder counts, and CLIP has no words.
        reference: a folder of real pictures, or saved statistics (.npz); None takes the prompts' own references.
        save_statistics: where the drawings' feature sums go, to be a reference later.
        export_adm: where the drawings go as the ADM evaluator reads them; `export_adm_statistics`: with mu and sigma.
        clip_model: one that is loaded already; else the settings name it.
        left_out: ids of prompts beyond a limit: their drawings are no part of the measurement.
        replace: write over what was measured of other drawings, or in another way.

    Raises:
        UserError: whatever a person can put right: see the functions called, each of which says what it refuses.
    """
    from vargpt_lightning.evaluation.images import distances

    settings = settings or MeasureSettings()
    if not replace:
        _check_free(drawings, out, settings)
    if "mind" in settings.metrics:
        _monge_distance()
    work = _gather(drawings, out, settings, prompts, left_out, processes or Processes(), progress)
    if work.wants(*TWO_SIDED):
        distances.find_reference(work, reference)
    if work.wants("clip", *PAIRED) and not work.prompts:
        names = ", ".join(name for name in ("clip", *PAIRED) if work.wants(name))
        raise UserError(f"{names}: there are no words to score; name the prompt file with --prompts")
    if work.wants(*ON_INCEPTION) or save_statistics or export_adm_statistics:
        distances.inception_distances(work, save_statistics, export_adm_statistics)
    if work.wants("fd_dinov2"):
        distances.dinov2_distance(work)
    if work.wants("prc_vgg16"):
        distances.vgg16_precision_recall(work)
    if clip_model is None and work.wants("clip", "cmmd"):
        clip_model = _load_clip(settings)
    if clip_model is not None and work.wants("cmmd"):
        distances.clip_discrepancy(work, clip_model)
    scores: dict[str, dict[str, Any]] = {}
    if clip_model is not None and work.wants("clip"):
        scores["clip"] = {row["id"]: row["clip"] for row in _clip(work, clip_model)}
    if work.wants(*PAIRED):
        from vargpt_lightning.evaluation.images.pair_scores import score_kinds

        scores |= score_kinds(work)
    if export_adm is not None and work.processes.first:
        from vargpt_lightning.evaluation.images.adm_npz import write_adm

        write_adm(export_adm, work.drawings)
    return _finish(work, scores)


def _monge_distance() -> None:
    """Raises UserError: MIND is measured through torch-fidelity, and that does not have it (0.4.0)."""
    import torch_fidelity

    version = torch_fidelity.__version__
    raise UserError(f"mind: torch-fidelity {version} does not have it; leave it out, or use kid, which it has")


def _check_free(drawings: Path, out: Path, settings: MeasureSettings) -> None:
    """Refuse a folder with the result of other drawings, or of others' rules."""
    if not (out / RESULT).is_file():
        return
    before = read_json(out / RESULT)
    ways: dict[str, tuple[Any, Any]] = {"drawings": (before.get("drawings"), str(drawings.resolve()))}
    ways |= {name: ((before.get("settings") or {}).get(name), str(getattr(settings, name))) for name in RULES}
    for name, (old, new) in ways.items():
        if old is not None and old != new:
            raise UserError(
                f"{out / RESULT} is of {name} {old}, and this is of {new}; expected another --out, or --replace to "
                "write over it"
            )


def _gather(
    folder: Path,
    out: Path,
    settings: MeasureSettings,
    prompts: Sequence[Prompt],
    left_out: Collection[str],
    processes: Processes,
    progress: Progress | None,
) -> Measurement:
    aside = {name for id_ in left_out for name in (id_, file_stem(id_))}
    sampled = (folder / ROWS).is_dir()
    found = [file for file in list_pictures(folder) if file.id not in aside]
    work = Measurement(settings, out, processes, progress, found, list(prompts), str(folder.resolve()))
    if sampled:
        work.facts["sampling"] = read_json(folder / SETTINGS)
    if prompts:
        if sampled:
            _check_rows(folder, prompts, settings.allow)
        pairs = pair(prompts, found, settings.allow)
        work.drawings, work.prompts = pairs.drawings, pairs.prompts
        asked = [[prompt.id, prompt.instruction, prompt.caption] for prompt in prompts]
        work.facts["prompts"] = {"n": len(prompts), "digest": short_hash(asked), "left_out": len(left_out)}
        for name, ids in (("missing", pairs.missing), ("unknown", pairs.unknown)):
            if ids:
                work.marks.append(f"{name}: {len(ids)} {ALLOWED[name]}, such as {ids[0]!r}")
    lossy = sum(file.path.suffix.lower() in LOSSY for file in work.drawings)
    if lossy:
        work.marks.append(f"lossy: {lossy} drawings were compressed with loss, which moves FID")
    work.n = len(work.drawings)
    return work


def _check_rows(folder: Path, prompts: Sequence[Prompt], allow: Collection[str]) -> None:
    """What sampling left behind must be of these prompts, and a picture of each.

    A prompt file that was changed after the sampling would pair drawings with words that they were not drawn for.
    """
    drawn, how = drawn_rows(folder), read_json(folder / SETTINGS)
    rows = [(prompt, drawn[prompt.id]) for prompt in prompts if prompt.id in drawn]
    for prompt, row in rows:
        if row["key"] != row_key(prompt, how["seed"], how["text"]):
            raise UserError(
                f"prompt {prompt.id!r} was changed after {folder} was sampled; sample again, or use its file"
            )
    without = [prompt.id for prompt, row in rows if row["file"] is None]
    if len(without) == len(prompts):
        raise UserError(f"{folder}: none of {len(prompts)} answers holds a picture; there is nothing to measure")
    if without and "missing" not in allow:
        raise UserError(
            f"{len(without)} of {len(prompts)} prompts were answered without a picture, such as {without[0]!r}; "
            "add --allow missing to measure the others, and the result is marked"
        )


def _clip(work: Measurement, model: ClipModel) -> list[dict[str, Any]]:
    from vargpt_lightning.evaluation.images import clip_score

    set_ = work.settings
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
    from vargpt_lightning.evaluation.features.clip import open_clip_model, transformers_clip

    if settings.clip_library == "transformers":
        return transformers_clip(settings.clip_weights, settings.device)
    return open_clip_model(settings.clip_model, settings.clip_weights, settings.device, settings.clip_quick_gelu)


def _finish(work: Measurement, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    given = {name: getattr(work.settings, name) for name in work.settings.__dataclass_fields__}
    marks = list(dict.fromkeys(work.marks))
    result = {"metrics": work.metrics, "settings": {**given, **work.facts}, "n": work.n, "marks": marks}
    result |= {key: work.facts["sampling"].get(of) for key, of in NAMED.items() if "sampling" in work.facts}
    result |= {"drawings": work.source, "versions": package_versions(PACKAGES), "created": now()}
    if work.processes.first:
        write_jsonl(work.out / SAMPLES, _samples(work, scores))
        write_json(work.out / RESULT, result)
        shutil.rmtree(work.out / WORK, ignore_errors=True)
    work.processes.wait()
    return result


def _samples(work: Measurement, scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    scores = {"clip": {}, **scores}
    prompts = {prompt.id: prompt for prompt in work.prompts}
    rows = []
    for file in work.drawings:
        prompt = prompts.get(file.id, Prompt(file.id, ""))
        row = {"id": file.id, "instruction": prompt.instruction, "caption": prompt.caption}
        reference = None if prompt.reference is None else _short(prompt.reference, work.out)
        own = {name: values.get(file.id) for name, values in scores.items()}
        rows.append({**row, "drawing": _short(file.path, work.out), "reference": reference, **own})
    return rows


def _short(path: Path, out: Path) -> str:
    """The path below OUT where it lies there, else the whole one."""
    try:
        return path.resolve().relative_to(out.resolve()).as_posix()
    except ValueError:
        return str(path.resolve())
