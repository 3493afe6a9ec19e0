"""Names of architectures, known without importing timm."""

import subprocess
import sys

import timm
from timm.models._registry import _deprecated_models

from d4m.classifiers.timm_names import find_unknown


def test_every_name_of_timm_and_every_older_name_passes():
    assert [name for name in timm.list_models() if find_unknown(name)] == []
    assert [name for name in _deprecated_models if find_unknown(name)] == []
    assert find_unknown("resnet18.a1_in1k") == ""


def test_an_unknown_name_is_refused_with_names_like_it():
    assert find_unknown("resnte18") == (
        "no architecture 'resnte18'; wanted convnet3 or a timm name, such as ['resnet18', "
        "'resnet18d', 'skresnet18']"
    )
    assert find_unknown("q!") == "no architecture 'q!'; wanted convnet3 or a timm name"


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
