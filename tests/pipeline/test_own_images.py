"""A folder of images and a saved pipeline folder, end to end."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4m.errors import RecipeError
from d4m.generators.compact_model import load_pipeline
from d4m.stages.compared_sets import training_set_inputs
from tests.conftest import Workspace

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
COMPACT = (
    "{compact: {autoencoder: {steps: 10, channels: [8, 16]}, "
    "denoiser: {steps: 5, channels: [8, 16], text_width: 16}}}"
)
RECIPE = """\
dataset: {{source: image_folder, path: ../images, size_px: 16}}
generator: {generator}
prototypes: {{ipc: 2, starts: 1}}
synthesis: {{num_inference_steps: 4, scheduler: ddim}}
teacher: {{epochs: 2, options: {{width: 16}}}}
soft_labels: {{epochs: 2, epochs_per_block: 1}}
evaluation:
  {{seeds: 1, full_data: {{epochs: 1}},
  students: [{{architecture: convnet3, options: {{width: 16}}}}]}}
"""
Computed = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def own_images(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(Path(tmp_path_factory.mktemp("own")) / "workspace")
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 1)):  # fewer images than fidelity's neighbours
        for name, colour in COLOURS.items():
            folder = made.folder / "images" / split / name / "nested"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(colour, 30, (20, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (made.folder / "images" / "train" / "red" / "broken.jpg").write_bytes(b"no image at all")
    made.write("own", RECIPE.format(generator=COMPACT))
    made.run("own")
    return made


@pytest.fixture
def loaded(own_images: Workspace) -> Computed:
    """The units that a run computes with the trained generator, saved and loaded again."""
    saved = own_images.folder / "saved"
    if not saved.exists():
        context = own_images.pipeline("own").open_context()
        folders = [
            context.open_files("generator", unit) for _, unit in context.all_of("generator").reads
        ]
        load_pipeline(folders).save_pretrained(saved)
    own_images.write("loaded", RECIPE.format(generator="{pretrained: {model: ../saved}}"))
    return own_images.run("loaded")


def test_a_folder_of_colour_images_is_distilled(own_images: Workspace):
    context = own_images.pipeline("own").open_context()
    folder = context.open_files("distilled_dataset", "distilled_dataset")
    pictures = sorted(path.relative_to(folder).as_posix() for path in folder.glob("images/*/*.png"))
    assert pictures == [f"images/{c:05d}/{n:05d}.png" for c in range(3) for n in range(2)]
    with Image.open(folder / pictures[0]) as picture:
        assert (picture.size, picture.mode) == ((16, 16), "RGB")
    unreadable = context.image_index("train", 2).unreadable
    reason = "not an image in JPEG, PNG, WEBP, BMP, TIFF or GIF format"
    assert unreadable == {"red/broken.jpg": reason}


@pytest.mark.usefixtures("loaded")
def test_a_saved_generator_gives_the_same_latents_and_images(own_images: Workspace):
    ours, theirs = own_images.digests("own"), own_images.digests("loaded")
    assert set(theirs["generator"]) == {"vae", "text_encoder", "denoiser", "scheduler"}
    for stage in ("real_images", "latents", "prototypes", "synthetic_images", "soft_labels"):
        assert theirs[stage] == ours[stage]


@pytest.mark.usefixtures("loaded")
def test_an_added_image_computes_one_unit_of_each_artifact_made_class_by_class(
    own_images: Workspace,
):
    added = own_images.folder / "images" / "train" / "green" / "added.png"
    Image.new("RGB", (16, 16), (30, 200, 90)).save(added)
    computed = own_images.run("loaded")
    added.unlink()
    assert computed["generator"] == ()
    assert computed["real_images"] == ("train-00001",)
    assert computed["latents"] == computed["prototypes"] == ("class-00001",)
    assert computed["synthetic_images"] == ("class-00001",)


def test_images_from_noise_depend_on_the_size_of_the_latents(own_images: Workspace):
    settings = list[object]()
    for size_px in (16, 32):
        text = RECIPE.format(generator=COMPACT).replace("size_px: 16", f"size_px: {size_px}")
        own_images.write("noise", text.replace("synthesis: {", "synthesis: {size_px: 16, "))
        context = own_images.pipeline("noise").open_context()
        settings.append(training_set_inputs(context.seeing("generator", {}), "from_noise").settings)
    assert settings[0] != settings[1]


def test_a_class_too_small_for_the_recipe_is_named_before_any_model_is_trained(
    own_images: Workspace,
):
    text = RECIPE.format(generator=COMPACT).replace("ipc: 2", "ipc: 50")
    own_images.write("greedy", text)
    with pytest.raises(RecipeError, match=r"wanted at least 50 training images .*'blue'"):
        own_images.run("greedy")
    assert own_images.pipeline("greedy").open_context().manifests.current("generator") is None
