"""Networks of a fixed input size: timm's own at that size, and in proportion at others."""

import pytest
import timm
import torch
from torch import nn

from d4m.classifiers.timm_models import build_timm_model
from d4m.classifiers.timm_sizes import create_for_size
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings

pytestmark = pytest.mark.parity

# A small network of every file of timm with a fixed input size, and those of other patches.
FAMILIES = {
    "beit_base_patch16_224": {"depth": 2},
    "botnet26t_256": {},
    "cait_xxs24_224": {"depth": 2},
    "coat_tiny": {},
    "convit_tiny": {},
    "crossvit_tiny_240": {},
    "deit3_small_patch16_224": {"depth": 2},
    "deit_tiny_distilled_patch16_224": {"depth": 2},
    "efficientformer_l1": {},
    "efficientformerv2_s0": {},
    "efficientvit_m0": {},
    "eva02_tiny_patch14_224": {"depth": 2},
    "gcvit_xtiny": {},
    "gmlp_ti16_224": {},
    "hiera_tiny_224": {},
    "levit_128s": {},
    "mixer_b32_224": {},
    "mixer_s16_224": {},
    "mvitv2_tiny": {},
    "nest_tiny": {},
    "pit_ti_224": {},
    "resmlp_12_224": {},
    "resnet50_clip": {},
    "samvit_base_patch16_224": {"depth": 2},
    "sequencer2d_s": {"layers": [1, 1, 1, 1]},
    "swiftformer_xs": {},
    "swin_s3_tiny_224": {},
    "swin_tiny_patch4_window7_224": {},
    "swinv2_cr_tiny_224": {},
    "swinv2_tiny_window8_256": {},
    "test_coatnet": {},
    "test_vit": {},
    "test_vit_relpos": {},
    "tnt_s_legacy_patch16_224": {"depth": 2},
    "twins_svt_small": {},
    "visformer_tiny": {},
    "vit_base_r50_s16_224": {"depth": 2},
    "vit_small_patch32_224": {"depth": 2},
    "vit_small_patch8_224": {"depth": 2},
    "vitamin_small_224": {},
    "volo_d1_224": {},
    "xcit_nano_12_p8_224": {},
}
# Small ones, whose weights and outputs are compared too.
WITH_NUMBERS = [
    "cait_xxs24_224",
    "convit_tiny",
    "deit_tiny_distilled_patch16_224",
    "efficientvit_m0",
    "eva02_tiny_patch14_224",
    "gmlp_ti16_224",
    "levit_128s",
    "mixer_b32_224",
    "pit_ti_224",
    "swin_tiny_patch4_window7_224",
    "test_coatnet",
    "test_vit",
    "vit_small_patch32_224",
    "xcit_nano_12_p8_224",
]


def _build(architecture, size_px, *, channels=3, device="meta", **options):
    settings = ClassifierSettings(architecture=architecture, options=options)
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_timm_model(settings, channels=channels, size_px=size_px, classes=10)


def _native_px(architecture):
    return timm.get_pretrained_cfg(architecture).input_size[-1]


def _shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_every_family_of_a_fixed_input_size_is_looked_at():
    module = timm.models._registry._model_to_module
    fixed = {name for name in timm.list_models() if timm.get_pretrained_cfg(name).fixed_input_size}
    assert FAMILIES.keys() <= fixed
    assert {module[name] for name in fixed} == {module[name] for name in FAMILIES}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_at_its_native_size_a_network_has_timms_own_parameters(architecture):
    options = FAMILIES[architecture]
    ours = _build(architecture, _native_px(architecture), **options)
    with torch.device("meta"):
        theirs = timm.create_model(architecture, num_classes=10, **options)
    assert str(ours) == str(theirs)
    assert _shapes(ours) == _shapes(theirs)


