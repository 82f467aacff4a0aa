"""The page in a real browser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.conftest import Running, serving
from vargpt_lightning.models.generation import generate as module

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def site(assistant) -> Iterator[Running]:
    with serving(assistant, page=True, examples=[f"Draw dog {number}." for number in range(7)]) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as manager:
        made = manager.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def tab(browser, site: Running):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(site.url)
    page.set_default_timeout(30_000)
    page.locator("#box textarea").wait_for()
    yield page
    page.close()


def ask(tab, text: str, *files: Path) -> None:
    if files:
        tab.locator("#box input[type=file]").set_input_files([str(file) for file in files])
        tab.locator("#box .thumbnails img, #box .thumbnail-item img, #box img").nth(len(files) - 1).wait_for()
    tab.locator("#box textarea").fill(text)
    tab.locator("#box textarea").press("Enter")


def bot(tab):
    return tab.locator("#chat .bot")


def settle(site: Running) -> None:
    """Wait until no answer is under way: what models say next may be changed then."""
    until = time.monotonic() + 30
    while site.service.engine.running:
        assert time.monotonic() < until, "the answer does not end"
        time.sleep(0.02)


def test_a_prompt_becomes_a_picture_and_can_be_downloaded(tab, script, tmp_path: Path) -> None:
    script("Here is:*")
    ask(tab, "Draw a dog.")
    bot(tab).locator("img").first.wait_for()
    tab.locator("#scales img").nth(2).wait_for()
    assert "Here is:" in bot(tab).first.inner_text()
    with tab.expect_download() as started:
        tab.locator("#download").click()
    started.value.save_as(tmp_path / "drawing.png")
    assert Image.open(tmp_path / "drawing.png").size == (8, 8)


def test_parts_of_the_sampler_are_chosen_on_the_page(tab, site: Running, script) -> None:
    script("Here is:*")
    tab.locator("#parts textarea").fill("guided_scale stop=1")
    ask(tab, "Draw a dog.")
    tab.locator("#note").get_by_text("did you mean 'guided_scales'?").wait_for()
    tab.locator("#parts textarea").fill("guided_scales stop=3\nbest_of scorer=identification:/etc")
    tab.locator("#box textarea").press("Enter")
    tab.locator("#note").get_by_text("best_of.scorer is the server's to choose").wait_for()
    tab.locator("#parts textarea").fill("guided_scales stop=1\nschedule shape=linear")
    tab.locator("#box textarea").press("Enter")
    tab.locator("#scales img").nth(2).wait_for()
    tab.locator("#note").get_by_text("schedule changes nothing here: linear is what the settings say").wait_for()
    settle(site)


def test_a_drawing_has_the_size_that_is_chosen_on_the_page(browser, tab, sized, script, tmp_path: Path) -> None:
    assert not tab.locator("#size").is_visible(), "this model has one size"
    with serving(sized, page=True) as site:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(site.url)
        page.set_default_timeout(30_000)
        script("Here is:*")
        assert page.locator("#size input").input_value() == "8x8"
        page.locator("#size input").click()
        page.get_by_role("option", name="12x8").click()
        ask(page, "Draw a dog.")
        page.locator("#scales img").nth(2).wait_for()
        settle(site)
        with page.expect_download() as started:
            page.locator("#download").click()
        started.value.save_as(tmp_path / "drawing.png")
        assert Image.open(tmp_path / "drawing.png").size == (12, 8)
        page.close()


def test_nothing_stands_over_the_pictures(tab, script) -> None:
    script("Here is:*")
    ask(tab, "Draw a dog.")
    tab.locator("#scales img").nth(2).wait_for()
    bot(tab).locator("img").first.wait_for()
    over = """image => {
        const box = image.getBoundingClientRect(), inside = [0.1, 0.5, 0.9]
        return inside.every(x => inside.every(y => {
            const top = document.elementFromPoint(box.x + x * box.width, box.y + y * box.height)
            return image === top || top?.contains(image) || image.closest("button")?.contains(top)
        }))
    }"""
    for place in range(3):
        picture = tab.locator("#scales img").nth(place)
        picture.scroll_into_view_if_needed()
        assert picture.evaluate(over) and picture.evaluate("image => image.parentElement.innerText") == ""
    assert tab.locator("button[aria-label='Share']:visible").count() == 0


def test_an_answer_without_a_drawing_says_so_and_can_be_asked_for_again(tab, site: Running, script) -> None:
    script("Here is:*")
    ask(tab, "Draw a dog.")
    tab.locator("#scales img").nth(2).wait_for()
    settle(site)
    script("Here")
    ask(tab, "Draw a cat.")
    tab.locator("#note").get_by_text("Nothing was drawn").wait_for()
    settle(site)
    tab.locator("#scales img").first.wait_for(state="detached")
    assert tab.locator("#download").is_disabled()
    script("Here is:*")
    tab.locator("#again").click()
    tab.locator("#scales img").nth(2).wait_for()
    tab.locator("#again").wait_for(state="hidden")
    assert tab.locator("#chat .user").count() == 1 and "Draw a cat." in tab.locator("#chat .user").inner_text()


def test_six_requests_are_offered(tab, script) -> None:
    script("Here is:*")
    offered = tab.locator("#examples button")
    assert [offered.nth(place).inner_text() for place in range(offered.count())] == [f"Draw dog {n}." for n in range(6)]
    offered.nth(3).click()
    bot(tab).locator("img").first.wait_for()
    assert "Draw dog 3." in tab.locator("#chat .user").inner_text()


def test_another_browser_does_not_see_a_drawing(tab, browser, site: Running, script) -> None:
    script("*")
    ask(tab, "Draw a dog.")
    url = bot(tab).locator("img").first.get_attribute("src")
    assert tab.request.get(url).status == 200
    other = browser.new_context()
    assert other.request.get(url).status == 404
    other.close()


def test_uploaded_pictures_are_asked_about_in_one_conversation(tab, site: Running, script, tmp_path: Path) -> None:
    for colour in ("red", "blue", "green"):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{colour}.png")
    script("They are")
    ask(tab, "Which?", tmp_path / "red.png", tmp_path / "blue.png")
    bot(tab).get_by_text("They are").first.wait_for()
    tab.locator("#chat .user img").nth(1).wait_for()
    settle(site)
    script("All of")
    ask(tab, "And?", tmp_path / "green.png")
    bot(tab).get_by_text("All of").first.wait_for()
    assert tab.locator("#chat .user img").count() == 3


def test_what_is_no_picture_is_said_so(tab, script, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    script("Yes")
    tab.locator("#box input[type=file]").set_input_files(str(tmp_path / "text.png"))
    tab.locator("#box img").first.wait_for(state="attached")
    ask(tab, "What?")
    tab.locator("#note").get_by_text("no picture").wait_for()


def test_stop_ends_an_answer(tab, site: Running, script, monkeypatch) -> None:
    script("word " * 30)
    write = module._Batch._write
    monkeypatch.setattr(module._Batch, "_write", lambda *given: (time.sleep(0.1), write(*given))[1])
    ask(tab, "Count.")
    bot(tab).get_by_text("word").first.wait_for()
    tab.locator("#stop").click()
    tab.locator("#note").get_by_text("Stopped").wait_for()
    assert site.service.engine.running == 0
    text = bot(tab).first.inner_text()
    assert 1 <= text.count("word") < 29
    tab.locator("#new").click()
    bot(tab).first.wait_for(state="detached")


def test_a_tab_that_is_closed_stops_its_answer(browser, site: Running, script, monkeypatch) -> None:
    script("word " * 30)
    write = module._Batch._write
    monkeypatch.setattr(module._Batch, "_write", lambda *given: (time.sleep(0.2), write(*given))[1])
    page = browser.new_page()
    page.goto(site.url)
    page.locator("#box textarea").wait_for()
    ask(page, "Count.")
    bot(page).get_by_text("word").first.wait_for()
    page.close()
    until = time.monotonic() + 10
    while site.service.engine.running and time.monotonic() < until:
        time.sleep(0.05)
    assert site.service.engine.running == 0
