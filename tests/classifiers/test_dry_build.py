"""Whether a network can be built, found out without its weights."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_model

from d4m.classifiers.dry_build import find_refusal
from d4m.classifiers.registry import build_classifier
from d4m.classifiers.unfilled import unfilled
from d4m.settings import ClassifierSettings

IMAGES = {"channels": 1, "size_px": 8, "classes": 10}
SMALL = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}


def _look(architecture, weights=None, images=IMAGES, **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    return find_refusal(settings, **images, weights=weights)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("convnet3", {}),
        ("convnet3", {"width": 8, "norm": "layer"}),
        ("resnet18", {}),
        ("resnet18", {"zero_init_last": False}),
        ("resnet18.a1_in1k", {}),
        ("densenet121", {"growth_rate": 16, "block_config": (3, 3, 3)}),
        ("test_vit", {}),
        ("mobilenetv3_small_050", {}),
        ("swin_tiny_patch4_window7_224", {"patch_size": 2, "depths": (2, 2), "num_heads": (3, 6)}),
    ],
)
def test_a_network_that_can_be_built_is_not_refused(architecture, options):
    assert _look(architecture, **options) == ""


@pytest.mark.parametrize(
    ("architecture", "options", "refusal"),
    [
        ("convnet7", {}, "no architecture 'convnet7'; wanted one of convnet3, convnet4, "),
        ("convnet3", {"depth": 8}, "convnet3 has no option 'depth'; wanted `norm` and `width`"),
        ("convnet4", {}, "convnet4 halves images four times: wanted at least 16 px, found 8"),
        ("resnet_ap10", {}, "an eighth of the images' size: wanted at least 16 px, found 8"),
        ("resnet18", {"layer": 2}, "unexpected keyword argument 'layer'"),
        (
            "convnext_atto",
            {"patch_size": 2},
            "timm's convnext_atto cannot be built for 8 px images",
        ),
        ("vgg11", {}, "timm's vgg11 cannot be built for 8 px images: Given input size"),
        ("resnet18", {"num_classes": 3}, "answers an image with (1, 3), wanted a logit per class"),
        ("resnet18", {"num_classes": 0}, "answers an image with (1, 512), wanted a logit per cla"),
        ("resnet18", {"features_only": True}, "answers an image with list, wanted a logit per cla"),
        ("resnet18", {"in_chans": 3}, "expected input[1, 1, 8, 8] to have 3 channels"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_its_own_words(architecture, options, refusal):
    assert refusal in _look(architecture, **options)


@pytest.mark.parametrize(
    ("architecture", "images", "refusal"),
    [
        ("test_vit", {"size_px": 160}, ""),
        ("vit_tiny_patch16_224", {"size_px": 64}, "cannot take images of 64 px: Input height (64)"),
        ("test_vit", {"size_px": 160, "classes": 10}, "for test_vit with 10 classes, but timm's h"),
        ("test_vit.nobody", {"size_px": 160}, "timm has no weights for test_vit.nobody"),
        ("convnext_atto_rms", {"size_px": 64}, "timm has no weights for convnext_atto_rms"),
        (
            "convnet3",
            {"size_px": 64},
            "timm has no weights for convnet3; set `teacher.weights: nul",
        ),
    ],
)
def test_weights_of_timm_are_checked_without_loading_them(architecture, images, refusal):
    found = _look(architecture, "timm", {"channels": 3, "classes": 1000, **images})
    assert (refusal in found) if refusal else found == ""


@pytest.mark.parametrize(("architecture", "options"), [("convnet3", {}), ("resnet18", SMALL)])
def test_weights_of_a_file_must_be_those_of_the_network(tmp_path, architecture, options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    path = tmp_path / "weights.safetensors"
    save_model(build_classifier(settings, **IMAGES, seed=0), str(path))
    assert _look(architecture, str(path), **options) == ""
    refusal = _look(architecture, str(path), IMAGES | {"classes": 12}, **options)
    assert refusal.startswith(
        f"weights.safetensors does not hold weights of {architecture} for these images: "
    )
    assert "wanted [12" in refusal
    assert "it lacks " in _look("test_vit", str(path))
    path.write_bytes(b"no weights")
    found = _look(architecture, str(path), IMAGES | {"classes": 11}, **options)
    assert found.startswith(f"{path} is not a file of weights in safetensors format: ")


def test_the_random_state_of_torch_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert _look("resnet18", images=IMAGES | {"size_px": 40}) == ""
    assert torch.equal(torch.rand(1), expected)


def test_a_network_that_computes_with_numbers_while_it_is_built_is_built(monkeypatch):
    def numbers(**_):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, int(torch.ones(1)) * 10))

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "test_of_numbers", numbers)
    assert _look("test_of_numbers") == ""


@pytest.mark.parametrize(
    ("architecture", "weights"), [("resnet18", "layer1.0.conv1.weight"), ("test_vit", "pos_embed")]
)
def test_weights_are_neither_drawn_nor_written(architecture, weights):
    """A network as large as memory is looked at, because memory that is not written is free."""
    settings = ClassifierSettings(architecture=architecture)
    with unfilled():
        for name in ("normal_", "uniform_", "fill_"):
            assert getattr(torch.nn.Parameter(torch.full((3,), 7.0)), name)(1.0).tolist() == [7] * 3
        assert torch.zeros(3).add_(1).tolist() == [1] * 3  # what is no weight is computed
        built = build_classifier(settings, **IMAGES, seed=0)
    drawn = build_classifier(settings, **IMAGES, seed=0)
    assert {name: each.shape for name, each in built.state_dict().items()} == {
        name: each.shape for name, each in drawn.state_dict().items()
    }
    assert drawn.state_dict()[weights].std() > 0.01


@pytest.mark.parametrize("std", [0.02, 5.0])
def test_weights_in_memory_that_was_used_are_drawn_within_their_bounds(std):
    """Torch draws until nothing is out of bounds, so a draw of nothing would never end."""
    used = torch.nn.Parameter(torch.full((16, 16), 1e9))
    with unfilled():
        torch.nn.init.trunc_normal_(used, std=std)
    assert used.abs().max() <= 2


LOOK = """\
import sys
from d4m.classifiers.dry_build import find_refusal
from d4m.settings import ClassifierSettings
images = {"channels": 3, "size_px": 8, "classes": 10, "weights": None}
for name in ("resnet18", "test_vit", "vgg11"):
    print(bool(find_refusal(ClassifierSettings(architecture=name), **images)))
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
import torch
from torchvision.ops import roi_align
from timm.models.naflexvit import NaFlexRopeIterator
print(roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 1).item())
from torch._dynamo.utils import is_compile_supported
from torchvision.ops import roi_align as module
asks = sys.modules["torchvision.ops.roi_align"].is_compile_supported
print(asks("cpu") == is_compile_supported("cpu"), torch.compiler.disable.__module__)
method = next(each for each in vars(NaFlexRopeIterator).values() if hasattr(each, "__wrapped__"))
print(method.__wrapped__.__module__)
"""


def test_a_look_at_timms_networks_does_without_torchs_compiler_which_works_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        *("False", "False", "True"),
        "[]",
        "1.0",
        "True torch.compiler",
        "timm.models.naflexvit",
    ]
