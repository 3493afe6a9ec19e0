"""Artifact `synthesis_choice`: which strength and guidance scale suit the generator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from d4m.images.evenly import spread_evenly
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import PrototypeSettings, SynthesisSettings
from d4m.sources.base import Split
from d4m.stages.base import Product, Stage
from d4m.stages.chosen_settings import ARTIFACT, CHOICE
from d4m.stages.context import Inputs, StageContext
from d4m.stages.synthetic_images import draw_images, drawing_inputs, noise_seed, prepared_pipeline
from d4m.stages.training_sets import image_set, real_set
from d4m.stages.unit_names import class_unit, split_unit
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.prototypes.class_prediction import ClassPredictor
    from d4m.synthesis.synthesize import ImageRequest, ImageToImagePipeline

_MOST_CLASSES = 20
_MOST_IMAGES = 100  # drawn per candidate
_MOST_REAL = 400  # whose classes are predicted
_NUMBERS = ("strength", "guidance_scale")
_HELD_OUT = 0.2  # of the training images, where there are no validation images


class SynthesisChoice(Stage):
    """The choice of `strength: auto` and `guidance_scale: auto`. Unit: a candidate; the choice.

    Each candidate draws images of the same prototypes with the same noise. Those that best predict
    the classes of real images, which are validation images or held-out training images, are chosen;
    where several are as good within the error, those with the least strength, then guidance.
    Prototypes are clusters of this stage's own, as refined ones wait for the choice. There are no
    units if the recipe names both numbers.
    """

    name: ClassVar[str] = ARTIFACT
    upstream: ClassVar[tuple[str, ...]] = ("real_images", "generator", "latents")
    sections: ClassVar[tuple[str, ...]] = ("choice",)
    divisible: ClassVar[bool] = True

    def plan(self, context: StageContext) -> list[Unit]:
        """Return a unit per candidate, and one that reads them all."""
        candidates = context.recipe.settings.synthesis.candidates_of_auto()
        if not candidates:
            return []
        shared = _shared_inputs(context)
        units = [
            self.unit(context, _name(*each), shared | _drawing(context, *each))
            for each in candidates
        ]
        names = [unit.name for unit in units]
        rule = Inputs({"rule": "lightest_within_error"}) | context.some_of(self.name, names)
        return [*units, self.unit(context, CHOICE, rule)]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Measure candidate after candidate; then choose."""
        trials: _Trials | None = None
        for unit in missing:
            if unit.name == CHOICE:
                yield unit, _choose(context, unit)
                continue
            trials = trials or _Trials(context, unit.settings)
            yield unit, trials.measure(unit.settings)


def candidate_rows(context: StageContext) -> list[dict[str, float]]:
    """Return the figures of every candidate, best first."""
    names = (unit for unit in context.upstream.get(ARTIFACT, {}) if unit != CHOICE)
    read = (context.read(ARTIFACT, name) for name in names)
    rows = [{key: float(value.mean()) for key, value in each.items()} for each in read]
    return sorted(rows, key=lambda row: row["errors"])


def _name(strength: float, scale: float) -> str:
    return f"strength-{strength:g}-guidance-{scale:g}"


def _choose(context: StageContext, unit: Unit) -> dict[str, np.ndarray]:
    from d4m.prototypes.class_prediction import within_error

    rows = [context.read(ARTIFACT, name) for name in unit.reads(ARTIFACT)]
    good = np.flatnonzero(within_error(np.stack([row["errors"] for row in rows])))
    lightest = min(tuple(float(rows[place][key]) for key in _NUMBERS) for place in good)
    return {key: np.array(value) for key, value in zip(_NUMBERS, lightest, strict=True)}


def _shared_inputs(context: StageContext) -> Inputs:
    """Return what every candidate depends on."""
    settings, split, classes = context.recipe.settings, _held_out_split(context), _classes(context)
    splits: set[Split] = {"train", split}
    images = sorted(split_unit(each, class_id) for each in splits for class_id in classes)
    inputs = Inputs(
        {
            "prototypes": _plain(settings.prototypes).used(),
            "classes": classes,
            "held_out": split,
            "decoding": dict(context.source.decoding),
            "seed": stream_seed(context.seed, ARTIFACT),
        }
    )
    inputs |= context.all_of("generator") | context.some_of("real_images", images)
    return inputs | context.some_of("latents", map(class_unit, classes))


def _plain(settings: PrototypeSettings) -> PrototypeSettings:
    """Return the same clusters, represented without the teacher and without refinement."""
    explaining = settings.representative == "explaining"
    own = {"representative": "medoid"} if explaining else {}
    return settings.model_copy(update={"refinement": None, "refinement_steps": 0, **own})


def _held_out_split(context: StageContext) -> Split:
    return "validation" if "validation" in context.source.splits else "train"


def _classes(context: StageContext) -> list[int]:
    """Return the classes that take part: all, or some that are spread over all."""
    count = len(context.class_ids)
    return spread_evenly(count, _MOST_CLASSES).tolist()


