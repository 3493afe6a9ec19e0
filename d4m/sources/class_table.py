"""The class table: the one place that maps a class's id to its name and its prompt.

A class *is* its `class_id`: its position in the table. Labels, artifacts and units carry the id and
nothing else; names and prompts are display text that is looked up here by id. A source makes its
table once, in the order of its labels, and no other code orders classes.

The tables of well-known data sets are in `class_tables/`. A user's own file has the same format:
tab-separated UTF-8, comment lines (`#`) first, then the line
`folder<TAB>name<TAB>gloss<TAB>synonyms`, then one line per class in the order of the class ids. A
gloss and synonyms, or the last or both of these columns, may be left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from d4m.errors import RecipeError, SourceError
from d4m.settings import PLACEHOLDER, PromptSettings
from d4m.sources.unicode_names import Names

SHIPPED_TABLES: tuple[str, ...] = (
    "imagenet1k",
    "tiny_imagenet",
    "imagenette",
    "imagewoof",
    "cifar10",
    "cifar100",
)

_COLUMNS = ("folder", "name", "gloss", "synonyms")


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, in the order of their ids.

    Attributes:
        names: one distinct, non-empty name per class; `names[class_id]`.
        glosses: the meaning of an ambiguous name, "" for a plain one; `glosses[class_id]`. An empty
            tuple: no class has a gloss.
        synonyms: all words for the class with commas between them, the usual one first, "" for a
            class without; `synonyms[class_id]`. They may be those of another class too. An empty
            tuple: no class has synonyms.

    Raises:
        SourceError: there are fewer than two classes, a name is empty or repeated, or the numbers
            of glosses or synonyms and names differ.
    """

    names: tuple[str, ...]
    glosses: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check names, and how many glosses and synonyms there are."""
        if len(self.names) < 2:
            msg = f"wanted at least 2 classes, found {len(self.names)}: {list(self.names)}"
            raise SourceError(msg)
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated or "" in self.names:
            msg = (
                f"class names must be distinct and not empty, found {self.names.count('')} empty "
                f"names and the repeated names {repeated}"
            )
            raise SourceError(msg)
        for what, texts in (("a gloss", self.glosses), ("synonyms", self.synonyms)):
            if texts and len(texts) != len(self.names):
                msg = f"wanted {what} for each of {len(self.names)} classes, found {len(texts)}"
                raise SourceError(msg)

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def prompt(self, class_id: int, settings: PromptSettings) -> str:
        """Return the text prompt of one class: from `per_class`, else from the template.

        In the template, `{name}` stands for the class's name. `{synonyms}` stands for its synonyms,
        or for the name of a class without synonyms. `{described}` stands for the name, followed by
        a comma and the gloss if there is one. `{class_id}` stands for the class id, by which a DiT
        chooses the class.

        Raises:
            RecipeError: `per_class` names a class that is not in the table.

        Example:
            >>> table = ClassTable(("crane", "dog"), ("long-necked wading bird", ""))
            >>> table.prompt(1, PromptSettings(template="a photo of a {name}"))
            'a photo of a dog'
            >>> settings = PromptSettings(template="{described}")
            >>> [table.prompt(class_id, settings) for class_id in range(2)]
            ['crane, long-necked wading bird', 'dog']
            >>> table = ClassTable(("tench", "dog"), synonyms=("tench, Tinca tinca", ""))
            >>> settings = PromptSettings(template="{synonyms}")
            >>> [table.prompt(class_id, settings) for class_id in range(2)]
            ['tench, Tinca tinca', 'dog']
        """
        own = own_prompts(self.names, tuple(settings.per_class))
        unknown = sorted(set(settings.per_class) - set(own.values()))
        if unknown:
            msg = (
                f"`prompts.per_class` names classes that the data set does not have: {unknown}; "
                f"its classes are {list(self.names[:20])}{' ...' if len(self) > 20 else ''}"
            )
            raise RecipeError(msg)
        name = self.names[class_id]
        gloss = self.glosses[class_id] if self.glosses else ""
        described = f"{name}, {gloss}" if gloss else name
        texts = {
            "name": name,
            "synonyms": self._synonyms(class_id),
            "described": described,
            "class_id": str(class_id),
        }
        # One pass, so that braces in a name or a gloss stay text.
        prompt = PLACEHOLDER.sub(lambda match: texts[match[1]], settings.template)
        return settings.per_class[own[name]] if name in own else prompt

    def name_end(self, class_id: int, settings: PromptSettings) -> int:
        """Return the number of characters of a class's prompt up to the end of the class's name.

        Of synonyms it is the end of the first one. It is 0 where the recipe words the prompt of the
        class without the name.

        Example:
            >>> ClassTable(("crane", "dog")).name_end(1, PromptSettings(template="a {name} asleep"))
            5
        """
        name = self.names[class_id]
        key = own_prompts(self.names, tuple(settings.per_class)).get(name)
        if key is not None:
            return self.find_name(class_id, settings.per_class[key])
        found = PLACEHOLDER.search(settings.template)
        assert found is not None, "templates without a placeholder are refused"
        first = {"class_id": str(class_id), "synonyms": self._first_synonym(class_id)}
        return found.start() + len(first.get(found[1], name))

    def find_name(self, class_id: int, prompt: str) -> int:
        """Return where a class's name or else its first synonym ends in a prompt; 0 if nowhere."""
        for name in (self.names[class_id], self._first_synonym(class_id)):
            if found := re.search(re.escape(name), prompt, re.IGNORECASE):
                return found.end()
        return 0

    def _synonyms(self, class_id: int) -> str:
        return (self.synonyms[class_id] if self.synonyms else "") or self.names[class_id]

    def _first_synonym(self, class_id: int) -> str:
        return self._synonyms(class_id).partition(",")[0]


