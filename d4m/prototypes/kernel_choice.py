"""Of the real images of each cluster, the one to keep: together they explain the teacher best."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.convnet import ConvNet3
from d4m.classifiers.predict import penultimate_features, predict_logits
from d4m.classifiers.registry import build_classifier
from d4m.images.image_set import ImageSet
from d4m.images.spool import ranges
from d4m.seeds import stream_seed
from d4m.settings import AugmentationSettings, ClassifierSettings
from d4m.training.augment import replay_views
from d4m.training.soft_labels import draw_epoch, label_views

VIEWS = 3
RIDGE = 0.01
SWEEPS = 3
_KERNEL_SIZE_PX = 32
_BATCH = 500


def choose_images(
    candidates: ImageSet,
    groups: Sequence[Int64[np.ndarray, "_member"]],
    targets: ImageSet,
    teacher: nn.Module,
    *,
    augmentation: AugmentationSettings,
    seed: int,
) -> Int64[np.ndarray, "group"]:
    """One candidate image per group, so that together they explain the teacher's verdicts best.

    That is, a kernel regression from three views of every chosen image, with the teacher's logits
    on them, predicts its logits on the targets with the lowest squared error that is found. The
    kernel is that of an untrained ConvNet3's features: what a student sees before it has learnt.

    Args:
        candidates: real images.
        groups: rows of the candidates of each group; the first is where the search starts.
        targets: real images, on which the verdict is to be predicted.
        teacher: in evaluation mode, on the images' device.
        augmentation: the views; CutMix and MixUp are left out.
        seed: of the views and of the network.
    """
    views = augmentation.model_copy(update={"cutmix": 0.0, "mixup": 0.0})
    network = kernel_network(candidates, classes=1, seed=stream_seed(seed, "kernel"))
    features, verdicts = list[np.ndarray](), list[np.ndarray]()
    for number in range(VIEWS):
        drawn = draw_epoch(candidates, views, seed=seed, epoch=number)
        verdicts.append(label_views(candidates, teacher, drawn))
        seen = (
            replay_views(candidates.pixels, drawn, rows.numpy())
            for rows in ranges(len(candidates), _BATCH)
        )
        features.append(_features(network, seen))
    plain = (targets.pixels[rows] for rows in ranges(len(targets), _BATCH))
    return choose_explaining(
        np.stack(features, axis=1),
        _centred(np.stack(verdicts, axis=1)),
        groups,
        target_features=_features(network, plain),
        target_verdicts=_centred(predict_logits(teacher, targets.pixels).cpu().numpy()),
    )


def choose_explaining(
    features: Float[np.ndarray, "candidate view feature"],
    verdicts: Float[np.ndarray, "candidate view class"],
    groups: Sequence[Int64[np.ndarray, "_member"]],
    *,
    target_features: Float[np.ndarray, "target feature"],
    target_verdicts: Float[np.ndarray, "target class"],
) -> Int64[np.ndarray, "group"]:
    """One candidate per group, so that a ridge regression on them predicts the targets' verdicts.

    Groups take turns. Each takes the candidate with which the regression from all chosen images'
    views has the lowest squared error on the targets, while all other groups keep theirs; after
    three rounds, or one that changes nothing, that is it. The error never rises.

    Args:
        features: of some views of each candidate.
        verdicts: the teacher's logits on those views.
        groups: rows of the candidates of each group; the first is where the search starts.
        target_features: of real images.
        target_verdicts: the teacher's logits on them.

    Source:
        Kernel ridge regression as a proxy of training, as in KIP (Nguyen et al., ICLR 2021), here
        to select images and not to optimise them. Swaps are evaluated by block inversion; checked
        against a regression solved anew.

    Example:
        >>> features = np.array([[[0.0]], [[1.0]]])  # two candidates, a view each
        >>> verdicts, groups = np.array([[[5.0]], [[2.0]]]), [np.array([0, 1])]
        >>> targets, wanted = np.array([[-1.0], [1.0]]), np.array([[-2.0], [2.0]])
        >>> choose_explaining(
        ...     features, verdicts, groups, target_features=targets, target_verdicts=wanted
        ... ).tolist()
        [1]
    """
    centre = target_features.mean(axis=0)
    targets = target_features - centre
    scale = float(np.sqrt((targets**2).sum(axis=1).mean())) or 1.0  # keeps float32 as it is
    problem = _Problem((features - centre) / scale, verdicts, targets / scale, target_verdicts)
    chosen = np.array([group[0] for group in groups])
    for _ in range(SWEEPS):
        before = chosen.copy()
        problem.start(chosen)
        for slot, group in enumerate(groups):
            chosen[slot] = group[problem.improve(slot, group)]
        if np.array_equal(chosen, before):
            break
    return chosen


def kernel_network(images: ImageSet, *, classes: int, seed: int) -> ConvNet3:
    """An untrained ConvNet3 that looks at images in at most 32 px, on their device."""
    size_px = min(images.size_px, _KERNEL_SIZE_PX)
    network = build_classifier(
        ClassifierSettings(),
        channels=images.pixels.shape[1],
        size_px=size_px,
        classes=classes,
        seed=seed,
    )
    assert isinstance(network, ConvNet3)
    if size_px < images.size_px:
        network.features.insert(0, nn.AdaptiveAvgPool2d(size_px))
    return network.to(images.class_ids.device).eval()


def _features(
    network: nn.Module, batches: Iterable[Float[Tensor, "_image channel height width"]]
) -> Float[np.ndarray, "image feature"]:
    return np.concatenate([penultimate_features(network, each).cpu().numpy() for each in batches])


def _centred(logits: Float[np.ndarray, "*rows class"]) -> Float[np.ndarray, "*rows class"]:
    """Logits without what all classes share, which softmax does not see."""
    return logits - logits.mean(axis=-1, keepdims=True)


class _Problem:
    """The regression from the chosen views, with its inverse matrix, as slot after slot changes."""

    def __init__(
        self,
        features: Float[np.ndarray, "candidate view feature"],
        verdicts: Float[np.ndarray, "candidate view class"],
        targets: Float[np.ndarray, "target feature"],
        target_verdicts: Float[np.ndarray, "target class"],
    ) -> None:
        self._features, self._verdicts = features, verdicts
        self._targets, self._target_verdicts = targets, target_verdicts
        self._views = features.shape[1]

    def start(self, chosen: Int64[np.ndarray, "slot"]) -> None:
        """Solve for a choice from scratch, which also ends the rounding errors of many updates."""
        self._rows = np.concatenate(self._features[chosen])
        self._labels = np.concatenate(self._verdicts[chosen])
        kernel = (self._rows @ self._rows.T).astype(np.float64)
        self._inverse = np.linalg.inv(kernel + RIDGE * np.eye(len(kernel)))

    def improve(self, slot: int, group: Int64[np.ndarray, "member"]) -> int:
        """Put the best member of a group into a slot; returns its place in the group."""
        views, members = self._views, len(group)
        own = np.arange(slot * views, (slot + 1) * views)
        rest = np.setdiff1d(np.arange(len(self._rows)), own)
        corner = np.linalg.solve(self._inverse[np.ix_(own, own)], self._inverse[np.ix_(own, rest)])
        inverse = self._inverse[np.ix_(rest, rest)] - self._inverse[np.ix_(rest, own)] @ corner

        rows, labels = self._rows[rest], self._labels[rest]
        new = self._features[group]
        flat = new.reshape(members * views, -1)
        across = rows @ flat.T
        solved = inverse @ across
        weights = inverse @ labels
        base = self._targets @ (rows.T @ weights) - self._target_verdicts
        gain = self._targets @ (flat - solved.T @ rows).T
        known = (across.T @ weights).reshape(members, views, -1)
        schur = new @ new.transpose(0, 2, 1) + RIDGE * np.eye(views)
        blocks = (len(rest), members, views)
        schur -= np.einsum("rmv,rmw->mvw", across.reshape(blocks), solved.reshape(blocks))
        steps = np.linalg.solve(schur, self._verdicts[group] - known)
        moves = gain.reshape(-1, members, views)
        errors = [
            float(((base + moves[:, member] @ steps[member]) ** 2).mean())
            for member in range(members)
        ]
        best = int(np.argmin(errors))

        self._rows[own], self._labels[own] = new[best], self._verdicts[group[best]]
        inside = np.linalg.inv(schur[best])
        side = solved.reshape(blocks)[:, best] @ inside
        self._inverse[np.ix_(own, own)] = inside
        self._inverse[np.ix_(rest, own)], self._inverse[np.ix_(own, rest)] = -side, -side.T
        self._inverse[np.ix_(rest, rest)] = inverse + side @ solved.reshape(blocks)[:, best].T
        return best