@pytest.mark.parametrize("architecture", WITH_NUMBERS)
def test_at_its_native_size_a_network_answers_as_timms_own(architecture):
    options, size_px = FAMILIES[architecture], _native_px(architecture)
    ours = _build(architecture, size_px, device="cpu", **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = timm.create_model(architecture, num_classes=10, **options)
    pixels = torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(ours.eval()(pixels), theirs.eval()(pixels))
        # The last layer of mixers starts at zero, so the logits alone would say little.
        expected, found = theirs.forward_features(pixels), ours.forward_features(pixels)
    assert torch.equal(found, expected)
    assert float(found.std()) > 0


@pytest.mark.parametrize(
    ("architecture", "size_px", "patch_px"),
    [
        ("vit_small_patch32_224", 112, 16),
        ("vit_small_patch32_224", 448, 64),
        ("vit_small_patch8_224", 112, 4),
        ("deit3_small_patch16_224", 64, 4),
        ("deit3_small_patch16_224", 28, 2),
        ("deit3_small_patch16_224", 8, 2),  # never below 2
        ("eva02_tiny_patch14_224", 64, 4),
        ("test_vit", 80, 8),
        ("test_vit", 32, 2),  # 3 px would be in proportion, but do not divide 32
        ("coat_tiny", 64, 4),  # its later stages take the first patch for granted
    ],
)
def test_patches_are_in_proportion_to_the_native_ones(architecture, size_px, patch_px):
    model = _build(architecture, size_px, **FAMILIES[architecture])
    first = model.get_submodule(timm.get_pretrained_cfg(architecture).first_conv)
    assert first.kernel_size == first.stride == (patch_px, patch_px)


@pytest.mark.parametrize(
    ("architecture", "size_px", "windows", "last"),
    [
        # 224 px: windows of 7 on maps of 56, 28, 14, 7. A patch of 2 gives half of each at 56 px.
        ("swin_tiny_patch4_window7_224", 224, [7, 7, 7, 7], 7),
        ("swin_tiny_patch4_window7_224", 112, [7, 7, 7, 7], 7),
        ("swin_tiny_patch4_window7_224", 64, [4, 4, 4, 4], 4),
        ("swin_tiny_patch4_window7_224", 32, [2, 2, 2, 2], 2),
        ("swinv2_tiny_window8_256", 128, [8, 8, 8, 8], 8),
        ("swinv2_tiny_window8_256", 64, [4, 4, 4, 4], 4),
        ("swinv2_cr_tiny_224", 64, [4, 4, 4, 4], 4),
    ],
)
def test_windows_are_in_proportion_to_the_grid(architecture, size_px, windows, last):
    model = _build(architecture, size_px)
    stages = model.get_submodule("layers" if hasattr(model, "layers") else "stages")
    found = [
        max(part.window_size[0] for part in stage.modules() if hasattr(part, "window_size"))
        for stage in stages
    ]
    assert found == windows
    with torch.device("meta"):
        features = model.forward_features(torch.zeros(1, 3, size_px, size_px))
    assert sorted(features.shape)[:3] == sorted([1, last, last])


@pytest.mark.parametrize("architecture", ["mixer_s32_224", "sequencer2d_s", "gmlp_ti16_224"])
def test_a_patch_that_timm_fixes_is_exchanged(architecture):
    """Sums over a patch keep their deviation: it has fewer pixels and larger weights."""
    options = FAMILIES.get(architecture, {})
    native, half = (
        _build(architecture, size_px, device="cpu", **options)
        for size_px in (_native_px(architecture), 112)
    )
    name = timm.get_pretrained_cfg(architecture).first_conv
    own, other = native.get_submodule(name), half.get_submodule(name)
    assert other.kernel_size[0] == other.stride[0] == max(2, own.kernel_size[0] // 2)
    sums = [float(part.weight.detach().flatten(1).norm(dim=1).mean()) for part in (own, other)]
    assert sums[1] == pytest.approx(sums[0], rel=0.05)
    rest = [
        {key: shape for key, shape in _shapes(model).items() if not key.startswith(name)}
        for model in (native, half)
    ]
    assert rest[0] == rest[1]  # as many tokens
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert half.eval()(pixels).shape == (2, 10)


@pytest.mark.parametrize("architecture", ["xcit_nano_12_p8_224", "levit_128s", "hiera_tiny_224"])
def test_a_stem_of_overlapping_convolutions_stays(architecture):
    small, own = (_build(architecture, size_px) for size_px in (96, _native_px(architecture)))
    assert [str(part) for part in small.modules() if isinstance(part, nn.Conv2d)] == [
        str(part) for part in own.modules() if isinstance(part, nn.Conv2d)
    ]


def test_options_override_the_proportion():
    model = _build("vit_small_patch32_224", 64, patch_size=8, depth=1)
    assert model.patch_embed.grid_size == (8, 8)
    model = _build("swin_tiny_patch4_window7_224", 64, window_size=8)
    assert model.layers[0].blocks[0].window_size == (8, 8)


@pytest.mark.parametrize("architecture", ["efficientformer_l1", "crossvit_tiny_240"])
def test_a_network_that_takes_no_other_size_is_refused(architecture):
    with pytest.raises(ClassifierError, match=f"timm's {architecture} cannot be built for 64 px"):
        _build(architecture, 64)


def test_the_random_numbers_of_a_network_are_not_moved_by_looking_at_the_published_one():
    images = torch.zeros(1, 3, 64, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        ours = create_for_size("vit_tiny_patch16_224", images, {"depth": 1, "num_classes": 3})
        torch.manual_seed(3)
        theirs = timm.create_model(
            "vit_tiny_patch16_224", depth=1, num_classes=3, img_size=64, patch_size=4
        )
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
