"""Manifests: the units of a recipe's artifacts, now and in earlier versions."""

from pathlib import Path

import numpy as np
import pytest

from d4m.errors import StoreError
from d4m.store.digest import digest_json
from d4m.store.durable import write_atomically
from d4m.store.folder_storage import FolderStorage
from d4m.store.manifest import Manifest, ManifestFolder, UnitRecord

_UNITS = {
    "class-00000": UnitRecord("ab" * 32, "01" * 32),
    "class-00001": UnitRecord("cd" * 32, "23" * 32),
}
_MANIFEST = Manifest("latents", "1", _UNITS)


@pytest.fixture
def manifests(tmp_path):
    return ManifestFolder(FolderStorage(tmp_path / "store"), "digits")


def _folder(manifests):
    return Path(manifests.storage.locate(manifests.folder))


def _history(manifests):
    names = {path.name for path in (_folder(manifests) / "latents").iterdir()}
    return sorted(names - {"current.json"})


def test_what_is_published_is_read_back(manifests):
    manifests.publish(_MANIFEST)
    found = manifests.current("latents")
    assert found == _MANIFEST
    assert list(found.units) == list(_UNITS)


def test_an_artifact_that_was_never_made_has_no_manifest_and_asking_writes_nothing(
    manifests, tmp_path
):
    assert manifests.current("latents") is None
    assert list(tmp_path.iterdir()) == []


def test_history_keeps_every_version_and_nothing_twice(manifests):
    changed_digest = {**_UNITS, "class-00001": UnitRecord("cd" * 32, "45" * 32)}
    changed_key = {**_UNITS, "class-00001": UnitRecord("ef" * 32, "23" * 32)}
    versions = [
        _MANIFEST,
        Manifest("latents", "1", changed_digest),
        Manifest("latents", "1", changed_key),
        Manifest("latents", "2", changed_key),
        _MANIFEST,
    ]
    for number, version in enumerate(versions, start=1):
        for _ in range(2):  # the second time nothing has changed
            manifests.publish(version)
            assert len(_history(manifests)) == number
        assert manifests.current("latents") == version
    current = (_folder(manifests) / "latents" / "current.json").read_bytes()
    newest = _folder(manifests) / "latents" / _history(manifests)[-1]
    assert newest.read_bytes() == current


def test_publishing_leaves_no_temporary_files(manifests):
    manifests.publish(_MANIFEST)
    names = [path.name for path in _folder(manifests).rglob("*") if path.is_file()]
    assert len(names) == 2
    assert not [name for name in names if name.startswith(".")]


def test_digest_depends_on_names_and_digests_of_units_and_on_nothing_else():
    by_hand = digest_json({"class-00000": "01" * 32, "class-00001": "23" * 32})
    assert _MANIFEST.digest == by_hand
    other_keys = {name: UnitRecord("ff" * 32, unit.digest) for name, unit in _UNITS.items()}
    assert Manifest("latents", "2", dict(reversed(other_keys.items()))).digest == by_hand
    renamed = {name.replace("1", "2"): unit for name, unit in _UNITS.items()}
    assert Manifest("latents", "1", renamed).digest != by_hand
    swapped = dict(zip(_UNITS, reversed(_UNITS.values()), strict=True))
    assert Manifest("latents", "1", swapped).digest != by_hand


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '"latents"', "{}", '{"asset":"latents","version":"1","units":[]}',
     '{"asset":"latents","version":"1","units":{"class-00000":{"key":"ab"}}}',
     '{"asset":"latents","version":"1","units":{"class-00000":7}}', "\x00\x01"],
)  # fmt: skip
def test_a_damaged_manifest_counts_as_not_made_and_is_replaced(manifests, caplog, text):
    manifests.publish(_MANIFEST)
    path = _folder(manifests) / "latents" / "current.json"
    path.write_text(text)
    assert manifests.current("latents") is None
    assert str(path) in caplog.text
    assert "counts as not made" in caplog.text
    manifests.publish(_MANIFEST)
    assert manifests.current("latents") == _MANIFEST


