"""Our scores of prompt-following beside the authors' own functions, on random evidence.

    python -m tests.benchmarks.agree_prompts AUTHORS [--cases 20000] [--write tests/data/prompt_following.json]

AUTHORS holds copies of the authors' files, which are imported and run, with stand-ins for what needs a GPU:
geneval/ (evaluate_images.py, summary_scores.py), ella/ (compute_dpg_bench.py), t2i/ (2D_spatial_eval.py, BLIP_vqa.py,
3_in_1.py, and the prompts), wise/ (calculate_verified.py, vllm_eval.py) and wise_legacy/ (Calculate.py, gpt_eval.py).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import math
import os
import random
import runpy
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.base.prompt_benchmark import Detection
from vargpt_lightning.evaluation.prompt_following import dpg_bench, geneval, t2i_compbench, wise
from vargpt_lightning.evaluation.rules.prompt_words import Words, prompt_words

Case = dict[str, Any]
SIDES = ("left of", "right of", "above", "below")
LABELS = ("cat", "dog", "bench", "hair drier")


def functions(file: Path, names: Sequence[str], **given: Any) -> dict[str, Any]:
    """Some of a file's functions and constants, run among `given` names; the rest of the file is not run."""
    kept: list[ast.stmt] = []
    for node in ast.parse(file.read_text("utf-8")).body:
        targets = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        if getattr(node, "name", None) in names or set(targets) & set(names):
            kept.append(node)
    space: dict[str, Any] = {"np": np, "json": json, "math": math, **given}
    exec(compile(ast.Module(kept, []), str(file), "exec"), space)
    return space


# ------------------------------------------------------------------------------------------------------------ GenEval


def geneval_case(dice: random.Random) -> Case:
    """A prompt's metadata and detections, many of them at thresholds, in ties, and with centres in line."""
    tag = dice.choice(("single_object", "two_object", "counting", "colors", "position", "color_attr"))
    labels = dice.sample(LABELS, 2)
    include: list[dict[str, Any]] = [{"class": labels[0], "count": dice.choice((1, 1, 2, 3))}]
    if tag in ("two_object", "position", "color_attr"):
        include.append({"class": labels[1], "count": dice.choice((1, 1, 2))})
    if tag == "position":
        include[1]["position"] = [dice.choice(SIDES), 0]
    if tag in ("colors", "color_attr"):
        for each in include:
            each["color"] = dice.choice(geneval.COLOURS[:3])
    record: Case = {"tag": tag, "include": include, "prompt": "a photo"}
    if tag == "counting":
        record["exclude"] = [{"class": labels[0], "count": include[0]["count"] + 1}]
    objects = []
    for _ in range(dice.choice((0, 1, 2, 3, 5, 24))):
        left, top = dice.choice((0, 10, 50)) + dice.randint(0, 60), dice.choice((0, 10, 50)) + dice.randint(0, 60)
        right, bottom = left + dice.randint(0, 60), top + dice.randint(0, 60)
        box = [float(np.float32(side + dice.choice((0, 0.5, dice.random())))) for side in (left, top, right, bottom)]
        sure = dice.choice((0.3, 0.9, 0.29, 0.31, 0.95, 0.99, dice.random()))
        colour = dice.choice(geneval.COLOURS[:3])
        objects.append({"label": dice.choice(labels), "score": float(np.float32(sure)), "box": box, "colour": colour})
    return {"record": record, "objects": objects}


def geneval_theirs(folder: Path) -> Callable[[Case], Any]:
    names = ["COLORS", "compute_iou", "relative_position", "evaluate", "evaluate_image"]
    space = functions(folder / "evaluate_images.py", names, classnames=LABELS, object_detector=None)
    space |= {"THRESHOLD": 0.3, "COUNTING_THRESHOLD": 0.9, "MAX_OBJECTS": 16, "NMS_THRESHOLD": 1.0}
    space["POSITION_THRESHOLD"] = 0.1
    now: Case = {}
    space["Image"] = types.SimpleNamespace(open=lambda path: None)
    space["ImageOps"] = types.SimpleNamespace(exif_transpose=lambda image: None)

    def detect(detector: Any, path: str) -> list[np.ndarray]:
        boxes: dict[str, list[Any]] = {label: [] for label in LABELS}
        now["colours"] = {}
        for each in now["objects"]:
            boxes[each["label"]].append([*each["box"], each["score"]])
            now["colours"][(each["label"], *boxes[each["label"]][-1])] = each["colour"]
        return [np.array(rows, np.float32).reshape(-1, 5) for rows in boxes.values()]

    space["inference_detector"] = detect
    space["color_classification"] = lambda image, those, label: [
        now["colours"][(label, *box.tolist())] for box, _ in those
    ]

    def theirs(case: Case) -> Any:
        now.clear()
        now.update(case)
        return bool(space["evaluate_image"]("00000/samples/0000.png", case["record"])["correct"])

    return theirs


