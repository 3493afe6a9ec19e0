"""Checkpoints in an object store: found by every machine, and never in the way of the training."""

import threading
from datetime import timedelta
from pathlib import PurePosixPath

import obstore
import pytest
import torch

from d4m.store.checkpoints import Checkpoint
from d4m.store.garbage import Keep, find_garbage, remove
from d4m.store.open_storage import open_storage
from tests.object_stores import BUCKET, environment, make_bucket, moto
from tests.store.test_checkpoints import KEY, Number

PLACE = PurePosixPath("objects", "teacher", KEY[:2])
POINTER = PLACE / f"{KEY}.checkpoint"


class Server:
    """A server that can refuse to write, or write only when it is let."""

    def __init__(self):
        self.refusal, self.go_on = None, threading.Event()
        self.go_on.set()

    def answer(self, environ):
        if environ["REQUEST_METHOD"] in ("PUT", "POST"):
            self.go_on.wait(60)
            return self.refusal
        return None


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = Server()
    with moto(server.answer) as address, environment(address, tmp_path_factory.mktemp("cache")):
        make_bucket(address)
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setattr("d4m.store.object_server._RETRIES", {"max_retries": 0})
    yield running
    running.refusal = None
    running.go_on.set()


@pytest.fixture
def machine(server, tmp_path, monkeypatch):
    """Return what opens the same place in the store on a machine of some name."""
    assert server

    def open_on(name):
        monkeypatch.setenv("D4M_CACHE", str(tmp_path / name))
        return open_storage(f"s3://{BUCKET}/{tmp_path.name}")

    return open_on


def _checkpoint(storage, **more):
    return Checkpoint(storage, "teacher", KEY, **{"every_s": 0.0, **more})


def _save(checkpoint, value):
    checkpoint.save({"step": int(value)}, {"a": Number(value)})
    checkpoint.wait()


def _resume(storage):
    part = Number()
    return _checkpoint(storage).resume({"a": part}), part.value


def _objects(storage):
    return [PurePosixPath(each["path"]) for each in storage._server.list_below(PLACE)]


def test_what_one_machine_has_saved_another_one_finds_and_removes(machine, tmp_path):
    _save(_checkpoint(machine("a")), 1.0)
    checkpoint = _checkpoint(machine("a"))
    _save(checkpoint, 2.0)
    assert len(_objects(machine("b"))) == 3  # the pointer, the tensors, the tree
    part, there = Number(), _checkpoint(machine("b"))
    assert there.resume({"a": part}) == {"step": 2}
    assert part.value == 2
    there.remove()
    assert _objects(machine("a")) == []
    assert _resume(machine("a")) == (None, 0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing is left on any


def test_a_training_goes_on_while_a_checkpoint_is_sent(machine, server):
    storage, value = machine("a"), Number(1.0)
    checkpoint = _checkpoint(storage)
    _save(checkpoint, 1.0)
    server.go_on.clear()
    value.value = torch.tensor(2.0)
    checkpoint.save({"step": 2}, {"a": value})
    value.value += 40  # the next step of the training, which changes what was saved in its place
    assert not checkpoint.due()  # one at a time
    assert _resume(storage) == ({"step": 1}, 1)  # what was there before, until all is there
    server.go_on.set()
    checkpoint.wait()
    assert checkpoint.due()
    assert _resume(storage) == ({"step": 2}, 2)


def test_a_checkpoint_that_is_being_sent_when_its_unit_is_published_is_removed(machine, server):
    storage = machine("a")
    checkpoint = _checkpoint(storage)
    server.go_on.clear()
    checkpoint.save({"step": 2}, {"a": Number(2.0)})
    threading.Timer(0.3, server.go_on.set).start()
    checkpoint.remove()
    assert _objects(storage) == []


@pytest.mark.parametrize("refusal", ["403 Forbidden", "500 Internal Server Error"])
def test_a_server_that_takes_no_checkpoint_does_not_end_the_training(
    machine, server, caplog, refusal
):
    storage = machine("a")
    checkpoint = _checkpoint(storage)
    _save(checkpoint, 1.0)
    server.refusal = refusal
    _save(checkpoint, 2.0)
    assert "teacher/ab0000000000: its checkpoint was not saved: " in caplog.text
    server.refusal = None
    assert _resume(storage) == ({"step": 1}, 1)
    assert len(_objects(storage)) == 3
    assert checkpoint.due()
    _save(checkpoint, 3.0)
    assert _resume(storage) == ({"step": 3}, 3)


@pytest.mark.parametrize("file", [".checkpoint", "tree.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_damaged_checkpoint_is_not_used(machine, caplog, file, damage):
    storage = machine("a")
    _save(_checkpoint(storage), 2.0)
    (path,) = (path for path in _objects(storage) if path.name.endswith(file))
    content = bytearray(storage._server.get(path))
    if damage == "lose":
        obstore.delete(storage._server.client, str(path))
    else:
        content[len(content) // 2] ^= 1
        kept = content if damage == "flip" else content[: len(content) // 2]
        obstore.put(storage._server.client, str(path), bytes(kept))
    assert _resume(machine("b")) == (None, 0)
    if (file, damage) != (".checkpoint", "lose"):
        assert "its checkpoint is not used" in caplog.text
    _save(_checkpoint(machine("b")), 3.0)
    assert _resume(machine("a")) == ({"step": 3}, 3)


def test_a_checkpoint_that_cannot_be_read_is_not_used(machine, monkeypatch, caplog):
    _save(_checkpoint(machine("a")), 2.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert _resume(machine("b")) == (None, 0)
    assert "its checkpoint is not used: it cannot be read" in caplog.text


def test_a_checkpoint_that_another_worker_replaces_while_it_is_read_is_read_again(
    machine, monkeypatch
):
    """Two workers compute one unit where the first one is slow."""
    slow, storage = _checkpoint(machine("a")), machine("b")
    _save(slow, 2.0)
    opened, replaced = storage.opened, list[PurePosixPath]()

    def open_late(path):
        if not replaced:
            _save(slow, 3.0)
        replaced.append(path)
        return opened(path)

    monkeypatch.setattr(storage, "opened", open_late)
    assert _resume(storage) == ({"step": 3}, 3)
    assert len(set(replaced)) == 2


def test_garbage_collection_leaves_the_checkpoint_of_a_run_and_removes_an_old_one(machine):
    storage = machine("a")
    _save(_checkpoint(storage), 2.0)
    young = list(find_garbage(storage, Keep(1, 0, timedelta(hours=1))))
    old = list(find_garbage(storage, Keep(1, 0, timedelta(0))))
    assert young == []
    assert [(each.kind, each.path) for each in old] == [("unfinished", POINTER)]
    assert old[0].folder is not None
    assert remove(storage, old, timedelta(0)) == old
    assert _objects(storage) == []
