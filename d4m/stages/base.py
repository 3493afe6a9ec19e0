"""Plan, look up, compute what is missing, publish: the same for every stage."""

import logging
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from d4m.compute import Compute
from d4m.errors import MissingUpstreamError, StoreError
from d4m.recipe.recipe import Recipe
from d4m.sources.base import ImageIndex, ImageSource, Split
from d4m.sources.registry import open_source
from d4m.store.manifest import Manifest, ManifestFolder, UnitRecord
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore

_log = logging.getLogger(__name__)
_LIBRARIES = ("d4m", "torch", "diffusers", "transformers", "timm", "scikit-learn", "zarr", "numpy")

Product = Mapping[str, np.ndarray] | Callable[[Path], None]
"""A computed unit: its arrays, or a function that writes its files into a folder."""


@dataclass(frozen=True)
class StageContext:
    """All that a stage sees of the world.

    Attributes:
        recipe: the settings.
        store: where units are.
        compute: the device, and what fits on it.
        upstream: per upstream artifact, its units by name; None for one whose content is not known
            yet, which only happens while planning ahead.
    """

    recipe: Recipe
    store: ArtifactStore
    compute: Compute
    upstream: Mapping[str, Mapping[str, UnitRecord | None]] = field(
        default_factory=dict[str, Mapping[str, UnitRecord | None]]
    )

    @property
    def device(self) -> str:
        """Where tensors are computed: `cpu`, `cuda`, ..."""
        return self.compute.device

    @property
    def manifests(self) -> ManifestFolder:
        """The recipe's manifests."""
        return ManifestFolder(self.store.root, self.recipe.name)

    @cached_property
    def source(self) -> ImageSource:
        """The recipe's images."""
        return open_source(self.recipe, self.store.root / "cache")

    @property
    def class_ids(self) -> range:
        """Every class."""
        return range(len(self.source.class_table))

    def unit(
        self,
        stage: "Stage",
        name: str,
        settings: Mapping[str, Any],
        reads: Iterable[tuple[str, str]] = (),
    ) -> Unit:
        """A unit that depends on these settings and on what these upstream units hold."""
        upstream = {f"{asset}/{unit}": self._digest(asset, unit) for asset, unit in reads}
        inputs = {"settings": dict(settings), "upstream": upstream}
        return Unit(stage.name, stage.version, name, inputs)

    def all_of(self, asset: str, prefix: str = "") -> list[tuple[str, str]]:
        """Every unit of an upstream artifact, as `unit` wants them; only those with this prefix."""
        return [(asset, name) for name in self._units(asset) if name.startswith(prefix)]

    def read(self, asset: str, unit: str) -> dict[str, np.ndarray]:
        """The arrays of an upstream unit, checked."""
        return self.store.read_arrays(asset, self._record(asset, unit).key)

    def open_files(self, asset: str, unit: str) -> Path:
        """The folder of an upstream unit, checked."""
        return self.store.open_files(asset, self._record(asset, unit).key)

    def image_index(self, split: Split, class_id: int) -> ImageIndex:
        """The index of one class's real images."""
        arrays = self.read("real_images", f"{split}-{class_id:05d}")
        unreadable = zip(arrays["unreadable_files"], arrays["unreadable_reasons"], strict=True)
        return ImageIndex(
            tuple(map(str, arrays["image_ids"])),
            arrays["content_digests"],
            {str(file): str(reason) for file, reason in unreadable},
        )

    def _units(self, asset: str) -> Mapping[str, UnitRecord | None]:
        if asset not in self.upstream:
            msg = (
                f"recipe {self.recipe.name} has no {asset} yet; make it first, with "
                f"`d4m run {self.recipe.name}` or by materializing {asset}"
            )
            raise MissingUpstreamError(msg)
        return self.upstream[asset]

    def _digest(self, asset: str, unit: str) -> str | None:
        record = self._find(asset, unit)
        return None if record is None else record.digest

    def _record(self, asset: str, unit: str) -> UnitRecord:
        record = self._find(asset, unit)
        assert record is not None, "nothing is computed from a plan made ahead"
        return record

    def _find(self, asset: str, unit: str) -> UnitRecord | None:
        units = self._units(asset)
        if unit not in units:
            msg = (
                f"{asset} of recipe {self.recipe.name} has no unit {unit}: it was made for other "
                f"settings; run the recipe or materialize {asset} again"
            )
            raise MissingUpstreamError(msg)
        return units[unit]


