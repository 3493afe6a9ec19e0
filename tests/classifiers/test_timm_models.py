"""timm's architectures work on image sizes they were not made for."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from d4m.classifiers.predict import penultimate_features
from d4m.classifiers.timm_models import build_timm_model, load_timm_model
from d4m.errors import ClassifierError
from d4m.images.pixels import to_pixels
from d4m.settings import ClassifierSettings


def _build(architecture, *, channels=1, size_px=8, classes=3, **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    return build_timm_model(settings, channels=channels, size_px=size_px, classes=classes)


def _modules(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    "architecture", ["test_vit", "test_resnet", "test_efficientnet", "resnet18"]
)
@pytest.mark.parametrize(("channels", "size_px"), [(1, 8), (3, 28)])
def test_small_images_run_forwards_and_backwards(architecture, channels, size_px):
    model = _build(architecture, channels=channels, size_px=size_px)
    assert model.training
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, channels, size_px, size_px, generator=generator)
    logits = model(pixels)
    assert logits.shape == (4, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_the_stem_keeps_small_images_at_their_size():
    model = _build("resnet18").eval()
    assert model.conv1.stride == (1, 1)
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.bias is None
    assert isinstance(model.maxpool, nn.Identity)
    assert _modules(model, nn.MaxPool2d) == []
    # The network still halves the size three times: 8 px become 1, 32 px become 4.
    with torch.inference_mode():
        assert model.forward_features(torch.zeros(1, 1, 8, 8)).shape == (1, 512, 1, 1)
        assert model.forward_features(torch.zeros(1, 1, 32, 32)).shape == (1, 512, 4, 4)


@pytest.mark.parametrize(("size_px", "side"), [(63, 8), (64, 8), (65, 3)])
def test_tiny_imagenets_64_px_have_the_stem_that_keeps_their_size(size_px, side):
    """With ImageNet's stem, 64 px would leave maps of 2 x 2."""
    model = _build("resnet18", channels=3, size_px=size_px)
    assert model.conv1.stride == ((1, 1) if size_px <= 64 else (2, 2))
    assert isinstance(model.maxpool, nn.Identity) == (size_px <= 64)
    with torch.inference_mode():
        features = model.eval().forward_features(torch.zeros(1, 3, size_px, size_px))
    assert features.shape == (1, 512, side, side)


def test_the_adapted_resnet18_has_the_size_that_cifar_papers_report():
    # timm's ImageNet model has 11,689,512 parameters. Replacing its linear layer (513,000 by 5,130)
    # and its stem (9,408 by 1,728) gives the 11.17 M that papers report for CIFAR-10.
    model = _build("resnet18", channels=3, size_px=32, classes=10)
    assert (
        sum(p.numel() for p in model.parameters()) == 11_689_512 - 513_000 - 9_408 + 5_130 + 1_728
    )


@pytest.mark.parity
@pytest.mark.parametrize("size_px", [65, 96])
def test_above_64_px_a_network_equals_timms_own(size_px):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours = _build("test_resnet", channels=3, size_px=size_px, classes=10)
        torch.manual_seed(0)
        theirs = timm.create_model("test_resnet", num_classes=10)
    assert str(ours) == str(theirs)
    pixels = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(
            ours.eval()(pixels), theirs.eval()(pixels)
        )  # the same modules in the same order


def test_options_are_timms_own_arguments():
    model = _build("resnet18", layers=(1, 1, 1, 1))
    assert [len(model.get_submodule(f"layer{depth}")) for depth in range(1, 5)] == [1, 1, 1, 1]
    assert _build("test_vit", patch_size=4).patch_embed.num_patches == 4


@pytest.mark.parametrize("wrong", ["resnet81", "convnet7", ""])
def test_an_unknown_name_is_refused(wrong):
    with pytest.raises(ClassifierError, match=f"no architecture '{wrong}'; wanted one of conv"):
        _build(wrong)


