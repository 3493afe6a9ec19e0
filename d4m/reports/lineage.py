"""Trace where a stored unit came from, back to the images and the models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from d4m.errors import MissingUpstreamError
from d4m.stages.context import StageContext
from d4m.stages.prototypes import Prototypes
from d4m.stages.real_images import RealImages
from d4m.stages.synthetic_images import SyntheticImages
from d4m.stages.unit_names import class_id_of, split_unit
from d4m.store.manifest import UnitRecord
from d4m.store.reference import Reference


@dataclass(frozen=True)
class Origin:
    """A unit and the units that it was made of.

    Attributes:
        asset: the artifact it is part of.
        unit: its name.
        digest: of its content.
        reference: how it was made; None where the unit is gone.
        sources: the units that it read, in order.
    """

    asset: str
    unit: str
    digest: str
    reference: Reference | None
    sources: tuple["Origin", ...]

    def walk(self) -> Iterator["Origin"]:
        """Yield the unit, and each unit that it was made of once."""
        seen, waiting = set[int](), list["Origin"]((self,))
        while waiting:
            origin = waiting.pop()
            if id(origin) not in seen:
                seen.add(id(origin))
                yield origin
                waiting += origin.sources


@dataclass(frozen=True)
class ImageOrigin:
    """An image of a class, and the real image that it began with.

    Attributes:
        image: its number within the class; the id of a real image.
        digest: sha256 of the real image's pixels.
        nearest: id of the real image nearest its prototype; None for a real image itself.
        seed: of the noise that the diffusion started from; None where there was none.
        share: of its class that its prototype stands for; None for a real image itself.
    """

    image: str
    digest: str
    nearest: str | None = None
    seed: int | None = None
    share: float | None = None


def trace(context: StageContext, asset: str, units: Sequence[str]) -> list[Origin]:
    """Trace units of the recipe's current artifact to everything that they were made of.

    Args:
        context: with the artifacts to begin with as its `upstream`; units of other versions are
            found in the recipe's manifests.
        asset: an artifact.
        units: names of some of its units.

    Raises:
        MissingUpstreamError: the artifact has not been made, or has no such unit.
    """
    versions = dict[str, list[Mapping[str, UnitRecord]]]()

    @cache
    def origin(asset: str, unit: str, digest: str) -> Origin:
        if asset not in versions:
            own = {name: each for name, each in context.upstream.get(asset, {}).items() if each}
            manifests = [version.manifest.units for version in context.manifests.versions(asset)]
            versions[asset] = [own, *manifests[::-1]]
        records = (units[unit] for units in versions[asset] if unit in units)
        record = next((record for record in records if record.digest == digest), None)
        reference = context.store.find(asset, record.key) if record else None
        reads = reference.inputs["upstream"] if reference else {}
        sources = tuple(origin(*name.split("/", 1), held) for name, held in reads.items())
        return Origin(asset, unit, digest, reference, sources)

    current = context.upstream.get(asset, {})
    if asset not in context.upstream:
        made = ", ".join(context.upstream) or "nothing; run the recipe first"
        msg = f"recipe {context.recipe.name} has made no '{asset}' yet; it has made {made}"
        raise MissingUpstreamError(msg)
    for unit in units:
        if unit not in current:
            known = f"it has {', '.join(list(current)[:5])}" if current else "it has none"
            msg = f"{asset} of recipe {context.recipe.name} has no unit '{unit}'; {known}"
            raise MissingUpstreamError(msg)
    records = {unit: current[unit] for unit in units}
    return [origin(asset, unit, record.digest) for unit, record in records.items() if record]


def lineage_rows(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """Return each unit once, in JSON's types, and which units it was made of.

    Args:
        origins: units, with all that they were made of.

    Returns:
        Rows in the order of artifacts and units. Settings and provenance of a unit that is no
        longer stored are None.
    """
    found = {id(each): each for top in origins for each in top.walk()}
    ordered = sorted(found.values(), key=lambda each: (each.asset, each.unit, each.digest))
    return list(map(_row, ordered))


def _row(origin: Origin) -> dict[str, Any]:
    reference = origin.reference
    return {
        "artifact": origin.asset,
        "unit": origin.unit,
        "digest": origin.digest,
        "made_of": {f"{each.asset}/{each.unit}": each.digest for each in origin.sources},
        "settings": reference.inputs["settings"] if reference else None,
        "provenance": reference.provenance if reference else None,
    }


def image_origins(context: StageContext, origin: Origin) -> list[ImageOrigin]:
    """Return the images of a unit, each with the digest of the real image that it began with.

    Empty for artifacts that do not consist of images, and where the index of the real images or
    the prototypes are no longer stored.
    """
    if origin.asset == RealImages.name:
        arrays = _read(context, origin)
        return [
            ImageOrigin(str(image), bytes(digest).hex())
            for image, digest in zip(arrays["image_ids"], arrays["content_digests"], strict=True)
        ]
    if origin.asset not in (Prototypes.name, SyntheticImages.name):
        return []
    prototypes = _find(origin, Prototypes.name, origin.unit)
    real = _find(origin, RealImages.name, split_unit("train", class_id_of(origin.unit)))
    if prototypes is None or real is None:
        return []
    found, images = _read(context, prototypes), _read(context, real)
    rows, shares = found["nearest_images"], found["cluster_shares"]
    seeds: list[int | None] = [None] * len(found["prototypes"])
    if origin.asset == SyntheticImages.name:
        seeds = _read(context, origin)["seeds"].tolist()
    tiles = len(rows) // len(seeds)
    return [
        ImageOrigin(
            str(number) if tiles == 1 else f"{number // tiles}, tile {number % tiles}",
            bytes(images["content_digests"][row]).hex(),
            str(images["image_ids"][row]),
            seeds[number // tiles],
            float(share),
        )
        for number, (row, share) in enumerate(zip(rows, shares, strict=True))
    ]


def _find(origin: Origin, asset: str, unit: str) -> Origin | None:
    """Return the unit itself, or the nearest one that it was made of, if it is still stored."""
    level = [origin]
    while level:
        found = [each for each in level if (each.asset, each.unit) == (asset, unit)]
        if found:
            return found[0] if found[0].reference else None
        level = [source for each in level for source in each.sources]
    return None


def _read(context: StageContext, origin: Origin) -> dict[str, np.ndarray]:
    assert origin.reference is not None, "the caller has found it stored"
    return context.store.read_arrays(origin.asset, origin.reference.key)
