"""The world as stages see it: a recipe, its images and generator, the store, earlier units."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from d4m.compute import Compute
from d4m.environment import checkpoint_seconds
from d4m.errors import MissingUpstreamError, SourceChangedError
from d4m.generators.base import Generator
from d4m.recipe.recipe import Recipe
from d4m.settings import CentreCropSettings
from d4m.sources.base import ImageIndex, ImageSource, Split
from d4m.stages.loaded_models import LoadedModels
from d4m.stages.materials import Materials
from d4m.stages.unit_names import distillation_of, of_distillation, split_unit
from d4m.store.checkpoints import Checkpoint
from d4m.store.digest import digest_json
from d4m.store.manifest import ManifestFolder, UnitRecord
from d4m.store.pieces import StoredRows
from d4m.store.reference import Reference, Unit
from d4m.store.store import ArtifactStore


@dataclass(frozen=True)
class Inputs:
    """Everything that a unit depends on; inputs add up: `a | b` has the settings and reads of both.

    Attributes:
        settings: values that decide what the unit holds, in JSON's types.
        reads: upstream units that it is made of: (artifact, unit).

    Example:
        >>> views = Inputs({"flip": 0.5}, (("teacher", "teacher"),))
        >>> views | Inputs({"seed": 3}, (("latents", "class-00000"),))
        Inputs(settings={'flip': 0.5, 'seed': 3}, reads=(('teacher', 'teacher'), \
('latents', 'class-00000')))
    """

    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reads: tuple[tuple[str, str], ...] = ()

    def __or__(self, other: "Inputs") -> "Inputs":
        """Return the settings and reads of both; a setting of both has the second one's value."""
        return Inputs({**self.settings, **other.settings}, (*self.reads, *other.reads))


