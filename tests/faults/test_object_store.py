"""A real object store: one writer of many wins, and a server that dies costs what was in hand."""

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

from d4m.store.open_storage import open_storage
from d4m.store.reference import Unit
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


def test_of_many_writers_in_four_processes_exactly_one_creates_each_object(server):
    assert server
    command = [sys.executable, "-c", WRITERS, f"s3://{BUCKET}/race"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [int(writer.communicate(timeout=PATIENCE_S)[0]) for writer in writers]
    assert sum(won) == 50


def test_damage_of_objects_is_found_before_use_and_repaired_alone(server, caplog):
    """Flip, cut or delete single objects of 20 units, one at a time."""
    assert server
    store, rng = ArtifactStore(f"s3://{BUCKET}/damage"), np.random.default_rng(7)
    units = [
        Unit("latents", "1", f"class-{n:05d}", {"settings": {"n": n}, "upstream": {}})
        for n in range(20)
    ]
    arrays = [{"latents": rng.normal(size=(5, 4, 8, 8)).astype("float16")} for _ in units]
    made = [store.publish_arrays(unit, each, {}) for unit, each in zip(units, arrays, strict=True)]
    for number in range(100):
        hurt = int(rng.integers(len(units)))
        reference = store.find("latents", units[hurt].key)
        assert reference is not None
        names = [name for name in reference.files if number % 3 or "/c/" in name]
        path = reference.folder / str(rng.choice(names))
        content = bytearray(store.storage._server.get(path))
        if number % 3 == 0:  # a flip of the metadata may leave what it says as it was
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            obstore.put(store.storage._server.client, str(path), bytes(content))
        elif number % 3 == 1:
            obstore.put(store.storage._server.client, str(path), bytes(content[:-1]))
        else:
            obstore.delete(store.storage._server.client, str(path))
        caplog.clear()
        found = store.find_all(units)
        assert found.keys() == {unit.name for unit in units} - {units[hurt].name}, (number, path)
        assert len(caplog.records) == 1
        again = store.publish_arrays(units[hurt], arrays[hurt], {})
        assert again.digest == made[hurt].digest


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
    digests = {
        stage: {name: unit.digest for name, unit in units.items() if unit}
        for stage, units in pipeline.open_context().upstream.items()
    }
    assert digests == finished_once.digests()
    assert [found for found in pipeline.verify() if found[2]] == []
    process = run()
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert re.search(r"^0 units computed in ", printed, re.MULTILINE), printed


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
