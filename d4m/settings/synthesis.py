"""Synthesis: how prototypes become images (D4M, section 3.3)."""

from typing import Literal

from pydantic import Field

from d4m.settings.section import Section


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
