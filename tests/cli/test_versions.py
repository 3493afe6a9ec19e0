"""Lineage, history, diff, restore and the export of an earlier version."""

import json
import re

import pyarrow.parquet as pq
from PIL import Image

from tests.cli.commands import call, refused


def test_lineage_of_images_leads_to_the_models_and_to_each_image_it_began_with(prompted):
    lines = call(prompted, "lineage", "tiny", "synthetic_images", "class-00003")
    text = "\n".join(lines)
    context = prompted.pipeline().open_context()
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


def test_lineage_of_a_whole_artifact_shows_one_of_many_units_alike(prompted):
    lines = call(prompted, "lineage", "tiny", "latents")
    assert lines[0].startswith("latents/class-00000 ")
    assert lines[-1] == "latents: and 9 more units, to class-00009"
    assert refused(prompted, "lineage", "tiny", "latent").startswith(
        "recipe tiny has made no 'latent'"
    )


def test_the_first_version_has_no_previous_one(finished):
    for command in (["diff", "tiny"], ["restore", "tiny", "previous", "old"]):
        error = refused(finished, *command)
        assert error.startswith(
            "wanted the previous version of distilled_dataset of recipe tiny, which has 1 in all"
        )


def test_history_lists_versions_with_reasons(prompted):
    lines = call(prompted, "history", "tiny", "synthetic_images")
    assert len(lines) == 4
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-\w{8}  10 of 10 units changed", lines[0])
    assert re.fullmatch(r"\S+ \(current\)  1 of 10 units changed", lines[2])
    reason = "class-00003: prompt changed from 'three' to 'a [b]bold[/b] three'"
    assert lines[3].strip() == reason
    assert len(call(prompted, "history", "tiny")) == 4


def test_diff_prints_settings_units_and_scores_and_draws_the_changed_classes(prompted, tmp_path):
    picture = tmp_path / "diff.png"
    lines = call(prompted, "diff", "tiny", "--picture", picture)
    assert "prompt of class 3 (three) changed from 'three' to 'a [b]bold[/b] three'" in lines
    assert "synthetic_images: 1 of 10 units changed" in lines
    [row] = [line for line in lines if line.strip().startswith("full_data")]
    assert row.split()[-1] == "+0.00"
    narrow = call(prompted, "diff", "tiny", columns=80)
    for training_set in ("random_real", "nearest_real", "full_data"):  # their names are not cut
        assert [line for line in narrow if line.startswith(f"{training_set}, ")], training_set
    with Image.open(picture) as image:
        assert image.height < 100
    error = refused(prompted, "diff", "tiny", "current", "current", "--picture", tmp_path / "x.png")
    assert "the images of all classes are the same" in error
    assert not (tmp_path / "x.png").exists()


def test_lineage_and_diff_as_json_have_all_that_is_printed(prompted, tmp_path):
    def parse(*arguments):
        return json.loads("\n".join(call(prompted, *arguments, "--json")))

    found = parse("lineage", "tiny", "synthetic_images", "class-00003")
    digests = {f"{each['artifact']}/{each['unit']}": each["digest"] for each in found["units"]}
    context = prompted.pipeline().open_context()
    for asset in ("real_images", "latents", "prototypes", "synthetic_images"):
        unit = "train-00003" if asset == "real_images" else "class-00003"
        assert digests[f"{asset}/{unit}"] == context.upstream[asset][unit].digest
    for each in found["units"]:
        assert all(digests[name] == digest for name, digest in each["made_of"].items())
    own = next(each for each in found["units"] if each["artifact"] == "synthetic_images")
    assert own["settings"]["prompt"] == "a [b]bold[/b] three"
    assert [image["seed"] for image in found["images"]] == context.read(
        "synthetic_images", "class-00003"
    )["seeds"].tolist()
    picture = tmp_path / "diff.png"
    found = parse("diff", "tiny", "--picture", picture)
    assert picture.is_file()
    names = [version.name for version in context.manifests.versions("distilled_dataset")]
    assert [found["old"], found["new"]] == names
    assert found["settings"] == [
        "prompts.per_class.three changed from unset to 'a [b]bold[/b] three'",
        "prompt of class 3 (three) changed from 'three' to 'a [b]bold[/b] three'",
    ]
    assert found["units"]["synthetic_images"] == {"changed": 1, "of": 10}
    assert found["changed_classes"] == [3]
    full = [each["top1"] for each in found["scores"] if each["row"].startswith("full_data")]
    assert [each["change"] for each in full] == [0.0] * len(full)


def test_an_earlier_version_is_exported(prompted, tmp_path):
    call(prompted, "export", "tiny", tmp_path / "old", "--version", "previous")
    call(prompted, "export", "tiny", tmp_path / "new")
    prompts = [
        pq.read_table(tmp_path / name / "data").to_pylist()[3 * 3]["prompt"]
        for name in ("old", "new")
    ]
    assert prompts == ["three", "a [b]bold[/b] three"]


def test_an_earlier_version_is_restored_and_scored_again_without_making_it_again(prompted):
    [line] = call(prompted, "restore", "tiny", "previous", "old")
    path = prompted.recipes / "old.yaml"
    assert line == f"wrote {path}"
    assert path.read_text().startswith("# Recipe tiny as it was in version 20")
    computed = prompted.run("old")
    assert {stage: names for stage, names in computed.items() if names} == {
        "distilled_dataset": ("distilled_dataset",)
    }
    path.write_text(path.read_text().replace("seeds: 2", "seeds: 3"))
    computed = {stage: names for stage, names in prompted.run("old").items() if names}
    assert set(computed) == {"evaluation_scores", "distilled_dataset"}
    assert {name[-2:] for name in computed["evaluation_scores"]} == {"02"}
    error = refused(prompted, "restore", "tiny", "previous", "tiny")
    assert error.startswith("wanted the name of a recipe that does not exist yet, found ")
    for name in ("../elsewhere/new", ".hidden"):
        assert "choose another" in refused(prompted, "restore", "tiny", "previous", name)
    assert {path.name for path in prompted.recipes.iterdir()} == {"tiny.yaml", "old.yaml"}
