"""The answers of a classifier about its images while it is trained."""

import numpy as np
import pytest
import torch

from d4m.baselines.training_log import TrainingLog, error_norms
from d4m.classifiers.convnet import ConvNet
from d4m.classifiers.predict import predict_logits
from d4m.images.image_set import ImageSet
from d4m.settings import AugmentationSettings, OptimizerSettings
from d4m.training.train import Training, train_with_hard_labels

EPOCHS = 4


def test_the_error_norm_is_that_of_the_probabilities():
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]))
    wanted = [np.sqrt(0.04 + 0.09 + 0.25), np.sqrt(0.64 + 0.09 + 0.25)]
    assert error_norms(logits, torch.tensor([2, 0])).tolist() == pytest.approx(wanted)


def _train(images, watch):
    torch.manual_seed(0)
    model = ConvNet(1, 8, 2, width=4, norm="batch")
    training = Training(EPOCHS, OptimizerSettings(batch_size=4, learning_rate=0.01), 0, watch=watch)
    train_with_hard_labels(
        model, images, training, augmentation=AugmentationSettings(cutmix=0.5, mixup=0.5)
    )
    return model


def test_a_log_holds_the_answers_after_each_epoch_and_changes_no_bit_of_the_training():
    pixels = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    images = ImageSet(pixels, torch.arange(12) % 2)
    log, answers = TrainingLog(images, epochs=EPOCHS), list[torch.Tensor]()

    def watch(model):
        log.record(model)
        answers.append(predict_logits(model, pixels))

    watched, alone = _train(images, watch), _train(images, None)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(watched.state_dict()[name], tensor), name
    assert not torch.equal(answers[0], answers[-1])
    assert torch.equal(answers[-1], predict_logits(alone, pixels))
    known = [(each.argmax(dim=1) == images.class_ids).tolist() for each in answers]
    assert log.correct.tolist() == known
    norms = [error_norms(each, images.class_ids) for each in answers]
    early = (norms[0] + norms[1]) / 2  # two of four epochs
    np.testing.assert_allclose(log.error_norms, early.numpy(), rtol=1e-6)
