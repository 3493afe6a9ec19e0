"""The labels of images, of which a regression on the features of students predicts others."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class Labels(Protocol):
    """The labels that a regression is fitted to and predicts, and that students learn.

    `d4m.prototypes.towards_classes` and `towards_teacher` have one kind each.
    """

    oldest: int
    """Training steps after which a student gives way to a new one."""
    steps_per_use: int
    """Training steps of a student after each regression on its features."""
    batch: int
    """Views per training step of a student."""

    def error(
        self,
        known: Float[Tensor, "target feature"],
        own: Float[Tensor, "view feature"],
        rows: Int64[Tensor, "target"],
        views: Float[Tensor, "view channel height width"],
        class_ids: Int64[Tensor, "view"],
    ) -> Float[Tensor, ""]:
        """Return how far the predictions of real images' labels are from them.

        Args:
            known: features of the real images.
            own: features of the views, through which gradients flow.
            rows: which of the targets the real images are.
            views: of the images, through which gradients flow.
            class_ids: of the views' images.
        """
        ...

    def loss(
        self,
        logits: Float[Tensor, "view class"],
        views: Float[Tensor, "view channel height width"],
        class_ids: Int64[Tensor, "view"],
    ) -> Float[Tensor, ""]:
        """Return the sum of a student's losses over views.

        Args:
            logits: of the student.
            views: what it saw.
            class_ids: of the views' images.
        """
        ...
