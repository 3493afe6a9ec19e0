"""Settings that change no result are in no key: names, and values that nothing reads."""

import json

import pytest
from pydantic import ValidationError

from d4m.pipeline import STAGES
from d4m.reports.plan_ahead import look_ahead
from d4m.settings import EvaluationSettings, TeacherSettings
from tests.conftest import Workspace
from tests.pipeline.laboratory import (
    BLOCKS,
    RECIPES,
    SHALLOW,
    dataset_folder,
    recipe_text,
    rows_of,
)
from tests.tiny_pipelines import save_pipeline

NARROW = {"architecture": "resnet18", "options": {"layers": [1, 1], "channels": [8, 16]}}
WIDE = {"architecture": "resnet18", "options": {"layers": [1, 1], "channels": [16, 32]}}
QUICK, SLOW = SHALLOW | {"epochs": 1}, SHALLOW | {"epochs": 3}
STUDENTS, OTHERS = "evaluation.students", "teacher.others"
EXPLAINING = {"prototypes.representative": "explaining"}
# A recipe, and the same recipe after a change that has no effect.
UNUSED = {
    "one student's name": ({STUDENTS: [NARROW]}, {STUDENTS: [{**NARROW, "name": "mine"}]}),
    "two students' names": (
        {STUDENTS: [{**NARROW, "name": "narrow"}, {**WIDE, "name": "wide"}]},
        {STUDENTS: [{**NARROW, "name": "one"}, {**WIDE, "name": "two"}]},
    ),
    "a teacher's name": (
        {OTHERS: [{**QUICK, "name": "quick"}, {**SLOW, "name": "slow"}]},
        {OTHERS: [{**QUICK, "name": "one"}, {**SLOW, "name": "two"}]},
    ),
    "epochs per block of no labels": (
        {"soft_labels.mode": "online"},
        {"soft_labels.mode": "online", "soft_labels.epochs_per_block": 3},
    ),
    "top_k of all logits": ({}, {"soft_labels.top_k": 7}),
    "top_k above the number of classes": (
        {"soft_labels.format": "top_k", "soft_labels.top_k": 10},
        {"soft_labels.format": "top_k", "soft_labels.top_k": 200},
    ),
    "labelled epochs above the epochs": ({}, {"soft_labels.labelled_epochs": 9}),
    "MixUp of labels where CutMix is certain": ({}, {"soft_labels.augmentation": {"mixup": 0.5}}),
    "MixUp of a teacher where CutMix is certain": ({}, {"teacher.augmentation": {"mixup": 0.5}}),
    "MixUp of class labels where CutMix is certain": (
        {"evaluation.hard": {"augmentation": {}}},
        {"evaluation.hard": {"augmentation": {"mixup": 0.5}}},
    ),
    "mixes of views that explain": (
        EXPLAINING | {"teacher.weights": "timm", "teacher.augmentation": {}},
        EXPLAINING | {"teacher.weights": "timm", "teacher.augmentation": {"cutmix": 0.3}},
    ),
    "a level of attention that is not there": (
        {"generator.compact.denoiser.attention_from": 2},
        {"generator.compact.denoiser.attention_from": 5},
    ),
    "a negative prompt without guidance": (
        {"synthesis.guidance_scale": 1, "evaluation.baselines": ["from_noise"]},
        {
            "synthesis.guidance_scale": 1,
            "evaluation.baselines": ["from_noise"],
            "prompts.negative": "blurry",
        },
    ),
    "the span of no pull to the prototype": ({}, {"synthesis.mode_guidance_until": 0.3}),
    "no inversion and no groups": ({}, {"synthesis.inversion": False, "synthesis.groups": None}),
    "no RSM": ({}, {"generator.compact.denoiser.rsm_weight": 0.0}),
    "references of cgs": (
        {"synthesis.set_guidance": {"cgs": {}}},
        {"synthesis.set_guidance": {"cgs": {}, "references": 9}},
    ),
    "guidance of sets by nothing": ({}, {"synthesis.set_guidance": None}),
    "diversity where a group is chosen": (
        {"synthesis.candidates": 2, "synthesis.groups": 9},
        {"synthesis.candidates": 2, "synthesis.groups": 9, "synthesis.diversity": 0.1},
    ),
    "diversity of one candidate": ({}, {"synthesis.diversity": 0.1}),
    "the size that images have anyway": ({}, {"synthesis.size_px": 8}),
    "the training of ready weights": (
        {"teacher.weights": "timm"},
        {"teacher.weights": "timm", "teacher.epochs": 7, "teacher.optimizer.learning_rate": 0.1},
    ),
    "mini-batches of k-means": ({}, {"prototypes.batch_size": 7}),
    "momentum without sgd": ({}, {"evaluation.optimizer.momentum": 0.5}),
    "the weight of no cross-entropy": ({}, {"evaluation.matching.ce_weight": 0.5}),
    "the temperature of squared errors": (
        {"evaluation.matching.loss": "mse_ce"},
        {"evaluation.matching.loss": "mse_ce", "evaluation.matching.temperature": 3},
    ),
    "how class labels are learnt, without their rows": (
        {"evaluation.labels": ["soft"], "evaluation.baselines": []},
        {"evaluation.labels": ["soft"], "evaluation.baselines": [], "evaluation.hard.epochs": 9},
    ),
    "the limit of unreadable files": (
        {"dataset": {"source": "image_folder", "path": "../images", "size_px": 8}},
        {
            "dataset": {
                "source": "image_folder",
                "path": "../images",
                "size_px": 8,
                "unreadable_share": 0.5,
            }
        },
    ),
}
NAMES_ALONE = [name for name in UNUSED if name.endswith(("name", "names", "no labels"))]


