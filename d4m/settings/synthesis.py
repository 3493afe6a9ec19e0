"""Synthesis: how prototypes become images (D4M, section 3.3)."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from d4m.settings.section import NUMBER_OR_AUTO, Auto, Resampling, Section
from d4m.settings.set_guidance import SetGuidanceSettings


class SynthesisSettings(Section):
    """How images are drawn, with all numbers (D4M, section 3.3)."""

    strength: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description=(
            "Share of the noise schedule that is run. Near 0 keeps the prototype; 1 starts "
            "from noise."
        ),
    )
    guidance_scale: float = Field(
        default=8.0,
        ge=1,
        le=100,
        description="Strength of classifier-free guidance. At 1 there is none.",
    )
    guided_channels: int | None = Field(
        default=None,
        ge=1,
        le=64,
        exclude_if=lambda value: value is None,
        description=(
            "The first channels of a DiT's latents that guidance changes, such as 3 in the DiT "
            "authors' code. With `null`, all of them."
        ),
    )
    num_inference_steps: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="Steps in the full schedule; only the last `strength` fraction runs.",
    )
    scheduler: Literal["pipeline", "pndm", "ddim", "ddpm", "dpmsolver++", "unipc"] = Field(
        default="pndm",
        description=(
            "The sampler. `pipeline` keeps the generator's own. `ddpm` adds noise in every step, "
            "with the variance that a DiT predicts."
        ),
    )
    mode_guidance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "Pull of the latents towards the prototype at each early step: lambda of MGD3, which "
            "publishes 0.1 with `ddpm`. Other samplers follow MGD3's algorithm for DDIM, where the "
            "same lambda pulls differently. At 0 there is none."
        ),
    )
    mode_guidance_until: float = Field(
        default=0.5, gt=0, le=1, description="Share of the steps with that pull."
    )
    inversion: bool = Field(
        default=False,
        exclude_if=lambda value: not value,
        description=(
            "Start each image from the noise that the sampler would turn into its prototype (DDIM "
            "inversion, as in D3HR), in place of random noise. Doubles the time of synthesis. Not "
            "for `ddpm`."
        ),
    )
    set_guidance: SetGuidanceSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description=(
            "Guide all images of a class together, by real latents of the class: `cgs`, `dap` or "
            "`ot`. With `null` each image is denoised alone."
        ),
    )
    candidates: int = Field(
        default=1,
        ge=1,
        le=1000,
        description=(
            "Images drawn per prototype. One is selected by the teacher's class probability "
            "and the distance to images already selected."
        ),
    )
    diversity: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of that distance against the class probability.",
    )
    groups: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        exclude_if=lambda value: value is None,
        description=(
            "Choose a set, not images: groups of one random candidate per prototype are drawn, and "
            "the one whose mean, deviation and skewness in the teacher's features fit the real "
            "class best is kept (D3HR, which draws 100,000). Needs `candidates` above 1 and takes "
            "the place of `diversity`."
        ),
    )
    size_px: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description=(
            "Height and width of the distilled images, and of the real images that teacher "
            "and students see. With `null`, the data set's own."
        ),
    )
    mosaic: int = Field(
        default=1,
        ge=1,
        le=8,
        exclude_if=lambda value: value == 1,
        description=(
            "Tiles per row and column of each stored image. With 2, four images of half the size "
            "are stored in one; where a student trains, tiles are cut out and enlarged. "
            "`prototypes.ipc` counts stored images. A stored image is diffused as a whole, so use "
            "little noise: at `strength: 0.7`, its tiles become one image."
        ),
    )
    resampling: Resampling = Field(
        default="lanczos",
        exclude_if=lambda value: value == "lanczos",
        description=(
            "Filter that resizes decoded images to `size_px`: `lanczos`, `bicubic` or `bilinear`. "
            "The published code has `bicubic`."
        ),
    )

    @property
    def tiles(self) -> int:
        """Training images per stored image."""
        return self.mosaic**2


class SynthesisCandidates(Section):
    """The candidates of `auto`.

    A strength that leaves no step of the schedule, or as many steps as a smaller one, is left out.
    """

    strengths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.05, 0.1, 0.2, 0.4, 0.7), min_length=1, description="Strengths to choose from."
    )
    guidance_scales: tuple[Annotated[float, Field(ge=1, le=100)], ...] = Field(
        default=(1.0, 3.0, 8.0), min_length=1, description="Guidance scales to choose from."
    )


class RecipeSynthesisSettings(SynthesisSettings):
    """From prototypes to images (D4M, section 3.3; defaults are the published code's)."""

    strength: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        Annotated[float, Field(gt=0, le=1), Tag("number")] | Auto, NUMBER_OR_AUTO
    ] = Field(
        default=0.7,
        description=(
            "Share of the noise schedule that is run. Near 0 keeps the prototype; 1 starts "
            "from noise. `auto` chooses from `choose_from` by how well the images predict the "
            "classes of real images that are not test images."
        ),
    )
    guidance_scale: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        Annotated[float, Field(ge=1, le=100), Tag("number")] | Auto, NUMBER_OR_AUTO
    ] = Field(
        default=8.0,
        description=(
            "Strength of classifier-free guidance. At 1 there is none. `auto` chooses it, together "
            "with `strength: auto` if both are."
        ),
    )
    choose_from: SynthesisCandidates = Field(
        default_factory=SynthesisCandidates,
        exclude_if=lambda value: value == SynthesisCandidates(),
        description="The numbers from which `auto` chooses.",
    )

    def candidates_of_auto(self) -> list[tuple[float, float]]:
        """Return every pair of strength and guidance scale to choose from; none without `auto`.

        Example:
            >>> named = {"strength": "auto", "guidance_scale": 4, "num_inference_steps": 8}
            >>> RecipeSynthesisSettings.model_validate(named).candidates_of_auto()
            [(0.2, 4.0), (0.4, 4.0), (0.7, 4.0)]
        """
        if "auto" not in (self.strength, self.guidance_scale):
            return []
        own = self.choose_from
        by_steps = {
            int(self.num_inference_steps * strength): strength
            for strength in sorted(own.strengths, reverse=True)
        }
        strengths = (
            sorted(strength for steps, strength in by_steps.items() if steps)
            if self.strength == "auto"
            else [self.strength]
        )
        scales = (
            sorted(set(own.guidance_scales))
            if self.guidance_scale == "auto"
            else [self.guidance_scale]
        )
        return [(strength, scale) for strength in strengths for scale in scales]
