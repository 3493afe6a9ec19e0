"""Whether classifiers are trained with balanced classes, which depends on the classes' sizes."""

from collections.abc import Sequence

from d4m.settings import ClassBalance
from d4m.stages.context import Inputs, StageContext

MOST_UNEQUAL = 2.0
"""The largest ratio of the largest class to the smallest one that `auto` leaves as it is.

Benchmarks that count as balanced stay below it, and are trained as published: MNIST has 1.2 and
ImageNet-1k 1.8. The mildest of the usual long-tailed benchmarks, CIFAR-10-LT, has 10.
"""


def choose_balance(wanted: ClassBalance, counts: Sequence[int]) -> ClassBalance:
    """Return how classes of these sizes are balanced; `auto` balances classes that are unequal.

    Args:
        wanted: the recipe's setting.
        counts: images per class; classes without images do not count.

    Example:
        >>> choose_balance("auto", [1300, 732]), choose_balance("auto", [6670, 15])
        ('none', 'sampling')
    """
    if wanted != "auto":
        return wanted
    some = [count for count in counts if count]
    unequal = bool(some) and max(some) > MOST_UNEQUAL * min(some)
    return "sampling" if unequal else "none"


def balance_inputs(context: StageContext, wanted: ClassBalance) -> Inputs:
    """Return how a classifier's training is balanced; nothing if it is not.

    Images are counted as they are listed, before any is opened.
    """
    counts = [context.source.count("train", class_id) for class_id in context.class_ids]
    method = choose_balance(wanted, counts)
    return Inputs({} if method == "none" else {"class_balance": method})
