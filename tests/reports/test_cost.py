"""The cost of a run: work is counted rightly, rates are measured once, and no key moves."""

import json
import math
import os

import pytest

from d4m.cli.cost import print_long_cost
from d4m.prototypes.student_regression import StudentRegression
from d4m.reports.cost.bench import Bench, Trial
from d4m.reports.cost.estimate import CostEstimate, StageCost, estimate_cost
from d4m.reports.cost.generator_work import generator_work, synthetic_images_work
from d4m.reports.cost.pieces import Piece
from d4m.reports.cost.plan import CostPlan
from d4m.reports.cost.prototype_work import prototypes_work
from d4m.reports.cost.rates import PROBES, Rates, measure, rates_file
from d4m.reports.cost.student_work import (
    baseline_images_work,
    evaluation_work,
    soft_labels_work,
    teacher_work,
)
from d4m.reports.cost.text import cost_lines, cost_rows
from tests.cli.commands import call
from tests.conftest import TINY_RECIPE, Workspace


@pytest.fixture(scope="module")
def never_run(tmp_path_factory):
    """A recipe that nothing was computed for, and the estimate of its cost, from new rates."""
    made = Workspace(tmp_path_factory.mktemp("never_run"))
    made.write("tiny", TINY_RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(made.folder / "cache"))
        yield made, estimate_cost(made.pipeline().look_ahead())


def counts(works, kind):
    """The number of pieces of a kind, and how often the work begins."""
    own = [work for work in works if work.piece.kind == kind]
    return sum(work.count for work in own), sum(work.starts for work in own)


def test_work_is_what_the_recipe_asks_for(workspace):
    outlook = workspace.pipeline().look_ahead()
    plan, source = CostPlan(outlook), outlook.context.source
    train = sum(source.count("train", class_id) for class_id in range(10))
    test = sum(source.count("test", class_id) for class_id in range(10))
    generator = list(generator_work(plan))
    assert counts(generator, "autoencoder step")[0] == 30
    assert counts(generator, "denoiser step")[0] == 20
    assert counts(generator, "image encoded")[0] == 2 * train  # its spread, and the latents
    assert counts(teacher_work(plan), "training step") == (2 * math.ceil(train / 128), 1)
    # 30 images in one batch, and the last 0.7 of 4 steps.
    assert counts(synthetic_images_work(plan), "denoiser call") == (2, 1)
    assert counts(soft_labels_work(plan), "view labelled")[0] == 4 * 30
    scores = list(evaluation_work(plan))
    # Two students of synthetic and random real images, and the first one's other sets, with soft
    # labels; the first one with class labels. Two seeds each; 30 images are one step per epoch.
    small = 2 * 4 * (2 + 2 + 1 + 1 + 1 + 1)
    whole = 2 * 1 * math.ceil(train / 64)
    assert counts(scores, "training step") == (small + whole, 2 * 9)
    scored = 18 * test + 16 * 4 * min(500, test) + 2 * 1 * min(500, test) + test
    assert counts(scores, "image scored")[0] == scored
    assert counts(scores, "view labelled")[0] == 2 * 4 * 30 * 3  # sets that have no stored labels


