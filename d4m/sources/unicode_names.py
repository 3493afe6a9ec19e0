"""Names that are written with other code points but mean the same: forms of Unicode, letter case.

File systems and archives of macOS store an accented letter as two code points (form NFD), most
keyboards as one (form NFC). Names are compared in one form and kept as they are.
"""

import unicodedata
from collections.abc import Iterable, Sequence

_JOINERS = "\u200c\u200d"


def composed(name: str) -> str:
    r"""Return a name in the form in which names are compared, with accented letters composed.

    Example:
        >>> composed("cafe\u0301") == "caf\u00e9"
        True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def looks(name: str) -> str:
    r"""Return a name without differences that people overlook: case, forms of the same letter.

    Example:
        >>> looks("\ufb01sh"), looks("Stra\u00dfe"), looks(" Cat"), looks("cat\u200b")
        ('fish', 'strasse', 'cat', 'cat')
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    if not folded.isascii():
        folded = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", folded).split())


class Names:
    """Names that can be looked up in any form of Unicode.

    Args:
        names: distinct as text; some may be equal in composed form.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Compose every name once."""
        self._own = frozenset(names)
        self._by_form = dict[str, list[str]]()
        for name in self._own:
            self._by_form.setdefault(composed(name), []).append(name)

    def find(self, wanted: str) -> str | None:
        """Return this very name, else the only one that is equal in composed form, or None."""
        equal = [wanted] if wanted in self._own else self._by_form.get(composed(wanted), [])
        return equal[0] if len(equal) == 1 else None


def lookalikes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that look the same to a person, in the order of the names."""
    groups = dict[str, list[str]]()
    for name in names:
        groups.setdefault(looks(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def is_partly_invisible(name: str) -> bool:
    r"""Return whether a name has characters that nobody sees, or spaces at its ends.

    Joiners are letters of some scripts and parts of some emoji.

    Example:
        >>> [is_partly_invisible(name) for name in ("a\n", "a\u200b", " a", "a b", "a\u200db")]
        [True, True, True, False, False]
    """
    hidden = (unicodedata.category(each) in ("Cc", "Cf") and each not in _JOINERS for each in name)
    return name != name.strip() or any(hidden)
