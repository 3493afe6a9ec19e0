"""The bytes of the distilled images and of their labels in the store."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from d4m.stages.context import StageContext
from d4m.stages.unit_names import class_unit


@dataclass(frozen=True)
class SetBytes:
    """Bytes of the distilled data set in the store, compressed as they are stored.

    Attributes:
        images: of the images' arrays, without the decoded prototypes.
        labels: of the soft labels' arrays; 0 where none are stored.
    """

    images: int
    labels: int

    @property
    def text(self) -> str:
        """Both in words."""
        if not self.labels:
            return f"images {bytes_in_words(self.images)}; no soft labels are stored"
        ratio = self.labels / self.images
        return (
            f"images {bytes_in_words(self.images)}, soft labels {bytes_in_words(self.labels)} "
            f"({ratio:.3g} times the images)"
        )


def set_bytes(context: StageContext) -> SetBytes | None:
    """Return what the recipe's images and soft labels weigh; None where one is not made yet."""
    if not {"synthetic_images", "soft_labels"} <= context.upstream.keys():
        return None
    images = (("synthetic_images", class_unit(class_id)) for class_id in context.class_ids)
    return SetBytes(
        images=_sum(context, images, array="images"),
        labels=_sum(context, context.all_of("soft_labels").reads),
    )


def _sum(context: StageContext, units: Iterable[tuple[str, str]], array: str = "") -> int:
    references = (context.reference(*unit) for unit in units)
    return sum(_chunk_bytes(each.files, array) for each in references if each)


def _chunk_bytes(files: Mapping[str, list[int]], array: str) -> int:
    """Return the bytes of the chunks of one array, or of all; metadata is left out."""
    prefix = f"{array}/" if array else ""
    chunks = (n for n in files if n.startswith(prefix) and not n.endswith("zarr.json"))
    return sum(files[name][0] for name in chunks)


def bytes_in_words(size: int) -> str:
    """Return a size with three significant digits.

    Example:
        >>> [bytes_in_words(size) for size in (812, 46_300, 999_999, 111_800_000_000)]
        ['812 bytes', '46.3 kB', '1 MB', '112 GB']
    """
    units = ("bytes", "kB", "MB", "GB", "TB")
    shown, place = float(size), 0
    while float(f"{shown:.3g}") >= 1000 and place + 1 < len(units):
        shown, place = shown / 1000, place + 1
    return f"{shown:.3g} {units[place]}"
