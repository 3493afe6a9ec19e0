"""Latents that a tiny pipeline draws under mode guidance."""

import numpy as np
import torch

from d4m.generators.conditions import Conditions
from d4m.settings import SynthesisSettings
from d4m.synthesis.mode_guidance import guide_to_modes
from d4m.synthesis.samplers import use_scheduler
from tests.tiny_pipelines import LATENT, image_to_image

PROMPTS = {"sd": ["crane", "kite", "hen"], "sdxl": ["crane", "kite", "hen"], "dit": ["0", "1", "2"]}
STEPS = 10


def make_settings(**settings):
    return SynthesisSettings(
        **{"num_inference_steps": STEPS, "scheduler": "ddim", "mode_guidance": 0.1} | settings
    )


def make_prototypes(count=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *LATENT)).astype(np.float32)


def draw_latents(kind, settings, pipeline=None, prototypes=None):
    """Return the final latents of three images; a given pipeline keeps its scheduler."""
    if pipeline is None:
        pipeline = image_to_image(kind)
        use_scheduler(pipeline, settings)
    prototypes = torch.from_numpy(make_prototypes() if prototypes is None else prototypes)
    guided = settings.guidance_scale > 1
    conditions = Conditions(pipeline, "", device="cpu", guided=guided)
    with torch.inference_mode(), guide_to_modes(pipeline, prototypes, settings):
        return pipeline(
            **conditions.arguments(PROMPTS[kind]),
            image=prototypes,
            strength=settings.strength,
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            **({"guided_channels": 3} if settings.guided_channels == 3 else {}),
            generator=[torch.Generator().manual_seed(seed) for seed in range(3)],
            output_type="latent",
        ).images


def record_predictions(pipeline):
    """Return two lists, which fill with what the U-Net predicts and with what the sampler is given.

    The pipeline has its sampler already.
    """
    predicted, stepped = list[torch.Tensor](), list[torch.Tensor]()

    class Recording(type(pipeline.scheduler)):
        def step(self, model_output, timestep, sample, **options):
            stepped.append(model_output)
            return super().step(model_output, timestep, sample, **options)

    pipeline.scheduler = Recording.from_config(pipeline.scheduler.config)
    pipeline.unet.register_forward_hook(lambda _, __, output: predicted.append(output[0]))
    return predicted, stepped
