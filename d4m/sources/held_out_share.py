"""The choice of test images where a data set has none: a share of every class, at least one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def held_out(draws: Sequence[float], share: float) -> Bool[np.ndarray, "image"]:
    """Return for each image of a class whether it is held out as a test image.

    An image is held out if its own draw falls below the share, whatever the other images are. Only
    a class of two or more images with all draws on one side moves one image: the lowest draw is
    held out if none is below the share, and the highest is kept if all are. So an added image moves
    at most one other image: one that was moved by this rule and returns, or the only other image of
    its class.

    Args:
        draws: a random number in [0, 1) per image, which depends on that image alone.
        share: the share of the images to hold out, in (0, 1).

    Example:
        >>> held_out([0.9, 0.1, 0.5], 0.2).tolist(), held_out([0.9, 0.3, 0.5], 0.2).tolist()
        ([False, True, False], [False, True, False])
        >>> held_out([0.9], 0.2).tolist(), held_out([0.1, 0.15], 0.2).tolist()
        ([False], [True, False])
    """
    order = np.array(draws, np.float64)
    chosen = order < share
    if len(order) > 1 and not chosen.any():
        chosen[order.argmin()] = True
    elif len(order) > 1 and chosen.all():
        chosen[order.argmax()] = False
    return chosen
