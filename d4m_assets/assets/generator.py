"""Asset `generator`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.generator import Generator
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    described = context.generator.describe().items()
    return {kind: dg.MetadataValue.json(settings) for kind, settings in described}


generator = stage_asset(
    Generator(),
    description="The latent diffusion model, component by component: a compact one trained on the "
    "real images, or the fingerprints of a pretrained one.",
    describe=_describe,
    kinds={"huggingface", "pytorch"},
    pool="gpu",
)
