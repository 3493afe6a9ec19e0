"""The images of a class are denoised together, in the memory of a small batch."""

import numpy as np
import pytest
import torch

from d4m.compute import Compute
from d4m.errors import GeneratorError
from d4m.generators.conditions import Conditions
from d4m.settings import SynthesisSettings
from d4m.synthesis.samplers import use_scheduler
from d4m.synthesis.set_guidance import ClassLatents
from d4m.synthesis.synthesize import ImageRequest, denoise, synthesize_images
from tests.marks import COPY_KEYWORD
from tests.synthesis.guided import record_predictions
from tests.tiny_pipelines import LATENT, image_to_image

WEIGHTS = {"cgs": {"repulsion": 0.5, "pull": 0.5}, "dap": {"weight": 0.5}, "ot": {"weight": 0.5}}


def _settings(guidance, **settings):
    given = {"num_inference_steps": 5, "scheduler": "ddim", "guidance_scale": 2.0} | settings
    return SynthesisSettings.model_validate(given | {"set_guidance": guidance})


def _normal(count, seed, mean=0.0):
    return (np.random.default_rng(seed).normal(size=(count, *LATENT)) + mean).astype(np.float32)


def _real(settings, mean=0.0):
    return ClassLatents.choose(_normal(20, 9, mean), settings.set_guidance, seed=4)


def _requests(kind, count, real):
    prompt = "1" if kind == "dit" else "crane"
    return [ImageRequest(row, prompt, seed, real) for seed, row in enumerate(_normal(count, 0))]


def _latents(settings, kind="sd", count=4, *, mean=0.0, at_once=None, pipeline=None):
    if pipeline is None:
        pipeline = image_to_image(kind)
        use_scheduler(pipeline, settings)
    real = _real(settings, mean) if settings.set_guidance else None
    requests = _requests(kind, count, real)
    conditions = Conditions(pipeline, "", device="cpu", guided=settings.guidance_scale > 1)
    prototypes = torch.from_numpy(np.stack([each.prototype for each in requests]))
    with torch.inference_mode():
        return denoise(pipeline, prototypes, requests, conditions, settings, at_once=at_once)


def _spread(latents):
    return float(torch.pdist(latents.flatten(1)).mean())


@pytest.mark.parametrize("kind", ["sd", "dit"])
def test_weights_of_zero_give_exactly_the_plain_images(kind):
    nothing = {"cgs": {"repulsion": 0, "pull": 0}, "dap": {"weight": 0}, "ot": {"weight": 0}}
    plain = _latents(_settings(None), kind)
    assert torch.equal(_latents(_settings(nothing), kind), plain)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("kind", ["sd", "sdxl", "dit"])
@COPY_KEYWORD
def test_a_set_is_the_same_however_few_latents_are_evaluated_at_a_time(kind, name):
    settings = _settings({name: WEIGHTS[name]}, num_inference_steps=3, scheduler="pipeline")
    pipeline = image_to_image(kind)
    denoiser = pipeline.transformer if kind == "dit" else pipeline.unet
    sizes, own = list[int](), pipeline.scheduler
    hook = denoiser.conv_out if kind != "dit" else denoiser.proj_out_2
    hook.register_forward_hook(lambda *call: sizes.append(len(call[2])))
    parts = _latents(settings, kind, pipeline=pipeline, at_once=3)
    assert max(sizes) == 3
    whole = _latents(settings, kind, pipeline=pipeline)
    # Sums of kernels of other shapes, enlarged by the first steps.
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(whole, _latents(_settings(None, num_inference_steps=3), kind))
    assert pipeline.scheduler is own
    assert "forward" not in vars(denoiser)


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "ddpm", "dpmsolver++"])
@COPY_KEYWORD
def test_cgs_spreads_a_class_and_moves_its_mean_with_every_sampler(scheduler):
    plain, repelled, pulled = (
        _latents(_settings(guidance, scheduler=scheduler, num_inference_steps=12), "dit", mean=1.0)
        for guidance in (
            None,
            {"cgs": {"repulsion": 0.5, "pull": 0}},
            {"cgs": {"repulsion": 0, "pull": 0.5}},
        )
    )
    assert _spread(repelled) > 1.05 * _spread(plain)
    real_mean = torch.from_numpy(_normal(20, 9, 1.0)).mean(0)
    far = [float((each.mean(0) - real_mean).norm()) for each in (plain, pulled)]
    assert far[1] < 0.8 * far[0]
    # The pull of the mean is the same for all, so it hardly changes how far images are apart.
    assert _spread(pulled) == pytest.approx(_spread(plain), rel=0.1)


