"""Prototypes: how each class's latents are clustered (D4M, section 3.2)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from d4m.settings.section import Section


class PrototypeSettings(Section):
    """Clustering of each class's latents (D4M, section 3.2)."""

    ipc: int = Field(
        default=10, ge=1, le=5000, description="Images per class. Each prototype gives one image."
    )
    method: Literal["kmeans", "minibatch_kmeans", "gaussian_mixture"] = Field(
        default="kmeans",
        description=(
            "`kmeans`: exact Lloyd iterations. `minibatch_kmeans`: the paper's mini-batches. "
            "`gaussian_mixture`: diagonal covariances, fitted by EM."
        ),
    )
    pooling: int = Field(
        default=1,
        ge=1,
        le=64,
        description=(
            "Clusters are found on latents that are averaged over squares of this edge. "
            "Prototypes keep the full size."
        ),
    )
    outlier_share: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Share of a class's images that is left out: those in the sparsest places.",
    )
    representative: Literal["mean", "medoid", "explaining"] = Field(
        default="mean",
        description=(
            "`mean`: the mean of the cluster. `medoid`: the real latent nearest to the mean. "
            "`explaining`: one real latent per cluster, chosen together so that a kernel "
            "regression on their images predicts the teacher's logits on other images."
        ),
    )
    refinement_steps: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description=(
            "Gradient steps that move `explaining` prototypes, all together, so that the "
            "regression predicts the teacher better."
        ),
    )
    batch_size: int = Field(
        default=1024, ge=1, description="Latents per mini-batch (`minibatch_kmeans` only)."
    )
    starts: int = Field(
        default=4, ge=1, le=100, description="Number of k-means++ starts. The best result is kept."
    )

    @model_validator(mode="after")
    def _check_refinement(self) -> Self:
        if self.refinement_steps and self.representative != "explaining":
            msg = (
                "refinement_steps move prototypes that explain the teacher: wanted "
                f"`representative: explaining`, found {self.representative}"
            )
            raise ValueError(msg)
        return self
