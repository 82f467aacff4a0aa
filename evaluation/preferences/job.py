"""Preference pairs made from a run's own drawings: drawn, judged, paired and packed; killed, the same call goes on.

    OUT/drawings, OUT/drawn, OUT/sampling.json    the drawings (see `images.picture_runs`)
    OUT/scores/                                   the judge's scores (see `scores`)
    OUT/pairs.json                                the pairs, in sharegpt's form: conversations, chosen, rejected, images
    OUT/prompts.jsonl                             what came of each prompt, with all scores
    OUT/counts.json                               how many were drawn, kept, tied, unsure; judge and rules
    OUT/index.html                                chosen beside rejected (see `page`)

Other rules or another judge make other pairs of the same drawings; more candidates are drawn to those that are there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.base.protocols import ImageModel
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_runs import draw_pictures, drawn_rows
from vargpt_lightning.evaluation.preferences.pairs import Outcome, PairRules, pairs_of
from vargpt_lightning.evaluation.preferences.scores import Candidate, Progress, scored
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes, write_json, write_jsonl

if TYPE_CHECKING:  # what scores needs torch
    from vargpt_lightning.inference.sources import Scorer

PAIRS, PROMPTS, COUNTS = "pairs.json", "prompts.jsonl", "counts.json"
PROBED = 8
"""Prompts that are drawn first: where none of them brings a picture, the others are not asked."""


@dataclass(frozen=True)
class Scored:
    """A drawing with its score and the answer that it stands in, the picture's place marked."""

    file: str
    score: float
    answer: str


@dataclass(frozen=True)
class Judged:
    """What came of a prompt: its drawings, and the places of chosen and rejected ones among them."""

    prompt: Prompt
    drawings: tuple[Scored, ...]
    outcome: Outcome
    pairs: tuple[tuple[int, int], ...]


def make_pairs(
    system: Any,
    prompts: Sequence[Prompt],
    judge: str,
    scorer: Callable[[], Scorer],
    out: Path,
    *,
    count: int = 4,
    rules: PairRules | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[Judged], dict[str, Any]]:
    """Draw, judge and pair; return what came of each prompt, and the counts.

    Args:
        system: what draws.
        judge: the scorer's name, for the records.
        scorer: makes it.
        count: drawings of each prompt.
        seed: base of all seeds.

    Raises:
        UserError: the system draws nothing, the folder holds drawings of another system, the judge fails, or no pair
            is left.
    """
    rules = rules or PairRules()
    if count < 2:
        raise UserError(f"count: got {count}, expected 2 drawings of each prompt or more")
    if not isinstance(system, ImageModel):
        raise UserError(f"{getattr(system, 'name', system)}: this system draws no pictures; expected one that does")
    several = {prompt.id: [replace(prompt, id=f"{prompt.id}.{n}") for n in range(count)] for prompt in prompts}
    for some in (prompts[:PROBED], prompts):
        each_one = [each for prompt in some for each in several[prompt.id]]
        drawn = draw_pictures(system, each_one, out, batch_size=batch_size, seed=seed, progress=progress)
        if not drawn.pictures:
            raise UserError(
                f"{getattr(system, 'name', 'the system')} drew no picture for {drawn.prompts} requests, such as "
                f"{prompts[0].text('instruction')!r}; expected a run that draws when it is asked to"
            )
    rows = drawn_rows(out)
    found = {each.id: rows[each.id] for some in several.values() for each in some if rows[each.id]["file"]}
    candidates = [
        Candidate(each.id, each.instruction, out / found[each.id]["file"], found[each.id]["key"])
        for some in several.values()
        for each in some
        if each.id in found
    ]
    scores = scored(candidates, judge, scorer, out, progress=progress)
    judged = [
        _judged(prompt, [found[each.id] for each in several[prompt.id] if each.id in found], scores, rules)
        for prompt in prompts
    ]
    counts = _counts(judged, count) | {"judge": judge, "rules": asdict(rules), "seed": seed}
    write_jsonl(out / PROMPTS, map(_row, judged))
    write_json(out / COUNTS, counts)
    write_bytes(out / PAIRS, _json_lines(pair_rows(judged, judge)))
    if not counts["pairs"]:
        raise UserError(_no_pair(judge, counts, rules))
    return judged, counts


def pair_rows(judged: Iterable[Judged], judge: str) -> list[dict[str, Any]]:
    """Return the pairs in sharegpt's form, as LLaMA-Factory and VARGPT-v1.1 have them: the first picture is chosen."""
    found = []
    for each in judged:
        for number, (chosen, rejected) in enumerate(each.pairs):
            best, worst = each.drawings[chosen], each.drawings[rejected]
            name = f"{each.prompt.id}-{number}" if len(each.pairs) > 1 else each.prompt.id
            said = [{"from": "human", "value": each.prompt.instruction}]
            row: dict[str, Any] = {"id": name, "conversations": said}
            row |= {"chosen": {"from": "gpt", "value": best.answer}, "rejected": {"from": "gpt", "value": worst.answer}}
            row |= {"images": [best.file, worst.file], "judge": judge, "scores": [best.score, worst.score]}
            found.append(row)
    return found


def _judged(prompt: Prompt, rows: Sequence[Mapping[str, Any]], scores: Mapping[str, float], rules: PairRules) -> Judged:
    drawings = tuple(Scored(row["file"], scores[row["id"]], row["answer"]) for row in rows)
    outcome, pairs = pairs_of([each.score for each in drawings], rules)
    return Judged(prompt, drawings, outcome, tuple(pairs))


def _counts(judged: Sequence[Judged], count: int) -> dict[str, Any]:
    outcomes = Counter(each.outcome for each in judged)
    pictures = sum(len(each.drawings) for each in judged)
    found: dict[str, Any] = {"prompts": len(judged), "asked": count * len(judged), "drawn": pictures}
    found |= {name: outcomes[name] for name in ("kept", "tied", "unsure", "single")}
    return found | {"pairs": sum(len(each.pairs) for each in judged)}


def _no_pair(judge: str, counts: Mapping[str, Any], rules: PairRules) -> str:
    """Why no pair is left, with what may help."""
    prompts = counts["prompts"]
    if counts["tied"] == prompts:
        return (
            f"judge {judge!r} scored all drawings of each of {prompts} prompts alike; expected one that tells them "
            "apart, or more drawings of a prompt (--count)"
        )
    told = ", ".join(f"{counts[name]} {name}" for name in ("tied", "unsure", "single") if counts[name])
    least = "" if rules.least is None else f" and a chosen one of {rules.least:g} or more"
    return f"no pair of {prompts} prompts: {told}; expected scores that differ by more than {rules.margin:g}{least}"


def _row(each: Judged) -> dict[str, Any]:
    drawings = [{"file": one.file, "score": one.score, "answer": one.answer} for one in each.drawings]
    row = {"id": each.prompt.id, "instruction": each.prompt.instruction, "outcome": each.outcome}
    return {**row, "pairs": [list(pair) for pair in each.pairs], "drawings": drawings}


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A JSON list with a row a line."""
    return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode()
