"""Weight decay reaches the weights that it should, and rates change when they should."""

import math

import pytest
import timm
import torch
from torch import nn

from d4m.recipe.presets import fill_in
from d4m.settings import OptimizerSettings
from d4m.training.optimizers import build_optimizer, build_schedule

SMALL = {"resnet18": {"channels": [8, 8, 16, 16]}, "test_vit": {}, "test_byobnet": {}}


def _moved(model, settings):
    """How much of each weight a step without any gradient leaves."""
    before = {}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0)
            weight.grad = torch.zeros_like(weight)
            before[name] = weight.clone()
    build_optimizer(model, settings).step()
    return {name: float(weight.detach().flatten()[0]) for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("architecture", SMALL)
def test_norms_and_biases_do_not_decay_where_matrices_alone_do(architecture, name):
    settings = OptimizerSettings(
        name=name, learning_rate=0.1, weight_decay=0.5, momentum=0.0, decayed="matrices"
    )
    model = timm.create_model(architecture, num_classes=3, **SMALL[architecture])
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    spared = {
        f"{owner}.{name}".removeprefix(".")
        for owner, module in model.named_modules()
        for name, weight in module.named_parameters(recurse=False)
        if isinstance(module, norms) or name != "weight"
    }
    found = _moved(model, settings)
    assert {each for each, left in found.items() if left == 1.0} == spared
    assert {round(left, 6) for each, left in found.items() if each not in spared} == {0.95}
    everything = _moved(model, settings.model_copy(update={"decayed": "all"}))
    assert {round(left, 6) for left in everything.values()} == {0.95}


def test_with_muon_norms_and_biases_are_spared_too():
    settings = OptimizerSettings(
        name="muon", learning_rate=0.1, weight_decay=0.5, decayed="matrices"
    )
    model = nn.Sequential(
        nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3, bias=False), nn.Linear(3, 2)
    )
    found = _moved(model, settings)
    assert {name for name, left in found.items() if left == 1.0} == {
        "0.bias",
        "1.weight",
        "1.bias",
        "3.bias",
    }


def _rates(settings, *, epochs, steps):
    """The rate of the first step of each epoch, and whether it is that of all its steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.learning_rate)
    schedule = build_schedule(optimizer, settings, epochs=epochs, steps=steps)
    rates = list[float]()
    for _ in range(epochs):
        seen = set[float]()
        for _ in range(steps):
            seen |= set(schedule.get_last_lr())
            optimizer.step()
            schedule.step()
        assert len(seen) == 1
        rates += seen
    return rates


def _settings(name, *, hard, **dataset):
    evaluation = fill_in({"dataset": dataset}, [name])["evaluation"]
    section = evaluation["hard"] if hard else evaluation
    epochs = section.get("epochs", 300)
    return OptimizerSettings(**section["optimizer"]), epochs


@pytest.mark.parity
def test_papers_rate_is_that_of_its_code():
    settings, epochs = _settings("paper", hard=False)
    wanted = [0.001 * 0.5 * (1 + math.cos(math.pi * epoch / 300)) for epoch in range(300)]
    assert _rates(settings, epochs=epochs, steps=3) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["rded", "dd_ranking"])
def test_rdeds_and_dd_rankings_rate_falls_to_half(name):
    settings, epochs = _settings(name, hard=False)
    wanted = [0.001 * 0.5 * (1 + math.cos(math.pi * epoch / 300 / 2)) for epoch in range(300)]
    assert _rates(settings, epochs=epochs, steps=2) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize(("ipc", "epochs"), [(10, 2000), (50, 1500), (100, 1000), (300, 500)])
def test_minimaxs_rate_is_that_of_torchs_milestones(ipc, epochs):
    section = fill_in({"prototypes": {"ipc": ipc}}, ["minimax"])["evaluation"]["hard"]
    assert section["epochs"] == epochs
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, milestones=[2 * epochs // 3, 5 * epochs // 6], gamma=0.2
    )
    wanted = list[float]()
    for _ in range(epochs):
        wanted += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    found = _rates(OptimizerSettings(**section["optimizer"]), epochs=epochs, steps=1)
    assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parity
def test_dcs_rate_falls_after_the_epoch_that_its_code_names():
    settings, epochs = _settings("dc", hard=True, source="fashion_mnist")
    published, rate, wanted = 1000, 0.01, list[float]()
    for epoch in range(published + 1):
        wanted.append(rate)
        if epoch == published // 2 + 1:
            rate *= 0.1
    assert epochs == len(wanted)
    assert _rates(settings, epochs=epochs, steps=2) == pytest.approx(wanted, rel=1e-9)


def test_steps_by_hand():
    settings = OptimizerSettings(
        name="sgd", learning_rate=1.0, schedule="step", steps=(0.3, 0.6), step_factor=0.5
    )
    # Ten steps: the rate halves at the third and at the sixth.
    assert _rates(settings, epochs=10, steps=1) == pytest.approx(
        [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    )
    # Seven epochs: 0.3 and 0.6 of these are 2.1 and 4.2, in whole epochs 2 and 4.
    by_epoch = settings.model_copy(update={"rate_changes": "per_epoch"})
    assert _rates(by_epoch, epochs=7, steps=2) == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25, 0.25])


def test_keys_of_fits_that_do_not_use_the_later_settings_are_the_former_ones():
    assert OptimizerSettings().used() == {
        "name": "adamw",
        "batch_size": 1024,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup": 0.0,
        "precision": "float32",
    }
    step = OptimizerSettings(name="sgd", schedule="step")
    assert {"momentum"} == step.used().keys() - OptimizerSettings().used().keys()
    assert OptimizerSettings(steps=(0.1,)).used() == OptimizerSettings().used()
    changed = OptimizerSettings(schedule="step", steps=(0.1,), decayed="matrices")
    assert changed.used().keys() - OptimizerSettings().used().keys() == {"steps", "decayed"}
