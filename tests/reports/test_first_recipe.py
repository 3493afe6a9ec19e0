"""A first recipe for one's own images: five unlike folders, and what is seen in each.

The images are made here: noise, flat colours and a drawing of hills as a photograph.
"""

import datasets
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from d4m.cli.init import find_place
from d4m.page.write import render_report
from d4m.recipe.recipe import load_recipe
from d4m.reports.first_recipe import (
    choose,
    describe_images,
    describe_sizes,
    recipe_lines,
    recipe_name,
)
from d4m.reports.half_precision import bfloat16_gain
from d4m.reports.inspection import inspect_images
from d4m.reports.preflight.check import check_recipe
from d4m.settings import RecipeSettings
from tests.cli.commands import call, refused
from tests.conftest import Workspace
from tests.marks import COPY_KEYWORD
from tests.page.parsed import Page


def noise(seed, height, width, channels):
    shape = (height, width, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photograph(seed, height, width):
    """Hills under a sky with some noise, larger than wide or wider than large."""
    draw = np.random.default_rng(seed)
    across, down = np.linspace(0, 6, width), np.linspace(0, 1, height)[:, None]
    hills = 0.5 + 0.2 * np.sin(across + draw.uniform(0, 6))
    sky, ground = draw.integers(90, 255, 3), draw.integers(0, 140, 3)
    pixels = np.where((down > hills)[..., None], ground, sky) + draw.normal(
        0, 8, (height, width, 3)
    )
    return pixels.clip(0, 255).astype(np.uint8)


def save(folder, class_name, number, pixels, suffix="png"):
    path = folder / class_name / f"{number}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(folder):
    for number in range(8):
        for label in range(3):
            save(folder, f"digit {label}", number, noise([label, number], 28, 28, 1))


def colour(folder):
    for number in range(6):
        for label in ("crane", "dog"):
            save(folder, label, number, noise([len(label), number], 32, 32, 3))
    (folder / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def photographs(folder):
    for number in range(4):
        for label in ("field", "moor"):
            size = (375, 500) if number % 2 else (500, 400)
            save(folder, label, number, photograph([len(label), number], *size), "jpg")


def icons(folder):
    for number in range(5):
        for label in ("apps", "places"):
            pixels = noise([len(label), number], 24, 24, 4)
            pixels[:4, :, 3] = 0
            save(folder, label, number, pixels)
    save(folder, "alone", 0, noise(9, 24, 24, 3))


def thousand(folder):
    """A data set that the hub's library has saved, which is one file and not 2,000."""
    labels = [f"class {row // 2:03d}" for row in range(2000)]
    images = [Image.fromarray(noise(row, 10, 10, 3)) for row in range(2000)]
    datasets.Dataset.from_dict({"image": images, "label": labels}).save_to_disk(folder)


def many(folder):
    """More classes than the test calls many, which get smaller soft labels."""
    for number in range(3):
        for label in range(MANY):
            save(folder, f"kind {label:03d}", number, noise([label, number], 10, 10, 3))


MANY = 25
FOLDERS = {each.__name__: each for each in (grey, colour, photographs, icons, thousand, many)}


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """Return the folder of a kind of images, and what is found there; each is made once."""
    known = {}

    def look(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            FOLDERS[kind](folder / "images")
            place = dict(find_place(str(folder / "images")))
            known[kind] = (place, inspect_images(place, folder / "cache"))
        return known[kind]

    return look


def draft(looked_at, kind, tmp_path, *, gain=1.0):
    place, found = looked_at(kind)
    chosen = choose(found, size_px=None, ipc=None)
    path = tmp_path / "recipes" / f"{kind}.yaml"
    path.parent.mkdir(exist_ok=True)
    lines = recipe_lines(kind, place, found, chosen, bfloat16_gain=gain)
    path.write_text("\n".join(lines), encoding="utf-8")
    return found, load_recipe(path)


@pytest.mark.parametrize(
    ("kind", "size_px", "channels", "classes", "student"),
    [
        ("grey", 28, 1, 3, "convnet3"),
        ("colour", 32, 3, 2, "convnet3"),
        ("photographs", 64, 3, 2, "convnet4"),
        ("icons", 24, 3, 3, "convnet3"),
        ("thousand", 8, 3, 1000, "convnet3"),
    ],
)
def test_a_recipe_suits_its_images_and_passes_every_check_before_a_run(
    looked_at, tmp_path, kind, size_px, channels, classes, student
):
    found, recipe = draft(looked_at, kind, tmp_path)
    dataset = recipe.settings.dataset
    assert (dataset.size_px, dataset.channels) == (size_px, channels)
    assert len(found.names) == classes
    assert recipe.settings.evaluation.students[0].architecture == student
    made = Workspace(tmp_path)
    pipeline = made.pipeline(kind)
    context = pipeline.open_context()
    check_recipe(context)
    kept = [name for name in found.names if name not in found.empty]
    assert context.source.class_table.names == tuple(kept)
    counts = dict(zip(found.names, found.counts["train"], strict=True))
    fewest = min(counts[name] for name in kept)
    assert recipe.settings.prototypes.ipc == max(1, fewest // 5)


# As little training as there can be; the rest of a recipe is as it was written.
SHORT = """\
generator: {compact: {autoencoder: {steps: 2, channels: [8, 8]},
  denoiser: {steps: 2, channels: [8, 8], text_width: 16}}}
teacher: {epochs: 1, options: {width: 16}}
soft_labels: {epochs: 2}
"""


@COPY_KEYWORD
@pytest.mark.parametrize("kind", ["grey", "icons", "colour", "photographs", "many"])
def test_a_recipe_runs_to_its_report(looked_at, tmp_path, monkeypatch, kind):
    """With transparent pixels and a class too small, as without: every stage, and the page."""
    monkeypatch.setattr("d4m.reports.first_recipe._MANY_CLASSES", MANY - 1)
    draft(looked_at, kind, tmp_path)
    made = Workspace(tmp_path)
    text = (made.recipes / f"{kind}.yaml").read_text()
    short = text.replace("prototypes: {ipc: 1}", "prototypes: {ipc: 1, starts: 1}")
    short, more = short.replace("seeds: 3", "seeds: 1"), SHORT
    if kind == "many":  # whose recipe has a section for soft labels of its own
        assert "soft_labels: {format: top_k}" in short
        short = short.replace("{format: top_k}", "{format: top_k, epochs: 2}")
        more = SHORT.replace("soft_labels: {epochs: 2}\n", "")
    made.write(kind, f"{short}\n{more}")
    computed = made.run(kind)
    classes = {"grey": 3, "many": MANY}.get(kind, 2)
    assert len(computed["synthetic_images"]) == classes
    page = render_report({kind: made.pipeline(kind)})
    assert len(page.encode()) < 5_000_000
    rows = Page(page).tables[f"Scores of {kind}"]
    found = {(row[0], row[2]) for row in rows[1:]}
    assert {
        (name, labels) for name in ("synthetic", "random_real") for labels in ("soft", "hard")
    } < found


def test_what_is_seen_is_said(looked_at):
    text = {kind: "\n".join(describe_images(looked_at(kind)[1])) for kind in FOLDERS}
    assert "images: 24 (" in text["grey"]
    assert "classes: 3, of 8 to 8 images each" in text["grey"]
    assert "sizes: all are 28 x 28 px" in text["grey"]
    assert "pixels: grey; of 24 looked at: PNG 24" in text["grey"]
    assert "bad files: 1 are left out, such as dog/broken.png: " in text["colour"]
    assert "names with several meanings, one of which is: crane (" in text["colour"]
    assert "sizes: 500 x 375 to 400 x 500 px, 8 of 8 clearly no squares" in text["photographs"]
    assert "pixels: colour; of 8 looked at: JPEG 8" in text["photographs"]
    assert "10 have transparent pixels" in text["icons"]
    assert "too small: alone lack a training or a test image" in text["icons"]
    assert "classes: 1000, of 2 to 2 images each" in text["thousand"]


@pytest.mark.parametrize(("gain", "precision"), [(1.9, "bfloat16"), (1.1, "float32")])
def test_half_precision_is_written_where_it_is_faster(looked_at, tmp_path, gain, precision):
    _, recipe = draft(looked_at, "grey", tmp_path, gain=gain)
    assert recipe.settings.evaluation.optimizer.precision == precision
    path = tmp_path / "recipes" / "grey.yaml"
    text = path.read_text(encoding="utf-8")
    assert f"{gain} times as fast" in text
    path.write_text(text.replace("# precision", "precision"), encoding="utf-8")
    assert load_recipe(path).settings.precision == "bfloat16"


def test_the_gain_of_half_precision_is_measured_in_training_steps():
    """The network runs in both formats; how fast is the machine's affair."""
    gain = bfloat16_gain("convnet3", size_px=8, channels=1, classes=3, device="cpu")
    assert gain > 0


def test_scaled_jpeg_files_are_proposed_for_large_photographs(looked_at, tmp_path):
    proposing = set[str]()
    for kind in FOLDERS:
        draft(looked_at, kind, tmp_path)
        path = tmp_path / "recipes" / f"{kind}.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("# jpeg: scaled", "jpeg: scaled"), encoding="utf-8")
        if getattr(load_recipe(path).settings.dataset, "jpeg", None) == "scaled":
            proposing.add(kind)
    assert proposing == {"photographs"}


def test_a_name_with_several_meanings_gets_a_prompt_to_choose(looked_at):
    place, found = looked_at("colour")
    chosen = choose(found, size_px=16, ipc=2)
    lines = list(recipe_lines("colour", place, found, chosen, bfloat16_gain=1.0))
    [written] = [line for line in lines if line.startswith('  #   "crane": "a photo of a crane, ')]
    prompts = [line.replace("  # ", "  ") for line in lines if line.startswith("  #   ")]
    text = "\n".join(["dataset: {source: digits}", "prompts:", "  per_class:", *prompts])
    read = RecipeSettings.model_validate(YAML(typ="safe").load(text))
    assert read.prompts.per_class["crane"] in written


def test_a_grey_picture_saved_with_three_channels_is_grey(tmp_path):
    for label in ("a", "b"):
        for number in range(2):
            pixels = noise([len(label), number], 12, 12, 1)
            save(tmp_path / "images", label, number, np.repeat(pixels[..., None], 3, axis=2))
    place = {"source": "image_folder", "path": str(tmp_path / "images")}
    assert inspect_images(place, tmp_path / "cache").grey


def test_names_of_recipes_are_words_of_a_shell():
    assert recipe_name("/data/My Birds (2)/") == "my_birds_2"
    assert recipe_name("owner/tiny-set") == "tiny_set"


@COPY_KEYWORD
def test_init_writes_a_recipe_and_says_what_it_costs(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    for label in ("left", "right"):
        for number in range(4):
            save(tmp_path / "tiny pictures", label, number, noise([len(label), number], 8, 8, 1))
    lines = call(workspace, "init", tmp_path / "tiny pictures", "--ipc", "2")
    text = "\n".join(lines)
    assert "classes: 2, of 4 to 4 images each" in text
    assert f"wrote {workspace.recipes / 'tiny_pictures.yaml'}" in text
    assert "estimate for cpu: about " in text
    assert lines[-1] == "next: `d4m run tiny_pictures`"
    recipe = load_recipe(workspace.recipes / "tiny_pictures.yaml")
    assert (recipe.settings.prototypes.ipc, recipe.settings.dataset.size_px) == (2, 8)
    message = refused(workspace, "init", tmp_path / "tiny pictures")
    assert "wanted the name of a recipe that does not exist yet" in message
    for name in ("birds.yaml", "../birds", "a/b"):
        message = refused(workspace, "init", tmp_path / "tiny pictures", "--name", name)
        assert message.startswith("wanted the name of a new recipe, without a folder and without ")
    lines = call(workspace, "init", tmp_path / "tiny pictures", "--name", "two words")
    assert lines[-1] == "next: `d4m run 'two words'`"


def test_init_of_nothing_says_what_was_wanted(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    assert "wanted a folder of images or a data set of the hub" in refused(
        workspace, "init", tmp_path / "nowhere"
    )
    assert "found nothing" in refused(workspace, "init", "")
    (tmp_path / "images" / "one").mkdir(parents=True)
    assert "wanted at least 2 classes" in refused(workspace, "init", tmp_path / "images")


def test_the_sizes_that_are_shown_are_those_of_images(tmp_path):
    for number, size in enumerate(((9, 30), (12, 12), (30, 9), (8, 40))):
        for label in ("a", "b"):
            save(tmp_path / "images", label, number, noise([number, len(label)], *size, 3))
    found = inspect_images(find_place(str(tmp_path / "images")), tmp_path / "cache")
    assert describe_sizes(found) == "12 x 12 to 40 x 8 px, 6 of 8 clearly no squares"
