"""Defaults that follow the images: the settings that a recipe leaves open, by size and number.

`settle` is the whole table. A group of keys is open while neither the recipe nor one of its presets
names any of them; a key that is named closes its group, whose other keys then have their plain
defaults. docs/reference/defaults.md shows the table and where its numbers come from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from d4m.settings import (
    AugmentationSettings,
    AutoencoderSettings,
    ClassifierSettings,
    DenoiserSettings,
    MatchingSettings,
    OptimizerSettings,
    PrototypeSettings,
    RecipeSettings,
    RecipeSynthesisSettings,
    RefinementSettings,
    StudentSettings,
)

_SYMBOLS = ("digits", "mnist")  # a mirrored digit is another sign, or none
_SMALL_PX = 16  # images for which the plain defaults were tuned
_TEACHER_VIEWS = 240_000  # in all epochs of a teacher, of images of up to 32 px
_FULL_DATA_VIEWS = 60_000  # per student of all real images, up to which there are all baselines
_STUDENT_VIEWS = 20_000  # per student with soft labels; half of them with class labels
_MOST_STUDENT_IMAGES = 5000  # beyond, students are trained as the paper trains them
_MOST_REFINED = 2000  # prototypes that one regression holds
_MOST_REFINED_PX = 64
_MOST_REFINED_STEPS = 4  # of the denoiser, through which a step of the refinement looks
# The keys of these sections that leave them open.
_NOT_DRAWING = {"size_px", "mosaic", "resampling", "choose_from", "guided_channels"}
_NOT_WIDTHS = {"text_width", "text_layers", "text_length", "captions", "made_up_words"}


@dataclass(frozen=True)
class ImageFacts:
    """The images as far as defaults depend on them, without reading any.

    Attributes:
        size_px: height and width that the generator sees.
        view_px: height and width that teacher and students see.
        channels: 1 (grey) or 3 (RGB).
        classes: number of classes.
        images: number of training images.
    """

    size_px: int
    view_px: int
    channels: int
    classes: int
    images: int


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
    return settings


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
        own = dump["evaluation"]["students"]
        dump["evaluation"]["students"] = [each["name"] or each["architecture"] for each in own]
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


def _autoencoder(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return levels that make latents of 8 to 16 px, if the size divides so often.

    The steps take eight minutes of one core at 28 px in grey and at 32 px in colour.
    """
    if facts.size_px <= _SMALL_PX or settings.generator.kind != "compact":
        return {}
    widths = (24, 48) if facts.size_px <= 32 else (16, 32, 64, 96, 128)
    levels = 2
    while facts.size_px // 2 ** (levels - 1) > 16 and levels < len(widths):
        if facts.size_px % 2**levels:
            break
        levels += 1
    small = facts.size_px <= 32 and facts.channels == 1
    return {
        "channels": widths[:levels],
        "steps": 1500 if small else 1000,
        "batch_size": 64 if facts.size_px <= 64 else 32 if facts.size_px <= 128 else 16,
        "kl_weight": 1e-4,
    }


