"""The report in a browser: nothing is loaded, everything can be read, on a phone and at a desk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import sync_api
from tests.cli.commands import call

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make test-browser")
expect = sync_api.expect

PHONE, DESK = 390, 1400


@pytest.fixture(scope="module")
def file(finished_once, tmp_path_factory) -> Path:
    """The report of the tiny recipe and of one that was never run."""
    made = finished_once.copy(tmp_path_factory.mktemp("report") / "workspace")
    made.write("never", "dataset: {source: digits}\n")
    call(made, "report", "tiny", "never")
    return made.store / "reports" / "tiny+never.html"


@pytest.fixture(params=[(w, s) for w in (PHONE, DESK) for s in ("light", "dark")], ids=str)
def shown(request, browser, file) -> Iterator[Any]:
    """The report at a width, in light or dark."""
    width, scheme = request.param
    yield from _open(browser, file, width, scheme)


def _open(browser, file, width, scheme="light", **more) -> Iterator[Any]:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
    asked, problems = list[str](), list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: problems.append(message.text))
    tab.goto(file.as_uri())
    yield tab
    tab.close()
    remote = [url for url in asked if not url.startswith("data:image/")]
    assert remote == [file.as_uri()]
    assert problems == []


def test_nothing_is_wrong_for_those_who_see_or_hear_it(shown):
    """Contrast, names of images and tables, order of headings, regions: axe-core's rules."""
    for details in shown.locator("details").all():
        details.evaluate("each => { each.open = true }")
    found = axe.Axe().run(shown)
    assert found.violations_count == 0, found.generate_report()


def test_the_page_fits_its_width(shown):
    width = shown.viewport_size["width"]
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    wide, narrow = (shown.locator(f".chart.{kind}").first for kind in ("wide", "narrow"))
    expect(wide).to_be_visible(visible=width == DESK)
    expect(narrow).to_be_visible(visible=width == PHONE)
    size = shown.locator(".chart text:visible").first.evaluate(
        "each => each.getBoundingClientRect().height"
    )
    assert size >= 12  # CSS pixels of a line of text


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_labels_switch_without_a_script(browser, file, width):
    for tab in _open(browser, file, width, java_script_enabled=False):
        accuracy = tab.locator("#r1-accuracy")
        soft, hard = (accuracy.locator(f".of-{kind}") for kind in ("soft", "hard"))
        expect(soft).to_be_visible()
        expect(hard).to_be_hidden()
        accuracy.get_by_text("Class labels", exact=True).click()
        expect(hard).to_be_visible()
        expect(soft).to_be_hidden()
        tab.keyboard.press("ArrowLeft")
        expect(soft).to_be_visible()
        expect(tab.locator("#r1-curves .of-soft")).to_be_visible()  # has a switch of its own


def test_more_images_are_a_click_away(browser, file, screenshot):
    for tab in _open(browser, file, DESK):
        tab.screenshot(path=screenshot("report"))
        hidden = tab.get_by_alt_text("synthetic image 2 of class three", exact=True)
        expect(hidden).to_be_hidden()
        tab.locator(".class", has_text="three").get_by_text("2 more").click()
        expect(hidden).to_be_visible()
        assert hidden.evaluate("image => image.naturalWidth") == 8
