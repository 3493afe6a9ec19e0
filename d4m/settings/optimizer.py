"""How the weights of a teacher or student are fitted."""

from typing import Literal

from pydantic import Field, JsonValue

from d4m.settings.section import Section, Share

Precision = Literal["float32", "bfloat16"]


class OptimizerSettings(Section):
    """How a network's weights are fitted. The defaults for students are the paper's."""

    name: Literal["adamw", "adam", "sgd", "muon"] = Field(
        default="adamw",
        description=(
            "`adamw`; `adam`, with the weight decay in the gradient; `sgd`; `muon`, with "
            "AdamW for all weights but the matrices of hidden layers."
        ),
    )
    batch_size: int = Field(
        default=1024,
        ge=1,
        description="Images per step; at most the whole training set.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay.")
    decayed: Literal["all", "matrices"] = Field(
        default="all",
        exclude_if=lambda value: value == "all",
        description=(
            "Weights that `weight_decay` applies to. `all`: every one. `matrices`: those named "
            "`weight` with at least two dimensions, so neither norms nor biases (as in FKD)."
        ),
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of `sgd`.")
    schedule: Literal["cosine", "smoothed_cosine", "step"] = Field(
        default="cosine",
        description=(
            "`cosine`: to zero. `smoothed_cosine`: half a cosine, ends at half the peak. "
            "`step`: times `step_factor` at each of `steps`."
        ),
    )
    steps: tuple[Share, ...] = Field(
        default=(0.5,),
        exclude_if=lambda value: value == (0.5,),
        min_length=1,
        description="Points at which the schedule `step` lowers the rate, as shares of the epochs.",
    )
    step_factor: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        exclude_if=lambda value: value == 0.1,
        description="Factor of the rate at each of `steps`.",
    )
    rate_changes: Literal["per_step", "per_epoch"] = Field(
        default="per_step",
        exclude_if=lambda value: value == "per_step",
        description="Whether the schedule advances after each step or after each epoch.",
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the steps in which the rate rises from zero to its peak.",
    )
    precision: Precision = Field(
        default="float32",
        description=(
            "Number format of convolutions and matrix products, in training and in use. "
            "Weights stay float32."
        ),
    )

    def used(self) -> dict[str, JsonValue]:
        """Return the settings that a fit depends on."""
        unused = set[str]() if self.name == "sgd" else {"momentum"}
        if self.schedule != "step":
            unused |= {"steps", "step_factor"}
        return self.model_dump(mode="json", exclude=unused)
