"""Probes of baselines that are made by methods of other papers."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from d4m.reports.cost.bench import Bench, Trial
from d4m.settings import DistributionMatchingSettings, Sre2lSettings

if TYPE_CHECKING:
    from torch import nn

    from d4m.baselines.pixels import Standard


def _dm_step(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Fit the images of one class for as many steps as are asked for."""
    from d4m.baselines.distribution_matching import match_distribution, random_network

    own = DistributionMatchingSettings.among(settings["fitting"])
    real = bench.pixels(max(settings["real"], settings["ipc"]), settings)

    def network(step: int) -> "nn.Module":
        return random_network(real, classes=settings["classes"], seed=step)

    def run(count: int) -> int:
        few, ipc = own.model_copy(update={"steps": count}), settings["ipc"]
        match_distribution(real, ipc, _standard(settings), network, settings=few, seed=0)
        return 0

    return Trial(run)


def _sre2l_step(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Fit a block of images to a teacher with random weights."""
    import torch

    from d4m.baselines.statistics_matching import fit_statistics

    own = Sre2lSettings.among(settings["fitting"])
    teacher = bench.network(settings).eval()
    class_ids = (torch.arange(settings["images"]) % settings["classes"]).to(bench.device)
    shape = (settings["channels"], settings["size_px"])

    def run(count: int) -> int:
        few = own.model_copy(update={"steps": count})
        fit_statistics(teacher, class_ids, shape, _standard(settings), settings=few, seed=0)
        return 0

    return Trial(run)


def _mosaics_of_class(bench: Bench, settings: Mapping[str, Any]) -> Trial:
    """Choose the mosaics of one class."""
    from d4m.baselines.mosaics import choose_mosaics

    teacher = bench.network(settings).eval()
    pixels = bench.pixels(settings["images"], settings)

    def run(count: int) -> int:
        for seed in range(count):
            choose_mosaics(pixels, teacher, 0, count=settings["ipc"], seed=seed)
        return 0

    return Trial(run)


def _standard(settings: Mapping[str, Any]) -> "Standard":
    from d4m.baselines.pixels import Standard
    from d4m.images.statistics import ChannelStatistics

    middle = (0.5,) * settings["channels"]
    return Standard(ChannelStatistics(middle, middle))


PROBES: Mapping[str, Callable[[Bench, Mapping[str, Any]], Trial]] = {
    "dm step": _dm_step,
    "sre2l step": _sre2l_step,
    "mosaics of a class": _mosaics_of_class,
}
