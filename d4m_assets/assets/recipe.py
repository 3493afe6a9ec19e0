"""The parts of a recipe as assets: an edit makes stale what it changes, nothing else."""

from collections.abc import Iterator

import dagster as dg

from d4m.errors import D4MError
from d4m.settings import PARTS, RecipeSettings, Section, read_part
from d4m.store.digest import digest_json
from d4m_assets.asset_keys import section_key
from d4m_assets.partitions import recipe_partitions
from d4m_assets.resources import RecipesResource


def _description(keys: tuple[str, ...]) -> str:
    """Return the description of a key of the recipe."""
    fields = RecipeSettings.model_fields
    *sections, last = keys
    for section in sections:
        model = fields[section].annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        fields = model.model_fields
    return fields[last].description or ""


@dg.multi_asset(
    name="recipe",
    specs=[
        dg.AssetSpec(
            section_key(part),
            partitions_def=recipe_partitions,
            group_name="recipe",
            kinds={"yaml"},
            description=f"`{'.'.join(keys)}` of recipes/<recipe>.yaml: {_description(keys)}",
        )
        for part, keys in PARTS.items()
    ],
    can_subset=True,
)
def recipe(
    context: dg.AssetExecutionContext, recipes: RecipesResource
) -> Iterator[dg.MaterializeResult]:
    """Read the recipe; the data version of a part is the digest of its settings."""
    try:
        settings = recipes.of_run(context.partition_key).settings
    except D4MError as failure:
        raise dg.Failure(str(failure), allow_retries=False) from failure
    for part in PARTS:
        if section_key(part) in context.selected_asset_keys:
            value = read_part(settings, part)
            yield dg.MaterializeResult(
                asset_key=section_key(part),
                data_version=dg.DataVersion(digest_json(value)),
                metadata={"settings": dg.MetadataValue.json({part: value})},
            )
