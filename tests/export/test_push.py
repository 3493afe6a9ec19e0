"""Uploads, to a server on this machine that speaks as the hub does."""

import pytest

from tests.cli.commands import call, refused
from tests.export.hub import serving

# huggingface_hub streams files by an older name of an argument of httpx.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch):
    """Return the server; large files take the plain way there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_tests")
    with serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.address)
        yield made


def test_an_upload_holds_the_export_and_replaces_the_one_before(hub, finished_once, exports):
    lines = call(finished_once, "push", "tiny", "someone/tiny", "--license", "cc-by-4.0")
    assert lines[-1] == f"uploaded to {hub.address}/datasets/someone/tiny"
    assert hub.visibility == {"someone/tiny": "private"}
    folder = exports / "parquet"
    wanted = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    files = hub.datasets["someone/tiny"]
    del files[".gitattributes"]
    assert files == wanted
    files["data/train-00001-of-00002.parquet"] = b"of a larger set, long ago"
    files["notes.txt"] = b"mine"
    call(finished_once, "push", "tiny", "someone/tiny", "--license", "cc-by-4.0")
    assert files == wanted | {"notes.txt": b"mine"}
    record = finished_once.pipeline().open_context().upstream["distilled_dataset"]
    message = f"tiny, version {record['distilled_dataset'].key[:12]}"
    assert hub.commits[0] == ("someone/tiny", message)


def test_an_upload_has_smaller_labels_where_asked(hub, finished_once, tmp_path):
    small = ("--labels", "uint8", "--epochs", 2)
    call(finished_once, "push", "tiny", "someone/tiny", *small)
    call(finished_once, "export", "tiny", tmp_path / "out", *small)
    files = hub.datasets["someone/tiny"]
    [labels] = (tmp_path / "out" / "soft_labels").iterdir()
    assert files[f"soft_labels/{labels.name}"] == labels.read_bytes()
    assert b"a class is `gaps * scale / 255` below the highest" in files["README.md"]


def test_a_data_set_of_others_is_left_alone(hub, finished_once):
    hub.datasets["someone/else"] = {".gitattributes": b"", "data.csv": b"1,2"}
    error = refused(finished_once, "push", "tiny", "someone/else")
    assert error == (
        "wanted a new name on the hub or a data set that `d4m push` made, found someone/else with "
        "1 other files, such as data.csv; choose another name"
    )
    assert hub.datasets["someone/else"] == {".gitattributes": b"", "data.csv": b"1,2"}


def test_a_name_that_the_hub_does_not_allow_is_refused(hub, finished_once):
    error = refused(finished_once, "push", "tiny", "no/such/name")
    assert error.startswith(f"cannot upload tiny to no/such/name at {hub.address}: ")
    assert not hub.datasets


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch, finished_once):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused(finished_once, "push", "tiny", "someone/tiny")
    assert error.startswith("cannot upload tiny to someone/tiny at http://127.0.0.1:9: ")
