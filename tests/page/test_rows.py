"""The page of score tables as they may be: one student, several teachers, many recipes."""

import re

import numpy as np
import pytest

from d4m.errors import D4MError
from d4m.page.looks import choose_looks, set_label
from d4m.page.part import Part
from d4m.page.svg import WIDTHS
from d4m.page.write import render_parts
from d4m.reports.present import ShownDataset
from d4m.scores.spread import measure_spread
from d4m.stages.score_table import ScoreRow
from tests.page.parsed import Page

TOP1 = np.array([[0.80, 0.84, 0.88]])


def row(training_set="synthetic", labels="soft", student="convnet3", ipc=10, **more):
    """A row of three students, or as said."""
    curve = ((1, 0.5), (2, 0.8))
    spread = measure_spread(TOP1)
    found = {"teacher": "", "seeds": 3, "curve": curve, "spread": spread, "augmented": True}
    own = {"top1": spread.mean, "top1_std": 0.04, "top5": 1.0}
    return ScoreRow(
        training_set=training_set, labels=labels, student=student, ipc=ipc, **found | own | more
    )


def part(name, *rows, split="test"):
    """A recipe of which nothing but a score table is known."""
    return Part(name, name, "", None, ShownDataset(split, list(rows), [], None), {})


def sized(name, ipc):
    """A recipe with synthetic and random real images."""
    full = row("full_data", "hard", ipc=None, top1=0.9)
    return part(name, row(ipc=ipc), row("random_real", ipc=ipc, top1=0.7), full)


def charts(page: Page) -> list[str]:
    """The figures of a page, each once per width."""
    return re.findall(r"<svg viewBox.*?</svg>", page.text, re.DOTALL)


def test_recipes_of_different_sizes_are_joined_by_lines():
    page = Page(render_parts([sized("small", 1), sized("large", 50)]))
    first = charts(page)[: len(WIDTHS)]
    for chart in first:
        assert re.findall(r">(1|50)</text>", chart) == ["1", "50"]
        assert ">images per class</text>" in chart
        assert "<title>small, synthetic, convnet3: 84.00 %" in chart
    assert page.tables["Scores of all recipes"][0][:3] == ["recipe", "training set", "IPC"]
    assert [line[0] for line in page.tables["Scores of all recipes"][1:]] == (
        ["small"] * 3 + ["large"] * 3
    )


def test_recipes_of_one_size_have_places_of_their_own():
    page = Page(render_parts([sized("one", 10), sized("other_with_a_long_name", 10)]))
    for chart in charts(page)[: len(WIDTHS)]:
        assert ">recipe, and images per class</text>" in chart
        assert ">one</tspan>" in chart or ">one</text>" in chart
        assert "other_with_a_l" in chart


def test_intervals_are_students_and_stay_below_a_hundred():
    t_975 = 4.302652729911275  # of two degrees of freedom
    reach = 100 * t_975 * TOP1.std(ddof=1) / 3**0.5
    said = render_parts([part("one", row())])
    assert f"95 % interval {84 - reach:.2f} to {84 + reach:.2f}" in said
    sure = measure_spread(np.array([[1.0, 0.98, 1.0]]))
    assert " to 100.00" in render_parts([part("one", row(spread=sure, top1=sure.mean))])


def test_one_student_has_no_interval():
    alone = measure_spread(np.array([[0.84]]))
    page = Page(render_parts([part("one", row(spread=alone, seeds=1))]))
    assert "one student has no interval" in page.words()
    assert "switch" not in {each.get("class") for each in page.all("fieldset")}


def test_both_kinds_of_labels_have_figures_and_a_switch():
    page = Page(render_parts([part("one", row(), row(labels="hard", top1=0.6))]))
    kinds = [each["class"] for each in page.all("figure")]
    assert kinds == ["of-soft", "of-hard"] * 2
    radios = [each["id"] for each in page.all("input")]
    assert radios == [f"{s}-labels-{k}" for s in ("accuracy", "curves") for k in ("soft", "hard")]
    assert sum("checked" in each for each in page.all("input")) == 2


def test_several_teachers_are_a_matrix():
    rows = [
        row(student=student, teacher=teacher, top1=top1)
        for teacher, student, top1 in (
            ("convnet3", "convnet3", 0.81),
            ("convnet3", "vit", 0.62),
            ("resnet", "convnet3", 0.73),
            ("resnet", "vit", 0.54),
        )
    ]
    page = Page(render_parts([part("one", *rows)]))
    assert page.tables["Teacher by student: top-1 %: one"] == [
        ["teacher", "convnet3", "vit"],
        ["convnet3", "81.0", "62.0"],
        ["resnet", "73.0", "54.0"],
    ]
    assert 'href="#teachers"' in page.text
    assert "teachers" not in Page(render_parts([part("one", row())])).text


def test_text_of_others_is_text():
    bad = '<img src=x onerror="alert(1)">$\\frac{1}{0}$'
    page = Page(render_parts([part(bad, row(student=bad))]))
    assert not page.all("img")
    assert not page.all("script")
    assert bad in page.words()
    assert page.tables[f"Scores of {bad}"][1][3] == bad


def test_figures_take_the_colours_of_the_page():
    text = render_parts([sized("small", 1), sized("large", 50)])
    drawn = "".join(charts(Page(text)))
    assert not re.search(r"#[0-9a-f]{6}\b", drawn)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    own = {"--part", "--tint"}
    for colours in (light, dark):
        assert used - own <= set(re.findall(r"(--[\w-]+):", colours))


def test_no_two_training_sets_look_the_same():
    sets = ("synthetic", "random_real", "nearest_real", "herding", "medoids", "dm", "sre2l")
    rows = [row(each) for each in (*sets, "full_data")]
    looks = choose_looks(rows)
    assert list(looks) == [set_label(each) for each in rows]
    assert len(set(looks.values())) == len(rows)


def test_splits_are_not_mixed():
    with pytest.raises(D4MError, match="others on validation images"):
        render_parts([part("one", row()), part("other", row(), split="validation")])
