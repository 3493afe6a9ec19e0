"""Keys of folders without uncommon files: the same since the first version that was released.

The values were computed before files were listed by content. Whoever has to change one of them
makes every user compute all images of such a folder again.
"""

import os

import pytest

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


@pytest.mark.parametrize(
    ("folder", "settings", "expected"),
    [
        (
            "flat",
            {},
            {
                "train": "a4ba9892d5b27b7816268264fc144aab6b35082d845fc4f3c2dd1d4250288c8f",
                "test": "01fd37decd66026e98fe93d0194d2e27bfca16fadcbd0d6ccb93681981bae79c",
            },
        ),
        (
            "both",
            {},
            {
                "train": "07bfb6ae127ce6719c2c11844768d774d11b574ea0fae1830cdfdb8e0fca7eb7",
                "test": "93833499b3805c8f2bfc224273eaaa10395bc61bf0592a93eb19e8f9556c549b",
            },
        ),
        (
            "flat",
            {"validation_share": 0.2},
            {
                "train": "eb9e919ffef62e44e4b7129f41474c339db5c60bfa65a9f5fd92b9781b527620",
                "test": "01fd37decd66026e98fe93d0194d2e27bfca16fadcbd0d6ccb93681981bae79c",
                "validation": "18edd6f1e404d1aad3949128c888c5c6a5314d46b58fbf95885da91c8aebc55e",
            },
        ),
    ],
)
def test_fingerprints_and_decoding_are_those_of_earlier_versions(root, folder, settings, expected):
    source = open_folder(root / folder, channels=3, **settings)
    assert {split: source.fingerprint(split, 0) for split in source.splits} == expected
    assert source.decoding == DECODING
