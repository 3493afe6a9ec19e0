"""Find the students that can be trained at once, and train as many at once as a device has use for.

A way to compute, which enters no key: a student that is trained with others has the images, labels,
views and order that it has alone, and its numbers differ by rounding.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from d4m.classifiers.own_networks import can_be_joined
from d4m.stages.laboratory import Laboratory
from d4m.store.digest import canonical_json
from d4m.store.reference import Unit

_OWN = ("seed", "training_set", "ipc", "draw")  # settings that may differ, apart from labels' seed
_BUSY_PIXELS = 4 * 512**2  # of all batches of a step, about as many as keep a GPU busy


def cohorts(units: Sequence[Unit], *, most: int) -> list[list[Unit]]:
    """Return each unit alone, or with others whose students can be trained at once.

    These have the same network, schedule, views and kind of labels, and differ in seeds and images.
    All networks that are not the field's own, and those with batch norm, are trained alone
    (`can_be_joined`), as are those that balance classes.

    Args:
        units: of the artifact `evaluation_scores`, in the order to compute them.
        most: the most units that belong together; larger groups are divided evenly.
    """
    groups = dict[str, list[Unit]]()
    for unit in units:
        groups.setdefault(_likeness(unit) if most > 1 else unit.name, []).append(unit)
    return [
        [group[place] for place in places]
        for group in groups.values()
        for places in _even_parts(len(group), most)
    ]


def train_cohort(
    lab: Laboratory, units: Sequence[Unit]
) -> Iterator[tuple[Unit, dict[str, np.ndarray]]]:
    """Train and score the students of a cohort, at once if their steps are small.

    Args:
        lab: the laboratory.
        units: one of `cohorts`.

    Yields:
        Each unit with its arrays.
    """
    for places in _even_parts(len(units), _most_at_once(lab, units)):
        own = [units[place] for place in places]
        yield from zip(own, lab.train_and_score(own), strict=True)


def _likeness(unit: Unit) -> str:
    """Return equal texts for units whose students can be trained at once."""
    settings: dict[str, Any] = {**unit.settings}
    student = settings.get("student")
    if student is None or not can_be_joined(student["architecture"], student["options"]):
        return unit.name
    if settings.get("class_balance", "none") != "none":
        return unit.name
    whole = settings["training_set"] == "full_data"
    shared = {name: value for name, value in settings.items() if name not in _OWN}
    if "soft_labels" in shared:
        shared["soft_labels"] = {**shared["soft_labels"], "seed": None}
    return canonical_json([whole, shared])


def _most_at_once(lab: Laboratory, units: Sequence[Unit]) -> int:
    """Return how many students are trained at once: all if the user says so, else what has a use.

    A device that is busy with a few students is not faster with more.
    """
    from d4m.images.spool import room_on

    if len(units) == 1 or lab.context.compute.students_together:
        return len(units)
    images = lab.images(units[0])
    batch = min(units[0].settings["optimizer"]["batch_size"], len(images))
    busy = _BUSY_PIXELS // (batch * images.size_px**2)
    pixels = math.prod(images.pixels.shape)
    fitting = room_on(images.pixels.device) // (4 * pixels)  # as float32
    return max(1, min(len(units), busy, fitting))


def _even_parts(count: int, most: int) -> list[range]:
    """Divide the numbers from 0 to `count - 1` into as few parts of at most `most` as there can be.

    Example:
        >>> [list(part) for part in _even_parts(5, 3)]
        [[0, 1, 2], [3, 4]]
    """
    parts = -(-count // most)
    starts = [part * (count // parts) + min(part, count % parts) for part in range(parts + 1)]
    return [range(*ends) for ends in pairwise(starts)]
