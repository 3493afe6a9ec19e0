"""D4M: dataset distillation by a disentangled diffusion model, as a library.

Nothing in here knows about Dagster; `d4m_assets` wires these stages into an asset graph.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d4m.export.standalone.dataset import DistilledDataset


def load(folder_or_recipe: "str | Path") -> "DistilledDataset":
    """Load a distilled data set: images, and per epoch the teacher's views and logits.

    Args:
        folder_or_recipe: a folder that `d4m export` wrote, or the name or path of a recipe.

    Returns:
        A `torch.utils.data.Dataset` of (pixels, teacher logits).

    Raises:
        D4MError: there is no such data set.
    """
    from d4m.export.load import load_distilled

    return load_distilled(folder_or_recipe)
