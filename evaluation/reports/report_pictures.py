"""The pictures of a report: which are shown, and each as a data URI, so that the page asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError, features

from vargpt_lightning.evaluation.base.files import cut_strip, rgb
from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.files import read_jsonl

SHOWN, STRIPS, HELDOUT, COPIES, ALL = 40, 5, 18, 12, 400


def by_hash(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows in an order that nobody chose: what a page shows of many is the first of these, not the best."""
    return sorted(map(dict, rows), key=lambda row: hashlib.sha256(str(row.get("id")).encode()).hexdigest())


class Pictures:
    """The pictures that a run's evaluation left, ready for a page."""

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.evaluation
        self.encoded: dict[Path, str | None] = {}
        self.table = {row["id"]: row for row in read_jsonl(self.folder / "pictures.jsonl")}
        self.scores = {row["id"]: row for row in read_jsonl(self.folder / "drawing_scores.jsonl")}
        self.copies = {row["id"]: row for row in read_jsonl(self.folder / "reconstructions.jsonl")}
        self.drawings = by_hash(row for row in run.drawings() if row.get("files"))
        self.silent = [row for row in run.drawings() if not row.get("files")]

    def sections(self) -> dict[str, Any]:
        """Everything that shows pictures: hero, drawings, strips, held-out drawings, reconstructions."""
        train = [row for row in self.drawings if row["split"] == TRAIN]
        heldout = [row for row in self.drawings if row["split"] != TRAIN]
        shown = [found for row in train[:ALL] if (found := self._drawing(row))]
        return {
            "hero": [row["uri"] for row in shown[:12]],
            "drawings": shown[:SHOWN],
            "more_drawings": shown[SHOWN:],
            "drawing_count": len(train),
            "silent": [{"prompt": row["prompt"], "text": row["text"]} for row in self.silent[:8]],
            "heldout": [found for row in heldout[:HELDOUT] if (found := self._drawing(row))],
            "heldout_count": len(heldout),
            "strips": self._strips(train or heldout),
            "copies": self._copies(),
        }

    def uri(self, path: Path) -> str | None:
        """A picture file as a data URI; None when it is missing or no picture."""
        if path not in self.encoded:
            try:
                with Image.open(path) as picture:
                    self.encoded[path] = encode(picture)
            except (UnidentifiedImageError, OSError):
                self.encoded[path] = None
        return self.encoded[path]

    def real(self, key: str | None) -> str | None:
        """The real picture of a key."""
        row = self.table.get(key)
        return self.uri(self.folder / row["files"][0]) if row else None

    def _drawing(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        uri = self.uri(self.folder / row["files"][0])
        if uri is None:
            return None
        score, real = self.scores.get(row["id"]), self.table.get(row["picture"], {})
        found = {"prompt": row["prompt"], "text": row["text"], "uri": uri, "real": self.real(row["picture"])}
        found |= {"name": real.get("name", ""), "rank": score["rank"] if score else None, "nearest": None}
        if score and score["rank"] > 0:
            found["nearest"] = self.table.get(score["nearest"], {}).get("name")
        return found

    def _strips(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The picture after each scale, for a few drawings that were kept scale by scale."""
        kept = (row for row in rows if row.get("scales") and (self.folder / row["scales"][0]).is_file())
        found = []
        for row in itertools.islice(kept, STRIPS):
            with Image.open(self.folder / row["scales"][0]) as strip:
                parts = cut_strip(rgb(strip), row["scale_counts"][0])
            found.append({"prompt": row["prompt"], "uris": [encode(part) for part in parts]})
        return found

    def _copies(self) -> list[dict[str, Any]]:
        """Originals with reconstructions; those that the tokenizer never saw come first."""
        rows = sorted(by_hash(self.copies.values()), key=lambda row: row["split"] == TRAIN)
        heldout = [row for row in rows if row["split"] != TRAIN][: COPIES // 2]
        chosen = [*heldout, *[row for row in rows if row["split"] == TRAIN][: COPIES - len(heldout)]]
        pairs = [
            {
                "name": self.table.get(row["id"], {}).get("name", ""),
                "seen": row["split"] == TRAIN,
                "real": self.real(row["id"]),
                "copied": self.uri(self.folder / row["files"][0]),
            }
            for row in chosen
        ]
        return [pair for pair in pairs if pair["real"] and pair["copied"]]


def encode(picture: Image.Image) -> str:
    """A picture as a data URI without loss, as WebP where Pillow can (a third smaller), else as PNG."""
    content, kind = io.BytesIO(), "webp" if features.check("webp") else "png"
    options: dict[str, Any] = {"lossless": True, "quality": 20, "method": 2} if kind == "webp" else {"optimize": True}
    rgb(picture).save(content, kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
