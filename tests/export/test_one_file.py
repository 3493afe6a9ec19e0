"""`distilled.py` works where neither d4m nor numpy, timm or zarr is installed."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch

from d4m.export.one_file import join_parts
from d4m.export.standalone.dataset import DistilledDataset

_LOOK = """
import hashlib, importlib.util, json, sys
for name in ("d4m", "d4m_assets", "numpy", "pandas", "timm", "zarr"):
    assert importlib.util.find_spec(name) is None, name
from distilled import DistilledDataset
data = DistilledDataset(sys.argv[1])
digests = []
for epoch in range(data.epochs):
    for part in data.views(epoch):
        digests.append(hashlib.sha256(bytes(part.contiguous().untyped_storage())).hexdigest())
print(json.dumps(digests))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return a folder of packages with torch, pillow, pyarrow and all that they require."""
    folder, waiting, seen = (
        tmp_path_factory.mktemp("packages"),
        ["torch", "pillow", "pyarrow"],
        set(),
    )
    while waiting:
        name = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # needed on another system
        for line in found.requires or ():
            required = re.match(r"[\w.-]+", line)[0].lower()
            if "extra ==" not in line and required not in seen:
                seen.add(required)
                waiting.append(required)
        for part in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (folder / part).exists():
                (folder / part).symlink_to(found.locate_file(part))
    return folder


@pytest.fixture
def python(elsewhere):
    """Return a call of Python without this environment's packages."""

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, "-S", "-B", *map(str, arguments)],  # no bytecode in shared folders
            env=os.environ | {"PYTHONPATH": str(elsewhere)},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return python


def test_pixels_and_logits_are_the_same_bits(python, exports):
    folder = exports / "parquet"
    code, output, errors = python(
        "-c", f"import sys; sys.path.append({str(folder)!r}){_LOOK}", folder
    )
    assert code == 0, errors
    import hashlib
    import json

    data = DistilledDataset(folder)
    parts = [part for epoch in range(data.epochs) for part in data.views(epoch)]
    wanted = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in parts]
    assert json.loads(output) == wanted
    assert len(wanted) == 8


def test_a_student_is_trained_scored_and_saved(python, exports, tmp_path):
    folder = exports / "parquet"
    arguments = (
        "train",
        "--students",
        "2",
        "--test",
        exports / "test",
        "--save",
        tmp_path / "w.pt",
    )
    code, output, errors = python(folder / "distilled.py", *arguments)
    assert code == 0, errors
    lines = output.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *[f"epoch {n} of 4" for n in range(1, 5)],
        "student 0",
        *[f"epoch {n} of 4" for n in range(1, 5)],
        "student 1",
        "mean of 2 students",
    ]
    from d4m.export.standalone.command import read_test
    from d4m.export.standalone.networks import build_model
    from d4m.export.standalone.training import count_hits

    data = DistilledDataset(folder)
    model = build_model("convnet3", data.about).eval()
    model.load_state_dict(torch.load(tmp_path / "w.pt"))
    hits = count_hits(model, *read_test(exports / "test", data.about))
    assert lines[-2] == f"student 1: top-1 {100 * hits / 360:.2f} % ({hits} of 360)"


