"""Names of architectures, known without importing timm."""

import subprocess
import sys

import timm
from timm.models._registry import _deprecated_models

from d4m.classifiers.own_networks import OWN_NETWORKS
from d4m.classifiers.timm_names import describe_fit, find_unknown, name_network, name_weights


def test_every_name_of_timm_and_every_older_name_passes():
    assert [name for name in timm.list_models() if find_unknown(name)] == []
    assert [name for name in _deprecated_models if find_unknown(name)] == []
    assert find_unknown("resnet18.a1_in1k") == ""


def test_an_unknown_name_is_refused_with_names_like_it():
    own = ", ".join(OWN_NETWORKS)
    assert find_unknown("resnte18") == (
        f"no architecture 'resnte18'; wanted one of {own}, or a timm name, such as ['resnet18', "
        "'resnet18d', 'skresnet18']"
    )
    assert find_unknown("q!") == f"no architecture 'q!'; wanted one of {own}, or a timm name"
    assert "such as ['convnet6', " in find_unknown("convnet7")


def test_no_library_is_imported_for_it():
    code = (
        "import sys\n"
        "from d4m.classifiers.dry_build import find_refusal\n"
        "from d4m.settings import ClassifierSettings\n"
        "settings = ClassifierSettings(architecture='resnet1b')\n"
        "print(find_refusal(settings, channels=3, size_px=32, classes=10, weights=None)[:26])\n"
        "print({'torch', 'timm'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["no architecture 'resnet1b'", "set()"]


def test_no_network_of_the_field_has_a_name_of_timm():
    assert [name for name in OWN_NETWORKS if timm.is_model(name)] == []


def test_an_untagged_name_stands_for_the_weights_that_timm_prefers():
    assert name_weights("test_resnet") == "test_resnet.r160_in1k"
    names = [name for name in timm.list_models() if timm.get_pretrained_cfg(name).tag]
    assert len(names) > 900
    for name in names:
        tagged = name_weights(name)
        assert timm.get_pretrained_cfg(tagged) == timm.get_pretrained_cfg(name)
        assert tagged.startswith(f"{name}.")


def test_a_name_with_a_tag_or_unknown_to_timm_stays():
    for name in ("resnet18.tv_in1k", "convnet3", "no_such_name"):
        assert name_weights(name) == name


def test_a_network_with_other_weights_needs_no_tag_unless_it_may_decide_its_size():
    assert name_network("resnet18.tv_in1k") == name_network("resnet18") == "resnet18"
    assert name_network("vit_tiny_patch16_224.augreg_in21k").endswith(".augreg_in21k")
    assert name_network("convnet3") == "convnet3"


def test_every_network_that_was_fitted_otherwise_has_an_entry_in_its_key():
    """Patches of 16 px at 224 px without windows were a fourteenth of any size."""
    for name in timm.list_models():
        fixed = timm.get_pretrained_cfg(name).fixed_input_size
        if describe_fit(name, 32) == {} and fixed:
            assert timm.get_pretrained_cfg(name).input_size == (3, 224, 224), name
            assert "patch16" in name
            assert describe_fit(name, 64) == {}
        if not fixed:
            assert describe_fit(name, 64) != {}, name


def test_networks_that_are_fitted_as_ever_have_no_entry():
    assert [describe_fit("resnet18", size_px) for size_px in (32, 63, 65, 224)] == [{}] * 4
    assert describe_fit("resnet18.a1_in1k", 64) == {"fit": "a stem that keeps 64 px"}
    for name in ("vit_tiny_patch16_224", "deit3_small_patch16_224", "convnet3", "no_such_name"):
        assert describe_fit(name, 96) == {}
    assert describe_fit("swin_tiny_patch4_window7_224", 96) == {"fit": "patches in proportion"}
    assert describe_fit("test_vit", 96) == {"fit": "patches in proportion"}