@dataclass(frozen=True)
class ClassRow:
    """One class of a class table file.

    Attributes:
        folder: the folder that holds the class's images, or the label that the data set uses.
        name: the name for people and prompts.
        gloss: the meaning of an ambiguous name, "" for a plain one.
        synonyms: all words for the class with commas between them, "" if none are listed.
    """

    folder: str
    name: str
    gloss: str = ""
    synonyms: str = ""


def read_class_table(path: Path) -> tuple[ClassRow, ...]:
    r"""Read the classes of a class table file, in the order of their ids.

    Args:
        path: a file in the format that this module's docstring describes.

    Returns:
        One row per class; `rows[class_id]`.

    Raises:
        SourceError: the file cannot be read or is not UTF-8; its header is wrong; a line has too
            few or too many columns, or an empty or repeated folder or name; or there are fewer
            than two classes. The message names the file and the line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "classes.tsv"
        ...     _ = path.write_text("folder\tname\tgloss\n1\tcrane\ttall wading bird\n0\tdog\n")
        ...     [row.name for row in read_class_table(path)]
        ['crane', 'dog']
    """
    lines = _read_text(path).replace("\r\n", "\n").rstrip("\n").split("\n")
    comments = sum(1 for _ in takewhile(lambda line: line.startswith("#"), lines))
    header = "".join(lines[comments : comments + 1])
    columns = tuple(header.split("\t"))
    if len(columns) < 2 or columns != _COLUMNS[: len(columns)]:
        msg = (
            f"{path}:{comments + 1}: wanted the header 'folder<TAB>name<TAB>gloss<TAB>synonyms', "
            f"'folder<TAB>name<TAB>gloss' or 'folder<TAB>name' after the comments, found {header!r}"
        )
        raise SourceError(msg)
    rows = {
        number: _parse_row(f"{path}:{number}", line, len(columns))
        for number, line in enumerate(lines[comments + 1 :], start=comments + 2)
    }
    _check_distinct(path, rows)
    if len(rows) < 2:
        msg = f"{path}: wanted at least 2 classes, found {len(rows)}"
        raise SourceError(msg)
    return tuple(rows.values())


@lru_cache(maxsize=4)  # every class of a table asks
def own_prompts(names: tuple[str, ...], keys: tuple[str, ...]) -> Mapping[str, str]:
    r"""Return, for each class with a prompt of its own, the key of `per_class` that has it.

    Example:
        >>> own_prompts(("cafe\u0301", "bar"), ("caf\u00e9",)) == {"cafe\u0301": "caf\u00e9"}
        True
    """
    index = Names(keys)
    found = {name: index.find(name) for name in names} if keys else {}
    return {name: key for name, key in found.items() if key is not None}


def shipped_class_table(name: str) -> tuple[ClassRow, ...]:
    """Read the classes of a well-known data set, in the order of their ids.

    Args:
        name: one of `SHIPPED_TABLES`.

    Returns:
        One row per class; `rows[class_id]`.

    Raises:
        SourceError: there is no table with this name.

    Example:
        >>> shipped_class_table("cifar100")[1]
        ClassRow(folder='aquarium_fish', name='aquarium fish', gloss='', synonyms='')
    """
    if name not in SHIPPED_TABLES:
        msg = (
            f"wanted one of the class tables {list(SHIPPED_TABLES)}, or a file with columns "
            f"separated by tabs, whose name ends in .tsv; found '{name}'"
        )
        raise SourceError(msg)
    return read_class_table(Path(__file__).parent / "class_tables" / f"{name}.tsv")


def _read_text(path: Path) -> str:
    try:
        # Spreadsheet programs write a byte order mark first.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as failure:
        msg = f"wanted a class table, cannot read {path}: {failure.strerror}"
        raise SourceError(msg) from failure
    except UnicodeDecodeError as failure:
        line = failure.object.count(b"\n", 0, failure.start) + 1
        found = failure.object[failure.start]
        msg = f"{path}:{line}: wanted UTF-8, found the byte 0x{found:02x}; save the file as UTF-8"
        raise SourceError(msg) from failure


def _parse_row(place: str, line: str, columns: int) -> ClassRow:
    cells = [cell.strip() for cell in line.split("\t")]
    if not 2 <= len(cells) <= columns:
        wanted = " or ".join(map(str, range(2, columns + 1)))
        msg = f"{place}: wanted {wanted} columns separated by tabs, found {len(cells)}: {line!r}"
        raise SourceError(msg)
    if not cells[0] or not cells[1]:
        msg = f"{place}: wanted a folder and a name, found '{cells[0]}' and '{cells[1]}'"
        raise SourceError(msg)
    return ClassRow(*cells)


def _check_distinct(path: Path, rows: dict[int, ClassRow]) -> None:
    first = dict[tuple[str, str], int]()
    for number, row in rows.items():
        for column, value in (("folder", row.folder), ("name", row.name)):
            line = first.setdefault((column, value), number)
            if line != number:
                msg = (
                    f"{path}:{number}: wanted distinct {column}s, found '{value}' again after "
                    f"line {line}"
                )
                raise SourceError(msg)
