"""The sections of a recipe as asset events, and the event that a stage's settings belong to."""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    extract_data_provenance_from_entry,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from d4m.recipe.image_defaults import settled_values
from d4m.recipe.recipe import Recipe
from d4m.settings import RecipeSettings
from d4m.settings.parts import PARTS, read_part
from d4m.store.digest import digest_json
from d4m_assets.asset_keys import section_key

_RECENT = 50  # events in which the one that a stage has read is looked for


def section_version(recipe: Recipe, part: str) -> str:
    """Return the data version of one of the `PARTS` of a recipe: the digest of its settings."""
    return digest_json(read_part(recipe.settings, part))


def section_metadata(recipe: Recipe, part: str) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return what the page of a section shows: the settings, and the file that they stand in."""
    return {
        "settings": dg.MetadataValue.json({part: read_part(recipe.settings, part)}),
        "file": dg.MetadataValue.path(recipe.file),
    }


def settled_metadata(
    stated: RecipeSettings, settled: RecipeSettings, part: str
) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the keys of a section that follow the images, with their values; nothing if none do.

    Args:
        stated: the settings as the recipe's file has them.
        settled: as stages see them.
        part: one of the `PARTS`; only sections have keys of their own.
    """
    found = settled_values(stated, settled).items()
    own = {key: value for key, value in found if key.partition(".")[0] == part}
    return {"defaults for these images": dg.MetadataValue.json(own)} if own else {}


def changed_sections(
    instance: dg.DagsterInstance, recipe: Recipe
) -> Iterator[dg.AssetMaterialization]:
    """Yield an event for each section whose settings differ from the last ones that Dagster knows.

    A section that Dagster has never seen is no change: nothing was made of it.
    """
    for part in PARTS:
        key, version = section_key(part), section_version(recipe, part)
        record = instance.get_latest_data_version_record(key, partition_key=recipe.name)
        if record is None:
            continue
        known = extract_data_version_from_entry(record.event_log_entry)
        if known is None or known.value != version:
            yield dg.AssetMaterialization(
                key,
                description="The recipe's file was edited.",
                partition=recipe.name,
                metadata=section_metadata(recipe, part),
                tags={DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"},
            )


def read_sections(
    instance: dg.DagsterInstance, recipe: Recipe, parts: Iterable[str]
) -> dict[str, str]:
    """Return the tags of a materialization that say which sections it was made of.

    Dagster assumes the latest event of each section. A recipe that is edited during a run has a
    later event than the one whose settings the run uses, and the result would look up to date.

    Args:
        instance: where the events of the sections are.
        recipe: as the run has read it.
        parts: that the stage reads. One that no recent event belongs to is left to Dagster.
    """
    tags = dict[str, str]()
    for part in parts:
        key, version = section_key(part), section_version(recipe, part)
        of_recipe = dg.AssetRecordsFilter(key, asset_partitions=[recipe.name])
        for record in instance.fetch_materializations(of_recipe, limit=_RECENT).records:
            known = extract_data_version_from_entry(record.event_log_entry)
            if known is not None and known.value == version:
                tags[get_input_event_pointer_tag(key)] = str(record.storage_id)
                tags[get_input_data_version_tag(key)] = _of_partition(version)
                break
    return tags


def made_of_others(instance: dg.DagsterInstance, recipe: Recipe, artifact: str) -> bool:
    """Return whether an artifact was last materialized from other settings than the present ones.

    Args:
        instance: where its event is.
        recipe: with the present settings.
        artifact: that has been materialized.
    """
    record = instance.get_latest_data_version_record(
        dg.AssetKey(artifact), partition_key=recipe.name
    )
    found = record and extract_data_provenance_from_entry(record.event_log_entry)
    if not found:
        return False
    return any(
        known.value != _of_partition(section_version(recipe, part))
        for part in PARTS
        if (known := found.input_data_versions.get(section_key(part))) is not None
    )


def _of_partition(version: str) -> str:
    """Return the version of a partition as Dagster records it with what was made of it."""
    return sha256(version.encode()).hexdigest()
