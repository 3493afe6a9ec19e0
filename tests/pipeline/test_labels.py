"""Labels: where they come from, how they are stored, how many there are."""

import numpy as np
import pytest
import zarr
from scipy.special import logsumexp

import d4m.training.soft_labels
from d4m.settings import MatchingSettings, OptimizerSettings
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.soft_labels import StoredLabels
from d4m.stages.training_sets import synthetic_set
from d4m.training.label_formats import pack_logits, unpack_logits
from d4m.training.soft_labels import label_views
from d4m.training.train import Training, train_with_soft_labels
from tests.pipeline.laboratory import (
    BLOCKS,
    RECIPES,
    SOFT,
    dataset_folder,
    same_arrays,
    scores_of,
    teacher_of,
    untrained_student,
)


def test_online_there_are_no_labels_in_the_store_nor_in_the_data_set(lab):
    context = lab.context("online")
    assert context.upstream["soft_labels"] == {}
    with_labels, without = (dataset_folder(each) for each in (lab.context("tiny"), context))
    names = [{path.name for path in folder.iterdir()} for folder in (with_labels, without)]
    assert names[0] - names[1] == {"soft_labels.zarr", "views.zarr"}
    cards = [(folder / "README.md").read_text() for folder in (with_labels, without)]
    assert ["soft_labels.zarr" in card for card in cards] == [True, False]
    assert ["the students asked the teacher as they trained" in c for c in cards] == [False, True]
    without = (dataset_folder(lab.context("hard")) / "README.md").read_text()
    assert "the students learnt the classes, as `evaluation.hard` of `recipe.yaml` says" in without


def _trained(context, *names):
    """The arrays of these units, computed again and not stored."""
    stage = EvaluationScores()
    units = [unit for unit in stage.plan(context) if unit.name in names]
    return {unit.name: arrays for unit, arrays in stage.compute(context, units)}


@pytest.mark.parametrize("stored", ["tiny", "uint8", "top_k"])
def test_a_student_online_is_the_one_on_stored_labels_but_for_their_rounding(
    lab, stored, monkeypatch
):
    """The teacher's words rounded as the store does, everything else is the same to the bit."""
    online, settings = lab.context("online"), lab.context(stored).recipe.settings.soft_labels

    def rounded(*arguments):
        return unpack_logits(pack_logits(label_views(*arguments), settings), classes=10)

    monkeypatch.setattr(d4m.training.soft_labels, "label_views", rounded)
    found = _trained(online, *SOFT)
    assert list(found) == list(SOFT)
    for name in SOFT:
        assert same_arrays(found[name], scores_of(lab.context(stored), name)), name


@pytest.mark.parametrize("name", SOFT)
def test_rounding_hardly_changes_what_a_student_learns(lab, name):
    # At temperature 20 the losses of these students end near what float32 resolves.
    edits = {"evaluation.matching.temperature": 1.0}
    exact, float16, uint8 = (
        _trained(lab.edited("sharp", changed | edits, until="soft_labels"), name)[name]
        for changed in (RECIPES["online"], {}, RECIPES["uint8"])
    )
    assert exact["curve_losses"].shape == (4,)
    # float16 keeps 11 bits of a logit, uint8 8 of the gap between the lowest and the highest.
    for stored, tolerance in ((float16, 2e-3), (uint8, 2e-2)):
        assert stored["curve_losses"] == pytest.approx(exact["curve_losses"], rel=tolerance)
        assert not np.array_equal(stored["curve_losses"], exact["curve_losses"])


def _exact_and_stored(context):
    """The teacher's gaps below each row's highest logit: asked again, and as they are replayed."""
    images, teacher = synthetic_set(context), teacher_of(context)
    labels = StoredLabels.of_recipe(context, images, context.recipe.settings)
    exact = np.stack([label_views(images, teacher, each.views) for each in labels])
    stored = np.stack([each.logits for each in labels])
    return (each.max(axis=-1, keepdims=True) - each for each in (exact, stored))


def _blocks(context):
    units = [context.read("soft_labels", name) for name in BLOCKS]
    return {name: np.concatenate([unit[name] for unit in units]) for name in units[0]}


