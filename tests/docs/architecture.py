"""The map of the rooms: layers and imports as pyproject.toml and the code have them, drawn as docs/architecture.svg.

`python -m tests.docs.architecture` draws it anew; a test holds the file against the code.
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "architecture.svg"
PACKAGE = "vargpt_lightning"
WIDTH, TOP, ROW, HIGH, GAP = 1100, 48, 112, 92, 20
INK, PAPER, LINE, BOX = "#1f2430", "#ffffff", "#5b6b8c", "#f1f4fa"
STYLE = f"""
text {{ font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK}; }}
.room {{ font-weight: 600; font-size: 14px; }} .what {{ font-size: 11px; fill: #4b556b; }}
.title {{ font-size: 17px; font-weight: 600; }} rect {{ fill: {BOX}; stroke: {LINE}; rx: 6px; }}
path {{ fill: none; stroke: {LINE}; stroke-width: 1.6px; }} .tip {{ fill: {LINE}; stroke: none; }}
.paper {{ fill: {PAPER}; stroke: none; rx: 0; }}
"""


def layers() -> list[list[str]]:
    """Return the layers of the import contract from top to bottom, each with its rooms."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (contract,) = [each for each in settings["contracts"] if each["type"] == "layers"]
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in layer.split("|")] for layer in contract["layers"]]


def imports(rooms: list[str]) -> dict[tuple[str, str], int]:
    """Count the imports from each room to each other one, of files, lazy ones too."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    found: dict[tuple[str, str], int] = {}
    for file in graph.modules:
        for other in graph.find_modules_directly_imported_by(file):
            pair = tuple(name.split(".")[1] if "." in name else "" for name in (file, other))
            if pair[0] != pair[1] and set(pair) <= set(rooms):
                found[pair[0], pair[1]] = found.get((pair[0], pair[1]), 0) + 1
    return found


def described(room: str) -> tuple[str, int]:
    """Return the first sentence of a room's docstring, and how many files it has."""
    folder = ROOT / PACKAGE / room
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    if "\n\n" in text and text.startswith("Part of"):
        text = text.split("\n\n", 1)[1]
    files = len(list(folder.rglob("*.py"))) if folder.is_dir() else 1
    return " ".join(text.split("\n\n")[0].split()), files


def wrapped(text: str, width: int, most: int) -> list[str]:
    """Cut a text into at most `most` lines of `width` letters; the last has an ellipsis where more follows."""
    lines: list[str] = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1].rstrip(".,:;") + " …"]


def drawn() -> str:
    """Return the figure as SVG."""
    rows = layers()
    found = imports([room for row in rows for room in row])
    parts: list[str] = []
    for number, row in enumerate(rows):
        y = TOP + number * ROW
        wide = (WIDTH - 80 - GAP * (len(row) - 1)) / len(row)
        if number:
            parts.append(f'<path d="M{WIDTH / 2:.0f} {y - ROW + HIGH} V{y - 2}" marker-end="url(#tip)"/>')
        for place, room in enumerate(row):
            parts += box(room, 40 + place * (wide + GAP), y, wide, found)
    high = TOP + len(rows) * ROW
    title = "The rooms of vargpt_lightning: imports go down only"
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" height="{high}">',
            f"<style>{STYLE}</style>",
            f'<defs>{tip}<path d="M0 0 L6 3 L0 6 z" class="tip"/></marker></defs>',
            f'<rect x="0" y="0" width="{WIDTH}" height="{high}" class="paper"/>',
            f'<text class="title" x="40" y="32">{title}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def box(room: str, x: float, y: float, wide: float, found: dict[tuple[str, str], int]) -> list[str]:
    """Return a room: its name, files, what it is for, and which rooms it imports, the most imported first."""
    text, files = described(room)
    below = sorted((-count, other) for (one, other), count in found.items() if one == room)
    letters = int(wide / 6.1)
    lines = wrapped(text.replace("`", ""), letters, 2 if wide < WIDTH / 2 else 1)
    uses = ", ".join(other for _, other in below) or "nothing of the package"
    folder = ROOT / PACKAGE / room
    inside = sorted(file.parent.name for file in folder.glob("*/__init__.py"))
    notes = [f"inside: {', '.join(inside)}"] if inside else []
    notes += [f"imports {uses}"]
    return [
        f'<rect x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{HIGH}"/>',
        f'<text class="room" x="{x + 12:.0f}" y="{y + 20}">{room}</text>',
        f'<text class="what" x="{x + wide - 12:.0f}" y="{y + 20}" text-anchor="end">'
        f"{files} file{'s' if files > 1 else ''}</text>",
        *(f'<text x="{x + 12:.0f}" y="{y + 38 + 15 * n}">{escape(line)}</text>' for n, line in enumerate(lines)),
        *(
            f'<text class="what" x="{x + 12:.0f}" y="{y + HIGH - 8 - 13 * n}">{escape(line)}</text>'
            for n, line in enumerate(reversed([line for note in notes for line in wrapped(note, int(wide / 5.3), 2)]))
        ),
    ]


if __name__ == "__main__":
    FILE.write_text(drawn(), "utf-8")
    print(f"drawn: {FILE.relative_to(ROOT)}")
