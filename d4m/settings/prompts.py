"""Prompts: the texts that describe the classes to the generator (D4M, section 3.3)."""

import re

from pydantic import Field, field_validator

from d4m.settings.section import Section

PLACEHOLDER = re.compile(r"\{(name|synonyms|described|class_id)\}")


class PromptSettings(Section):
    """The text that the generator reads for each class (D4M, section 3.3)."""

    template: str = Field(
        default="{name}",
        description=(
            "The prompt of a class. {name} is the class's name. {synonyms} is the class table's "
            "list (`tench, Tinca tinca`), or the name of a class that has none. {described} adds "
            "the table's gloss to an ambiguous name (`crane, large long-necked wading bird`). "
            "{class_id} is the class's number, for a DiT."
        ),
    )
    negative: str = Field(
        default="cartoon, anime, painting",
        description="Negative prompt of every image. A DiT does not use it.",
    )
    per_class: dict[str, str] = Field(
        default_factory=dict,
        description="Pairs `class name: prompt`: the whole prompt of single classes.",
    )

    @field_validator("template")
    @classmethod
    def _template_names_the_class(cls, template: str) -> str:
        rest, found = PLACEHOLDER.subn("", template)
        if found == 0 or "{" in rest:
            known = "{name}, {synonyms}, {described} or {class_id}"
            msg = f"must contain {known} and no other placeholder"
            raise ValueError(msg)
        return template