def test_real_images_are_decoded_to_the_same_bits(python, exports, tmp_path):
    """Icons with transparency, palettes, turned photographs and 16 bits per channel."""
    import hashlib
    import json

    from d4m.settings import ImageFolderSettings
    from d4m.sources.decode import decode_file
    from tests.export.odd_images import ODD

    folder = exports / "parquet"
    way = {"resize": "crop", "resampling": "bicubic", "background": [9, 99, 199], "jpeg": "scaled"}
    about = json.loads((folder / "distilled.json").read_text())
    real = {**way, "white": 4095, "centre": None}
    about |= {"channels": 3, "size_px": 16, "real_images": real}
    (tmp_path / "zero").mkdir()
    for name, content in ODD.items():
        (tmp_path / "zero" / name).write_bytes(content)
    code, output, errors = python(
        "-c",
        f"import sys; sys.path.append({str(folder)!r})\n"
        "import hashlib, json\n"
        "from distilled import read_test\n"
        "images, _ = read_test(sys.argv[1], json.loads(sys.argv[2]))\n"
        "levels = [bytes(image.flatten().tolist()) for image in images]\n"
        "print(json.dumps([hashlib.sha256(each).hexdigest() for each in levels]))",
        tmp_path,
        json.dumps(about),
    )
    assert code == 0, errors
    made = {"source": "image_folder", "path": ".", "size_px": 16, **way}
    settings = ImageFolderSettings.model_validate(made)
    wanted = [decode_file(ODD[name], settings, 16, white=4095) for name in sorted(ODD)]
    assert json.loads(output) == [hashlib.sha256(each.tobytes()).hexdigest() for each in wanted]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", "No such file or directory"),
        ("strange", "wanted folders named as classes are, such as 'zero'; found "),
        ("empty", "wanted images to score, found none in "),
        ("words.parquet", "wanted columns `image` and `label`, found ['word'] in "),
    ],
)
def test_test_images_that_cannot_be_used_are_refused_before_training(
    exports, tmp_path, place, message, capsys
):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from d4m.export.standalone.command import main

    (tmp_path / "strange" / "eleven").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"word": ["a"]}), tmp_path / "words.parquet")
    with pytest.raises(SystemExit) as refusal:
        main(["train", "--data", str(exports / "parquet"), "--test", str(tmp_path / place)])
    assert message in str(refusal.value)
    assert "epoch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--epochs", "0"], "argument --epochs: wanted a whole number of at least 1, found '0'"),
        (["--students", "-3"], "argument --students: wanted a whole number of at least 1"),
        (["--device", "gpu"], "wanted a device of this machine, found --device gpu"),
        (["--save", "/nowhere/x.pt"], "wanted a file in a folder that there is, found --save"),
    ],
)
def test_a_wrong_option_is_refused_before_training(exports, option, message, capsys):
    from d4m.export.standalone.command import main

    with pytest.raises(SystemExit) as refusal:
        main(["train", "--data", str(exports / "parquet"), *option])
    printed = capsys.readouterr()
    assert message in f"{refusal.value} {printed.err}"
    assert "epoch" not in printed.out


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_description_is_named(tmp_path, text):
    (tmp_path / "distilled.json").write_text(text)
    with pytest.raises(ValueError, match=r"distilled\.json is damaged .*export again"):
        DistilledDataset(tmp_path)


def test_a_folder_per_class_is_read_by_name_or_number(exports, tmp_path):
    import pyarrow.parquet as pq

    from d4m.export.standalone.command import read_test

    data = DistilledDataset(exports / "parquet")
    images, class_ids = read_test(exports / "parquet" / "data", data.about)
    for row, each in enumerate(pq.read_table(exports / "parquet" / "data").to_pylist()):
        names = (data.classes[each["label"]], str(each["label"]))
        file = tmp_path / names[row % 2] / "deeper" / f"{row:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(each["image"]["bytes"])
    found, found_ids = read_test(tmp_path, data.about)
    assert sorted(found_ids.tolist()) == class_ids.tolist()
    for class_id in range(10):
        ours, theirs = found[found_ids == class_id], images[class_ids == class_id]
        assert {bytes(i.flatten()) for i in ours} == {bytes(i.flatten()) for i in theirs}


def test_the_parts_are_joined_whole_and_import_no_module_of_d4m():
    tree = ast.parse(join_parts())
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - sys.stdlib_module_names == {"torch", "PIL", "pyarrow"}
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert len(names) == len(set(names))
    parts = Path(__file__).parents[2] / "d4m" / "export" / "standalone"
    for path in parts.glob("[a-z]*.py"):
        own = ast.parse(path.read_text(encoding="utf-8"))
        defined = {n.name for n in own.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        assert defined <= set(names)