def _keys(workspace, text, *, packed):
    """The key of every unit of every stage, from an empty store."""
    workspace.write("mine", text)
    context = workspace.pipeline("mine").open_context()
    return {
        (stage, unit.name): unit.key
        for stage, planned in look_ahead(STAGES, context).planned.items()
        if packed or stage != "distilled_dataset"
        for unit in planned.units
    }


@pytest.mark.parametrize("name", UNUSED)
def test_a_setting_without_effect_is_in_no_key(workspace: Workspace, name):
    for class_name in ("ant", "bee"):
        for number in range(8):
            workspace.draw(class_name, str(number))
    packed = name in NAMES_ALONE  # else its card has the recipe as it stands
    before, after = (_keys(workspace, recipe_text(edits), packed=packed) for edits in UNUSED[name])
    assert before == after


def test_a_dit_reads_no_negative_prompt_and_stable_diffusion_does(workspace: Workspace):
    for kind in ("dit", "sd"):
        save_pipeline(kind, workspace.folder / kind)
        generator = {"pretrained": {"model": f"../{kind}"}}
        edits = {
            "generator": generator,
            "prompts": {"template": "{class_id}"},
            "dataset": {"source": "image_folder", "path": "../images", "size_px": 16},
            "evaluation.baselines": ["from_noise"],
        }
        for class_name in ("ant", "bee"):
            for number in range(8):
                workspace.draw(class_name, str(number))
        before = _keys(workspace, recipe_text(edits), packed=False)
        edits["prompts"] = {"template": "{class_id}", "negative": "blurry"}
        after = _keys(workspace, recipe_text(edits), packed=False)
        changed = {stage for stage, unit in before if before[stage, unit] != after[stage, unit]}
        expected = {"synthetic_images", "evaluation_scores", "image_fidelity"}
        assert changed == (set() if kind == "dit" else expected)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_stored_labels_are_used_in_the_blocks_that_they_have(lab, size):
    lab.computed("uint8")
    name = f"blocks-{size}"
    lab.edited(name, RECIPES["uint8"], until="distilled_dataset")
    lab.write(name, recipe_text(RECIPES["uint8"] | {"soft_labels.epochs_per_block": size}))
    assert not any(lab.run(name).values())
    context = lab.pipeline(name).open_context()
    assert tuple(context.upstream["soft_labels"]) == BLOCKS


def test_labels_of_other_settings_get_blocks_of_the_size_that_is_asked_for(lab):
    teacher = {"teacher.epochs": 1}
    lab.edited("blocks", teacher, until="distilled_dataset")
    context = lab.edited("blocks", teacher | {"soft_labels.epochs_per_block": 3}, until="teacher")
    assert tuple(context.upstream["soft_labels"]) == BLOCKS
    other = {"teacher.epochs": 3, "soft_labels.epochs_per_block": 3}
    context = lab.edited("blocks", other, until="distilled_dataset")
    assert tuple(context.upstream["soft_labels"]) == ("epochs-000000", "epochs-000003")
    # Back to labels of an earlier version, which are stored in blocks of its size.
    lab.write("blocks", recipe_text(teacher | {"soft_labels.epochs_per_block": 3}))
    assert not any(lab.run("blocks").values())


def test_a_damaged_block_is_made_again_in_its_place(lab):
    settings = {"soft_labels.format": "uint8", "teacher.epochs": 1}
    lab.edited("mended", settings, until="distilled_dataset")
    context = lab.edited("mended", settings | {"soft_labels.epochs_per_block": 3}, until="teacher")
    context.store.set_aside("soft_labels", context.upstream["soft_labels"][BLOCKS[1]].key)
    computed = {stage: units for stage, units in lab.run("mended").items() if units}
    assert computed == {"soft_labels": (BLOCKS[1],)}


def test_a_renamed_student_has_its_new_name_in_the_table_and_the_same_score(lab):
    lab.computed("uint8")
    before = rows_of(lab.edited("renamed", RECIPES["uint8"], until="distilled_dataset"))
    student = lab.context("uint8").recipe.settings.evaluation.students[0]
    name = {"evaluation.students": [student.model_dump(mode="json") | {"name": "mine"}]}
    lab.write("renamed", recipe_text(RECIPES["uint8"] | name))
    assert not any(lab.run("renamed").values())
    context = lab.pipeline("renamed").open_context()
    after = rows_of(context)
    students = [row for row in after if row.training_set != "teacher"]
    assert {row.student for row in students} == {"mine"}
    assert [row.top1 for row in after] == [row.top1 for row in before]
    stored = json.loads((dataset_folder(context) / "scores.json").read_text())
    assert {row["student"] for row in stored} == {"convnet3"}


def test_students_of_one_architecture_are_trained_from_seeds_of_their_own_options(workspace):
    """Their options differ, so their weights do, although they share a stream."""
    edits = {STUDENTS: [{**NARROW, "name": "narrow"}, {**WIDE, "name": "wide"}]}
    keys = _keys(workspace, recipe_text(edits), packed=False)
    students = [key for (stage, unit), key in keys.items() if "synthetic-soft-resnet18." in unit]
    assert len(students) == len(set(students)) == 2


def test_one_network_under_two_names_is_refused():
    twice = [{**NARROW, "name": "one"}, {**NARROW, "name": "two"}]
    with pytest.raises(ValidationError, match="`one` and `two` are the same network under two"):
        EvaluationSettings.model_validate({"students": twice})
    EvaluationSettings.model_validate({"students": [twice[0], {**WIDE, "name": "two"}]})
    others = [{**QUICK, "name": "one"}, {**QUICK, "name": "two"}]
    with pytest.raises(ValidationError, match="`one` and `two` are the same teacher under two"):
        TeacherSettings.model_validate({"others": others})
    TeacherSettings.model_validate({"others": [others[0], {**SLOW, "name": "two"}]})
