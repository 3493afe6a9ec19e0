"""Draw docs/ui/report.png and docs/ui/report_phone.png: pictures of reports in a browser.

The first shows the last recipe at a desk, the second all of them on a phone, in the dark. A recipe
alone is drawn at a desk into a picture with its name. Run it where the recipes are finished, with
what `make test-browser` installs:

    python docs/draw_report.py digits_ipc1 digits
    python docs/draw_report.py fashion_mnist_ipc10
    python docs/draw_report.py fashion_mnist_class_labels_ipc10
    python docs/draw_report.py icons
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, sync_playwright

from d4m.environment import compute, find_recipe, store_root
from d4m.page.write import write_report
from d4m.pipeline import Pipeline

_FOLDER = Path(__file__).parent / "ui"
_DESK_PX, _HIGH_PX, _PHONE_PX = (1180, 1000), (1180, 1240), (390, 960)


def main(recipes: list[str]) -> None:
    """Write both reports into a temporary folder, and photograph them."""
    pipelines = {name: Pipeline(find_recipe(name), store_root(), compute()) for name in recipes}
    last = recipes[-1]
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        one, all_ = (Path(folder) / f"{name}.html" for name in ("one", "all"))
        write_report({last: pipelines[last]}, one)
        browser = playwright.chromium.launch(executable_path=found)
        if len(recipes) == 1:
            _photograph(browser, one, _HIGH_PX, "light", _FOLDER / f"report_{last}.png")
            return
        write_report(pipelines, all_)
        _photograph(browser, one, _DESK_PX, "light", _FOLDER / "report.png")
        _photograph(browser, all_, _PHONE_PX, "dark", _FOLDER / "report_phone.png")
        browser.close()


def _photograph(
    browser: Browser, page: Path, size: tuple[int, int], scheme: str, picture: Path
) -> None:
    tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
    tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    tab.goto(page.as_uri())
    tab.screenshot(path=picture)
    tab.close()


if __name__ == "__main__":
    main(sys.argv[1:])
