"""A root says where a store is: a folder, its path as text, or an address."""

import sys

import pytest

from d4m.errors import D4MError, StoreError
from d4m.store.folder_storage import FolderStorage
from d4m.store.open_storage import open_storage, parse_root


def test_a_folder_may_be_named_by_its_path_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "store", str(tmp_path / "store"), "store"):
        storage = open_storage(root)
        assert isinstance(storage, FolderStorage)
        assert storage.local == tmp_path / "store"


def test_without_obstore_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    for name in ("object_storage", "object_server"):
        monkeypatch.delitem(sys.modules, f"d4m.store.{name}", raising=False)
    with pytest.raises(StoreError, match=r"pip install 'd4m\[objects\]'"):
        open_storage("s3://bucket/x")


@pytest.mark.parametrize("text", ["s3:/bucket/x", "gs:bucket"])
def test_an_address_without_its_slashes_is_no_folder(text):
    with pytest.raises(D4MError, match=r"wanted two slashes after the colon, as in s3://bucket/"):
        parse_root(text)


@pytest.mark.parametrize("text", ["s3://", "http://host/x", "file:///tmp/x", "s3:///x"])
def test_other_addresses_are_refused(text):
    for read in (parse_root, open_storage):
        with pytest.raises(D4MError, match=r"wanted the path of a folder, or s3://bucket/prefix"):
            read(text)
