"""Choose, by the images' size and number, the generator, synthesis and prototypes."""

from collections.abc import Mapping
from typing import Any

from d4m.recipe.image_facts import ImageFacts, flip_of
from d4m.settings import (
    ClassifierSettings,
    RecipeSettings,
    RecipeSynthesisSettings,
    RefinementSettings,
)

_SMALL_PX = 16  # images for which the plain defaults were tuned
_MOST_REFINED = 2000  # prototypes that one regression holds
_MOST_REFINED_PX = 64
_MOST_WHOLE_PX = 32  # beyond which the refinement's networks see shrunk images
_MOST_REFINED_STEPS = 4  # of the denoiser, through which a step of the refinement looks
_RATE, _REGRESSIONS = 0.04, 1  # of a refinement; the rate is twice the plain one, for few steps
_RATE_OF_MANY, _REGRESSIONS_OF_MANY = 0.05, 3  # towards the classes of many images
_MANY = 100  # images, of which a regression has no more than a view of each
_MOST_VIEWS = 500  # of many images, of which a regression has one each
_PASSES = 20  # over the images, after which a generator of few images has trained enough
_FEWEST_STEPS = 400


def choose_autoencoder(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return levels that make latents of 8 to 16 px, if the size divides so often.

    The steps take eight minutes of one core at 28 px in grey and at 32 px in colour, and less
    where there are few images.
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
    batch_size = 64 if facts.size_px <= 64 else 32 if facts.size_px <= 128 else 16
    return {
        "channels": widths[:levels],
        "steps": _steps(facts, 1500 if small else 1000, batch_size),
        "batch_size": batch_size,
        "kl_weight": 1e-4,
    }


def choose_denoiser(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
    """Return a U-Net that attends in its inner levels alone: it is used for the last noise only."""
    if facts.size_px <= _SMALL_PX or settings.generator.kind != "compact":
        return {}
    return {"channels": (24, 48, 64), "attention_from": 2, "steps": _steps(facts, 700, 64)}


def _steps(facts: ImageFacts, most: int, batch_size: int) -> int:
    """Return the steps of a training: `most`, or fewer where they are many passes over the images.

    Example:
        >>> [_steps(ImageFacts(32, 32, 3, 7, images), 1000, 64) for images in (200, 1500, 50_000)]
        [400, 468, 1000]
    """
    return min(most, max(_FEWEST_STEPS, _PASSES * facts.images // batch_size))


def choose_synthesis(settings: RecipeSettings, _: ImageFacts) -> Mapping[str, Any]:
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


def choose_prototypes(settings: RecipeSettings, facts: ImageFacts) -> Mapping[str, Any]:
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
    many = of == "class" and count >= _MANY
    views = RefinementSettings().augmentation.model_copy(update={"flip": flip_of(settings)})
    through = "vae" if guided else "synthesis"
    return {
        "representative": "mean" if of == "class" else "explaining",
        "refinement": RefinementSettings(
            steps=steps,
            labels=of,
            learning_rate=_RATE_OF_MANY if many else _RATE,
            regressions=_REGRESSIONS_OF_MANY if many else _REGRESSIONS,
            views=min(count, _MOST_VIEWS) if many else RefinementSettings().views,
            through=through,
            augmentation=views,
            batch_changes=settings.evaluation.hard.batch_changes if of != "teacher" else (),
            students=_networks(settings, facts),
        ),
    }


def _networks(settings: RecipeSettings, facts: ImageFacts) -> tuple[ClassifierSettings, ...]:
    """Return the networks that are to learn from the images; ConvNet3 where images are shrunk."""
    if facts.view_px > _MOST_WHOLE_PX:
        return RefinementSettings().students
    return tuple(
        ClassifierSettings(architecture=student.architecture, options=student.options)
        for student in settings.evaluation.students
    )


def _is_light(synthesis: RecipeSynthesisSettings) -> bool:
    """Return whether the denoiser runs a few steps only."""
    if synthesis.strength == "auto":
        return False
    return int(synthesis.num_inference_steps * synthesis.strength) <= _MOST_REFINED_STEPS
