"""The files and folders among images that are not images, known by their names."""

from pathlib import PurePath

from d4m.sources.unicode_names import composed

# Left behind by archives, file servers, file managers and notebooks.
_FOLDERS = frozenset(
    (
        "__macosx",
        "__pycache__",
        "$recycle.bin",
        "recycler",
        "recycle.bin",
        "_gsdata_",
        "system volume information",
        "lost+found",
        "found.000",
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "network trash folder",
        "temporary items",
        "thevolumesettingsfolder",
    )
)
_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "sync.ffs_db")
)
# Texts about images: labels, notes, settings of programs, checksums, scripts.
_SUFFIXES = frozenset(
    (
        *(".txt", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".jsonl", ".geojson", ".xml"),
        *(".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".html", ".htm", ".css", ".js"),
        *(".url", ".lnk", ".webloc", ".xmp", ".aae", ".py", ".ipynb", ".sh", ".bat"),
        *(".md5", ".sha1", ".sha256", ".sha512", ".torrent", ".bib"),
    )
)
_TEXTS = frozenset(("readme", "license", "licence", "copying", "changelog", "makefile", "dvc.lock"))


def is_junk_folder(name: str) -> bool:
    """Return whether a folder holds no images of the data set: a hidden one or a known one.

    Example:
        >>> [is_junk_folder(name) for name in ("__MACOSX", ".git", "@eaDir", "eagle")]
        [True, True, True, False]
    """
    return name.startswith(".") or composed(name).casefold() in _FOLDERS


def is_junk_file(name: str) -> bool:
    """Return whether a file is hidden, or is a known companion of images: a text, a thumbnail list.

    Example:
        >>> [is_junk_file(name) for name in ("Thumbs.db", "labels.csv", "README", "a.jfif", "b")]
        [True, True, True, False, False]
    """
    if name.startswith("."):
        return True
    plain = name.casefold()
    return plain in _FILES or plain in _TEXTS or PurePath(plain).suffix in _SUFFIXES
