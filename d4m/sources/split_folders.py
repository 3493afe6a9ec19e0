"""The folder of each split of an image folder: named by the recipe, or recognised by its name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

from d4m.errors import SourceError
from d4m.settings import SplitFolderSettings
from d4m.sources.base import Split
from d4m.sources.class_folders import (
    ClassFolders,
    find_class_folders,
    junk_folders,
    sub_folders,
)
from d4m.sources.class_rows import named
from d4m.sources.class_table import ClassRow
from d4m.sources.file_listing import walk_class
from d4m.sources.image_formats import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES
from d4m.sources.nested_folders import hint_at_files, look_into_classes, unwrap
from d4m.sources.split_names import alike_but_for_the_split, split_named
from d4m.sources.unicode_names import Names, looks

_EXAMPLE = "`dataset.splits: {train: ..., test: ...}`"
_MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits.

    Attributes:
        path: the folder that the recipe names.
        roots: the folder of class folders of each split. `test` has the same one as `train` if a
            share of the training images is held out.
        folders: the class folders below the folder of each split, images in them or not.
        classes: the folders of training classes: those that have images in any split, and those
            that the recipe names.
        left_out: folders next to the classes that are none, by the reason.
        loose: number of files that are in no class folder.
        remarks: what was decided or left out, as short phrases for people.
    """

    path: Path
    roots: Mapping[Split, Path]
    folders: Mapping[Split, ClassFolders]
    classes: tuple[str, ...]
    left_out: Mapping[str, Sequence[str]]
    loose: int
    remarks: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits: `train`, `test`, and `validation` if it has a folder of its own."""
        return tuple(self.roots)

    def describe(self, test_share: float) -> str:
        """Return one sentence about which folders are the splits, and which are no classes.

        Args:
            test_share: the share that is held out without a folder of test images.
        """
        train = self.roots["train"]
        held = f"test: {test_share:.0%} of them, and at least 1 image of each class"
        parts = [
            held if split == "test" and root == train else f"{split}: {self._short(root)}/"
            for split, root in self.roots.items()
        ]
        parts += self.remarks
        parts += [
            f"no classes, as they {reason}: {named(n)}" for reason, n in self.left_out.items()
        ]
        parts += [f"not used: {self.loose} files in no class folder"] if self.loose else []
        return "; ".join(parts)

    def _short(self, root: Path) -> str:
        inside = root != self.path and root.is_relative_to(self.path)
        return root.relative_to(self.path).as_posix() if inside else root.name


@dataclass
class _Candidates:
    """The folders whose names are those of splits, by split, and all others."""

    path: Path
    of: dict[Split, list[str]] = field(default_factory=dict[Split, list[str]])
    others: list[str] = field(default_factory=list[str])

    def named(self) -> list[str]:
        return sorted(name for names in self.of.values() for name in names)


def find_split_folders(
    path: Path, splits: SplitFolderSettings | str, rows: Sequence[ClassRow] | None
) -> SplitFolders:
    """Find the folder of class folders of each split.

    Args:
        path: the folder that the recipe names.
        splits: the folders that the recipe names, or `auto` or `none`.
        rows: the recipe's class table; None: every folder is a class.

    Raises:
        SourceError: a folder is missing, or it is not clear which folders are splits.
    """
    if not path.is_dir():
        packed = "; unpack it" if path.suffix.lower() in ARCHIVE_SUFFIXES else ""
        found = f"a file, {path}{packed}" if path.is_file() else f"no folder at {path}"
        msg = f"`dataset.path`: wanted a folder of class folders, found {found}"
        raise SourceError(msg)
    if isinstance(splits, SplitFolderSettings):
        return _gather(path, _named_roots(path, splits), rows)
    if splits == "none":
        return _gather(path, {"train": path, "test": path}, rows)
    inner = unwrap(path)
    found, roots, remarks = _candidates(inner), dict[Split, Path](), tuple[str, ...]()
    if found.of and not _are_classes(found, rows):
        roots, remarks = _recognise(found, rows)
    gathered = _gather(path, roots or {"train": inner, "test": inner}, rows, remarks)
    if rows is None and len(gathered.classes) > 1:
        remarks += look_into_classes(gathered.roots["train"], sorted(gathered.classes))
    return replace(gathered, remarks=remarks)


def _named_roots(path: Path, splits: SplitFolderSettings) -> dict[Split, Path]:
    chosen: dict[Split, str | None] = {
        "train": splits.train,
        "test": splits.test,
        "validation": splits.validation,
    }
    roots: dict[Split, Path] = {split: path / name for split, name in chosen.items() if name}
    for split, root in roots.items():
        if not root.is_dir():
            msg = (
                f"`dataset.splits.{split}`: wanted a folder of class folders, found none at "
                f"{root}; {path} has {named(sub_folders(path)) or 'no folders'}"
            )
            raise SourceError(msg)
    if len({root.resolve() for root in roots.values()}) < len(roots):
        paths = named([str(root) for root in roots.values()])
        msg = f"`dataset.splits` wants a folder of its own for each split, found {paths}"
        raise SourceError(msg)
    roots.setdefault("test", roots["train"])
    return {split: roots[split] for split in chosen if split in roots}


def _candidates(path: Path) -> _Candidates:
    found = _Candidates(path)
    for name in sub_folders(path):
        split = split_named(name)
        if split is None:
            found.others.append(name)
        else:
            found.of.setdefault(split, []).append(name)
    for names in alike_but_for_the_split(found.others):
        for split, own in names.items():
            found.of.setdefault(split, []).extend(own)
            found.others = [name for name in found.others if name not in own]
    return found


def _are_classes(found: _Candidates, rows: Sequence[ClassRow] | None) -> bool:
    """Return whether the recipe's table says that the folders next to one another are classes."""
    folders = Names(found.named() + found.others)
    return bool(rows) and all(folders.find(row.folder) for row in rows or ())


