"""Takes the picture of the page in the docs: python -m tests.serving.screenshot runs/openmoji docs/serve.png [WIDTH]"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.serving.conftest import serving
from tests.serving.test_page import BROWSER
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.training.data.request_examples import example_requests

REQUEST, SEED, SIZE = "Please draw a shamrock.", 1, (1200, 900)


def take(run: Path, file: Path, width: int = SIZE[0]) -> None:
    """Ask a run for a drawing on its page and save what is seen then."""
    from playwright.sync_api import sync_playwright

    assistant = load_run(run, device="cpu")
    offered = example_requests(assistant.folder)
    with serving(assistant, name=run.name, page=True, examples=offered) as site, sync_playwright() as manager:
        browser = manager.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": SIZE[1]})
        page.goto(site.url)
        page.locator("#seed input").fill(str(SEED))
        page.locator("#box textarea").fill(REQUEST)
        page.locator("#box textarea").press("Enter")
        page.locator("#download:enabled").wait_for(timeout=120_000)
        page.wait_for_timeout(2000)
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
