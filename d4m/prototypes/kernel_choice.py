"""Choose one real image per cluster, so that the chosen images together predict the teacher best.

"Predict" means: a kernel regression from the chosen images to the teacher's logits on other images.
The recipe calls this `representative: explaining`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import penultimate_features, predict_logits
from d4m.images.image_set import ImageSet
from d4m.images.spool import ranges
from d4m.prototypes.kernel_regression import SwapRegression, kernel_network
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings
from d4m.training.augment import replay_views
from d4m.training.soft_labels import draw_epoch, label_views

VIEWS = 3
SWEEPS = 3
_BATCH = 500


def choose_images(
    candidates: ImageSet,
    groups: Sequence[Int64[np.ndarray, "_member"]],
    targets: ImageSet,
    teacher: nn.Module | None,
    *,
    augmentation: AugmentationSettings,
    seed: int,
) -> Int64[np.ndarray, "group"]:
    """Choose one candidate image per group, so that together they predict the labels best.

    A kernel regression is fitted to three views of each chosen image, with their labels: the
    teacher's logits, or the classes. The search looks for the images whose regression predicts the
    labels of the targets with the lowest squared error. The kernel is the inner product of the
    features of an untrained ConvNet, that is, of a student before training.

    Args:
        candidates: real images.
        groups: for each group, the rows of its candidates; the search starts at the first of each.
        targets: real images whose labels the regression predicts.
        teacher: a classifier in evaluation mode, on the images' device; None: labels are classes.
        augmentation: how views are drawn; CutMix and MixUp are turned off.
        seed: the stream of the views and of the network's weights.
    """
    network = kernel_network(candidates, classes=1, seed=stream_seed(seed, "kernel"))
    features, logits = see_candidates(
        candidates, teacher, network, augmentation=augmentation, seed=seed
    )
    plain = (targets.pixels[rows] for rows in ranges(len(targets), _BATCH))
    if teacher is None:
        classes = int(targets.class_ids.max()) + 1
        logits = np.stack([_one_hot(candidates, classes)] * VIEWS, axis=1)
        wanted = _one_hot(targets, classes)
    else:
        wanted = predict_logits(teacher, targets.pixels).cpu().numpy()
    return choose_by_regression(
        features,
        _centred(logits),
        groups,
        target_features=_features(network, plain),
        target_logits=_centred(wanted),
    )


def see_candidates(
    candidates: ImageSet,
    teacher: nn.Module | None,
    network: nn.Module,
    *,
    augmentation: AugmentationSettings,
    seed: int,
) -> tuple[Float[np.ndarray, "candidate view feature"], Float[np.ndarray, "candidate view class"]]:
    """Draw three views of each candidate; return their features, and the teacher's logits on them.

    Without a teacher there are no logits: the last array has no columns.

    Args:
        candidates: real images.
        teacher: a classifier in evaluation mode, on the images' device, or None.
        network: whose features are returned, also there.
        augmentation: how views are drawn; CutMix and MixUp are turned off.
        seed: the stream of the views.
    """
    views = augmentation.model_copy(update={"cutmix": 0.0, "mixup": 0.0})
    features, logits = list[np.ndarray](), list[np.ndarray]()
    for number in range(VIEWS):
        drawn = draw_epoch(candidates, views, seed=seed, epoch=number)
        none = np.zeros((len(candidates), 0), np.float32)
        logits.append(none if teacher is None else label_views(candidates, teacher, drawn))
        seen = (
            replay_views(candidates.pixels, drawn, rows.numpy())
            for rows in ranges(len(candidates), _BATCH)
        )
        features.append(_features(network, seen))
    return np.stack(features, axis=1), np.stack(logits, axis=1)


def choose_by_regression(
    features: Float[np.ndarray, "candidate view feature"],
    logits: Float[np.ndarray, "candidate view class"],
    groups: Sequence[Int64[np.ndarray, "_member"]],
    *,
    target_features: Float[np.ndarray, "target feature"],
    target_logits: Float[np.ndarray, "target class"],
) -> Int64[np.ndarray, "group"]:
    """Choose one candidate per group that minimises a ridge regression's error on the targets.

    With X_s the features of the views of all chosen candidates, y_s their logits, X_t and y_t those
    of the targets, and lambda = `RIDGE`, the search lowers

        L(s) = mean (y_t - K_ts (K_ss + lambda I)^-1 y_s)^2,  where K_ab = X_a X_b'

    Groups are visited in order. For each, the candidate with the lowest L is chosen while all other
    groups keep theirs. The search ends after three rounds, or after a round without any change. L
    never rises. All features are first shifted and scaled so that X_t has mean 0 and mean squared
    norm 1.

    Args:
        features: features of some views of each candidate.
        logits: the teacher's logits on those views.
        groups: for each group, the rows of its candidates; the search starts at the first of each.
        target_features: features of real images.
        target_logits: the teacher's logits on those images.

    Source:
        Kernel ridge regression as a proxy of training, as in KIP (Nguyen et al., ICLR 2021).
        Swaps are evaluated by block inversion, and checked against solving each regression from
        scratch.

    Differs:
        KIP optimises the pixels of images; here images are only selected.

    Example:
        >>> features = np.array([[[0.0]], [[1.0]]])  # two candidates, one view of each
        >>> logits, groups = np.array([[[5.0]], [[2.0]]]), [np.array([0, 1])]
        >>> targets, wanted = np.array([[-1.0], [1.0]]), np.array([[-2.0], [2.0]])
        >>> choose_by_regression(
        ...     features, logits, groups, target_features=targets, target_logits=wanted
        ... ).tolist()
        [1]
    """
    centre = target_features.mean(axis=0)
    targets = target_features - centre
    scale = (
        float(np.sqrt((targets**2).sum(axis=1).mean())) or 1.0
    )  # a Python float keeps float32 arrays float32
    regression = SwapRegression((features - centre) / scale, logits, targets / scale, target_logits)
    chosen = np.array([group[0] for group in groups])
    if all(len(group) == 1 for group in groups):
        return chosen  # nothing to choose, such as one image for each of a thousand classes
    for _ in range(SWEEPS):
        before = chosen.copy()
        regression.start(chosen)
        for slot, group in enumerate(groups):
            chosen[slot] = group[regression.improve(slot, group)]
        if np.array_equal(chosen, before):
            break
    return chosen


def _features(
    network: nn.Module, batches: Iterable[Float[Tensor, "_image channel height width"]]
) -> Float[np.ndarray, "image feature"]:
    return np.concatenate([penultimate_features(network, each).cpu().numpy() for each in batches])


def _one_hot(images: ImageSet, classes: int) -> Float[np.ndarray, "image class"]:
    return np.eye(classes, dtype=np.float32)[images.class_ids.cpu().numpy()]


def _centred(logits: Float[np.ndarray, "*rows class"]) -> Float[np.ndarray, "*rows class"]:
    """Subtract the mean over classes from each row of logits, which does not affect softmax."""
    return logits - logits.mean(axis=-1, keepdims=True)
