"""All definitions that Dagster loads, assembled in one place."""

import dagster as dg

from d4m.compute import keep_freed_memory, spin_briefly
from d4m.environment import (
    compute,
    recipes_folder,
    store_fallbacks,
    store_root,
    worker_settings,
)
from d4m_assets import assets
from d4m_assets.automation import changed_recipes, nightly
from d4m_assets.console import draw_on_terminal, lines_of_stages
from d4m_assets.edited_recipes import edited_recipes
from d4m_assets.jobs import distill, evaluate, synthesize
from d4m_assets.partitions import register_recipes
from d4m_assets.resources import RecipesResource, StoreResource

spin_briefly()
keep_freed_memory()
draw_on_terminal()
register_recipes()

defs = dg.Definitions(
    assets=dg.load_assets_from_package_module(assets),
    jobs=[distill, synthesize, evaluate],
    sensors=[edited_recipes, changed_recipes],
    schedules=[nightly],
    resources={
        "recipes": RecipesResource(folder=str(recipes_folder())),
        "store": StoreResource.at(store_root(), compute(), worker_settings(), store_fallbacks()),
    },
    loggers={"console": lines_of_stages},  # for runs that ask for it: dagster_home/terminal.yaml
    executor=dg.in_process_executor,  # a hit costs 0.1 s in process, 3 s in a process of its own
)