class Stage(ABC):
    """One artifact.

    Attributes:
        name: the artifact's name.
        version: raised when the stage's code gives other results for the same inputs.
        upstream: the artifacts it reads.
        sections: the recipe sections it reads.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    upstream: ClassVar[tuple[str, ...]] = ()
    sections: ClassVar[tuple[str, ...]]

    @abstractmethod
    def plan(self, context: StageContext) -> list[Unit]:
        """The artifact's units; reads settings and digests, never arrays."""

    @abstractmethod
    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Make the missing units, in any order, each as soon as it is done."""


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did.

    Attributes:
        manifest: the artifact as it is now.
        computed: names of the units that were computed.
        reused: names of the units that were there already.
        seconds: wall-clock time.
    """

    manifest: Manifest
    computed: tuple[str, ...]
    reused: tuple[str, ...]
    seconds: float


def is_known(unit: Unit) -> bool:
    """Whether all that a planned unit reads is known, and so its key."""
    return None not in unit.inputs["upstream"].values()


def run_stage(stage: Stage, context: StageContext) -> StageReport:
    """Compute a stage's missing units, one after the other, and make its manifest the current one.

    Units that read other units of the same stage are planned again once those are there.

    Raises:
        DamagedUnitError: an upstream unit is damaged; it was set aside.
        MissingUpstreamError: an upstream artifact has not been made.
    """
    start = time.monotonic()
    computed = list[str]()
    while True:
        units = stage.plan(context)
        records = _found(context, units)
        missing = [unit for unit in units if is_known(unit) and unit.name not in records]
        if not missing and all(map(is_known, units)):
            break
        lost = [unit.name for unit in missing if unit.name in computed]
        if lost:
            msg = f"{stage.name}: {lost} were stored and are gone again; check the disk"
            raise StoreError(msg)
        computed += _compute(stage, context, missing)
    manifest = Manifest(stage.name, stage.version, {u.name: records[u.name] for u in units})
    context.manifests.publish(manifest)
    reused = tuple(unit.name for unit in units if unit.name not in computed)
    done = tuple(unit.name for unit in units if unit.name in computed)
    return StageReport(manifest, done, reused, time.monotonic() - start)


def _compute(stage: Stage, context: StageContext, missing: Sequence[Unit]) -> list[str]:
    """Compute and publish units; their names, in the order in which they were done."""
    computed = list[str]()
    with tqdm(total=len(missing), desc=stage.name, unit="unit", disable=None) as bar:
        for unit, product in stage.compute(context, missing):
            _publish(context, unit, product)
            computed.append(unit.name)
            _log.info("computed %s/%s", stage.name, unit.name)
            bar.update()
    return computed


def _found(context: StageContext, units: Sequence[Unit]) -> dict[str, UnitRecord]:
    store = context.store
    known = [unit for unit in units if is_known(unit)]
    found = {unit.name: store.find(unit.stage, unit.key) for unit in known}
    return {
        name: UnitRecord(reference.key, reference.digest)
        for name, reference in found.items()
        if reference and store.mark_used(reference)
    }


def _publish(context: StageContext, unit: Unit, product: Product) -> None:
    provenance = {
        "recipe": context.recipe.name,
        "device": context.device,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: installed_version(name) for name in _LIBRARIES},
        "computed_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if callable(product):
        context.store.publish_files(unit, product, provenance)
    else:
        context.store.publish_arrays(unit, product, provenance)
