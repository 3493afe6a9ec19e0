"""Checkpoints: what was saved comes back, whatever is damaged is not used, nothing is left over."""

import json
import logging
from datetime import timedelta

import pytest
import torch

from d4m.errors import StoreError
from d4m.store.checkpoints import NOWHERE, Checkpoint, RandomStream
from d4m.store.folder_storage import FolderStorage
from d4m.store.garbage import Keep, find_garbage
from d4m.store.nested import read_nested, write_nested

KEY = "ab" + "0" * 62


class Number:
    """A part of a training whose state is one tensor."""

    def __init__(self, value=0.0):
        self.value = torch.tensor(value)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state_dict):
        self.value = state_dict["value"]


def _checkpoint(root, **more):
    return Checkpoint(FolderStorage(root), "teacher", KEY, **{"every_s": 0.0, **more})


def _files(root):
    return sorted(path for path in (root / "objects").rglob("*") if path.is_file())


def _pointer(root):
    return root / "objects" / "teacher" / "ab" / f"{KEY}.checkpoint"


def test_all_kinds_of_state_come_back(tmp_path):
    shared = torch.arange(3.0)
    last = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    last = last.contiguous(memory_format=torch.channels_last)
    state = {
        "numbers": [1, 0.1, True, None, "text", float("inf")],
        "pair": (0.9, 0.999),
        0: {"exp_avg": shared, "again": shared, "step": torch.tensor(7.0)},
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "last": last,
    }
    write_nested(tmp_path, state)
    found = read_nested(tmp_path)
    assert found["numbers"] == state["numbers"]
    assert found["pair"] == (0.9, 0.999)
    assert list(found) == list(state)
    assert all(torch.equal(found[0][name], state[0][name]) for name in state[0])
    assert found["half"].dtype == torch.bfloat16
    assert torch.equal(found["last"], last)
    assert found["last"].stride() == last.stride()


def test_what_is_not_plain_state_is_refused(tmp_path):
    with pytest.raises(TypeError, match="cannot write a set"):
        write_nested(tmp_path, {"names": {"a", "b"}})


def test_a_training_goes_on_where_it_was_saved(tmp_path):
    stream = torch.Generator().manual_seed(3)
    torch.rand(5, generator=stream)
    _checkpoint(tmp_path).save({"step": 4}, {"a": Number(2.5), "stream": RandomStream(stream)})
    there, new = Number(), torch.Generator().manual_seed(9)
    later = _checkpoint(tmp_path)
    assert later.resume({"a": there, "stream": RandomStream(new)}) == {"step": 4}
    assert there.value == 2.5
    assert torch.equal(torch.rand(5, generator=new), torch.rand(5, generator=stream))
    later.remove()
    assert _files(tmp_path) == []
    assert _checkpoint(tmp_path).resume({"a": there}) is None


def test_the_last_saving_alone_is_kept(tmp_path):
    checkpoint = _checkpoint(tmp_path)
    for step in range(3):
        checkpoint.save({"step": step}, {"a": Number(step)})
    assert len(_files(tmp_path)) == 3  # the pointer, the tensors, the tree
    assert _checkpoint(tmp_path).resume({"a": Number()}) == {"step": 2}


def test_nothing_is_due_within_the_first_minute_or_without_a_store(tmp_path):
    assert not _checkpoint(tmp_path, every_s=60.0).due()
    assert _checkpoint(tmp_path).due()
    assert not NOWHERE.due()
    assert NOWHERE.resume({}) is None


@pytest.mark.parametrize("file", [".checkpoint", "tree.json", "tensors.safetensors"])
def test_a_flipped_bit_is_found_and_the_training_begins_again(tmp_path, file, caplog):
    caplog.set_level(logging.WARNING)
    _checkpoint(tmp_path).save({"step": 4}, {"a": Number(2.5)})
    (path,) = (path for path in _files(tmp_path) if path.name.endswith(file))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    damaged, part = _checkpoint(tmp_path), Number()
    assert damaged.resume({"a": part}) is None
    assert part.value == 0
    assert "its checkpoint is not used" in caplog.text
    damaged.save({"step": 1}, {"a": Number(1.0)})
    assert _checkpoint(tmp_path).resume({"a": part}) == {"step": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"device": "cuda"}, "'device': 'cuda'"), ({"torch": "1.0"}, "'torch': '1.0'")],
)
def test_the_state_of_another_torch_or_device_is_not_used(tmp_path, caplog, change, reason):
    _checkpoint(tmp_path).save({"step": 4}, {"a": Number(2.5)})
    record = json.loads(_pointer(tmp_path).read_text())
    record["made_by"] |= change
    _pointer(tmp_path).write_text(json.dumps(record))
    assert _checkpoint(tmp_path).resume({"a": Number()}) is None
    assert reason in caplog.text


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "objects").write_text("a file, where a folder is needed")
    with pytest.raises(StoreError, match=r"cannot write a checkpoint of teacher/ab0") as caught:
        _checkpoint(tmp_path).save({"step": 4}, {"a": Number(2.5)})
    assert isinstance(caught.value.__cause__, OSError)


def test_garbage_collection_removes_a_checkpoint_that_is_old(tmp_path):
    _checkpoint(tmp_path).save({"step": 4}, {"a": Number(2.5)})
    young = list(find_garbage(FolderStorage(tmp_path), Keep(1, 0, timedelta(hours=1))))
    (old,) = find_garbage(FolderStorage(tmp_path), Keep(1, 0, timedelta(0)))
    assert young == []
    assert (old.kind, tmp_path / old.path) == ("unfinished", _pointer(tmp_path))
    assert old.folder is not None
    assert old.folder.path.name.startswith(f"{KEY}.checkpoint-")
