"""The compact generator: a small latent diffusion model trained on the recipe's own images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from d4m.generators.base import (
    Component,
    Generator,
    ImagesDescription,
    PromptFinding,
    TrainingImages,
    Writer,
)
from d4m.generators.prompt_cuts import TextReader, find_cuts
from d4m.generators.subwords import MERGES_VERSION, caption_texts, fits, learn_vocabulary
from d4m.recipe.problems import Problem
from d4m.seeds import stream_seed
from d4m.settings import (
    AutoencoderSettings,
    CompactSettings,
    DenoiserSettings,
    RecipeSynthesisSettings,
)

if TYPE_CHECKING:
    from d4m.images.spool import Spool

_PARTS = {"vae": ("vae",), "denoiser": ("unet", "text_encoder", "tokenizer")}
"""The folders of a diffusers pipeline that hold each trained component."""


class CompactGenerator(Generator):
    """A generator of three components, made of stock diffusers classes.

    They are `vae`; `denoiser`, the U-Net with the text encoder and tokenizer it is trained with;
    and `scheduler`. Captions of the training are the generator's own, so a changed prompt of the
    recipe trains nothing.
    """

    def __init__(self, settings: CompactSettings) -> None:
        """Take the widths and the training of both networks."""
        self._settings = settings

    def plan_components(self, images: ImagesDescription, *, seed: int) -> list[Component]:
        """Return the autoencoder, the denoiser that works on its latents, and the schedule."""
        vae = {
            **self._settings.autoencoder.model_dump(mode="json"),
            **images.pixels,
            "seed": stream_seed(seed, "generator", "vae"),
        }
        own = self._settings.denoiser
        denoiser = {
            **own.model_dump(mode="json"),
            "attention_from": min(own.attention_from, len(own.channels)),
            **images.pixels,
            "class_names": list(images.class_names),
            "sub_words": MERGES_VERSION,
            "seed": stream_seed(seed, "generator", "denoiser"),
        }
        return [
            Component("vae", vae, trained=True),
            Component("denoiser", denoiser, trained=True, reads=("vae",)),
            Component("scheduler", {"kind": "compact"}),
        ]

    def make(
        self,
        component: str,
        settings: Mapping[str, Any],
        images: TrainingImages,
        folders: Mapping[str, Path],
    ) -> Writer:
        """Train a network, or build the schedule."""
        from d4m.generators.compact_model import build_scheduler, save

        match component:
            case "vae":
                return _train_vae(settings, images)
            case "denoiser":
                return _train_denoiser(settings, images, folders["vae"])
            case _:
                return save({"scheduler": build_scheduler()})

    def parts(self, component: str) -> tuple[str, ...]:
        """Return the folders of both trained components."""
        return _PARTS.get(component, ())

    def take_in(
        self,
        component: str,
        settings: Mapping[str, Any],
        images: UInt8[np.ndarray, "image height width channel"],
        folder: Path,
    ) -> Writer:
        """Examine a network that was trained elsewhere; return what writes its files."""
        from d4m.generators.compact_adoption import take_in_denoiser, take_in_vae
        from d4m.images.pixels import to_pixels

        if component == "vae":
            return take_in_vae(settings, folder, to_pixels(images))
        halvings = len(self._settings.autoencoder.channels) - 1
        return take_in_denoiser(
            settings, folder, settings["class_names"], latent_size=images.shape[1] >> halvings
        )

    def find_problems(self, images: ImagesDescription, *, channels: int) -> list[Problem]:
        """Return an image size that the levels do not halve, and captions that are cut."""
        del channels
        problems = list[Problem]()
        levels, size_px = len(self._settings.autoencoder.channels), images.pixels["size_px"]
        if size_px % 2 ** (levels - 1):
            text = (
                f"{levels} levels need an image size that divides by {2 ** (levels - 1)}, found "
                f"{size_px} px (`dataset.size_px`); use fewer levels or another size"
            )
            problems.append(Problem(("generator", "compact", "autoencoder", "channels"), text))
        captions = caption_texts(images.class_names, self._settings.denoiser)
        if cuts := self.examine_prompts(dict.fromkeys(captions), images.class_names):
            text = (
                f"{len(cuts)} captions are cut, such as this: {next(iter(cuts.values())).reason}; "
                f"raise it, or shorten `generator.compact.denoiser.captions`"
            )
            problems.append(Problem(("generator", "compact", "denoiser", "text_length"), text))
        return problems

    def find_unfollowed(self, settings: RecipeSynthesisSettings) -> list[Problem]:
        """Return a choice of guided channels, which only a DiT has."""
        chosen = settings.guided_channels
        if chosen is None:
            return []
        text = f"found {chosen}, which only a DiT has, not the compact generator; leave it out"
        return [Problem(("synthesis", "guided_channels"), text)]

    def examine_prompts(
        self, prompts: Iterable[str], class_names: Sequence[str]
    ) -> dict[str, PromptFinding]:
        """Return the prompts that have more tokens than the text encoder reads."""
        limit = self._settings.denoiser.text_length
        long = [prompt for prompt in prompts if not fits(prompt, limit)]
        if not long:
            return {}
        vocabulary = learn_vocabulary(caption_texts(class_names, self._settings.denoiser))
        return find_cuts([TextReader.of(vocabulary, limit=limit)], long)

    def load_vae(self, folder: Path) -> Any:
        """Load the trained autoencoder."""
        from d4m.generators.compact_model import load_vae

        return load_vae(folder)

    def load_pipeline(self, folders: Mapping[str, Path]) -> Any:
        """Load the trained components into the stock Stable Diffusion img2img pipeline."""
        from d4m.generators.compact_model import load_pipeline

        return load_pipeline(list(folders.values()))

    def describe(self) -> Mapping[str, Any]:
        """Return all of its settings."""
        return {"compact": self._settings.model_dump(mode="json")}


def _train_vae(settings: Mapping[str, Any], images: TrainingImages) -> Writer:
    from d4m.generators.compact_model import save, train_autoencoder
    from d4m.images.pixels import to_pixels
    from d4m.images.spool import Spool

    pixels = Spool(images.batches(), to_pixels, device=images.device)
    own = AutoencoderSettings.among(settings)
    checkpoint = images.checkpoint
    vae = train_autoencoder(pixels, own, seed=settings["seed"], checkpoint=checkpoint)
    return save({"vae": vae})


def _train_denoiser(settings: Mapping[str, Any], images: TrainingImages, vae: Path) -> Writer:
    import torch

    from d4m.generators.compact_model import save, train_denoiser

    counts = torch.tensor(images.counts)
    trained = train_denoiser(
        _spool_latents(images, vae),
        torch.repeat_interleave(torch.arange(len(counts)), counts).to(images.device),
        settings["class_names"],
        DenoiserSettings.among(settings),
        seed=settings["seed"],
        checkpoint=images.checkpoint,
    )
    return save(
        {
            "unet": trained.unet,
            "text_encoder": trained.text_encoder,
            "tokenizer": trained.tokenizer,
        }
    )


def _spool_latents(images: TrainingImages, vae: Path) -> "Spool":
    import torch

    from d4m.generators.compact_model import load_vae
    from d4m.generators.encode import encode_images
    from d4m.images.spool import Spool

    latents = encode_images(images.batches(), load_vae(vae).to(images.device))
    return Spool(latents, torch.Tensor.float, device=images.device)
