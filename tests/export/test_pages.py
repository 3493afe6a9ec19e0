"""The code that pages show for an exported data set runs as it is printed."""

import re
import shutil
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


def _block(page, word):
    """Return the only block of Python on a page that has this word."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    [found] = [block for block in blocks if word in block]
    return found


@pytest.fixture
def export(exports, tmp_path, monkeypatch):
    """Work next to an export of the name that the pages use, and return its folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    own = tmp_path / "digits-distilled"
    shutil.copytree(exports / "parquet", own)  # an import leaves its bytecode in it
    monkeypatch.chdir(tmp_path)
    return own


def _accuracy(student, pixels, labels):
    with torch.inference_mode():
        return float((student(pixels).argmax(dim=1) == labels).float().mean())


@pytest.mark.usefixtures("export")
def test_the_tutorials_student_learns_the_images_of_an_export():
    names = {}
    exec(_block("tutorial.md", "load_dataset"), names)  # noqa: S102
    pixels, labels = names["pixels"], names["labels"]
    assert tuple(pixels.shape) == (30, 1, 8, 8)
    assert labels.tolist() == [class_id for class_id in range(10) for _ in range(3)]
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    assert _accuracy(names["student"], pixels, labels) > 0.9


def test_the_loop_with_soft_labels_moves_the_student_to_the_teacher(export, monkeypatch):
    from d4m.export.standalone.dataset import DistilledDataset

    monkeypatch.chdir(export)
    monkeypatch.syspath_prepend(str(export))
    names, block = {}, _block("how-to/train_on_the_result.md", "from distilled import")
    exec(block, names)  # noqa: S102
    before, after = torch.nn.Linear(64, 10), names["student"]
    pixels, teacher = DistilledDataset(".").views(0)
    wanted = torch.log_softmax(teacher / 4, dim=1)
    losses = [
        torch.nn.functional.kl_div(
            torch.log_softmax(each / 4, dim=1), wanted, reduction="batchmean", log_target=True
        )
        for each in (before(pixels.flatten(1)), after(pixels))
    ]
    assert losses[1] < losses[0]


@pytest.mark.usefixtures("export")
def test_classes_and_images_are_printed_as_the_page_says(capsys):
    exec(_block("how-to/train_on_the_result.md", "images[0]"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert "PIL" in printed
    assert "'zero', 'one', 'two'" in printed
