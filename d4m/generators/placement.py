"""A pipeline on its device, in as much memory as it may take."""

from typing import Any

from d4m.compute import Compute
from d4m.errors import GeneratorError


def place_vae(vae: Any, compute: Compute) -> Any:
    """An autoencoder by itself, ready on the device; unless there is memory, an image at a time."""
    if compute.memory != "full":
        vae.enable_slicing()
    return vae.to(compute.device)


def place_pipeline(pipeline: Any, compute: Compute) -> Any:
    """The pipeline, ready on the device.

    `slicing` computes attention one slice at a time, where the denoiser's class can (U-Nets can,
    DiTs cannot), and lets the VAE encode and decode one image at a time. The VAE never works in
    tiles: their blended seams would be other images. `offload` does both, and moves a component
    to the device only while it runs.

    Raises:
        GeneratorError: `offload` is asked for without a device to offload from.
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
