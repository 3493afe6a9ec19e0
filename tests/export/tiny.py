"""A small export made from arrays, for tests of what reads it."""

import io
import json

import pyarrow as pa
from PIL import Image

from d4m.export.images import image_columns
from d4m.export.label_table import LabelledEpoch, write_label_table
from d4m.export.standalone.dataset import DistilledDataset
from d4m.export.tables import sharded
from d4m.training.label_formats import pack_logits


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def write_tiny(folder, images, epochs, *, classes, labels, training=None, weights=None):
    """Write images and labelled epochs (views, logits); return what `DistilledDataset` reads."""
    class_ids = [row * classes // len(images) for row in range(len(images))]
    with sharded(folder / "data", image_columns([f"class {n}" for n in range(classes)])) as writer:
        rows = [
            {"image": {"bytes": png(image)}, "label": class_id, "weight": weight}
            for image, class_id, weight in zip(
                images, class_ids, weights or [1.0] * len(images), strict=True
            )
        ]
        writer.write(pa.Table.from_pylist(rows, schema=writer.schema))
    packed = [
        LabelledEpoch(
            {name: array for name, array in vars(views).items() if array is not None},
            pack_logits(logits, labels),
        )
        for views, logits in epochs
    ]
    write_label_table(folder / "soft_labels", packed, channels=images.shape[-1])
    about = {
        "classes": [f"class {n}" for n in range(classes)],
        "size_px": images.shape[1],
        "channels": images.shape[-1],
        "training": training,
    }
    (folder / "distilled.json").write_text(json.dumps(about))
    return DistilledDataset(folder)
