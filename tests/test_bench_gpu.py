"""The script that measures a GPU runs from end to end at a size that any machine has time for."""

import importlib
import json
import math
from pathlib import Path

import pytest
import torch


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.mark.filterwarnings("ignore")  # the published procedures warn of themselves
def test_every_part_is_measured_and_the_file_grows_with_each(script, tmp_path, monkeypatch):
    table, rows = importlib.import_module("device_table"), list[int]()
    add = table.Table.add

    def add_and_read(self, found):
        add(self, found)
        rows.append(len(json.loads(self.path.read_text())["rows"]))

    monkeypatch.setattr(table.Table, "add", add_and_read)
    smallest = importlib.import_module("device_sizes").SMALLEST
    with torch.random.fork_rng(devices=[]):
        path = script.measure(smallest, "cpu", minutes=1000, out=tmp_path / "devices")
    assert rows == [2, 5, 8, 9]
    document = json.loads(path.read_text())
    assert document["device"] == "CPU"
    assert document["size"]["pipeline"] == "tiny"
    for row in document["rows"]:
        assert not row["note"], row
        assert row["published"] > 0, row
        assert row["ours"] > 0, row
    shares = [row["share"] for row in document["rows"] if row["share"] is not None]
    assert len(shares) == 4
    assert all(math.isfinite(share) and share > 0 for share in shares)


def test_a_part_that_fails_or_has_no_time_is_named(script):  # noqa: ARG001
    measure_part = importlib.import_module("device_table").measure_part

    def broken_part():
        msg = "no memory"
        raise RuntimeError(msg)

    assert [row.note for row in measure_part(broken_part, 1)] == ["failed: RuntimeError: no memory"]
    assert [row.note for row in measure_part(broken_part, 0.1)] == ["no time left"]
