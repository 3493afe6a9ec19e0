"""Lineage, history, diff, restore and the export of an earlier version."""

import re

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.cli.commands import call, refused
from tests.conftest import TINY_RECIPE

PROMPT = TINY_RECIPE + "prompts: {per_class: {three: 'a [b]bold[/b] three'}}\n"


@pytest.fixture(scope="module")
def edited_once(finished_once, tmp_path_factory):
    made = finished_once.copy(tmp_path_factory.mktemp("edited") / "workspace")
    made.write("tiny", PROMPT)
    made.run()
    return made


@pytest.fixture
def edited(edited_once, tmp_path):
    return edited_once.copy(tmp_path / "workspace")


def test_lineage_of_images_leads_to_the_models_and_to_each_image_it_began_with(edited):
    lines = call(edited, "lineage", "tiny", "synthetic_images", "class-00003")
    text = "\n".join(lines)
    context = edited.pipeline().open_context()
    digest = context.upstream["synthetic_images"]["class-00003"].digest
    assert lines[0].startswith(f"synthetic_images/class-00003 {digest[:12]}  made 20")
    assert "prompt='a [b]bold[/b] three'" in text
    for unit in ("prototypes/class-00003", "latents/class-00003", "generator/vae"):
        asset, name = unit.split("/")
        assert f"{unit} {context.upstream[asset][name].digest[:12]}" in text
    assert re.search(r"generator/vae \w{12} \(see above\)", text)
    assert "real_images: and 9 more units, to train-00009" in text
    index = context.image_index("train", 3)
    rows = context.read("prototypes", "class-00003")["nearest_images"]
    seeds = context.read("synthetic_images", "class-00003")["seeds"]
    assert lines[-3:] == [
        f"{number}  began with {index.image_ids[row]}  "
        f"sha256 {index.content_digests[row].tobytes().hex()}  noise seed {seed}"
        for number, (row, seed) in enumerate(zip(rows, seeds, strict=True))
    ]


def test_lineage_of_a_whole_artifact_shows_one_of_many_units_alike(edited):
    lines = call(edited, "lineage", "tiny", "latents")
    assert lines[0].startswith("latents/class-00000 ")
    assert lines[-1] == "latents: and 9 more units, to class-00009"
    assert refused(edited, "lineage", "tiny", "latent").startswith("latent of recipe tiny has no")


def test_history_lists_versions_with_reasons(edited):
    lines = call(edited, "history", "tiny", "synthetic_images")
    assert len(lines) == 4
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-\w{8}  10 of 10 units changed", lines[0])
    assert re.fullmatch(r"\S+ \(current\)  1 of 10 units changed", lines[2])
    reason = "class-00003: prompt changed from 'three' to 'a [b]bold[/b] three'"
    assert lines[3].strip() == reason
    assert len(call(edited, "history", "tiny")) == 4


def test_diff_prints_settings_units_and_scores_and_draws_the_changed_classes(edited, tmp_path):
    picture = tmp_path / "diff.png"
    lines = call(edited, "diff", "tiny", "--picture", picture)
    assert "prompt of class 3 (three) changed from 'three' to 'a [b]bold[/b] three'" in lines
    assert "synthetic_images: 1 of 10 units changed" in lines
    [row] = [line for line in lines if line.strip().startswith("full_data")]
    assert row.split()[-1] == "+0.00"
    narrow = call(edited, "diff", "tiny", columns=80)
    for training_set in ("random_real", "nearest_real", "full_data"):  # their names are not cut
        assert [line for line in narrow if line.startswith(f"{training_set}, ")], training_set
    with Image.open(picture) as image:
        assert image.height < 100
    error = refused(edited, "diff", "tiny", "current", "current", "--picture", tmp_path / "x.png")
    assert "the images of all classes are the same" in error
    assert not (tmp_path / "x.png").exists()


def test_an_earlier_version_is_exported(edited, tmp_path):
    call(edited, "export", "tiny", tmp_path / "old", "--version", "previous")
    call(edited, "export", "tiny", tmp_path / "new")
    prompts = [
        pq.read_table(tmp_path / name / "data").to_pylist()[3 * 3]["prompt"]
        for name in ("old", "new")
    ]
    assert prompts == ["three", "a [b]bold[/b] three"]


def test_an_earlier_version_is_restored_and_scored_again_without_making_it_again(edited):
    [line] = call(edited, "restore", "tiny", "previous", "old")
    path = edited.recipes / "old.yaml"
    assert line == f"wrote {path}"
    assert path.read_text().startswith("# Recipe tiny as it was in version 20")
    computed = edited.run("old")
    assert {stage: names for stage, names in computed.items() if names} == {
        "distilled_dataset": ("distilled_dataset",)
    }
    path.write_text(path.read_text().replace("seeds: 2", "seeds: 3"))
    computed = {stage: names for stage, names in edited.run("old").items() if names}
    assert set(computed) == {"evaluation_scores", "distilled_dataset"}
    assert {name[-2:] for name in computed["evaluation_scores"]} == {"02"}
    error = refused(edited, "restore", "tiny", "previous", "tiny")
    assert error.startswith("wanted the name of a recipe that does not exist yet, found ")
    for name in ("../elsewhere/new", ".hidden"):
        assert "choose another" in refused(edited, "restore", "tiny", "previous", name)
    assert {path.name for path in edited.recipes.iterdir()} == {"tiny.yaml", "old.yaml"}
