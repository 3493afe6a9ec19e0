"""Draw docs/digits_steps.png from a finished recipe: real images, prototypes, synthetic images.

For each class the picture has the real image nearest the first prototype, that prototype through
the VAE's decoder, and the synthetic image that began with it. Run it after `make demo`:

    python docs/draw_steps.py digits docs/digits_steps.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from d4m.environment import compute, find_recipe, store_root
from d4m.pipeline import Pipeline
from d4m.stages.context import StageContext
from d4m.stages.unit_names import class_unit

_TITLES = ("real, nearest the prototype", "prototype, decoded", "synthetic")
_COLUMNS = 5
_CELL_PX, _GAP_PX, _TITLE_PX, _ARROW_PX = 56, 4, 26, 44
_INK = (40, 40, 40)


def main(recipe: str, picture: Path) -> None:
    """Draw the classes of a recipe and save the picture."""
    context = Pipeline(find_recipe(recipe), store_root(), compute()).open_context()
    steps = np.stack([_steps(context, class_id) for class_id in context.class_ids], axis=1)
    rows = -(-steps.shape[1] // _COLUMNS)
    panel = _COLUMNS * (_CELL_PX + _GAP_PX) - _GAP_PX
    width = 3 * panel + 2 * _ARROW_PX
    height = _TITLE_PX + rows * (_CELL_PX + _GAP_PX) - _GAP_PX
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for number, (title, images) in enumerate(zip(_TITLES, steps, strict=True)):
        left = number * (panel + _ARROW_PX)
        draw.text((left + panel // 2, _TITLE_PX // 2 - 2), title, _INK, font, anchor="mm")
        for place, image in enumerate(images):
            row, column = divmod(place, _COLUMNS)
            step = _CELL_PX + _GAP_PX
            sheet.paste(_enlarge(image), (left + column * step, _TITLE_PX + row * step))
        if number < 2:
            _draw_arrow(draw, left + panel, _TITLE_PX + (height - _TITLE_PX) // 2)
    sheet.save(picture, optimize=True)


def _steps(context: StageContext, class_id: int) -> np.ndarray:
    """Return a class's real image, decoded prototype and synthetic image."""
    nearest = context.read("prototypes", class_unit(class_id))["nearest_images"][:1]
    index = context.image_index("train", class_id).subset(nearest)
    real = next(iter(context.source.read_images("train", class_id, index)))[0]
    arrays = context.read("synthetic_images", class_unit(class_id))
    return np.stack([real, arrays["decoded_prototypes"][0], arrays["images"][0]])


def _enlarge(image: np.ndarray) -> Image.Image:
    small = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    return small.convert("RGB").resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST)


def _draw_arrow(draw: ImageDraw.ImageDraw, left: int, middle: int) -> None:
    start, tip = left + 9, left + _ARROW_PX - 9
    draw.line([(start, middle), (tip - 8, middle)], _INK, width=3)
    draw.polygon([(tip, middle), (tip - 11, middle - 7), (tip - 11, middle + 7)], _INK)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
