"""Versions that an artifact has had: what changed from one to the next, and why."""

from dataclasses import dataclass
from itertools import pairwise

from d4m.errors import StoreError
from d4m.reports.changes import describe_changes
from d4m.stages.base import StageContext
from d4m.store.manifest import Manifest, ManifestVersion


@dataclass(frozen=True)
class VersionChange:
    """One version of an artifact beside the one before it.

    Attributes:
        version: what it was.
        changed: names of the units that are new, were made of something else or hold something
            else; all of the first version.
        gone: names of the units that it no longer has.
        reason: why the first changed unit is another one, in words.
    """

    version: ManifestVersion
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    reason: str


def version_changes(context: StageContext, asset: str) -> list[VersionChange]:
    """Every version of an artifact that is still known, the current one last.

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
    """A version by the beginning of its name or of its digest; `current` and `previous` go too.

    Raises:
        StoreError: none or several are meant.
    """
    versions = context.manifests.versions(asset)
    by_place = {"current": -1, "previous": -2}
    if wanted in by_place and len(versions) >= -by_place[wanted]:
        return versions[by_place[wanted]]
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
        return f"{name} was made of something else, and one of the two is gone"
    if was.key == now.key:
        return f"{name} was computed again and came out different"
    versions = (before.version, manifest.version)
    return f"{name}: {describe_changes(was.inputs, now.inputs, versions=versions)}"
