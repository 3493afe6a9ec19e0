"""Groups of classes, each of whose prototypes fit into one regression."""

import numpy as np
from jaxtyping import Int64

MOST_TOGETHER = 2000
"""Prototypes that one regression can be solved for."""


def group_classes(
    classes: int, each: int, *, most: int | None = None
) -> list[Int64[np.ndarray, "_class"]]:
    """Divide classes into as few groups as hold at most so many prototypes, in order.

    Neighbours stay together, because in many tables of classes they look similar, and are what
    a regression has to tell apart. A class with more prototypes than that is a group of its own.

    Args:
        classes: number of classes.
        each: prototypes of a class.
        most: prototypes of a group; None: as many as one regression can hold.

    Example:
        >>> [len(group) for group in group_classes(1000, 10)]
        [200, 200, 200, 200, 200]
        >>> [group.tolist() for group in group_classes(5, 10, most=25)]
        [[0, 1], [2, 3], [4]]
    """
    together = max(1, (MOST_TOGETHER if most is None else most) // each)
    return np.array_split(np.arange(classes), -(-classes // together))
