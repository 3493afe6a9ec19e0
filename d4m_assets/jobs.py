"""The jobs: parts of the graph that are run as a whole."""

import dagster as dg

from d4m_assets.asset_keys import section_key

_EVERYTHING = dg.AssetSelection.all()
_DIAGRAM = """\
Everything, from the recipe to the distilled data set:

    real_images -> generator -> latents -> prototypes -> synthetic_images
         |                                                      |
         +------> teacher -----------------------------> soft_labels
                                                                |
       evaluation_scores, image_fidelity <----------------------+
                |                                               |
                +-----------------------> distilled_dataset <---+"""

distill = dg.define_asset_job(
    "distill", _EVERYTHING, description=f"{_DIAGRAM}\n\nOne run is one recipe."
)
synthesize = dg.define_asset_job(
    "synthesize",
    dg.AssetSelection.assets("synthetic_images").upstream(),
    description="Up to the synthetic images: no labels, no students.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    dg.AssetSelection.assets(
        "baseline_images", "evaluation_scores", "image_fidelity", "distilled_dataset"
    )
    | dg.AssetSelection.assets(section_key("evaluation"), section_key("made_baselines")),
    description="Train and score students on the stored artifacts, and pack the data set again.",
)
