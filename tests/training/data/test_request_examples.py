from __future__ import annotations

import shutil
from pathlib import Path

from vargpt_lightning.data.openmoji.wording import DRAW_ASKED
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.data.request_examples import example_requests


def test_a_run_offers_what_it_was_trained_to_draw_while_its_data_are_there(debug_run: Path, tmp_path: Path) -> None:
    offered = example_requests(RunFolder(debug_run))
    assert len(set(offered)) == 6
    openings = {asked.partition("{}")[0] for asked in DRAW_ASKED}
    assert all(any(request.startswith(opening) for opening in openings) for request in offered)
    for name in ("config.yaml", "run.json"):
        shutil.copy(debug_run / name, tmp_path / name)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("Food & Drink", "Nothing of the kind"))
    assert example_requests(RunFolder(tmp_path)) == []
