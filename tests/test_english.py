"""Plain English: words that strangers stumble over stand in no docstring, message or page."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("d4m", "d4m_assets", "benchmarks", "tests")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
MODULES = [
    path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if path != Path(__file__)  # which quotes what it looks for
]

# Each has a plainer word: next to or compared with, again, equal, about the same as, ...
AVOIDED = re.compile(
    r"\b(beside|anew|alike|level with|in turns|of before|lies|told|goes? (?:before|with))\b",
    re.IGNORECASE,
)
# A reason that is stored in units: other words would move their keys.
STORED = {"a link to a folder that it lies in"}
# A sentence that begins so hides its subject; a question may.
HIDDEN_SUBJECT = re.compile(r"(?:^|(?<=[.:] )|(?<=\n\n))(?:Of|What|Which) (?![^.?!]*\?)")


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_plain(path: Path) -> None:
    texts = _sentences(path) if path.suffix == ".py" else [(1, path.read_text(encoding="utf-8"))]
    found = [
        f"line {line + text[: match.start()].count(chr(10))}: {match.group().strip()!r}"
        for line, text in texts
        if text not in STORED
        for pattern in (AVOIDED, HIDDEN_SUBJECT)
        for match in pattern.finditer(text)
    ]
    assert not found


def test_the_word_list_finds_what_it_should() -> None:
    assert AVOIDED.search("Two versions beside each other.")
    assert AVOIDED.search("what goes with it")
    assert not AVOIDED.search("It likes and relies on foretold things.")
    assert HIDDEN_SUBJECT.search("Of one channel, the mean.")
    assert HIDDEN_SUBJECT.search("First this. What follows is hidden.")
    assert not HIDDEN_SUBJECT.search("What does it cost? Nothing.")


def _sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Every string and comment of a module, with its line."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")