def geneval_ours(case: Case) -> Any:
    objects = [Detection(each["label"], each["score"], tuple(each["box"]), each["colour"]) for each in case["objects"]]
    return geneval.score({geneval.OBJECTS: objects}, case["record"]).value == 1


def geneval_figures(folder: Path, dice: random.Random, count: int) -> tuple[Any, Any]:
    """The authors' summary, in the digits that it prints, and ours of the same results."""
    rows = []
    for place in range(count):
        tag = ("single_object", "counting", "position")[place // 4 % 3]
        record = {"tag": tag, "prompt": f"p{place // 4}", "include": []}
        row = {
            "filename": f"{place // 4:05d}/samples/{place % 4:04d}.png",
            "correct": dice.random() < 0.4,
            "reason": "",
        }
        rows.append({**row, "tag": tag, "prompt": record["prompt"], "metadata": json.dumps(record)})
    with tempfile.TemporaryDirectory() as place_:
        file = Path(place_, "results.jsonl")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = printed(folder / "summary_scores.py", str(file))
        records = [{**json.loads(row["metadata"]), "id": row["filename"][:5], "category": row["tag"]} for row in rows]
        found = geneval.read_results(file, records[::4])
        scores = [geneval.score(found[row["filename"][:-4]], record) for row, record in zip(rows, records, strict=True)]
    figures = geneval.aggregate(records, scores)
    ours = {"overall": f"{figures['overall']:.5f}", "pictures": f"{figures['pictures']:.2%}"}
    ours["prompts"] = f"{figures['prompts']:.2%}"
    ours |= {tag: f"{figures[tag]:.2%}" for tag in ("single_object", "counting", "position")}
    theirs = {"overall": text.split("tasks): ")[1].split()[0]}
    for name, mark in (("pictures", "correct images: "), ("prompts", "correct prompts: ")):
        theirs[name] = text.split(mark)[1].split()[0]
    theirs |= {
        line.split("=")[0].strip(): line.split("= ")[1].split()[0]
        for line in text.splitlines()
        if " = " in line and "(" in line
    }
    return theirs, ours


def printed(file: Path, *words: str) -> str:
    """What a script prints."""
    said, before = io.StringIO(), sys.argv
    sys.argv = [str(file), *words]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(file), run_name="__main__")
    finally:
        sys.argv = before
    return said.getvalue()


# ---------------------------------------------------------------------------------------------------------- DPG-Bench


def dpg_case(dice: random.Random) -> Case:
    """Questions with dependencies, sometimes on later ones or on ones that are missing, and a VQA system's words."""
    count = dice.randint(1, 9)
    questions = {}
    for number in range(1, count + 1):
        parents = dice.sample(range(count + 1), dice.choice((1, 1, 1, min(2, count + 1))))
        parents = [parent if dice.random() < 0.995 else 99 for parent in parents]
        category = dice.choice(("entity - whole", "attribute - color", "relation - spatial", "global", "other - count"))
        questions[str(number)] = {"after": parents, "tuple": f"{category} (a, b)"}
    pictures = [
        {name: dice.choice(("yes", "yes", "yes", "no", "2", "yes it is", "")) for name in questions} for _ in range(4)
    ]
    return {"questions": questions, "pictures": pictures}


