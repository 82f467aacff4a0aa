"""Published numbers, each with its source, what it was measured on, and how sure it is. Data and look-ups only.

A row stands in a table of ours only where it followed that table's protocol on the same questions; all others are in
tables of their own (`apart`), whose captions say what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARKS = {
    "R": "recalled: no stored text of the source was found",
    "C": "contradictory: see the note",
    "U": "unsettled: what exactly was measured is not known",
    "V": "scored by lmms-eval 0.3, whose rule for this benchmark was another (here: protocol lmms_eval_0.3)",
}
"""Marks of published cells; letters that no mark of a measured cell has."""

SOURCES = {
    "vargpt11": "arXiv 2504.02949 (VARGPT-v1.1), comparison tables; made with lmms-eval 0.3",
    "llava": "LLaVA-1.5: model zoo of github.com/haotian-liu/LLaVA, arXiv 2310.03744",
    "collected": "arXiv 2504.02949 (VARGPT-v1.1), which took the values of others from their papers",
    "vlmevalkit": "VLMEvalKit, results pages of January 2024 (commits 493a7e87 and f3827d9f)",
    "qwen": "README of the Qwen-VL repository",
    "lmms_eval": "lmms-eval's own values for LLaVA-1.5-7B",
    "vargpt1": "VARGPT (arXiv 2501.12327): README of its repository, radar chart",
    "recalled": "recalled; no source was found",
    "third": "a third party's note on VARGPT; its source was not checked",
}
"""Key -> where a number was read."""


@dataclass(frozen=True)
class Value:
    """One published number on its table's scale: per cent, or points for MME."""

    value: float
    text: str = ""
    marks: str = ""
    note: str = ""

    def shown(self) -> str:
        """As its source writes it, as far as that is known."""
        return self.text or f"{self.value:g}"


