"""Upload a distilled data set to the Hugging Face hub, or to a server with the same API."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from d4m.errors import D4MError
from d4m.export.contents import Contents
from d4m.export.folder import refuse_name, write_export

_OURS = "distilled.json"
# Errors that its library raises: of the network, of files, of names, of uploads.
_REFUSALS = (OSError, ValueError, HTTPError, RuntimeError)
_TABLES = ["data/*", "soft_labels/*", "scores/*"]


def push_export(contents: Contents, name: str, *, licence: str, public: bool) -> str:
    """Export a data set as parquet and upload it in one commit; return its address.

    Files of an earlier upload that this one no longer has are removed. The hub is the one that
    `$HF_ENDPOINT` names, and the token is that of `hf auth login` or `$HF_TOKEN`.

    Args:
        contents: of the data set.
        name: `<user or organisation>/<name>` on the hub.
        licence: the hub's name for the licence of the images.
        public: whether a new data set is visible to all.

    Raises:
        D4MError: the hub has something else under this name, or refuses.
    """
    refuse_name(name.rpartition("/")[2])
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        if api.repo_exists(name, repo_type="dataset"):
            _check_ours(name, api.list_repo_files(name, repo_type="dataset"))
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / contents.name
            write_export(contents, folder, licence=licence)
            address = api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                repo_type="dataset",
                commit_message=f"{contents.name}, version {contents.key[:12]}",
                delete_patterns=_TABLES,
            )
        return str(address)
    except _REFUSALS as failure:
        msg = f"cannot upload {contents.name} to {name} at {api.endpoint}: {failure}"
        raise D4MError(msg) from failure


def _check_ours(name: str, files: list[str]) -> None:
    """Refuse a data set that something else has made."""
    own = [file for file in files if not file.startswith(".git")]
    if own and _OURS not in own:
        msg = (
            f"wanted a new name on the hub or a data set that `d4m push` made, found {name} with "
            f"{len(own)} other files, such as {own[0]}; choose another name"
        )
        raise D4MError(msg)