def test_a_manifest_cut_short_anywhere_counts_as_not_made(manifests):
    manifests.publish(_MANIFEST)
    path = _folder(manifests) / "latents" / "current.json"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert manifests.current("latents") is None


def test_a_manifest_with_a_flipped_bit_never_raises(manifests):
    manifests.publish(_MANIFEST)
    path = _folder(manifests) / "latents" / "current.json"
    content = path.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(content), 500, replace=False):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        manifests.current("latents")


def test_manifests_that_cannot_be_read_or_written_are_errors_that_name_the_file(manifests):
    _folder(manifests).mkdir(parents=True)
    (_folder(manifests) / "latents").write_text("a file where a folder is needed")
    path = _folder(manifests) / "latents" / "current.json"
    with pytest.raises(StoreError, match=f"cannot read the manifest {path}: "):
        manifests.current("latents")
    with pytest.raises(StoreError, match=f"cannot write {path}: "):
        write_atomically(path, "{}")


def test_recipes_and_artifacts_do_not_see_each_other(manifests):
    other_recipe = ManifestFolder(manifests.storage, "other")
    manifests.publish(_MANIFEST)
    assert manifests.current("prototypes") is None
    assert other_recipe.current("latents") is None


def test_versions_are_read_back_in_order_and_broken_ones_left_out(manifests, caplog):
    changed = Manifest("latents", "2", _UNITS)
    for manifest in (_MANIFEST, changed, _MANIFEST):
        manifests.publish(manifest)
    versions = manifests.versions("latents")
    assert [version.manifest for version in versions] == [_MANIFEST, changed, _MANIFEST]
    assert [version.made for version in versions] == sorted({v.made for v in versions})
    assert all(version.name.endswith(_MANIFEST.digest[:8]) for version in versions)
    folder = _folder(manifests) / "latents"
    (folder / f"{versions[1].name}.json").write_text("{")
    (folder / "notes.json").write_text("[]")
    assert manifests.versions("latents") == [versions[0], versions[2]]
    assert f"{versions[1].name}.json is not a manifest" in caplog.text
    assert manifests.versions("prototypes") == []
    assert manifests.assets() == ["latents"]


def test_a_clock_that_was_set_back_does_not_change_the_order_of_versions(manifests):
    manifests.publish(_MANIFEST)
    folder = _folder(manifests) / "latents"
    [name] = _history(manifests)
    (folder / name).rename(folder / f"29991231T235959.999999Z-{name[-13:]}")
    later = Manifest("latents", "2", _UNITS)
    manifests.publish(later)
    versions = manifests.versions("latents")
    assert [version.manifest for version in versions] == [_MANIFEST, later]
    assert versions[1].name.startswith("30000101T000000.000000Z-")


def _of(folder, recipes):
    """The manifests of `digits.yaml` in a folder of recipes, in a store next to these."""
    file = recipes / "digits.yaml"
    file.parent.mkdir(exist_ok=True)
    file.touch()
    return ManifestFolder(FolderStorage(folder), "digits", file)


def test_a_recipe_keeps_its_manifests_while_another_ones_file_is_away(tmp_path):
    first, second = (_of(tmp_path / "store", tmp_path / name) for name in ("ada", "bob"))
    first.publish(_MANIFEST)
    second.publish(_MANIFEST)
    assert (first.folder.name, second.folder.name[:7]) == ("digits", "digits~")
    (tmp_path / "ada").rename(tmp_path / "away")
    again = _of(tmp_path / "store", tmp_path / "bob")
    assert again.folder == second.folder
    moved = _of(tmp_path / "store", tmp_path / "away")  # as one that was moved for good
    assert moved.folder == first.folder


def test_a_store_that_is_a_link_keeps_recipes_of_one_name_apart(tmp_path):
    (tmp_path / "disk" / "store").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "store").symlink_to(tmp_path / "disk" / "store")
    first, second = (
        _of(tmp_path / "linked" / "store", tmp_path / "linked" / name) for name in ("ada", "bob")
    )
    first.publish(_MANIFEST)
    assert second.current("latents") is None
    assert first.current("latents") == _MANIFEST