def _drawing(context: StageContext, strength: float, scale: float) -> Inputs:
    """Return how one candidate draws, as a recipe with these numbers would draw one image each."""
    settings = context.recipe.settings
    synthesis = settings.synthesis.model_copy(
        update={
            "strength": strength,
            "guidance_scale": scale,
            "candidates": 1,
            "groups": None,
            "set_guidance": None,
        }
    )
    recipe = replace(context.recipe, settings=settings.model_copy(update={"synthesis": synthesis}))
    own = replace(context, stated=recipe)
    each = [drawing_inputs(own, class_id).settings for class_id in _classes(context)]
    return Inputs({"drawn": {**each[0], "prompt": [drawn["prompt"] for drawn in each]}})


@dataclass(frozen=True)
class _Trials:
    """All that the candidates of a run share, made when it is first needed."""

    context: StageContext
    settings: Mapping[str, Any]

    def measure(self, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Draw a candidate's images, and predict the real images' classes from them."""
        drawn = settings["drawn"]
        synthesis = SynthesisSettings.among(drawn)
        batches = draw_images(
            self.context,
            self._pipeline,
            self._requests(drawn["prompt"]),
            settings=synthesis,
            negative_prompt=drawn["negative_prompt"],
        )
        owners = iter([label for label, _ in self._prototypes])
        images = image_set(
            self.context, ((next(owners), image[None]) for batch in batches for image in batch)
        )
        found = self._predictor.score(images)
        return {
            "strength": np.array(synthesis.strength),
            "guidance_scale": np.array(synthesis.guidance_scale),
            "errors": found.errors,
            "top1": np.array(found.top1),
        }

    def _requests(self, prompts: Sequence[str]) -> "Iterator[ImageRequest]":
        from d4m.synthesis.synthesize import ImageRequest

        for row, (label, prototype) in enumerate(self._prototypes):
            seed = stream_seed(noise_seed(self.settings["seed"], label), row)
            yield ImageRequest(prototype, prompts[label], seed)

    @cached_property
    def _pipeline(self) -> "ImageToImagePipeline":
        """The generator with the sampler that all candidates share."""
        return prepared_pipeline(self.context, self.settings["drawn"])

    @cached_property
    def _prototypes(self) -> list[tuple[int, np.ndarray]]:
        """Every prototype with the place of its class among those that take part."""
        from d4m.prototypes.clusters import fit_prototypes

        settings, classes = self.settings, self.settings["classes"]
        own = PrototypeSettings.among(settings["prototypes"])
        most = max(1, _MOST_IMAGES // len(classes))
        found = list[tuple[int, np.ndarray]]()
        for label, class_id in enumerate(classes):
            latents = self.context.read("latents", class_unit(class_id))["latents"]
            kept = np.setdiff1d(np.arange(len(latents)), self._held_out(class_id, len(latents)))
            if settings["held_out"] != "train" or not len(kept):
                kept = np.arange(len(latents))
            few = own.model_copy(update={"ipc": min(own.ipc, len(kept))})
            seed = stream_seed(settings["seed"], "prototypes", class_id)
            fitted = fit_prototypes(latents[kept], few, seed=seed).prototypes
            shown = spread_evenly(len(fitted), most)
            # As exact as stored prototypes are.
            found += [(label, each.astype(np.float16).astype(np.float32)) for each in fitted[shown]]
        return found

    @cached_property
    def _predictor(self) -> "ClassPredictor":
        import torch

        from d4m.images.image_set import ImageSet
        from d4m.prototypes.class_prediction import ClassPredictor

        settings, classes = self.settings, self.settings["classes"]
        rows = {class_id: self._real_rows(class_id) for class_id in classes}
        real: ImageSet = real_set(
            self.context,
            settings["held_out"],
            size_px=settings["drawn"]["size_px"],
            choose=lambda class_id: rows.get(class_id, np.zeros(0, np.int64)),
        )
        labels = torch.searchsorted(torch.tensor(classes).to(real.class_ids), real.class_ids)
        seed = stream_seed(settings["seed"], "prediction")
        return ClassPredictor(replace(real, class_ids=labels), classes=len(classes), seed=seed)

    def _real_rows(self, class_id: int) -> np.ndarray:
        """Return the rows of a class's real images whose class is predicted."""
        split: Split = self.settings["held_out"]
        count = len(self.context.image_index(split, class_id).image_ids)
        rows = self._held_out(class_id, count) if split == "train" else np.arange(count)
        most = max(1, _MOST_REAL // len(self.settings["classes"]))
        return rows[spread_evenly(len(rows), most)]

    def _held_out(self, class_id: int, count: int) -> np.ndarray:
        """Return the rows of training images that no prototype of a candidate is made of."""
        draw = stream_generator(self.settings["seed"], "held out", class_id)
        return np.sort(draw.permutation(count)[: max(1, int(_HELD_OUT * count))])
