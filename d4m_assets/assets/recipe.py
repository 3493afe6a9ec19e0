"""The parts of a recipe as assets: an edit makes stale what it changes, nothing else."""

from collections.abc import Iterator

import dagster as dg

from d4m.errors import D4MError
from d4m.settings.parts import PARTS
from d4m_assets.asset_keys import RECIPE_GROUP, section_key
from d4m_assets.cost import cost_metadata
from d4m_assets.failures import chosen_recipe, fail_or_retry
from d4m_assets.partitions import recipe_partitions
from d4m_assets.resources import RecipesResource, StoreResource
from d4m_assets.sections import (
    changed_sections,
    section_metadata,
    section_version,
    settled_metadata,
)


@dg.multi_asset(
    name="recipe",
    specs=[
        dg.AssetSpec(
            section_key(name),
            partitions_def=recipe_partitions,
            group_name=RECIPE_GROUP,
            kinds={"yaml"},
            description=f"{part.description} The path of the recipe's file is among the metadata.",
        )
        for name, part in PARTS.items()
    ],
    can_subset=True,
)
def recipe(
    context: dg.AssetExecutionContext, recipes: RecipesResource, store: StoreResource
) -> Iterator[dg.MaterializeResult]:
    """Read the recipe; the data version of a part is the digest of its settings.

    The metadata of each part say what a run of the recipe would cost now. Parts that are not
    selected are reported too where their settings have changed: a run that selects one section
    uses them all.
    """
    name = chosen_recipe(context)
    try:
        read = recipes.of_run(name)
    except D4MError as failure:
        raise fail_or_retry(context, recipes.file(name), "recipe", failure) from failure
    pipeline = store.pipeline(read)
    settled, cost = pipeline.open_context().recipe.settings, cost_metadata(pipeline)
    for event in changed_sections(context.instance, read):
        if event.asset_key not in context.selected_asset_keys:
            context.log_event(event)
    for part in PARTS:
        if section_key(part) in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=section_key(part),
                data_version=dg.DataVersion(section_version(read, part)),
                metadata={
                    **section_metadata(read, part),
                    **settled_metadata(read.settings, settled, part),
                    **cost,
                },
            )
