"""List the versions that an artifact has had: what changed from one to the next, and why."""

from dataclasses import dataclass
from itertools import pairwise

from d4m.errors import StoreError
from d4m.reports.changes import describe_changes
from d4m.stages.context import StageContext
from d4m.store.manifest import Manifest, ManifestVersion


@dataclass(frozen=True)
class VersionChange:
    """A version of an artifact, compared with the one before it.

    Attributes:
        version: the artifact at that time.
        changed: names of the units that are new, were made of other inputs or hold other content;
            for the first version, all units.
        gone: names of the units that it no longer has.
        reason: why the first changed unit differs, in words.
    """

    version: ManifestVersion
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    reason: str


def version_changes(context: StageContext, asset: str) -> list[VersionChange]:
    """Return every version of an artifact that is still known, the current one last.

    Raises:
        StoreError: it has never been made.
    """
    versions = context.manifests.versions(asset)
    if not versions:
        made = ", ".join(context.manifests.assets()) or "nothing; run the recipe first"
        msg = f"recipe {context.recipe.name} has made no '{asset}' yet; it has made {made}"
        raise StoreError(msg)
    first = VersionChange(versions[0], tuple(versions[0].manifest.units), (), "the first one kept")
    return [first, *(_change(context, *pair) for pair in pairwise(versions))]


def find_version(context: StageContext, asset: str, wanted: str) -> ManifestVersion:
    """Find a version by the beginning of its name or digest, or as `current` or `previous`.

    Raises:
        StoreError: no version or several begin so.
    """
    versions = context.manifests.versions(asset)
    by_place = {"current": -1, "previous": -2}
    if wanted in by_place and len(versions) >= -by_place[wanted]:
        return versions[by_place[wanted]]
    if wanted in by_place:
        msg = (
            f"wanted the {wanted} version of {asset} of recipe {context.recipe.name}, which has "
            f"{len(versions)} in all; `d4m run {context.recipe.name}` after a change adds one"
        )
        raise StoreError(msg)
    found = [
        version
        for version in versions
        if any(text.startswith(wanted) for text in (version.name, version.manifest.digest))
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(version.name for version in (found or versions)[-5:]) or "none"
    msg = (
        f"wanted one version of {asset} of recipe {context.recipe.name}, found {len(found)} whose "
        f"name or digest begins with '{wanted}'; there are {known} "
        f"(`d4m history {context.recipe.name} {asset}` lists all)"
    )
    raise StoreError(msg)


def _change(
    context: StageContext, before: ManifestVersion, version: ManifestVersion
) -> VersionChange:
    was, now = before.manifest.units, version.manifest.units
    changed = tuple(name for name in now if was.get(name) != now[name])
    gone = tuple(name for name in was if name not in now)
    reason = _reason(context, before.manifest, version.manifest, changed[0]) if changed else ""
    return VersionChange(version, changed, gone, reason or "units are gone")


def _reason(context: StageContext, before: Manifest, manifest: Manifest, name: str) -> str:
    if name not in before.units:
        return f"{name} is new"
    was, now = (context.store.find(each.asset, each.units[name].key) for each in (before, manifest))
    if was is None or now is None:
        return f"{name} was made of other inputs, and one of the two units is gone"
    if was.key == now.key:
        return f"{name} was computed again and came out different"
    versions = (before.version, manifest.version)
    return f"{name}: {describe_changes(was.inputs, now.inputs, versions=versions)}"
