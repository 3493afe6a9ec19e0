"""Edits of the tiny recipe, each with the units that it reaches."""

from ruamel.yaml import YAML

from d4m.pipeline import STAGES
from tests.conftest import TINY_RECIPE

ALL = {stage.name: ("*",) for stage in STAGES}
DOWN_FROM_IMAGES = {
    "soft_labels": ("*",),
    "evaluation_scores": ("synthetic-*",),
    "image_fidelity": ("synthetic",),
    "distilled_dataset": ("*",),
}
DOWN_FROM_LATENTS = {
    "prototypes": ("*",),
    "synthetic_images": ("*",),
    **DOWN_FROM_IMAGES,
    "evaluation_scores": ("synthetic-*", "nearest_real-*"),
    "image_fidelity": ("synthetic", "nearest_real"),
}
ONLY_DATASET = {"distilled_dataset": ("*",)}

STUDENTS = YAML(typ="safe").load(TINY_RECIPE)["evaluation"]["students"]

# The edit, the units that must be computed, those that follow them, and one of the reasons.
EDITS = {
    "one class's prompt": (
        {"prompts.per_class": {"three": "a bold three"}},
        {"synthetic_images": ("class-00003",)},
        DOWN_FROM_IMAGES,
        ("synthetic_images/class-00003", "prompt changed from 'three' to 'a bold three'"),
    ),
    "the prompt template": (
        {"prompts.template": "the digit {name}"},
        {"synthetic_images": ("*",)},
        DOWN_FROM_IMAGES,
        ("synthetic_images/class-00009", "prompt changed from 'nine' to 'the digit nine'"),
    ),
    "the negative prompt": (
        {"prompts.negative": "blurry"},
        {"synthetic_images": ("*",)},
        DOWN_FROM_IMAGES,
        (
            "synthetic_images/class-00000",
            "negative_prompt changed from 'cartoon, anime, painting' to 'blurry'",
        ),
    ),
    "ipc": (
        {"prototypes.ipc": 4},
        {
            "prototypes": ("*",),
            "evaluation_scores": ("random_real-*",),
            "image_fidelity": ("random_real",),
        },
        {
            **DOWN_FROM_LATENTS,
            "prototypes": (),
        },
        ("prototypes/class-00005", "ipc changed from 3 to 4"),
    ),
    "k-means starts": (
        {"prototypes.starts": 2},
        {"prototypes": ("*",)},
        {**DOWN_FROM_LATENTS, "prototypes": ()},
        ("prototypes/class-00005", "starts changed from 1 to 2"),
    ),
    "strength": (
        {"synthesis.strength": 0.5},
        {"synthetic_images": ("*",)},
        DOWN_FROM_IMAGES,
        ("synthetic_images/class-00001", "strength changed from 0.7 to 0.5"),
    ),
    "the sampler": (
        {"synthesis.scheduler": "ddim"},
        {"synthetic_images": ("*",)},
        DOWN_FROM_IMAGES,
        ("synthetic_images/class-00001", "scheduler changed from 'pndm' to 'ddim'"),
    ),
    "two settings at once": (
        {"synthesis.guidance_scale": 3.0, "synthesis.num_inference_steps": 5},
        {"synthetic_images": ("*",)},
        DOWN_FROM_IMAGES,
        (
            "synthetic_images/class-00001",
            "guidance_scale changed from 8.0 to 3.0; num_inference_steps changed from 4 to 5",
        ),
    ),
    "the size of the images": (
        {"synthesis.size_px": 16},
        {
            "synthetic_images": ("*",),
            "teacher": ("*",),
            "evaluation_scores": ("random_real-hard-*", "nearest_real-hard-*", "full_data-*"),
        },
        {
            "soft_labels": ("*",),
            "evaluation_scores": ("synthetic-*", "*-soft-*", "teacher"),
            "image_fidelity": ("*",),
            "distilled_dataset": ("*",),
        },
        ("teacher/teacher", "size_px changed from 8 to 16"),
    ),
    "the teacher's epochs": (
        {"teacher.epochs": 3},
        {"teacher": ("*",)},
        {
            "soft_labels": ("*",),
            "evaluation_scores": ("*-soft-*", "teacher"),
            "image_fidelity": ("*",),
            "distilled_dataset": ("*",),
        },
        ("teacher/teacher", "epochs changed from 2 to 3"),
    ),
    "a second teacher": (
        {"teacher.members": 2},
        {"teacher": ("teacher-01",)},
        {
            "soft_labels": ("*",),
            "evaluation_scores": ("*-soft-*", "teacher"),
            "image_fidelity": ("*",),
            "distilled_dataset": ("*",),
        },
        ("teacher/teacher-01", "never computed for this recipe"),
    ),
    "candidates of every image": (
        {"synthesis.candidates": 3},
        {"synthetic_images": ("*",)},
        DOWN_FROM_IMAGES,
        (
            "synthetic_images/class-00002",
            "candidates changed from 1 to 3; diversity changed from unset to 0.5; teacher",
        ),
    ),
    "labels given online": (
        {"soft_labels.mode": "online"},
        {"evaluation_scores": ("*-soft-*",)},
        ONLY_DATASET,
        (
            "evaluation_scores/random_real-soft-convnet3-00",
            "mode changed from 'stored' to 'online'",
        ),
    ),
    "the labels' format": (
        {"soft_labels.format": "uint8"},
        {
            "soft_labels": ("*",),
            "evaluation_scores": ("random_real-soft-*", "nearest_real-soft-*"),
        },
        {"evaluation_scores": ("synthetic-soft-*",), "distilled_dataset": ("*",)},
        ("soft_labels/epochs-000000", "format changed from 'float16' to 'uint8'"),
    ),
    "classes kept by another format": (
        {"soft_labels.top_k": 3},
        {"distilled_dataset": ("*",)},
        {},
        ("distilled_dataset/distilled_dataset", "settings.soft_labels.top_k changed from 5 to 3"),
    ),
    "labels that come again": (
        {"soft_labels.labelled_epochs": 2},
        {"evaluation_scores": ("*-soft-*",)},
        ONLY_DATASET,
        ("evaluation_scores/synthetic-soft-convnet3-00", "labelled_epochs changed from 4 to 2"),
    ),
    "more labelled epochs": (
        {"soft_labels.epochs": 6},
        {
            "soft_labels": ("epochs-000004",),
            "evaluation_scores": ("synthetic-hard-*", "random_real-*", "nearest_real-*"),
        },
        {"evaluation_scores": ("synthetic-soft-*",), "distilled_dataset": ("*",)},
        ("evaluation_scores/random_real-hard-convnet3-00", "epochs changed from 4 to 6"),
    ),
    "views of the labelled epochs": (
        {"soft_labels.augmentation": {"cutmix": 0.5}},
        {
            "soft_labels": ("*",),
            "evaluation_scores": ("synthetic-hard-*", "random_*", "nearest_*", "full_*"),
        },
        {"evaluation_scores": ("synthetic-soft-*",), "distilled_dataset": ("*",)},
        ("soft_labels/epochs-000002", "augmentation.cutmix changed from 1.0 to 0.5"),
    ),
    "another student": (
        {"evaluation.students": [*STUDENTS, "test_resnet"]},
        {"evaluation_scores": ("*-soft-test_resnet-*",)},
        ONLY_DATASET,
        ("evaluation_scores/synthetic-soft-test_resnet-01", "never computed for this recipe"),
    ),
    "one student less": (
        {"evaluation.students": STUDENTS[:1]},
        {"distilled_dataset": ("*",)},
        {},
        (
            "distilled_dataset/distilled_dataset",
            "evaluation.students.1.architecture changed from 'test_vit' to unset",
        ),
    ),
    "another seed of the students": (
        {"evaluation.seeds": 3},
        {"evaluation_scores": ("*-02",)},
        ONLY_DATASET,
        ("evaluation_scores/full_data-hard-convnet3-02", "never computed for this recipe"),
    ),
    "a second distillation": (
        {"evaluation.distillations": 2},
        {"prototypes": ("set-01-*",), "evaluation_scores": ("set-01-random_real-*",)},
        {
            "synthetic_images": ("set-01-*",),
            "soft_labels": ("set-01-*",),
            "evaluation_scores": ("set-01-synthetic-*", "set-01-nearest_real-*"),
            "distilled_dataset": ("*",),
        },
        ("prototypes/set-01-class-00003", "never computed for this recipe"),
    ),
    "two more baselines": (
        {
            "evaluation.baselines": [
                "random_real",
                "nearest_real",
                "decoded_prototypes",
                "from_noise",
                "full_data",
            ]
        },
        {
            "evaluation_scores": ("decoded_prototypes-*", "from_noise-*"),
            "image_fidelity": ("decoded_prototypes", "from_noise"),
        },
        ONLY_DATASET,
        ("evaluation_scores/from_noise-hard-convnet3-01", "never computed for this recipe"),
    ),
    "class labels alone": (
        {"evaluation.labels": ["hard"]},
        {"evaluation_scores": ("*-hard-test_vit-*",)},
        ONLY_DATASET,
        ("evaluation_scores/synthetic-hard-test_vit-00", "never computed for this recipe"),
    ),
    "class labels learnt otherwise": (
        {"evaluation.hard": {"epochs": 3}},
        {
            "evaluation_scores": (
                "synthetic-hard-*",
                "random_real-hard-*",
                "nearest_real-hard-*",
            )
        },
        ONLY_DATASET,
        ("evaluation_scores/synthetic-hard-convnet3-00", "epochs changed from 4 to 3"),
    ),
    "rows without augmentation": (
        {"evaluation.without_augmentation": True},
        {"evaluation_scores": ("*-plain-*",)},
        ONLY_DATASET,
        ("evaluation_scores/random_real-soft-plain-convnet3-01", "never computed for this recipe"),
    ),
    "images that weigh as much as their clusters": (
        {"evaluation.matching.cluster_weights": True},
        {"evaluation_scores": ("synthetic-soft-*",)},
        ONLY_DATASET,
        (
            "evaluation_scores/synthetic-soft-convnet3-00",
            "matching.cluster_weights changed from False to True; prototypes/class-00000 changed",
        ),
    ),
    "the temperature": (
        {"evaluation.matching.temperature": 10.0},
        {"evaluation_scores": ("*-soft-*",)},
        ONLY_DATASET,
        (
            "evaluation_scores/synthetic-soft-convnet3-00",
            "matching.temperature changed from 20.0 to 10.0",
        ),
    ),
    "the students' learning rate": (
        {"evaluation.optimizer": {"learning_rate": 0.01}},
        {"evaluation_scores": ("synthetic-*", "random_real-*", "nearest_real-*")},
        ONLY_DATASET,
        (
            "evaluation_scores/nearest_real-hard-convnet3-00",
            "optimizer.learning_rate changed from 0.001 to 0.01",
        ),
    ),
    "the training on all real images": (
        {"evaluation.full_data": {"epochs": 2, "optimizer": {"decayed": "matrices"}}},
        {"evaluation_scores": ("full_data-*",)},
        ONLY_DATASET,
        ("evaluation_scores/full_data-hard-convnet3-00", "epochs changed from 1 to 2"),
    ),
    "standardised pixels": (
        {"evaluation.pixels": {"standardise": True}},
        {"evaluation_scores": ("synthetic-*", "random_real-*", "nearest_real-*", "full_data-*")},
        ONLY_DATASET,
        ("evaluation_scores/synthetic-soft-convnet3-00", "standardise"),
    ),
    "the denoiser's steps": (
        {"generator.compact.denoiser.steps": 21},
        {"generator": ("denoiser",)},
        {"synthetic_images": ("*",), **DOWN_FROM_IMAGES},
        ("generator/denoiser", "steps changed from 20 to 21"),
    ),
    "the autoencoder's steps": (
        {"generator.compact.autoencoder.steps": 31},
        {"generator": ("vae",)},
        {"generator": ("denoiser",), "latents": ("*",), **DOWN_FROM_LATENTS},
        ("generator/vae", "steps changed from 30 to 31"),
    ),
    "sampled latents": (
        {"generator.latents": "sample"},
        {"latents": ("*",)},
        DOWN_FROM_LATENTS,
        (
            "latents/class-00000",
            "latents changed from 'mean' to unset; sample_seed changed from unset to ",
        ),
    ),
    "the seed": (
        {"seed": 1},
        {
            "generator": ("vae",),
            "teacher": ("*",),
            "evaluation_scores": ("random_real-hard-*", "full_data-*"),
        },
        {
            "generator": ("denoiser",),
            "latents": ("*",),
            **DOWN_FROM_LATENTS,
            "evaluation_scores": ("synthetic-*", "*-soft-*", "nearest_real-*", "teacher"),
            "image_fidelity": ("*",),
        },
        ("generator/vae", "seed changed from "),
    ),
    "the held-out images": (
        {"dataset.test_images": 300},
        {"real_images": ("*",)},
        {**ALL, "real_images": (), "generator": ("vae", "denoiser")},
        ("real_images/test-00000", "fingerprint changed from "),
    ),
    "defaults spelled out": (
        {"synthesis.strength": 0.7, "prompts.template": "{name}", "seed": 0},
        {},
        {},
        None,
    ),
    "a class's prompt that says what the template says": (
        {"prompts.per_class": {"three": "three"}},
        {"distilled_dataset": ("*",)},
        {},
        (
            "distilled_dataset/distilled_dataset",
            "settings.prompts.per_class.three changed from unset to 'three'",
        ),
    ),
}
