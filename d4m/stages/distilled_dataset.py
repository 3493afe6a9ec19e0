"""Artifact `distilled_dataset`: the folder that a user takes away."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d4m.images.contact_sheet import draw_contact_sheet
from d4m.settings import EPOCHS_PER_BLOCK, RecipeSettings
from d4m.stages.base import Product, Stage
from d4m.stages.chosen_settings import choice_inputs, describe_choice
from d4m.stages.context import Inputs, StageContext
from d4m.stages.display_names import without_names
from d4m.stages.score_table import ScoreRow, score_rows
from d4m.stages.score_text import LEGEND, markdown_table, ranking_lines
from d4m.stages.set_bytes import set_bytes
from d4m.stages.soft_labels import StoredLabels, block_size
from d4m.stages.training_sets import synthetic_classes, synthetic_set
from d4m.store.layout import LAYOUTS, write_group_in_pieces
from d4m.store.pieces import gathered
from d4m.store.reference import Unit

_CARD = """# {name}: a distilled data set

{images} images of {classes} classes, {ipc} per class, made from {source} by D4M
(Su et al., CVPR 2024).

| file | what it holds |
|---|---|
| `images/<class>/<number>.png` | the images, for people and for any image loader |
| `synthetic_images.zarr` | the same as one array in class order, with the seed of each |
{labels}| `classes.json` | class id, name, prompt |
| `recipe.json` | every setting that was used |
| `scores.json` | scores of the students, with the baselines from the same run |
| `contact_sheet.png` | the first hundred classes at a glance |

{notes}

## Scores

Students of each training set, on {split} images that nothing was trained on. {legend}.

{scores}

{lines}
"""
_LABEL_FILES = """\
| `soft_labels.zarr` | the teacher's logits for every epoch's view of every image |
| `views.zarr` | those views: crops, turns, mixes; \
`d4m.training.augment.replay_views` makes their pixels |
"""
_LABEL_NOTES = {
    "float16": "Labels are raw scores: divide by the temperature of your choice before the "
    "softmax.",
    "uint8": "Labels are stored as `gaps`: a class is `gaps * scales / 255` below the highest "
    "score of its row. Divide by the temperature of your choice before the softmax.",
    "top_k": "Labels are stored as the highest `classes`, and as `gaps`: each but the first is "
    "`gaps * scales / 255` below it, and last all other classes do. Divide by the temperature of "
    "your choice before the softmax.",
}
_NO_LABELS = "There are no soft labels here: the students "
_ONLINE_NOTE = f"{_NO_LABELS}asked the teacher as they trained."
_HARD_NOTE = f"{_NO_LABELS}learnt the classes, as `evaluation.hard` of `recipe.yaml` says."

_SHEET_ROWS = 100


def note_without_labels(settings: RecipeSettings) -> str:
    """Return why a data set holds no soft labels, in words."""
    return _ONLINE_NOTE if "soft" in settings.evaluation.labels else _HARD_NOTE


class DistilledDataset(Stage):
    """The distilled data set. Unit: the whole, as a folder of plain files.

    The images and labels are those of the first distillation; the scores are over all.
    """

    name: ClassVar[str] = "distilled_dataset"
    version: ClassVar[str] = "2"
    upstream: ClassVar[tuple[str, ...]] = (
        "synthetic_images",
        "soft_labels",
        "evaluation_scores",
        "synthesis_choice",
    )
    sections: ClassVar[tuple[str, ...]] = ("whole",)
    uses_device: ClassVar[bool] = False

    def plan(self, context: StageContext) -> list[Unit]:
        """Return one unit, which depends on all that it packs."""
        table, prompts = context.source.class_table, context.recipe.settings.prompts
        packed = {
            "recipe": context.recipe.name,
            "settings": _stored_settings(context).model_dump(mode="json"),
            "classes": [
                {"class_id": c, "name": table.names[c], "prompt": table.prompt(c, prompts)}
                for c in context.class_ids
            ],
        }
        inputs = Inputs(packed)
        for artifact in ("synthetic_images", "soft_labels", "evaluation_scores"):
            inputs |= context.all_of(artifact)
        inputs |= choice_inputs(context, "strength", "guidance_scale")
        for distillation in range(1, context.recipe.settings.evaluation.distillations):
            inputs |= context.all_of("evaluation_scores", distillation=distillation)
        return [self.unit(context, "distilled_dataset", inputs)]

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Write the folder."""
        for unit in missing:

            def write(folder: Path, unit: Unit = unit) -> None:
                _write(context, folder, unit.settings)

            yield unit, write