def _recognise(
    found: _Candidates, rows: Sequence[ClassRow] | None
) -> tuple[dict[Split, Path], tuple[str, ...]]:
    """Return the folder of each split, and what was decided."""
    candidates = {split: found.of.get(split, []) for split in ("train", "test", "validation")}
    inner = {name: unwrap(found.path / name) for name in found.named()}
    train = _only(found, "train", [n for n in candidates["train"] if sub_folders(inner[n])])
    if train is None:
        _refuse_without_train(found)
    root = inner[train]
    classes = sub_folders(root)
    test, validation = (
        _only(found, split, [n for n in candidates[split] if _shares(inner[n], classes)])
        for split in ("test", "validation")
    )
    if test is None and validation is None:
        _refuse_unsorted(found, train, candidates["test"] + candidates["validation"])
        _refuse_images_elsewhere(found, train)
    roots: dict[Split, Path] = {"train": root, "test": inner[test or validation or train]}
    used, remarks = {train, test, validation}, list[str]()
    if test is None and validation is not None:
        remarks.append(f"{validation}/ is the test split: no other folder has test images")
    elif validation is not None:
        there = Names(find_class_folders(inner[validation]).names)
        wanted = [row.folder for row in rows] if rows else find_class_folders(root).names
        if lacking := sorted(name for name in wanted if there.find(name) is None):
            remarks.append(
                f"{validation}/ is not used: it has no images of {len(lacking)} classes, such as "
                f"{named(lacking[:1])}"
            )
        else:
            roots["validation"] = inner[validation]
    unused = [name for name in sorted(found.named() + found.others) if name not in used]
    if unused:
        remarks.append(f"not used: {', '.join(f'{name}/' for name in unused)}")
    return roots, tuple(remarks)


def _gather(
    path: Path,
    roots: Mapping[Split, Path],
    rows: Sequence[ClassRow] | None,
    remarks: tuple[str, ...] = (),
) -> SplitFolders:
    """List the class folders of each split, and decide which of them are classes."""
    apart = tuple(roots.values())
    listed = {root: find_class_folders(root, apart=apart) for root in {*apart}}
    folders: dict[Split, ClassFolders] = {split: listed[root] for split, root in roots.items()}
    named_ones = (row.folder for row in rows or ())
    wanted = Names((*named_ones, *(name for each in folders.values() for name in each.names)))
    train = folders["train"]
    classes = (*train.names, *(name for name in train.empty if wanted.find(name)))
    empty = {name for each in folders.values() for name in each.empty if not wanted.find(name)}
    junk = {name for each in folders.values() for name in each.junk}.union(junk_folders(path))
    left_out = {"have no images": sorted(empty), "are known as junk": sorted(junk)}
    reasons = {reason: names for reason, names in left_out.items() if names}
    loose = sum(each.loose for each in listed.values())
    return SplitFolders(path, dict(roots), folders, classes, reasons, loose, remarks)


def _only(found: _Candidates, split: str, names: Sequence[str]) -> str | None:
    """Return the only folder of a split, or None; refuse several."""
    if len(names) > 1:
        msg = (
            f"`dataset.path`: {_paths(found.path, names)} could each be the {split} split; say "
            f"which is, with {_EXAMPLE}, or `dataset.splits: none` if every folder is a class"
        )
        raise SourceError(msg)
    return names[0] if names else None


def _refuse_without_train(found: _Candidates) -> NoReturn:
    """Refuse folders with names of splits where there is no folder of training classes."""
    folders = ", ".join(f"{name}/" for name in found.of.get("train") or found.named())
    what = "without class folders in it" if "train" in found.of else "without train/"
    others = f" next to {named(found.others)}" if found.others else ""
    msg = (
        f"`dataset.path`: {found.path} has {folders} {what}{others}; set `dataset.splits: none` if "
        f"every folder is a class, or name the folders of the splits, with {_EXAMPLE}"
        f"{hint_at_files(found.path / found.of['train'][0]) if 'train' in found.of else ''}"
    )
    raise SourceError(msg)


def _refuse_unsorted(found: _Candidates, train: str, unsorted: Sequence[str]) -> None:
    if unsorted:
        msg = (
            f"`dataset.path`: {_paths(found.path, unsorted)} has none of the class folders of "
            f"{found.path / train}; sort the test images into class folders, or set "
            f"`dataset.splits: {{train: {train}}}`, so that a share of the training images is held "
            f"out, or `dataset.splits: none` if every folder is a class"
        )
        raise SourceError(msg)


def _refuse_images_elsewhere(found: _Candidates, train: str) -> None:
    """Refuse image folders next to the training folder: each of them may be a class, and it too."""
    filled = [name for name in found.others if _has_image_names(found.path, name)]
    if filled:
        msg = (
            f"`dataset.path`: {found.path} has {train}/ next to {named(filled)}, which hold images "
            f"too; set `dataset.splits: none` if every folder is a class, or "
            f"`dataset.splits: {{train: {train}}}` if {train}/ alone holds the classes"
        )
        raise SourceError(msg)


def _has_image_names(path: Path, folder: str) -> bool:
    """Return whether one of the first files below a folder has the suffix of an image."""
    files = islice(walk_class(path, folder), _MOST_LOOKED_AT)
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name, _ in files)


def _shares(root: Path, classes: Iterable[str]) -> bool:
    """Return whether a folder has a class folder that the training folder has too."""
    names = {looks(name) for name in sub_folders(root)}
    return any(looks(name) in names for name in classes)


def _paths(path: Path, names: Iterable[str]) -> str:
    return named([str(path / name) for name in sorted(names)])
