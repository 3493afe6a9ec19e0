"""The store: units are written once, published last, and never read partial or wrong."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file

from d4m.errors import DamagedUnitError, StoreError
from d4m.store.digest import canonical_json, digest_folder
from d4m.store.layout import digest_group
from d4m.store.member import Member
from d4m.store.reference import Unit
from d4m.store.store import ArtifactStore
from tests.store.units import (
    ARRAYS,
    FILES_UNIT,
    UNIT,
    assert_is_arrays,
    chunk_of,
    files_of,
    flip_bit,
    reference_file,
    write_files,
)


def test_key_is_the_sha256_of_stage_version_and_inputs_but_not_of_the_name():
    text = (
        '{"inputs":{"settings":{"ipc":3},"upstream":{"a/b":"01"}},'
        '"stage":"prototypes","version":"1"}'
    )
    assert UNIT.key == hashlib.sha256(text.encode()).hexdigest()
    assert Unit(UNIT.stage, "1", "another", UNIT.inputs).key == UNIT.key
    assert Unit("latents", "1", UNIT.name, UNIT.inputs).key != UNIT.key
    assert Unit(UNIT.stage, "2", UNIT.name, UNIT.inputs).key != UNIT.key


def test_a_published_unit_is_found_and_read_back_bit_by_bit(store, published):
    again = ArtifactStore(store.root)
    assert again.find(UNIT.stage, UNIT.key) == published
    assert published.digest == digest_group("prototypes", ARRAYS)
    assert published.inputs == UNIT.inputs
    assert_is_arrays(again.read_arrays(UNIT.stage, UNIT.key))
    again.verify(UNIT.stage, UNIT.key)


def test_a_unit_of_files_is_found_and_opened_where_it_was_written(store):
    reference = store.publish_files(FILES_UNIT, write_files, {})
    assert store.find(FILES_UNIT.stage, FILES_UNIT.key) == reference
    folder = store.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert folder == store.root / reference.path
    assert digest_folder(folder) == reference.digest
    assert (folder / "unet" / "weights.safetensors").read_bytes() == bytes(range(256))
    store.verify(FILES_UNIT.stage, FILES_UNIT.key)


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_weights_may_be_read_by_whom_the_mask_lets_in(tmp_path, mask, mode):
    """safetensors makes files that their owner alone may read."""
    before = os.umask(mask)
    try:
        store = ArtifactStore(tmp_path / "store")
        weights = {"weight": torch.zeros(2)}
        store.publish_files(FILES_UNIT, lambda folder: save_file(weights, folder / "w.st"), {})
        store.publish_arrays(UNIT, ARRAYS, {})
    finally:
        os.umask(before)
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {
        path.name: mode for path in files
    }
    assert any(path.name == "w.st" for path in files)


def test_a_unit_that_is_read_as_the_other_kind_is_refused_and_stays(store, published):
    """A question that does not suit a unit says nothing about the unit."""
    store.publish_files(FILES_UNIT, write_files, {})
    for read in (store.read_arrays, store.open_rows):
        with pytest.raises(StoreError, match="is made of files; read it with open_files"):
            read(FILES_UNIT.stage, FILES_UNIT.key)
    with pytest.raises(StoreError, match="is made of arrays; read it with read or open_rows"):
        store.open_files(UNIT.stage, UNIT.key)
    assert store.find(UNIT.stage, UNIT.key) == published
    store.verify(UNIT.stage, UNIT.key)
    store.verify(FILES_UNIT.stage, FILES_UNIT.key)


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_a_reader_that_may_open_no_more_files_sets_nothing_aside(store, published, kind):
    """As without permission, or where a share has gone away: others can read the unit."""
    files = store.publish_files(FILES_UNIT, write_files, {})
    member = Member(store.storage)
    read, reference = {
        "arrays": (member.read_arrays, published),
        "files": (member.open_files, files),
    }[kind]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot read .*Too many open files") as refused:
            read(reference)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(refused.value, DamagedUnitError)
    store.verify(reference.stage, reference.key)


def test_a_unit_that_was_never_published_is_not_found_and_asking_writes_nothing(store, tmp_path):
    assert store.find(UNIT.stage, UNIT.key) is None
    with pytest.raises(DamagedUnitError, match="its reference is gone"):
        store.read_arrays(UNIT.stage, UNIT.key)
    with pytest.raises(DamagedUnitError, match="its reference is gone"):
        store.open_files(FILES_UNIT.stage, FILES_UNIT.key)
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_stored_in_the_group_and_is_part_of_no_digest(store, published):
    attributes = zarr.open_group(store.root / published.path, mode="r").attrs.asdict()
    assert attributes["d4m"]["provenance"] == {"device": "cpu"}
    assert attributes["d4m"]["unit"] == {
        "stage": "prototypes",
        "version": "1",
        "name": "class-00007",
        "key": UNIT.key,
        "inputs": {"settings": {"ipc": 3}, "upstream": {"a/b": "01"}},
    }
    elsewhere = ArtifactStore(store.root.parent / "elsewhere")
    other = elsewhere.publish_arrays(UNIT, ARRAYS, {"device": "cuda", "host": "größer"})
    assert other.digest == published.digest
    assert elsewhere.find(UNIT.stage, UNIT.key) == other


def test_a_second_writer_of_a_key_gets_the_winners_unit_and_leaves_no_files(store, published):
    before = files_of(store)
    other = {**ARRAYS, "inertia": np.array(2.5)}  # a value that another machine might compute
    assert ArtifactStore(store.root).publish_arrays(UNIT, other, {"device": "cuda"}) == published
    assert files_of(store) == before
    assert len(list((store.root / published.path).parent.iterdir())) == 2
    assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


def test_a_second_writer_replaces_a_winner_that_is_damaged(store, published):
    chunk_of(store, published).unlink()
    reference = store.publish_arrays(UNIT, ARRAYS, {})
    assert reference.path != published.path
    assert_is_arrays(store.read_arrays(UNIT.stage, UNIT.key))


_RACE = """\
import json, sys, time
from pathlib import Path
import numpy as np
from d4m.store.reference import Unit, reference_text
from d4m.store.store import ArtifactStore

