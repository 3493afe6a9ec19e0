"""The split that a folder's name stands for: `Train`, `test_images`, `ValidationSet`, ..."""

import re
from collections.abc import Mapping, Sequence

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
# Kinds of files that labelled images come with.
_KINDS = (
    *("label", "labels", "mask", "masks", "annotation", "annotations", "box", "boxes", "bboxes"),
    *("ground", "truth", "groundtruth", "gt", "segmentation", "segmentations", "xml", "json"),
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
    split, others = split_and_others(name)
    return None if others else split


def split_and_others(name: str) -> tuple[Split | None, str]:
    """Return the split that one word of a name stands for, and its other words.

    Example:
        >>> split_and_others("birds_train"), split_and_others("test-00000-of-00001")
        (('train', 'birds'), ('test', 'of'))
        >>> split_and_others("birds"), split_and_others("train_val")
        ((None, 'birds'), (None, 'train val'))
    """
    said = [rest for word in _words(name) if (rest := _without_fillers(word))]
    splits: list[Split] = [_WORDS[word] for word in said if word in _WORDS]
    if len(splits) != 1:
        return None, " ".join(said)
    return splits[0], " ".join(word for word in said if word not in _WORDS)


def alike_but_for_the_split(names: Sequence[str]) -> list[dict[Split, list[str]]]:
    """Return groups such as `birds_train` and `birds_test`: names that differ in the split alone.

    A name with other words is no split by itself, as with `steam_train`.

    Example:
        >>> alike_but_for_the_split(["birds_train", "birds_test", "steam_train", "bus"])
        [{'train': ['birds_train'], 'test': ['birds_test']}]
    """
    groups = dict[str, dict[Split, list[str]]]()
    for name in names:
        split, others = split_and_others(name)
        if split is not None:
            groups.setdefault(others, {}).setdefault(split, []).append(name)
    return [group for group in groups.values() if "train" in group and len(group) > 1]


def is_wrapper(name: str, above: str) -> bool:
    """Return whether the name of a folder says no more than that of the folder that it is in.

    Example:
        >>> is_wrapper("images", "train"), is_wrapper("seg_train", "seg_train")
        (True, True)
        >>> is_wrapper("training", "train_set"), is_wrapper("cat", "train")
        (True, False)
    """
    split = split_named(name)
    if split is not None:
        return split == split_named(above)
    words = _words(name)
    return (bool(words) and not any(map(_without_fillers, words))) or looks(name) == looks(above)


def is_kind_of_files(name: str) -> bool:
    """Return whether a name is that of a kind of files, which no class is.

    Example:
        >>> [is_kind_of_files(name) for name in ("images", "ground_truth", "mask", "cat", "7")]
        [True, True, True, False, False]
    """
    words = _words(name)
    return bool(words) and all(word in _KINDS or not _without_fillers(word) for word in words)


def _words(name: str) -> list[str]:
    return [word for word in _NO_LETTERS.split(looks(_CAMEL.sub(" ", name))) if word]


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