def test_an_unknown_name_gets_a_suggestion_where_there_is_one():
    with pytest.raises(ClassifierError, match=r"such as \[.*'resnet18'"):
        _build("resnet_18")


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("inception_v3", {}),  # halves the size more often than is possible with 8 px
        ("repvgg_a0", {}),  # has a stem of two parallel convolutions
        ("resnet18", {"layer": 3}),
        ("resnet18.no_such_tag", {}),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_with_name_and_size(architecture, options):
    with pytest.raises(ClassifierError, match=f"timm's {architecture} cannot be built for 8 px"):
        _build(architecture, **options)


def test_building_needs_no_weights_from_the_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert _build("test_vit.r160_in1k") is not None


@pytest.mark.parity
def test_a_teacher_with_timms_weights_has_timms_own_shape():
    settings = ClassifierSettings(architecture="test_resnet.r160_in1k")
    model = load_timm_model(settings, channels=1, classes=1000, with_weights=False)
    assert str(model.network) == str(timm.create_model("test_resnet.r160_in1k", in_chans=1))


@pytest.mark.parity
@pytest.mark.parametrize("architecture", ["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_a_network_with_timms_weights_gets_pixels_as_from_timms_own_transform(architecture):
    settings = ClassifierSettings(architecture=architecture)
    model = load_timm_model(settings, channels=3, classes=1000, with_weights=False).eval()
    data = timm.data.resolve_data_config(model=model.network)
    size_px = data["input_size"][-1]
    image = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), np.uint8)
    transform = timm.data.create_transform(**data | {"crop_pct": 1.0})
    seen = transform(Image.fromarray(image))[None]
    ours = to_pixels(image[None])
    with torch.inference_mode():
        assert torch.allclose(model(ours), model.network(seen), atol=1e-5)
        assert torch.allclose(
            penultimate_features(model, ours), penultimate_features(model.network, seen), atol=1e-5
        )


def test_grey_pixels_are_standardised_by_the_mean_of_the_channels():
    settings = ClassifierSettings(architecture="test_resnet.r160_in1k")
    model = load_timm_model(settings, channels=1, classes=1000, with_weights=False)
    expected = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    assert model.mean.flatten().tolist() == pytest.approx([sum(expected.mean) / 3])
    assert model.deviation.flatten().tolist() == pytest.approx([sum(expected.std) / 3])


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"layers": 3}])
def test_options_that_do_not_fit_timms_weights_are_refused(options):
    settings = ClassifierSettings(architecture="test_resnet", options=options)
    with pytest.raises(ClassifierError, match="timm cannot load its weights for test_resnet: "):
        load_timm_model(settings, channels=3, classes=1000, with_weights=False)


def test_options_apply_to_a_network_with_timms_weights_too():
    settings = ClassifierSettings(architecture="test_resnet", options={"drop_rate": 0.25})
    model = load_timm_model(settings, channels=3, classes=1000, with_weights=False)
    assert model.network.drop_rate == 0.25


def test_timm_has_no_weights_for_convnet3():
    with pytest.raises(ClassifierError, match=r"no weights for convnet3; set `teacher\.weights: n"):
        load_timm_model(ClassifierSettings(), channels=3, classes=1000, with_weights=True)


@pytest.mark.parametrize("classes", [10, 1001])
def test_weights_for_another_number_of_classes_are_refused_with_both_numbers(classes):
    settings = ClassifierSettings(architecture="test_resnet")
    message = (
        rf"test_resnet with {classes} classes, but timm's have 1000; set `teacher\.weights: null`"
    )
    with pytest.raises(ClassifierError, match=message):
        load_timm_model(settings, channels=3, classes=classes, with_weights=True)


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_teacher_of_an_unknown_name_or_tag_is_refused(with_weights):
    def load(architecture):
        settings = ClassifierSettings(architecture=architecture)
        return load_timm_model(settings, channels=3, classes=1000, with_weights=with_weights)

    with pytest.raises(ClassifierError, match="no architecture 'resnet81'"):
        load("resnet81")
    with pytest.raises(ClassifierError, match=r"timm has no weights for test_resnet\.no_such_tag"):
        load("test_resnet.no_such_tag")


def test_weights_that_cannot_be_fetched_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    settings = ClassifierSettings(architecture="test_resnet")
    with pytest.raises(ClassifierError, match="timm cannot load its weights for test_resnet"):
        load_timm_model(settings, channels=3, classes=1000, with_weights=True)
