"""Fingerprints of folders, put together again in the test.

Whoever has to change them makes every user read all images again.
"""

import hashlib
import json
import os

import pytest

from d4m.seeds import stream_generator
from tests.sources.folders import open_folder

DECODING = {"version": 1, "channels": 3, "resize": "squash", "background": [255, 255, 255]}


def _write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 50)
    os.utime(path, (1000, 1000))


@pytest.fixture
def root(tmp_path):
    for name in ("a", "b"):
        for number in range(12):
            _write(tmp_path / "flat" / name / f"{number:02d}.png")
        for junk in ("notes.txt", "Thumbs.db"):
            _write(tmp_path / "flat" / name / junk)
        for number in range(3):
            _write(tmp_path / "both" / "train" / name / f"{number}.JPG")
            _write(tmp_path / "both" / "val" / name / f"{number}.webp")
    return tmp_path


def _digest(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _expected(root, split, names):
    """Put a fingerprint of files together."""
    stats = {name: (root / name).stat() for name in names}
    files = [
        [name, 50, 1000 * 10**9, "", stat.st_ino, stat.st_ctime_ns] for name, stat in stats.items()
    ]
    return _digest({"decoder": 1, "split": split, "files": files})


def test_fingerprints_and_decoding_are_those_of_earlier_versions(root):
    source = open_folder(root / "flat", channels=3)
    names = [f"a/{number:02d}.png" for number in range(12)]
    draws = [stream_generator(0, "image_folder", "split", name).random() for name in names]
    held_out = [name for name, draw in zip(names, draws, strict=True) if draw < 0.2]
    kept = [name for name in names if name not in held_out]
    assert source.fingerprint("train", 0) == _expected(root / "flat", "train", kept)
    assert source.fingerprint("test", 0) == _expected(root / "flat", "test", held_out)
    assert source.decoding == DECODING


def test_fingerprints_of_split_folders_are_those_of_earlier_versions(root):
    source = open_folder(root / "both", channels=3)
    train, test = ([f"a/{number}.{suffix}" for number in range(3)] for suffix in ("JPG", "webp"))
    assert source.fingerprint("train", 0) == _expected(root / "both" / "train", "train", train)
    assert source.fingerprint("test", 0) == _expected(root / "both" / "val", "test", test)


def test_fingerprints_of_a_held_out_share_are_those_of_earlier_versions(root):
    whole = open_folder(root / "flat", channels=3)
    source = open_folder(root / "flat", channels=3, validation_share=0.2)
    assert source.fingerprint("test", 0) == whole.fingerprint("test", 0)
    for split in ("train", "validation"):
        assert source.fingerprint(split, 0) == _digest([whole.fingerprint("train", 0), split, 0.2])
