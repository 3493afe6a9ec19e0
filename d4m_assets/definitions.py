"""Everything that Dagster knows, assembled in one place."""

import dagster as dg

from d4m.environment import compute, recipes_folder, spin_briefly, store_root
from d4m_assets.assets.distilled_dataset import distilled_dataset
from d4m_assets.assets.evaluation_scores import evaluation_scores
from d4m_assets.assets.generator import generator
from d4m_assets.assets.image_fidelity import image_fidelity
from d4m_assets.assets.latents import latents
from d4m_assets.assets.prototypes import prototypes
from d4m_assets.assets.real_images import real_images
from d4m_assets.assets.recipe import recipe
from d4m_assets.assets.soft_labels import soft_labels
from d4m_assets.assets.synthetic_images import synthetic_images
from d4m_assets.assets.teacher import teacher
from d4m_assets.automation import changed_recipes, distill, evaluate, nightly, synthesize
from d4m_assets.partitions import register_recipes
from d4m_assets.resources import RecipesResource, StoreResource

spin_briefly()
register_recipes()

defs = dg.Definitions(
    assets=[
        recipe,
        real_images,
        generator,
        latents,
        prototypes,
        synthetic_images,
        teacher,
        soft_labels,
        evaluation_scores,
        image_fidelity,
        distilled_dataset,
    ],
    jobs=[distill, synthesize, evaluate],
    sensors=[changed_recipes],
    schedules=[nightly],
    resources={
        "recipes": RecipesResource(folder=str(recipes_folder())),
        "store": StoreResource.at(store_root(), compute()),
    },
    executor=dg.in_process_executor,  # a hit costs 0.1 s in process, 3 s in a process of its own
)
