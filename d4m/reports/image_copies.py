"""Count the real images whose bytes are another image's too, from the stored digests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d4m.sources.copies import LEFT_OUT, Place, find_copies
from d4m.stages.context import StageContext

_MOST_LISTED = 100


@dataclass(frozen=True)
class CopyCounts:
    """The copies among the real images of a recipe.

    Attributes:
        repeated: images that repeat another one of their split and class.
        contradicting: images whose bytes are in another class too.
        leaked: test and validation images whose bytes are among the training images too.
        dropped: copies that the recipe leaves out.
        evaluated: number of test and validation images.
        rows: the first groups of copies, one row each.
    """

    repeated: int
    contradicting: int
    leaked: int
    dropped: int
    evaluated: int
    rows: Sequence[Mapping[str, str]]

    @property
    def total(self) -> int:
        """The sum of the copies that are used; an image may count more than once."""
        return self.repeated + self.contradicting + self.leaked

    @property
    def figures(self) -> dict[str, int]:
        """The counts by name."""
        return {
            "repeated": self.repeated,
            "contradicting": self.contradicting,
            "leaked": self.leaked,
            "dropped": self.dropped,
        }

    @property
    def summary(self) -> str:
        """The counts in a sentence, with the setting that removes the copies."""
        share = self.leaked / max(1, self.evaluated)
        text = (
            f"{self.repeated} images repeat another one of their class, {self.contradicting} have "
            f"the bytes of an image of another class, {self.leaked} test or validation images "
            f"({share:.1%}) are training images too; {self.dropped} copies are left out"
        )
        return f"{text}; `dataset.duplicates: drop` leaves copies out" if self.total else text


def count_copies(context: StageContext) -> CopyCounts:
    """Compare the digests of all images of a recipe, whose files are not read."""
    indexes = context.image_indexes()
    groups = list(find_copies(indexes))
    reasons = (reason for index in indexes.values() for reason in index.unreadable.values())
    return CopyCounts(
        repeated=sum(len(group) - len({(p.split, p.class_id) for p in group}) for group in groups),
        contradicting=sum(len(group) for group in groups if _contradicts(group)),
        leaked=sum(_leaked(group) for group in groups),
        dropped=sum(reason.startswith(LEFT_OUT) for reason in reasons),
        evaluated=sum(len(i.image_ids) for (split, _), i in indexes.items() if split != "train"),
        rows=[_row(context, group) for group in groups[:_MOST_LISTED]],
    )


def _contradicts(group: Sequence[Place]) -> bool:
    return len({place.class_id for place in group}) > 1


def _leaked(group: Sequence[Place]) -> int:
    evaluated = sum(place.split != "train" for place in group)
    return evaluated if evaluated < len(group) else 0


def _row(context: StageContext, group: Sequence[Place]) -> Mapping[str, str]:
    names = context.source.class_table.names
    kinds = [
        name
        for name, found in (
            ("classes differ", _contradicts(group)),
            ("training images too", _leaked(group) > 0),
        )
        if found
    ]
    files = [f"{place.split}: {place.image_id} ({names[place.class_id]})" for place in group[:10]]
    return {
        "copies": str(len(group)),
        "kind": ", ".join(kinds) or "repeated",
        "files": "; ".join(files),
    }
