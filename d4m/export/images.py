"""Write the images of a distilled set: as parquet, as a folder per class, as tar files."""

import io
import json
import re
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from d4m.errors import D4MError
from d4m.export.contents import Contents, ExportedImage
from d4m.export.standalone.decoding import DECODED
from d4m.export.tables import IMAGE, Column, class_label, sharded, value
from d4m.images.png import encode_png
from d4m.stages.training_sets import labelled_batches, view_size_px

_GROUP_IMAGES = 100  # the hub's viewer reads a row group per page
_TAR_BYTES = 256 << 20
_NAME_BYTES = 255  # that file systems take
_UNSAFE = re.compile(r"[^\w.+-]+")


def image_columns(class_names: list[str]) -> dict[str, Column]:
    """Return the columns of the table of images."""
    return {
        "image": IMAGE,
        "label": class_label(class_names),
        "weight": value(pa.float64()),
        "prompt": value(pa.string()),
        "prototype": value(pa.int32()),
        "real_image": value(pa.string()),
        "seed": value(pa.int64()),
    }


def write_image_table(folder: Path, contents: Contents) -> None:
    """Write every image with its label, weight, prompt, prototype, first real image and seed."""
    columns = image_columns(contents.class_names)
    rows = (_row(image, contents) for image in contents.images())
    with sharded(folder, columns) as writer:
        while group := list(islice(rows, _GROUP_IMAGES)):
            writer.write(pa.Table.from_pylist(group, schema=writer.schema))


def write_scored_images(folder: Path, contents: Contents) -> None:
    """Write the real images that students are scored on, as parquet files of images and labels.

    Args:
        folder: of the files.
        contents: of the present recipe's data set.
    """
    settings = contents.recipe.evaluation
    batches = labelled_batches(
        contents.context,
        settings.split,
        size_px=view_size_px(contents.context),
        crop=settings.test_crop,
    )
    columns, count = {"image": IMAGE, "label": class_label(contents.class_names)}, 0
    with sharded(folder, columns, settings.split, notes={DECODED: "yes"}) as writer:
        for class_id, images in batches:
            rows = [
                {"image": {"bytes": encode_png(image), "path": f"{row:08d}.png"}, "label": class_id}
                for row, image in enumerate(images, count)
            ]
            writer.write(pa.Table.from_pylist(rows, schema=writer.schema))
            count += len(rows)


def write_image_folder(folder: Path, contents: Contents) -> None:
    """Write a folder of PNG files per class, whose names sort as the class ids do."""
    for image in contents.images():
        place = folder / _folder_name(image.class_id, contents.class_names[image.class_id])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{image.number:05d}.png").write_bytes(image.png)


def write_webdataset(folder: Path, contents: Contents) -> None:
    """Write tar files of `<key>.png`, `<key>.cls` (the class id) and `<key>.json` (all else)."""
    folder.mkdir(parents=True)
    images, number = contents.images(), 0
    image = next(images, None)
    while image is not None:
        with tarfile.open(folder / f"train-{number:06d}.tar", "w") as archive:
            while image is not None and archive.offset < _TAR_BYTES:
                _add_sample(archive, image, contents)
                image = next(images, None)
        number += 1


def _add_sample(archive: tarfile.TarFile, image: ExportedImage, contents: Contents) -> None:
    key = f"{image.class_id:05d}-{image.number:05d}"
    about = _row(image, contents) | {"class": contents.class_names[image.class_id]}
    del about["image"]
    _add(archive, f"{key}.png", image.png)
    _add(archive, f"{key}.cls", str(image.class_id).encode())
    _add(archive, f"{key}.json", json.dumps(about, ensure_ascii=False).encode())


def _row(image: ExportedImage, contents: Contents) -> dict[str, Any]:
    """Return the row of an image.

    Raises:
        D4MError: its students' losses were weighted, and the weights are no longer stored.
    """
    recipe, share = contents.recipe, image.origin and image.origin.share
    per_class = recipe.prototypes.ipc * recipe.synthesis.tiles
    if share is None and recipe.evaluation.matching.cluster_weights:
        msg = (
            f"cannot export {contents.name}: wanted the clusters that weigh each image's loss, "
            f"found that they are no longer stored; run `d4m run {contents.name}` first"
        )
        raise D4MError(msg)
    return {
        "image": {"bytes": image.png, "path": f"{image.class_id:05d}-{image.number:05d}.png"},
        "label": image.class_id,
        "weight": None if share is None else share * per_class,
        "prompt": image.prompt,
        "prototype": image.number,
        "real_image": image.origin and image.origin.nearest,
        "seed": image.seed,
    }


def _folder_name(class_id: int, name: str) -> str:
    text = f"{class_id:05d}_{_UNSAFE.sub('_', name)}".encode()[:_NAME_BYTES]
    return text.decode(errors="ignore").rstrip("_.")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without owner or time, so that the same images give the same archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