@dataclass(frozen=True)
class StageContext:
    """All that a stage sees of the world.

    `Stage.plan` reads the recipe and puts into each unit what the unit depends on. `Stage.compute`
    reads settings from its units only, never from the recipe.

    Attributes:
        stated: the recipe as its file has it.
        store: where units are.
        compute: the device, and what fits on it.
        materials: the recipe's images and generator.
        upstream: per artifact, its units by name; None for a unit whose content is not known yet,
            which only happens while planning ahead.
        models: those that a worker keeps from one shard to the next; elsewhere, none.
        checkpoints: of the units at hand, by key.
        notes: what is added to the provenance of units at hand, by key.
    """

    stated: Recipe
    store: ArtifactStore
    compute: Compute
    materials: Materials
    upstream: Mapping[str, Mapping[str, UnitRecord | None]] = field(
        default_factory=dict[str, Mapping[str, UnitRecord | None]]
    )
    models: LoadedModels = field(default_factory=LoadedModels)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    notes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @classmethod
    def open(cls, recipe: Recipe, store: ArtifactStore, compute: Compute) -> "StageContext":
        """Return a context without any upstream unit."""
        return cls(recipe, store, compute, Materials(recipe, store.storage.cache, compute.device))

    @property
    def recipe(self) -> Recipe:
        """The recipe, whose open keys have the defaults that suit the images."""
        return self.materials.settle(self.stated)

    @property
    def device(self) -> str:
        """Where tensors are computed: `cpu`, `cuda`, ..."""
        return self.compute.device

    @property
    def manifests(self) -> ManifestFolder:
        """The recipe's manifests."""
        return ManifestFolder(self.store.storage, self.stated.name, self.stated.file)

    @property
    def source(self) -> ImageSource:
        """The recipe's images."""
        return self.materials.source

    @property
    def generator(self) -> Generator:
        """The recipe's generator."""
        return self.materials.generator

    @property
    def seed(self) -> int:
        """Root of all random streams; a unit that draws has the seed of a stream in its key."""
        return self.materials.seed

    @property
    def class_ids(self) -> range:
        """Every class."""
        return range(len(self.source.class_table))

    def seeing(self, artifact: str, units: Mapping[str, UnitRecord | None]) -> "StageContext":
        """Return this context with the units of one more artifact."""
        return replace(self, upstream={**self.upstream, artifact: units})

    def all_of(self, artifact: str, prefix: str = "", *, distillation: int = 0) -> Inputs:
        """Return all units of an upstream artifact that one distillation has as inputs.

        Args:
            artifact: its name.
            prefix: only units whose names begin so.
            distillation: its number. Units that all distillations share are part of the first, 0.
        """
        wanted = of_distillation(distillation, prefix)
        units = (unit for unit in self._units(artifact) if distillation_of(unit) == distillation)
        return self.some_of(artifact, (unit for unit in units if unit.startswith(wanted)))

    @staticmethod
    def some_of(artifact: str, units: Iterable[str]) -> Inputs:
        """Return these units of an upstream artifact as inputs."""
        return Inputs(reads=tuple((artifact, unit) for unit in units))

    def digest(self, artifact: str, unit: str) -> str | None:
        """Return what an upstream unit holds; None where that is not known yet."""
        record = self._find(artifact, unit)
        return None if record is None else record.digest

    def read(self, artifact: str, unit: str) -> dict[str, np.ndarray]:
        """Return the arrays of an upstream unit, checked."""
        record = self._record(artifact, unit)
        return self.store.read_arrays(artifact, record.key, digest=record.digest)

    def read_each(self, artifact: str, units: Iterable[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the arrays of many small upstream units in order, read ahead from a server."""
        return self.store.storage.each(lambda unit: self.read(artifact, unit), units)

    def open_rows(self, artifact: str, unit: str) -> StoredRows:
        """Return the rows of an upstream unit's arrays, checked and not yet read."""
        return self.store.open_rows(artifact, self._record(artifact, unit).key)

    def open_files(self, artifact: str, unit: str) -> Path:
        """Return the folder of an upstream unit, checked."""
        return self.store.open_files(artifact, self._record(artifact, unit).key)

    def reference(self, artifact: str, unit: str) -> Reference | None:
        """Return the published record of an upstream unit; None where the unit is gone."""
        return self.store.find(artifact, self._record(artifact, unit).key)

    def references(self, artifact: str, units: Sequence[str]) -> dict[str, Reference | None]:
        """Return the published records of many upstream units, by name."""
        found = self.store.storage.each(lambda unit: self.reference(artifact, unit), units)
        return dict(zip(units, found, strict=True))

    def checkpoint(self, *units: Unit) -> Checkpoint:
        """Return where the training of a unit is saved, until the unit is published.

        Args:
            units: one, or several that are trained at once and published in this order; they have a
                checkpoint that no other choice of units would use.
        """
        last, keys = units[-1], [unit.key for unit in units]
        self.checkpoints[last.key] = Checkpoint(
            self.store.storage,
            last.stage,
            last.key if len(units) == 1 else digest_json(keys),
            device=self.device,
            every_s=checkpoint_seconds(),
        )
        return self.checkpoints[last.key]

    def image_index(self, split: Split, class_id: int) -> ImageIndex:
        """Return the index of one class's real images."""
        return self._index(self.read("real_images", split_unit(split, class_id)))

    @staticmethod
    def _index(arrays: Mapping[str, np.ndarray]) -> ImageIndex:
        unreadable = zip(arrays["unreadable_files"], arrays["unreadable_reasons"], strict=True)
        return ImageIndex(
            tuple(map(str, arrays["image_ids"])),
            arrays["content_digests"],
            {str(file): str(reason) for file, reason in unreadable},
        )

    def read_images(
        self,
        split: Split,
        class_id: int,
        index: ImageIndex,
        *,
        size_px: int | None = None,
        crop: CentreCropSettings | None = None,
        batch_size: int = 256,
    ) -> Iterator[UInt8[np.ndarray, "image height width channel"]]:
        """Read real images as `ImageSource.read_images` does; forget all if one has changed.

        Raises:
            SourceChangedError: an image has changed since it was indexed; the next run reads all
                images again.
        """
        try:
            yield from self.source.read_images(
                split, class_id, index, size_px=size_px, crop=crop, batch_size=batch_size
            )
        except SourceChangedError:
            self.forget_images()
            raise

    def forget_images(self) -> None:
        """Forget all that is remembered of the recipe's image files, so that they are read again.

        A change that size, times and inode of one file do not show casts doubt on all of them.
        """
        self.source.forget()
        for record in self.upstream.get("real_images", {}).values():
            if record is not None:
                self.store.set_aside("real_images", record.key)

    def image_indexes(
        self, splits: Sequence[Split] | None = None
    ) -> dict[tuple[Split, int], ImageIndex]:
        """Return the index of every class in some splits, read ahead; None: in every split."""
        own = self.source.splits if splits is None else splits
        keys: list[tuple[Split, int]] = [(s, c) for s in own for c in self.class_ids]
        arrays = self.read_each("real_images", (split_unit(*key) for key in keys))
        return dict(zip(keys, map(self._index, arrays), strict=True))

    def _units(self, artifact: str) -> Mapping[str, UnitRecord | None]:
        if artifact not in self.upstream:
            msg = (
                f"recipe {self.recipe.name} has no {artifact} yet; make it first, with "
                f"`d4m run {self.recipe.name}` or by materializing {artifact}"
            )
            raise MissingUpstreamError(msg)
        return self.upstream[artifact]

    def _record(self, artifact: str, unit: str) -> UnitRecord:
        record = self._find(artifact, unit)
        assert record is not None, "nothing is computed from a plan made ahead"
        return record

    def _find(self, artifact: str, unit: str) -> UnitRecord | None:
        units = self._units(artifact)
        if unit not in units:
            msg = (
                f"{artifact} of recipe {self.recipe.name} has no unit {unit}: it was made for "
                f"other settings; run the recipe or materialize {artifact} again"
            )
            raise MissingUpstreamError(msg)
        return units[unit]
