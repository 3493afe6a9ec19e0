"""Artifact `prototypes`: the cluster centres of each class's latents (D4M, section 3.2)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from d4m.errors import PrototypeError
from d4m.seeds import stream_seed
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.real_images import class_unit
from d4m.store.reference import Unit


class Prototypes(Stage):
    """Unit: one class."""

    name: ClassVar[str] = "prototypes"
    version: ClassVar[str] = "2"
    upstream: ClassVar[tuple[str, ...]] = ("latents",)
    sections: ClassVar[tuple[str, ...]] = ("prototypes", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """One unit per class, with a stream of its own."""
        settings = context.recipe.settings
        return [
            context.unit(
                self,
                class_unit(class_id),
                settings.prototypes.model_dump(mode="json")
                | {"seed": stream_seed(settings.seed, "prototypes", class_id)},
                [("latents", class_unit(class_id))],
            )
            for class_id in context.class_ids
        ]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Cluster class after class."""
        from d4m.prototypes import fit_prototypes

        for unit in missing:
            class_id = int(unit.name.removeprefix("class-"))
            latents = context.read("latents", unit.name)["latents"]
            try:
                fitted = fit_prototypes(
                    latents,
                    context.recipe.settings.prototypes,
                    seed=unit.inputs["settings"]["seed"],
                )
            except PrototypeError as failure:
                name = context.source.class_table.names[class_id]
                msg = f"class {class_id} ('{name}'): {failure}"
                raise PrototypeError(msg) from None
            yield (
                unit,
                {
                    "prototypes": fitted.prototypes.astype(np.float16),  # as exact as latents
                    "cluster_shares": fitted.cluster_shares,
                    "nearest_images": fitted.nearest_images,
                    "inertia": np.array(fitted.inertia),
                },
            )
