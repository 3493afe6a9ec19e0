"""Published protocols of training and scoring students, as presets of a recipe.

docs/reference/protocols.md compares each, setting by setting, with what was published. Keys that
follow from the rest of a recipe are in `d4m.recipe.dependent_keys`.
"""

from d4m.recipe.dependent_keys import Sections


def rectified() -> Sections:
    """Return a training protocol that scores published images higher than their own protocols do.

    Source:
        Zhong et al., "Rectified decoupled dataset distillation" (ICLR 2026, RD3), as reported
        second-hand: 400 epochs, batches of 50, Adam at 1e-3, smoothed cosine, crops, flips and
        CutMix.

    Differs:
        The report does not give the loss and the temperature; D4M's are used.
    """
    return {
        "soft_labels": {"epochs": 400, "augmentation": _views([0.08, 1.0])},
        "evaluation": {
            "matching": {"loss": "kl", "temperature": 20.0},
            "optimizer": {
                "name": "adam",
                "batch_size": 50,
                "learning_rate": 1e-3,
                "weight_decay": 0.0,
                "schedule": "smoothed_cosine",
            },
        },
    }


def rded() -> Sections:
    """Return the training that RDED's tables and many later ones use.

    Batches have 100 images; 20 with `prototypes.ipc` below 10, and 200 from 50 on. With
    `synthesis.size_px` 224, test images are resized to 256 px and cropped.

    Source:
        LINs-lab/RDED (Sun et al., CVPR 2024), argument.py and validation/main.py, for ImageNet-1K
        and ImageNet-100: 300 epochs, AdamW at 1e-3, a rate that follows a smoothed cosine from
        epoch to epoch, KL divergence at temperature 20.

    Differs:
        RDED halves the batches for ten classes. Its own images are four mosaic tiles, which it
        shuffles for each view.
    """
    return {
        "soft_labels": {
            "epochs": 300,
            "mode": "online",
            "augmentation": _views([0.5, 1.0]),
        },
        "evaluation": {
            "labels": ["soft"],
            "pixels": imagenet_pixels(),
            "matching": {"loss": "kl", "temperature": 20.0},
            "optimizer": {
                "name": "adamw",
                "batch_size": 100,
                "learning_rate": 1e-3,
                "weight_decay": 0.01,
                "decayed": "matrices",
                "schedule": "smoothed_cosine",
                "rate_changes": "per_epoch",
            },
        },
    }


def minimax() -> Sections:
    """Return the training with class labels of the tables of ImageNette and ImageWoof.

    There are 2,000 epochs; 3,000 with `prototypes.ipc` 1, 1,500 above 10, 1,000 above 50, 500 above
    200 and 300 above 500. Test images are resized to `synthesis.size_px` and cropped to a square.

    Source:
        vimar-gu/MinimaxDiffusion (Gu et al., CVPR 2024), argument.py, data.py and train.py, with
        which IGD, MGD3 and DAP train too: images of 256 px that networks see at 224; ResNetAP-10,
        ConvNet-6 and ResNet-18 with instance norm; SGD at 0.01, times 0.2 after 2/3 and 5/6 of the
        epochs; colour jitter, PCA lighting, and CutMix on every image.

    Differs:
        The last epoch counts, not the best.
    """
    return {
        "dataset": {"size_px": 256, "channels": 3, "resampling": "bilinear"},
        "synthesis": {"size_px": 224, "resampling": "bilinear"},
        "soft_labels": {"mode": "online"},
        "evaluation": {
            "students": ["resnet_ap10", "convnet6", "resnet18_instance"],
            "labels": ["hard"],
            "baselines": ["random_real"],
            "pixels": imagenet_pixels(),
            "hard": {
                "epochs": 2000,
                "augmentation": {**_views([0.5, 1.0]), "jitter": 0.4, "lighting": 0.1},
                "optimizer": {
                    "name": "sgd",
                    "batch_size": 64,
                    "learning_rate": 0.01,
                    "momentum": 0.9,
                    "weight_decay": 5e-4,
                    "schedule": "step",
                    "steps": [2 / 3, 5 / 6],
                    "step_factor": 0.2,
                    "rate_changes": "per_epoch",
                },
            },
        },
    }


