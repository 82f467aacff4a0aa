"""Tables: one protocol each, every number with its interval, count, marks or source, in every form of writing."""

from __future__ import annotations

import re

import pytest

from tests.evaluation.results_made import scored, write_result
from vargpt_lightning.evaluation.reports.benchmark_measured import read_measured
from vargpt_lightning.evaluation.reports.table_text import escape_latex, escape_markdown, latex, markdown
from vargpt_lightning.evaluation.reports.tables import Sources, all_tables, counts_table, legend, protocol_tables
from vargpt_lightning.utils.errors import UserError


def tables_of(out, protocol="lmms_eval"):
    return protocol_tables(read_measured([out]), protocol, Sources())


def cell(table, label, heading):
    row = next(row for row in table.rows if row.label == label)
    return row.cells[table.headings.index(heading)]


def test_a_measured_cell_has_value_interval_and_count(tmp_path):
    write_result(tmp_path, "gqa", 0.6234)
    write_result(tmp_path, "mme", 1488.84)
    general, vqa = tables_of(tmp_path)
    found = cell(vqa, "mine", "GQA")
    assert (found.text, found.interval, found.n, found.marks) == ("62.3", "60.3–64.3", "400", "")
    assert cell(general, "mine", "MME-P").text == "1488.8" and "points" in general.note and "points" not in vqa.note
    assert general.headings == ("MME-P",)  # nothing that was not measured


def test_published_rows_stand_beside_with_their_sources(tmp_path):
    write_result(tmp_path, "gqa", 0.6)
    sources = Sources()
    (table,) = protocol_tables(read_measured([tmp_path]), "lmms_eval", sources)
    assert [row.label for row in table.rows] == ["mine", "LLaVA-1.5-7B (hf)", "VARGPT", "VARGPT-v1.1", "LLaVA-1.5-7B"]
    found = cell(table, "VARGPT", "GQA")
    assert found.text == "62.3" and "2504.02949" in sources.names[found.source - 1]
    recalled = cell(table, "LLaVA-1.5-7B", "GQA")
    assert recalled.marks == "R" and recalled.source != found.source


def test_protocols_are_never_mixed(tmp_path):
    write_result(tmp_path, "gqa", 0.61)
    write_result(tmp_path, "gqa", 0.62, "official")
    write_result(tmp_path, "gqa", 0.63, "lenient")
    sections = all_tables(read_measured([tmp_path]), Sources())
    assert [heading for heading, _, _ in sections[:-1]] == [
        f"Protocol {n}" for n in ("lmms_eval", "official", "lenient")
    ]
    for (_, _, tables), text in zip(sections[:3], ("61.0", "62.0", "63.0"), strict=True):
        assert [row.cells[0].text for row in tables[0].rows if row.measured] == [text]
    assert [row.label for row in sections[1][2][0].rows] == ["mine", "LLaVA-1.5-7B", "LLaVA-1.5-13B"]
    assert [row.label for row in sections[2][2][0].rows] == ["mine"]
    assert not any(row.measured for table in sections[3][2] for row in table.rows)


def test_version_marks_go_where_the_rule_is_the_published_one(tmp_path):
    for protocol, marks in (("lmms_eval", "V"), ("lmms_eval_0.3", "")):
        write_result(tmp_path, "vqav2", 0.7, protocol)
        assert cell(tables_of(tmp_path, protocol)[0], "VARGPT", "VQAv2").marks == marks


@pytest.mark.parametrize(
    "more, mark",
    [
        ({"limit": 100}, "L"),
        ({"partial": True}, "P"),
        ({"figures": {"partial": 1.0}}, "P"),
        ({"figures": {"guessed": 2}}, "G"),
        ({"figures": {"judged": 2}}, "J"),
        ({"figures": {"truncated": 2}}, "T"),
        ({"style": "plain"}, "S"),
    ],
)
def test_marks_of_measured_cells(tmp_path, more, mark):
    write_result(tmp_path, "gqa", 0.6, **more)
    (table,) = tables_of(tmp_path)
    assert table.rows[0].cells[0].marks == mark and mark in dict(legend([table]))
    assert f"<sup>{mark}</sup>" in markdown([("h", "w", [table])], Sources(["s"] * 9))


