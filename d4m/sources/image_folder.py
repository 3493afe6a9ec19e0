"""A folder of images: a sub-folder is a class, and sorted names make the order."""

from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from d4m.class_table import ClassTable
from d4m.errors import SourceError
from d4m.seeds import stream_generator
from d4m.settings import ImageFolderSettings
from d4m.sources.base import ImageIndex, ImageSource, Split, content_digest, stack_digests
from d4m.store.digest import digest_json

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class ImageFolderSource(ImageSource):
    """Images below `<path>/<class>/`, or below `<path>/train/<class>/` and `<path>/test/<class>/`.

    Without a test folder, a share of every class is held out by a fixed seed and the file's own
    name, so that adding a file never moves another to the other side.

    Args:
        settings: path, class table, size and resizing.
        path: the folder, absolute.

    Raises:
        SourceError: the folder is missing, or its sub-folders are not the classes of the recipe.
    """

    def __init__(self, settings: ImageFolderSettings, path: Path) -> None:
        """List the class folders; no image is opened."""
        self._settings = settings
        self.size_px = settings.size_px
        self.channels = settings.channels
        if not path.is_dir():
            msg = f"`dataset.path`: wanted a folder of class folders, found no folder at {path}"
            raise SourceError(msg)
        train, test = path / "train", path / "test"
        if test.is_dir() and not train.is_dir():
            msg = f"`dataset.path`: {path} has test/ without train/; wanted both, or neither"
            raise SourceError(msg)
        self._roots: dict[Split, Path] = {"train": train if train.is_dir() else path}
        self._roots["test"] = test if test.is_dir() else self._roots["train"]
        self._folders = self._class_folders()
        names = settings.classes or {folder: folder for folder in self._folders}
        self.class_table = ClassTable(tuple(names[folder] for folder in self._folders))

    def fingerprint(self, split: Split, class_id: int) -> str:
        """Digest of the class's paths, sizes and times, and of how images are decoded."""
        root = self._roots[split]
        stats = {file: (root / file).stat() for file in self._files(split, class_id)}
        files = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
        return digest_json({"files": files, "decoding": self._decoding})

    def index(self, split: Split, class_id: int) -> ImageIndex:
        """Every file of the class, opened once; those that cannot be read are listed with why."""
        ids, digests, unreadable = list[str](), list[np.ndarray](), dict[str, str]()
        for file in self._files(split, class_id):
            try:
                content, _ = self._read(split, file)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as failure:
                unreadable[file] = _reason(failure)
            else:
                ids.append(file)
                digests.append(content_digest(content))
        return ImageIndex(tuple(ids), stack_digests(digests), unreadable)

    def _read(self, split: Split, image_id: str) -> tuple[bytes, np.ndarray]:
        file = (self._roots[split] / image_id).read_bytes()
        with Image.open(BytesIO(file)) as opened:
            upright = _eight_bits(ImageOps.exif_transpose(opened))
            image = upright.convert("L" if self.channels == 1 else "RGB")
        size = (self.size_px, self.size_px)
        resample = Image.Resampling.LANCZOS
        if self._settings.resize == "crop":
            image = ImageOps.fit(image, size, resample)
        else:
            image = image.resize(size, resample)
        return self._decoding.encode() + file, np.asarray(image, np.uint8).reshape(
            *size, self.channels
        )

    @property
    def _decoding(self) -> str:
        """How a file becomes an image: part of its content, as another size is another image."""
        return f"{self.size_px} px, {self.channels} channels, {self._settings.resize}"

    def _class_folders(self) -> tuple[str, ...]:
        found = sorted(p.name for p in self._roots["train"].iterdir() if _is_class(p))
        wanted = list(self._settings.classes) if self._settings.classes else found
        missing = [name for name in wanted if not (self._roots["train"] / name).is_dir()]
        if missing:
            msg = (
                f"`dataset.classes` names folders that {self._roots['train']} does not have: "
                f"{missing}; it has {found[:20]}"
            )
            raise SourceError(msg)
        return tuple(wanted)

    def _files(self, split: Split, class_id: int) -> list[str]:
        """Image files of one class in one split, relative to the split's root, sorted."""
        listed = self._listings[split][self._folders[class_id]]
        if self._roots["train"] != self._roots["test"]:
            return listed
        return [
            file
            for file in listed
            if (self._draw(file) < self._settings.test_share) == (split == "test")
        ]

    def _draw(self, file: str) -> float:
        return float(stream_generator(0, "image_folder", "split", file).random())

    @cached_property
    def _listings(self) -> dict[Split, dict[str, list[str]]]:
        return {
            split: {folder: _list_images(root, folder) for folder in self._folders}
            for split, root in self._roots.items()
        }


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _list_images(root: Path, folder: str) -> list[str]:
    paths = (root / folder).rglob("*")
    return sorted(
        path.relative_to(root).as_posix()
        for path in paths
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel: where there are more, Pillow would cut them off at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        msg = f"wanted 8 or 16 bits a channel, found Pillow's mode {image.mode}"
        raise ValueError(msg)
    # Pillow warns of colours that share a palette with transparency, unless asked for both.
    return image.convert("RGBA") if "transparency" in image.info else image


def _reason(failure: Exception) -> str:
    if isinstance(failure, UnidentifiedImageError):
        return "not an image that Pillow knows"
    return f"{type(failure).__name__}: {failure}"
