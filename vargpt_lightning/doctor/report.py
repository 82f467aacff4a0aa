"""What was found as Markdown, to be pasted into an issue. No torch."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from vargpt_lightning.doctor.findings import Finding
from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.provenance import package_versions, source_commit

SIGNS = {"ok": "ok", "note": "ok, note", "not here": "not here", "failed": "**FAILED**"}


def line(finding: Finding) -> str:
    """A finding on one line, for the terminal."""
    return f"{finding.status:<8}  {finding.part}: {finding.name} ({finding.seconds:.1f} s): {finding.said}"


def verdict(findings: Sequence[Finding]) -> str:
    """What all findings come to."""
    counts = {status: sum(each.status == status for each in findings) for status in SIGNS}
    failed = [f"{each.part}: {each.name}" for each in findings if each.status == "failed"]
    said = f"{counts['ok'] + counts['note']} of {len(findings)} checks are fine"
    said += f", {counts['not here']} have no meaning here" if counts["not here"] else ""
    return said + (f", {len(failed)} failed: {', '.join(failed)}" if failed else "")


def markdown(findings: Sequence[Finding], command: str) -> str:
    """The report: the verdict, failed findings first, then a table of all."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    parts = [
        "# vargpt doctor",
        f"`{command}`, {now()}, {platform.system()} {platform.machine()}, commit {source_commit() or 'unknown'}",
        f"{versions}.",
        f"**{verdict(findings)}.**",
    ]
    if failed := [each for each in findings if each.status == "failed"]:
        parts.append("\n".join(f"- **{each.part}: {each.name}**: {_escaped(each.said)}" for each in failed))
    rows = [
        f"| {each.part} | {each.name} | {SIGNS[each.status]} | {_escaped(each.said)} | {each.seconds:.1f} |"
        for each in findings
    ]
    parts.append("\n".join(["| part | check | | what was found | seconds |", "|---|---|---|---|--:|", *rows]))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
