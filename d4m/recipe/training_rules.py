"""Choose, by the images' size and number, how teachers and students are trained."""

from collections.abc import Callable, Mapping
from typing import Any

from d4m.recipe.image_facts import ImageFacts, flip_of
from d4m.settings import (
    AugmentationSettings,
    MatchingSettings,
    OptimizerSettings,
    RecipeSettings,
    StudentSettings,
)

_TEACHER_VIEWS = 240_000  # in all epochs of a teacher, of images of up to 32 px
_FULL_DATA_VIEWS = 60_000  # per student of all real images, up to which there are all baselines
_STUDENT_VIEWS = 20_000  # per student with soft labels; half of them with class labels
_MOST_STUDENT_IMAGES = 5000  # beyond, students are trained as the paper trains them


def choose_architecture(_: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return the teacher's ConvNet."""
    return {"architecture": convnet_for(facts.view_px)}


def choose_students(_: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return a ConvNet as the only student."""
    return {"students": (StudentSettings(architecture=convnet_for(facts.view_px)),)}


def convnet_for(size_px: int) -> str:
    """Return the field's ConvNet whose last features have an edge of 4 to 8, as at 32 px.

    Example:
        >>> convnet_for(28), convnet_for(64), convnet_for(128), convnet_for(224)
        ('convnet3', 'convnet4', 'convnet5', 'convnet6')
    """
    return f"convnet{3 + sum(size_px >= edge for edge in (48, 96, 192))}"


def choose_members(settings: RecipeSettings, _: ImageFacts) -> Mapping[str, Any]:
    """Return the number that `members: auto` stands for."""
    if settings.teacher.members != "auto":
        return {}
    return {"members": settings.teacher.count_members(settings.prototypes.ipc)}


def choose_teacher_epochs(_: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return the epochs of a teacher."""
    return {"epochs": _epochs_of_all(facts)}


def _epochs_of_all(facts: ImageFacts) -> int:
    """Return 40 epochs for few images, fewer for many; larger images get fewer views."""
    views = _TEACHER_VIEWS * min(1.0, 32 / facts.view_px)
    return min(40, max(4, round(views / max(1, facts.images))))


def choose_teacher_views(settings: RecipeSettings, _: ImageFacts) -> Mapping[str, Any]:
    """Return the views of a teacher."""
    return {"augmentation": _mild(settings, mixup=0.0)}


def choose_teacher_optimizer(_: RecipeSettings, __: ImageFacts) -> Mapping[str, Any]:
    """Return Muon as `recipes/fashion_mnist_ipc10.yaml` has it, in float32."""
    optimizer = OptimizerSettings(
        name="muon", batch_size=64, learning_rate=3e-3, weight_decay=0.05, warmup=0.1
    )
    return {"optimizer": optimizer}


def _mild(settings: RecipeSettings, *, mixup: float) -> AugmentationSettings:
    """Return crops of at least half an image, and CutMix of every second view."""
    return AugmentationSettings(
        crop_scale=(0.5, 1.0), flip=flip_of(settings), cutmix=0.5, mixup=mixup
    )


def for_few(
    choose: Callable[[RecipeSettings, int], Mapping[str, Any]],
) -> Callable[[RecipeSettings, ImageFacts], Mapping[str, Any]]:
    """Return a choice that is made where students train on few images, by their number.

    Where there are class labels alone, and their training is named, nothing would read it.
    """

    def chosen(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
        images = facts.classes * settings.prototypes.ipc * settings.synthesis.tiles
        hard = settings.evaluation.hard
        named = None not in (hard.epochs, hard.augmentation, hard.optimizer)
        unread = named and "soft" not in settings.evaluation.labels
        return {} if unread or images > _MOST_STUDENT_IMAGES else choose(settings, images)

    return chosen


def choose_hard_epochs(settings: RecipeSettings, images: int) -> Mapping[str, Any]:
    """Return half as many epochs as with soft labels, unless the recipe names either number."""
    if "epochs" in settings.soft_labels.model_fields_set:
        return {}
    return {"epochs": _student_epochs(images) // 2}


def choose_student_epochs(_: RecipeSettings, images: int) -> Mapping[str, Any]:
    """Return the epochs with soft labels."""
    return {"epochs": _student_epochs(images)}


def choose_student_views(settings: RecipeSettings, _: int) -> Mapping[str, Any]:
    """Return the views of synthetic images."""
    return {"augmentation": _mild(settings, mixup=1.0)}


def choose_matching(_: RecipeSettings, __: int) -> Mapping[str, Any]:
    """Return the temperature of the tuned recipes."""
    return {"matching": MatchingSettings(temperature=4.0)}


def _student_epochs(images: int) -> int:
    return min(2000, max(40, _STUDENT_VIEWS // images))


def choose_student_optimizer(_: RecipeSettings, images: int) -> Mapping[str, Any]:
    """Return Muon in batches that leave a student enough steps."""
    batch, rate = (10, 2e-3) if images < 50 else (25, 3e-3) if images < 1000 else (50, 4e-3)
    return {"optimizer": OptimizerSettings(name="muon", batch_size=batch, learning_rate=rate)}


def choose_full_data(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return a teacher's epochs, where a student is trained on all real images."""
    named = "full_data" in settings.evaluation.baselines
    return {"epochs": _epochs_of_all(facts)} if named else {}


def choose_baselines(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return random real images alone, where training on all real images takes long."""
    views = facts.images * settings.evaluation.full_data.epochs
    return {} if views <= _FULL_DATA_VIEWS else {"baselines": ("random_real",)}
