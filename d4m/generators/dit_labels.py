"""The labels of a class-conditional pipeline, one of which stands in for each prompt."""

import difflib
from collections.abc import Mapping, Sequence

from d4m.errors import GeneratorError

_NAMED_IN_FULL = 20


class DiTLabels:
    """The classes that a DiT knows, by number and by label.

    Args:
        id2label: class number -> synonyms with commas between them.
        classes: number of classes.
    """

    def __init__(self, id2label: Mapping[str, str], classes: int) -> None:
        """Take the labels apart."""
        self.classes = classes
        self.class_ids = dict[str, set[int]]()
        for number, synonyms in id2label.items():
            for label in (synonyms, *synonyms.split(",")):
                self.class_ids.setdefault(label.strip(), set()).add(int(number))

    def find(self, prompts: Sequence[str]) -> list[int]:
        """Return the class that each prompt names: a label of the pipeline, or a number.

        Raises:
            GeneratorError: prompts name no class, or a label that several classes share.
        """
        wrong = [text for text in map(self.complaint, dict.fromkeys(prompts)) if text]
        if wrong:
            lines = [f"  {text}" for text in wrong[:_NAMED_IN_FULL]]
            if len(wrong) > _NAMED_IN_FULL:
                lines.append(f"  and {len(wrong) - _NAMED_IN_FULL} more")
            msg = (
                f"{self.wanted}; give such prompts in `prompts.per_class` instead of these "
                f"{len(wrong)}:\n" + "\n".join(lines)
            )
            raise GeneratorError(msg)
        return [next(iter(self._find(prompt))) for prompt in prompts]

    @property
    def wanted(self) -> str:
        """The prompts that are allowed, in words."""
        return (
            f"a prompt for a DiT must be one of its {len(self.class_ids)} labels or a class number "
            f"below {self.classes}"
        )

    def complaint(self, prompt: str) -> str:
        """Return the reason why a prompt names no single class, or ""."""
        found = sorted(self._find(prompt))
        if len(found) == 1:
            return ""
        if found:
            return f"'{prompt}' names classes {', '.join(map(str, found))}: give a class number"
        near = difflib.get_close_matches(prompt, self.class_ids, n=1)
        return f"'{prompt}'" + (f" (is it '{near[0]}'?)" if near else "")

    def _find(self, prompt: str) -> set[int]:
        named = self.class_ids.get(prompt.strip(), set())
        if not named and prompt.isascii() and prompt.isdecimal() and int(prompt) < self.classes:
            return {int(prompt)}
        return named
