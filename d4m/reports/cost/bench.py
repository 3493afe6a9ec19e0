"""Images, networks and pipelines of a recipe's sizes, with random content, for probes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d4m.compute import Compute
from d4m.errors import D4MError
from d4m.seeds import stream_generator
from d4m.settings import AutoencoderSettings, ClassifierSettings, DenoiserSettings
from d4m.stages.context import StageContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from d4m.images.image_set import ImageSet

_LATENT_CHANNELS = 4


class UnmeasuredError(D4MError):
    """Nothing does a piece of this kind before a run; the message says what is missing."""


@dataclass(frozen=True)
class Trial:
    """Some work that can be done in small amounts.

    Attributes:
        run: does so many pieces, and returns the bytes that a stage would keep of them.
        step: `run` takes multiples of it.
        waits: whether it waits for a disk, which takes time but no CPU.
        once: whether only the first time takes as long as it does in a run.
    """

    run: Callable[[int], int]
    step: int = 1
    waits: bool = False
    once: bool = False


@dataclass
class Bench:
    """The place of all probes of one recipe.

    Attributes:
        context: the recipe and its images, with the artifacts that are wholly stored.
        folder: for files of probes.
    """

    context: StageContext
    folder: Path
    _pipelines: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def compute(self) -> Compute:
        """The device."""
        return self.context.compute

    @property
    def device(self) -> str:
        """Its name in torch."""
        return self.compute.device

    def images(self, count: int, settings: Mapping[str, Any]) -> np.ndarray:
        """Return grey noise as images."""
        shape = (count, settings["size_px"], settings["size_px"], settings["channels"])
        return stream_generator(0, "probe").integers(0, 256, shape, dtype=np.uint8)

    def image_set(self, count: int, settings: Mapping[str, Any]) -> "ImageSet":
        """Return as many images as a training set, with the classes in turn."""
        import torch

        from d4m.images.image_set import ImageSet
        from d4m.images.pixels import to_pixels
        from d4m.images.spool import Spool

        pixels = Spool([self.images(count, settings)], to_pixels, device=self.device)
        class_ids = (torch.arange(count) % settings["classes"]).to(self.device)
        return ImageSet(pixels, class_ids)

    def latents(self, count: int, settings: Mapping[str, Any]) -> np.ndarray:
        """Return noise as latents."""
        if "autoencoder" in settings:
            edge = settings["size_px"] // 2 ** (len(settings["autoencoder"]["channels"]) - 1)
            shape = (_LATENT_CHANNELS, edge, edge)
        else:
            from d4m.generators.autoencoder import latent_shape

            shape = latent_shape(self.pipeline(settings).vae, settings["size_px"])
        drawn = stream_generator(0, "probe").standard_normal((count, *shape), np.float32)
        return drawn.astype(np.float16)

    def train_autoencoder(self, settings: Mapping[str, Any], steps: int) -> Any:
        """Train the autoencoder of a recipe for a few steps."""
        from d4m.generators.compact_model import train_autoencoder

        own = AutoencoderSettings.among(settings["autoencoder"])
        few = own.model_copy(update={"steps": steps})
        pixels = self.image_set(own.batch_size, {**settings, "classes": 1}).pixels
        return train_autoencoder(pixels, few, seed=0)

    def train_denoiser(self, settings: Mapping[str, Any], steps: int) -> Any:
        """Train the denoiser of a recipe for a few steps."""
        import torch

        from d4m.generators.compact_model import train_denoiser

        own = DenoiserSettings.among(settings["denoiser"]).model_copy(update={"steps": steps})
        latents = torch.from_numpy(self.latents(own.batch_size, settings)).float()
        names = self.context.source.class_table.names
        class_ids = torch.arange(own.batch_size) % len(names)
        device = self.device
        return train_denoiser(latents.to(device), class_ids.to(device), names, own, seed=0)

    def pipeline(self, settings: Mapping[str, Any]) -> Any:
        """Return the recipe's generator: a stored one, or for compact ones one of its layout.

        Raises:
            UnmeasuredError: a pretrained generator is not stored yet.
        """
        from d4m.stages.generator import load_pipeline
        from d4m.store.digest import digest_json

        name = digest_json(dict(settings))
        if name not in self._pipelines:
            if "pretrained" in settings and "generator" not in self.context.upstream:
                msg = "the pretrained generator is not stored yet"
                raise UnmeasuredError(msg)
            stored = "pretrained" in settings
            self._pipelines[name] = (
                load_pipeline(self.context) if stored else self.load_compact(settings)
            )
        return self._pipelines[name]

    def load_compact(self, settings: Mapping[str, Any]) -> Any:
        """Load a compact generator of this layout, which is made once, from its files."""
        from d4m.generators.compact_model import build_scheduler, load_pipeline, save
        from d4m.generators.placement import place_pipeline

        folder = self.folder / "generator"
        if not folder.exists():
            trained = self.train_denoiser(settings, steps=1)
            save(
                {
                    "vae": self.train_autoencoder(settings, steps=1),
                    "unet": trained.unet,
                    "text_encoder": trained.text_encoder,
                    "tokenizer": trained.tokenizer,
                    "scheduler": build_scheduler(),
                }
            )(folder)
        return place_pipeline(load_pipeline([folder]), self.compute)

    def network(self, settings: Mapping[str, Any]) -> "nn.Module":
        """Return a classifier, or an ensemble, with random weights."""
        from d4m.classifiers.ensemble import Ensemble
        from d4m.classifiers.registry import build_classifier

        named = settings["network"]
        members = [
            build_classifier(
                ClassifierSettings.among(named),
                channels=settings["channels"],
                size_px=settings["size_px"],
                classes=settings["classes"],
                seed=member,
            )
            for member in range(named.get("members", 1))
        ]
        network = members[0] if len(members) == 1 else Ensemble(members)
        return network.to(self.device)

    def pixels(self, count: int, settings: Mapping[str, Any]) -> "Tensor":
        """Return noise as pixels on the device."""
        import torch

        from d4m.images.pixels import to_pixels

        return to_pixels(torch.from_numpy(self.images(count, settings))).to(self.device)


def weight_bytes(*modules: "nn.Module") -> int:
    """Return the bytes of the weights of networks."""
    return sum(
        each.numel() * each.element_size()
        for module in modules
        for each in module.state_dict().values()
    )
