"""Write the card of an exported data set, with the front matter that the hub reads."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

from d4m.export.contents import Contents
from d4m.recipe.private_paths import name_source
from d4m.stages.distilled_dataset import note_without_labels
from d4m.stages.score_text import LEGEND, markdown_table, ranking_lines

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
_LARGEST = "100K<n<1M"
_TAGS = ("dataset-distillation", "synthetic", "d4m", "diffusion")

CITATION = """\
@inproceedings{su2024d4m,
  title     = {{D\\textasciicircum4}M: Dataset Distillation via Disentangled Diffusion Model},
  author    = {Su, Duo and Hou, Junjie and Gao, Weizhi and Tian, Yingjie and Tang, Bowen},
  booktitle = {CVPR},
  year      = {2024}
}"""

_CARD = """\
# {name}: a distilled data set

{images} images of {classes} classes, {ipc} per class, {size_px} px, made from {source}
by D4M, dataset distillation by a disentangled diffusion model (Su et al., CVPR 2024).
Networks train on these images in place of the whole data set.

![{sheet}](contact_sheet.png)

## Use it

{use}

## Files

| file | holds |
|---|---|
{files}

## Scores

Students of each training set, on {split} images that nothing was trained on. {legend}.

{scores}

{lines}

## How it was made

`recipe.yaml` has every setting, and `lineage.json` every unit that this data set was made of, back
to the real images and the models, with the digest, the library versions and the time of each.

Made on: {made_on}.
{failed}
## Cite

Cite the source of the images, {source}, and the method:

```bibtex
{citation}
```
"""

_USE = {
    "parquet": """\
```python
from datasets import load_dataset

images = load_dataset("PATH/OF/THIS/FOLDER", split="train")  # or its name on the hub
images[0]["image"], images.features["label"].names
```
""",
    "imagefolder": '    torchvision.datasets.ImageFolder("PATH/OF/THIS/FOLDER/train")\n',
    "webdataset": '    load_dataset("webdataset", data_files="PATH/OF/THIS/FOLDER/data/*.tar")\n',
}
_USE_LABELS = """\
Soft labels are for the views that the teacher saw. `distilled.py` makes those views, bit by bit,
and needs torch, pillow and pyarrow only:

    python distilled.py train --model convnet3 --test TEST_IMAGES

```python
from distilled import DistilledDataset

data = DistilledDataset(".")
for epoch in range(data.epochs):
    for pixels, teacher_logits in data.batches(epoch, 50):
        ...  # pixels in [-1, 1]; logits are to be divided by a temperature
```
"""

_IMAGE_FILES = {
    "parquet": "| `data/` | `image`, `label`, `weight` (1 on average: the share of its class that "
    "an image stands for), `prompt`, `prototype` (its number in the class), `real_image` (that "
    "it began with), `seed` |",
    "imagefolder": "| `train/<class id>_<name>/` | the images |",
    "webdataset": "| `data/` | the images, with the class id (`cls`) and with prompt, prototype "
    "and seed (`json`) |",
}
_TABLE_FILES = """\
| `scores/` | the score table |
| `distilled.py`, `distilled.json` | a loader, a loop that trains on soft labels, and their facts |
| `croissant.json` | these tables in the Croissant format |"""
_LABEL_FILES = (
    "| `soft_labels/` | a row per epoch and image: how the view was made, and the teacher's logits "
    "for it{how} |"
)
_HOW = {
    "float16": " (`logits`)",
    "uint8": ": a class is `gaps * scale / 255` below the highest",
    "top_k": ": the highest `classes`; each but the first is `gaps * scale / 255` below it, and "
    "last all other classes are",
}
_PAPER_FILES = """\
| `scores.json` | the score table with learning curves |
| `recipe.yaml`, `lineage.json` | how the data set was made |
| `contact_sheet.png` | the first hundred classes at a glance |
| `SHA256SUMS` | for `sha256sum --check` |"""


def write_card(folder: Path, contents: Contents, *, form: str, licence: str) -> None:
    """Write README.md.

    Args:
        folder: of the export.
        contents: of the data set.
        form: how the images are stored: `parquet`, `imagefolder` or `webdataset`.
        licence: the hub's name for the licence of the images.
    """
    front = StringIO()
    cast(Any, YAML(typ="safe")).dump(_front_matter(contents, form, licence), front)
    text = f"---\n{front.getvalue()}---\n\n{_card(contents, form)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def configurations(contents: Contents, form: str) -> Mapping[str, str]:
    """Return which files each configuration of the data set is read from."""
    if form != "parquet":
        return {"default": "train/**/*.png" if form == "imagefolder" else "data/train-*.tar"}
    labels = {"soft_labels": "soft_labels/train-*.parquet"} if contents.has_labels else {}
    return {"default": "data/train-*.parquet", **labels, "scores": "scores/train-*.parquet"}


def _front_matter(contents: Contents, form: str, licence: str) -> dict[str, Any]:
    images = contents.shape[0]
    return {
        "pretty_name": f"{contents.name}, distilled",
        "license": licence,
        "task_categories": ["image-classification"],
        "size_categories": [next((name for most, name in _SIZES if images < most), _LARGEST)],
        "tags": [*_TAGS, *(["soft-labels"] if contents.has_labels and form == "parquet" else [])],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": path}],
                **({"default": True} if name == "default" else {}),
                **({"drop_labels": False} if form == "imagefolder" else {}),
            }
            for name, path in configurations(contents, form).items()
        ],
    }


def _card(contents: Contents, form: str) -> str:
    images, size_px, _ = contents.shape
    settings, tables = contents.recipe, form == "parquet"
    labelled = tables and contents.has_labels
    how = _HOW[(contents.labels or settings.soft_labels).format]
    files = [
        _IMAGE_FILES[form],
        _LABEL_FILES.format(how=how) if labelled else "",
        _TABLE_FILES if tables else "",
        _PAPER_FILES,
    ]
    use = _USE[form]
    use += f"\n{_USE_LABELS if labelled else note_without_labels(settings)}" if tables else ""
    failed = ["", "## Checks that fail", "", *(f"- {each}" for each in contents.failed), ""]
    return _CARD.format(
        name=contents.name,
        images=images,
        classes=len(contents.classes),
        ipc=settings.prototypes.ipc * settings.synthesis.tiles,
        size_px=size_px,
        source=name_source(settings.dataset),
        sheet=f"The images of {contents.name}",
        use=use.strip("\n"),
        files="\n".join(filter(None, files)),
        split=settings.evaluation.split,
        legend=LEGEND,
        scores=markdown_table(contents.scores, settings.evaluation.split),
        lines="  \n".join(ranking_lines(contents.scores)),
        made_on=contents.made_on or "a machine that was not recorded",
        failed="\n".join(failed) if contents.failed else "",
        citation=CITATION,
    )
