"""The validation split: the images that it takes, and that nothing else changes."""

import numpy as np
import pytest

from d4m.settings import DigitsSettings
from d4m.sources.base import ImageIndex
from d4m.sources.digits import DigitsSource
from d4m.sources.held_out import HeldOutSource
from tests.conftest import TINY_RECIPE, Workspace
from tests.sources.folders import fill, open_folder

WHOLE = DigitsSource(DigitsSettings(source="digits"))


class _Reordered(DigitsSource):
    """A source of the digits in another order, as another machine might list a folder."""

    def index(self, split, class_id):
        index = super().index(split, class_id)
        rows = np.arange(len(index.image_ids))[::-1]
        return ImageIndex(
            tuple(index.image_ids[r] for r in rows), index.content_digests[rows], index.unreadable
        )


def test_train_and_validation_are_the_training_images_in_order():
    source = HeldOutSource(WHOLE, 0.2)
    for class_id in range(10):
        whole = WHOLE.index("train", class_id).image_ids
        train, held_out = (source.index(s, class_id).image_ids for s in ("train", "validation"))
        assert len(held_out) == round(0.2 * len(whole))
        assert tuple(image for image in whole if image not in set(held_out)) == train
        assert tuple(image for image in whole if image in set(held_out)) == held_out
        assert source.index("test", class_id).image_ids == WHOLE.index("test", class_id).image_ids


def test_the_choice_of_held_out_images_depends_on_their_contents_not_their_order():
    again = HeldOutSource(_Reordered(DigitsSettings(source="digits")), 0.2)
    for class_id in range(10):
        held_out = HeldOutSource(WHOLE, 0.2).index("validation", class_id).image_ids
        assert set(again.index("validation", class_id).image_ids) == set(held_out)


def test_one_more_image_moves_at_most_one():
    index = WHOLE.index("train", 3)
    source = HeldOutSource(WHOLE, 0.2)
    all_but_one = index.subset(np.arange(1, len(index.image_ids)))

    class Fewer(DigitsSource):
        def index(self, split, class_id):
            return all_but_one if (split, class_id) == ("train", 3) else super().index(split, 3)

    fewer = HeldOutSource(Fewer(DigitsSettings(source="digits")), 0.2)
    before = set(fewer.index("validation", 3).image_ids)
    assert len(before ^ set(source.index("validation", 3).image_ids)) <= 2


def test_without_a_share_there_is_no_such_split_and_every_key_is_the_old_one(workspace: Workspace):
    plain = workspace.pipeline().run_stage("real_images").manifest.units
    assert {name.partition("-")[0] for name in plain} == {"train", "test"}
    workspace.write("held", TINY_RECIPE.replace("digits}", "digits, validation_share: 0.25}"))
    held = workspace.pipeline("held").run_stage("real_images")
    assert {name.partition("-")[0] for name in held.manifest.units} == {
        "train",
        "test",
        "validation",
    }
    assert not [name for name in held.computed if name.startswith("test-")]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_small_classes_hold_out_and_keep_at_least_one(tmp_path, share):
    for split in ("train", "test"):
        for place, name in enumerate(("a", "b")):
            fill(tmp_path / "x" / split / name, 3, start=10 * place)
    source = open_folder(tmp_path / "x", validation_share=share)
    for class_id in range(2):
        counts = {s: len(source.index(s, class_id).image_ids) for s in source.splits}
        assert {s: source.count(s, class_id) for s in source.splits} == counts
        assert min(counts.values()) >= 1
        assert counts["train"] + counts["validation"] == 3
