"""The networks of teachers and students."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from d4m.settings.section import Section

Option = bool | int | float | str | tuple[int, ...]


class ClassifierSettings(Section):
    """A network: one of those that papers on dataset distillation use, or one of timm's."""

    architecture: str = Field(
        default="convnet3",
        description=(
            "`convnet3` to `convnet6`, `resnet_ap10`, `resnet18_instance`, `resnet50_instance`, "
            "or the name of any timm architecture."
        ),
    )
    options: dict[str, Option] = Field(
        default_factory=dict,
        description=(
            "`width` and `norm` of the field's networks; timm's own arguments for the "
            "architecture, such as `zero_init_last: false`."
        ),
    )


class StudentSettings(ClassifierSettings):
    """A network to train, and its name in the score table."""

    name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_.]*$",
        description="Name in the score table. If empty, the architecture's name.",
    )

    @property
    def label(self) -> str:
        """Its name in the score table."""
        return self.name or self.architecture


def _named(value: object) -> object:
    return {"architecture": value} if isinstance(value, str) else value


Network = Annotated[ClassifierSettings, BeforeValidator(_named)]
Student = Annotated[StudentSettings, BeforeValidator(_named)]