root, writer = Path(sys.argv[1]), int(sys.argv[2])
store = ArtifactStore(root)
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    unit = Unit("latents", "1", "class", {"settings": {"n": number}, "upstream": {}})
    arrays = {"latents": np.full((40, 4, 8, 8), writer, "float16")}
    mine = store.publish_arrays(unit, arrays, {"writer": writer})
    found = store.read_arrays("latents", unit.key)["latents"]
    print(json.dumps([mine.path, mine.provenance["writer"], sorted(set(found.ravel().tolist()))]))
"""


def test_processes_that_write_the_same_keys_at_once_all_end_with_one_whole_winner(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, tmp_path, str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in range(3)
    ]
    for process in writers:
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [process.communicate(timeout=60)[0].splitlines() for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    assert [len(found) for found in lines] == [8, 8, 8]
    for same_key in zip(*lines, strict=True):
        assert len(set(same_key)) == 1
        _, winner, values = json.loads(same_key[0])
        assert values == [winner]
    references = [path for path in tmp_path.rglob("*.json") if path.name != "zarr.json"]
    folders = [path for path in tmp_path.glob("objects/latents/*/*") if path.is_dir()]
    assert len(references) == len(folders) == 8


def test_files_that_were_only_touched_are_read_once_and_accepted(store, published):
    for path in files_of(store):
        os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_007))
    confirmed = store.find(UNIT.stage, UNIT.key)
    assert confirmed.digest == published.digest
    assert confirmed.path == published.path
    assert {mtime for _, mtime in confirmed.files.values()} == {1_700_000_000_000_000_007}
    reference = reference_file(store)
    written = reference.stat().st_mtime_ns
    flip_bit(chunk_of(store, published), 0, keep_times=True)  # a second reading would find this
    assert ArtifactStore(store.root).find(UNIT.stage, UNIT.key) == confirmed
    assert reference.stat().st_mtime_ns == written


def test_a_store_copied_to_another_place_with_new_times_is_still_a_hit(store, published, tmp_path):
    files = store.publish_files(FILES_UNIT, write_files, {})
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = ArtifactStore(tmp_path / "copy")
    assert copy.find(UNIT.stage, UNIT.key).digest == published.digest
    assert copy.find(FILES_UNIT.stage, FILES_UNIT.key).digest == files.digest
    assert_is_arrays(copy.read_arrays(UNIT.stage, UNIT.key))


_RENAMES = """\
import os, sys
from pathlib import Path

renames = []
sys.addaudithook(lambda event, args: renames.append(args) if event == "os.rename" else None)

from tests.store.units import ARRAYS, FILES_UNIT, UNIT, write_files
from d4m.store.store import ArtifactStore

store = ArtifactStore(Path(sys.argv[1]))
first = store.publish_arrays(UNIT, ARRAYS, {})
store.publish_arrays(UNIT, ARRAYS, {})
store.publish_files(FILES_UNIT, write_files, {})
for path in store.root.rglob("*"):
    os.utime(path, ns=(1, 1))
assert store.find(UNIT.stage, UNIT.key) and store.find(FILES_UNIT.stage, FILES_UNIT.key)
next((store.root / first.path / "inertia" / "c").parent.glob("c*")).unlink()
assert store.find(UNIT.stage, UNIT.key) is None
for source, target, *_ in renames:
    print(os.fspath(source), os.fspath(target))
"""


def test_nothing_but_references_is_ever_renamed(store):
    done = subprocess.run(
        [sys.executable, "-B", "-c", _RENAMES, store.root],  # -B: Python renames its bytecode too
        capture_output=True,
        text=True,
        check=True,
    )
    renames = [tuple(map(Path, line.split())) for line in done.stdout.splitlines()]
    depth = len(reference_file(store).parts)
    within_units = [pair for pair in renames if all(len(p.parts) > depth for p in pair)]
    assert all(a.parent == b.parent for a, b in within_units)  # zarr's own temporary files
    names = [target.name for a, target in renames if (a, target) not in within_units]
    found = sorted((name.split(".")[0], "damaged" if ".damaged-" in name else "") for name in names)
    confirmed = [(UNIT.key, ""), (FILES_UNIT.key, "")]  # rewritten after the files were touched
    assert found == sorted([*confirmed, (UNIT.key, "damaged")])


def test_a_reference_is_whole_json_with_a_checksum_that_covers_all_of_it(store, published):
    content = json.loads(reference_file(store).read_text())
    checksum = content.pop("checksum")
    assert checksum == hashlib.sha256(canonical_json(content).encode()).hexdigest()
    assert content["digest"] == published.digest
    assert not [path for path in files_of(store) if path.name.startswith(".")]
    for name, (size, mtime_ns) in content["files"].items():
        stat = (store.root / content["path"] / name).stat()
        assert (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)
        assert mtime_ns <= time.time_ns()
