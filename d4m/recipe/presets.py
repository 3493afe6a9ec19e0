"""Published and tested settings by name: a recipe says `preset: paper`, or lists several names.

A preset fills in some keys of the recipe's sections. The recipe overrides its presets, and a later
preset overrides an earlier one.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from d4m.recipe.dependent_keys import Sections, by_recipe
from d4m.recipe.protocols import (
    dc,
    dd_ranking,
    imagenet_pixels,
    minimax,
    rded,
    rectified,
)


def paper() -> Sections:
    """Return the published settings for ImageNet-1K.

    Source:
        D4M, section 4.1, and the authors' public code (suduo94/D4M): Stable Diffusion 1.5 at
        512 px, to which images are squeezed by a bilinear filter; sampled latents; PNDM with 50
        steps, of which strength 0.7 runs 35, in 36 evaluations, each for prompt and negative
        prompt; guidance scale 8; a class's synonyms as its prompt; synthetic images of 224 px,
        resized by a bicubic filter; students trained with AdamW for 300 epochs at temperature 20,
        and scored on the centre of 224 px of test images whose shorter side is 256 px.

    Differs:
        Prototypes come from exact k-means, because the published mini-batches lose images
        (docs/explanation/method.md). ImageNet's two cranes are both `crane`, as in WordNet; the
        published list calls the bird a machine and the machine a bird. Images are turned upright
        by their EXIF orientation. docs/reference/protocols.md compares every setting. The row
        `full_data` is left out: its training images would fill 193 GB of the disk for ImageNet-1K.
    """
    return {
        "dataset": {
            "size_px": 512,
            "channels": 3,
            "resampling": "bilinear",
        },  # by default, images are resized without keeping their aspect ratio
        "prompts": {"template": "{synonyms}", "negative": "cartoon, anime, painting"},
        "generator": {
            "pretrained": {"model": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
            "latents": "sample",
        },
        "prototypes": {"method": "kmeans", "representative": "mean"},
        "synthesis": {
            "strength": 0.7,
            "guidance_scale": 8.0,
            "num_inference_steps": 50,
            "scheduler": "pndm",
            "size_px": 224,
            "resampling": "bicubic",
        },
        "teacher": {"architecture": "resnet18.tv_in1k", "weights": "timm"},
        "soft_labels": {
            "epochs": 300,
            "augmentation": {"crop_scale": [0.08, 1.0], "flip": 0.5, "cutmix": 1.0},
        },
        "evaluation": {
            "students": [
                {"architecture": "resnet18", "options": {"zero_init_last": False}},
            ],
            "test_crop": {"resize_px": 256, "crop_px": 224, "resampling": "bilinear"},
            "matching": {"loss": "kl", "temperature": 20.0},
            "baselines": ["random_real", "nearest_real"],
            "pixels": imagenet_pixels(),
            "optimizer": {
                "batch_size": 1024,
                "learning_rate": 1e-3,
                "weight_decay": 0.01,
                "decayed": "matrices",
                "schedule": "cosine",
                "rate_changes": "per_epoch",
            },
        },
    }


def fast() -> Sections:
    """Return a sampler that needs 20 steps instead of PNDM's 50, with any generator.

    Source:
        Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models"
        (2022): second order, 20 steps. benchmarks/README.md measures speed against quality.

    Differs:
        With 20 steps, each strength that is a multiple of 0.05 is a whole number of steps, so
        images start at exactly that noise level. With 15 steps, 0.7 would be rounded to 0.67.
    """
    return {"synthesis": {"scheduler": "dpmsolver++", "num_inference_steps": 20}}


def hard() -> Sections:
    """Return class labels only: no soft labels are used or stored. Combine with `dc`."""
    return {"soft_labels": {"mode": "online"}, "evaluation": {"labels": ["hard"]}}


PRESETS: Mapping[str, Callable[[], Sections]] = {
    "paper": paper,
    "fast": fast,
    "rectified": rectified,
    "rded": rded,
    "minimax": minimax,
    "dc": dc,
    "dd_ranking": dd_ranking,
    "hard": hard,
}


def fill_in(sections: Mapping[str, Any], names: list[str]) -> Sections:
    """Fill in the keys that a recipe leaves out from its presets.

    Args:
        sections: the recipe's sections as written in its file.
        names: names of presets; a later preset overrides an earlier one.

    Example:
        >>> fill_in({"synthesis": {"strength": 0.5}}, ["fast"])["synthesis"]["scheduler"]
        'dpmsolver++'
    """
    filled: Sections = {}
    for name in names:
        preset = _merge(filled, PRESETS[name]())
        filled = _merge(preset, by_recipe(name, _merge(preset, sections)))
    own_generator = sections.get("generator")
    if isinstance(own_generator, dict) and "compact" in own_generator:
        filled.get("generator", {}).pop("pretrained", None)
    own_dataset = sections.get("dataset")
    if isinstance(own_dataset, dict) and own_dataset.get("source") == "digits":
        filled.pop("dataset", None)  # the digits have only one size
    return _merge(filled, sections)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> Sections:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merge(cast("Sections", below), cast("Sections", value))
        else:
            merged[key] = value
    return merged
