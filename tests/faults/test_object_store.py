"""A real object store: one writer of many wins, and a server that dies costs what was in hand."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import obstore
import pytest

from d4m.errors import DamagedUnitError
from d4m.store.open_storage import open_storage
from d4m.store.reference import Unit, reference_path
from d4m.store.store import ArtifactStore
from tests.conftest import MADE
from tests.faults.conftest import often
from tests.object_stores import BUCKET

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        often(True, False), reason="a real object store is 153 MB: `make test-faults` installs it"
    ),
]

D4M = Path(sys.executable).with_name("d4m")
PATIENCE_S = 900
WRITERS = """\
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from d4m.store.open_storage import open_storage
storage = open_storage(sys.argv[1])
def create(number):
    return storage.create(PurePosixPath("race", str(number % 50)), str(number))
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(create, range(200))))
"""


def _digests(pipeline):
    return {
        stage: {name: unit.digest for name, unit in units.items() if unit}
        for stage, units in pipeline.open_context().upstream.items()
    }


def test_of_many_writers_in_four_processes_exactly_one_creates_each_object(server):
    assert server
    command = [sys.executable, "-c", WRITERS, f"s3://{BUCKET}/race"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [int(writer.communicate(timeout=PATIENCE_S)[0]) for writer in writers]
    assert sum(won) == 50


def _arrays(number):
    return {"latents": np.random.default_rng(number).normal(size=(5, 4, 8, 8)).astype("float16")}


def _write_weights(folder, number):
    weights = np.random.default_rng(number).bytes(5000)
    (folder / "config.json").write_text(json.dumps({"channels": number}))
    (folder / "unet").mkdir()
    (folder / "unet" / "model.safetensors").write_bytes(weights)


def test_damage_of_objects_is_found_before_use_and_repaired_alone(server, caplog):
    """Flip, cut or delete single objects of units of arrays and of files, and references.

    A unit whose reference is deleted is a missing one, of which no message says that it is damaged.
    """
    assert server
    store, rng = ArtifactStore(f"s3://{BUCKET}/damage"), np.random.default_rng(7)
    units = [
        Unit(stage, "1", f"{stage}-{n:05d}", {"settings": {"n": n}, "upstream": {}})
        for stage, count in (("latents", 20), ("teacher", 5), ("generator", 5))
        for n in range(count)
    ]

    def publish(unit):
        number = unit.settings["n"]
        if unit.stage == "latents":
            return store.publish_arrays(unit, _arrays(number), {})
        return store.publish_files(unit, lambda folder: _write_weights(folder, number), {})

    def use(unit):
        if unit.stage == "latents":
            [array] = store.read_arrays(unit.stage, unit.key).values()
            return array.tobytes()
        folder = store.open_files(unit.stage, unit.key)
        return b"".join(path.read_bytes() for path in sorted(folder.rglob("*.*")))

    made, contents = [publish(unit) for unit in units], [use(unit) for unit in units]
    hurts = dict.fromkeys(("array", "metadata", "file", "reference"), 0)
    for number in range(100):
        hurt = int(rng.integers(len(units)))
        unit, reference = units[hurt], store.find(units[hurt].stage, units[hurt].key)
        assert reference is not None
        own, way = reference_path(unit.stage, unit.key), number % 3
        # A flip of an array's metadata may leave what it says as it was.
        names = [name for name in reference.files if way or name != "zarr.json"]
        names = [name for name in names if way or not name.endswith("/zarr.json")]
        path = own if rng.random() < 0.3 else reference.folder / str(rng.choice(names))
        client, content = store.storage._server.client, bytearray(store.storage._server.get(path))
        if way == 0:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            obstore.put(client, str(path), bytes(content))
        elif way == 1:
            obstore.put(client, str(path), bytes(content[: rng.integers(len(content))]))
        else:
            obstore.delete(client, str(path))
        caplog.clear()
        found = store.find_all(units)
        assert found.keys() == {each.name for each in units} - {unit.name}, (number, path)
        assert len(caplog.records) == (path != own or way != 2), (number, path)
        with pytest.raises(DamagedUnitError):
            use(unit)
        assert publish(unit).digest == made[hurt].digest
        assert use(unit) == contents[hurt]
        kind = "reference" if path == own else "metadata" if path.name == "zarr.json" else "file"
        hurts["array" if kind == "file" and unit.stage == "latents" else kind] += 1
    assert min(hurts.values()) >= 10, hurts
    assert [use(unit) for unit in units] == contents
    for unit in units:
        store.verify(unit.stage, unit.key)


def test_a_recipe_survives_kills_of_the_server_and_of_the_run(server, finished_once, workspace):
    """Kill server and run at random moments; the digests are those of an undisturbed folder."""
    rng, root = np.random.default_rng(5), f"s3://{BUCKET}/kills"
    told = workspace.environment() | {"D4M_STORE": root}

    def run():
        return subprocess.Popen(
            [D4M, "run", "tiny"], env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    for number in range(often(1, 6)):
        process = run()
        time.sleep(rng.uniform(4, 25))
        if number % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            server.kill()
            time.sleep(rng.uniform(0, 3))
            server.start()
        printed = process.communicate(timeout=PATIENCE_S)[0]
        assert "Traceback" not in printed
    process = run()
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode in MADE, printed
    from d4m.pipeline import Pipeline

    folder = workspace.pipeline()
    pipeline = Pipeline(folder.recipe, root, folder.compute)
    assert _digests(pipeline) == finished_once.digests()
    assert [found for found in pipeline.verify() if found[2]] == []
    process = run()
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert re.search(r"^0 units computed in ", printed, re.MULTILINE), printed


@pytest.mark.parametrize(("stage", "name"), [("teacher", "teacher"), ("generator", "vae")])
def test_a_training_that_is_killed_on_one_machine_goes_on_on_another(
    server, finished, tmp_path, monkeypatch, caplog, stage, name
):
    """Kill a run with -9 once the bucket has a checkpoint; all that the machine kept is lost."""
    assert server
    root, own = f"s3://{BUCKET}/machines/{name}", finished.pipeline()
    digests, client = finished.digests(), open_storage(root)._server.client
    record = own.open_context().upstream[stage][name]
    assert record is not None
    (finished.store / reference_path(stage, record.key)).unlink()
    for path in finished.store.rglob("*"):
        if path.is_file():
            obstore.put(client, path.relative_to(finished.store).as_posix(), path)

    def saved():
        paths = [
            each["path"]
            for each in open_storage(root)._server.list_below(PurePosixPath("objects", stage))
        ]
        return [path for path in paths if path.endswith(".checkpoint")]

    monkeypatch.setenv("D4M_CHECKPOINT_SECONDS", "0")
    told = finished.environment() | {"D4M_STORE": root, "D4M_CACHE": str(tmp_path / "a")}
    process = subprocess.Popen(
        [D4M, "run", "tiny"], env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while not saved():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert saved(), "the training was over before the kill"

    from d4m.pipeline import Pipeline

    monkeypatch.setenv("D4M_CACHE", str(tmp_path / "b"))
    caplog.set_level("INFO", "d4m")
    pipeline = Pipeline(own.recipe, root, own.compute)
    computed = {each.manifest.asset: each.computed for each in pipeline.run()}
    assert computed.pop(stage) == (name,)
    assert not any(computed.values())
    assert "goes on from its checkpoint" in caplog.text
    assert _digests(pipeline) == digests
    assert not saved()


def test_threads_of_one_process_create_an_object_once(server):
    assert server
    storage = open_storage(f"s3://{BUCKET}/threads")
    for number in range(20):
        path = PurePosixPath("race", str(number))
        with ThreadPoolExecutor(16) as pool:
            won = list(
                pool.map(lambda text, at=path: storage.create(at, text), map(str, range(16)))
            )
        assert sum(won) == 1
        assert storage.read(path) == str(won.index(True))
