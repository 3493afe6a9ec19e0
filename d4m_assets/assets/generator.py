"""Asset `generator`."""

import dagster as dg

from d4m.pipeline import Pipeline
from d4m.stages.generator import Generator
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(pipeline: Pipeline) -> Metadata:
    settings = pipeline.recipe.settings.generator
    if settings.pretrained is not None:
        return {"pretrained": dg.MetadataValue.text(settings.pretrained.model)}
    return {"compact": dg.MetadataValue.json(settings.compact.model_dump(mode="json"))}


generator = stage_asset(
    Generator(),
    group="real",
    description="The latent diffusion model, component by component: a compact one trained on the "
    "real images, or the fingerprints of a pretrained one.",
    describe=_describe,
    pool="gpu",
)
