"""Build the documentation as a site that needs no network: `make docs`.

The pages are those of `docs/`, of the project's root and of `benchmarks/`, and every file that they
link to. `docs/README.md` is the first page, and its lists are the navigation. Reports of recipes in
the store are part of the site.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORKER = "iframe-worker.js"
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)
# Pages outside docs/ -> where they are in the site.
OUTSIDE = {
    "README.md": "project.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
MORE = {
    "Project": ["project.md", "contributing.md", "changelog.md", "reports.md"],
}
KEPT = (".md", ".png")


class Site:
    """The pages in the folder from which the site is built.

    Args:
        folder: is made anew.
        reports: folder of reports of recipes, which may be missing.
    """

    def __init__(self, folder: Path, reports: Path) -> None:
        """Write nothing yet."""
        self.folder = folder
        self._reports = reports
        self._files = set[Path]()

    def write(self) -> None:
        """Write all pages, the files that they link to, and the site's settings."""
        shutil.rmtree(self.folder, ignore_errors=True)
        docs = [path for path in (ROOT / "docs").rglob("*") if path.suffix in KEPT]
        for path in [*docs, *(ROOT / name for name in OUTSIDE)]:
            target = self._pages / self._place(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":
                target.write_text(self._page(path), encoding="utf-8")
            else:
                shutil.copyfile(path, target)
        for path in self._files:
            self._write_file(path)
        self._write_reports()
        shutil.copyfile(HERE / WORKER, self._pages / WORKER)
        settings = (HERE / "zensical.toml").read_text(encoding="utf-8")
        nav = _toml(self.navigation())
        text = settings.replace("\nstrict = true\n", f"\nstrict = true\nnav = {nav}\n", 1)
        (self.folder / "zensical.toml").write_text(text, encoding="utf-8")

    def navigation(self) -> list[object]:
        """Return the pages by the headings of `docs/README.md`.

        Raises:
            SystemExit: a page is in no list.
        """
        nav: list[object] = ["index.md"]
        listed = {"index.md", *MORE["Project"]}
        index = (self._pages / "index.md").read_text(encoding="utf-8")
        for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
            heading, _, body = section.partition("\n")
            pages = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", body, re.MULTILINE)
            listed |= {page for _, page in pages}
            nav.append({heading: [self._entry(title, page, listed) for title, page in pages]})
        nav.append({"Project": MORE["Project"]})
        pages = {str(path.relative_to(self._pages)) for path in self._pages.rglob("*.md")}
        if left := sorted(page for page in pages - listed if not page.startswith("files/")):
            sys.exit(f"docs/README.md lists no {', '.join(left)}; add a line for each")
        return nav

    @property
    def _pages(self) -> Path:
        return self.folder / "pages"

    def _entry(self, title: str, page: str, listed: set[str]) -> object:
        """Return a page's entry; an index is followed by the pages that it links to."""
        if not page.endswith("/README.md"):
            return {title: page}
        folder = Path(page).parent
        text = (self._pages / page).read_text(encoding="utf-8")
        own = [
            f"{folder}/{link}" for link in dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)\)", text))
        ]
        listed |= {*own, page}
        return {title: [page, *own]}

    def _place(self, path: Path) -> str:
        """Return where a file of the project is in the site."""
        name = path.relative_to(ROOT).as_posix()
        if name in OUTSIDE:
            return OUTSIDE[name]
        if name == "docs/README.md":
            return "index.md"
        if name.startswith("docs/") and path.suffix in KEPT:
            return name.removeprefix("docs/")
        self._files.add(path)
        return f"files/{name}.md"

    def _page(self, path: Path) -> str:
        """Return a page's text with links that hold in the site."""
        start = Path(self._place(path)).parent

        def lead(match: re.Match[str]) -> str:
            opening, link, anchor = match[1], match[2], match[3] or ""
            if re.match(r"[a-z]+:", link):
                return match[0]
            place = self._place((path.parent / link).resolve())
            return f"{opening}{os.path.relpath(place, start)}{anchor})"

        parts = FENCE.split(path.read_text(encoding="utf-8"))
        return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)

    def _write_file(self, path: Path) -> None:
        """Write a page that shows a file of the project, which search leaves out."""
        target = self._pages / self._place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        language = {".py": "python", ".yaml": "yaml"}.get(path.suffix, "text")
        shown = path.read_text(encoding="utf-8")
        target.write_text(
            f"---\nsearch:\n  exclude: true\n---\n\n# {path.relative_to(ROOT)}\n\n"
            f"~~~~ {language}\n{shown}\n~~~~\n",
            encoding="utf-8",
        )

    def _write_reports(self) -> None:
        """Write a page that lists the reports of recipes, and copy these."""
        reports = sorted(self._reports.glob("*.html"))
        lines = ["# Reports of recipes", ""]
        for path in reports:
            target = self._pages / "reports" / path.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
            lines.append(f"- [{path.stem}](reports/{path.name})")
        if not reports:
            lines.append("There were none in the store when this site was built.")
        text = "\n".join(lines) + "\n"
        (self._pages / "reports.md").write_text(text, encoding="utf-8")


def _toml(value: object) -> str:
    """Return lists, tables and strings as TOML, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Build the site in the folder that is given, or in `build/docs`."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"
    store = Path(os.environ.get("D4M_STORE", ROOT / "store"))
    Site(folder, store / "reports").write()
    zensical = Path(sys.executable).with_name("zensical")
    subprocess.run([zensical, "build", "--clean", "--strict"], cwd=folder, check=True)  # noqa: S603
    print(f"the site: {folder / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
