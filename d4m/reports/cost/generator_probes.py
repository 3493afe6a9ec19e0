"""Probes of the generator: its training, its encoder and decoder, its denoiser."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from d4m.reports.cost.bench import Bench, Trial, weight_bytes
from d4m.reports.cost.refinement_probe import refinement_step
from d4m.settings import PrototypeSettings, SynthesisSettings

_MOST_AT_ONCE = 64
_FEWEST_CALLS = 2  # multistep samplers start with a step of another kind
_REFERENCES = 64


def _autoencoder_step(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    return Trial(lambda count: weight_bytes(bench.train_autoencoder(settings, count)))


def _denoiser_step(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    def run(count: int) -> int:
        trained = bench.train_denoiser(settings, count)
        return weight_bytes(trained.unet, trained.text_encoder)

    return Trial(run)


def _image_encoded(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.generators.encode import encode_images

    size = min(_MOST_AT_ONCE, bench.compute.encode_batch_size(settings["size_px"]))
    vae, batch = bench.pipeline(settings).vae, bench.images(size, settings)

    def run(count: int) -> int:
        return sum(each.nbytes for each in encode_images([batch] * (count // size), vae))

    return Trial(run, size)


def _image_decoded(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.synthesis.synthesize import decode_latents

    vae = bench.pipeline(settings).vae
    latents = bench.latents(_MOST_AT_ONCE, settings).astype(np.float32)

    def run(count: int) -> int:
        times = count // _MOST_AT_ONCE
        return sum(decode_latents(vae, latents, compute=bench.compute).nbytes for _ in range(times))

    return Trial(run, _MOST_AT_ONCE)


def _denoiser_call(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Draw one batch with as many calls as are asked for."""
    from d4m.synthesis.samplers import use_scheduler
    from d4m.synthesis.set_guidance import ClassLatents
    from d4m.synthesis.synthesize import ImageRequest, synthesize_images

    pipeline = bench.pipeline(settings)
    guidance = SynthesisSettings.among(settings["synthesis"]).set_guidance
    real = guidance and ClassLatents.choose(bench.latents(_REFERENCES, settings), guidance, 0)
    prototype = bench.latents(1, settings)[0].astype(np.float32)
    prompt = bench.context.source.class_table.prompt(0, bench.context.recipe.settings.prompts)
    # A batch is filled up with repeats; a set is not.
    requests = [ImageRequest(prototype, prompt, seed, real) for seed in range(settings["images"])]

    def run(count: int) -> int:
        own = {**settings["synthesis"], "strength": 1.0, "num_inference_steps": count}
        synthesis = SynthesisSettings.among(own)
        use_scheduler(pipeline, synthesis)
        drawn = synthesize_images(
            pipeline,
            requests if guidance else requests[:1],
            negative_prompt="",
            settings=synthesis,
            compute=bench.compute,
        )
        return sum(each.nbytes for each in drawn)

    return Trial(run, _FEWEST_CALLS)


def _pipeline_loaded(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    bench.pipeline(settings)

    def run(count: int) -> int:
        from d4m.stages.generator import load_pipeline

        for _ in range(count):
            if "pretrained" in settings:
                load_pipeline(bench.context)
            else:
                bench.load_compact(settings)
        return 0

    return Trial(run)


def _class_clustered(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    from d4m.prototypes.clusters import fit_prototypes

    latents = bench.latents(settings["images"], settings)
    own = PrototypeSettings.among(settings["settings"])

    def run(count: int) -> int:
        return sum(
            fit_prototypes(latents, own, seed=seed).prototypes.nbytes for seed in range(count)
        )

    return Trial(run)


PROBES: Mapping[str, Callable[[Bench, Mapping[str, Any]], Trial]] = {
    "autoencoder step": _autoencoder_step,
    "denoiser step": _denoiser_step,
    "image encoded": _image_encoded,
    "image decoded": _image_decoded,
    "denoiser call": _denoiser_call,
    "pipeline loaded": _pipeline_loaded,
    "class clustered": _class_clustered,
    "refinement step": refinement_step,
}