def test_a_cached_recipe_costs_nothing_and_needs_no_probe(finished, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    estimate = estimate_cost(finished.pipeline().look_ahead())
    assert estimate.seconds == estimate.store_bytes == estimate.memory_bytes == 0
    assert not rates_file().exists()
    assert cost_lines(estimate) == ["everything is stored: a run would compute nothing"]


def test_a_changed_prompt_costs_what_follows_from_it(never_run, finished):
    assert rates_file().is_relative_to(never_run[0].folder)
    finished.write("tiny", TINY_RECIPE + "prompts: {per_class: {three: a curved 3}}\n")
    estimate = estimate_cost(finished.pipeline().look_ahead())
    costs = {cost.stage: cost for cost in estimate.stages}
    assert costs["generator"].seconds == costs["latents"].seconds == costs["teacher"].seconds == 0
    assert costs["synthetic_images"].units == 1
    assert costs["synthetic_images"].seconds > 0
    assert costs["evaluation_scores"].units == 6


def test_every_stage_of_a_new_recipe_has_a_cost(never_run):
    _, estimate = never_run
    assert estimate.unknown == ()
    for cost in estimate.stages:
        assert (cost.seconds > 0) == (cost.units > 0) == (cost.store_bytes > 0)
    # Weights of both networks and the teacher, of which the store holds at least four bytes each.
    assert estimate.store_bytes > 100_000
    assert estimate.memory_bytes > 100_000_000  # torch alone
    assert estimate.gpu_hours == 0


def test_the_estimated_store_is_about_that_of_the_run(never_run, finished_once):
    _, estimate = never_run
    costs = {cost.stage: cost.store_bytes for cost in estimate.stages}
    for stage in ("generator", "teacher", "latents", "soft_labels"):
        files = (finished_once.store / "objects" / stage).rglob("*")
        real = sum(file.stat().st_size for file in files if file.is_file())
        assert real / 3 < costs[stage] < 3 * real, stage


def test_rates_are_measured_once_and_move_no_key(never_run):
    workspace, estimate = never_run
    before = {u.key for s in workspace.pipeline().look_ahead().planned.values() for u in s.units}
    file = rates_file()
    measured = file.read_text()
    again = estimate_cost(workspace.pipeline().look_ahead())
    assert [stage.store_bytes for stage in again.stages] == [
        stage.store_bytes for stage in estimate.stages
    ]
    assert file.read_text() == measured
    after = {u.key for s in workspace.pipeline().look_ahead().planned.values() for u in s.units}
    assert before == after
    assert not workspace.store.exists()


def test_broken_rates_are_measured_again(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    context, file = workspace.pipeline().open_context(), rates_file()
    file.parent.mkdir(exist_ok=True)
    file.write_text("{")
    with Rates(context) as rates:
        first = rates.find(Piece("unit read"), 1)
    assert len(json.loads(file.read_text())) == 1
    with Rates(context) as rates:
        assert rates.find(Piece("unit read"), 1) == first


def test_folders_of_killed_probes_are_removed(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old, new = (workspace.folder / f".d4m-probe-{name}" for name in ("old", "new"))
    for each in (old, new):
        each.mkdir()
    os.utime(old, (0, 0))
    with Rates(workspace.pipeline().open_context()) as rates:
        assert rates.find(Piece("unit stored", {"disk": 1}), 1)
    assert {path.name for path in workspace.folder.iterdir()} == {"recipes", ".d4m-probe-new"}


def test_little_work_is_measured_by_one_piece_after_a_first_one():
    done = list[int]()

    def run(count):
        done.append(count)
        return 7

    rate = measure(Trial(run, step=5), needed=10)
    assert done == [5, 5]
    assert rate.rough
    assert rate.kept_bytes == 7


def test_much_work_is_measured_by_several_pieces_too():
    done = list[int]()

    def run(count):
        done.append(count)
        sum(range(2000 * count))
        return 0

    rate = measure(Trial(run), needed=10**9)
    assert done[:2] == [1, 1]
    assert done[2] == done[3] > 1
    assert not rate.rough
    assert rate.each_s > 0


@pytest.mark.parametrize(("labels", "trained"), [("class", 1), ("teacher", 10), ("both", 11)])
def test_the_probe_of_a_refinement_trains_students_as_the_refinement_does(
    never_run, tmp_path, monkeypatch, labels, trained
):
    workspace, _ = never_run
    refinement = f"representative: explaining, refinement: {{steps: 60, labels: {labels}}}"
    recipe = TINY_RECIPE.replace("starts: 1}", f"starts: 1, {refinement}}}")
    workspace.write(f"refined_{labels}", recipe)
    outlook = workspace.pipeline(f"refined_{labels}").look_ahead()
    pieces = [work.piece for work in prototypes_work(CostPlan(outlook))]
    piece = next(piece for piece in pieces if piece.kind == "refinement step")
    trial = PROBES[piece.kind](Bench(outlook.context, tmp_path), piece.settings)
    steps, train = list[int](), StudentRegression._train

    def counted(regression, student, images, step):
        steps.append(step)
        train(regression, student, images, step)

    monkeypatch.setattr(StudentRegression, "_train", counted)
    for times in (1, 2):
        trial.run(times * trial.step)
        assert len(steps) == times * trained
        steps.clear()


@pytest.mark.parametrize(
    ("through", "regression"), [("synthesis", "ridge"), ("vae", "ridge"), ("vae", "logistic")]
)
def test_steps_of_a_refinement_and_its_students_are_counted(never_run, through, regression):
    workspace, _ = never_run
    name = f"refined_{through}_{regression}"
    refinement = f"{{steps: 60, labels: both, through: {through}, regression: {regression}}}"
    explaining = f"representative: explaining, refinement: {refinement}"
    recipe = TINY_RECIPE.replace("starts: 1}", f"starts: 1, {explaining}}}")
    workspace.write(name, recipe)
    outlook = workspace.pipeline(name).look_ahead()
    works = list(prototypes_work(CostPlan(outlook)))
    assert counts(works, "refinement step") == (60, 1)
    if regression == "ridge":
        # 30 steps towards the teacher have two students: 2,500 and 10,000 views of 30 images, in
        # batches of 40, which are one step per epoch.
        assert counts(works, "training step")[0] == 2500 // 30 + 10000 // 30
    estimate = estimate_cost(outlook)
    assert estimate.unknown == ()
    # Three clusters of ten classes, in up to three rounds of swaps.
    assert counts(works, "cluster visited")[0] == 3 * 10 * 3
    train = outlook.context.source.count
    seen = sum(min(train("train", class_id), 25 * 3) for class_id in range(10))
    assert counts(works, "candidate seen")[0] == seen
    of_plain = estimate_cost(workspace.pipeline().look_ahead())
    seconds = [
        next(each.cpu_seconds for each in found.stages if each.stage == "prototypes")
        for found in (of_plain, estimate)
    ]
    assert seconds[1] > seconds[0]


def test_methods_of_other_papers_are_counted(never_run):
    workspace, _ = never_run
    baselines = "baselines: [dm, sre2l, mosaic_real], dm: {steps: 7}, sre2l: {steps: 11},"
    teacher = "architecture: resnet18, options: {channels: [8, 8, 8, 8]}"
    recipe = TINY_RECIPE.replace("seeds: 2,", f"seeds: 2, {baselines}")
    recipe = recipe.replace("epochs: 2, options: {width: 16}", f"epochs: 2, {teacher}")
    workspace.write("rivals", recipe)
    outlook = workspace.pipeline("rivals").look_ahead()
    works = list(baseline_images_work(CostPlan(outlook)))
    assert counts(works, "dm step")[0] == 10 * 7  # each class alone
    assert counts(works, "sre2l step")[0] == 11  # 30 images in one block
    assert counts(works, "mosaics of a class")[0] == 10
    with Rates(outlook.present) as rates:
        for work in works:
            rate = rates.find(work.piece, 1)
            assert rate is not None, work.piece.kind
            assert rate.each_s > 0


def test_what_nothing_measures_is_named(never_run):
    workspace, _ = never_run
    recipe = TINY_RECIPE.replace(
        "generator:\n  compact:", "generator: {pretrained: {model: some/model}}\nspare:\n  compact:"
    )
    recipe = recipe[: recipe.index("spare:")] + recipe[recipe.index("prototypes:") :]
    workspace.write("pretrained", recipe)
    pretrained = CostPlan(workspace.pipeline("pretrained").look_ahead())
    unknown = [work for work in generator_work(pretrained) if work.piece.kind == "download"]
    assert unknown  # each component of the generator
    cost = StageCost("generator", 1, 90.0, 90.0, 0, 0, ("download",))
    lines = cost_lines(CostEstimate((cost,), "cpu", 0.0))
    assert lines[0].startswith("estimate for cpu: at least 1 min 30 s, ")
    assert "Not known before the run, and not counted: download." in lines


def test_short_stages_are_shown_together():
    costs = {"latents": 0.4, "teacher": 90.0, "soft_labels": 0.5, "image_fidelity": 0.0}
    stages = [StageCost(name, int(s > 0), s, s, 10**6, 10**7) for name, s in costs.items()]
    rows = cost_rows(CostEstimate(tuple(stages), "cpu", 0.0))
    assert [(row["artifact"], row["time"], row["store"]) for row in rows] == [
        ("teacher", "1 min 30 s", "1.00 MB"),
        ("2 short stages", "1 s", "2.00 MB"),
    ]


def test_a_long_piece_is_done_again_only_where_there_are_many(monkeypatch):
    done = list[int]()

    def run(count):
        done.append(count)
        sum(range(20_000 * count))
        return 0

    monkeypatch.setattr("d4m.reports.cost.rates._LONG_S", 0.0)
    measure(Trial(run), needed=3)
    assert done == [1]
    measure(Trial(run), needed=10**9)
    assert done[1:3] == [1, 1]  # the first one warms up, the second one counts
    assert len(done) == 4


def test_only_a_long_run_says_its_cost_unasked(never_run, capsys):
    workspace, _ = never_run
    print_long_cost(workspace.pipeline().look_ahead())
    assert capsys.readouterr().out == ""
    workspace.write("long", TINY_RECIPE.replace("{epochs: 2, ", "{epochs: 1000000, "))
    print_long_cost(workspace.pipeline("long").look_ahead())
    printed = capsys.readouterr().out
    assert "estimate for cpu: about " in printed
    assert "teacher" in printed


def test_status_prints_the_cost_and_json_has_it(never_run):
    workspace, _ = never_run
    lines = call(workspace, "status", "tiny", "--cost")
    assert any(line.startswith("estimate for cpu: about ") for line in lines)
    found = json.loads("\n".join(call(workspace, "status", "tiny", "--cost", "--json")))
    assert found["artifacts"]["generator"] == {"cached": 0, "compute": 1, "follows": 2}
    assert [stage["stage"] for stage in found["cost"]["stages"]] == list(found["artifacts"])
    assert found["cost"]["seconds"] > 0
    assert "generator/vae" in " ".join(found["reasons"])