def dpg_theirs(folder: Path) -> Callable[[Case], Any]:
    space = functions(folder / "compute_dpg_bench.py", ["crop_image", "compute_dpg_one_sample"], osp=os.path)
    space["Image"] = types.SimpleNamespace(open=lambda path: types.SimpleNamespace(crop=lambda corners: corners[:2]))

    def theirs(case: Case) -> Any:
        rows = case["questions"]
        value = {
            "qid2tuple": {int(name): each["tuple"] for name, each in rows.items()},
            "qid2dependency": {int(name): each["after"] for name, each in rows.items()},
            "qid2question": {int(name): name for name in rows},
        }
        corners = {(0, 0): 0, (8, 0): 1, (0, 8): 2, (8, 8): 3}
        vqa = types.SimpleNamespace(vqa=lambda picture, question: case["pictures"][corners[picture]][question])
        arguments = types.SimpleNamespace(pic_num=4, res_path=os.devnull)
        try:
            score, _, answers = space["compute_dpg_one_sample"](arguments, {"0": value}, "0.png", vqa, 8)
        except KeyError:
            return None
        return [score, {str(name): float(answer) for name, answer in answers.items()}]

    return theirs


def dpg_ours(case: Case) -> Any:
    rows = case["questions"]
    questions = {
        name: {"after": [str(parent) for parent in each["after"] if parent], "category": each["tuple"].split("(")[0]}
        for name, each in rows.items()
    }
    record = {"id": "0", "questions": questions}
    scores = [dpg_bench.score(found, record) for found in case["pictures"]]
    figures = dpg_bench.aggregate([record] * 4, scores)
    return None if figures["left_out"] else [figures["score"], scores[-1].parsed]


def dpg_table(folder: Path, dice: random.Random, count: int) -> tuple[Any, Any]:
    """The questions that their code and ours read in one table: numbers, words, dependencies, categories."""
    import csv
    from collections import defaultdict

    import pandas

    theirs = functions(folder / "compute_dpg_bench.py", ["prepare_dpg_data"], pd=pandas, defaultdict=defaultdict)
    rows, place = [], 0
    while len(rows) < count:
        place += dice.choice((1, 1, 1, 0))
        for number in range(1, dice.randint(2, 9)):
            after = ", ".join(str(each) for each in dice.sample(range(9), dice.randint(1, 3)))
            said = f'{dice.choice(("entity - whole", "global"))} ({number}, "x")'
            rows.append([f"item{place}", "Some, text", "", number, after, "", "", said, f"Is it, {number}?"])
    names = ["item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed"]
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, dpg_bench.FILE)
        with open(file, "w", newline="") as table:
            csv.writer(table).writerows([[*names, "tuple", "question_natural_language"], *rows])
        found = theirs["prepare_dpg_data"](types.SimpleNamespace(csv=str(file)))
        records = dpg_bench.load(file)
    one = {
        item: {
            str(number): [
                text,
                [str(each) for each in each_["qid2dependency"][number] if each],
                each_["qid2tuple"][number].split("(")[0].strip(),
            ]
            for number, text in each_["qid2question"].items()
        }
        for item, each_ in found.items()
    }
    other = {
        record["id"]: {
            name: [each["text"], each["after"], each["category"]] for name, each in record["questions"].items()
        }
        for record in records
    }
    return one, other


# ------------------------------------------------------------------------------------------------------ T2I-CompBench


class Number(float):
    """A number as torch gives it."""

    def item(self) -> float:
        return float(self)


def spatial_case(dice: random.Random) -> Case:
    labels = ["cat", "person", "car"]
    one, place, other = (
        dice.choice(("cat", "girl")),
        dice.choice((*t2i_compbench.PLACES, "under")),
        dice.choice(("car", "man")),
    )
    prompt = f"a {one} {place} a {other}"
    words = prompt.split()
    objects = []
    for _ in range(dice.choice((0, 1, 2, 3, 6))):
        left, top = dice.randint(0, 400), dice.randint(0, 400)
        box = [left, top, left + dice.randint(1, 300), top + dice.randint(1, 300)]
        box = [float(np.float32(side + dice.choice((0, dice.random())))) for side in box]
        objects.append({"label": dice.choice(labels), "score": float(np.float32(dice.random())), "box": box})
    return {"prompt": prompt, "objects": objects, "nouns": [words[1], words[-1]]}


