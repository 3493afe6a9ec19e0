"""Prompts, prototypes and synthesis: the method's own knobs (D4M, sections 3.2 and 3.3)."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from d4m.settings.section import Section

PLACEHOLDER = re.compile(r"\{(name|described|class_id)\}")


class PromptSettings(Section):
    """What the text encoder reads for each class (D4M, section 3.3)."""

    template: str = Field(
        default="{name}",
        description="The prompt; {name} is the class's name, {described} adds the class table's "
        "gloss to an ambiguous one (`crane, large long-necked wading bird`), {class_id} is its "
        "number, for a DiT.",
    )
    negative: str = Field(
        default="cartoon, anime, painting",
        description="Negative prompt of every image; a DiT has none.",
    )
    per_class: dict[str, str] = Field(
        default_factory=dict, description="Class name -> the whole prompt of that class."
    )

    @field_validator("template")
    @classmethod
    def _template_names_the_class(cls, template: str) -> str:
        rest, found = PLACEHOLDER.subn("", template)
        if found == 0 or "{" in rest:
            msg = "must contain {name}, {described} or {class_id} and no other placeholder"
            raise ValueError(msg)
        return template


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


class SynthesisSettings(Section):
    """From prototypes to images (D4M, section 3.3; defaults are the published code's)."""

    strength: float = Field(
        default=0.7, gt=0, le=1, description="Share of the noise schedule that is run."
    )
    guidance_scale: float = Field(default=8.0, ge=1, description="Classifier-free guidance.")
    num_inference_steps: int = Field(
        default=50, ge=1, le=1000, description="Length of the schedule; strength of it is run."
    )
    scheduler: Literal["pipeline", "pndm", "ddim", "dpmsolver++", "unipc"] = Field(
        default="pndm", description="Sampler; `pipeline` keeps the generator's own."
    )
    mode_guidance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Pull of the latents towards the prototype at each early step (MGD3).",
    )
    mode_guidance_until: float = Field(
        default=0.5, gt=0, le=1, description="Share of the steps that are run with that pull."
    )
    candidates: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Images drawn per prototype, of which the teacher's verdict and the "
        "distance to those already chosen select one.",
    )
    diversity: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of the distance against the verdict in that selection.",
    )
    size_px: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Height and width of the distilled images, and of the real ones that teacher "
        "and students see; none: the data set's own.",
    )
