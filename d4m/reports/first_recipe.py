"""The first recipe for images that were looked at; each choice has its reason as a comment."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from d4m.errors import RecipeError, SourceError
from d4m.recipe.training_rules import convnet_for
from d4m.reports.inspection import Inspection
from d4m.settings.dataset import SizePx

_LARGEST_PX, _SMALLEST_PX, _DIVISOR = 64, 8, 4
_HALVED = 2  # divides every size, as generators halve images
_MOST_PER_CLASS = 10
_SMALLEST_SHARE = 5  # real images of the smallest class for each distilled one
_MANY_CLASSES = 100
_NAMED = 5
_SCALED = 4  # times the size above which scaled JPEG files take less time
_WORTH_ITS_ROUNDING = 1.25  # times the speed of float32
_FEWEST_CLASSES = 2
_INSTEAD = ", or with `d4m init` and the folder of the training images alone"
_SHAPES = 1.2  # ratio of the edges above which an image is clearly no square


@dataclass(frozen=True)
class FirstChoices:
    """The choices of a first recipe.

    Attributes:
        size_px: height and width that they are resized to.
        channels: 1 or 3.
        ipc: images per class.
        student: the network that is trained on them.
        kept: the classes that have enough images; empty: all of them.
    """

    size_px: int
    channels: int
    ipc: int
    student: str
    kept: tuple[str, ...]


def check_size(size_px: int) -> None:
    """Refuse a height and width that no first recipe can have.

    Args:
        size_px: as the user names it.

    Raises:
        RecipeError: it is odd, or not in the range of the setting.
    """
    limits = TypeAdapter[int](SizePx).json_schema()
    low, high = limits["minimum"], limits["maximum"]
    if not low <= size_px <= high or size_px % _HALVED:
        msg = f"`--size-px`: wanted an even number from {low} to {high}, found {size_px}; name one"
        raise RecipeError(msg)


def refuse_too_few(found: Inspection, place: str) -> None:
    """Refuse images of which fewer than two classes can be used.

    Args:
        found: the images.
        place: where they are, for messages.

    Raises:
        SourceError: there are fewer than two classes with a training and a test image.
    """
    usable = len(found.names) - len(found.empty)
    if usable >= _FEWEST_CLASSES:
        return
    trained = len(found.names) - len(found.lacking("train"))
    if found.unreadable and not found.images:
        msg = (
            f"wanted images in at least {_FEWEST_CLASSES} classes of {place}, found "
            f"{len(found.unreadable)} files of which none can be read, such as "
            f"{_example(found.unreadable)}; {_advise(next(iter(found.unreadable)))}"
        )
    elif found.test_place and trained >= _FEWEST_CLASSES:
        msg = (
            f"wanted test images of at least {_FEWEST_CLASSES} classes of {place}, found those of "
            f"{usable} in {found.test_place}; add images there, or hold out a share of the "
            f"training images: with `{found.hold_out}` in the section `dataset` of a recipe"
            f"{_INSTEAD if found.hold_out.startswith('splits') else ''}"
        )
    else:
        msg = (
            f"wanted at least {_FEWEST_CLASSES} classes with 2 images or more, found {usable} in "
            f"{place}; add images"
        )
    raise SourceError(msg)


def _advise(file: str) -> str:
    """Return what to do with files that cannot be read, by the name of one."""
    if file.lower().endswith(".parquet"):
        return "set `dataset.source: huggingface` in a recipe to read tables"
    return "save them as PNG or JPEG files, with 8 or 16 bits per channel"


def _example(unreadable: Mapping[str, str]) -> str:
    first, reason = next(iter(unreadable.items()))
    return f"{first}: {reason}"


def choose(found: Inspection, *, size_px: int | None, ipc: int | None) -> FirstChoices:
    """Choose what suits the images.

    Args:
        found: the images.
        size_px: height and width, if the user names them.
        ipc: images per class, if the user names their number.

    Raises:
        RecipeError: `ipc` is more than the training images of the smallest class.

    Example:
        >>> sizes = ((500, 333), (640, 480))
        >>> found = Inspection(("a", "b"), {"train": (40, 7), "test": (9, 2)}, {}, sizes, False, 0,
        ...     {"JPEG": 2}, "", {})
        >>> choose(found, size_px=None, ipc=None)
        FirstChoices(size_px=64, channels=3, ipc=1, student='convnet4', kept=())
    """
    size = size_px or max(_SMALLEST_PX, min(_LARGEST_PX, found.edge_px) // _DIVISOR * _DIVISOR)
    lost = set(found.empty)
    pairs = zip(found.names, found.counts["train"], strict=True)
    kept = ((count, name) for name, count in pairs if name not in lost)
    fewest, smallest = min(kept, default=(1, ""))
    if ipc and ipc > fewest:
        msg = (
            f"`--ipc`: wanted 1 to {fewest} images per class, as class '{smallest}' has {fewest} "
            f"training images, found {ipc}; lower it or add images"
        )
        raise RecipeError(msg)
    return FirstChoices(
        size,
        1 if found.grey else 3,
        ipc or max(1, min(_MOST_PER_CLASS, fewest // _SMALLEST_SHARE)),
        convnet_for(size),
        tuple(name for name in found.names if name not in lost) if lost else (),
    )


def recipe_name(place: str) -> str:
    """Return the name of a recipe for a folder or a data set of the hub.

    Example:
        >>> recipe_name("/data/My Birds/"), recipe_name("owner/tiny-set"), recipe_name("/")
        ('my_birds', 'tiny_set', 'images')
    """
    last = place.rstrip("/").rpartition("/")[2]
    words = re.findall(r"[a-z0-9]+", last.lower())
    return "_".join(words) or "images"


def recipe_lines(
    name: str,
    dataset: Mapping[str, Any],
    found: Inspection,
    chosen: FirstChoices,
    *,
    bfloat16_gain: float | None,
) -> Iterator[str]:
    """Yield the lines of a recipe, with comments.

    Args:
        name: of the recipe.
        dataset: keys of the section `dataset` that say where the images are.
        found: the images.
        chosen: what suits them.
        bfloat16_gain: how many times as fast networks train in bfloat16 as in float32; None: it
            was not measured.
    """
    yield f"# {name}: {found.images:,} images of {len(found.names)} classes. Keys that are left out"
    yield "# have defaults; docs/reference/recipe.md has all of them."
    yield "dataset:"
    yield from (f"  {key}: {_text(value)}" for key, value in dataset.items())
    yield f"  size_px: {chosen.size_px}  # {describe_sizes(found)}"
    yield "  # resize: crop  # cuts out the centre; the default squeezes the image into the square"
    if "JPEG" in found.formats and found.edge_px >= _SCALED * chosen.size_px:
        yield "  # jpeg: scaled  # reads large photographs faster; their pixels differ a little"
    colours = "no image has a colour" if found.grey else "images have colours"
    yield f"  channels: {chosen.channels}  # {colours}"
    if found.transparent:
        yield "  background: [255, 255, 255]  # behind transparent pixels: red, green, blue"
    if chosen.kept:
        yield f"  classes:  # without {_listed(found.empty)}: no training or no test images"
        yield from (f"    {_text(each)}: {_text(each)}" for each in chosen.kept)
    yield from _prompt_lines(found)
    if bfloat16_gain is not None:
        yield _precision_line(bfloat16_gain)
    yield f"prototypes: {{ipc: {chosen.ipc}}}  # images per class of the distilled data set"
    yield "# Generator, teacher, refinement and students have defaults that follow these images:"
    yield f"# `d4m status {name}` prints them, and docs/reference/defaults.md says why."
    yield "# synthesis: {strength: auto, guidance_scale: auto}  # measured, which takes longer"
    yield "# generator: {pretrained: {model: owner/name}}  # in place of one that is trained here"
    if len(found.names) > _MANY_CLASSES:
        yield "soft_labels: {format: top_k}  # a tenth of the store, with this many classes"
    yield "evaluation:"
    yield f"  students: [{chosen.student}]  # of the depth that papers use for this size"
    yield "  seeds: 3  # students per row of the score table"
    yield "  baselines: [random_real]  # more: nearest_real, decoded_prototypes, full_data, ..."


def _precision_line(gain: float) -> str:
    if gain >= _WORTH_ITS_ROUNDING:
        return f"precision: bfloat16  # {gain:.1f} times as fast as float32 where this was written"
    return (
        f"# precision: bfloat16  # where it is faster than float32; {gain:.1f} times as fast where "
        f"this was written"
    )


def _prompt_lines(found: Inspection) -> Iterator[str]:
    yield "prompts:"
    yield "  template: a photo of a {name}  # `d4m prompts` shows all of them"
    if found.homonyms:
        yield "  # These names have several meanings. Say which one is meant, such as:"
        yield "  # per_class:"
        for name, meaning in found.homonyms.items():
            yield f"  #   {_text(name)}: {_text(f'a photo of a {name}, {meaning}')}"


def describe_images(found: Inspection) -> Iterator[str]:
    """Yield what was found, a line for each subject."""
    per_class = [sum(each) for each in zip(*found.counts.values(), strict=True)]
    splits = ", ".join(f"{sum(counts):,} {split}" for split, counts in found.counts.items())
    yield f"images: {found.images:,} ({splits})"
    yield f"classes: {len(found.names)}, of {min(per_class):,} to {max(per_class):,} images each"
    if found.sizes:
        yield from _describe_pixels(found)
    if found.described:
        yield f"folders: {found.described}"
    if found.unreadable:
        count = len(found.unreadable)
        yield f"bad files: {count} are left out, such as {_example(found.unreadable)}"
    if found.images:
        yield from _describe_lacking(found)
    if found.homonyms:
        named = "; ".join(f"{name} ({gloss})" for name, gloss in found.homonyms.items())
        yield f"names with several meanings, one of which is: {named}; see `prompts` in the recipe"


def _describe_pixels(found: Inspection) -> Iterator[str]:
    yield f"sizes: {describe_sizes(found)}"
    formats = ", ".join(f"{name} {count}" for name, count in found.formats.items())
    colours = "grey" if found.grey else "colour"
    clear = f"; {found.transparent} have transparent pixels" if found.transparent else ""
    yield f"pixels: {colours}{clear}; of {len(found.sizes)} looked at: {formats}"


def _describe_lacking(found: Inspection) -> Iterator[str]:
    """Yield which classes are left out, and which split lacks their images."""
    if found.empty and not found.test_place:
        yield (
            f"too small: {_listed(found.empty)} lack a training or a test image; the recipe leaves "
            f"them out"
        )
        return
    if names := found.lacking("train"):
        yield f"left out, as there are no training images: {_listed(names)}"
    if names := found.lacking("test"):
        yield (
            f"left out, as {found.test_place} has no images: {_listed(names)}; "
            f"`{found.hold_out}` in the section `dataset` keeps them, as it holds out a share of "
            f"the training images instead"
        )


def describe_sizes(found: Inspection) -> str:
    """Return the smallest and the largest of the images' sizes in words.

    Args:
        found: the images, of which at least one can be read.
    """
    by_area = sorted({*found.sizes}, key=lambda size: (math.prod(size), size))
    smallest, largest = (f"{width} x {height}" for width, height in (by_area[0], by_area[-1]))
    if len(by_area) == 1:
        return f"all are {smallest} px"
    text = f"{smallest} to {largest} px"
    wide = sum(max(size) > _SHAPES * min(size) for size in found.sizes)
    return f"{text}, {wide} of {len(found.sizes)} clearly no squares" if wide else text


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(each if each.isprintable() else _text(each) for each in names[:_NAMED]) + more


def _text(value: object) -> str:
    """Return a value as YAML that nothing in it can break: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)
