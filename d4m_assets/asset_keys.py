"""The keys of the recipe's sections as assets, and the groups of the asset graph."""

import dagster as dg

RECIPE_GROUP = "1_recipe"
"""The group of the recipe's sections."""

GROUPS = {
    "real_images": "2_data",
    "generator": "3_models",
    "teacher": "3_models",
    "latents": "4_distillation",
    "synthesis_choice": "4_distillation",
    "prototypes": "4_distillation",
    "synthetic_images": "4_distillation",
    "soft_labels": "4_distillation",
    "baseline_images": "5_scores",
    "evaluation_scores": "5_scores",
    "image_fidelity": "5_scores",
    "distilled_dataset": "6_result",
}
"""Artifact -> group, which sort in the order in which data flows."""

LAST_GROUP = "6_result"
"""The group of artifacts that have no place of their own in `GROUPS`."""


def section_key(section: str) -> dg.AssetKey:
    """Return the key of the asset of one section of a recipe."""
    return dg.AssetKey(["recipe", section])
