"""A page of HTML as its tests look at it."""

import base64
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
from PIL import Image

_EMPTY = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page in order, and the rows of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._sections: list[str] = []
        self._words: dict[str, list[str]] = {"": []}
        self._table = ""
        self.feed(text)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag not in _EMPTY:
            self._open.append(tag)
        if tag == "section":
            self._sections.append(found["id"])
        elif found.get("role") == "region":
            self._table = found["aria-label"]
        elif tag == "table":
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "section":
            self._sections.pop()

    def handle_data(self, data):
        if {"td", "th"} & set(self._open):
            self.tables[self._table][-1][-1] += data
        if "style" not in self._open:
            section = self._sections[-1] if self._sections else ""
            self._words.setdefault(section, []).append(data)

    def words(self, section: str = "") -> str:
        """The text of a section, or what is outside of all."""
        return " ".join(" ".join(self._words[section]).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def picture(self, alt: str) -> np.ndarray:
        """The pixels of the image with these words."""
        [source] = [each["src"] for each in self.all("img") if each["alt"] == alt]
        head, data = source.split(",", 1)
        assert head == "data:image/png;base64"
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            return np.asarray(image)
