"""Earlier versions of artifacts: found, explained, compared, kept readable."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from d4m.errors import StoreError
from d4m.reports.dataset_diff import DatasetVersion, compare_datasets, draw_side_by_side
from d4m.reports.versions import find_version, version_changes
from tests.conftest import PROMPTED, SECOND_STUDENT


@pytest.fixture(scope="module")
def edited_once(prompted_once, tmp_path_factory):
    """Return a workspace with three runs: the tiny recipe, another prompt, fewer images."""
    made = prompted_once.copy(tmp_path_factory.mktemp("edited") / "workspace")
    made.write("tiny", PROMPTED.replace("ipc: 3", "ipc: 2"))
    made.run()
    return made


@pytest.fixture
def edited(edited_once, tmp_path):
    return edited_once.copy(tmp_path / "workspace")


def _dataset(context, name):
    return DatasetVersion.open(context, find_version(context, "distilled_dataset", name))


def test_every_version_says_what_changed_and_why(edited):
    changes = version_changes(edited.pipeline().open_context(), "synthetic_images")
    assert [len(change.changed) for change in changes] == [10, 1, 10]
    assert changes[0].reason == "the first one kept"
    assert changes[1].changed == ("class-00003",)
    assert changes[1].reason == "class-00003: prompt changed from 'three' to 'a [b]bold[/b] three'"
    assert changes[2].reason == "class-00000: prototypes/class-00000 changed"
    assert len(version_changes(edited.pipeline().open_context(), "latents")) == 1


def test_units_that_are_gone_are_named(edited):
    text = PROMPTED.replace("ipc: 3", "ipc: 2").replace(
        "epochs: 4, epochs_per_block: 2", "epochs: 2"
    )
    edited.write("tiny", text)
    edited.run()
    change = version_changes(edited.pipeline().open_context(), "soft_labels")[-1]
    assert (change.changed, change.gone) == ((), ("epochs-000002",))
    assert change.reason == "units are gone"


def test_a_version_whose_units_were_removed_is_still_listed(edited):
    context = edited.pipeline().open_context()
    record = find_version(context, "synthetic_images", "previous").manifest.units["class-00003"]
    path = edited.store / "objects" / "synthetic_images" / record.key[:2] / f"{record.key}.json"
    path.unlink()
    changes = version_changes(context, "synthetic_images")
    gone = "class-00003 was made of other inputs, and one of the two units is gone"
    assert changes[1].reason == gone
    assert len(changes) == 3


def test_versions_are_found_by_name_digest_or_place(edited):
    context = edited.pipeline().open_context()
    versions = context.manifests.versions("latents")
    assert find_version(context, "latents", "current") == versions[0]
    versions = context.manifests.versions("synthetic_images")
    assert find_version(context, "synthetic_images", "previous") == versions[1]
    for version in versions:
        assert find_version(context, "synthetic_images", version.name) == version
        assert find_version(context, "synthetic_images", version.manifest.digest[:8]) == version
    with pytest.raises(StoreError, match="found 3 whose name or digest begins with '2'"):
        find_version(context, "synthetic_images", "2")
    with pytest.raises(StoreError, match=r"found 0 .*`d4m history tiny latents` lists all"):
        find_version(context, "latents", "ffff")
    with pytest.raises(StoreError, match=r"previous version of latents .*, which has 1 in all"):
        find_version(context, "latents", "previous")
    with pytest.raises(
        StoreError, match="recipe tiny has made no 'latent' yet; it has made baseline_images, dist"
    ):
        version_changes(context, "latent")


def test_two_data_sets_differ_in_what_was_edited_and_what_follows(edited):
    context = edited.pipeline().open_context()
    names = [version.name for version in context.manifests.versions("distilled_dataset")]
    first, second, third = (_dataset(context, name) for name in names)
    found = compare_datasets(first, second)
    assert found.settings == [
        "prompts.per_class.three changed from unset to 'a [b]bold[/b] three'",
        "prompt of class 3 (three) changed from 'three' to 'a [b]bold[/b] three'",
    ]
    assert found.class_ids == [3]
    assert found.units["synthetic_images"] == (1, 10)
    assert found.units["soft_labels"] == (2, 2)
    assert found.units["evaluation_scores"] == (6, 19)
    by_row = {score.row: score for score in found.scores}
    assert len(by_row) == 10
    assert by_row["full_data, hard, convnet3"].top1.difference == 0.0
    soft = by_row["synthetic, soft, convnet3"].balanced
    rows = [
        next(row for row in each.scores if row.label == "synthetic, soft, convnet3")
        for each in (first, second)
    ]
    assert (soft.before, soft.after) == (rows[0].balanced, rows[1].balanced)
    assert soft.difference == rows[1].balanced - rows[0].balanced
    assert compare_datasets(second, third).settings == ["prototypes.ipc changed from 3 to 2"]
    nothing = compare_datasets(third, third)
    assert (nothing.settings, nothing.class_ids) == ([], [])
    assert {changed for changed, _ in nothing.units.values()} == {0}


def test_classes_and_artifacts_that_only_one_version_has_are_counted_and_not_drawn(edited):
    context = edited.pipeline().open_context()
    whole = _dataset(context, "current")
    kept = {n: d for n, d in whole.upstream.items() if "00009" not in n and "soft_" not in n}
    changed = kept | {"synthetic_images/class-00002": "other"}
    less = replace(whole, classes=whole.classes[:9], upstream=changed)
    assert compare_datasets(less, whole).class_ids == [2]
    assert compare_datasets(less, whole).units["synthetic_images"] == (2, 10)
    assert compare_datasets(whole, less).units["soft_labels"] == (2, 0)
    assert compare_datasets(whole, less).class_ids == [2]


def test_rows_of_one_version_alone_have_no_difference(edited):
    edited.write("tiny", PROMPTED.replace(SECOND_STUDENT, "test_resnet"))
    edited.run()
    context = edited.pipeline().open_context()
    found = compare_datasets(_dataset(context, "previous"), _dataset(context, "current"))
    by_row = {score.row: score for score in found.scores}
    assert by_row["synthetic, soft, test_vit"].top1.after is None
    assert by_row["synthetic, soft, test_resnet"].top1.before is None
    assert by_row["synthetic, soft, test_resnet"].top1.difference is None


def test_the_picture_shows_the_old_images_left_and_the_new_ones_right(edited):
    context = edited.pipeline().open_context()
    versions = context.manifests.versions("distilled_dataset")
    old, new = (_dataset(context, version.name) for version in versions[:2])
    sheet = np.asarray(draw_side_by_side(old, new, [3]))
    gap = (sheet.shape[1] - 24) // 2
    left, right = sheet[:, :gap], sheet[:, gap + 24 :]
    assert left.shape == right.shape
    assert not np.array_equal(left, right)
    file = new.folder / "images" / "00003" / "00001.png"
    image = Image.open(file).convert("RGB").resize((64, 64), Image.Resampling.NEAREST)
    assert np.array_equal(right[4:68, 110 + 68 : 110 + 132], np.asarray(image))


def test_a_version_that_is_no_longer_stored_cannot_be_opened(edited):
    context = edited.pipeline().open_context()
    version = find_version(context, "distilled_dataset", "previous")
    [record] = version.manifest.units.values()
    path = edited.store / "objects" / "distilled_dataset" / record.key[:2] / f"{record.key}.json"
    path.unlink()
    with pytest.raises(StoreError, match=f"version {version.name} of recipe tiny is no longer"):
        DatasetVersion.open(context, version)
