"""Failures: what they say, and another try where it can help."""

import errno
import gzip
import urllib.error

import dagster as dg
import pytest

from d4m.errors import SourceError, StoreError
from d4m_assets.definitions import defs
from d4m_assets.failures import may_pass
from d4m_assets.partitions import PARTITIONS
from tests.assets.conftest import Instance


class _Answer:
    """The answer of a host, as requests and httpx attach it to their errors."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class _HttpError(OSError):
    def __init__(self, status_code: int) -> None:
        super().__init__("the host answered")
        self.response = _Answer(status_code)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), True),
        (urllib.error.URLError("timed out"), True),
        (_HttpError(503), True),
        (_HttpError(429), True),
        (_HttpError(404), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (FileNotFoundError("no model_index.json"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (gzip.BadGzipFile("Not a gzipped file"), False),
        (ValueError("not an image"), False),
        (None, False),
    ],
)
def test_a_failure_may_pass_if_a_disk_or_a_network_caused_it(
    cause: Exception | None, *, expected: bool
):
    failure = StoreError("cannot write")
    failure.__cause__ = cause
    assert may_pass(failure) is expected
    between, outer = RuntimeError("while downloading"), SourceError("not there")
    between.__cause__, outer.__cause__ = cause, between
    assert may_pass(outer) is expected


def test_a_failure_that_will_not_pass_is_not_tried_again(instance: Instance):
    instance.workspace.write("tiny", "dataset: {source: image_folder, path: ../nowhere}\n")
    result = instance.materialize(selection="real_images")
    assert not result.success
    [step] = result.filter_events(lambda e: e.event_type == dg.DagsterEventType.STEP_FAILURE)
    first = reason(step).splitlines()[0]
    assert first.startswith("tiny, real_images: ")
    for named in ("tiny.yaml:1: dataset.path: ", "wanted a folder", "nowhere"):
        assert named in first
    kinds = {event.event_type for event in result.all_events}
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds


def reason(step: dg.DagsterEvent) -> str:
    """The text that the page of a run shows for a step that failed."""
    data = step.step_failure_data.user_failure_data
    assert data is not None
    return data.description


def test_a_run_without_a_partition_says_that_a_recipe_must_be_chosen(instance: Instance):
    job = dg.define_asset_job("test", dg.AssetSelection.assets("real_images"))
    definitions = dg.Definitions(
        assets=defs.assets,
        jobs=[job],
        resources={"recipes": instance.recipes, "store": instance.store},
    )
    result = definitions.resolve_job_def("test").execute_in_process(
        instance=instance.dagster, raise_on_error=False
    )
    [step] = result.filter_events(lambda e: e.event_type == dg.DagsterEventType.STEP_FAILURE)
    assert reason(step).startswith("choose a recipe: ")


@pytest.mark.parametrize("asset", ['key:"recipe/dataset"', "key:real_images"])
def test_a_partition_without_a_file_says_that_a_recipe_is_a_file(instance: Instance, asset: str):
    instance.dagster.add_dynamic_partitions(PARTITIONS, ["typed_by_hand"])
    result = instance.materialize("typed_by_hand", asset)
    [step] = result.filter_events(lambda e: e.event_type == dg.DagsterEventType.STEP_FAILURE)
    path = instance.workspace.recipes / "typed_by_hand.yaml"
    assert f"{path}: no such file; a recipe is a file" in reason(step)
    assert "copy another recipe to this path" in reason(step)
