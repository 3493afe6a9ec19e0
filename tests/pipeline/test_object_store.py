"""A recipe over an object store: the same digests as in a folder, and nothing computed twice."""

import obstore
import pytest
from obstore.store import from_url

from d4m.cli.app import app
from d4m.pipeline import STAGES, Pipeline
from d4m.store.reference import reference_path
from tests.object_stores import BUCKET, environment, make_bucket, moto

NOTHING = {stage.name: () for stage in STAGES}
FORGOTTEN = ("real_images", "prototypes", "distilled_dataset")


@pytest.fixture
def copied(pets, tmp_path):
    """Copy a finished store into a bucket, as any tool does that copies files; yield its root."""
    root = f"s3://{BUCKET}/team/store"
    with moto() as address, environment(address, tmp_path / "cache"):
        make_bucket(address)
        client = from_url(root, client_options={"allow_http": True})
        for path in pets.store.rglob("*"):
            if path.is_file():
                obstore.put(client, path.relative_to(pets.store).as_posix(), path)
        yield root


def _digests(pipeline):
    return {
        stage: {unit: record.digest for unit, record in units.items() if record}
        for stage, units in pipeline.open_context().upstream.items()
    }


def test_a_store_that_was_copied_into_a_bucket_is_whole_and_its_gaps_are_filled(
    copied, pets, monkeypatch, capsys
):
    folder = pets.pipeline("pets")
    pipeline = Pipeline(folder.recipe, copied, folder.compute)
    store = pipeline.open_context().store
    for stage in FORGOTTEN:
        for record in folder.open_context().upstream[stage].values():
            assert record is not None
            obstore.delete(store.storage._server.client, str(reference_path(stage, record.key)))
    computed = {report.manifest.asset: set(report.computed) for report in pipeline.run()}
    assert computed == {
        stage: {*units} if stage in FORGOTTEN else set()
        for stage, units in folder.open_context().upstream.items()
    }
    assert _digests(pipeline) == _digests(folder)
    again = Pipeline(folder.recipe, copied, folder.compute)
    assert {report.manifest.asset: report.computed for report in again.run()} == NOTHING

    monkeypatch.setenv("D4M_STORE", copied)
    monkeypatch.setenv("D4M_RECIPES", str(pets.recipes))
    for command in (["status", "pets"], ["gc", "--yes", "--grace-hours", "0"], ["verify", "pets"]):
        app(command, standalone_mode=False)
    printed = capsys.readouterr().out
    assert "everything is cached" in printed
    assert "removed " in printed  # the references that the copies replaced, and marks of use
    assert ", 0 are damaged" in printed


def test_a_run_over_a_read_only_store_computes_only_what_that_one_lacks(finished, tmp_path):
    folder = finished.pipeline()
    digests = _digests(folder)
    record = folder.open_context().upstream["distilled_dataset"]["distilled_dataset"]
    assert record is not None
    (finished.store / reference_path("distilled_dataset", record.key)).unlink()
    before = {path: path.stat().st_mtime_ns for path in finished.store.rglob("*")}
    own = Pipeline(folder.recipe, tmp_path / "own", folder.compute, fallbacks=[finished.store])
    computed = {report.manifest.asset: report.computed for report in own.run()}
    assert computed == NOTHING | {"distilled_dataset": ("distilled_dataset",)}
    assert _digests(own) == digests
    assert {path: path.stat().st_mtime_ns for path in finished.store.rglob("*")} == before
    assert [path.name for path in (tmp_path / "own" / "objects").iterdir()] == ["distilled_dataset"]