@dataclass(frozen=True)
class Row:
    """A model's published numbers; `values` has the columns' keys (`mmbench`, `pope/adversarial`, ...)."""

    model: str
    source: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Block:
    """Rows that were measured in one way. `columns`: key -> heading, where the headings are not the common ones."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""
    protocols: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None


VQA = ("gqa", "textvqa", "vqav2", "scienceqa_img", "okvqa", "vizwiz")
GENERAL = ("mmbench", "seedbench", "mmmu", "pope/adversarial", "pope/popular", "pope/random", "mme")
_DASH = "–"


def _row(model: str, source: str, columns: tuple[str, ...], text: str, **special: Value) -> Row:
    """A row out of numbers in the order of the columns; a dash where there is none."""
    cells = dict(zip(columns, text.split(), strict=True))
    values = {key: Value(float(cell), cell) for key, cell in cells.items() if cell != _DASH}
    return Row(model, source, values | special)


def _one_tool(model: str, general: str, vqa: str) -> Row:
    """A row of the three that one tool measured, with the marks that hold for all of them."""
    row = _row(model, "vargpt11", GENERAL + VQA, f"{general} {vqa}")
    values = dict(row.values)
    test = "the caption says the test split, elsewhere it is dev; option letters were matched by GPT"
    values["mmbench"] = Value(values["mmbench"].value, values["mmbench"].text, "U", test)
    for key in ("vqav2", "scienceqa_img"):
        values[key] = Value(values[key].value, values[key].text, "V")
    return Row(model, row.source, values)


_HF = _one_tool("LLaVA-1.5-7B (hf)", "62.7 65.4 35.24 83.60 85.77 86.97 1480.1", "61.2 48.8 76.49 67.9 53.2 53.53")
_NOT_OF_900 = Value(35.24, "35.24", "C", "no number of right answers out of 900 gives 35.24 %")
MEASURED_BY_ONE_TOOL = Block(
    "lmms-eval",
    (
        Row(_HF.model, _HF.source, {**_HF.values, "mmmu": _NOT_OF_900}),
        _one_tool("VARGPT", "67.6 67.9 36.44 84.40 85.90 87.37 1488.8", "62.3 54.1 78.4 80.1 55.8 56.8"),
        _one_tool("VARGPT-v1.1", "81.01 76.08 48.56 84.40 88.36 89.17 1684.1", "66.2 82.0 80.4 91.6 57.8 65.4"),
        Row(
            "LLaVA-1.5-7B",
            "lmms_eval",
            {
                "pope": Value(85.87, marks="R"),
                "gqa": Value(61.97, marks="R"),
                "textvqa": Value(46.07, marks="R"),
                "vqav2": Value(76.64, marks="R"),
                "vizwiz": Value(54.39, marks="R"),
                "okvqa": Value(53.44, marks="R"),
                "scienceqa_img": Value(70, "≈ 70", "R"),
                "seedbench": Value(66.9, "≈ 66.9", "R"),
            },
        ),
    ),
    "Published rows: measured with lmms-eval 0.3 (LLaVA-1.5-hf, VARGPT, VARGPT-v1.1).",
    ("lmms_eval", "lmms_eval_0.3"),
)

SAME_RULES = Block(
    "LLaVA-1.5's own evaluation",
    (
        _row("LLaVA-1.5-7B", "llava", ("gqa", "scienceqa_img", "mme"), "62.0 66.8 1510.7"),
        _row("LLaVA-1.5-13B", "llava", ("gqa", "scienceqa_img", "mme"), "63.3 71.6 1531.3"),
    ),
    "Published rows: what LLaVA-1.5 measured on the same questions by the same rules; its other numbers stand apart.",
    ("official",),
)

_LLAVA_COLUMNS = {
    "vqav2_testdev": "VQAv2 test-dev (server)",
    "vizwiz_test": "VizWiz test (server)",
    "textvqa_ocr": "TextVQA with OCR tokens",
    "pope_f1": "POPE mean F1 (2910 random)",
    "mmbench_server": "MMBench dev 20230712 (GPT, server)",
    "seed_all": "SEED all 17990",
}
OTHER_DATA = Block(
    "LLaVA-1.5 on other splits and prompts",
    (
        _row("LLaVA-1.5-7B", "llava", tuple(_LLAVA_COLUMNS), "78.5 50.0 58.2 85.9 64.3 58.6"),
        _row("LLaVA-1.5-13B", "llava", tuple(_LLAVA_COLUMNS), "80.0 53.6 61.3 85.9 67.7 61.6"),
    ),
    "Other splits, another prompt or another metric than those measured here: not comparable.",
    columns=_LLAVA_COLUMNS,
)

_LIKELIHOOD = Value(47.4, "47.4", "C", "the likelihood number; by answer letter it is 23.3 to 31.6")
_ALL = "of all 17990 questions, not of the pictures alone"
_SLIP = Value(50.1, "50.1", "C", "the model's own README says 63.8; 50.1 is InstructBLIP-7B's value elsewhere")


def _collected(model: str, general: str, vqa: str, **special: Value) -> Row:
    return _row(model, "collected", GENERAL + VQA, f"{general} {vqa}", **special)


_NONE = "– – – – – –"
COLLECTED = Block(
    "Baselines as VARGPT-v1.1 collected them",
    (
        _collected("Chameleon-7B", "31.1 30.6 25.4 – – – 170", _NONE),
        _collected("SEED-LLaMA-7B", "45.8 51.5 – – – – –", _NONE),
        _collected("Show-o", "– – 25.1 – – – 948.4", _NONE),
        _collected("VILA-U", "– 59.0 – – – – 1401.8", _NONE),
        _collected(
            "Liquid", "– – – – – – 1119.3", _NONE, pope=Value(81.1, marks="U", note="one number for all of POPE")
        ),
        _collected("Janus-Pro", "– 72.1 41.0 – – – 1567.1", _NONE),
        _collected(
            "MiniGPT-4", "23.0 – – 65.17 69.73 79.67 581.7", "43.5 – 0.6 39.6 – –", seedbench=_LIKELIHOOD
        ),
        _collected(
            "InstructBLIP", "36.0 – – 72.10 82.77 88.57 1212.8", "49.2 – – 60.5 – 34.5",
            seedbench=Value(53.4, marks="C", note=_ALL),
        ),
        _collected("Qwen-VL", "38.2 – – – – – –", "59.3 – – 67.1 – 35.2", textvqa=_SLIP),
        _collected(
            "Qwen-VL-Chat", "60.6 – – – – – 1487.5", "57.5 61.5 78.2 68.2 56.6 38.9",
            seedbench=Value(58.2, marks="C", note=_ALL),
        ),
        _collected(
            "LLaVA", "36.2 – – 49.70 49.87 50.37 502.8", _NONE, seedbench=Value(33.5, marks="C", note=_ALL)
        ),
        _collected("mPLUG-Owl2", "64.5 57.8 – – – – 1450.2", "56.1 53.3 – 68.7 57.7 54.5"),
    ),
    "Taken from many papers: protocols, splits and prompts are mixed. Not to be compared digit by digit.",
)  # fmt: skip

_QWEN = ("vqav2", "okvqa", "gqa", "scienceqa_img", "vizwiz", "textvqa")
OWN_README = Block(
    "Qwen-VL's own numbers",
    (
        _row("Qwen-VL", "qwen", _QWEN, "78.8 58.6 59.3 67.1 35.2 63.8"),
        _row("Qwen-VL-Chat", "qwen", (*_QWEN, "mme"), "78.2 56.6 57.5 68.2 38.9 – 1487.57"),
        _row("InstructBLIP-13B", "qwen", _QWEN, "– – 49.5 63.1 33.4 50.7"),
    ),
    "By the authors' own evaluation. Qwen-VL-Chat's MME cognition is 360.71.",
)

_KIT_COLUMNS = {
    "seed_image": "SEED image",
    "mmmu_kit": "MMMU val",
    "mme_total": "MME total",
    "sqa_val": "ScienceQA val",
    "sqa_test": "ScienceQA test",
}
_EITHER = "without and with answers extracted by ChatGPT"


def _either(first: float, text: str, more: str = "") -> Value:
    return Value(first, text, "U" if more else "", _EITHER + more)


VLMEVALKIT = Block(
    "VLMEvalKit, January 2024",
    (
        _row("LLaVA-v1.5-7B", "vlmevalkit", tuple(_KIT_COLUMNS), "65.59 36.2 1775 66.6 68.9"),
        _row(
            "Qwen-VL-Chat", "vlmevalkit", tuple(_KIT_COLUMNS), "– 37.0 – 65.5 68.8",
            seed_image=_either(64.08, "64.08 / 64.83"), mme_total=_either(1849, "1849 / 1860"),
        ),
        _row(
            "InstructBLIP-7B", "vlmevalkit", tuple(_KIT_COLUMNS), "– 30.6 – 54.7 54.1",
            seed_image=_either(43.84, "43.84 / 44.51", "; by likelihood 58.8"),
            mme_total=_either(1313, "1313 / 1391"),
        ),
        _row(
            "MiniGPT-4-7B", "vlmevalkit", tuple(_KIT_COLUMNS), "– – – 39.0 39.6",
            seed_image=_either(23.29, "23.29 / 31.56", "; by likelihood 47.4"),
            mme_total=_either(806, "806 / 1048"),
        ),
        _row("Qwen-VL", "vlmevalkit", tuple(_KIT_COLUMNS), "52.3 29.6 – 57.7 61.1"),
    ),
    "Another tool's answer extraction. “x / y”: without and with ChatGPT, which alone moves a weak model by 8 points.",
    columns=_KIT_COLUMNS,
)  # fmt: skip

BLOCKS = (MEASURED_BY_ONE_TOOL, SAME_RULES, OTHER_DATA, COLLECTED, OWN_README, VLMEVALKIT)

_DRAWN = {"clip_score": "CLIP score", "fid": "FID", "geneval": "GenEval", "dpg": "DPG-Bench"}
DRAWN = Block(
    "Drawing: published",
    (
        Row(
            "VARGPT",
            "vargpt1",
            {"clip_score": Value(27.4, marks="U", note="100 x cosine; the CLIP network is not known")},
        ),
        Row("VARGPT (recalled)", "recalled", {"fid": Value(12.6, marks="R", note="found in no stored text")}),
        Row(
            "VARGPT (third party)",
            "third",
            {
                "clip_score": Value(24.2, marks="C", note="the repository's radar chart says 27.4"),
                "fid": Value(14.77, marks="C", note="12.6 is recalled"),
            },
        ),
        Row("VARGPT-v1.1", "vargpt11", {"geneval": Value(0.53), "dpg": Value(78.59)}),
    ),
    "Neither repository has the code for CLIP score or FID: network, resize rule and number of samples are not known.",
    columns=_DRAWN,
)


def following(protocol: str) -> list[Block]:
    """The blocks whose rows followed a protocol of ours on the same questions."""
    return [block for block in BLOCKS if protocol in block.protocols]


def apart() -> list[Block]:
    """The blocks that followed none of our protocols: never in a table with measured rows."""
    return [block for block in BLOCKS if not block.protocols]
