"""Images in files are decoded by threads, with the pixels, order and errors of one thread."""

import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from d4m.errors import SourceChangedError
from d4m.settings import ImageFolderSettings
from d4m.sources import base
from d4m.sources.file_digests import FileDigests
from d4m.sources.image_folder import ImageFolderSource

COUNT = 9


@pytest.fixture
def source(tmp_path):
    for name in ("ant", "bee"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(COUNT):
            pixels = np.random.default_rng(number).integers(0, 256, (13, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
    settings = ImageFolderSettings(
        source="image_folder", path=str(tmp_path / "images"), size_px=8, test_share=0.2
    )
    return ImageFolderSource(settings, tmp_path / "images", digests=FileDigests(tmp_path))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("bytes_ahead", [0, 3 * 8 * 8 * 2, 64 << 20])
def test_images_read_by_threads_are_those_read_by_none(
    source, batch_size, bytes_ahead, monkeypatch
):
    monkeypatch.setattr(base, "_BYTES_AHEAD", bytes_ahead)
    index, threads = source.index("train", 0), set[int]()
    decode = source._decode

    def watched(content, size):
        threads.add(threading.get_ident())
        return decode(content, size)

    monkeypatch.setattr(source, "_decode", watched)
    read = np.concatenate(list(source.read_images("train", 0, index, batch_size=batch_size)))
    assert threading.get_ident() not in threads
    monkeypatch.setattr(source, "in_files", False)
    alone = np.concatenate(list(source.read_images("train", 0, index, batch_size=batch_size)))
    assert threading.get_ident() in threads
    assert len(read) == len(index.image_ids) > 5
    assert np.array_equal(read, alone)


def test_a_file_that_changed_is_refused_after_the_batches_before_it(source, tmp_path):
    index = source.index("train", 0)
    (tmp_path / "images" / index.image_ids[4]).write_bytes(b"something else")
    batches = source.read_images("train", 0, index, batch_size=2)
    assert [len(next(batches)), len(next(batches))] == [2, 2]
    with pytest.raises(SourceChangedError, match="has changed since it was indexed"):
        next(batches)
    assert not [each for each in threading.enumerate() if each.name.startswith("d4m-ahead")]


def test_warnings_of_pillow_do_not_reach_the_reader(source, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13 * 17 - 1)  # above it, Pillow warns
    index = source.index("train", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum(map(len, source.read_images("train", 0, index, batch_size=4))) > 5