def _stored_settings(context: StageContext) -> RecipeSettings:
    """Return the settings without names, and with the blocks that the soft labels have."""
    settings = without_names(context.recipe.settings)
    labels = settings.soft_labels
    blocks = [unit for _, unit in context.all_of("soft_labels").reads]
    size = block_size(blocks, labels.labelled) if blocks else EPOCHS_PER_BLOCK
    stored = labels.model_copy(update={"epochs_per_block": size})
    return settings.model_copy(update={"soft_labels": stored})


def _write(context: StageContext, folder: Path, packed: dict[str, Any]) -> None:
    recipe = RecipeSettings.from_dump(packed["settings"])
    counts = _write_images(context, folder, packed["classes"], recipe.prototypes.ipc)
    if context.all_of("soft_labels").reads:
        _write_labels(context, folder, recipe)
    write_json(folder / "classes.json", packed["classes"])
    write_json(folder / "recipe.json", packed["settings"])
    rows = score_rows(context, recipe)
    write_json(folder / "scores.json", list(map(score_json, rows)))
    weight = set_bytes(context)
    assert weight is not None, "the data set is packed from images and labels"
    lines = [*ranking_lines(rows), f"Stored: {weight.text}."]
    if chosen := describe_choice(context):
        lines.append(f"{chosen[0].upper()}{chosen[1:]}.")
    card = _card(packed["recipe"], recipe, counts, rows, lines)
    (folder / "README.md").write_text(card, encoding="utf-8")


def score_json(row: ScoreRow) -> dict[str, Any]:
    """Return a row without the conditions it was made under, which are part of no digest."""
    return {name: value for name, value in asdict(row).items() if name != "made"}


def _card(
    name: str,
    settings: RecipeSettings,
    counts: Sequence[int],
    rows: Sequence[ScoreRow],
    lines: Sequence[str],
) -> str:
    stored = settings.soft_labels.mode == "stored"
    notes = _LABEL_NOTES[settings.soft_labels.format] if stored else note_without_labels(settings)
    return _CARD.format(
        name=name,
        images=sum(counts),
        classes=len(counts),
        ipc=settings.prototypes.ipc,
        source=settings.dataset.source,
        labels=_LABEL_FILES if stored else "",
        notes=notes,
        split=settings.evaluation.split,
        legend=LEGEND,
        scores=markdown_table(rows, settings.evaluation.split),
        lines="  \n".join(lines),
    )


def _write_labels(context: StageContext, folder: Path, recipe: RecipeSettings) -> None:
    """Write the stored labels, and next to them the views that they belong to."""
    images = synthetic_set(context, mosaic=recipe.synthesis.mosaic)
    labels = StoredLabels.of_recipe(context, images, recipe)
    write_group_in_pieces(
        folder / "soft_labels.zarr",
        "soft_labels",
        gathered(map(labels.packed, range(len(labels)))),
        rows=len(labels),
        attributes={},
    )
    names = tuple(LAYOUTS["views"])
    write_group_in_pieces(
        folder / "views.zarr",
        "views",
        (
            {n: array[None] for n in names if (array := getattr(views, n)) is not None}
            for views in map(labels.views, range(len(labels)))
        ),
        rows=len(labels),
        attributes={},
    )


def _write_images(
    context: StageContext, folder: Path, classes: Sequence[dict[str, Any]], ipc: int
) -> list[int]:
    """Write PNG files, the array and the contact sheet; return each class's number of images."""
    counts = [ipc] * len(classes)

    def pieces() -> Iterator[dict[str, np.ndarray]]:
        for class_id, arrays in enumerate(synthetic_classes(context)):
            write_pngs(folder / "images" / f"{class_id:05d}", arrays["images"])
            yield arrays

    write_group_in_pieces(
        folder / "synthetic_images.zarr",
        "synthetic_images",
        pieces(),
        rows=sum(counts),
        attributes={
            "class_ids": np.repeat(np.arange(len(counts)), counts).tolist(),
            "classes": list(classes),
        },
    )
    first = [arrays["images"] for arrays in synthetic_classes(context, most_classes=_SHEET_ROWS)]
    draw_contact_sheet(
        np.concatenate(first),
        np.repeat(np.arange(len(first)), counts[: len(first)]),
        context.source.class_table.names,
    ).save(folder / "contact_sheet.png")
    return counts


def write_pngs(folder: Path, images: np.ndarray) -> None:
    """Write the images of a class as numbered PNG files into a new folder."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            folder / f"{number:05d}.png"
        )


def write_json(path: Path, value: Any) -> None:
    """Write a value as one of the JSON files of a data set."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
