"""The work of the stages that read images, train the generator and draw with it."""

from collections.abc import Iterator, Mapping
from typing import Any

from d4m.reports.cost.pieces import Piece, Work
from d4m.reports.cost.plan import CostPlan
from d4m.settings import PrototypeSettings, SynthesisSettings
from d4m.stages.chosen_settings import CHOICE
from d4m.stages.unit_names import class_id_of, split_of
from d4m.store.reference import Unit

_CHOICE_CLASSES, _CHOICE_IMAGES, _CHOICE_REAL = 20, 100, 400
_WITHOUT_TIME = ("strength", "num_inference_steps", "candidates", "diversity", "groups", "size_px")
_USUAL_LEVELS = 4  # of a pretrained VAE, each but the first of which halves the size


def real_images_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the opening of every image."""
    for unit in plan.missing("real_images"):
        yield Work(_indexed(plan), plan.images[split_of(unit.name)][class_id_of(unit.name)])
        yield stored(plan, 1)


def generator_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the training of a compact generator; how long a download takes is not known."""
    everything = plan.total("train")
    for unit in plan.missing("generator"):
        yield stored(plan, 1)
        if plan.recipe.generator.kind == "pretrained":
            yield Work(Piece("fine-tuning" if unit.name == "adapter" else "download"), 1)
            continue
        match unit.name:
            case "vae":
                yield from read(plan, everything)
                yield Work(Piece("autoencoder step", _vae(plan)), unit.settings["steps"])
                yield Work(encoded(plan), everything)
            case "denoiser":
                yield from read(plan, everything)
                yield Work(encoded(plan), everything)
                yield Work(Piece("denoiser step", generator_layout(plan)), unit.settings["steps"])
            case _:
                pass