def _denoiser(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return a U-Net that attends in its inner levels alone: it is used for the last noise only."""
    if facts.size_px <= _SMALL_PX or settings.generator.kind != "compact":
        return {}
    return {"channels": (24, 48, 64), "attention_from": 2, "steps": 700}


def _synthesis(settings: RecipeSettings, _: ImageFacts) -> Mapping[str, Any]:
    """Return one denoising step at little noise, for a generator that was trained here."""
    if settings.generator.kind != "compact":
        return {}
    many = settings.prototypes.ipc >= 50
    return {
        "strength": 0.01 if many else 0.05,
        "num_inference_steps": 100 if many else 20,
        "guidance_scale": 4.0 if _names_negative(settings) else 1.0,
        "scheduler": "dpmsolver++",
    }


def _names_negative(settings: RecipeSettings) -> bool:
    """Return whether the recipe names a negative prompt, which only guidance reads."""
    prompts = settings.prompts
    return "negative" in prompts.model_fields_set and bool(prompts.negative)


def _prototypes(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return prototypes refined towards the labels that students learn, where that takes minutes.

    The refinement looks through the diffusion, so it is left out where that has many steps.
    """
    if settings.generator.kind != "compact":
        return {}
    count = facts.classes * settings.prototypes.ipc * settings.synthesis.tiles
    fits = count <= _MOST_REFINED and facts.view_px <= _MOST_REFINED_PX
    if not fits or not _is_light(settings.synthesis):
        return {}
    labels = settings.evaluation.labels
    of = "both" if len(labels) > 1 else "teacher" if "soft" in labels else "class"
    steps = 300 if count <= 200 else 200 if count <= 1000 else 100
    if facts.view_px > 32:
        steps = steps * 32 // facts.view_px
    guided = settings.synthesis.set_guidance is not None
    plain = RefinementSettings()
    views = plain.augmentation.model_copy(update={"flip": _flip(settings)})
    through = "vae" if guided else "synthesis"
    return {
        "representative": "mean" if of == "class" else "explaining",
        "refinement": RefinementSettings(
            steps=steps, labels=of, through=through, augmentation=views
        ),
    }


def _is_light(synthesis: RecipeSynthesisSettings) -> bool:
    """Return whether the denoiser runs a few steps only."""
    if synthesis.strength == "auto":
        return False
    return int(synthesis.num_inference_steps * synthesis.strength) <= _MOST_REFINED_STEPS


def _architecture(_: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    return {"architecture": _convnet(facts.view_px)}


def _students(_: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    return {"students": (StudentSettings(architecture=_convnet(facts.view_px)),)}


def _convnet(size_px: int) -> str:
    """Return the field's ConvNet whose last features have an edge of 4 to 8, as at 32 px.

    Example:
        >>> _convnet(28), _convnet(64), _convnet(128), _convnet(224)
        ('convnet3', 'convnet4', 'convnet5', 'convnet6')
    """
    return f"convnet{3 + sum(size_px >= edge for edge in (48, 96, 192))}"


def _members(settings: RecipeSettings, _: ImageFacts) -> Mapping[str, Any]:
    if settings.teacher.members != "auto":
        return {}
    return {"members": settings.teacher.count_members(settings.prototypes.ipc)}


def _teacher_epochs(_: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    return {"epochs": _epochs_of_all(facts)}


def _epochs_of_all(facts: ImageFacts) -> int:
    """Return 40 epochs for few images, fewer for many; larger images get fewer views."""
    views = _TEACHER_VIEWS * min(1.0, 32 / facts.view_px)
    return min(40, max(4, round(views / max(1, facts.images))))


def _teacher_views(settings: RecipeSettings, _: ImageFacts) -> Mapping[str, Any]:
    return {"augmentation": _mild(settings, mixup=0.0)}


def _teacher_optimizer(_: RecipeSettings, __: ImageFacts) -> Mapping[str, Any]:
    optimizer = OptimizerSettings(
        name="muon", batch_size=64, learning_rate=3e-3, weight_decay=0.05, warmup=0.1
    )
    return {"optimizer": optimizer}


def _mild(settings: RecipeSettings, *, mixup: float) -> AugmentationSettings:
    """Return crops of at least half an image, and CutMix of every second view."""
    return AugmentationSettings(
        crop_scale=(0.5, 1.0), flip=_flip(settings), cutmix=0.5, mixup=mixup
    )


def _flip(settings: RecipeSettings) -> float:
    return 0.0 if settings.dataset.source in _SYMBOLS else 0.5


def _for_few(
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


def _hard_epochs(settings: RecipeSettings, images: int) -> Mapping[str, Any]:
    """Return half as many epochs as with soft labels, unless the recipe names either number."""
    if "epochs" in settings.soft_labels.model_fields_set:
        return {}
    return {"epochs": _student_epochs(images) // 2}


def _student_epochs(images: int) -> int:
    return min(2000, max(40, _STUDENT_VIEWS // images))


def _student_optimizer(_: RecipeSettings, images: int) -> Mapping[str, Any]:
    batch, rate = (10, 2e-3) if images < 50 else (25, 3e-3) if images < 1000 else (50, 4e-3)
    return {"optimizer": OptimizerSettings(name="muon", batch_size=batch, learning_rate=rate)}


def _full_data(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    named = "full_data" in settings.evaluation.baselines
    return {"epochs": _epochs_of_all(facts)} if named else {}


def _baselines(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    views = facts.images * settings.evaluation.full_data.epochs
    return {} if views <= _FULL_DATA_VIEWS else {"baselines": ("random_real",)}


_GROUPS = (
    _Group(
        ("generator", "compact", "autoencoder"),
        frozenset(AutoencoderSettings.model_fields),
        _autoencoder,
    ),
    _Group(
        ("generator", "compact", "denoiser"),
        frozenset(DenoiserSettings.model_fields) - _NOT_WIDTHS,
        _denoiser,
    ),
    _Group(
        ("synthesis",), frozenset(RecipeSynthesisSettings.model_fields) - _NOT_DRAWING, _synthesis
    ),
    _Group(("prototypes",), frozenset(PrototypeSettings.model_fields) - {"ipc"}, _prototypes),
    _Group(("teacher",), frozenset({*ClassifierSettings.model_fields, "weights"}), _architecture),
    _Group(("teacher",), frozenset({"epochs", "weights"}), _teacher_epochs),
    _Group(("teacher",), frozenset({"augmentation", "weights"}), _teacher_views),
    _Group(("teacher",), frozenset({"optimizer", "weights"}), _teacher_optimizer),
    _Group(("teacher",), frozenset(), _members),
    _Group(("evaluation", "hard"), frozenset({"epochs"}), _for_few(_hard_epochs)),
    _Group(
        ("soft_labels",),
        frozenset({"epochs", "labelled_epochs"}),
        _for_few(lambda _, images: {"epochs": _student_epochs(images)}),
    ),
    _Group(
        ("soft_labels",),
        frozenset({"augmentation"}),
        _for_few(lambda settings, _: {"augmentation": _mild(settings, mixup=1.0)}),
    ),
    _Group(
        ("evaluation",),
        frozenset({"matching"}),
        _for_few(lambda _, __: {"matching": MatchingSettings(temperature=4.0)}),
    ),
    _Group(("evaluation",), frozenset({"optimizer"}), _for_few(_student_optimizer)),
    _Group(("evaluation",), frozenset({"students"}), _students),
    _Group(("evaluation", "full_data"), frozenset({"epochs"}), _full_data),
    _Group(("evaluation",), frozenset({"baselines"}), _baselines),
)
"""In the order in which they are chosen: synthesis comes before the prototypes that it draws."""


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
