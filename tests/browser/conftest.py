"""A browser before Dagster's own UI, over a workspace with the digits and with markup."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.assets.server import Server, wait_until
from tests.conftest import FOLDER_RECIPE, Workspace

sync_api = pytest.importorskip("playwright.sync_api", reason="wanted playwright: make test-browser")

INSTALLED = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
LONG_S = 1_800
SHIPPED = Path(__file__).parents[2] / "recipes" / "digits.yaml"
FEWER_STUDENTS = """\
evaluation:
  matching: {temperature: 4}
  optimizer: {batch_size: 50, learning_rate: 1.0e-2}
  seeds: 2
"""
DIGITS = SHIPPED.read_text(encoding="utf-8").split("evaluation:")[0] + FEWER_STUDENTS
MARKUP = ("<img src=x onerror=alert(1)>", "![a](x) [b](javascript:alert(2)) <script>alert(3)<")
FAILING = "dataset: {source: image_folder, path: ../nowhere}\n"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A live Dagster whose workspace has recipes, and nothing made of them yet."""
    workspace = Workspace(tmp_path_factory.mktemp("browser") / "workspace")
    workspace.write("digits", DIGITS)
    workspace.write("marked", FOLDER_RECIPE)
    workspace.write("failing", FAILING)
    for name in MARKUP:
        for number in range(120):  # of which one more, unreadable, is less than a hundredth
            workspace.draw(name, f"<b>{number}<b>")
        workspace.draw(name, "<svg onload=alert(4)>").write_text("no image", encoding="utf-8")
    started = Server(workspace)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: the system's, or playwright's own."""
    found = next(filter(None, map(shutil.which, INSTALLED)), None)
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


def open_tab(browser: Any, server: Server) -> Any:
    """An empty tab, in which paths of the UI can be opened."""
    root = server.url.removesuffix("/graphql")
    tab = browser.new_page(base_url=root, viewport={"width": 1400, "height": 900})
    tab.set_default_timeout(PATIENCE_MS)
    return tab


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """An empty tab of the UI; a script that gets as far as a dialog fails the test."""
    opened = open_tab(browser, server)
    dialogs = list[str]()
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield opened
    opened.close()
    assert dialogs == []


def materialize_by_hand(page: Any, server: Server, recipe: str) -> str:
    """Materialize everything of one recipe as a person does, and wait: the run's id."""
    known = {run["id"] for run in server.runs()}
    page.goto("/asset-groups")
    page.get_by_role("button", name="Materialize all").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Select a partition or create one").click()
    page.get_by_text(recipe, exact=True).locator("visible=true").last.click()
    page.keyboard.press("Escape")
    dialog.get_by_role("button", name="Launch 1 run").click()
    wait_until(lambda: len(server.runs()) > len(known))
    run_id = next(run["id"] for run in server.runs() if run["id"] not in known)
    wait_until(lambda: status_of(server, run_id) in ("SUCCESS", "FAILURE"), LONG_S)
    return run_id


def status_of(server: Server, run_id: str) -> str:
    """A run's state."""
    return next(run["status"] for run in server.runs() if run["id"] == run_id)


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[[str], Path]:
    """Where a picture of the UI belongs: a file in the folder `D4M_SCREENSHOTS`, if set."""
    folder = Path(os.environ.get("D4M_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: folder / f"{name}.png"
