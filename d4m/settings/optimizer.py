"""How the weights of a teacher or student are fitted."""

from typing import Literal

from pydantic import Field, JsonValue

from d4m.settings.section import Section

Precision = Literal["float32", "bfloat16"]


class OptimizerSettings(Section):
    """How a network's weights are fitted; the defaults are the paper's student training."""

    name: Literal["adamw", "adam", "sgd", "muon"] = Field(
        default="adamw",
        description="AdamW, Adam (weight decay in the gradient), SGD, or Muon for the matrices of "
        "hidden layers with AdamW for all else.",
    )
    batch_size: int = Field(
        default=1024,
        ge=1,
        description="Images a step; at most the whole training set.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak rate.")
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD.")
    schedule: Literal["cosine", "smoothed_cosine", "step"] = Field(
        default="cosine",
        description="Cosine to zero; the same over twice the steps, so that it ends at half the "
        "peak; or a tenth from halfway.",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps over which the rate rises."
    )
    precision: Precision = Field(
        default="float32",
        description="Number format of convolutions and matrix products, in training and in what "
        "the network then says of images; weights stay float32.",
    )

    def used(self) -> dict[str, JsonValue]:
        """What a fit depends on."""
        unused = set() if self.name == "sgd" else {"momentum"}
        return self.model_dump(mode="json", exclude=unused)