def test_labels_of_a_byte_are_replayed_within_half_a_step(lab):
    context = lab.context("uint8")
    arrays = _blocks(context)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "gaps": ((4, 30, 10), "uint8"),
        "scales": ((4, 30), "float16"),
    }
    exact, stored = _exact_and_stored(context)
    step = arrays["scales"].astype(np.float64)[..., None] / 255
    assert (np.abs(stored - exact) <= step / 2 + 1e-5).all()
    highest = exact.argmin(axis=-1)[..., None]
    assert not np.take_along_axis(stored, highest, axis=-1).any()


def test_the_highest_labels_are_replayed_within_half_a_step_and_so_is_the_mass_of_the_rest(lab):
    context = lab.context("top_k")
    arrays = _blocks(context)
    assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
        "classes": ((4, 30, 3), "uint8"),
        "gaps": ((4, 30, 3), "uint8"),
        "scales": ((4, 30), "float16"),
    }
    exact, stored = _exact_and_stored(context)
    order = np.argsort(exact, axis=-1, kind="stable")
    assert np.array_equal(arrays["classes"], order[..., :3])
    exact, stored = (np.take_along_axis(each, order, axis=-1) for each in (exact, stored))
    half = arrays["scales"].astype(np.float64) / 255 / 2 + 1e-5
    assert (np.abs(stored - exact)[..., :3] <= half[..., None]).all()
    masses = [logsumexp(-each[..., 3:].astype(np.float64), axis=-1) for each in (exact, stored)]
    assert (np.abs(masses[0] - masses[1]) <= half).all()
    assert (stored[..., 3:] == stored[..., 3:4]).all()


@pytest.mark.parametrize("name", ["tiny", "uint8", "top_k", "again", "tinted"])
def test_the_data_set_that_is_taken_away_holds_the_labels_as_stored_and_their_views(lab, name):
    context = lab.context(name)
    labels = StoredLabels.of_recipe(context, synthetic_set(context), context.recipe.settings)
    folder = dataset_folder(context)
    packed = zarr.open_group(folder / "soft_labels.zarr", mode="r")
    arrays = {key: packed[key][:] for key in packed.array_keys()}
    views = zarr.open_group(folder / "views.zarr", mode="r")
    assert len(labels) == {"again": 2}.get(name, 4)
    assert np.array_equal(unpack_logits(arrays, 10), np.stack([each.logits for each in labels]))
    assert ("tints" in views) == (name == "tinted")
    for key in views.array_keys():
        assert np.array_equal(views[key][:], np.stack([getattr(e.views, key) for e in labels]))
    card = (folder / "README.md").read_text()
    assert ("`gaps * scales / 255`" in card) == (name in {"uint8", "top_k"})


def test_where_fewer_epochs_are_labelled_their_labels_come_again(lab):
    tiny, again = lab.context("tiny"), lab.context("again")
    assert again.upstream["soft_labels"] == {BLOCKS[0]: tiny.upstream["soft_labels"][BLOCKS[0]]}
    images = synthetic_set(tiny)
    labels = StoredLabels.of_recipe(tiny, images, tiny.recipe.settings)
    model, seed = untrained_student()
    curve = train_with_soft_labels(
        model,
        images,
        [labels[0], labels[1], labels[0], labels[1]],
        Training(epochs=4, optimizer=OptimizerSettings(), seed=seed),
        matching=MatchingSettings(),
    )
    found, all_labelled = scores_of(again), scores_of(tiny)
    assert found["curve_epochs"].tolist() == curve.epochs == [1, 2, 3, 4]
    assert found["curve_losses"].tolist() == curve.losses
    same = (found["curve_losses"] == all_labelled["curve_losses"]).tolist()
    assert same == [True, True, False, False]


def test_a_last_block_may_hold_fewer_epochs(lab):
    context = lab.edited("three", {"soft_labels.labelled_epochs": 3}, until="soft_labels")
    tiny = lab.context("tiny")
    shapes = [context.read("soft_labels", name)["logits"].shape for name in BLOCKS]
    assert shapes == [(2, 30, 10), (1, 30, 10)]
    last = (each.read("soft_labels", BLOCKS[1])["logits"][0] for each in (context, tiny))
    assert np.array_equal(*last)


def test_more_labelled_epochs_than_there_are_is_all_of_them(lab):
    context = lab.edited("five", {"soft_labels.labelled_epochs": 5}, until="soft_labels")
    assert context.upstream["soft_labels"] == lab.context("tiny").upstream["soft_labels"]
