"""CIFAR from files in torchvision's format: our own small batches, without its MD5 checks."""

import pickle
import re
import sys

import numpy as np
import pytest
import torchvision
from PIL import Image

from d4m.errors import SourceError
from d4m.settings import CifarSettings
from d4m.sources.cifar import CifarSource
from d4m.sources.class_table import shipped_class_table
from tests.contracts.test_source_contract import trust_any_cifar, write_cifar10


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write CIFAR-10 with 50 images per batch."""
    trust_any_cifar(monkeypatch)
    write_cifar10(tmp_path, np.random.default_rng(0))
    return tmp_path


def _open(path, source="cifar10", **settings):
    return CifarSource(CifarSettings.model_validate({"source": source, **settings}), path)


def _write_cifar100(folder, names):
    random = np.random.default_rng(0)
    inner = folder / "cifar-100-python"
    inner.mkdir()
    for name, count in (("train", 200), ("test", 100)):
        data = random.integers(0, 256, (count, 3072)).astype(np.uint8)
        labels = [99 - n % 100 for n in range(count)]
        batch = {"data": data, "fine_labels": labels, "coarse_labels": [0] * count}
        (inner / name).write_bytes(pickle.dumps(batch))
    (inner / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))


def test_images_are_torchvisions_in_the_order_of_the_batches(folder):
    source = _open(folder)
    for split in ("train", "test"):
        theirs = torchvision.datasets.CIFAR10(folder, train=split == "train")
        index = source.index(split, 3)
        rows = [n for n, (_, label) in enumerate(theirs) if label == 3]
        assert index.image_ids == tuple(f"{split}-{row:05d}" for row in rows)
        expected = np.stack([np.asarray(theirs[row][0]) for row in rows])
        assert np.array_equal(source.read_all(split, 3, index), expected)


def test_names_are_those_of_the_labels(folder):
    assert _open(folder).class_table.names[:3] == ("airplane", "automobile", "bird")
    assert len(_open(folder, "cifar100").class_table) == 100


def test_fine_labels_are_the_classes_of_cifar100(tmp_path, monkeypatch):
    trust_any_cifar(monkeypatch)
    _write_cifar100(tmp_path, [row.folder for row in shipped_class_table("cifar100")])
    index = _open(tmp_path, "cifar100").index("train", 99)
    assert index.image_ids == ("train-00000", "train-00100")


def test_names_in_another_order_than_the_labels_are_refused(tmp_path, monkeypatch):
    """The published code orders names like this: by super-class, fish next to fish."""
    trust_any_cifar(monkeypatch)
    names = [row.folder for row in shipped_class_table("cifar100")]
    names[1], names[32] = names[32], names[1]
    _write_cifar100(tmp_path, names)
    wanted = r"class 1 is \['aquarium_fish'\] in the table and \['flatfish'\] in .*cifar-100-python"
    with pytest.raises(SourceError, match=wanted):
        _open(tmp_path, "cifar100").index("train", 0)
    _rewrite(tmp_path / "cifar-100-python" / "meta", {"fine_label_names": names[:99]})
    with pytest.raises(SourceError, match=r"class 1 is"):
        _open(tmp_path, "cifar100").index("train", 0)


def _rewrite(path, content):
    path.write_bytes(pickle.dumps(content))


def test_a_missing_last_name_is_refused(folder):
    names = [row.folder for row in shipped_class_table("cifar10")]
    _rewrite(folder / "cifar-10-batches-py" / "batches.meta", {"label_names": names[:9]})
    with pytest.raises(SourceError, match=r"class 9 is \['truck'\] in the table and \[\] in"):
        _open(folder).index("train", 0)


def test_grey_and_other_sizes_are_pillows(folder):
    index = _open(folder).index("test", 0)
    colour = _open(folder).read_all("test", 0, index)
    grey = _open(folder, channels=1, size_px=16).read_all("test", 0, index)
    assert grey.shape == (5, 16, 16, 1)
    image = Image.fromarray(colour[2]).convert("L").resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(grey[2, ..., 0], np.asarray(image))


def test_fingerprints_and_names_need_neither_images_nor_torchvision(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    source = _open(folder)
    before = source.fingerprint("train", 0)
    (folder / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"garbage")
    assert _open(folder).fingerprint("train", 0) != before
    assert _open(folder).fingerprint("test", 0) == source.fingerprint("test", 0)


def test_a_folder_without_the_files_is_refused_with_what_is_missing(folder):
    (folder / "cifar-10-batches-py" / "data_batch_4").unlink()
    wanted = (
        rf"wanted data_batch_1, .* in {folder}/cifar-10-batches-py, found no data_batch_4; unpa"
    )
    with pytest.raises(SourceError, match=wanted):
        _open(folder).fingerprint("test", 0)


def test_files_other_than_the_published_ones_are_refused(tmp_path):
    write_cifar10(tmp_path, np.random.default_rng(0))
    with pytest.raises(SourceError, match=r"does not hold cifar10 as published .*remove it"):
        _open(tmp_path).index("train", 0)


def test_without_network_and_files_the_message_names_the_searched_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/nothing.tar.gz")
    wanted = (
        rf"wanted cifar10, found no cifar-10-batches-py in {tmp_path}/d4m/cifar, and it could not "
        r"be downloaded \(.*Connection refused.*\); put torchvision's copy there, or name"
    )
    with pytest.raises(SourceError, match=wanted):
        _open(None).fingerprint("train", 0)


def test_the_cache_folder_is_used_without_a_path(folder, monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / ".cache" / "d4m").mkdir(parents=True)
    (home / ".cache" / "d4m" / "cifar").symlink_to(folder)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert _open(None).fingerprint("train", 0) == _open(folder).fingerprint("train", 0)


def test_file_names_are_torchvisions():
    from d4m.sources.cifar import _FILES

    for name, kind in (("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")):
        theirs, ours = getattr(torchvision.datasets, kind), _FILES[name]
        assert ours.folder == theirs.base_folder
        assert ours.names == theirs.meta["filename"]
        assert ours.batches["train"] == tuple(file for file, _ in theirs.train_list)
        assert ours.batches["test"] == tuple(file for file, _ in theirs.test_list)
        assert re.fullmatch(r"https://.*", theirs.url)
