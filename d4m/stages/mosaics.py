"""Prototypes that are mosaics: the clusters of a class, several in one stored image."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.stages.context import Inputs, StageContext
from d4m.stages.training_sets import pixel_settings
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.prototypes.clusters import PrototypeResult

_KEY = "mosaic"


def edge_inputs(context: StageContext) -> Inputs:
    """Return how many tiles a row of each stored image has, where they are mosaics."""
    edge = context.recipe.settings.synthesis.mosaic
    return Inputs({_KEY: edge} if edge > 1 else {})


def edge_of(settings: Mapping[str, Any]) -> int:
    """Return the tiles per row of stored images, by the settings of a unit."""
    return settings.get(_KEY, 1)


def tiles_of(settings: Mapping[str, Any]) -> int:
    """Return the training images per stored image, by the settings of a unit."""
    return edge_of(settings) ** 2


def mosaic_inputs(context: StageContext) -> Inputs:
    """Return what mosaics depend on in addition to clusters: the VAE, and the images' size."""
    edge = edge_inputs(context)
    if not edge.settings:
        return edge
    return edge | Inputs(
        {"latents_px": pixel_settings(context)["size_px"]}, (("generator", "vae"),)
    )


def into_mosaics(
    context: StageContext, found: "Sequence[PrototypeResult]", unit: Unit
) -> "list[PrototypeResult]":
    """Return the same clusters, whose prototypes are latents of mosaics.

    The prototypes of all clusters are decoded, and every few of them, from the largest cluster to
    the smallest, make a mosaic, which is encoded.

    Args:
        context: with the VAE.
        found: clusters with a prototype each.
        unit: whose settings say how many tiles a mosaic has.
    """
    if (edge := edge_of(unit.settings)) == 1:
        return list(found)
    from d4m.generators.encode import encode_images
    from d4m.images.mosaics import pack_images
    from d4m.stages.generator import load_vae
    from d4m.synthesis.synthesize import decode_latents

    vae = load_vae(context)
    size = context.compute.encode_batch_size(unit.settings["latents_px"])
    mosaics = list["PrototypeResult"]()
    for fitted in found:
        tiles = decode_latents(
            vae, fitted.prototypes, compute=context.compute, size_px=unit.settings["latents_px"]
        )
        packed = pack_images(tiles, edge)
        batches = (packed[at : at + size] for at in range(0, len(packed), size))
        latents = np.concatenate(list(encode_images(batches, vae)))
        mosaics.append(replace(fitted, prototypes=latents.astype(np.float32)))
    return mosaics
