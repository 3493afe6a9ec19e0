"""Asset `teacher`."""

import dagster as dg

from d4m.stages.context import StageContext
from d4m.stages.teacher import Teacher
from d4m_assets.stage_asset import Metadata, stage_asset


def _describe(context: StageContext) -> Metadata:
    settings = context.recipe.settings.teacher
    return {"settings": dg.MetadataValue.json(settings.model_dump(mode="json"))}


teacher = stage_asset(
    Teacher(),
    description="The classifier that labels: trained on the real images, or given by its weights. "
    "Its test score is in the score table.",
    describe=_describe,
    kinds={"pytorch"},
    pool="gpu",
)
