"""The parts of a recipe that artifacts depend on: its sections, and what else a stage reads.

A section is a part. Where a stage reads a few settings of many sections, these settings are a part
of their own: an edit of another setting in those sections leaves the artifact as it is, and the
graph has one arrow in place of many.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from d4m.settings import MADE, SECTIONS, RecipeSettings

_SEEDED = {"random_real", "decoded_real", "diffused_real", "from_noise"}
_DRAWN = {"diffused_real", "from_noise"}
_RANKED = {"forgetting", "el2n"}


@dataclass(frozen=True)
class Part:
    """One part of a recipe.

    Attributes:
        description: what it holds, in Markdown.
        read: its settings, in JSON's types; None where nothing reads them.
    """

    description: str
    read: Callable[[RecipeSettings], JsonValue]


def _section(name: str) -> Part:
    said = RecipeSettings.model_fields[name].description
    return Part(f"`{name}` in the recipe's file: {said}", lambda settings: _dump(settings, name))


def _encoding(settings: RecipeSettings) -> JsonValue:
    sampled = settings.generator.latents != "mean"
    return {
        "dataset": _dump(settings, "dataset"),
        "latents": settings.generator.latents,
        "seed": settings.seed if sampled else None,
    }


def _finetuning(settings: RecipeSettings) -> JsonValue:
    return _dump(settings, "prompts") if settings.generator.finetune else None


def _teacher(settings: RecipeSettings) -> JsonValue:
    """Return the section with the number of networks, which `auto` takes from `ipc`."""
    members = settings.teacher.count_members(settings.prototypes.ipc)
    return settings.teacher.model_dump(mode="json") | {"members": members}


def _teacher_images(settings: RecipeSettings) -> JsonValue:
    return {"dataset": _dump(settings, "dataset"), "size_px": settings.synthesis.size_px}


def _choice(settings: RecipeSettings) -> JsonValue:
    if not settings.synthesis.candidates_of_auto():
        return None
    sections = ("dataset", "prompts", "prototypes", "synthesis", "seed")
    return {name: _dump(settings, name) for name in sections}


def _refinement(settings: RecipeSettings) -> JsonValue:
    refined = settings.prototypes.refined
    left = settings.generator.kind == "compact" and settings.prototypes.is_open
    explaining = left or settings.prototypes.representative == "explaining"
    found: dict[str, JsonValue] = {"distillations": settings.evaluation.distillations}
    if left:
        found["labels"] = [*settings.evaluation.labels]
        found["batch_changes"] = [*settings.evaluation.hard.batch_changes]
        students = settings.evaluation.students
        found["students"] = [each.model_dump(mode="json") for each in students]
        if settings.precision != "float32":
            found["precision"] = settings.precision
    if refined or explaining or settings.synthesis.mosaic > 1:
        through = refined is not None and refined.through != "vae"
        found |= _looks(settings, drawn=left or through)
    if explaining or (refined and refined.of_teacher):
        found["teacher"] = {
            "augmentation": settings.teacher.augmentation.model_dump(mode="json"),
            "precision": settings.teacher.optimizer.precision,
        }
    if left or (refined and refined.as_students_learn):
        found["labelled_views"] = settings.soft_labels.augmentation.model_dump(mode="json")
    return found


def _labelling(settings: RecipeSettings) -> JsonValue:
    if settings.soft_labels.mode == "online":
        return None
    return {
        "distillations": settings.evaluation.distillations,
        "mosaic": settings.synthesis.mosaic,
        "precision": settings.teacher.optimizer.precision,
        "seed": settings.seed,
    }


def _made_baselines(settings: RecipeSettings) -> JsonValue:
    evaluation = settings.evaluation
    made: list[JsonValue] = [*sorted(set(evaluation.baselines) & set(MADE))]
    if not made:
        return None
    making = (evaluation.coresets, evaluation.dm, evaluation.sre2l)
    ranked = not _RANKED.isdisjoint(evaluation.baselines)
    return {
        "baselines": made,
        "dataset": _dump(settings, "dataset"),
        "distillations": evaluation.distillations,
        "ipc": settings.prototypes.ipc,
        "seed": settings.seed,
        "settings": [each.model_dump(mode="json") for each in making],
        "size_px": settings.synthesis.size_px,
        "teacher": _dump(settings, "teacher") if ranked else None,
    }


def _compared_sets(settings: RecipeSettings) -> JsonValue:
    evaluation = settings.evaluation
    baselines = set(evaluation.baselines) - {"full_data"}
    return {
        **_looks(settings, drawn=not _DRAWN.isdisjoint(baselines)),
        "baselines": [*sorted(baselines)],
        "ipc": settings.prototypes.ipc,
        "representative": settings.prototypes.representative,
        "scored": evaluation.model_dump(mode="json", include={"split", "test_crop"}),
        "seed": None if _SEEDED.isdisjoint(baselines) else settings.seed,
    }


def _students(settings: RecipeSettings) -> JsonValue:
    return {
        **_looks(settings, drawn=not _DRAWN.isdisjoint(settings.evaluation.baselines)),
        "ipc": settings.prototypes.ipc,
        "other_teachers": [each.model_dump(mode="json") for each in settings.teacher.others],
        "precision": settings.teacher.optimizer.precision,
        "representative": settings.prototypes.representative,
        "seed": settings.seed,
        "soft_labels": _dump(settings, "soft_labels"),
    }


def _whole(settings: RecipeSettings) -> JsonValue:
    return settings.model_dump(mode="json")


def _looks(settings: RecipeSettings, *, drawn: bool) -> dict[str, JsonValue]:
    """Return what decides how images look to a student; if diffused, how they are drawn too."""
    if drawn:
        return {name: _dump(settings, name) for name in ("dataset", "prompts", "synthesis")}
    kept = {"size_px", "resampling", "mosaic"}
    looks = settings.synthesis.model_dump(mode="json", include=kept)
    return {"dataset": _dump(settings, "dataset"), "synthesis": looks}


def _dump(settings: RecipeSettings, section: str) -> JsonValue:
    """Return a section in JSON's types."""
    return settings.model_dump(mode="json", include={section})[section]


