from __future__ import annotations

import shutil
from pathlib import Path

from vargpt_lightning.commands.request_examples import example_requests
from vargpt_lightning.data.wording import DRAW_ASKED
from vargpt_lightning.results import RunFolder


def test_a_run_offers_what_it_was_trained_to_draw(debug_run: Path) -> None:
    offered = example_requests(RunFolder(debug_run))
    assert len(set(offered)) == 6
    openings = {asked.partition("{}")[0] for asked in DRAW_ASKED}
    assert all(any(request.startswith(opening) for opening in openings) for request in offered)


def test_without_its_data_a_run_offers_nothing(debug_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(debug_run / "config.yaml", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("Food & Drink", "Nothing of the kind"))
    assert example_requests(RunFolder(tmp_path / "run")) == []
