"""What came of writing instructions, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def summary(counts: Mapping[str, Any], out: Path) -> list[str]:
    """Return what was kept, what was not and why, and what it took."""
    lines = [f"captions: {counts['captions']}, written: {counts['written']}"]
    for name, count in sorted(counts["rejected"].items(), key=lambda item: -item[1]):
        lines.append(f"  left out, {name}: {count}")
    for name, count in counts["later"].items():
        lines.append(f"  {name}: {count}; the same command tries again")
    asked = counts["requests"]
    if asked:
        tokens = f"{asked['prompt_tokens']} + {asked['completion_tokens']}"
        lines.append(f"requests answered: {asked['answered']}, tokens: {tokens}")
        if asked["unanswered"]:
            again = "(--ask-unanswered asks again)"
            lines.append(f"requests without an answer, perhaps paid for: {asked['unanswered']} {again}")
        if not asked["within_limits"]:
            lines.append("the spending limit was reached; run again with a higher one to resume")
    return [*lines, f"instructions: {out / 'instructions.json'}"]
