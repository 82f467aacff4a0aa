"""What the tests read in Markdown pages: code blocks, the files that they are, commands, links and anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.md")])
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^(?P<fence>```+)(?P<kind>\w*)\n(?P<text>.*?)^(?P=fence)$", re.M | re.S
)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)|<(?:a|img)\b[^>]*?(?:href|src)=\"([^\"]+)\"")
_COMMAND = re.compile(r"\b(?:vargpt|vargpt_lightning\.cli) ([a-z].*)")


@dataclass(frozen=True)
class Block:
    """A code block; `file` is what the line before it names, as `path`:"""

    kind: str
    text: str
    file: str | None = None


def blocks(text: str) -> list[Block]:
    """Return a page's code blocks in their order."""
    return [Block(each["kind"], each["text"], each["file"]) for each in _BLOCK.finditer(text)]


def shell_lines(text: str) -> Iterator[str]:
    """Yield the commands of ours in a page's blocks of the shell, continued lines joined, comments left out."""
    for block in blocks(text):
        if block.kind == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                line = re.split(r"\s#", line)[0].strip()
                if line.startswith("vargpt "):
                    yield line


def every_command(text: str) -> Iterator[str]:
    """Yield what follows `vargpt` wherever it stands as code: in blocks and in a line of text."""
    plain = [block.text for block in blocks(text) if block.kind in ("", "bash")]
    inline = [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", _BLOCK.sub("", text))]
    indented = re.findall(r"^    (\S.*(?:\\\n.*)*)", _BLOCK.sub("", text), re.M)
    for code in [*plain, *inline, *indented]:
        for line in code.replace("\\\n", " ").splitlines():
            if found := _COMMAND.search(re.split(r"\s#", line)[0]):
                yield found[1].strip()


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures, code left out."""
    prose = re.sub(r"`[^`\n]+`", "", _BLOCK.sub("", text))
    return [one or other for one, other in _LINK.findall(prose)]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as repositories make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", _BLOCK.sub("", text), re.M):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


if __name__ == "__main__":  # links that lead out of the repository, which no test follows
    for page in PAGES:
        for link in sorted({link for link in links(page.read_text("utf-8")) if "://" in link}):
            print(f"{page.relative_to(ROOT)}  {link}")
