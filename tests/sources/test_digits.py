"""scikit-learn's digits, with a split that never changes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from d4m.recipe.recipe import Recipe
from d4m.settings import DigitsSettings, RecipeSettings
from d4m.sources import digits
from d4m.sources.digits import DigitsSource
from d4m.sources.registry import open_source

# Both change only if scikit-learn ships other digits or splits them differently. Every score that
# was published with this source would then belong to another test set.
TRAIN_FINGERPRINT = "3a04bcb245a5f00b83061b4a46e841ca732012c2c5e8e1b424851543de4b6fad"
TEST_FINGERPRINT = "a52ba21f1c7c55d7aab3ff679056d5e7f16610b370f5a26a009bfeec2fc4e55a"


@pytest.fixture(scope="module")
def source():
    return DigitsSource(DigitsSettings(source="digits"))


def _counts(source, split):
    return np.array([len(source.index(split, class_id).image_ids) for class_id in range(10)])


def test_there_are_1437_training_and_360_test_images(source):
    assert _counts(source, "train").sum() == 1437
    assert _counts(source, "test").sum() == 360
    assert (source.size_px, source.channels) == (8, 1)


@pytest.mark.parametrize("test_images", [10, 360, 1000])
def test_splits_are_stratified_to_within_one_image(test_images):
    source = DigitsSource(DigitsSettings(source="digits", test_images=test_images))
    train, test = _counts(source, "train"), _counts(source, "test")
    assert test.sum() == test_images
    assert np.abs(test - (train + test) * test_images / 1797).max() < 1


def test_the_split_is_fixed(source):
    assert source.fingerprint("train", 0) == TRAIN_FINGERPRINT
    assert source.fingerprint("test", 9) == TEST_FINGERPRINT


@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_the_split_does_not_depend_on_the_recipes_seed(source, tmp_path, seed):
    settings = RecipeSettings.model_validate({"dataset": {"source": "digits"}, "seed": seed})
    opened = open_source(Recipe(name="mine", folder=tmp_path, settings=settings), tmp_path)
    for split in ("train", "test"):
        for class_id in range(10):
            assert opened.fingerprint(split, class_id) == source.fingerprint(split, class_id)


def test_images_are_scikit_learns_with_17_levels_spread_over_256(source):
    images, labels = load_digits(return_X_y=True)
    seen = 0
    for split in ("train", "test"):
        for class_id in range(10):
            index = source.index(split, class_id)
            rows = [int(image_id.removeprefix("digit-")) for image_id in index.image_ids]
            expected = np.round(images[rows].reshape(-1, 8, 8, 1) * 255 / 16)
            assert (labels[rows] == class_id).all()
            assert np.array_equal(source.read_all(split, class_id, index), expected)
            seen += len(rows)
    assert seen == 1797


def test_the_shipped_split_is_scikit_learns_and_is_found_without_importing_it():
    labels = load_digits(return_X_y=True)[1]
    _, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=0
    )
    shipped = np.loadtxt(Path(digits.__file__).with_name("digits_test.txt"), int)
    assert set(shipped.ravel().tolist()) == set(test.tolist())
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["36", TEST_FINGERPRINT, "False"]


COUNT = """\
import sys
from d4m.settings import DigitsSettings
from d4m.sources.digits import DigitsSource
source = DigitsSource(DigitsSettings(source="digits"))
print(source.count("test", 9), source.fingerprint("test", 9), "sklearn" in sys.modules)
"""


LOOK = """\
import sys
from pathlib import Path
from d4m.settings import DigitsSettings
from d4m.sources.digits import DigitsSource
source = DigitsSource(DigitsSettings(source="digits"), Path(sys.argv[1]))
image = source.read_all("test", 9, source.index("test", 9))[0]
print(source.count("test", 9), source.fingerprint("test", 9), image.sum(), "sklearn" in sys.modules)
"""


def test_digits_are_kept_in_a_file_that_may_be_lost(tmp_path):
    source = DigitsSource(DigitsSettings(source="digits"), tmp_path)
    assert source.fingerprint("test", 9) == TEST_FINGERPRINT
    assert not list(tmp_path.iterdir())  # planning writes nothing
    image = source.read_all("test", 9, source.index("test", 9))[0]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["36", TEST_FINGERPRINT, str(image.sum()), "False"]
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert DigitsSource(DigitsSettings(source="digits"), tmp_path).count("test", 9) == 36
    source.forget()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_of_digits_is_not_believed_and_is_written_again(tmp_path):
    def look():
        found = DigitsSource(DigitsSettings(source="digits"), tmp_path)
        found.index("test", 9)
        return found.fingerprint("test", 9)

    assert look() == TEST_FINGERPRINT
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    for place in range(0, len(whole), 997):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        assert look() == TEST_FINGERPRINT, place
    for short in (b"", whole[:1000]):
        file.write_bytes(short)
        assert look() == TEST_FINGERPRINT
        assert file.read_bytes() == whole


def test_names_are_the_english_words_in_order(source):
    assert source.class_table.names[0] == "zero"
    assert source.class_table.names[7] == "seven"
    assert len(source.class_table) == 10
