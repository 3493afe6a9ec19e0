"""The documentation opened from the disk, by a reader without a network."""

from pathlib import Path

import pytest

from tests.browser.conftest import PATIENCE_MS, sync_api
from tests.test_site import build

expect = sync_api.expect


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, without reports."""
    folder = tmp_path_factory.mktemp("site")
    built = build(folder / "docs", folder / "store")
    assert built.returncode == 0, built.stderr
    return folder / "docs" / "site"


def test_the_documentation_is_read_and_searched_from_a_disk(browser, site: Path, screenshot):
    page = browser.new_page(viewport={"width": 1300, "height": 850})
    page.set_default_timeout(PATIENCE_MS)
    requested, wrong = list[str](), list[str]()
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="How to", exact=True).first.click()
    expect(page.get_by_role("heading", name="Use your own images")).to_be_visible()
    page.get_by_role("button", name="Search").first.click()
    page.get_by_role("combobox", name="Search").fill("medoid")
    found = page.locator("a[href*='recipe.html']")
    expect(found.locator("visible=true").filter(has_text="medoid").first).to_be_visible()
    page.screenshot(path=screenshot("docs"))
    page.close()
    assert wrong == []
    assert requested
    assert not [url for url in requested if not url.startswith(("file:", "data:", "blob:"))]
