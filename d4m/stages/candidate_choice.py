"""The choice among a class's candidate images, and what it depends on."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int64

from d4m.settings import SynthesisSettings
from d4m.stages.context import Inputs, StageContext
from d4m.stages.teacher import load_teacher, teacher_inputs
from d4m.stages.training_sets import Batch
from d4m.stages.unit_names import class_id_of, split_unit
from d4m.store.reference import Unit

Choose = Callable[[Batch, Unit], Int64[np.ndarray, "prototype"]]
"""(candidates of a class, prototype by prototype; its unit) -> the rows to keep."""


def candidate_inputs(context: StageContext, class_id: int) -> Inputs:
    """Return what the choice among a class's candidates depends on, apart from its settings."""
    synthesis = context.recipe.settings.synthesis
    if synthesis.candidates == 1:
        return Inputs()
    if not synthesis.groups:
        return teacher_inputs(context)
    decoding = {"decoding": dict(context.source.decoding)}
    real = Inputs(decoding, (("real_images", split_unit("train", class_id)),))
    return teacher_inputs(context) | real


def candidate_chooser(context: StageContext, unit: Unit, synthesis: SynthesisSettings) -> Choose:
    """Return what picks the rows to keep among a class's candidates.

    Args:
        context: with the teacher, and with real images where a group is chosen.
        unit: any class's, as all share settings and teacher.
        synthesis: how many candidates there are, and how they are chosen.
    """
    if synthesis.candidates == 1:
        return lambda candidates, _: np.arange(len(candidates))
    from d4m.classifiers.predict import class_probabilities, penultimate_features
    from d4m.images.pixels import to_pixels
    from d4m.synthesis.candidates import select_candidates
    from d4m.synthesis.group_selection import measure_moments, select_group

    teacher = load_teacher(context, unit.reads("teacher"))

    def features(images: Batch) -> np.ndarray:
        return penultimate_features(teacher, to_pixels(images).to(context.device)).cpu().numpy()

    def choose(candidates: Batch, own: Unit) -> Int64[np.ndarray, "prototype"]:
        shape = (len(candidates) // synthesis.candidates, synthesis.candidates)
        found = features(candidates).reshape(*shape, -1)
        if synthesis.groups:
            real = measure_moments(map(features, _real_batches(context, own)))
            seed = own.settings["seed"]
            chosen = select_group(found, real, groups=synthesis.groups, seed=seed)
        else:
            pixels = to_pixels(candidates).to(context.device)
            shown = class_probabilities(teacher, pixels)[:, class_id_of(own.name)]
            chosen = select_candidates(shown.reshape(shape), found, diversity=synthesis.diversity)
        return np.arange(shape[0]) * synthesis.candidates + chosen

    return choose


def _real_batches(context: StageContext, unit: Unit) -> Iterator[Batch]:
    """Yield a class's real training images as the teacher sees them, batch by batch."""
    class_id = class_id_of(unit.name)
    index = context.image_index("train", class_id)
    return context.read_images("train", class_id, index, size_px=unit.settings["size_px"])
