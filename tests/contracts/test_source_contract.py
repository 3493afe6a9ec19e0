"""What every source of images promises, kept by each of them."""

import numpy as np
import pytest
from PIL import Image

from d4m.errors import SourceChangedError
from d4m.settings import DigitsSettings, ImageFolderSettings
from d4m.sources.base import SPLITS, ImageIndex
from d4m.sources.digits import DigitsSource
from d4m.sources.image_folder import ImageFolderSource

CLASSES = ("ant", "bee", "cat")


class SourceContract:
    """Subclasses say how to open the source, and how to change one of its images."""

    def open(self, folder):
        raise NotImplementedError

    def change_an_image(self, folder, monkeypatch):
        """Change one training image of class 0, and return a source that sees the change."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tmp_path):
        return self.open(tmp_path)

    def _everything(self, source):
        return {
            (split, class_id): source.index(split, class_id)
            for split in SPLITS
            for class_id in range(len(source.class_table))
        }

    def test_there_are_two_classes_or_more_each_with_images_in_both_splits(self, source):
        assert len(source.class_table) >= 2
        for index in self._everything(source).values():
            assert len(index.image_ids) > 0
            assert index.unreadable == {}

    def test_images_are_uint8_squares_of_the_sources_size_and_channels(self, source):
        for (split, class_id), index in self._everything(source).items():
            images = source.read_all(split, class_id, index)
            shape = (len(index.image_ids), source.size_px, source.size_px, source.channels)
            assert images.shape == shape
            assert images.dtype == np.uint8
        assert source.channels in {1, 3}

    def test_no_image_is_in_two_places(self, source):
        ids = [image for index in self._everything(source).values() for image in index.image_ids]
        assert len(set(ids)) == len(ids)

    def test_two_openings_see_the_same_images_in_the_same_order(self, source, tmp_path):
        again = self.open(tmp_path)
        assert again.class_table == source.class_table
        for (split, class_id), index in self._everything(source).items():
            other = again.index(split, class_id)
            assert other.image_ids == index.image_ids
            assert np.array_equal(other.content_digests, index.content_digests)
            assert again.fingerprint(split, class_id) == source.fingerprint(split, class_id)
            assert np.array_equal(
                again.read_all(split, class_id, other), source.read_all(split, class_id, index)
            )

    def test_every_image_has_a_digest_of_32_bytes(self, source):
        for index in self._everything(source).values():
            assert index.content_digests.shape == (len(index.image_ids), 32)
            assert index.content_digests.dtype == np.uint8

    def test_batches_are_the_images_in_order_and_no_larger_than_asked(self, source):
        index = source.index("train", 0)
        batches = list(source.read_images("train", 0, index, batch_size=3))
        assert [len(batch) for batch in batches[:-1]] == [3] * (len(batches) - 1)
        assert 1 <= len(batches[-1]) <= 3
        assert np.array_equal(np.concatenate(batches), source.read_all("train", 0, index))

    def test_an_index_of_some_images_reads_those(self, source):
        whole = source.index("train", 1)
        rows = [len(whole.image_ids) - 1, 0]
        some = ImageIndex(
            tuple(whole.image_ids[row] for row in rows), whole.content_digests[rows], {}
        )
        images = source.read_all("train", 1, whole)
        assert np.array_equal(source.read_all("train", 1, some), images[rows])

    def test_no_images_are_read_as_an_empty_array(self, source):
        images = source.read_all("train", 0, ImageIndex((), np.zeros((0, 32), np.uint8), {}))
        assert images.shape == (0, source.size_px, source.size_px, source.channels)
        assert images.dtype == np.uint8

    def test_classes_and_splits_have_fingerprints_of_their_own(self, source):
        fingerprints = {
            source.fingerprint(split, class_id)
            for split in SPLITS
            for class_id in range(len(source.class_table))
        }
        assert len(fingerprints) == 2 * len(source.class_table)

    def test_an_image_that_changed_after_indexing_is_refused(self, source, tmp_path, monkeypatch):
        index = source.index("train", 0)
        changed = self.change_an_image(tmp_path, monkeypatch)
        with pytest.raises(SourceChangedError, match=r"of class 0 .*has changed since"):
            changed.read_all("train", 0, index)
        assert len(changed.read_all("train", 0, changed.index("train", 0))) > 0

    def test_a_change_shows_in_the_fingerprint_of_its_class_and_no_other(
        self, source, tmp_path, monkeypatch
    ):
        before = {key: source.fingerprint(*key) for key in self._everything(source)}
        changed = self.change_an_image(tmp_path, monkeypatch)
        after = {key: changed.fingerprint(*key) for key in before}
        assert {key for key in before if before[key] != after[key]} == {("train", 0)}


class TestDigits(SourceContract):
    def open(self, folder):  # noqa: ARG002
        return DigitsSource(DigitsSettings(source="digits"))

    def change_an_image(self, folder, monkeypatch):
        """As if another version of scikit-learn shipped another image."""
        source = self.open(folder)
        row = int(source.index("train", 0).image_ids[2].removeprefix("digit-"))
        images = source._images.copy()
        images[row, 0, 0, 0] ^= 255
        monkeypatch.setattr(source, "_images", images)
        return source


class TestImageFolder(SourceContract):
    def open(self, folder):
        root = folder / "images"
        if not root.exists():
            random = np.random.default_rng(0)
            for name in CLASSES:
                (root / name).mkdir(parents=True)
                for number in range(14):
                    pixels = random.integers(0, 256, (9, 12, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
        settings = ImageFolderSettings(source="image_folder", path=root, size_px=8, test_share=0.3)
        return ImageFolderSource(settings, root)

    def change_an_image(self, folder, monkeypatch):  # noqa: ARG002
        source = self.open(folder)
        file = folder / "images" / source.index("train", 0).image_ids[2]
        Image.new("RGB", (10, 10), "red").save(file)
        return self.open(folder)
