"""An export's own networks and training are those of the pipeline."""

import math

import numpy as np
import pytest
import torch

from d4m.classifiers.registry import build_classifier
from d4m.export.standalone.networks import build_model
from d4m.export.standalone.optimizers import build_optimizer, share_of_peak
from d4m.export.standalone.training import count_hits, train
from d4m.images.image_set import ImageSet
from d4m.images.pixels import to_pixels
from d4m.settings import (
    AugmentationSettings,
    ClassifierSettings,
    MatchingSettings,
    OptimizerSettings,
    SoftLabelSettings,
)
from d4m.training import optimizers
from d4m.training.augment import draw_views
from d4m.training.soft_labels import EpochLabels
from d4m.training.train import Training, train_with_soft_labels
from tests.export.tiny import write_tiny

CLASSES, COUNT, SIZE_PX, EPOCHS = 3, 6, 8, 3
SMALL = {"batch_size": 100, "learning_rate": 0.01}
RECIPES = [
    (OptimizerSettings(**SMALL), MatchingSettings(temperature=4)),
    (
        OptimizerSettings(
            name="sgd", schedule="step", rate_changes="per_epoch", decayed="matrices", **SMALL
        ),
        MatchingSettings(loss="kl_t2", temperature=2, cluster_weights=True),
    ),
    (
        OptimizerSettings(name="adam", schedule="smoothed_cosine", warmup=0.5, **SMALL),
        MatchingSettings(loss="mse_ce", ce_weight=0.5),
    ),
    (OptimizerSettings(precision="bfloat16", **SMALL), MatchingSettings(temperature=4)),
]


def _about(channels=1, size_px=SIZE_PX, mean=None):
    training = {"mean": mean, "deviation": mean}
    names = [str(number) for number in range(CLASSES)]
    return {"channels": channels, "size_px": size_px, "classes": names, "training": training}