PARTS: Mapping[str, Part] = {
    **{section: _section(section) for section in SECTIONS},
    "teacher": replace(_section("teacher"), read=_teacher),
    "encoding": Part(
        "For latents: `dataset`, `generator.latents`, and `seed` if latents are sampled.",
        _encoding,
    ),
    "finetuning": Part(
        "For the generator, besides `generator`: `prompts`, under which a pretrained one is "
        "fine-tuned. It is null where it is not.",
        _finetuning,
    ),
    "teacher_images": Part(
        "For the teacher: how real images look, by `dataset` and `synthesis.size_px`.",
        _teacher_images,
    ),
    "choice": Part(
        "For `synthesis_choice`: all that it depends on. It is null where the recipe names "
        "`strength` and `guidance_scale`.",
        _choice,
    ),
    "refinement": Part(
        "For prototypes, besides `prototypes` and `seed`: `evaluation.distillations`; if they are "
        "refined, explain the labels or are mosaics, how images look; some settings of the "
        "teacher that is explained and the views that it labels; and, where the recipe leaves the "
        "refinement open, which labels students learn, and from which changes of batches, and the "
        "students.",
        _refinement,
    ),
    "labelling": Part(
        "For stored labels, besides `soft_labels`: `seed`, the teacher's precision, mosaics and "
        "`evaluation.distillations`. It is null where the teacher labels online.",
        _labelling,
    ),
    "made_baselines": Part(
        "For `baseline_images`: all that they depend on. It is null where the recipe has no "
        "baseline that takes time to make.",
        _made_baselines,
    ),
    "students": Part(
        "For students, besides `evaluation`: how the compared images look, and how teachers label "
        "them.",
        _students,
    ),
    "compared_sets": Part(
        "For `image_fidelity`: which sets of images are compared, and how they look.",
        _compared_sets,
    ),
    "whole": Part("The whole recipe, which the distilled data set contains.", _whole),
}
"""Name -> part. Every section is one, and the others hold what one stage reads of many sections."""


def read_part(settings: RecipeSettings, part: str) -> JsonValue:
    """Return the settings of one of the `PARTS`; None where nothing reads them."""
    return PARTS[part].read(settings)
