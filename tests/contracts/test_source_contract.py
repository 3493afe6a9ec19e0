"""The promises that every source of images must keep."""

import json
import os
import pickle
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from d4m.errors import SourceChangedError
from d4m.settings import (
    CentreCropSettings,
    CifarSettings,
    DigitsSettings,
    HuggingFaceSettings,
    ImageFolderSettings,
    MnistSettings,
)
from d4m.sources.base import ImageIndex
from d4m.sources.cifar import CifarSource
from d4m.sources.class_table import shipped_class_table
from d4m.sources.digits import DigitsSource
from d4m.sources.distinct import DistinctSource
from d4m.sources.file_digests import FileDigests
from d4m.sources.held_out import HeldOutSource
from d4m.sources.huggingface import HuggingFaceSource
from d4m.sources.idx import IdxSource
from d4m.sources.image_folder import ImageFolderSource

CLASSES = ("ant", "bee", "cat")


class SourceContract:
    """The tests that a source must pass, in a subclass that opens the source and changes an image.

    Attributes:
        fingerprints_follow: the classes whose fingerprints change with one image: its own `class`,
            or every class of its `split` or of the `data set` if one file holds them all.
    """

    fingerprints_follow = "class"

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
            for split in source.splits
            for class_id in range(len(source.class_table))
        }

    def test_there_are_two_classes_or_more_each_with_images_in_both_splits(self, source):
        assert len(source.class_table) >= 2
        for index in self._everything(source).values():
            assert len(index.image_ids) > 0
            assert index.unreadable == {}

    def test_no_more_images_are_listed_than_counted(self, source):
        for (split, class_id), index in self._everything(source).items():
            assert source.count(split, class_id) >= len(index.image_ids)

    def test_a_source_says_in_one_line_what_it_takes_for_what(self, source):
        assert "\n" not in source.describe()

    def test_images_are_uint8_squares_of_the_sources_size_and_channels(self, source):
        for (split, class_id), index in self._everything(source).items():
            images = source.read_all(split, class_id, index)
            shape = (len(index.image_ids), source.size_px, source.size_px, source.channels)
            assert images.shape == shape
            assert images.dtype == np.uint8
        assert source.channels in {1, 3}

    def test_images_can_be_read_in_another_size(self, source):
        index = source.index("train", 1)
        own = source.read_all("train", 1, index)
        for size_px in (source.size_px + 5, 5):
            images = np.concatenate(
                list(source.read_images("train", 1, index, size_px=size_px, batch_size=7))
            )
            assert images.shape == (len(own), size_px, size_px, source.channels)
            assert images.dtype == np.uint8
            assert images.mean() == pytest.approx(own.mean(), rel=0.1)
        asked = source.read_images("train", 1, index, size_px=source.size_px)
        assert np.array_equal(np.concatenate(list(asked)), own)

    def test_a_centre_of_the_images_can_be_read(self, source):
        index = source.index("train", 1)
        own = source.read_all("train", 1, index)
        crop = CentreCropSettings(resize_px=20, crop_px=12)
        batches = list(source.read_images("train", 1, index, crop=crop, batch_size=7))
        images = np.concatenate(batches)
        assert images.shape == (len(own), 12, 12, source.channels)
        assert images.dtype == np.uint8
        large = list(source.read_images("train", 1, index, size_px=20, batch_size=7))
        # Squares are squeezed as they are centred; filters differ by less than a level on average.
        assert images.mean() == pytest.approx(np.concatenate(large)[:, 4:16, 4:16].mean(), abs=3)

    def test_how_bytes_are_decoded_is_json(self, source, tmp_path):
        assert json.loads(json.dumps(dict(source.decoding))) == dict(source.decoding)
        assert dict(self.open(tmp_path).decoding) == dict(source.decoding)
        assert "size_px" not in source.decoding

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

    def test_a_worker_in_another_process_sees_the_same_images(self, source):
        from ray import cloudpickle  # as Ray sends it

        index = source.index("train", 1)
        sent = cloudpickle.loads(cloudpickle.dumps(source))
        assert np.array_equal(sent.index("train", 1).content_digests, index.content_digests)
        assert np.array_equal(sent.read_all("train", 1, index), source.read_all("train", 1, index))

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

    def test_an_index_of_some_images_reads_only_those(self, source):
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
            for split in source.splits
            for class_id in range(len(source.class_table))
        }
        assert len(fingerprints) == len(source.splits) * len(source.class_table)

    def test_an_image_that_changed_after_indexing_is_refused(self, source, tmp_path, monkeypatch):
        index = source.index("train", 0)
        changed = self.change_an_image(tmp_path, monkeypatch)
        with pytest.raises(SourceChangedError, match=r"of class 0 .*has changed since"):
            changed.read_all("train", 0, index)
        assert len(changed.read_all("train", 0, changed.index("train", 0))) > 0

    def test_a_change_shows_in_the_fingerprint_and_in_the_index_of_its_class_alone(
        self, source, tmp_path, monkeypatch
    ):
        before = self._everything(source)
        prints = {key: source.fingerprint(*key) for key in before}
        changed = self.change_an_image(tmp_path, monkeypatch)
        after = self._everything(changed)
        moved = {key for key in prints if prints[key] != changed.fingerprint(*key)}
        assert moved == {
            key
            for key in prints
            if key == ("train", 0)
            or (self.fingerprints_follow == "split" and key[0] == "train")
            or self.fingerprints_follow == "data set"
        }
        other = {
            key
            for key in before
            if not np.array_equal(before[key].content_digests, after[key].content_digests)
        }
        assert other == {("train", 0)}


