"""The split that a folder's name stands for: `Train`, `test_images`, `ValidationSet`, ..."""

import re
from collections.abc import Mapping

from d4m.sources.base import Split
from d4m.sources.unicode_names import looks

_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "validation"),
}
# Words that say no more than that a folder holds a part of the data set.
_FILLERS = (
    *("images", "image", "imgs", "img", "pictures", "photos", "pics", "samples", "examples"),
    *("dataset", "datasets", "data", "set", "split", "folder", "dir", "files", "part"),
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NO_LETTERS = re.compile(r"[\W\d_]+")


def split_named(name: str) -> Split | None:
    """Return the split that a folder's name stands for, or None if the name is no such name.

    Letter case, numbers and words such as `images`, `data` and `set` make no difference.

    Example:
        >>> [split_named(name) for name in ("Train", "test_images", "trainset", "val2017", "DEV")]
        ['train', 'test', 'train', 'validation', 'validation']
        >>> [split_named(name) for name in ("trains", "bus", "images", "train_station", "2017")]
        [None, None, None, None, None]
    """
    spaced = _CAMEL.sub(" ", name)
    words = [word for word in _NO_LETTERS.split(looks(spaced)) if word]
    said = [rest for word in words if (rest := _without_fillers(word))]
    return _WORDS.get(said[0]) if len(said) == 1 else None


def _without_fillers(word: str) -> str:
    """Return what is left of a word such as `trainset` without its fillers; "" for a filler."""
    if word in _WORDS:
        return word
    for filler in _FILLERS:
        if word.startswith(filler):
            return _without_fillers(word.removeprefix(filler))
        if word.endswith(filler):
            return _without_fillers(word.removesuffix(filler))
    return word