@pytest.mark.parametrize(
    ("name", "channels", "size_px"),
    [("convnet3", 1, 8), ("convnet3", 1, 28), ("resnet18", 3, 32), ("resnet18", 1, 72)],
)
def test_a_network_is_the_one_that_recipes_name(name, channels, size_px):
    theirs = build_classifier(
        ClassifierSettings(architecture=name),
        channels=channels,
        size_px=size_px,
        classes=CLASSES,
        seed=3,
    ).eval()
    ours = build_model(name, _about(channels, size_px), seed=3).eval()
    first = [model.state_dict() for model in (ours, theirs)]
    deviations = [
        {key: float(value.float().std()) for key, value in state.items() if value.numel() > 100}
        for state in first
    ]
    assert deviations[0] == pytest.approx(deviations[1], rel=0.2, abs=1e-6)
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.rand(2, channels, size_px, size_px, generator=torch.manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decayed", ["all", "matrices"])
def test_steps_of_muon_are_those_of_the_pipeline(decayed):
    settings = OptimizerSettings(name="muon", decayed=decayed, weight_decay=0.1, **SMALL)
    models = [build_model("convnet3", _about(), seed=5) for _ in range(2)]
    built = [
        build_optimizer(models[0], settings.model_dump(mode="json")),
        optimizers.build_optimizer(models[1], settings),
    ]
    draw = torch.manual_seed(0)
    for _ in range(4):
        for one, other in zip(*(model.parameters() for model in models), strict=True):
            one.grad = torch.randn(one.shape, generator=draw)
            other.grad = one.grad.clone()
        for optimizer in built:
            optimizer.step()
    orthogonal = ("features.4.weight", "features.8.weight")  # whose products are in bfloat16
    for name, value in models[0].state_dict().items():
        wanted = models[1].state_dict()[name]
        close = 2e-2 if name in orthogonal else 1e-5
        assert (
            float((value - wanted).norm()) <= close * SMALL["learning_rate"] * wanted.numel() ** 0.5
        )


def test_weights_depend_on_the_seed_alone():
    weights = [
        build_model("convnet3", _about(), seed=seed).state_dict()["classifier.weight"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("optimizer", "matching"), RECIPES, ids=lambda each: str(each)[:40])
def test_a_student_ends_where_the_pipelines_own_training_ends(
    tmp_path, optimizer, matching, capsys
):
    """Batches hold all images, so their order, which other streams decide, does not matter."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (COUNT, SIZE_PX, SIZE_PX, 1), dtype=np.uint8)
    views = AugmentationSettings(crop_scale=(0.5, 1), cutmix=0.5, mixup=1)
    labels = [
        EpochLabels(
            draw_views(views, seed=1, epoch=epoch, images=COUNT, size_px=SIZE_PX),
            draw.normal(0, 3, (COUNT, CLASSES)).astype(np.float16).astype(np.float32),
        )
        for epoch in range(EPOCHS - 1)  # the first is used again
    ]
    weights = [0.5, 1.5, 1.25, 0.75, 1.0, 1.0]
    data = write_tiny(
        tmp_path,
        images,
        [(each.views, each.logits) for each in labels],
        classes=CLASSES,
        labels=SoftLabelSettings(),
        weights=weights,
        training={
            "epochs": EPOCHS,
            "optimizer": optimizer.model_dump(mode="json"),
            "matching": matching.model_dump(mode="json"),
            "mean": None,
            "deviation": None,
        },
    )
    ours, theirs = (build_model("convnet3", _about(), seed=5) for _ in range(2))
    start = {name: value.clone() for name, value in ours.state_dict().items()}
    train(ours, data)
    train_with_soft_labels(
        theirs,
        ImageSet(
            to_pixels(images),
            data.class_ids,
            torch.tensor(weights) if matching.cluster_weights else None,
        ),
        labels,
        Training(epochs=EPOCHS, optimizer=optimizer, seed=0),
        matching=matching,
    )
    for name, value in ours.state_dict().items():
        if name in ("features.0.bias", "features.4.bias", "features.8.bias"):
            continue  # the norm after it takes it out, so its gradient is rounding alone
        moved = float((theirs.state_dict()[name] - start[name]).norm())
        apart = float((value - theirs.state_dict()[name]).norm())
        loose = optimizer.precision == "bfloat16"
        assert apart <= (0.05 if loose else 5e-3) * moved, name  # sums in another order
    assert capsys.readouterr().out.count("loss") == EPOCHS


@pytest.mark.parametrize("schedule", ["cosine", "smoothed_cosine", "step"])
@pytest.mark.parametrize("changes", ["per_step", "per_epoch"])
def test_rates_are_those_of_the_pipeline(schedule, changes):
    settings = OptimizerSettings(
        schedule=schedule, rate_changes=changes, steps=(0.3, 0.8), step_factor=0.2, warmup=0.1
    )
    epochs, steps = 7, 4
    for step in range(epochs * steps):
        progress = step // steps / epochs if changes == "per_epoch" else step / (epochs * steps)
        whole = {"epochs": epochs} if changes == "per_epoch" else {}
        wanted = optimizers.share_of_peak(settings, progress, **whole)
        found = share_of_peak(settings.model_dump(mode="json"), step, steps, epochs)
        assert found == wanted


def test_a_student_sees_standardised_pixels_where_the_recipe_says_so():
    model = build_model("convnet3", _about(mean=[0.25]), seed=1).eval()
    plain = build_model("convnet3", _about(), seed=1).eval()
    pixels = torch.rand(2, 1, SIZE_PX, SIZE_PX, generator=torch.manual_seed(0)) * 2 - 1
    levels = ((pixels + 1) / 2 - 0.25) / 0.25
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), plain(levels))


def test_hits_are_counted_over_batches():
    class Brightest(torch.nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1)[:, :CLASSES]

    images = torch.zeros(1500, 2, 2, 1, dtype=torch.uint8)
    wanted = torch.arange(1500) % CLASSES
    images.view(1500, 4)[torch.arange(1500), wanted] = 200
    assert count_hits(Brightest(), images, wanted) == 1500
    assert count_hits(Brightest(), images, (wanted + (torch.arange(1500) < 600)) % CLASSES) == 900
    assert math.isclose(float(images.float().mean()), 50)