def spatial_theirs(folder: Path) -> Callable[[Case], Any]:
    """The statements of their loop, from the place words to the score, run on a case."""
    file = folder / "2D_spatial_eval.py"
    tree = ast.parse(file.read_text("utf-8"))
    main = next(node for node in tree.body if getattr(node, "name", "") == "main")
    loop = next(
        node
        for node in ast.walk(main)
        if isinstance(node, ast.For) and ast.unparse(node.iter) == "range(len(test_pred))"
    )
    texts = [ast.unparse(node) for node in loop.body]
    first = next(place for place, text in enumerate(texts) if text.startswith("vocab_spatial"))
    last = next(place for place, text in enumerate(texts) if text.startswith("if score < 0.5"))
    body = [node for node in loop.body[first : last + 1] if "args.complex" not in ast.unparse(node)]
    space = functions(file, ["determine_position"])
    code = compile(ast.Module(body, []), str(file), "exec")

    def theirs(case: Case) -> Any:
        own = dict(space, prompt=case["prompt"], obj1=case["nouns"][0], obj2=case["nouns"][1])
        own["obj"] = [each["label"] for each in case["objects"]]
        own["obj_bounding_box"] = [each["box"] for each in case["objects"]]
        own["instance_score"] = [Number(each["score"]) for each in case["objects"]]
        exec(code, own)
        return float(own["score"])

    return theirs


def spatial_ours(case: Case) -> Any:
    objects = [Detection(each["label"], each["score"], tuple(each["box"])) for each in case["objects"]]
    return t2i_compbench.placed(objects, tuple(case["nouns"]), case["prompt"])


def words_of_prompts(folder: Path, pipeline: Any) -> tuple[Any, Any]:
    """Noun phrases and objects of their own prompts, by their statements and ours on the same parsed sentences."""
    main = next(
        node
        for node in ast.parse((folder / "2D_spatial_eval.py").read_text("utf-8")).body
        if getattr(node, "name", "") == "main"
    )
    branch = next(
        node for node in ast.walk(main) if isinstance(node, ast.If) and ast.unparse(node.test) == "args.complex"
    )
    phrases = next(
        node
        for node in ast.walk(ast.parse((folder / "BLIP_vqa.py").read_text("utf-8")))
        if isinstance(node, ast.For) and ast.unparse(node.iter) == "doc.noun_chunks"
    )
    objects_code, phrases_code = (compile(ast.Module([each], []), "authors", "exec") for each in (branch, phrases))
    spacy = types.SimpleNamespace(load=lambda name: pipeline)
    theirs, ours = [], []
    for category in (*t2i_compbench.ATTRIBUTES, "spatial", "complex"):
        for prompt in filter(None, (folder / f"{category}_val.txt").read_text("utf-8").splitlines()):
            doc = pipeline(prompt.strip())
            for complete in (False, True):
                own: dict[str, Any] = {"spacy": spacy, "prompt": prompt.strip(), "doc": doc, "noun_phrases": []}
                own["args"] = types.SimpleNamespace(complex=complete)
                with contextlib.suppress(IndexError):  # of a prompt without nouns
                    exec(objects_code, own)
                exec(phrases_code, own)
                theirs.append([prompt, complete, own["noun_phrases"], own.get("obj1"), own.get("obj2")])
                words = prompt_words(doc, complete)
                ours.append([prompt, complete, list(words.phrases), *(words.objects or (None, None))])
    return theirs, ours


def attribute_case(dice: random.Random) -> Case:
    count = dice.randint(0, 10)
    return {"answers": [dice.choice((0.0, 1.0, dice.random(), dice.random())) for _ in range(count)]}


def attribute_theirs(folder: Path) -> Callable[[Case], Any]:
    """Their main, with files of a folder that stand for the answers of the VQA model."""
    import torch

    space = functions(folder / "BLIP_vqa.py", ["main"], os=os, tqdm=lambda those: those)
    space["torch"] = types.SimpleNamespace(
        zeros=lambda size: types.SimpleNamespace(to=lambda device: torch.zeros(size))
    )

    def theirs(case: Case) -> Any:
        with tempfile.TemporaryDirectory() as folder_, contextlib.redirect_stdout(io.StringIO()):
            out = Path(folder_)
            (out / "samples").mkdir()
            (out / "samples" / "p_000000.png").touch()
            answers = case["answers"]

            def questions(images: str, place: str, np_index: int) -> None:
                text = "thing?" if np_index < len(answers) else ""
                Path(place, "vqa_test.json").write_text(json.dumps([{"question": text}]))

            def ask(place: str, result: str) -> None:
                number = int(Path(place).name.removeprefix("annotation").removesuffix("_blip")) - 1
                said = answers[number] if number < len(answers) else 0.5
                Path(result, "result").mkdir()
                Path(result, "result", "vqa_result.json").write_text(json.dumps([{"question_id": 0, "answer": said}]))

            space["Create_annotation_for_BLIP"], space["VQA_main"] = questions, ask
            space["parse_args"] = lambda: types.SimpleNamespace(out_dir=str(out), np_num=8)
            space["main"]()
            return float(json.loads((out / "annotation_blip" / "vqa_result.json").read_text())[0]["answer"])

    return theirs


