"""How well images predict the classes of real images, without training."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from d4m.classifiers.predict import penultimate_features
from d4m.images.image_set import ImageSet
from d4m.prototypes.class_prediction import VIEWS, ClassPredictor, within_error
from d4m.prototypes.kernel_regression import RIDGE, kernel_network
from d4m.seeds import stream_seed
from d4m.training.augment import replay_views
from d4m.training.soft_labels import draw_epoch


def _toy(images, *, seed, noise=0.5):
    """Draw images of three classes: a bright band at the top, in the middle or at the bottom."""
    class_ids = torch.arange(images) % 3
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 1, 9, 9, generator=random) * noise
    for row, class_id in enumerate(class_ids.tolist()):
        pixels[row, :, 3 * class_id : 3 * class_id + 3] += 1
    return ImageSet(pixels, class_ids)


REAL = _toy(60, seed=0)


@pytest.fixture(scope="module")
def predictor():
    return ClassPredictor(REAL, classes=3, seed=5)


@pytest.mark.parity
def test_the_prediction_is_that_of_scikit_learns_kernel_ridge(predictor):
    images, predictions = _toy(150, seed=1), []
    for number in range(4):
        network = kernel_network(REAL, classes=3, seed=stream_seed(5, "network", number))
        known = penultimate_features(network, REAL.pixels).double().numpy()
        seed = stream_seed(5, "views", number)
        drawn = draw_epoch(images, VIEWS, seed=seed, epoch=0)
        views = replay_views(images.pixels, drawn, np.arange(150))
        own = penultimate_features(network, views).double().numpy()
        centre = known.mean(axis=0)
        scale = np.sqrt(((known - centre) ** 2).sum(axis=1).mean())
        model = KernelRidge(alpha=RIDGE).fit(
            (own - centre) / scale, np.eye(3)[images.class_ids] - 1 / 3
        )
        predictions.append(model.predict((known - centre) / scale))
    mean, wanted = np.mean(predictions, axis=0), np.eye(3)[REAL.class_ids] - 1 / 3
    found = predictor.score(images)
    # A float32 solve of a kernel matrix whose smallest eigenvalues are near lambda.
    assert found.error == pytest.approx(((mean - wanted) ** 2).sum(axis=1).mean(), rel=5e-3)
    assert found.top1 == pytest.approx((mean.argmax(1) == REAL.class_ids.numpy()).mean(), abs=0.04)


def test_images_that_show_their_class_predict_better_the_clearer_they_are(predictor):
    clear, noisy = (predictor.score(_toy(12, seed=2, noise=each)) for each in (0.3, 3.0))
    assert clear.error < noisy.error
    assert clear.top1 > 0.9


def test_images_of_wrong_classes_predict_worse_than_nothing(predictor):
    images = _toy(12, seed=2, noise=0.3)
    swapped = predictor.score(ImageSet(images.pixels, (images.class_ids + 1) % 3))
    assert swapped.error > 1 - 1 / 3
    assert swapped.top1 < 0.1


def test_a_score_is_the_same_again_and_depends_on_the_seed(predictor):
    images = _toy(12, seed=3)
    errors = predictor.score(images).errors
    assert np.array_equal(predictor.score(images).errors, errors)
    same, other = (ClassPredictor(REAL, classes=3, seed=seed) for seed in (5, 6))
    assert np.array_equal(same.score(images).errors, errors)
    assert not np.array_equal(other.score(images).errors, errors)


def test_candidates_within_the_error_of_the_best_are_as_good():
    best = np.array([0.2, 0.4, 0.6, 0.8])
    noise = np.array([0.4, -0.4, 0.4, -0.4])  # whose standard error is 0.23
    errors = np.stack([best + 0.01, best, best + 0.2 + noise, best + 0.3 + noise])
    assert within_error(errors).tolist() == [False, True, True, False]
