"""Defaults that follow the images: the settings that a recipe leaves open, by size and number.

`settle` is the whole table. A group of keys is open while neither the recipe nor one of its presets
names any of them; a key that is named closes its group, whose other keys then have their plain
defaults. docs/reference/defaults.md shows the table and where its numbers come from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from d4m.recipe import distillation_rules, training_rules
from d4m.recipe.image_facts import ImageFacts
from d4m.settings import (
    AutoencoderSettings,
    ClassifierSettings,
    DenoiserSettings,
    PrototypeSettings,
    RecipeSettings,
    RecipeSynthesisSettings,
    RefinementSettings,
)

# The keys of these sections that leave them open.
_NOT_DRAWING = {"size_px", "mosaic", "resampling", "choose_from", "guided_channels"}
_NOT_WIDTHS = {"text_width", "text_layers", "text_length", "captions", "made_up_words"}


@dataclass(frozen=True)
class _Group:
    """Keys that are chosen together.

    Attributes:
        section: path of the section that they are in.
        closed_by: keys of that section; one that is named closes the group.
        choose: returns the values of some of them, given the settings so far and the images.
    """

    section: tuple[str, ...]
    closed_by: frozenset[str]
    choose: Callable[[RecipeSettings, ImageFacts], Mapping[str, Any]]


def settle(settings: RecipeSettings, facts: ImageFacts) -> RecipeSettings:
    """Return settings in which every open key has the default that suits these images.

    Settling twice changes nothing more. Keys that the recipe names stay as they are.

    Args:
        settings: as the recipe's file and presets name them.
        facts: the recipe's images.

    Example:
        >>> facts = ImageFacts(size_px=28, view_px=28, channels=1, classes=10, images=60_000)
        >>> stated = RecipeSettings.model_validate({"dataset": {"source": "fashion_mnist"}})
        >>> settle(stated, facts).teacher.epochs
        4
    """
    for group in _GROUPS:
        if _is_open(settings, group) and (values := group.choose(settings, facts)):
            settings = _with(settings, group.section, values)
    return settings.in_its_precision()


def settled_values(stated: RecipeSettings, settled: RecipeSettings) -> dict[str, Any]:
    """Return the keys, with dots, whose values `settle` has changed, with what they are now.

    One member of a teacher is not worth a word.
    """
    before, after = stated.model_dump(mode="json"), settled.model_dump(mode="json")
    if stated.prototypes.refinement is None:
        plain = RefinementSettings().model_dump(mode="json", exclude={"steps"})
        before["prototypes"]["refinement"] = plain
        after["prototypes"]["refinement"] = after["prototypes"]["refinement"] or plain
    for dump in (before, after):
        for section in (dump["evaluation"], dump["prototypes"]["refinement"] or {}):
            own = section.get("students", [])
            section["students"] = [each.get("name") or each["architecture"] for each in own]
    changed = dict(_differences("", before, after))
    return {key: value for key, value in changed.items() if (key, value) != ("teacher.members", 1)}


def describe_settled(stated: RecipeSettings, settled: RecipeSettings) -> str:
    """Return in words what `settle` has changed: keys with their values; "" if nothing.

    Example:
        >>> stated = RecipeSettings.model_validate({"dataset": {"source": "digits"}})
        >>> settled = settle(stated, ImageFacts(8, 8, 1, classes=10, images=1437))
        >>> describe_settled(stated, settled).partition(",")[0]
        'defaults for these images: prototypes.representative: explaining'
    """
    changed = [f"{key}: {value}" for key, value in settled_values(stated, settled).items()]
    return f"defaults for these images: {', '.join(changed)}" if changed else ""


_GROUPS = (
    _Group(
        ("generator", "compact", "autoencoder"),
        frozenset(AutoencoderSettings.model_fields) - {"precision"},
        distillation_rules.choose_autoencoder,
    ),
    _Group(
        ("generator", "compact", "denoiser"),
        frozenset(DenoiserSettings.model_fields) - _NOT_WIDTHS,
        distillation_rules.choose_denoiser,
    ),
    _Group(
        ("synthesis",),
        frozenset(RecipeSynthesisSettings.model_fields) - _NOT_DRAWING,
        distillation_rules.choose_synthesis,
    ),
    _Group(("evaluation",), frozenset({"students"}), training_rules.choose_students),
    _Group(
        ("prototypes",),
        frozenset(PrototypeSettings.model_fields) - {"ipc"},
        distillation_rules.choose_prototypes,
    ),
    _Group(
        ("teacher",),
        frozenset({*ClassifierSettings.model_fields, "weights"}),
        training_rules.choose_architecture,
    ),
    _Group(("teacher",), frozenset({"epochs", "weights"}), training_rules.choose_teacher_epochs),
    _Group(
        ("teacher",), frozenset({"augmentation", "weights"}), training_rules.choose_teacher_views
    ),
    _Group(
        ("teacher",), frozenset({"optimizer", "weights"}), training_rules.choose_teacher_optimizer
    ),
    _Group(("teacher",), frozenset(), training_rules.choose_members),
    _Group(
        ("evaluation", "hard"),
        frozenset({"epochs"}),
        training_rules.for_few(training_rules.choose_hard_epochs),
    ),
    _Group(
        ("soft_labels",),
        frozenset({"epochs", "labelled_epochs"}),
        training_rules.for_few(training_rules.choose_student_epochs),
    ),
    _Group(
        ("soft_labels",),
        frozenset({"augmentation"}),
        training_rules.for_few(training_rules.choose_student_views),
    ),
    _Group(
        ("evaluation",),
        frozenset({"matching"}),
        training_rules.for_few(training_rules.choose_matching),
    ),
    _Group(
        ("evaluation",),
        frozenset({"optimizer"}),
        training_rules.for_few(training_rules.choose_student_optimizer),
    ),
    _Group(("evaluation", "full_data"), frozenset({"epochs"}), training_rules.choose_full_data),
    _Group(("evaluation",), frozenset({"baselines"}), training_rules.choose_baselines),
)
"""In the order in which they are chosen: synthesis, and the students that learn from what it draws,
come before the prototypes."""


def _is_open(settings: RecipeSettings, group: _Group) -> bool:
    section: BaseModel = settings
    for key in group.section:
        section = getattr(section, key)
    return group.closed_by.isdisjoint(section.model_fields_set)


def _with(settings: RecipeSettings, section: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    """Return settings with other values in one section; those of the settings' own kind."""

    def changed(model: BaseModel, path: tuple[str, ...]) -> BaseModel:
        own = {path[0]: changed(getattr(model, path[0]), path[1:])} if path else values
        return model.model_copy(update=dict(own))

    return changed(settings, section)


def _differences(path: str, before: Any, after: Any) -> list[tuple[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            each
            for key, value in after.items()
            for each in _differences(f"{path}.{key}".lstrip("."), before.get(key), value)
        ]
    return [] if before == after else [(path, after)]
