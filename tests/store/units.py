"""A unit of arrays and one of files, and ways to damage them."""

import os

import numpy as np

from d4m.store.reference import Unit

UNIT = Unit("prototypes", "1", "class-00007", {"settings": {"ipc": 3}, "upstream": {"a/b": "01"}})
FILES_UNIT = Unit("teacher", "1", "teacher", {"settings": {"epochs": 2}, "upstream": {}})
ARRAYS = {
    "prototypes": np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype("float16"),
    "cluster_shares": np.full(3, 1 / 3),
    "nearest_images": np.array([5, 2, 9]),
    "inertia": np.array(1.5),
}


def write_files(folder):
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(range(256)))
    (folder / "config.json").write_text("{}")


def reference_file(store, unit=UNIT):
    return store.root / "objects" / unit.stage / unit.key[:2] / f"{unit.key}.json"


def files_of(store):
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def chunk_of(store, reference, name="prototypes"):
    files = (store.root / reference.path / name).rglob("*")
    return next(path for path in files if path.is_file() and path.name != "zarr.json")


def rewrite(path, content, *, keep_times=False):
    stat = path.stat()
    path.write_bytes(content)
    times = (stat.st_atime_ns, stat.st_mtime_ns + (0 if keep_times else 1_000_000_000))
    os.utime(path, ns=times)


def flip_bit(path, bit, *, keep_times=False):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    rewrite(path, bytes(content), keep_times=keep_times)


def assert_is_arrays(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
