"""Where a unit came from: every unit it was made of, and the images it began with."""

import hashlib

import pytest

from d4m.errors import MissingUpstreamError
from d4m.reports.lineage import image_origins, trace
from tests.conftest import TINY_RECIPE


def _trace(context, asset, unit):
    [origin] = trace(context, asset, [unit])
    return origin


def _images(context, asset, unit):
    return image_origins(context, _trace(context, asset, unit))


def _names(origin):
    return {f"{origin.asset}/{origin.unit}"}.union(*map(_names, origin.sources))


def test_images_are_traced_to_their_class_and_to_the_generator_trained_on_all(finished_once):
    context = finished_once.pipeline().open_context()
    origin = _trace(context, "synthetic_images", "class-00003")
    assert _names(origin) == {
        "synthetic_images/class-00003",
        "prototypes/class-00003",
        "latents/class-00003",
        *(f"generator/{component}" for component in ("vae", "denoiser", "scheduler")),
        *(f"real_images/train-{class_id:05d}" for class_id in range(10)),
    }
    assert origin.reference.inputs["settings"]["prompt"] == "three"
    [prototypes] = [source for source in origin.sources if source.asset == "prototypes"]
    assert [f"{each.asset}/{each.unit}" for each in prototypes.sources] == ["latents/class-00003"]
    assert prototypes.digest == context.upstream["prototypes"]["class-00003"].digest


def test_the_data_set_is_traced_to_everything(finished_once):
    context = finished_once.pipeline().open_context()
    everything = {f"{asset}/{name}" for asset, units in context.upstream.items() for name in units}
    not_packed = {name for name in everything if name.startswith("image_fidelity/")}
    origin = _trace(context, "distilled_dataset", "distilled_dataset")
    assert _names(origin) == everything - not_packed


def test_a_unit_made_of_earlier_versions_is_traced_to_those(finished):
    """A prototype that was made of latents which the recipe no longer has."""
    before = _trace(finished.pipeline().open_context(), "prototypes", "class-00001")
    finished.write("tiny", TINY_RECIPE.replace("steps: 30", "steps: 31"))
    for stage in ("real_images", "generator", "latents"):
        finished.pipeline().run_stage(stage)
    context = finished.pipeline().open_context()
    after = _trace(context, "prototypes", "class-00001")
    assert after == before
    [latents] = after.sources
    assert latents.digest != context.upstream["latents"]["class-00001"].digest
    assert latents.reference is not None


def test_a_unit_whose_sources_are_gone_says_so(finished):
    context = finished.pipeline().open_context()
    record = context.upstream["latents"]["class-00001"]
    (finished.store / "objects" / "latents" / record.key[:2] / f"{record.key}.json").unlink()
    [latents] = _trace(context, "prototypes", "class-00001").sources
    assert (latents.digest, latents.reference, latents.sources) == (record.digest, None, ())


def test_images_begin_with_the_real_image_nearest_their_prototype(finished_once):
    context = finished_once.pipeline().open_context()
    origins = _images(context, "synthetic_images", "class-00006")
    index = context.image_index("train", 6)
    rows = context.read("prototypes", "class-00006")["nearest_images"]
    digests = [index.content_digests[row].tobytes().hex() for row in rows]
    assert [origin.nearest for origin in origins] == [index.image_ids[row] for row in rows]
    assert [origin.image for origin in origins] == ["0", "1", "2"]
    seeds = context.read("synthetic_images", "class-00006")["seeds"].tolist()
    assert [origin.seed for origin in origins] == seeds
    assert [origin.digest for origin in origins] == digests
    of_prototypes = _images(context, "prototypes", "class-00006")
    assert [each.digest for each in of_prototypes] == [each.digest for each in origins]
    assert {each.seed for each in of_prototypes} == {None}


def test_real_images_are_listed_with_their_digests(finished_once):
    context = finished_once.pipeline().open_context()
    origins = _images(context, "real_images", "train-00002")
    index = context.image_index("train", 2)
    assert [origin.image for origin in origins] == list(index.image_ids)
    assert origins[4].digest == index.content_digests[4].tobytes().hex()
    assert len(origins[4].digest) == 2 * hashlib.sha256().digest_size
    assert _images(context, "teacher", "teacher") == []


def test_images_are_traced_to_the_prototypes_they_were_made_of_and_not_to_later_ones(finished):
    before = _images(finished.pipeline().open_context(), "synthetic_images", "class-00006")
    finished.write("tiny", TINY_RECIPE.replace("ipc: 3", "ipc: 5"))
    finished.pipeline().run_stage("prototypes")
    context = finished.pipeline().open_context()
    assert _images(context, "synthetic_images", "class-00006") == before
    assert len(_images(context, "prototypes", "class-00006")) == 5


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        ("latents", "latents of recipe tiny has no unit 'class-9'; it has class-00000, "),
        ("synthesis_choice", "synthesis_choice of recipe tiny has no unit 'class-9'; it has none"),
        ("latent", "recipe tiny has made no 'latent' yet; it has made .*latents, "),
    ],
)
def test_a_unit_that_is_not_there_is_refused(finished_once, asset, message):
    with pytest.raises(MissingUpstreamError, match=message):
        trace(finished_once.pipeline().open_context(), asset, ["class-9"])