def test_transport_brings_a_class_nearer_to_real_latents():
    def far(settings):
        latents = _latents(settings, "dit", mean=1.0)
        real = torch.from_numpy(_normal(20, 9, 1.0))
        return float(torch.cdist(latents.flatten(1), real.flatten(1)).min(1).values.mean())

    assert far(_settings({"ot": {"weight": 0.5}})) < 0.9 * far(_settings(None))


@pytest.mark.parametrize(("until", "guided"), [(0.01, 1), (0.5, 2), (1.0, 3)])
def test_only_the_first_share_of_the_steps_is_guided(until, guided):
    settings = _settings({"cgs": {}, "until": until}, guidance_scale=1.0)
    pipeline = image_to_image("sd")
    use_scheduler(pipeline, settings)
    predicted, stepped = record_predictions(pipeline)
    _latents(settings, pipeline=pipeline)
    moved = [not torch.equal(a, b) for a, b in zip(predicted, stepped, strict=True)]
    assert moved == [True] * guided + [False] * (3 - guided)


def _images(requests, settings, batch_size, pipeline=None):
    pipeline = pipeline or image_to_image("sd")
    use_scheduler(pipeline, settings)
    compute = Compute("cpu", batch_size=batch_size)
    return list(
        synthesize_images(
            pipeline, requests, negative_prompt="", settings=settings, compute=compute
        )
    )


def test_each_class_is_a_set_of_its_own_at_every_batch_size():
    settings = _settings({"cgs": {"repulsion": 0.5, "pull": 0.5}, "ot": {}})
    first, second = (_requests("sd", count, _real(settings)) for count in (5, 2))
    together = _images([*first, *second], settings, 3)
    assert [len(images) for images in together] == [5, 2]
    for images, requests in zip(together, (first, second), strict=True):
        (alone,) = _images(requests, settings, 32)
        assert np.abs(alone.astype(int) - images.astype(int)).max() <= 1
    # An image depends on the others of its class.
    (fewer,) = _images(first[:4], settings, 3)
    assert np.abs(fewer.astype(int) - together[0][:4].astype(int)).max() > 1


def test_a_set_that_does_not_fit_is_evaluated_in_smaller_parts(caplog):
    settings, pipeline = _settings({"cgs": {}}), image_to_image("sd")
    own = pipeline.unet.forward

    def narrow(sample, *arguments, **options):
        if len(sample) > 3:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return own(sample, *arguments, **options)

    requests = _requests("sd", 5, _real(settings))
    (expected,) = _images(requests, settings, 2)
    pipeline.unet.forward = narrow
    (halved,) = _images(requests, settings, 8, pipeline)
    assert [record.args for record in caplog.records] == [(8, 4), (4, 2)]
    assert np.array_equal(halved, expected)


def test_references_are_drawn_from_the_class_and_its_mean_is_that_of_all():
    settings = _settings({"ot": {}, "references": 6}).set_guidance
    latents = _normal(20, 1)
    chosen, other = (ClassLatents.choose(latents, settings, seed=seed) for seed in (0, 1))
    rows = [int(np.flatnonzero((latents == each).all((1, 2, 3)))[0]) for each in chosen.some]
    assert len(set(rows)) == 6
    assert rows == sorted(rows)
    assert not np.array_equal(chosen.some, other.some)
    np.testing.assert_allclose(chosen.mean, latents.mean(0, dtype=np.float64), rtol=1e-6)
    assert np.array_equal(ClassLatents.choose(latents[:5], settings, seed=0).some, latents[:5])


def test_a_set_without_real_latents_is_refused():
    with pytest.raises(GeneratorError, match="set_guidance` needs the real latents"):
        _images(_requests("sd", 2, None), _settings({"cgs": {}}), 2)
