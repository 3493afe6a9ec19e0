"""A recipe whose images are in a bucket: what was made of the same images in a folder is reused."""

import shutil

import pytest

from d4m.errors import RecipeError
from d4m.pipeline import STAGES
from d4m.recipe.recipe import load_recipe
from tests.cli.commands import call, refused
from tests.conftest import FOLDER_RECIPE
from tests.marks import COPY_KEYWORD
from tests.object_stores import Files, environment, make_bucket, moto

NOTHING = {stage.name: () for stage in STAGES}
INDEX = ("train-00000", "train-00001", "test-00000", "test-00001")


@pytest.fixture
def images(pets, tmp_path):
    """Move the images of a finished run into a bucket, and let its recipe name their address."""
    with moto() as address, environment(address, tmp_path / "cache"):
        make_bucket(address)
        files = Files(address, f"{tmp_path.name}/Pet images")
        files.upload(pets.folder / "images")
        shutil.rmtree(pets.folder / "images")
        pets.write("pets", FOLDER_RECIPE.replace("../images", f"'{files.address}'"))
        yield files
        files.close()


def _keys_and_digests(workspace):
    """Return those of all units that say nothing of the place of the images."""
    upstream = workspace.pipeline("pets").open_context().upstream
    return {
        (stage, name): (stage != "real_images" and record.key, record.digest)
        for stage, units in upstream.items()
        for name, record in units.items()
        if record and stage != "distilled_dataset"
    }


def test_all_but_the_index_is_that_of_the_folder(pets, images):
    """The index is known by the stamps of files, and the data set holds all settings."""
    before = _keys_and_digests(pets)
    again = {"real_images": INDEX, "distilled_dataset": ("distilled_dataset",)}
    assert pets.run("pets") == NOTHING | again
    assert _keys_and_digests(pets) == before
    assert pets.run("pets") == NOTHING
    assert "everything is cached" in "\n".join(call(pets, "status", "pets"))
    assert pets.pipeline("pets").preflight() == []

    images.put("cat/new.png", (pets.draw("cat", "new")).read_bytes())
    assert pets.run("pets")["real_images"]


@COPY_KEYWORD
def test_commands_take_an_address(pets, images):
    lines = call(pets, "init", images.address, "--ipc", "1", "--size-px", "8")
    assert "classes: 2, of 8 to 8 images each" in "\n".join(lines)
    assert lines[-1] == "next: `d4m run pet_images`"
    recipe = load_recipe(pets.recipes / "pet_images.yaml")
    assert recipe.settings.dataset.path == images.address
    message = refused(pets, "init", "http://example.org/images")
    assert message.startswith("`dataset.path`: wanted the path of a folder, or s3://bucket/prefix")
    assert message.endswith("found 'http://example.org/images'")


def test_a_wrong_address_is_refused_before_anything_is_computed(pets, images):
    pets.write("pets", FOLDER_RECIPE.replace("../images", f"'{images.address[:-1]}'"))
    with pytest.raises(RecipeError, match=r" has Pet images/; upload the files, or check"):
        list(pets.pipeline("pets").run())
