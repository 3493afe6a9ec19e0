"""Place a pipeline on its device, within the memory it may use."""

from typing import Any

from d4m.compute import Compute
from d4m.errors import GeneratorError


def place_vae(vae: Any, compute: Compute) -> Any:
    """Place an autoencoder on the device; unless memory is `full`, it takes one image at a time."""
    if compute.memory != "full":
        vae.enable_slicing()
    return vae.to(compute.device)


def place_pipeline(pipeline: Any, compute: Compute) -> Any:
    """Place a pipeline on the device.

    With `slicing`, attention is computed one slice at a time (in U-Nets; DiTs do not support this),
    and the VAE encodes and decodes one image at a time. The VAE is never tiled, because blending
    the seams of tiles would change images. `offload` adds to `slicing` that a component is on the
    device only while it runs.

    Raises:
        GeneratorError: memory is `offload`, but the device is not a CUDA device.
    """
    pipeline.set_progress_bar_config(disable=True)
    if compute.memory == "full":
        return pipeline.to(compute.device)
    pipeline.enable_attention_slicing()
    pipeline.vae.enable_slicing()
    if compute.memory == "slicing":
        return pipeline.to(compute.device)
    if not compute.device.startswith("cuda"):
        msg = (
            f"D4M_MEMORY=offload moves parts of the generator between main memory and a CUDA "
            f"device, and the device is {compute.device}; use D4M_MEMORY=slicing or full"
        )
        raise GeneratorError(msg)
    pipeline.enable_model_cpu_offload(device=compute.device)
    return pipeline
