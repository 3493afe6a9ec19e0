"""A browser before Dagster's own UI, over a workspace with digits and with markup.

The digits are a tiny recipe, made in a minute. Where `$D4M_STORE` has the whole digits, as after
`make demo`, these are found there and shown, so that the pictures of the documentation are theirs.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from d4m.compute import Compute
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from tests.assets.server import Server, wait_until
from tests.conftest import FOLDER_RECIPE, TINY_RECIPE, Workspace

sync_api = pytest.importorskip("playwright.sync_api", reason="wanted playwright: make test-browser")

INSTALLED = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
STANDSTILL_S = 600
ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "recipes" / "digits.yaml"
MARKUP = ("<img src=x onerror=alert(1)>", "![a](x) [b](javascript:alert(2)) <script>alert(3)<")
PRINTED = dict(
    re.findall(r'@echo "(\w+): +\$\(UI\)(/\S*)"', (ROOT / "Makefile").read_text(encoding="utf-8"))
)
"""The paths that `make dev` prints, by their names."""
FAILING = "dataset: {source: image_folder, path: ../nowhere}\n"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A live Dagster whose workspace has recipes, and nothing made of them yet."""
    folder, store = tmp_path_factory.mktemp("browser") / "workspace", _made_store()
    if store:
        shutil.copytree(store, folder / "store")
    workspace = Workspace(folder)
    workspace.write("digits", SHIPPED.read_text(encoding="utf-8") if store else TINY_RECIPE)
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


def _made_store() -> Path | None:
    """The user's store, if everything of the shipped digits is in it."""
    store = Path(os.environ.get("D4M_STORE", ROOT / "store"))
    plan = Pipeline(load_recipe(SHIPPED), store, Compute("cpu")).plan() if store.is_dir() else {}
    made = all(unit.state == "cached" for units in plan.values() for unit in units)
    return store if plan and made else None


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: the system's, or playwright's own."""
    found = next(filter(None, map(shutil.which, INSTALLED)), None)
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


def open_tab(browser: Any, server: Server, **options: Any) -> Any:
    """An empty tab, in which paths of the UI can be opened."""
    root = server.url.removesuffix("/graphql")
    size = {"width": 1400, "height": 900}
    tab = browser.new_page(base_url=root, viewport=size, **options)
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
    _wait_for_end(server, run_id)
    return run_id


def _wait_for_end(server: Server, run_id: str) -> None:
    """Wait for a run's end as long as units are published, however slow the machine is."""
    published, since = -1, time.monotonic()
    while status_of(server, run_id) not in ("SUCCESS", "FAILURE"):
        now = sum(1 for _ in server.workspace.store.glob("objects/*/*/*.json"))
        if now != published:
            published, since = now, time.monotonic()
        standstill = time.monotonic() - since
        assert standstill < STANDSTILL_S, f"no unit for {standstill:.0f} s, after {published}"
        time.sleep(1)


def status_of(server: Server, run_id: str) -> str:
    """A run's state."""
    return next(run["status"] for run in server.runs() if run["id"] == run_id)


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[[str], Path]:
    """Where a picture of the UI belongs: a file in the folder `D4M_SCREENSHOTS`, if set."""
    folder = Path(os.environ.get("D4M_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: folder / f"{name}.png"
