"""Choosing images by regression gives the same choice as solving every regression from scratch."""

import numpy as np
import pytest
import torch

from d4m.classifiers.registry import build_classifier
from d4m.images.image_set import ImageSet
from d4m.prototypes.kernel_choice import SWEEPS, choose_by_regression, choose_images
from d4m.prototypes.kernel_regression import RIDGE
from d4m.settings import AugmentationSettings, ClassifierSettings

VIEWS = AugmentationSettings(crop_scale=(0.5, 1.0))


def _problem(seed, *, groups=5, members=8, views=2, features=30, classes=3, targets=50):
    random = np.random.default_rng(seed)
    candidates = groups * members
    return {
        "features": random.normal(size=(candidates, views, features)),
        "logits": random.normal(size=(candidates, views, classes)),
        "groups": np.split(np.arange(candidates), groups),
        "target_features": random.normal(size=(targets, features)),
        "target_logits": random.normal(size=(targets, classes)),
    }


def _error(problem, chosen):
    """Solve the ridge regression on the chosen candidates' views, and return its error."""
    width, classes = (problem[name].shape[-1] for name in ("features", "logits"))
    centre = problem["target_features"].mean(axis=0)
    targets = problem["target_features"] - centre
    scale = np.sqrt((targets**2).sum(axis=1).mean())
    rows = ((problem["features"][chosen] - centre) / scale).reshape(-1, width)
    kernel = rows @ rows.T + RIDGE * np.eye(len(rows))
    labels = problem["logits"][chosen].reshape(-1, classes)
    predicted = targets / scale @ rows.T @ np.linalg.solve(kernel, labels)
    return ((predicted - problem["target_logits"]) ** 2).mean()


def _search(problem):
    chosen = np.array([group[0] for group in problem["groups"]])
    for _ in range(SWEEPS):
        for slot, group in enumerate(problem["groups"]):
            errors = []
            for member in group:
                chosen[slot] = member
                errors.append(_error(problem, chosen))
            chosen[slot] = group[np.argmin(errors)]
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("views", [1, 3])
def test_swaps_equal_those_of_regressions_solved_from_scratch(seed, views):
    problem = _problem(seed, views=views)
    chosen = choose_by_regression(**problem)
    assert chosen.tolist() == _search(problem).tolist()
    alone = problem | {"groups": [group[:1] for group in problem["groups"]]}
    assert choose_by_regression(**alone).tolist() == _search(alone).tolist()
    start = [group[0] for group in problem["groups"]]
    assert _error(problem, chosen) < _error(problem, start)


def test_a_group_of_one_keeps_its_candidate_and_groups_may_differ_in_size():
    problem = _problem(1)
    problem["groups"] = [np.array([3]), np.array([7, 9, 20]), np.array([0, 1])]
    chosen = choose_by_regression(**problem)
    assert chosen[0] == 3
    assert all(row in group for row, group in zip(chosen, problem["groups"], strict=True))
    assert chosen.tolist() == _search(problem).tolist()


def test_the_scale_of_the_features_does_not_matter():
    problem = _problem(2)
    scaled = problem | {name: 1000 * problem[name] for name in ("features", "target_features")}
    assert choose_by_regression(**scaled).tolist() == choose_by_regression(**problem).tolist()


def test_with_equal_features_the_first_candidates_are_kept():
    problem = _problem(3)
    flat = problem | {name: 0 * problem[name] for name in ("features", "target_features")}
    assert choose_by_regression(**flat).tolist() == [group[0] for group in problem["groups"]]


def _images(seed, count, size_px=8):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator) * 2 - 1
    pixels = torch.nn.functional.interpolate(coarse, size=(size_px, size_px), mode="bilinear")
    return ImageSet(pixels, torch.arange(count) % 3)


def _teacher(size_px):
    settings = ClassifierSettings()
    return build_classifier(settings, channels=1, size_px=size_px, classes=3, seed=0).eval()


def _choose(size_px=8, seed=4, **augmentation):
    candidates, targets = _images(0, 24, size_px), _images(1, 40, size_px)
    groups = np.split(np.arange(24), 4)
    views = VIEWS.model_copy(update=augmentation)
    teacher = _teacher(size_px)
    return choose_images(candidates, groups, targets, teacher, augmentation=views, seed=seed)


def test_images_are_chosen_from_their_groups_without_mixing_them():
    chosen = _choose()
    assert (chosen // 6).tolist() == [0, 1, 2, 3]
    assert chosen.tolist() == _choose(cutmix=1.0, mixup=1.0).tolist()
    assert chosen.tolist() != [0, 6, 12, 18]


def test_other_views_choose_other_images():
    assert len({tuple(_choose(seed=seed).tolist()) for seed in range(4)}) > 1


def test_without_a_teacher_the_chosen_images_predict_classes():
    """Images of three shades: the odd candidate of a group shows another class than it is named."""
    shades = torch.tensor([-0.8, 0.0, 0.8])
    noise = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.02
    class_ids = torch.arange(40) % 3
    targets = ImageSet(shades[class_ids][:, None, None, None] + noise, class_ids)
    named = torch.tensor([0, 0, 1, 1, 2, 2])
    shown = torch.tensor([2, 0, 1, 0, 1, 2])
    candidates = ImageSet(shades[shown][:, None, None, None] + noise[:6], named)
    groups = np.split(np.arange(6), 3)
    plain = VIEWS.model_copy(update={"crop_scale": (1.0, 1.0), "flip": 0.0})
    chosen = choose_images(candidates, groups, targets, None, augmentation=plain, seed=0)
    assert chosen.tolist() == [1, 2, 5]


def test_large_images_are_shrunk_for_the_kernel():
    assert (_choose(size_px=64) // 6).tolist() == [0, 1, 2, 3]
