"""Where a stored unit came from: what it was made of, back to the images and the models."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from d4m.errors import MissingUpstreamError
from d4m.stages.base import StageContext
from d4m.stages.prototypes import Prototypes
from d4m.stages.real_images import RealImages
from d4m.stages.synthetic_images import SyntheticImages
from d4m.store.manifest import UnitRecord
from d4m.store.reference import Reference


@dataclass(frozen=True)
class Origin:
    """A unit and what it was made of.

    Attributes:
        asset: the artifact it is part of.
        unit: its name.
        digest: what it holds.
        reference: how it was made; None where the unit is gone.
        sources: the units that it read, in order.
    """

    asset: str
    unit: str
    digest: str
    reference: Reference | None
    sources: tuple["Origin", ...]


@dataclass(frozen=True)
class ImageOrigin:
    """One image of a class, and the real image that it began with.

    Attributes:
        image: its number within the class; of a real image, its id.
        digest: sha256 of the real image's pixels.
        nearest: id of the real image nearest its prototype; None for a real image itself.
        seed: of the noise that the diffusion started from; None where there was none.
    """

    image: str
    digest: str
    nearest: str | None = None
    seed: int | None = None


def trace(context: StageContext, asset: str, unit: str) -> Origin:
    """A unit of the recipe's current artifact, with everything that it was made of.

    Args:
        context: with the current manifests of all stages as its `upstream`.
        asset: an artifact.
        unit: one of its units.

    Raises:
        MissingUpstreamError: the artifact has not been made, or has no such unit.
    """
    versions = dict[str, list[Mapping[str, UnitRecord]]]()

    @cache
    def origin(asset: str, unit: str, digest: str) -> Origin:
        if asset not in versions:
            manifests = [version.manifest.units for version in context.manifests.versions(asset)]
            versions[asset] = manifests[::-1]
        records = (units[unit] for units in versions[asset] if unit in units)
        record = next((record for record in records if record.digest == digest), None)
        reference = context.store.find(asset, record.key) if record else None
        reads = reference.inputs["upstream"] if reference else {}
        sources = tuple(origin(*name.split("/", 1), held) for name, held in reads.items())
        return Origin(asset, unit, digest, reference, sources)

    current = context.upstream.get(asset, {})
    if unit not in current:
        known = ", ".join(list(current)[:5]) or "none; run the recipe first"
        msg = f"{asset} of recipe {context.recipe.name} has no unit '{unit}'; it has {known}, ..."
        raise MissingUpstreamError(msg)
    record = current[unit]
    assert record is not None, "current manifests name units that exist"
    return origin(asset, unit, record.digest)


def image_origins(context: StageContext, asset: str, unit: str) -> list[ImageOrigin]:
    """The single images of a unit: of real ones what they hold, of others where they began.

    Empty for artifacts that do not consist of images.
    """
    if asset == RealImages.name:
        arrays = context.read(asset, unit)
        digests = _hexadecimal(arrays["content_digests"])
        return [
            ImageOrigin(str(image), digest)
            for image, digest in zip(arrays["image_ids"], digests, strict=True)
        ]
    if asset not in (Prototypes.name, SyntheticImages.name):
        return []
    index = context.image_index("train", int(unit.removeprefix("class-")))
    rows = context.read(Prototypes.name, unit)["nearest_images"]
    digests = _hexadecimal(index.content_digests[rows])
    seeds = [None] * len(rows)
    if asset == SyntheticImages.name:
        seeds = context.read(asset, unit)["seeds"].tolist()
    return [
        ImageOrigin(str(number), digest, index.image_ids[row], seed)
        for number, (row, digest, seed) in enumerate(zip(rows, digests, seeds, strict=True))
    ]


def _hexadecimal(digests: np.ndarray) -> list[str]:
    return [bytes(digest).hex() for digest in digests]
