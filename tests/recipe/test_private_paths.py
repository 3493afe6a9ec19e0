"""No export and no report says where on its maker's machine the images are."""

import re
import shutil

import pytest

from d4m.recipe.private_paths import hidden_keys, hide_folders, name_source, without_folders
from d4m.settings import ImageFolderSettings, RecipeSettings
from tests.cli.commands import call, fail
from tests.conftest import FOLDER_RECIPE, Workspace


@pytest.fixture(scope="module")
def exported(pets_once, tmp_path_factory):
    """Return a workspace whose recipe has an absolute path, and the folder of its export."""
    folder = tmp_path_factory.mktemp("maker_ada")
    deep = folder / "secret" / ("secret" * 20)  # longer than a reason shows
    made = pets_once.copy(deep / "workspace")
    images = (made.folder / "images").rename(deep / "pets")
    text = FOLDER_RECIPE.replace("../images", str(images))
    made.write("pets", text)
    made.run("pets")
    call(made, "export", "pets", folder / "out")
    return made, folder / "out"


def test_no_file_of_an_export_holds_a_folder_of_its_maker(exported):
    _, out = exported
    holders = [
        path.name
        for path in out.rglob("*")
        if path.is_file() and any(part in path.read_bytes() for part in (b"secret", b"maker_ada"))
    ]
    assert holders == []
    assert '"path": "$FOLDER_WITH/pets"' in (out / "lineage.json").read_text(encoding="utf-8")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "px, made from the folder of images `pets`\nby D4M" in card
    assert "Cite the source of the images, the folder of images `pets`, and" in card


def test_an_exported_recipe_asks_for_its_path_and_runs_with_it(exported, tmp_path):
    made, out = exported
    there = Workspace(tmp_path / "there")
    shutil.copytree(made.store, there.store)
    text = (out / "recipe.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[1] == (
        "# dataset.path: put the path of your own copy in; an export names no folder above it."
    )
    there.write("pets", text)
    _, errors = fail(there, "run", "pets")
    assert "dataset.path: $FOLDER_WITH/pets: the variable $FOLDER_WITH is not set; set it" in errors
    moved = shutil.copytree(made.folder.parent / "pets", there.folder / "pets")
    there.write("pets", text.replace("$FOLDER_WITH/pets", str(moved)))
    computed = there.run("pets")  # lists the files again, and packs the other path
    assert {stage for stage, units in computed.items() if units} <= {
        "real_images",
        "distilled_dataset",
    }


def test_a_report_names_no_folder_of_its_maker_and_has_the_name_of_the_recipe(exported, tmp_path):
    made, _ = exported
    lost, recipe = made.copy(tmp_path / "secret"), made.recipes / "pets.yaml"
    text = recipe.read_text(encoding="utf-8")
    lost.write("lost", text.replace("secret/pets", "secret/none"))
    for folder, name, said in (
        (made, recipe, "<h1>pets</h1>"),
        (lost, lost.recipes / "lost.yaml", "The images cannot be listed: "),
    ):
        page = tmp_path / "page.html"
        call(folder, "report", name, "--output", page)
        shown = page.read_text(encoding="utf-8")
        assert said in shown
        assert not re.search(r"secret|maker_ada", shown)
        assert f"d4m report $FOLDER_WITH/{name.name}" in shown
        assert "path: $FOLDER_WITH/" in shown


def test_reports_of_recipes_of_one_name_tell_them_apart(pets, tmp_path):
    other = pets.copy(tmp_path / "other")
    names = [str(each.recipes / "pets.yaml") for each in (pets, other)]
    call(pets, "report", *names, "--output", tmp_path / "page.html")
    assert f"<h1>{' · '.join(names)}</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_absolute_paths_of_a_recipe_lose_their_folders_in_any_text():
    sections = {
        "dataset": {"path": "/data/pets", "splits": {"train": "/data/pets/train", "test": "/"}},
        "generator": {"pretrained": {"model": r"C:\models\own"}},
        "teacher": {"weights": "~/w.safetensors"},
    }
    text = r"/data/pets/train and /data/pets, not /data/pets2; C:\models\own, ~/w.safetensors, a/b"
    assert hide_folders(text, sections) == (
        "$FOLDER_WITH/train and $FOLDER_WITH/pets, not /data/pets2; $FOLDER_WITH/own, "
        "$FOLDER_WITH/w.safetensors, a/b"
    )


def test_paths_lose_their_folders_and_names_stay():
    settings = {
        "dataset": {"source": "image_folder", "path": "../../employer/pets", "classes": "~/a.tsv"},
        "generator": {"pretrained": {"model": "/srv/models/own.safetensors"}},
        "teacher": {"weights": r"C:\Users\ada\w.safetensors", "others": [{"weights": "timm"}]},
        "prompts": {"template": "/a {name}", "per_class": {"cat": "~/cat"}},
    }
    found = without_folders(settings)
    assert found == {
        "dataset": {
            "source": "image_folder",
            "path": "$FOLDER_WITH/pets",
            "classes": "$FOLDER_WITH/a.tsv",
        },
        "generator": {"pretrained": {"model": "$FOLDER_WITH/own.safetensors"}},
        "teacher": {"weights": "$FOLDER_WITH/w.safetensors", "others": [{"weights": "timm"}]},
        "prompts": settings["prompts"],
    }
    assert hidden_keys(found) == [
        "dataset.path",
        "dataset.classes",
        "generator.pretrained.model",
        "teacher.weights",
    ]


@pytest.mark.parametrize(
    ("dataset", "path", "name"),
    [
        ({"source": "digits"}, None, "the data set `digits` of scikit-learn"),
        ({"source": "cifar10"}, None, "the data set `cifar10`"),
        ({"source": "mnist", "path": "idx"}, "$FOLDER_WITH/idx", "the data set `mnist`"),
        (
            {"source": "huggingface", "path": "owner/cats", "revision": "v1"},
            "owner/cats",
            "the data set `owner/cats` of the Hugging Face hub at revision `v1`",
        ),
        (
            {"source": "huggingface", "path": "/home/ada/cats/"},
            "$FOLDER_WITH/cats",
            "the saved data set `cats`",
        ),
        (
            {"source": "image_folder", "path": "$HOME/pets"},
            "$FOLDER_WITH/pets",
            "the folder of images `pets`",
        ),
        ({"source": "image_folder", "path": ".."}, "$FOLDER_WITH/images", "the folder of images"),
    ],
)
def test_a_source_has_a_name_without_its_place(dataset, path, name):
    settings = RecipeSettings.model_validate({"dataset": dataset})
    dumped = without_folders(settings.model_dump(mode="json"))
    assert dumped["dataset"].get("path") == path
    assert name_source(settings.dataset).startswith(name)
    RecipeSettings.from_dump(dumped)


def test_a_folder_that_looks_like_one_of_an_export_is_not_taken_for_it():
    """An export has a folder `data`, which a bare name next to recipe.yaml would mean."""
    made = ImageFolderSettings.model_validate({"source": "image_folder", "path": "data"})
    assert without_folders(made.model_dump(mode="json"))["path"] == "$FOLDER_WITH/data"
