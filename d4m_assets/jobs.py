"""The jobs: parts of the graph that are run as a whole."""

import dagster as dg

from d4m.stages.baseline_images import BaselineImages
from d4m.stages.distilled_dataset import DistilledDataset
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.image_fidelity import ImageFidelity
from d4m_assets.asset_keys import section_key

_EVERYTHING = dg.AssetSelection.all()
_EVALUATION = (BaselineImages, EvaluationScores, ImageFidelity, DistilledDataset)
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
    dg.AssetSelection.assets(*(stage.name for stage in _EVALUATION))
    | dg.AssetSelection.assets(
        *(section_key(part) for stage in _EVALUATION for part in stage.sections)
    ),
    description="Train and score students on the stored artifacts, and pack the data set again.",
)