class TestDigits(SourceContract):
    def open(self, folder):  # noqa: ARG002
        return DigitsSource(DigitsSettings(source="digits"))

    def change_an_image(self, folder, monkeypatch):
        """Simulate a version of scikit-learn that ships another image."""
        source = self.open(folder)
        row = int(source.index("train", 0).image_ids[2].removeprefix("digit-"))
        images = source._images.copy()
        images[row, 0, 0, 0] ^= 255
        monkeypatch.setattr(source, "_arrays", {**source._arrays, "images": images})
        return source


class TestHeldOut(TestDigits):
    def open(self, folder):
        return HeldOutSource(super().open(folder), 0.2)

    def change_an_image(self, folder, monkeypatch):
        return HeldOutSource(TestDigits().change_an_image(folder, monkeypatch), 0.2)

    def test_a_change_shows_in_the_fingerprint_and_in_the_index_of_its_class_alone(
        self, source, tmp_path, monkeypatch
    ):
        before = {key: source.fingerprint(*key) for key in self._everything(source)}
        changed = self.change_an_image(tmp_path, monkeypatch)
        moved = {key for key in before if before[key] != changed.fingerprint(*key)}
        assert moved == {("train", 0), ("validation", 0)}


class TestDistinct(TestDigits):
    fingerprints_follow = "data set"

    def open(self, folder):
        return DistinctSource(super().open(folder))

    def change_an_image(self, folder, monkeypatch):
        return DistinctSource(TestDigits().change_an_image(folder, monkeypatch))


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
        return ImageFolderSource(settings, root, digests=FileDigests(folder / "cache"))

    def change_an_image(self, folder, monkeypatch):  # noqa: ARG002
        source = self.open(folder)
        file = folder / "images" / source.index("train", 0).image_ids[2]
        Image.new("RGB", (10, 10), "red").save(file)
        return self.open(folder)


