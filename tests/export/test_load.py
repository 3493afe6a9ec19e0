"""`d4m.load`: a data set from a folder, or from the store."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import d4m
from d4m.errors import D4MError
from d4m.images.pixels import to_pixels
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.training_sets import synthetic_set
from d4m.training.augment import replay_views


@pytest.fixture
def at_home(finished, monkeypatch):
    for name in ("D4M_RECIPES", "D4M_STORE", "D4M_DEVICE"):
        monkeypatch.setenv(name, finished.environment()[name])
    monkeypatch.chdir(finished.folder)
    return finished


def test_an_exported_folder_and_its_recipe_give_what_students_were_trained_on(at_home, exports):
    context = at_home.pipeline().open_context()
    images = synthetic_set(context)
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)
    for source in (exports / "parquet", "tiny", str(at_home.recipes / "tiny.yaml")):
        data = d4m.load(source)
        assert torch.equal(data.class_ids, images.class_ids)
        assert torch.equal(to_pixels(data.images), images.pixels[torch.arange(len(images))])
        for epoch, stored in enumerate(labels):
            pixels, logits = data.views(epoch)
            assert np.array_equal(logits.numpy(), stored.logits)
            wanted = replay_views(images.pixels, stored.views, np.arange(len(images)))
            assert torch.equal(pixels, wanted)


def test_a_recipe_is_exported_into_the_cache_once_per_version(at_home):
    folder = d4m.load("tiny").folder
    key = at_home.pipeline().open_context().upstream["distilled_dataset"]["distilled_dataset"].key
    assert folder == at_home.store / "cache" / "exports" / key
    stat = (folder / "distilled.json").stat()
    (folder / "distilled.json").touch()
    d4m.load("tiny")
    assert (folder / "distilled.json").stat().st_ino == stat.st_ino
    (folder / "distilled.json").unlink()  # as a cache that was cleared in part
    assert len(d4m.load("tiny")) == 30


def test_processes_that_load_a_recipe_at_once_all_get_it(at_home):
    """As the ranks of a distributed training do."""
    code = "import d4m; print(len(d4m.load('tiny')))"
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=at_home.folder, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in begun] == ["30\n"] * 3


def test_what_is_no_data_set_is_refused(at_home, exports):
    at_home.write("fresh", "dataset: {source: digits}\n")
    for source, message in (
        (exports / "imagefolder", "wanted a folder that `d4m export` wrote as parquet"),
        ("unknown", "found neither .*/unknown nor a recipe 'unknown'"),
        ("fres", "nor a recipe 'fres' .did you mean `fresh`"),
        ("fresh", "recipe fresh has no distilled_dataset yet"),
    ):
        with pytest.raises(D4MError, match=message):
            d4m.load(source)


def test_importing_d4m_loads_neither_torch_nor_the_pipeline():
    code = "import sys, d4m; assert not {'torch', 'numpy', 'd4m.export'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
