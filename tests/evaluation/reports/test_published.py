"""Published numbers: as their sources have them, marked where they are unsure, and never under a wrong protocol."""

from __future__ import annotations

import pytest

from vargpt_lightning.evaluation.reports import published
from vargpt_lightning.evaluation.reports.benchmark_measured import COLUMNS, MARKS


def value(block: published.Block, model: str, key: str) -> published.Value:
    return next(row for row in block.rows if row.model == model and key in row.values).values[key]


@pytest.mark.parametrize(
    "model, key, number",
    [
        ("LLaVA-1.5-7B (hf)", "mmbench", 62.7),
        ("LLaVA-1.5-7B (hf)", "pope/adversarial", 83.60),
        ("LLaVA-1.5-7B (hf)", "vizwiz", 53.53),
        ("VARGPT", "pope/random", 87.37),
        ("VARGPT", "mme", 1488.8),
        ("VARGPT", "scienceqa_img", 80.1),
        ("VARGPT-v1.1", "mmmu", 48.56),
        ("VARGPT-v1.1", "textvqa", 82.0),
        ("VARGPT-v1.1", "okvqa", 57.8),
        ("LLaVA-1.5-7B", "pope", 85.87),
    ],
)
def test_numbers_are_those_of_the_sources(model, key, number):
    assert value(published.MEASURED_BY_ONE_TOOL, model, key).value == number


def test_what_followed_another_protocol_stands_apart():
    ours = {block.title for name in ("lmms_eval", "official", "lmms_eval_0.3") for block in published.following(name)}
    assert not ours & {block.title for block in published.apart()} and published.following("lenient") == []
    assert {row.source for block in published.following("lmms_eval") for row in block.rows} == {"vargpt11", "lmms_eval"}
    official = [row for block in published.following("official") for row in block.rows]
    # VQAv2 of the test server, TextVQA with OCR, POPE's F1, SEED of all questions are other measurements.
    assert all(set(row.values) == {"gqa", "scienceqa_img", "mme"} for row in official)


def test_unsure_numbers_are_marked():
    one_tool = published.MEASURED_BY_ONE_TOOL
    assert "C" in value(one_tool, "LLaVA-1.5-7B (hf)", "mmmu").marks
    assert "U" in value(one_tool, "VARGPT-v1.1", "mmbench").marks
    assert "V" in value(one_tool, "VARGPT", "vqav2").marks
    assert all(cell.marks == "R" for row in one_tool.rows if row.source == "lmms_eval" for cell in row.values.values())
    assert value(published.COLLECTED, "Qwen-VL", "textvqa").marks == "C"
    assert "63.8" in value(published.COLLECTED, "Qwen-VL", "textvqa").note
    assert value(published.COLLECTED, "MiniGPT-4", "seedbench").marks == "C"
    assert value(published.DRAWN, "VARGPT (recalled)", "fid").marks == "R"
    assert value(published.DRAWN, "VARGPT", "clip_score").value == 27.4


def test_every_cell_has_a_source_a_known_column_and_marks_with_a_meaning():
    for block in (*published.BLOCKS, published.DRAWN):
        for row in block.rows:
            assert row.source in published.SOURCES and row.values
            assert set(row.values) <= set(block.columns or COLUMNS), row.model
            assert all(set(cell.marks) <= set(published.MARKS) for cell in row.values.values())
            assert all(cell.note for cell in row.values.values() if "C" in cell.marks), row.model
    assert not set(MARKS) & set(published.MARKS)


def test_all_models_of_the_published_tables_are_there():
    models = {row.model for row in published.COLLECTED.rows}
    assert len(models) == 12 and {"Chameleon-7B", "SEED-LLaMA-7B", "Show-o", "VILA-U", "mPLUG-Owl2"} <= models
    assert sum(len(row.values) for row in published.COLLECTED.rows) == 61
