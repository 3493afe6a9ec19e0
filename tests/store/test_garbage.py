"""Garbage collection: units to remove, units to keep, and runs that use the store meanwhile."""

import json
import os
import time
from datetime import timedelta

import numpy as np
import pytest

from d4m.errors import StoreError
from d4m.store.folder_storage import FolderStorage
from d4m.store.garbage import Keep, find_garbage, remove
from d4m.store.manifest import Manifest, ManifestFolder, UnitRecord
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore

NO_GRACE = timedelta(0)
DAY = timedelta(days=1)
STRICT = Keep(versions=1, days=0, grace=NO_GRACE)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "store")


def _publish(store, number):
    """Publish a unit with a key of its own and return its reference."""
    unit = Unit("latents", "1", "class-00000", {"settings": {"n": number}, "upstream": {}})
    return store.publish_arrays(unit, {"latents": np.full((2, 4, 2, 2), number, "float16")}, {})


def _make_current(store, reference, recipe="digits"):
    record = UnitRecord(reference.key, reference.digest)
    ManifestFolder(store.storage, recipe).publish(Manifest("latents", "1", {"class-00000": record}))


def _reference_file(store, reference):
    return store.root / "objects" / "latents" / reference.key[:2] / f"{reference.key}.json"


def _make_old(path, days=2):
    """Set the times of a path and everything below it to some days ago."""
    then = time.time() - 86400 * days
    for each in (path, *path.rglob("*")):
        os.utime(each, (then, then))


@pytest.fixture
def versions(store):
    """Publish four versions of one artifact, the last one current, and return their references."""
    references = [_publish(store, number) for number in range(4)]
    for reference in references:
        _make_current(store, reference)
    return references


def _found(store, keep):
    return {(each.kind, each.path.stem) for each in find_garbage(store.storage, keep)}


def _units(references):
    return {("unit", reference.key) for reference in references}


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 9])
def test_units_of_the_last_versions_stay(store, versions, kept):
    found = _found(store, Keep(kept, 0, NO_GRACE))
    assert {each for each in found if each[0] == "unit"} == _units(versions[: max(0, 4 - kept)])
    assert sum(kind == "version" for kind, _ in found) == max(0, 4 - kept)


def test_versions_that_were_current_lately_stay(store, versions):
    assert _found(store, Keep(1, 30, NO_GRACE)) == set()
    folder = store.root / "recipes" / "digits" / "latents"
    names = sorted(path.name for path in folder.glob("2*.json"))
    for days_ago, name in zip((90, 60, 40), names, strict=False):
        then = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() - 86400 * days_ago))
        (folder / name).rename(folder / f"{then}.000000Z-{name[-13:]}")
    # The third version was current from 40 days ago until just now.
    assert {each for each in _found(store, Keep(1, 30, NO_GRACE)) if each[0] == "unit"} == _units(
        versions[:2]
    )
    assert {each for each in _found(store, Keep(1, 50, NO_GRACE)) if each[0] == "unit"} == _units(
        versions[:1]
    )


def test_a_unit_that_any_recipe_needs_stays(store, versions):
    _make_current(store, versions[1], recipe="other")
    found = {each for each in _found(store, STRICT) if each[0] == "unit"}
    assert found == _units([versions[0], versions[2]])


def test_removed_units_are_gone_and_the_others_read_as_before(store, versions):
    for each in list(find_garbage(store.storage, STRICT)):
        assert remove(store.storage, [each], NO_GRACE)
    assert list(find_garbage(store.storage, STRICT)) == []
    for reference in versions[:3]:
        assert store.find("latents", reference.key) is None
        assert not (store.root / reference.path).exists()
    assert store.read_arrays("latents", versions[3].key)["latents"].mean() == 3
    [version] = ManifestFolder(store.storage, "digits").versions("latents")
    assert version.manifest.units["class-00000"].key == versions[3].key
    files = [path for path in (store.root / "objects").rglob("*") if path.is_file()]
    assert {
        path.relative_to(store.root).parts[3].split("-")[0].split(".")[0] for path in files
    } == {versions[3].key}


def test_the_sizes_add_up_to_what_is_freed(store, versions):  # noqa: ARG001
    def stored():
        return sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())

    before, found = stored(), list(find_garbage(store.storage, STRICT))
    assert remove(store.storage, found, NO_GRACE) == found
    assert sum(each.size for each in found) == before - stored() > 0


def test_a_unit_that_no_manifest_names_yet_stays_for_the_time_of_grace(store, versions):  # noqa: ARG001
    young = _publish(store, 7)
    assert _found(store, Keep(9, 0, DAY)) == set()
    _make_old(_reference_file(store, young))
    assert _found(store, Keep(9, 0, DAY)) == _units([young])
    assert _found(store, Keep(9, 0, timedelta(days=3))) == set()


