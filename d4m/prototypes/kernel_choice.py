"""Choose one real image per cluster, so that the chosen images together predict the teacher best.

"Predict" means: a kernel regression from the chosen images to the teacher's logits on other images.
The recipe calls this `representative: explaining`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.predict import penultimate_features, predict_logits
from d4m.classifiers.registry import build_classifier
from d4m.classifiers.shrinking import Shrinking
from d4m.images.image_set import ImageSet
from d4m.images.spool import ranges
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings, ClassifierSettings
from d4m.training.augment import replay_views
from d4m.training.soft_labels import draw_epoch, label_views

VIEWS = 3
RIDGE = 0.01
SWEEPS = 3
KERNEL_SIZE_PX = 32  # of the images that a regression is made of, at most
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


def regress(
    known: Float[Tensor, "target feature"],
    own: Float[Tensor, "view feature"],
    labels: Float[Tensor, "view class"],
) -> Float[Tensor, "target class"]:
    """Predict the labels of targets by a kernel ridge regression from labelled views.

    With X_t and X_s the features of targets and views, y_s the labels, and lambda = `RIDGE`:

        p = K_ts (K_ss + lambda I)^-1 y_s,  where K_ab = X_a X_b'

    Features are shifted and scaled so that X_t has mean 0 and mean squared norm 1.

    Args:
        known: features of the targets.
        own: features of the views, through which gradients flow.
        labels: of the views.
    """
    centre = known.mean(dim=0)
    scale = (known - centre).square().sum(dim=1).mean().sqrt()
    own = (own - centre) / scale
    kernel = own @ own.T + RIDGE * torch.eye(len(own), device=own.device)
    return (known - centre) / scale @ own.T @ torch.linalg.solve(kernel, labels)


def kernel_network(
    images: ImageSet, *, classes: int, seed: int, settings: ClassifierSettings | None = None
) -> nn.Module:
    """Build an untrained classifier on the images' device; it shrinks larger images to 32 px.

    Args:
        images: whose size and channels it takes.
        classes: number of classes.
        seed: the stream of its weights.
        settings: its architecture; None: ConvNet3.
    """
    size_px = min(images.size_px, KERNEL_SIZE_PX)
    network = build_classifier(
        settings or ClassifierSettings(),
        channels=images.pixels.shape[1],
        size_px=size_px,
        classes=classes,
        seed=seed,
    )
    network = Shrinking(network, size_px) if size_px < images.size_px else network
    return network.to(images.class_ids.device).eval()


def _features(
    network: nn.Module, batches: Iterable[Float[Tensor, "_image channel height width"]]
) -> Float[np.ndarray, "image feature"]:
    return np.concatenate([penultimate_features(network, each).cpu().numpy() for each in batches])


def _one_hot(images: ImageSet, classes: int) -> Float[np.ndarray, "image class"]:
    return np.eye(classes, dtype=np.float32)[images.class_ids.cpu().numpy()]


def _centred(logits: Float[np.ndarray, "*rows class"]) -> Float[np.ndarray, "*rows class"]:
    """Subtract the mean over classes from each row of logits, which does not affect softmax."""
    return logits - logits.mean(axis=-1, keepdims=True)


class SwapRegression:
    """The ridge regression from the chosen views, with its inverse kernel matrix kept up to date.

    A slot is the place of one group's candidate in the choice.

    Args:
        features: features of some views of each candidate.
        logits: the teacher's logits on those views.
        targets: features of real images.
        target_logits: the teacher's logits on those images.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "candidate view feature"],
        logits: Float[np.ndarray, "candidate view class"],
        targets: Float[np.ndarray, "target feature"],
        target_logits: Float[np.ndarray, "target class"],
    ) -> None:
        """Choose nothing yet."""
        self._features, self._logits = features, logits
        self._targets, self._target_logits = targets, target_logits
        self._views = features.shape[1]

    def start(self, chosen: Int64[np.ndarray, "slot"]) -> None:
        """Invert (K_ss + lambda I) from scratch, which also clears accumulated rounding errors."""
        self._rows = np.concatenate(self._features[chosen])
        self._labels = np.concatenate(self._logits[chosen])
        kernel = (self._rows @ self._rows.T).astype(np.float64)
        self._inverse = np.linalg.inv(kernel + RIDGE * np.eye(len(kernel)))

    def improve(self, slot: int, group: Int64[np.ndarray, "member"]) -> int:
        """Put the best member of a group into a slot, and return the member's place in the group.

        With r the rows of all other slots, o those of this slot, M = (K_ss + lambda I)^-1, and n
        the views of a member:

            A^-1 = (K_rr + lambda I)^-1 = M_rr - M_ro M_oo^-1 M_or
            S = K_nn + lambda I - K_nr A^-1 K_rn                            (Schur complement)
            prediction = K_tr A^-1 y_r + (K_tn - K_tr A^-1 K_rn) S^-1 (y_n - K_nr A^-1 y_r)

        The member with the lowest mean (prediction - y_t)^2 is the best. For that member

            M = [A^-1 + A^-1 K_rn S^-1 K_nr A^-1,  -A^-1 K_rn S^-1;  (transpose),  S^-1]
        """
        views, members = self._views, len(group)
        own = np.arange(slot * views, (slot + 1) * views)
        rest = np.setdiff1d(np.arange(len(self._rows)), own)
        corner = np.linalg.solve(self._inverse[np.ix_(own, own)], self._inverse[np.ix_(own, rest)])
        inverse = self._inverse[np.ix_(rest, rest)] - self._inverse[np.ix_(rest, own)] @ corner

        # All members at once; a column of `across` and `solved` is one view of one member.
        rows, labels = self._rows[rest], self._labels[rest]
        new = self._features[group]
        flat = new.reshape(members * views, -1)
        across = rows @ flat.T  # K_rn
        solved = inverse @ across  # A^-1 K_rn
        weights = inverse @ labels  # A^-1 y_r
        base = self._targets @ (rows.T @ weights) - self._target_logits
        gain = self._targets @ (flat - solved.T @ rows).T
        known = (across.T @ weights).reshape(members, views, -1)
        schur = new @ new.transpose(0, 2, 1) + RIDGE * np.eye(views)
        blocks = (len(rest), members, views)
        schur -= np.einsum("rmv,rmw->mvw", across.reshape(blocks), solved.reshape(blocks))
        steps = np.linalg.solve(schur, self._logits[group] - known)
        moves = gain.reshape(-1, members, views)
        errors = [
            float(((base + moves[:, member] @ steps[member]) ** 2).mean())
            for member in range(members)
        ]
        best = int(np.argmin(errors))

        self._rows[own], self._labels[own] = new[best], self._logits[group[best]]
        inside = np.linalg.inv(schur[best])
        side = solved.reshape(blocks)[:, best] @ inside
        self._inverse[np.ix_(own, own)] = inside
        self._inverse[np.ix_(rest, own)], self._inverse[np.ix_(own, rest)] = -side, -side.T
        self._inverse[np.ix_(rest, rest)] = inverse + side @ solved.reshape(blocks)[:, best].T
        return best
