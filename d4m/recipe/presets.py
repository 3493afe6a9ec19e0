"""Published and proven settings under a name: `preset: paper` in a recipe, or a list of names.

A preset is the recipe's sections with some keys filled in. The recipe overrides its presets; a
later preset overrides an earlier one.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

Sections = dict[str, Any]


def paper() -> Sections:
    """Return the published settings for ImageNet-1K.

    Source:
        D4M, section 4.1, and the authors' public code (suduo94/D4M): Stable Diffusion 1.5 at
        512 px, sampled latents, PNDM with 50 steps of which strength 0.7 runs 35, guidance 8, bare
        labels as prompts, 224 px out; students by AdamW for 300 epochs at temperature 20.

    Differs:
        Prototypes are exact k-means: the published mini-batches lose images
        (docs/explanation/method.md).
    """
    return {
        "dataset": {"size_px": 512, "channels": 3},  # files are squashed to it, by default
        "prompts": {"template": "{name}", "negative": "cartoon, anime, painting"},
        "generator": {
            "pretrained": {"model": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
            "latents": "sample",
        },
        "synthesis": {
            "strength": 0.7,
            "guidance_scale": 8.0,
            "num_inference_steps": 50,
            "scheduler": "pndm",
            "size_px": 224,
        },
        "teacher": {"architecture": "resnet18", "weights": "timm"},
        "soft_labels": {
            "epochs": 300,
            "augmentation": {"crop_scale": [0.08, 1.0], "flip": 0.5, "cutmix": 1.0},
        },
        "evaluation": {
            "students": ["resnet18"],
            "matching": {"loss": "kl", "temperature": 20.0},
            "optimizer": {"batch_size": 1024, "learning_rate": 1e-3, "weight_decay": 0.01},
        },
    }


def fast() -> Sections:
    """Return a modern few-step sampler in place of PNDM's 50 steps, for any generator.

    Source:
        Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models"
        (2022): second order, 20 steps; the trade is measured in benchmarks/README.md.

    Differs:
        20 steps times any strength in steps of 0.05 is a whole number, so images start at exactly
        the noise that the strength says; with 15 steps, strength 0.7 would be rounded to 0.67.
    """
    return {"synthesis": {"scheduler": "dpmsolver++", "num_inference_steps": 20}}


def rectified() -> Sections:
    """Return a training protocol under which published images score higher than under their own.

    Source:
        RD3 ("rectified" protocol for dataset distillation, 2025), as reported second-hand: 400
        epochs, batches of 50, Adam at 1e-3, smoothed cosine, crops, flips and CutMix.

    Differs:
        Loss and temperature are the paper's, which the report does not give.
    """
    return {
        "soft_labels": {
            "epochs": 400,
            "augmentation": {"crop_scale": [0.08, 1.0], "flip": 0.5, "cutmix": 1.0},
        },
        "evaluation": {
            "optimizer": {
                "name": "adam",
                "batch_size": 50,
                "learning_rate": 1e-3,
                "weight_decay": 0.0,
                "schedule": "smoothed_cosine",
            },
        },
    }


def dc() -> Sections:
    """Return the protocol of the field's tables of MNIST and Fashion-MNIST, with class labels.

    Source:
        VICO-UoE/DatasetCondensation: 3-layer ConvNet, SGD at 0.01 with momentum 0.9 and weight
        decay 5e-4, batches of 256, a tenth of the rate from halfway; 1,000 epochs with DSA's
        `color_crop_cutout_flip_scale_rotate`, one of them at a time (Zhao & Bilen, ICML 2021).

    Differs:
        The one change is drawn for every image, not for every batch. Brightness has the width that
        theirs has on Fashion-MNIST (twice its deviation of 0.353); there is no saturation, which
        changes colour images alone; zooms are drawn evenly on a logarithmic scale. Cut-outs are
        mid-grey, and shifted images repeat their border, whereas theirs have the data's mean.
        Digits must not be flipped: set `evaluation.hard.augmentation.flip` to 0.
    """
    return {
        "evaluation": {
            "students": ["convnet3"],
            "hard": {
                "epochs": 1000,
                "augmentation": {
                    "one_of": True,
                    "crop_scale": [1.0, 1.0],
                    "flip": 0.5,
                    "rotation_degrees": 15.0,
                    "shift": 0.125,
                    "zoom": 1.2,
                    "brightness": 0.7,
                    "contrast": 0.5,
                    "cutout": 0.5,
                    "cutmix": 0.0,
                },
                "optimizer": {
                    "name": "sgd",
                    "batch_size": 256,
                    "learning_rate": 0.01,
                    "momentum": 0.9,
                    "weight_decay": 5e-4,
                    "schedule": "step",
                },
            },
        },
    }


def hard() -> Sections:
    """Return class labels only: no soft labels are used or stored. Combine with `dc`."""
    return {"soft_labels": {"mode": "online"}, "evaluation": {"labels": ["hard"]}}


PRESETS: Mapping[str, Callable[[], Sections]] = {
    "paper": paper,
    "fast": fast,
    "rectified": rectified,
    "dc": dc,
    "hard": hard,
}


def fill_in(sections: Mapping[str, Any], names: list[str]) -> Sections:
    """Fill in the keys that a recipe's sections leave open from presets.

    Args:
        sections: the recipe as it stands in its file.
        names: presets; a later one overrides an earlier one.

    Example:
        >>> fill_in({"synthesis": {"strength": 0.5}}, ["fast"])["synthesis"]["scheduler"]
        'dpmsolver++'
    """
    filled: Sections = {}
    for name in names:
        filled = _merge(filled, PRESETS[name]())
    own_generator = sections.get("generator")
    if isinstance(own_generator, dict) and "compact" in own_generator:
        filled.get("generator", {}).pop("pretrained", None)
    own_dataset = sections.get("dataset")
    if isinstance(own_dataset, dict) and own_dataset.get("source") == "digits":
        filled.pop("dataset", None)  # which have one size
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