def test_a_unit_that_a_run_finds_before_or_while_it_is_collected_stays(store, versions):
    for reference in versions:
        _make_old(_reference_file(store, reference))
    assert store.mark_used({"class": versions[0]}) == {"class": versions[0]}
    keep = Keep(1, 0, DAY)
    units = [each for each in find_garbage(store.storage, keep) if each.kind == "unit"]
    assert {each.path.stem for each in units} == {v.key for v in versions[1:3]}
    assert store.mark_used({"class": versions[2]}) == {"class": versions[2]}
    assert [each.path.stem for each in remove(store.storage, units, DAY)] == [versions[1].key]
    assert store.find("latents", versions[2].key) == versions[2]
    assert store.mark_used({"class": versions[1]}) == {}


def test_removing_a_unit_that_another_process_has_removed_is_no_error(store, versions):  # noqa: ARG001
    found = list(find_garbage(store.storage, STRICT))
    assert remove(store.storage, found, NO_GRACE) == found
    assert "unit" not in {each.kind for each in remove(store.storage, found, NO_GRACE)}


def test_units_set_aside_as_damaged_go_after_the_time_of_grace_with_their_files(store, versions):
    folder = store.root / versions[3].path
    chunk = next(path for path in (folder / "latents" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"rotten")
    assert store.find("latents", versions[3].key) is None
    again = _publish(store, 3)
    assert _found(store, Keep(9, 0, DAY)) == set()
    [aside] = find_garbage(store.storage, Keep(9, 0, NO_GRACE))
    assert aside.kind == "set aside"
    assert store.root / aside.folder.path == folder
    assert remove(store.storage, [aside], NO_GRACE)
    assert not folder.exists()
    assert store.find("latents", versions[3].key) == again


def test_files_that_a_live_unit_shares_with_a_set_aside_reference_stay(store, versions):
    path = _reference_file(store, versions[3])
    path.with_suffix(".damaged-00000000").write_text(path.read_text())
    [aside] = find_garbage(store.storage, Keep(9, 0, NO_GRACE))
    assert aside.folder is None
    assert remove(store.storage, [aside], NO_GRACE)
    assert store.read_arrays("latents", versions[3].key)["latents"].mean() == 3


def test_files_of_a_dead_writer_are_removed_and_those_of_a_live_one_stay(store, versions):
    parent = _reference_file(store, versions[0]).parent
    dead, live = parent / f"{'ab' * 32}-1", parent / f"{'ab' * 32}-2"
    for folder in (dead, live):
        (folder / "latents" / "c").mkdir(parents=True)
        (folder / "latents" / "c" / "0").write_bytes(b"half")
    temporary = parent / ".reference.json-0123"
    temporary.write_text("{")
    manifest = store.root / "recipes" / "digits" / "latents" / ".current.json-0123"
    manifest.write_text("{")
    for path in (dead, temporary, manifest):
        _make_old(path)
    _make_old(live)
    (live / "latents" / "c" / "1").write_bytes(b"just written")
    found = list(find_garbage(store.storage, Keep(9, 0, DAY)))
    assert {(each.kind, store.root / each.path) for each in found} == {
        ("unfinished", dead),
        ("unfinished", temporary),
        ("unfinished", manifest),
    }
    assert remove(store.storage, found, DAY) == found
    assert live.exists()
    assert not dead.exists()


def test_an_interrupted_removal_is_finished_by_the_next_one(store, versions):
    path = _reference_file(store, versions[0])
    path.rename(path.with_suffix(".removed"))
    found = list(find_garbage(store.storage, STRICT))
    [rest] = [each for each in found if each.kind == "unfinished"]
    assert rest.folder.path.as_posix() == versions[0].path
    assert remove(store.storage, [rest], NO_GRACE)
    assert not (store.root / rest.folder.path).exists()


def test_with_a_damaged_manifest_nothing_is_removed(store, versions):  # noqa: ARG001
    path = store.root / "recipes" / "digits" / "latents" / "current.json"
    path.write_text(json.dumps({"asset": "latents"}))
    with pytest.raises(StoreError, match=r"manifest of latents in .*digits is damaged"):
        list(find_garbage(store.storage, STRICT))


@pytest.mark.parametrize(("name", "kept"), [("current.json", 0), ("current.json", 40), ("2*", 40)])
def test_with_a_manifest_gone_or_cut_short_nothing_is_removed(store, versions, name, kept):  # noqa: ARG001
    path = max((store.root / "recipes" / "digits" / "latents").glob(name))
    text = path.read_text()
    path.unlink()
    if kept:
        path.write_text(text[:kept])
    with pytest.raises(StoreError, match=r"manifest of latents in .*digits is damaged or gone"):
        list(find_garbage(store.storage, STRICT))


def test_a_store_that_does_not_exist_has_no_garbage(tmp_path):
    assert list(find_garbage(FolderStorage(tmp_path / "nowhere"), STRICT)) == []


def test_a_path_in_a_reference_that_leads_elsewhere_is_not_followed(store, versions, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    path = _reference_file(store, versions[0])
    document = json.loads(path.read_text())
    document["path"] = "../precious"
    path.write_text(json.dumps(document))
    for each in list(find_garbage(store.storage, STRICT)):
        assert each.folder is None or ".." not in each.folder.path.parts
        remove(store.storage, [each], NO_GRACE)
    assert precious.exists()
