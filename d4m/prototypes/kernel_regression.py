"""Kernel regressions from a few images' views to labels, on features of a network.

Choosing images and moving prototypes both ask how well such a regression predicts.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d4m.classifiers.registry import build_classifier
from d4m.classifiers.shrinking import Shrinking
from d4m.images.image_set import ImageSet
from d4m.settings import ClassifierSettings

RIDGE = 0.01
DESCENTS, MOMENTUM = 100, 0.9  # of a logistic regression
KERNEL_SIZE_PX = 32  # of the images that a regression is made of, at most


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
    known, own = _scaled(known, own)
    kernel = own @ own.T + RIDGE * torch.eye(len(own), device=own.device)
    return known @ own.T @ torch.linalg.solve(kernel, labels)


def regress_logistically(
    known: Float[Tensor, "target feature"],
    own: Float[Tensor, "view feature"],
    labels: Float[Tensor, "view class"],
) -> Float[Tensor, "target class"]:
    """Predict the logits of targets by a logistic regression that is trained on labelled views.

    A linear layer with bias begins at zero, and takes `DESCENTS` steps of gradient descent with
    momentum on the cross-entropy of all views, as the last layer of a student does. It is kept as a
    combination A of the views: with X_t and X_s the features of targets and views, y_s the labels,
    and K_ab = X_a X_b' + 1,

        V <- mu V + softmax(K_ss A) - y_s,   A <- A - eta V,   p = K_ts A

    mu is `MOMENTUM`, and eta is 2 over the largest eigenvalue of K_ss. Features are shifted and
    scaled so that X_t has mean 0 and mean squared norm 1.

    Args:
        known: features of the targets.
        own: features of the views, through which gradients flow, but not through eta.
        labels: probabilities of the classes, for each view.
    """
    known, own = _scaled(known, own)
    kernel = own @ own.T + 1
    rate = _rate(kernel.detach())
    weights, velocity = torch.zeros_like(labels), torch.zeros_like(labels)
    for _ in range(DESCENTS):
        velocity = MOMENTUM * velocity + (kernel @ weights).softmax(dim=1) - labels
        weights = weights - rate * velocity
    return (known @ own.T + 1) @ weights


def _rate(kernel: Float[Tensor, "view view"]) -> Float[Tensor, ""]:
    """Return a rate with which descent on the cross-entropy of all views cannot diverge."""
    return 2 / torch.linalg.eigvalsh(kernel)[-1]


def _scaled(
    known: Float[Tensor, "target feature"], own: Float[Tensor, "view feature"]
) -> tuple[Float[Tensor, "target feature"], Float[Tensor, "view feature"]]:
    """Shift and scale both, so that those of the targets have mean 0 and mean squared norm 1."""
    centre = known.mean(dim=0)
    scale = (known - centre).square().sum(dim=1).mean().sqrt()
    return (known - centre) / scale, (own - centre) / scale


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
