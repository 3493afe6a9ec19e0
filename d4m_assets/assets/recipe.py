"""The sections of a recipe as assets: an edit makes stale what it changes, nothing else."""

from collections.abc import Iterator

import dagster as dg

from d4m.errors import D4MError
from d4m.settings import SECTIONS, RecipeSettings
from d4m.store.digest import digest_json
from d4m_assets.asset_keys import section_key
from d4m_assets.partitions import recipe_partitions
from d4m_assets.resources import RecipesResource


@dg.multi_asset(
    name="recipe",
    specs=[
        dg.AssetSpec(
            section_key(section),
            partitions_def=recipe_partitions,
            group_name="recipe",
            kinds={"yaml"},
            description=f"Section `{section}` of recipes/<recipe>.yaml: "
            f"{RecipeSettings.model_fields[section].description}",
        )
        for section in SECTIONS
    ],
    can_subset=True,
)
def recipe(
    context: dg.AssetExecutionContext, recipes: RecipesResource
) -> Iterator[dg.MaterializeResult]:
    """Read the recipe; the data version of a section is the digest of its settings."""
    try:
        settings = recipes.of_run(context.partition_key).settings.model_dump(mode="json")
    except D4MError as failure:
        raise dg.Failure(str(failure), allow_retries=False) from failure
    for section in SECTIONS:
        if section_key(section) in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=section_key(section),
                data_version=dg.DataVersion(digest_json(settings[section])),
                metadata={"settings": dg.MetadataValue.json({section: settings[section]})},
            )
