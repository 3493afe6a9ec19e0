"""A cache of the highest level among a class's images of 16 bits, so that they are read once."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from d4m.errors import UnreadableImageError
from d4m.sources.decode import DECODER_VERSION, highest_level, quiet_pillow
from d4m.sources.file_digests import thread_count
from d4m.sources.file_listing import ListedFile
from d4m.sources.image_formats import formats_of
from d4m.store.digest import digest_json

_log = logging.getLogger(__name__)


class FileLevels:
    """A cache of levels, one small file per list of a class's files by name, size, times and inode.

    If the cache cannot be read or written, image files are read again, and nothing fails.

    Args:
        folder: the folder of the cache; made when there is something to remember.
    """

    def __init__(self, folder: Path) -> None:
        """Remember the path without opening the cache."""
        self._folder = folder / "file_levels"

    def highest(self, root: Path, files: Sequence[ListedFile]) -> int:
        """Return the highest level among images of 16 bits per channel; 0 if there are none.

        Args:
            root: the folder of class folders, absolute.
            files: the files of a class folder.
        """
        place = self._place(root, files)
        try:
            return int(place.read_text(encoding="ascii"))
        except (OSError, ValueError):
            start_ns = time.time_ns()
            level = _highest(root, files)
            if all(file.problem or file.has_settled(start_ns) for file in files):
                self._remember(place, level)
            return level

    def forget(self, root: Path, files: Sequence[ListedFile]) -> None:
        """Forget the highest level of such files; the arguments are those of `highest`."""
        with suppress(OSError):
            self._place(root, files).unlink()

    def _place(self, root: Path, files: Sequence[ListedFile]) -> Path:
        listed = [[f.name, f.size, f.mtime_ns, *f.stamp, f.problem] for f in files]
        described = {"decoder": DECODER_VERSION, "root": str(root), "files": listed}
        return self._folder / digest_json(described)

    def _remember(self, place: Path, level: int) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            place.write_text(str(level), encoding="ascii")
        except OSError as failure:
            _log.warning("cannot write %s (%s); image files are read again", place, failure)


def _highest(root: Path, files: Sequence[ListedFile]) -> int:
    def level(file: ListedFile) -> int:
        try:
            return highest_level((root / file.name).read_bytes(), formats_of(file.name))
        except (UnreadableImageError, OSError):
            return 0  # left out with its reason when the class is indexed

    with quiet_pillow(), ThreadPoolExecutor(thread_count()) as pool:
        return max(pool.map(level, (file for file in files if not file.problem)), default=0)