def latents_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the encoding of the training images."""
    units = plan.missing("latents")
    images = sum(plan.images["train"][class_id_of(unit.name)] for unit in units)
    if units:
        yield from read(plan, images)
        yield Work(encoded(plan), images, starts=len(units))
        yield stored(plan, len(units))


def synthetic_images_work(plan: CostPlan) -> Iterator[Work]:
    """Yield the denoising and decoding of every image."""
    units = plan.missing("synthetic_images")
    if not units:
        return
    settings, images = units[0].settings, plan.recipe.prototypes.ipc * len(units)
    yield from drawing(plan, settings, images * settings["candidates"])
    yield Work(Piece("image decoded", generator_layout(plan)), images, starts=len(units))
    if settings["candidates"] > 1:
        teacher = {"network": _network_of_teacher(plan), **plan.view}
        yield Work(Piece("image scored", teacher), 2 * images * settings["candidates"])
    yield from (stored(plan, len(units)), fetched(len(units)))


def synthesis_choice_work(plan: CostPlan) -> Iterator[Work]:
    """Yield, for each pair of numbers, the images that are drawn and what they predict."""
    classes = min(plan.classes, _CHOICE_CLASSES)
    per_class = min(plan.recipe.prototypes.ipc, max(1, _CHOICE_IMAGES // classes))
    units = plan.missing("synthesis_choice")
    for unit in units:
        yield stored(plan, 1)
        if unit.name == CHOICE:
            continue
        yield from drawing(plan, unit.settings["drawn"], classes * per_class)
        predicted = {**plan.view, "images": classes * per_class, "classes": classes}
        yield Work(Piece("set predicted", predicted | {"real": _CHOICE_REAL}), 1)
    if units:
        plain = plan.recipe.prototypes.model_copy(
            update={"refinement": None, "refinement_steps": 0, "representative": "mean"}
        )
        for class_id in range(classes):
            yield clustering(plan, plain, class_id)
        yield from read(plan, _CHOICE_REAL)


def drawing(plan: CostPlan, drawn: dict[str, Any], images: int) -> Iterator[Work]:
    """Yield the denoising of images in batches of full size.

    Args:
        plan: of the recipe.
        drawn: settings of `drawing_inputs`.
        images: how many are drawn.
    """
    if images == 0:
        return
    settings = middle_settings(plan, drawn)
    calls = max(1, int(settings.num_inference_steps * settings.strength))
    timed = settings.model_dump(mode="json", exclude=set(_WITHOUT_TIME))
    in_set = settings.set_guidance is not None
    images_at_once = plan.recipe.prototypes.ipc if in_set else _batch_size(plan)
    batches = -(-images // images_at_once)  # the last one is filled up, and takes as long
    piece = {**generator_layout(plan), "synthesis": timed, "images": images_at_once}
    yield Work(Piece("pipeline loaded", generator_layout(plan)), 1)
    yield Work(Piece("denoiser call", piece), batches * calls, starts=batches)


def middle_settings(plan: CostPlan, drawn: Mapping[str, Any]) -> SynthesisSettings:
    """Return how images are drawn; numbers that are yet to be chosen are those in the middle."""
    pairs = plan.recipe.synthesis.candidates_of_auto() or [(0.0, 0.0)]
    middle = pairs[len(pairs) // 2]
    numbers = {"strength": middle[0], "guidance_scale": middle[1]}
    left = {key: value for key, value in numbers.items() if drawn.get(key) == "auto"}
    return SynthesisSettings.among({**drawn, **left})


def read(plan: CostPlan, images: int) -> Iterator[Work]:
    """Yield the reading and decoding of real images, which begins with the index of each class."""
    yield fetched(plan.classes)
    yield Work(Piece("image read", _reading(plan)), images)


def encoded(plan: CostPlan) -> Piece:
    """Return the encoding of an image."""
    return Piece("image encoded", generator_layout(plan))


def stored(plan: CostPlan, units: int) -> Work:
    """Return the publishing of units, whatever they hold, on the disk of the store."""
    return Work(Piece("unit stored", {"disk": plan.disk}), units)


def fetched(units: int) -> Work:
    """Return the reading of units, whatever they hold."""
    return Work(Piece("unit read"), units)


def _indexed(plan: CostPlan) -> Piece:
    return Piece("image indexed", _reading(plan))


def _reading(plan: CostPlan) -> dict[str, Any]:
    return {"dataset": plan.recipe.dataset.model_dump(mode="json"), **plan.source_pixels}


def clustering(plan: CostPlan, settings: PrototypeSettings, class_id: int) -> Work:
    """Return the clustering of the latents of a class."""
    images = plan.images["train"][class_id]
    rounded = max(settings.ipc, round(images, -len(str(images)) + 2))  # one probe for similar ones
    used = {"settings": settings.used(), "images": rounded}
    return Work(Piece("class clustered", used | generator_layout(plan)), 1)


def generator_layout(plan: CostPlan) -> dict[str, Any]:
    """Return what decides how fast the generator is: its layout, without what trains it."""
    if plan.recipe.generator.kind == "pretrained":
        return {
            **plan.source_pixels,
            "pretrained": plan.recipe.generator.model_dump(mode="json", include={"pretrained"}),
        }
    denoiser = _component(plan, "denoiser").settings
    words = {"captions", "made_up_words", "class_names", "seed", "steps", "decoding", "sub_words"}
    own = {name: value for name, value in denoiser.items() if name not in words}
    return {**_vae(plan), "denoiser": own}


def _batch_size(plan: CostPlan) -> int:
    """Return how many images are denoised together."""
    from d4m.synthesis.batches import first_batch_size

    layout = generator_layout(plan)
    levels = len(layout["autoencoder"]["channels"]) if "autoencoder" in layout else _USUAL_LEVELS
    edge = layout["size_px"] // 2 ** (levels - 1)
    return first_batch_size(plan.context.compute, edge * edge)


def _vae(plan: CostPlan) -> dict[str, Any]:
    vae = _component(plan, "vae").settings
    own = {name: vae[name] for name in vae if name not in ("seed", "steps", "decoding", "size_px")}
    return {**plan.source_pixels, "autoencoder": own}


def _component(plan: CostPlan, name: str) -> Unit:
    return next(unit for unit in plan.units("generator") if unit.name == name)


def _network_of_teacher(plan: CostPlan) -> dict[str, Any]:
    return plan.recipe.teacher.model_dump(mode="json", include={"architecture", "options"})
