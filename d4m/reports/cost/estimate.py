"""The cost of a run: seconds per stage, memory and store."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from d4m.progress import track
from d4m.reports.cost.generator_work import (
    generator_work,
    latents_work,
    real_images_work,
    synthesis_choice_work,
    synthetic_images_work,
)
from d4m.reports.cost.pieces import Piece, Work
from d4m.reports.cost.plan import CostPlan
from d4m.reports.cost.prototype_work import prototypes_work
from d4m.reports.cost.rates import Rates
from d4m.reports.cost.sizes import held_bytes, stored_bytes
from d4m.reports.cost.student_work import (
    baseline_images_work,
    distilled_dataset_work,
    evaluation_work,
    fidelity_work,
    soft_labels_work,
    teacher_work,
)
from d4m.reports.plan_ahead import Outlook

_WORK: Mapping[str, Callable[[CostPlan], Iterator[Work]]] = {
    "real_images": real_images_work,
    "generator": generator_work,
    "latents": latents_work,
    "teacher": teacher_work,
    "synthesis_choice": synthesis_choice_work,
    "prototypes": prototypes_work,
    "synthetic_images": synthetic_images_work,
    "soft_labels": soft_labels_work,
    "baseline_images": baseline_images_work,
    "evaluation_scores": evaluation_work,
    "image_fidelity": fidelity_work,
    "distilled_dataset": distilled_dataset_work,
}
_TRAININGS = ("autoencoder step", "denoiser step", "training step")
_KEPT = ("generator", "teacher")  # stages that store the networks that they train
_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "generator": ("d4m.generators.compact_model", "d4m.images.spool"),
    "latents": ("d4m.generators.encode",),
    "teacher": ("d4m.training.train", "safetensors.torch", "d4m.classifiers.registry"),
    "synthesis_choice": ("d4m.prototypes.class_prediction",),
    "prototypes": ("d4m.prototypes.clusters",),
    "synthetic_images": ("d4m.synthesis.samplers", "d4m.generators.conditions"),
    "soft_labels": ("d4m.training.soft_labels",),
    "evaluation_scores": ("d4m.training.train", "d4m.scores.accuracy"),
    "image_fidelity": ("d4m.scores.fidelity",),
}


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage of a run.

    Attributes:
        stage: its artifact.
        units: units that are not stored, some of which may turn out to be.
        seconds: on a machine that has nothing else to do.
        cpu_seconds: of all CPU threads.
        store_bytes: that its units take.
        memory_bytes: of main memory, at most; 0 where nothing is computed.
        unknown: kinds of work that nothing measures before a run; they take more time.
    """

    stage: str
    units: int
    seconds: float
    cpu_seconds: float
    store_bytes: int
    memory_bytes: int
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostEstimate:
    """The cost of a run, which is an estimate.

    Attributes:
        stages: of the run, in order.
        device: its name in torch.
        load: processes that wanted a CPU, on average over the last minute, per CPU.
    """

    stages: tuple[StageCost, ...]
    device: str
    load: float

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Hours of the GPU; 0 where the device is a CPU."""
        return 0.0 if self.device == "cpu" else self.seconds / 3600

    @property
    def store_bytes(self) -> int:
        """Bytes of all units."""
        return sum(stage.store_bytes for stage in self.stages)

    @property
    def memory_bytes(self) -> int:
        """Main memory of the stage that takes the most."""
        return max((stage.memory_bytes for stage in self.stages), default=0)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Kinds of work whose time is not known."""
        return tuple(dict.fromkeys(kind for stage in self.stages for kind in stage.unknown))


def estimate_cost(outlook: Outlook) -> CostEstimate:
    """Estimate the cost of a run from what is missing, and from rates that are measured here.

    Args:
        outlook: the plan of the whole recipe, which says what is stored.

    Returns:
        An estimate. Units that wait for others count as if they had to be computed.

    Raises:
        D4MError: this machine does not have the device.
    """
    plan = CostPlan(outlook)
    device = outlook.context.device
    if not any(plan.missing(stage) for stage in _WORK):
        nothing = (StageCost(stage, 0, 0.0, 0.0, 0, 0) for stage in _WORK)
        return CostEstimate(tuple(nothing), device, _load())
    outlook.context.compute.check_device()
    with Rates(outlook.present) as rates:
        # Before other probes, which import the libraries too.
        imports = [work for stage in _WORK for work in _imports(plan, stage)]
        for work in imports:
            rates.find(work.piece, work.count)
        first = set[str]()
        costs = [
            _stage_cost(plan, rates, stage, first, [*_imports(plan, stage), *_WORK[stage](plan)])
            for stage, _ in zip(
                _WORK, track(len(_WORK), "measure this machine", unit="stage"), strict=True
            )
        ]
    return CostEstimate(tuple(costs), device, _load())


def _imports(plan: CostPlan, stage: str) -> list[Work]:
    """Return the imports of a stage that computes something; stages before it have some already."""
    computing = [name for name in _LIBRARIES if plan.missing(name)]
    if stage not in computing:
        return []
    before = computing[: computing.index(stage)]
    modules = {"modules": list(_LIBRARIES[stage]), "after": before}
    return [Work(Piece("libraries imported", modules), 1)]


def _stage_cost(
    plan: CostPlan, rates: Rates, stage: str, first: set[str], works: list[Work]
) -> StageCost:
    """Add up a stage's work; pieces of one kind are looked up together.

    Args:
        plan: of the recipe.
        rates: of this device.
        stage: its name.
        first: kinds of pieces that stages before have done, to which this stage's are added.
        works: of the stage.
    """
    totals = dict[str, Work]()
    for work in works:
        if work.count <= 0:
            continue
        name = work.piece.name
        earlier = totals.get(name, Work(work.piece, 0, 0))
        totals[name] = Work(work.piece, earlier.count + work.count, earlier.starts + work.starts)
    planning = _planning_seconds(plan, stage)
    seconds, cpu, memory, kept = planning, planning, 0, 0
    unknown = list[str]()
    for work in totals.values():
        rate = rates.find(work.piece, work.count)
        if rate is None:
            unknown.append(work.piece.kind)
            continue
        seconds += rate.start_s * work.starts + rate.each_s * work.count
        cpu += rate.start_cpu_s * work.starts + rate.each_cpu_s * work.count
        if work.piece.name not in first:
            seconds, cpu = seconds + rate.first_s, cpu + rate.first_cpu_s
            first.add(work.piece.name)
        memory = max(memory, rate.memory_bytes)
        if work.piece.kind in _TRAININGS and stage in _KEPT:
            kept += int(rate.kept_bytes * work.starts)
    return StageCost(
        stage,
        len(plan.missing(stage)),
        seconds,
        cpu,
        stored_bytes(plan, stage) + kept,
        memory + held_bytes(plan, stage) if memory else 0,
        tuple(dict.fromkeys(unknown)),
    )


def _planning_seconds(plan: CostPlan, stage: str) -> float:
    """Return what planning takes: a stage's, before and after it, and that of all it builds on."""
    if not plan.missing(stage):
        return 0.0
    planned, wanted = plan.outlook.planned, {stage}
    seconds = planned[stage].seconds
    for name in reversed(list(planned)):
        if name in wanted:
            wanted.update(planned[name].upstream)
            seconds += 0.0 if name == "real_images" else planned[name].seconds
    return seconds


def _load() -> float:
    """Return the processes that want a CPU, per CPU."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