def test_pope_has_its_categories_with_intervals_of_their_own(tmp_path):
    rows = [
        scored(f"{name}/{n}", float(n % 4 > 0), category=name) for name in ("random", "adversarial") for n in range(200)
    ]
    figures = {"accuracy/random": 0.75, "accuracy/adversarial": 0.75}
    write_result(tmp_path, "pope", 0.75, rows=rows, figures=figures)
    (table,) = tables_of(tmp_path)
    assert table.headings == ("POPE", "POPE adv.", "POPE rand.")
    found = cell(table, "mine", "POPE rand.")
    low, high = map(float, found.interval.split("–"))
    assert found.n == "200" and 67 < low < 72 < 78 < high < 83
    assert cell(table, "VARGPT", "POPE adv.").text == "84.40"


def test_figures_that_are_none_and_benchmarks_of_ones_own(tmp_path):
    write_result(tmp_path, "mme", None)
    write_result(tmp_path, "openmoji", 0.5, title="OpenMoji questions")
    general, others = tables_of(tmp_path)
    assert general.rows[0].cells[0].text == "–" and others.headings == ("OpenMoji questions",)
    assert [row.label for row in others.rows] == ["mine"]


def test_a_run_s_own_questions_stand_alone(tmp_path):
    write_result(tmp_path, "openmoji", 0.5)
    assert [heading for heading, _, _ in all_tables(read_measured([tmp_path]), Sources())] == ["Protocol lmms_eval"]


def test_systems_of_one_name_are_told_apart(tmp_path):
    for name in ("first", "second"):
        write_result(tmp_path / name, "gqa", 0.6)
    found = read_measured([tmp_path / "first", tmp_path / "second"])
    assert [each.system for each in found] == ["mine (first)", "mine (second)"]


def test_counts_are_always_there(tmp_path):
    write_result(tmp_path, "gqa", 0.6, figures={"unparsed": 7, "empty": 3}, missing=2, total=12578)
    table = counts_table(read_measured([tmp_path]), "lmms_eval")
    assert cell(table, "GQA", "unparsed").text == "7" and cell(table, "GQA", "of").text == "12,578"
    assert cell(table, "GQA", "missing").text == "2" and read_measured([tmp_path])[0].unread == 10 / 400


def test_broken_files_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="gone"):
        read_measured([tmp_path / "gone"])
    (tmp_path / "gqa").mkdir()
    for text in ("{", "[]", '{"figures": {}}'):
        (tmp_path / "gqa" / "result.official.json").write_text(text)
        with pytest.raises(UserError, match=r"result\.official\.json"):
            read_measured([tmp_path])


NASTY = "a|b_c*<script>`[x](y)`\n& 5 % $1 #2 {q} ~ ^ \\ “w”"


def test_markdown_rows_have_one_width_whatever_the_names(tmp_path):
    write_result(tmp_path, "gqa", 0.6, model=NASTY)
    sources = Sources()
    text = markdown(all_tables(read_measured([tmp_path]), sources), sources)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "<script>" not in text and "60.0 [58.0–62.0] n=400" in text
    assert any("VARGPT " in row and "<sup>1</sup>" in row for row in rows) and "\n1. arXiv 2504.02949" in text


def test_latex_is_balanced_and_escaped(tmp_path):
    write_result(tmp_path, "gqa", 0.6, model=NASTY, limit=9)
    write_result(tmp_path, "mmmu", 0.3, model="[first]")
    sources = Sources()
    text = latex(all_tables(read_measured([tmp_path]), sources), sources)
    bare = re.sub(r"\\[{}\\]", "", text.replace(r"\textbackslash{}", ""))
    assert bare.count("{") == bare.count("}") and text.count(r"\begin{table}") == text.count(r"\end{table}") > 6
    body = re.search(r"\\begin\{tabular\}\{@\{\}lr@\{\}\}(.*?)\\end", text, re.S)[1]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 1 for line in body.splitlines() if line.endswith(r"\\"))
    assert r"60.0 {\scriptsize [58.0--62.0] $n$=400}\textsuperscript{L}" in text
    assert "{[}first]" in text and "L: limited" in text and "2504.02949" in text
    assert not re.search(r"(?<!\\)[#%](?! )", "\n".join(line for line in text.splitlines() if "resizebox" not in line))


def test_escapes():
    assert escape_markdown("a|b\n<i>_x_") == r"a\|b &lt;i&gt;\_x\_"
    assert escape_latex("50 % of_x & {y}~^\\") == (
        r"50 \% of\_x \& \{y\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
