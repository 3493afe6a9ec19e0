"""class_id <-> name <-> prompt, in one place, so that the three cannot come apart.

A class *is* its `class_id`: its position in the table. Labels, artifacts and cache units carry the
id and nothing else; names and prompts are display text looked up here by id. A source makes its
table once, in the order in which it numbers its labels, and no other code orders classes.
"""

from dataclasses import dataclass

from d4m.errors import RecipeError, SourceError
from d4m.settings import PromptSettings


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, in the order of their ids.

    Attributes:
        names: one distinct, non-empty name per class; `names[class_id]`.

    Raises:
        SourceError: fewer than two classes, or an empty or repeated name.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the names."""
        if len(self.names) < 2:
            msg = f"wanted at least 2 classes, found {len(self.names)}: {list(self.names)}"
            raise SourceError(msg)
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated or "" in self.names:
            msg = f"class names must be distinct and not empty, found twice or empty: {repeated}"
            raise SourceError(msg)

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.names)

    def prompt(self, class_id: int, settings: PromptSettings) -> str:
        """The text prompt of one class: its own if the recipe has one, else the template's.

        Raises:
            RecipeError: `per_class` names a class that is not in the table.

        Example:
            >>> table = ClassTable(("cat", "dog"))
            >>> table.prompt(1, PromptSettings(template="a photo of a {name}"))
            'a photo of a dog'
        """
        unknown = sorted(set(settings.per_class) - set(self.names))
        if unknown:
            msg = (
                f"`prompts.per_class` names classes that the data set does not have: {unknown}; "
                f"its classes are {list(self.names[:20])}{' ...' if len(self) > 20 else ''}"
            )
            raise RecipeError(msg)
        name = self.names[class_id]
        return settings.per_class.get(name, settings.template.replace("{name}", name))
