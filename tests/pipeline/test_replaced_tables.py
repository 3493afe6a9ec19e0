"""Files of many images that were replaced by others of the same size and time are seen."""

import gzip
import os
import struct

import numpy as np
import pytest
from datasets import disable_progress_bars

from d4m.sources.base import content_digest
from tests.contracts.test_source_contract import (
    encode_png,
    save_huggingface,
    trust_any_cifar,
    write_cifar10,
)
from tests.pipeline.replaced import TIME, change_last_pixel, index_images, write_bmp


def _idx(folder, split, random, *, packed):
    images = random.integers(0, 256, (40, 28, 28)).astype(np.uint8)
    header, labels = struct.pack(">IIII", 0x803, 40, 28, 28), struct.pack(">II", 0x801, 40)
    contents = {
        f"{split}-images-idx3-ubyte": header + images.tobytes(),
        f"{split}-labels-idx1-ubyte": labels + bytes(n % 10 for n in range(40)),
    }
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        # Stored without compression, so that other images give a file of the same length.
        path.write_bytes(gzip.compress(content, 0, mtime=0) if packed else content)
        os.utime(path, TIME)


def _relabel(folder, name, *, packed):
    """Swap the labels of the first two images."""
    path = folder / (f"{name}.gz" if packed else name)
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    content[8], content[9] = content[9], content[8]
    path.write_bytes(gzip.compress(bytes(content), 0, mtime=0) if packed else content)
    os.utime(path, TIME)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_replaced_idx_file_is_seen(workspace, what, packed):
    workspace.write("own", "dataset: {source: mnist, path: ../idx}\nprototypes: {ipc: 1}\n")
    folder, random = workspace.folder / "idx", np.random.default_rng(0)
    for split in ("train", "t10k"):
        _idx(folder, split, random, packed=packed)
    before, sizes = (
        index_images(workspace),
        {path: path.stat().st_size for path in folder.iterdir()},
    )
    if what == "images":
        _idx(folder, "train", np.random.default_rng(1), packed=packed)
    else:
        _relabel(folder, "train-labels-idx1-ubyte", packed=packed)
    assert {path: path.stat().st_size for path in folder.iterdir()} == sizes
    context = workspace.pipeline("own").open_context()
    old = [context.image_index("train", class_id).image_ids for class_id in range(2)]
    after = index_images(workspace)
    context = workspace.pipeline("own").open_context()
    if what == "images":
        assert after.keys() == before.keys()
        assert all(after[key] != before[key] for key in after if key[0] == "train")
        assert all(after[key] == before[key] for key in after if key[0] == "test")
    else:
        new = [context.image_index("train", class_id).image_ids for class_id in range(2)]
        assert new == [
            ("train-00001", *old[0][1:]),
            ("train-00000", *old[1][1:]),
        ]


def test_a_replaced_batch_of_cifar_is_seen(workspace, monkeypatch):
    trust_any_cifar(monkeypatch)
    workspace.write("own", "dataset: {source: cifar10, path: ../cifar}\nprototypes: {ipc: 1}\n")
    write_cifar10(workspace.folder / "cifar", np.random.default_rng(0))
    path = workspace.folder / "cifar" / "cifar-10-batches-py" / "data_batch_3"
    os.utime(path, TIME)
    before, size = index_images(workspace), path.stat().st_size
    write_cifar10(workspace.folder / "new", np.random.default_rng(1))
    (workspace.folder / "new" / "cifar-10-batches-py" / "data_batch_3").replace(path)
    os.utime(path, TIME)
    assert path.stat().st_size == size
    after = index_images(workspace)
    changed = {
        int(name.partition("-")[2])
        for split, name in after
        if split == "train" and after[split, name] != before[split, name]
    }
    assert changed == set(range(100, 150))


@pytest.fixture
def huggingface(workspace, monkeypatch):
    disable_progress_bars()
    cache = workspace.folder / "library_cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    workspace.write(
        "own",
        "dataset: {source: huggingface, path: ../saved, size_px: 8, test_split: null}\n"
        "prototypes: {ipc: 1}\n",
    )
    return workspace.folder / "saved"


def test_a_replaced_table_of_huggingface_is_seen(workspace, huggingface):
    def save(folder, start):
        levels = np.arange(start, start + 20, dtype=np.uint8)
        # Bytes after the end of an image are none of its pixels, and make all of one length.
        pictures = [encode_png(np.full((8, 8, 3), each)).ljust(200, b"\0") for each in levels]
        save_huggingface(folder, pictures, [row % 2 for row in range(20)], names=("ant", "bee"))
        [table] = folder.glob("*.arrow")
        os.utime(table, TIME)
        return table

    table = save(huggingface, 0)
    before, size = index_images(workspace), table.stat().st_size
    new = save(workspace.folder / "new", 100)
    assert new.stat().st_size == size
    new.replace(table)
    after = index_images(workspace)
    assert after.keys() == before.keys()
    assert all(after[key] != before[key] for key in after)


def test_a_replaced_file_that_a_table_of_huggingface_names_is_seen(workspace, huggingface):
    for number in range(10):
        for name, level in (("ant", 0), ("bee", 100)):
            write_bmp(huggingface / "train" / name / f"{number}.bmp", level + number)
    before = index_images(workspace)
    path = huggingface / "train" / "bee" / "4.bmp"
    path.write_bytes(change_last_pixel(path.read_bytes()))
    os.utime(path, TIME)
    after = index_images(workspace)
    [changed] = [key for key in after if after[key] != before[key]]
    assert after[changed] == content_digest(path.read_bytes()).tobytes()
