"""Guidance of the images of a class as a set: CGS, DAP and optimal transport, step by step."""

import math
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from d4m.errors import GeneratorError
from d4m.seeds import stream_generator, stream_seed
from d4m.settings import SetGuidanceSettings, SynthesisSettings
from d4m.synthesis.cgs import cgs_direction
from d4m.synthesis.dap import MiddleFeatures, dap_direction
from d4m.synthesis.guided_scheduler import (
    PURE_NOISE,
    GuidedScheduler,
    implied_clean,
    move_prediction,
    next_signal,
)
from d4m.synthesis.transport import transport_direction


@dataclass(frozen=True, eq=False)
class ClassLatents:
    """The part of a class's real latents that its images are guided by.

    Attributes:
        mean: of all of them.
        some: a random choice of them, in their order.
        seed: of the stream that gives each of `some` its noise.
    """

    mean: Float32[np.ndarray, "channel height width"]
    some: Float32[np.ndarray, "reference channel height width"]
    seed: int

    @classmethod
    def choose(
        cls,
        latents: Float[np.ndarray, "image channel height width"],
        settings: SetGuidanceSettings,
        seed: int,
    ) -> "ClassLatents":
        """Return the mean of a class's latents, and `references` of them.

        Args:
            latents: of all real images of the class.
            settings: how many are compared with.
            seed: of the streams of the choice and of the noise.
        """
        order = stream_generator(seed, "references").permutation(len(latents))
        rows = np.sort(order[: settings.references])
        mean = latents.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(mean, latents[rows].astype(np.float32), stream_seed(seed, "reference-noise"))


@contextmanager
def guide_set(
    pipeline: Any,
    real: ClassLatents | None,
    settings: SynthesisSettings,
    *,
    images: int,
    at_once: int,
) -> Generator[None]:
    """Guide the images of one class during the one pipeline call made in this context.

    In each guided step the denoiser's prediction is moved, as by a classifier's gradient, in the
    sum of the directions of `cgs`, `dap` and `ot`. The pipeline's scheduler is wrapped on entry and
    restored on exit. Without `set_guidance`, or with weights of 0 alone, nothing is changed.

    A class's images move together, so one call has all of them. Memory stays that of a small batch,
    because the denoiser evaluates `at_once` latents at a time; only latents and encoded prompts are
    held for the set.

    Args:
        pipeline: the pipeline whose scheduler is wrapped.
        real: latents of the class's real images.
        settings: what guides, and the share of the steps that is guided.
        images: number of images of the call.
        at_once: the most latents that go through the denoiser at a time.

    Raises:
        GeneratorError: there are no real latents, the scheduler evaluates the denoiser more than
            once per step, or clean latents do not follow from what the denoiser predicts.
    """
    guided = settings.set_guidance
    if guided is None or not _guides(guided):
        yield
        return
    if real is None:
        msg = "`synthesis.set_guidance` needs the real latents of the class; found none"
        raise GeneratorError(msg)
    own = pipeline.scheduler
    features = MiddleFeatures(pipeline, images) if guided.dap and guided.dap.weight else None
    pipeline.scheduler = _SetGuidedScheduler(own, real, settings, features, at_once)
    try:
        with features.watch() if features else nullcontext():
            yield
    finally:
        pipeline.scheduler = own


def _guides(settings: SetGuidanceSettings) -> bool:
    weights = [each.weight for each in (settings.dap, settings.ot) if each]
    weights += [settings.cgs.repulsion, settings.cgs.pull] if settings.cgs else []
    return any(weights)


class _SetGuidedScheduler(GuidedScheduler):
    """A diffusers scheduler for one pipeline call whose predictions are moved for the whole set."""

    def __init__(
        self,
        scheduler: Any,
        real: ClassLatents,
        settings: SynthesisSettings,
        features: MiddleFeatures | None,
        at_once: int,
    ) -> None:
        assert settings.set_guidance is not None
        guidance = settings.set_guidance
        super().__init__(scheduler, settings, setting="set_guidance", until=guidance.until)
        self._real = real
        self._guidance = guidance
        self._features = features
        self._at_once = at_once

    def _guide(
        self,
        model_output: Float[Tensor, "image output_channel height width"],
        timestep: Any,
        sample: Float[Tensor, "image channel height width"],
    ) -> Float[Tensor, "image output_channel height width"]:
        signal = next_signal(self._scheduler, timestep)
        if signal <= PURE_NOISE:
            return model_output
        channels = sample.shape[1]  # a DiT's prediction may be followed by its variance
        predicted, rest = model_output[:, :channels], model_output[:, channels:]
        scaled = self._scheduler.scale_model_input(sample, timestep).float()
        kind = self._scheduler.config.prediction_type
        clean = implied_clean(predicted.float(), scaled, signal=signal, prediction_type=kind)
        moved = move_prediction(
            predicted.float(),
            self._direction(scaled, clean, signal),
            weight=1.0,
            signal=signal,
            prediction_type=kind,
        )
        return torch.cat([moved.to(model_output.dtype), rest], dim=1)

    def _direction(
        self,
        scaled: Float[Tensor, "image channel height width"],
        clean: Float[Tensor, "image channel height width"],
        signal: float,
    ) -> Float[Tensor, "image channel height width"]:
        guidance, direction = self._guidance, torch.zeros_like(clean)
        if guidance.cgs:
            mean = torch.from_numpy(self._real.mean).to(clean)
            direction = direction + cgs_direction(clean, mean, guidance.cgs)
        if not (guidance.dap or guidance.ot):
            return direction
        references = torch.from_numpy(self._real.some).to(clean)
        if guidance.ot:
            direction = direction + transport_direction(clean, references, guidance.ot)
        if guidance.dap and self._features:
            noise = torch.randn(
                references.shape, generator=torch.Generator().manual_seed(self._real.seed)
            )
            noisy = math.sqrt(signal) * references + math.sqrt(1 - signal) * noise.to(clean)
            direction = direction + dap_direction(
                scaled, noisy, self._features, guidance.dap, at_once=self._at_once
            )
        return direction
