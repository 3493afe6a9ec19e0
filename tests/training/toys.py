"""Small images, labels and networks for tests of training."""

import torch
from torch import nn

from d4m.classifiers.convnet import ConvNet
from d4m.images.image_set import ImageSet
from d4m.settings import (
    AugmentationSettings,
    MatchingSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.training.soft_labels import TeacherLabels
from d4m.training.train import Training, train_with_soft_labels

VIEWS = AugmentationSettings(crop_scale=(0.8, 1.0), flip=0.0, cutmix=0.5)
MIXED = AugmentationSettings(crop_scale=(0.8, 1.0), flip=0.0, cutmix=0.4, mixup=0.6)
STILL = AugmentationSettings(crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
FAST = OptimizerSettings(batch_size=16, learning_rate=0.03)
FROZEN = OptimizerSettings(batch_size=5, learning_rate=1e-30, weight_decay=0.0)
KL = MatchingSettings(temperature=4.0)


def toy_images(images=60, **more):
    """Draw images of two classes, brighter in the upper or in the lower half, with noise."""
    class_ids = torch.arange(images) % 2
    pixels = torch.randn(images, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    pixels[:, :, :4] += torch.where(class_ids == 0, 0.5, -0.5)[:, None, None, None]
    pixels[:, :, 4:] -= torch.where(class_ids == 0, 0.5, -0.5)[:, None, None, None]
    return ImageSet(pixels, class_ids, **more)


def linear_model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def make_teacher():
    """Build a teacher whose logits are plus and minus the brightness of upper less lower half."""
    teacher = linear_model()
    weights = torch.cat([torch.ones(32), -torch.ones(32)]) / 8
    with torch.no_grad():
        teacher[1].weight.copy_(torch.stack([weights, -weights]))
        teacher[1].bias.zero_()
    return teacher.eval()


def label(images, epochs, views=VIEWS):
    settings = SoftLabelSettings(epochs=epochs, augmentation=views)
    return TeacherLabels(images, make_teacher(), settings, seed=1)[:]


def accuracy_on(model, images):
    with torch.inference_mode():
        return float((model(images.pixels).argmax(1) == images.class_ids).float().mean())


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train_convnet(seed, *, labels, images, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = ConvNet(1, 8, 2, width=8)
    optimizer = FAST.model_copy(update=changes)
    train_with_soft_labels(
        model, images, labels, Training(epochs=3, optimizer=optimizer, seed=seed), matching=KL
    )
    return weights_of(model)
