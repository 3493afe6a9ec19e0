"""Assets over an object store, next to a store that is only read."""

from d4m.compute import Compute, WorkerSettings
from d4m_assets.resources import StoreResource
from tests.assets.conftest import Instance, computed_by
from tests.conftest import FOLDER_RECIPE
from tests.object_stores import BUCKET, Files, environment, make_bucket, moto


def test_an_asset_takes_units_from_a_folder_and_keeps_new_ones_in_a_bucket(
    instance: Instance, tmp_path
):
    folder, root = instance.workspace.pipeline().open_context(), f"s3://{BUCKET}/dagster"
    units = folder.upstream["real_images"]
    record = units["train-00003"]
    assert record is not None
    folder.store.set_aside("real_images", record.key)
    with moto() as address, environment(address, tmp_path / "cache"):
        make_bucket(address)
        instance.store = StoreResource.at(
            root, Compute("cpu"), WorkerSettings(), [instance.workspace.store]
        )
        result = instance.materialize(selection="real_images")
        assert result.success
        assert computed_by(result) == {"real_images": 1}
        [made] = result.asset_materializations_for_node("real_images")
        assert made.metadata["dagster/uri"].value == f"{root}/objects/real_images"
        found = instance.store.pipeline(folder.recipe).open_context()
        assert found.upstream["real_images"] == units
        assert found.store.find("real_images", record.key) is not None
        assert found.store.borrowed([found.reference("real_images", unit) for unit in units]) == (
            len(units) - 1
        )


def test_an_asset_reads_images_in_a_bucket(instance: Instance, tmp_path):
    workspace = instance.workspace
    for name in ("cat", "dog"):
        for image in range(4):
            workspace.draw(name, str(image))
    with moto() as address, environment(address, tmp_path / "cache"):
        make_bucket(address)
        files = Files(address, "images")
        files.upload(workspace.folder / "images")
        files.close()
        workspace.write("tiny", FOLDER_RECIPE.replace("../images", files.address))
        result = instance.materialize(selection="real_images")
    assert result.success
    assert computed_by(result) == {"real_images": 4}