def attribute_ours(case: Case) -> Any:
    words = Words(tuple("thing" for _ in case["answers"]))
    return t2i_compbench.bound({str(place): each for place, each in enumerate(case["answers"])}, words)


def complex_figures(folder: Path, dice: random.Random, count: int) -> tuple[Any, Any]:
    """Their mean of parts over ten pictures of prompts of all three kinds, and ours: scores and the mean."""
    prompts = [f"Prompt {place}. More." for place in range(count // 10)]
    kinds = [dice.choice(("spatial", "action", "both")) for _ in prompts]
    values = {
        part: [round(dice.random(), 4) for _ in range(len(prompts) * 10)] for part in ("attribute", "spatial", "action")
    }
    with tempfile.TemporaryDirectory() as place:
        data, out = Path(place, "data"), Path(place, "out")
        homes = {
            "attribute": "annotation_blip",
            "spatial": "labels/annotation_obj_detection_2d",
            "action": "annotation_clip",
        }
        for part, home in homes.items():
            (out / home).mkdir(parents=True)
            (out / home / "vqa_result.json").write_text(json.dumps([{"answer": each} for each in values[part]]))
        data.mkdir()
        (data / "complex_val.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
        for part in ("spatial", "action"):
            those = (prompt.upper() for prompt, kind in zip(prompts, kinds, strict=True) if kind == part)
            (data / f"complex_val_{part}.txt").write_text("".join(f"{prompt}\n" for prompt in those))
        words = ({"prompt": prompt, "phrases": ["thing"], "objects": ["a", "b"]} for prompt in prompts)
        (data / "complex_val.words.jsonl").write_text("".join(json.dumps(each) + "\n" for each in words))
        printed(folder / "3_in_1.py", "--outpath", str(out), "--data_path", str(data))
        theirs = [each["answer"] for each in json.loads((out / "annotation_3_in_1" / "vqa_result.json").read_text())]
        records = t2i_compbench.load(data)
    pictures = [record for record in records for _ in range(10)]
    scores = []
    for place_, record in enumerate(pictures):
        parts = [values[part][place_] for part in record["parts"]]
        scores.append(Score(t2i_compbench.together(parts)))
    return [theirs, sum(theirs) / len(theirs)], [
        [each.value for each in scores],
        t2i_compbench.aggregate(pictures, scores)["complex"],
    ]


# --------------------------------------------------------------------------------------------------------------- WISE


def verdict_case(dice: random.Random) -> Case:
    """Answers of judges, most of them with some flaw of form."""
    names = [
        "Consistency",
        "Realism",
        "Aesthetic Quality",
        "**Realism**",
        "score",
        "**Score**",
        "Consistency score",
        "consistency",
    ]
    lines = []
    for _ in range(dice.randint(0, 5)):
        mark = dice.choice(("0", "1", "2", "1.5", "10", "7", "two", ""))
        name = dice.choice((*names, ""))
        lines.append(
            dice.choice((f"{name}: {mark}", f"{name}:{mark}", f"{name} {mark}", f"  {mark}  ", f"- {name}**: {mark}/2"))
        )
    text = dice.choice(("\n", " ", "\n\n")).join(lines)
    return {"text": dice.choice((text, f"<think>Score: 1</think>\n{text}", f"{text}</think>\nScore: 0"))}


def verdict_theirs(rule: str, folder: Path) -> Callable[[Case], Any]:
    import re

    name = "vllm_eval.py" if rule == wise.VERIFIED else "gpt_eval.py"
    names = ["extract_scores", "_chat_completion_via_vllm"]
    space = functions(folder / name, names, re=re, Dict=dict, List=list, Any=Any)

    def theirs(case: Case) -> Any:
        text = case["text"]
        if rule == wise.VERIFIED:
            reply = types.SimpleNamespace(
                raise_for_status=lambda: None, json=lambda: {"choices": [{"message": {"content": text}}]}
            )
            space["requests"] = types.SimpleNamespace(post=lambda *words, **more: reply)
            text = space["_chat_completion_via_vllm"]([], {"api_base": "", "api_key": "", "model": "", "timeout": 1})
        return space["extract_scores"](text)

    return theirs


def wise_figures(rule: str, folder: Path, dice: random.Random, count: int) -> tuple[Any, Any]:
    """What their calculation prints, in its two digits, and ours of the same marks."""
    rows, records = [], []
    for number in range(1, 1001):
        marks = (
            {"score": dice.choice((0.0, 1.0))}
            if rule == wise.VERIFIED
            else {axis: dice.choice((0, 1, 2)) for axis in wise.AXES}
        )
        rows.append({"prompt_id": number, **marks})
        part = wise.part_of(number, rule)
        records.append({"id": str(number), "prompt": "", "rule": rule, "category": part})
    dice.shuffle(rows)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "scores.jsonl")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = printed(folder / ("calculate_verified.py" if rule == wise.VERIFIED else "Calculate.py"), str(file))
        found = wise.read_results(file, records)
    figures = wise.aggregate(records, [wise.score(found[record["id"]], record) for record in records])
    line = text.strip().splitlines()[-1].split()
    ours = [f"{figures[part]:.2f}" for part in wise.WEIGHTS] + [f"{figures['wiscore']:.2f}"]
    return line, ours


# ------------------------------------------------------------------------------------------------------------ the run


def each_kind(
    authors: Path,
) -> Iterator[tuple[str, Callable[[random.Random], Case], Callable[[Case], Any], Callable[[Case], Any]]]:
    """Name, how a case is made, the authors' answer and ours."""
    t2i, verified, legacy = authors / "t2i", authors / "wise", authors / "wise_legacy"
    yield "geneval", geneval_case, geneval_theirs(authors / "geneval"), geneval_ours
    yield "dpg_bench", dpg_case, dpg_theirs(authors / "ella"), dpg_ours
    yield "t2i_spatial", spatial_case, spatial_theirs(t2i), spatial_ours
    yield "t2i_attribute", attribute_case, attribute_theirs(t2i), attribute_ours
    yield "wise_verified", verdict_case, verdict_theirs(wise.VERIFIED, verified), verdict_ours(wise.VERIFIED)
    yield "wise_legacy", verdict_case, verdict_theirs(wise.LEGACY, legacy), verdict_ours(wise.LEGACY)


def verdict_ours(rule: str) -> Callable[[Case], Any]:
    return lambda case: wise.read_verdict(case["text"], rule)


def figures_of(authors: Path, count: int) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Whole tables, the authors' and ours."""
    yield "geneval, summary", geneval_figures(authors / "geneval", random.Random(1), count)
    yield "dpg_bench, table", dpg_table(authors / "ella", random.Random(4), count)
    yield "t2i, complex", complex_figures(authors / "t2i", random.Random(2), count)
    for rule, home in ((wise.VERIFIED, "wise"), (wise.LEGACY, "wise_legacy")):
        yield f"wise, {rule}", wise_figures(rule, authors / home, random.Random(3), count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("authors", type=Path)
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--write", type=Path, help="keep some cases with the authors' answers")
    parser.add_argument("--pipeline", help="of spaCy, such as en_core_web_sm: words of the authors' prompts too")
    arguments = parser.parse_args()
    kept: dict[str, list[Mapping[str, Any]]] = {}
    wrong = 0
    for name, make, theirs, ours in each_kind(arguments.authors):
        dice, different = random.Random(name), 0
        for place in range(arguments.cases):
            case = make(dice)
            answer = theirs(case)
            if ours(case) != answer:
                different += 1
                if different <= 3:
                    print("  ", case, answer, ours(case))
            if place < 60:
                kept.setdefault(name, []).append({"case": case, "theirs": answer})
        wrong += different
        print(f"{name}: {arguments.cases} cases, {different} differences", flush=True)
    for name, (theirs_, ours_) in figures_of(arguments.authors, arguments.cases):
        wrong += theirs_ != ours_
        print(f"{name}: {'equal' if theirs_ == ours_ else f'DIFFERENT {theirs_} {ours_}'}", flush=True)
    if arguments.pipeline:
        import spacy

        theirs_, ours_ = words_of_prompts(arguments.authors / "t2i", spacy.load(arguments.pipeline))
        different = sum(one != other for one, other in zip(theirs_, ours_, strict=True))
        print(f"t2i, words: {len(ours_)} cases, {different} differences", flush=True)
        wrong += different
    if arguments.write is not None:
        arguments.write.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
