"""Teachers from files and ResNets that start as torchvision's do."""

import math

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from d4m.classifiers.predict import penultimate_features
from d4m.classifiers.registry import build_classifier
from d4m.images.pixels import to_pixels
from d4m.settings import ClassifierSettings
from d4m.stages.teacher import load_teacher

pytestmark = pytest.mark.parity

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES, SIZE_PX = 2, 72
RECIPE = """\
dataset: {source: image_folder, path: ../images, size_px: %d, test_share: 0.3}
teacher: {architecture: resnet18, weights: ../resnet18.safetensors, input: %s}
prototypes: {ipc: 1}
"""
INPUT = f"mean: {list(MEAN)}, deviation: {list(DEVIATION)}"


@pytest.fixture(scope="module")
def published():
    """torchvision's ResNet-18, with numbers in its norms as after a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.resnet18(num_classes=CLASSES)
        for name, tensor in network.state_dict().items():
            if tensor.dim() == 1 and tensor.is_floating_point():
                shifts = "bias" in name or "mean" in name
                tensor.normal_(std=0.1) if shifts else tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture
def library(workspace, published):
    """A workspace with images and the network's weights in a file."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        folder = workspace.folder / "images" / name
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    save_file(published.state_dict(), workspace.folder / "resnet18.safetensors")
    return workspace


def _coloured(count, size_px):
    """Images with noise, each of a colour of its own."""
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 200, (count, 1, 1, 3), np.uint8)
    return colours + rng.integers(0, 56, (count, size_px, size_px, 3), np.uint8)


def _teacher(library, size_px, text):
    library.write("file", RECIPE % (size_px, text))
    pipeline = library.pipeline("file")
    for stage in ("real_images", "teacher"):
        pipeline.run_stage(stage)
    return load_teacher(pipeline.open_context(), ["teacher"])


def test_a_teacher_from_a_file_answers_as_the_network_fed_standardised_pixels(library, published):
    teacher = _teacher(library, SIZE_PX, f"{{{INPUT}}}")
    images = _coloured(6, SIZE_PX)
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(MEAN, DEVIATION)]
    )
    seen = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        expected, found = published(seen), teacher(to_pixels(images))
        wrong = published(to_pixels(images))
    # Standardised pixels of up to 2.6 are rounded to 2e-7; logits of 4 follow to 1e-5.
    assert torch.allclose(found, expected, atol=1e-4)
    assert (expected - wrong).abs().max() > 0.1  # pixels in [-1, 1] would have given others
    headless = nn.Sequential(*list(published.children())[:-1], nn.Flatten()).eval()
    with torch.inference_mode():
        expected = headless(seen)
    assert torch.allclose(penultimate_features(teacher, to_pixels(images)), expected, atol=1e-4)


def test_views_of_another_size_are_resized_to_that_of_the_weights(library, published):
    """The network has ImageNet's stem, because its images have 72 px, though views have 32."""
    teacher = _teacher(library, 32, f"{{{INPUT}, size_px: {SIZE_PX}}}")
    images = _coloured(3, 32)
    levels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    sized = nn.functional.interpolate(levels, (SIZE_PX, SIZE_PX), mode="bicubic", antialias=True)
    seen = torchvision.transforms.functional.normalize(sized, MEAN, DEVIATION)
    with torch.inference_mode():
        assert torch.allclose(teacher(to_pixels(images)), published(seen), atol=1e-4)


def test_one_number_stands_for_all_channels_and_our_own_input_changes_nothing(library, published):
    pixels = torch.rand(3, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.inference_mode():
        own = _teacher(library, SIZE_PX, "{mean: [0.5], deviation: [0.5]}")
        assert torch.equal(own(pixels), published(pixels))
        other = _teacher(library, SIZE_PX, "{mean: [0.4], deviation: [0.25]}")
        seen = ((pixels + 1) / 2 - 0.4) / 0.25
        assert torch.allclose(other(pixels), published(seen), atol=1e-4)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_a_resnet_without_zeros_starts_as_torchvisions_does(architecture):
    settings = ClassifierSettings(architecture=architecture, options={"zero_init_last": False})
    ours = build_classifier(settings, channels=3, size_px=224, classes=1000, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = getattr(torchvision.models, architecture)(weights=None)
    state = theirs.state_dict()
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    for name, tensor in ours.state_dict().items():
        if tensor.dim() < 2 and not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name  # norms: 1 and 0
            continue
        spread = 4 / math.sqrt(tensor.numel())  # four times the error of a deviation, or more
        assert float(tensor.std()) == pytest.approx(float(state[name].std()), rel=spread), name
        if tensor.dim() == 4:
            outgoing = tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
            assert float(tensor.std()) == pytest.approx(math.sqrt(2 / outgoing), rel=spread), name
            assert float(tensor.abs().max() / tensor.std()) > 2.2, name  # normal, not uniform


def test_timms_own_choice_zeroes_the_last_norm_of_each_block():
    settings = ClassifierSettings(architecture="resnet18")
    model = build_classifier(settings, channels=3, size_px=224, classes=10, seed=0)
    zeros = [name for name, p in model.named_parameters() if "weight" in name and not p.any()]
    assert zeros == [
        f"layer{stage}.{block}.bn2.weight" for stage in range(1, 5) for block in (0, 1)
    ]


def test_the_teacher_of_the_paper_has_torchvisions_weights():
    configuration = timm.get_pretrained_cfg("resnet18.tv_in1k")
    assert "download.pytorch.org/models/resnet18" in configuration.url
    assert (configuration.mean, configuration.std) == (MEAN, DEVIATION)
