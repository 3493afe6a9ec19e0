"""The check of a generator that takes images further from real ones, on a generator that does."""

import pytest

from d4m.pipeline import STAGES
from d4m.reports.checks import CHECKS
from d4m.stages.image_fidelity import ImageFidelity
from tests.conftest import Workspace

# Prototypes are recognised when they are decoded: the autoencoder is trained, and the teacher too.
# The denoiser has hardly begun.
RECIPE = """\
dataset: {{source: digits}}
generator:
  compact:
    autoencoder: {{steps: 150, channels: [8, 16]}}
    denoiser: {{steps: 10, channels: [8, 16], text_width: 16}}
prototypes: {{ipc: 3, starts: 1}}
synthesis: {{strength: {strength}, guidance_scale: {scale}, num_inference_steps: 20}}
teacher: {{epochs: 4, options: {{width: 16}}}}
soft_labels: {{epochs: 1}}
evaluation: {{seeds: 1, baselines: [], labels: [hard]}}
"""
MEASURED = next(stage for stage in STAGES if stage.name == ImageFidelity.name)
NEEDED = {MEASURED.name, *MEASURED.upstream}
[CHECK] = [check for check in CHECKS if check.name == "closer_than_prototypes"]


@pytest.fixture(scope="module")
def weak(tmp_path_factory):
    """A workspace whose recipes share a generator that is too weak for much noise."""
    workspace = Workspace(tmp_path_factory.mktemp("weak"))
    for name, strength, scale in (("strong", 0.7, 8), ("light", 0.05, 1)):
        workspace.write(name, RECIPE.format(strength=strength, scale=scale))
    return workspace


def examine(workspace, name):
    pipeline = workspace.pipeline(name)
    for stage in STAGES:
        if stage.name in NEEDED:
            pipeline.run_stage(stage.name)
    return CHECK.examine(pipeline.open_context())


def test_a_weak_generator_at_the_papers_strength_is_found_out(weak):
    found = examine(weak, "strong")
    assert not found.passed
    assert found.severity == "warning"
    assert found.figures["frechet"] > 1.1 * found.figures["decoded_frechet"]
    assert found.figures["precision"] < found.figures["decoded_precision"]
    assert "lower `synthesis.strength` or `synthesis.guidance_scale`" in found.summary


def test_the_same_generator_passes_where_it_is_used_lightly(weak):
    found = examine(weak, "light")
    assert found.passed
    assert found.figures["precision"] >= 0.9 * found.figures["decoded_precision"]
