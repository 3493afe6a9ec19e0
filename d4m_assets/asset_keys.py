"""The keys of the recipe's sections as assets, and the groups of the asset graph."""

import dagster as dg

GROUPS = {
    "real_images": "1_data",
    "generator": "2_models",
    "teacher": "2_models",
    "latents": "3_distillation",
    "synthesis_choice": "3_distillation",
    "prototypes": "3_distillation",
    "synthetic_images": "3_distillation",
    "soft_labels": "3_distillation",
    "baseline_images": "4_scores",
    "evaluation_scores": "4_scores",
    "image_fidelity": "4_scores",
    "distilled_dataset": "5_result",
}
"""Artifact -> group, which sort in the order in which data flows."""

LAST_GROUP = "5_result"
"""The group of artifacts that have no place of their own in `GROUPS`."""


def section_key(section: str) -> dg.AssetKey:
    """Return the key of the asset of one section of a recipe."""
    return dg.AssetKey(["recipe", section])
