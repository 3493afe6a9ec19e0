"""Guidance of a class's images as a set: towards the real class, and away from one another."""

from typing import Annotated

from pydantic import Field, JsonValue

from d4m.settings.section import Section

Weight = Annotated[float, Field(ge=0, le=10)]


class CgsSettings(Section):
    """Collaborative guided sampling (CGS). The default weights are this project's."""

    repulsion: Weight = Field(
        default=0.1,
        description=(
            "Weight of the repulsion between the images of a class, by a determinantal point "
            "process. At 0 there is none."
        ),
    )
    pull: Weight = Field(
        default=0.1,
        description="Weight of the pull of their mean to the mean of the class's real latents.",
    )


class DapSettings(Section):
    """Diffusion models as priors (DAP). The defaults are this project's."""

    weight: Weight = Field(
        default=0.1,
        description=(
            "Pull of each image's features, in the middle of the denoiser, to those of real "
            "latents of the class. Costs half a backward pass per step. At 0 there is none."
        ),
    )
    bandwidth: float = Field(
        default=0.1,
        gt=0,
        le=1000,
        description=(
            "Width of the kernel that compares features, as a share of their variance in the "
            "class. A narrow one pulls to the most similar real latents, a wide one to their mean."
        ),
    )


class OtSettings(Section):
    """Guidance by optimal transport. The defaults are this project's."""

    weight: Weight = Field(
        default=0.1,
        description=(
            "Pull that lowers the Sinkhorn distance of a class's images to real latents. At 0 "
            "there is none."
        ),
    )
    regularisation: float = Field(
        default=0.05,
        ge=1e-3,
        le=10,
        description=(
            "Entropic regularisation, as a share of the mean cost. A low one pulls each image to "
            "its own real latents, a high one to their mean."
        ),
    )


class SetGuidanceSettings(Section):
    """Guidance of all images of a class together, for which they are denoised together."""

    cgs: CgsSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The images repel one another, and their mean is pulled to the class's (CGS).",
    )
    dap: DapSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Features inside the denoiser are pulled to those of real latents (DAP).",
    )
    ot: OtSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The images are pulled to real latents by optimal transport.",
    )
    references: int = Field(
        default=64,
        ge=2,
        le=10_000,
        description=(
            "Real latents of the class, drawn at random, that `dap` and `ot` compare with. With "
            "fewer in the class, all of them."
        ),
    )
    until: float = Field(
        default=1.0, gt=0, le=1, description="Share of the steps, from the first, that is guided."
    )

    def used(self) -> dict[str, JsonValue]:
        """Return the settings that images depend on."""
        unused = set[str]() if self.dap or self.ot else {"references"}
        return self.model_dump(mode="json", exclude=unused)
