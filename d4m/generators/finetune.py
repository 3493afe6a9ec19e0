"""Fine-tune a pretrained denoiser on a recipe's images by low-rank adapters (LoRA)."""

# The types that diffusers and peft declare are wrong in places:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, Int64
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from d4m.compute import computing_in
from d4m.generators.denoiser_calls import DenoiserCalls
from d4m.generators.fit import Fit, seeded
from d4m.generators.kinds import find_denoiser, kind_of
from d4m.images.spool import Spool
from d4m.settings import FinetuneSettings
from d4m.store.checkpoints import NOWHERE, Checkpoint

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's own names
_ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),  # of texts, in Stable Diffusion 3
)


@dataclass(frozen=True)
class Adapter:
    """Trained low-rank changes of a denoiser's attention layers.

    Attributes:
        rank: of every change.
        weights: by peft's names, float32, on the CPU.
    """

    rank: int
    weights: Mapping[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write the two files in which peft and diffusers keep adapters."""
        config = {
            "base_model_name_or_path": None,
            "lora_alpha": self.rank,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": sorted(_ATTENTION),
            "task_type": None,
        }
        text = json.dumps(config, indent=2, sort_keys=True)
        (folder / _CONFIG).write_text(text, encoding="utf-8")
        save_file(dict(self.weights), folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> "Adapter":
        """Read an adapter that `save` has written."""
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        return cls(config["r"], load_file(folder / _WEIGHTS))

    def merge_into(self, denoiser: nn.Module) -> None:
        """Add the changes to a denoiser's own weights; it costs nothing more from then on."""
        model: Any = seeded(0, lambda: _with_adapters(denoiser, self.rank))  # all are overwritten
        set_peft_model_state_dict(model, dict(self.weights))
        model.merge_and_unload()


def train_adapter(
    pipeline: Any,
    latents: Float[Tensor, "image latent_channel height width"] | Spool,
    class_ids: Int64[Tensor, "image"],
    prompts: Sequence[str],
    settings: FinetuneSettings,
    *,
    seed: int,
    checkpoint: Checkpoint = NOWHERE,
) -> Adapter:
    """Train an adapter of a pipeline's denoiser on latents under the prompts of their classes.

    With W a weight of an attention layer, fixed, and A and B of rank r, B from zero:

        W' = W + B A;  loss = |f(z_t, t, prompt; W') - target|^2

    The target is what the denoiser predicts: the noise, the velocity or the clean latents; with
    flow matching epsilon - z, at times whose logit is normal before the scheduler shifts them.

    Args:
        pipeline: of a kind that `DenoiserCalls` takes; its denoiser is changed in place.
        latents: scaled latents of the training images.
        class_ids: class of each latent.
        prompts: of each class.
        settings: rank and training.
        seed: the stream of initial weights, batches, times, noise and dropped prompts.
        checkpoint: where the training is saved.

    Source:
        Hu et al., "LoRA: low-rank adaptation of large language models" (ICLR 2022), with a scale of
        1. Times of flow matching: Esser et al., "Scaling rectified flow transformers" (ICML 2024),
        section 3.1. Checked against the losses of diffusers' training scripts.

    Differs:
        The variance that a DiT or PixArt predicts is not trained.
    """
    device = latents.device
    denoiser = find_denoiser(pipeline)
    model: Any = seeded(seed, lambda: _with_adapters(denoiser, settings.rank)).to(device)
    trained = nn.ParameterList([each for each in model.parameters() if each.requires_grad])
    generator = torch.Generator(device).manual_seed(seed)
    fit = Fit(trained, settings, generator, checkpoint=checkpoint)
    noising, call = draw_noise(pipeline), DenoiserCalls(pipeline)
    precision = "float32" if denoiser.dtype == torch.float32 else "bfloat16"
    for rows in fit.batches(len(latents), "adapter"):
        clean = latents[rows]
        noisy, times, target = noising(clean, generator)
        dropped = torch.rand(len(rows), generator=generator, device=device)
        texts = [prompts[class_id] for class_id in class_ids[rows].tolist()]
        with computing_in(precision, device):
            predicted = call(
                model.base_model.model, noisy, times, texts, dropped < settings.prompt_dropout
            )
        fit.step(F.mse_loss(predicted.float(), target))
    weights = get_peft_model_state_dict(model)
    kept = {name: each.detach().float().cpu().contiguous() for name, each in weights.items()}
    return Adapter(settings.rank, kept)


def _with_adapters(denoiser: nn.Module, rank: int) -> nn.Module:
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_ATTENTION))
    return get_peft_model(denoiser, config)


Noised = tuple[Tensor, Tensor, Tensor]
"""Noisy latents, the time of each, and what the denoiser should predict."""


def draw_noise(pipeline: Any) -> Callable[[Tensor, torch.Generator], Noised]:
    """Return what adds noise of random times to latents, as in the pipeline's own training."""
    kind = kind_of(pipeline)
    assert kind is not None
    if kind.flow:
        return _flow_noising(FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config))
    scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)

    def noise(clean: Tensor, generator: torch.Generator) -> Noised:
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        most = int(scheduler.config.num_train_timesteps)
        times = torch.randint(most, (len(clean),), generator=generator, device=clean.device)
        target = {
            "epsilon": lambda: noise,
            "v_prediction": lambda: scheduler.get_velocity(clean, noise, times),
            "sample": lambda: clean,
        }[scheduler.config.prediction_type]
        return scheduler.add_noise(clean, noise, times), times, target()

    return noise


def _flow_noising(scheduler: Any) -> Callable[[Tensor, torch.Generator], Noised]:
    def noise(clean: Tensor, generator: torch.Generator) -> Noised:
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        shares = torch.randn(len(clean), generator=generator, device=clean.device).sigmoid()
        places = (shares * len(scheduler.sigmas)).long().cpu()
        sigmas = scheduler.sigmas[places].to(clean.device).view(-1, 1, 1, 1)
        times = scheduler.timesteps[places].to(clean.device)
        return (1 - sigmas) * clean + sigmas * noise, times, noise - clean

    return noise
