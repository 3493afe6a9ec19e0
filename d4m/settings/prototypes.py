"""Prototypes: how each class's latents are clustered (D4M, section 3.2)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from d4m.settings.section import Section


class PrototypeSettings(Section):
    """Clustering of each class's latents (D4M, section 3.2)."""

    ipc: int = Field(default=10, ge=1, le=5000, description="Images per class.")
    method: Literal["kmeans", "minibatch_kmeans", "gaussian_mixture"] = Field(
        default="kmeans",
        description="Exact Lloyd iterations, the paper's mini-batches, or a Gaussian mixture with "
        "diagonal covariances.",
    )
    pooling: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Clusters are found on latents averaged over squares of this edge; prototypes "
        "keep the full size.",
    )
    outlier_share: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Share of a class's images, those in the sparsest places, that is left out.",
    )
    representative: Literal["mean", "medoid", "explaining"] = Field(
        default="mean",
        description="A prototype is its cluster's mean; the real latent nearest to it; or the one "
        "of its real latents with which all prototypes' images together explain the teacher best.",
    )
    refinement_steps: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Gradient steps that move these prototypes, all together, so that their images "
        "explain the teacher better still (explaining only).",
    )
    batch_size: int = Field(
        default=1024, ge=1, description="Latents a mini-batch (minibatch_kmeans only)."
    )
    starts: int = Field(default=4, ge=1, le=100, description="k-means++ starts; the best is kept.")

    @model_validator(mode="after")
    def _check_refinement(self) -> Self:
        if self.refinement_steps and self.representative != "explaining":
            msg = (
                "refinement_steps move prototypes that explain the teacher: wanted "
                f"`representative: explaining`, found {self.representative}"
            )
            raise ValueError(msg)
        return self
