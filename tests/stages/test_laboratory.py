"""Students are trained by what the machine's settings say."""

import numpy as np
import pytest

from d4m.compute import Compute
from d4m.pipeline import Pipeline
from d4m.stages.evaluation_scores import EvaluationScores
from d4m.stages.laboratory import Laboratory


@pytest.mark.parametrize("name", ["synthetic-soft-convnet3-00", "random_real-hard-convnet3-00"])
def test_the_batch_size_of_the_machine_reaches_students(finished_once, name, monkeypatch):
    """`D4M_BATCH_SIZE` says of how many images gradients are computed at a time."""
    build = Laboratory._build

    def train(batch_size):
        seen = list[int]()

        def hooked(self, settings):
            model = build(self, settings)
            model.register_forward_pre_hook(
                lambda model, pixels: seen.append(len(pixels[0])) if model.training else None
            )
            return model

        monkeypatch.setattr(Laboratory, "_build", hooked)
        recipe = finished_once.pipeline().recipe
        compute = Compute("cpu", batch_size=batch_size)
        context = Pipeline(recipe, finished_once.store, compute).open_context()
        [unit] = [unit for unit in EvaluationScores().plan(context) if unit.name == name]
        [scores] = Laboratory(context).train_and_score([unit])
        return seen, scores, unit.key

    whole, wanted, key = train(None)
    parts, found, same_key = train(3)
    assert max(parts) == 3 < max(whole)
    assert sum(parts) == sum(whole) == int(wanted["views"])
    assert key == same_key
    assert np.allclose(found["curve_losses"], wanted["curve_losses"], rtol=1e-4)
