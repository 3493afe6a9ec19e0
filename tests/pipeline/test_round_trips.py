"""A run with nothing to do over a bucket: its round trips do not grow with the classes."""

import threading
from collections import Counter

import obstore
import pytest

from d4m.store.object_storage import ObjectStorage
from tests.cli.commands import call
from tests.conftest import FOLDER_RECIPE, Workspace
from tests.object_stores import BUCKET, environment, make_bucket, moto

REQUESTS = ("get", "get_range", "put", "head", "delete", "list", "list_with_delimiter")
CLASSES = (2, 5)


@pytest.fixture
def trips(monkeypatch):
    """Count by kind what the main thread waits for: single requests, and batches of them.

    The requests of a batch are under way together, 64 at a time.
    """
    counted, main = Counter(), threading.main_thread()

    def watch(owner, name, kind):
        real = getattr(owner, name)

        def watched(*arguments, **options):
            counted["requests"] += kind == "one"
            counted[kind] += threading.current_thread() is main
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for name in REQUESTS:
        watch(obstore, name, "one")
    watch(ObjectStorage, "each", "batch")
    return counted


def test_round_trips_one_after_the_other_do_not_grow_with_the_classes(tmp_path, monkeypatch, trips):
    found = []
    with moto() as address, environment(address, tmp_path / "cache"):
        make_bucket(address)
        for classes in CLASSES:
            own = Workspace(tmp_path / str(classes))
            for number in range(classes):
                for image in range(4):
                    own.draw(f"class {number}", str(image))
            own.write("pets", FOLDER_RECIPE)
            root = f"s3://{BUCKET}/{classes}"
            named = {"D4M_RECIPES": str(own.recipes), "D4M_STORE": root, "D4M_DEVICE": "cpu"}
            monkeypatch.setattr(own, "environment", lambda named=named: named)
            call(own, "run", "pets")
            trips.clear()
            assert any(line.startswith("0 units computed") for line in call(own, "run", "pets"))
            found.append(dict(trips))
    few, many = found
    assert many["requests"] > few["requests"] + 3 * (CLASSES[1] - CLASSES[0])
    assert many["one"] == few["one"]
    assert many["batch"] == few["batch"]
    assert few["one"] + few["batch"] <= 100  # eight for each stage, and a few for the whole
