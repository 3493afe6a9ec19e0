"""The documentation as a site: complete, with links that lead somewhere, and without a network."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "docs" / "site" / "build.py"
FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
}
REPORT = "<!doctype html><title>tiny</title><p>scores"


class Page(HTMLParser):
    """One page of the site: the files that it fetches, its links, and its places to link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched, self.links, self.ids = list[str](), list[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if value and (tag, name) in FETCHED and ("rel", "canonical") not in attrs:
                self.fetched.append(value)
            if value and (tag, name) == ("a", "href"):
                self.links.append(value)


def build(folder: Path, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BUILD), str(folder)],
        env=os.environ | {"D4M_STORE": str(store)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, with a report of one recipe."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "store" / "reports").mkdir(parents=True)
    (folder / "store" / "reports" / "tiny.html").write_text(REPORT, encoding="utf-8")
    built = build(folder / "docs", folder / "store")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning" not in (built.stdout + built.stderr).lower()
    return folder / "docs" / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site but those that others have made."""
    made = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(made) > 80
    return {path: page for path, page in made.items() if path.parent.name != "reports"}


def test_nothing_is_fetched_from_a_network(site: Path, pages: dict[Path, Page]):
    fetched = {url for page in pages.values() for url in page.fetched}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert any(url.endswith(".js") for url in fetched)
    assert styles
    fetched |= {url for text in styles for url in re.findall(r"url\([\"']?([^\"')]+)", text)}
    fetched |= {url for text in styles for url in re.findall(r"@import[\s\"']+([^\"'; ]+)", text)}
    assert not [url for url in fetched if re.match(r"(?:[a-z]+:)?//|https?:", url)]


def test_every_link_leads_to_a_page_and_a_place_that_exist(pages: dict[Path, Page]):
    lost = defaultdict[str, list[str]](list)
    for path, page in pages.items():
        if path.name == "404.html":  # whose links are relative to wherever it is shown
            continue
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            place, _, anchor = unquote(link).partition("#")
            target = (path.parent / place).resolve() if place else path
            known = target.exists() and (target.is_dir() or target.suffix != ".html" or not anchor)
            if not known and not (target in pages and anchor in pages[target].ids):
                lost[path.name].append(link)
    assert not lost


def test_every_page_of_the_documentation_is_in_the_site_in_the_order_of_its_path(
    site: Path, pages: dict[Path, Page]
):
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    names = {path.with_name(path.name.replace("README", "index")) for path in written}
    assert {site.resolve() / path.with_suffix(".html") for path in names} <= pages.keys()
    text = (site / "index.html").read_text(encoding="utf-8")
    tabs = [name.strip() for name in re.findall(r'md-tabs__link">([^<]+)</a>', text)]
    assert tabs[1:5] == ["Tutorial", "How to", "Reference", "Explanation"]


def test_reports_of_recipes_are_part_of_the_site(site: Path, pages: dict[Path, Page]):
    assert (site / "reports" / "tiny.html").read_text(encoding="utf-8") == REPORT
    assert "reports/tiny.html" in pages[(site / "reports.html").resolve()].links


def test_a_link_that_leads_nowhere_breaks_the_build(site: Path, tmp_path: Path):
    copy = shutil.copytree(site.parent, tmp_path / "copy")
    index = copy / "pages" / "glossary.md"
    index.write_text(index.read_text(encoding="utf-8") + "\n[lost](nowhere.md)\n", encoding="utf-8")
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(
        [str(zensical), "build", "--strict"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode != 0
    assert "page does not exist" in built.stdout + built.stderr


def test_a_page_that_no_list_names_breaks_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = importlib.util.spec_from_file_location("build_site", BUILD)
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    monkeypatch.setattr(builder, "ROOT", tmp_path)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# A page\n", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    lists = "## Tutorial\n\n- [Begin](begin.md)\n\n## More\n\n- [B](../benchmarks/README.md)\n"
    (tmp_path / "docs" / "README.md").write_text(f"# Docs\n\n{lists}", encoding="utf-8")
    (tmp_path / "docs" / "begin.md").write_text("# Begin\n", encoding="utf-8")
    site = builder.Site(tmp_path / "built", tmp_path / "reports")
    site.write()
    assert site.navigation()[1:3] == [
        {"Tutorial": [{"Begin": "begin.md"}]},
        {"More": [{"B": "benchmarks.md"}]},
    ]
    (tmp_path / "docs" / "left.md").write_text("# Left\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"docs/README\.md lists no left\.md"):
        builder.Site(tmp_path / "built", tmp_path / "reports").write()