class TestIdx(SourceContract):
    fingerprints_follow = "split"

    def open(self, folder):
        root = folder / "idx"
        if not root.exists():
            root.mkdir()
            random = np.random.default_rng(0)
            for split, count in (("train", 60), ("t10k", 30)):
                images = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
                self._write(root, split, images)
                labels = struct.pack(">II", 0x801, count) + bytes(n % 10 for n in range(count))
                (root / f"{split}-labels-idx1-ubyte").write_bytes(labels)
        return IdxSource(MnistSettings(source="mnist"), root)

    def change_an_image(self, folder, monkeypatch):  # noqa: ARG002
        path = folder / "idx" / "train-images-idx3-ubyte"
        images = np.frombuffer(path.read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28).copy()
        images[20, 0, 0] ^= 255
        self._write(folder / "idx", "train", images)
        os.utime(path, (1, 1))
        return self.open(folder)

    def _write(self, root, split, images):
        header = struct.pack(">IIII", 0x803, *images.shape)
        (root / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())


def write_cifar10(root, random, count=50):
    """Write batches in the published format, five for training and one for testing."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, (count, 3072)).astype(np.uint8)
        batch = {"data": data, "labels": [n % 10 for n in range(count)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    names = [row.folder for row in shipped_class_table("cifar10")]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def trust_any_cifar(monkeypatch):
    """Disable torchvision's MD5 checks, so that it reads batches other than the published ones."""
    from torchvision.datasets import CIFAR10, CIFAR100

    for kind in (CIFAR10, CIFAR100):
        for files in ("train_list", "test_list"):
            unchecked = [[name, None] for name, _ in getattr(kind, files)]
            monkeypatch.setattr(kind, files, unchecked)
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})


class TestCifar(SourceContract):
    fingerprints_follow = "split"

    @pytest.fixture(autouse=True)
    def _any_batches(self, monkeypatch):
        trust_any_cifar(monkeypatch)

    def open(self, folder):
        root = folder / "cifar"
        if not root.exists():
            write_cifar10(root, np.random.default_rng(0))
        return CifarSource(CifarSettings(source="cifar10"), root)

    def change_an_image(self, folder, monkeypatch):  # noqa: ARG002
        path = folder / "cifar" / "cifar-10-batches-py" / "data_batch_3"
        batch = pickle.loads(path.read_bytes())  # noqa: S301
        batch["data"][10, 0] ^= 255
        path.write_bytes(pickle.dumps(batch))
        os.utime(path, (1, 1))
        return self.open(folder)


def encode_png(pixels):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def save_huggingface(folder, contents, labels, names=CLASSES):
    """Save a data set of one split in the format of the library's `save_to_disk`."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    label = ClassLabel(names=list(names))
    rows = {"image": [{"bytes": b, "path": None} for b in contents], "label": labels}
    dataset = Dataset.from_dict(rows, features=Features({"image": ImageColumn(), "label": label}))
    dataset.save_to_disk(str(folder))


@pytest.fixture(autouse=True)
def _no_progress_bars():
    import datasets

    datasets.disable_progress_bars()


class TestHuggingFace(SourceContract):
    fingerprints_follow = "data set"

    def open(self, folder):
        root = folder / "saved"
        if not root.exists():
            self._save(root, self._contents())
        settings = HuggingFaceSettings(
            source="huggingface", path=str(root), size_px=8, test_split=None, test_share=0.3
        )
        return HuggingFaceSource(settings, root)

    def change_an_image(self, folder, monkeypatch):  # noqa: ARG002
        row = int(self.open(folder).index("train", 0).image_ids[2].split("-")[1])
        contents = self._contents()
        contents[row] = encode_png(np.zeros((9, 12, 3), np.uint8))
        self._save(folder / "changed", contents)
        (folder / "saved").rename(folder / "before")
        (folder / "changed").rename(folder / "saved")
        return self.open(folder)

    def _save(self, root, contents):
        save_huggingface(root, contents, [n % 3 for n in range(len(contents))])

    def _contents(self):
        random = np.random.default_rng(0)
        sizes = [(9, 12, 3)] * 45
        return [encode_png(random.integers(0, 256, size).astype(np.uint8)) for size in sizes]