def dc() -> Sections:
    """Return the training with class labels behind published MNIST, Fashion-MNIST and CIFAR tables.

    With the sources `mnist`, `fashion_mnist`, `cifar10` and `cifar100`, `mean` and `deviation` are
    the published ones; otherwise they are those of the training images. Digits (`mnist`, `digits`)
    are not flipped.

    Source:
        VICO-UoE/DatasetCondensation, utils.py and main.py: 3-layer ConvNet on standardised pixels;
        SGD at 0.01 with momentum 0.9 and weight decay 5e-4; batches of 256; a tenth of the rate
        from the midpoint on; 1,000 epochs with DSA's `color_crop_cutout_flip_scale_rotate`, of
        which one kind is drawn per batch (Zhao & Bilen, ICML 2021).

    Differs:
        Momentum is kept when the rate drops. Batches of an epoch have equal sizes, where theirs
        are full but for the last.
    """
    return {
        "evaluation": {
            "students": ["convnet3"],
            "pixels": {"standardise": True},
            "hard": {
                "epochs": 1001,
                "augmentation": {"crop_scale": [1.0, 1.0], "flip": 0.0, "cutmix": 0.0},
                "batch_changes": ["color", "crop", "cutout", "flip", "scale", "rotate"],
                "optimizer": {
                    "name": "sgd",
                    "batch_size": 256,
                    "learning_rate": 0.01,
                    "momentum": 0.9,
                    "weight_decay": 5e-4,
                    "schedule": "step",
                    "steps": [0.502],
                    "step_factor": 0.1,
                    "rate_changes": "per_epoch",
                },
            },
        },
    }


def dd_ranking() -> Sections:
    """Return the training behind DD-Ranking's two scores of methods with soft labels.

    With `synthesis.size_px` 224, test images are resized to 256 px and cropped.

    Source:
        NUS-HPC-AI-Lab/DD-Ranking (Li et al., 2025), configs/Demo_LRS_Soft_Label.yaml,
        configs/Demo_ARS.yaml, and ddranking/metrics/soft_label.py.

    Differs:
        DD-Ranking tries five rates from 0.001 to 0.1 for each row and keeps the best of the test
        accuracies that it measures every 20 epochs. Here the rate is the smallest of those five,
        and the last epoch counts.
    """
    optimizer: Sections = {
        "name": "adamw",
        "batch_size": 1024,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "schedule": "smoothed_cosine",
        "rate_changes": "per_epoch",
    }
    return {
        "soft_labels": {
            "epochs": 300,
            "mode": "online",
            "augmentation": _views([0.08, 1.0]),
        },
        "evaluation": {
            "seeds": 5,
            "labels": ["soft", "hard"],
            "baselines": ["random_real", "full_data"],
            "without_augmentation": True,
            "pixels": imagenet_pixels(),
            "matching": {"loss": "kl", "temperature": 1.0},
            "optimizer": optimizer,
            "hard": {"augmentation": {**_views([0.08, 1.0]), "cutmix": 0.0}},
            "full_data": {
                "epochs": 90,
                "augmentation": {**_views([0.08, 1.0]), "cutmix": 0.0},
                "optimizer": {
                    "name": "sgd",
                    "batch_size": 512,
                    "learning_rate": 0.1,
                    "momentum": 0.9,
                    "weight_decay": 1e-4,
                    "schedule": "step",
                    "steps": [1 / 3, 2 / 3],
                    "step_factor": 0.1,
                    "rate_changes": "per_epoch",
                },
            },
        },
    }


def imagenet_pixels() -> Sections:
    """Return standardised pixels, by the numbers that ImageNet's networks have always used."""
    return {
        "standardise": True,
        "mean": [0.485, 0.456, 0.406],
        "deviation": [0.229, 0.224, 0.225],
    }


def _views(crop_scale: list[float]) -> Sections:
    return {"crop_scale": crop_scale, "flip": 0.5, "cutmix": 1.0}
