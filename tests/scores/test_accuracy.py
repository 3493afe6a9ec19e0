"""Top-1 and top-5 accuracy worked by hand, in batches and compared with scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.predict import predict_logits
from d4m.scores.accuracy import Scores, score_classifier


def _as_images(logits):
    """Build images whose flattened pixels are the logits, so that `nn.Flatten` classifies them."""
    return torch.as_tensor(logits, dtype=torch.float32)[:, :, None, None]


def test_top1_and_top5_by_hand():
    ranking = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]  # class 0 first, class 6 last
    class_ids = torch.tensor([0, 1, 4, 5])  # ranked first, second, fifth and sixth
    scores = score_classifier(nn.Flatten(), _as_images([ranking] * 4), class_ids)
    counts = {"class_hits": (1, 0, 0, 0, 0, 0, 0), "class_images": (1, 1, 0, 0, 1, 1, 0)}
    assert scores == Scores(top1=1 / 4, top5=3 / 4, **counts)
    assert scores.balanced == 1 / 4


def test_balanced_accuracy_of_a_test_set_with_60_percent_of_one_class():
    """Ten images of classes 0 (six), 1 (three) and 2 (one); the class predicted of each."""
    class_ids = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    predicted = torch.tensor([0, 0, 0, 0, 0, 1, 1, 0, 0, 0])
    scores = score_classifier(nn.Flatten(), _as_images(torch.eye(3)[predicted]), class_ids)
    assert scores.class_hits == (5, 1, 0)
    assert scores.class_images == (6, 3, 1)
    assert scores.top1 == pytest.approx(6 / 10)
    assert scores.balanced == pytest.approx((5 / 6 + 1 / 3 + 0) / 3)


@pytest.mark.parametrize("classes", [2, 5])
def test_with_five_classes_or_fewer_top5_is_one(classes):
    logits = torch.eye(classes)
    scores = score_classifier(nn.Flatten(), _as_images(logits), torch.zeros(classes).long())
    assert scores.top1 == pytest.approx(1 / classes)
    assert scores.top5 == 1.0


@pytest.mark.parity
def test_scores_over_several_batches_equal_scikit_learns():
    random = np.random.default_rng(0)
    logits, class_ids = random.normal(size=(2100, 12)), random.integers(0, 12, 2100)
    logits[np.arange(2100), class_ids] += 1
    scores = score_classifier(nn.Flatten(), _as_images(logits), torch.from_numpy(class_ids))
    theirs = [top_k_accuracy_score(class_ids, logits, k=k, labels=np.arange(12)) for k in (1, 5)]
    # The counts are equal, but our mean is computed in float32.
    assert [scores.top1, scores.top5] == pytest.approx(theirs, abs=1e-6)
    assert 0.2 < scores.top1 < scores.top5 < 0.95


def test_a_classifier_computes_in_the_given_precision():
    pixels = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = ConvNet(1, 8, 4, width=8).eval()
    exact, rounded = (predict_logits(model, pixels, each) for each in ("float32", "bfloat16"))
    with torch.inference_mode():
        assert torch.equal(exact, model(pixels))
    assert rounded.dtype == torch.float32
    # bfloat16 has 8 significant bits; after four layers the error is within 4 % of the spread.
    assert 0 < float((rounded - exact).abs().max()) < 0.04 * float(exact.std()) + 0.02
