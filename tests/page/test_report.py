"""The report of a finished store: it holds what the store holds, and loads nothing."""

import json
import re
import shutil
import webbrowser

import numpy as np
import pytest

from d4m.cli import app
from d4m.reports.memorisation import find_nearest_real
from tests.cli.commands import call
from tests.conftest import TINY_RECIPE, Workspace
from tests.page.parsed import Page

PARTS = 3


@pytest.fixture(scope="module")
def made(finished_once, tmp_path_factory) -> Workspace:
    """The tiny recipe, run, with markup in a comment of its file."""
    copied = finished_once.copy(tmp_path_factory.mktemp("report") / "workspace")
    copied.write("tiny", f"{TINY_RECIPE}# <script>alert(1)</script>\n")
    return copied


@pytest.fixture(scope="module")
def page(made) -> Page:
    """Its report, as the command writes it."""
    file = made.folder / "page.html"
    lines = call(made, "report", "tiny", "--output", file, "--redundancy", "--parts", PARTS)
    assert lines[-1] == f"wrote {file}"
    return Page(file.read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_runs_nothing(page, made):
    names = ("src", "href", "xlink:href", "srcset", "poster", "data", "action")
    loaded = [each[name] for _, each in page.elements for name in names if name in each]
    assert len(loaded) > 100
    assert all(re.match(r"data:image/|data:,$|#", address) for address in loaded)
    assert {url.strip("\"'")[0] for url in re.findall(r"url\(([^)]*)\)", page.text)} == {"#"}
    assert not re.search(r"https?:|@import", page.text)
    assert not page.all("script")
    assert not [name for _, each in page.elements for name in each if name.startswith("on")]
    assert "# <script>alert(1)</script>" in page.words("history")
    assert (made.folder / "page.html").stat().st_size < 1_000_000


def test_every_link_and_every_name_leads_somewhere(page):
    ids = [each["id"] for _, each in page.elements if "id" in each]
    assert len(ids) == len(set(ids))
    for _, each in page.elements:
        for name in ("href", "xlink:href", "for", "clip-path"):
            target = re.search(r"#([^)]+)", each.get(name, "")) if name != "for" else None
            wanted = target.group(1) if target else each.get("for") if name == "for" else None
            assert wanted is None or wanted in ids


def test_the_score_table_is_that_of_compare(page, made):
    lines = call(made, "compare", "tiny")
    rows = [line.split() for line in lines[: len(page.tables["Scores of tiny"])]]
    assert [" ".join(row).split() for row in page.tables["Scores of tiny"]] == rows
    assert len(rows) == 11
    said = page.words("accuracy")
    for line in call(made, "show", "tiny"):
        if line.startswith(("DD-Ranking", "students trained on")):
            assert " ".join(line.split())[1:] in said


def test_the_main_figures_are_the_means_over_the_seeds(page, made):
    context = made.pipeline().open_context()
    top1 = {
        name: 100
        * np.mean(
            [
                float(context.read("evaluation_scores", f"{name}-convnet3-0{seed}")["top1"])
                for seed in range(2)
            ]
        )
        for name in ("synthetic-soft", "synthetic-hard", "random_real-soft", "full_data-hard")
    }
    soft, hard, random, full = top1.values()
    hero = page.words()
    assert f"{soft:.2f} %" in hero
    assert f"{hard:.2f} %" in hero
    assert f"{soft - random:+.2f} points" in hero
    assert f"{100 * soft / full:.2f} %" in hero


def test_a_class_is_shown_from_the_real_image_to_the_synthetic_one(page, made):
    context = made.pipeline().open_context()
    arrays = context.read("synthetic_images", "class-00003")
    index = context.image_index("train", 3)
    [real] = context.read_images("train", 3, index)
    began = context.read("prototypes", "class-00003")["nearest_images"]
    for number in range(3):
        image = arrays["images"][number]
        likest = max(
            range(len(real)), key=lambda row: np.corrcoef(real[row].ravel(), image.ravel())[0, 1]
        )
        name = f"real image {index.image_ids[began[number]]} of class three"
        shown = {
            name: real[began[number]],
            f"decoded prototype {number + 1} of class three": arrays["decoded_prototypes"][number],
            f"synthetic image {number + 1} of class three": image,
            f"real image {index.image_ids[likest]}, the one most like synthetic image "
            f"{number + 1}": real[likest],
        }
        for alt, pixels in shown.items():
            np.testing.assert_array_equal(page.picture(alt), pixels[..., 0])
        correlation = np.corrcoef(real[likest].ravel(), image.ravel())[0, 1]
        assert f"nearest {correlation:.3f}" in page.words("images")
    assert all("alt" in image for image in page.all("img"))


def test_costs_are_those_of_the_stored_units(page, made):
    context = made.pipeline().open_context()
    rows = {row[0]: row[1:] for row in page.tables["Costs by artifact: tiny"][1:]}
    assert list(rows) == [name for name, units in context.upstream.items() if units]
    for artifact in ("generator", "evaluation_scores"):
        units = context.upstream[artifact]
        found = [context.reference(artifact, unit) for unit in units]
        stored = sum(size for each in found for size, _ in each.files.values())
        seconds = sum(each.provenance["seconds"] for each in found)
        assert rows[artifact][1:] == [_bytes(stored), str(len(units))]
        nearly = {_time(seconds * (1 + of)) for of in (-1e-9, 1e-9)}  # in another order of adding
        assert rows[artifact][0] in nearly


def test_redundancy_is_a_matrix_of_parts(page):
    tables = {name: rows for name, rows in page.tables.items() if "of the other parts" in name}
    assert [name.partition(":")[0] for name in tables] == ["synthetic", "random real"]
    for name, rows in tables.items():
        top1 = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
        assert top1.shape == (PARTS, PARTS)
        between = top1[~np.eye(PARTS, dtype=bool)].mean()
        assert between == pytest.approx(float(re.findall(r"[\d.]+", name)[0]), abs=0.11)


def test_every_section_says_which_command_prints_its_figures(page):
    commands = {each.callback.__name__ for each in app.registered_commands}
    sections = [each["id"] for each in page.all("section")]
    expected = ["images", "accuracy", "curves", "fidelity", "redundancy", "costs"]
    assert sections == [*expected, "history", "checks"]
    for section in sections:
        named = re.findall(r"\bd4m (\w+) tiny\b", page.words(section))
        assert named, section
        assert set(named) <= commands


def test_figures_without_a_command_of_their_own_have_a_table_or_are_in_the_json(page, made):
    context = made.pipeline().open_context()
    commands = re.findall(r'<p class="command"><code>([^<]*)', page.text)
    assert "d4m report tiny" not in commands  # which prints no numbers
    assert "d4m show tiny --json" in commands
    found = json.loads("\n".join(call(made, "show", "tiny", "--json")))
    curve = next(row["curve"] for row in found["scores"] if row["training_set"] == "synthetic")
    [title] = [name for name in page.tables if "by epoch, with soft labels" in name]
    own = next(row for row in page.tables[title][1:] if row[0] == "synthetic")
    assert float(own[-1]) == pytest.approx(100 * curve[-1][1], abs=0.006)
    measured = find_nearest_real(context)
    [rows] = [rows for name, rows in page.tables.items() if name.startswith("Correlation with")]
    assert rows[0] == ["images, %", "synthetic", "held-out test"]
    assert rows[4] == [
        "50",
        f"{np.median(measured.of_synthetic):.3f}",
        f"{np.median(measured.of_held_out):.3f}",
    ]


def test_fidelity_and_checks_are_those_of_show(page, made):
    lines = call(made, "show", "tiny")
    for row in page.tables["Fidelity: tiny"][1:]:
        assert row in [line.split() for line in lines]
    failed = [line for line in lines if line.startswith(("failed", "warning"))]
    assert failed, "the tiny teacher has learnt too little for a check"
    said = page.words("checks")
    for line in failed:
        word, what = line.split(" ", 1)
        check, _, summary = what.partition(": ")
        assert f"{check} ({word})" in said
        assert " ".join(summary.replace("`", " ").split())[:60] in said


def test_a_recipe_that_was_edited_shows_an_earlier_version_and_says_so(made, tmp_path):
    edited = made.copy(tmp_path / "workspace")
    edited.write("tiny", f"{TINY_RECIPE}prompts: {{per_class: {{three: a bold three}}}}\n")
    page = report(edited, "tiny")
    assert "Scores of an earlier version, not of the present recipe." in page.words()
    assert "changed from" in page.words()
    assert "There are no synthetic_images for the present recipe yet" in page.words("images")
    assert [each["alt"][:27] for each in page.all("img")] == ["synthetic images of version"]
    assert len(page.tables["Scores of tiny"]) == 11
    lacking = "synthetic_images : 1 unit. synthetic_images/class-00003 (three): prompt changed"
    assert lacking in page.words("history")


def test_a_run_that_was_stopped_among_the_scores_shows_those_that_there_are(made, tmp_path):
    stopped = made.copy(tmp_path / "workspace")
    units = stopped.pipeline().open_context().upstream["evaluation_scores"]
    for name in ("random_real-soft-convnet3-01", "teacher"):
        for file in (stopped.store / "objects").rglob(f"{units[name].key}*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for artifact in ("evaluation_scores", "distilled_dataset"):
        shutil.rmtree(stopped.store / "recipes" / "tiny" / artifact)
    page = report(stopped, "tiny")
    rows = [row[:4] + row[-1:] for row in page.tables["Scores of tiny"][1:]]
    assert len(rows) == 11 - 2  # without the heading, and without the teacher
    assert ["synthetic", "3", "soft", "convnet3", "2"] in rows
    assert ["random_real", "3", "soft", "convnet3", "1"] in rows
    said = page.words("accuracy")
    assert f"{len(units) - 2} of {len(units)} scores are there so far; d4m run tiny makes" in said
    assert said.endswith("d4m show tiny prints them when all students are trained.")
    commands = re.findall(r'<p class="command"><code>([^<]*)', page.text)
    assert not [
        each for each in commands if each.startswith("d4m show")
    ]  # which asks for all of them
    [leads] = [rows for name, rows in page.tables.items() if name.startswith("Top-1 minus that")]
    assert ["synthetic", "soft", "convnet3"] not in [row[:3] for row in leads]
    assert ["synthetic", "hard", "convnet3"] in [row[:3] for row in leads]


def test_a_recipe_that_was_never_run_says_what_to_run(workspace):
    page = report(workspace, "tiny")
    for section in ("images", "accuracy", "curves", "fidelity", "costs", "checks"):
        assert "d4m run tiny makes" in page.words(section), section
    assert "A run would still compute" in page.words("history")
    assert page.tables == {}


def test_a_recipe_whose_images_are_gone_says_so(workspace):
    workspace.write("gone", "dataset: {source: image_folder, path: ../nowhere}\n")
    page = report(workspace, "gone")
    assert "The images cannot be listed" in page.words("images")
    assert "There are no scores yet; d4m run gone makes them" in page.words("accuracy")


def test_the_page_opens_in_the_browser_that_python_finds(workspace, monkeypatch):
    opened = list[str]()

    class Recorder(webbrowser.BaseBrowser):
        def open(self, url, new=0, autoraise=True):  # noqa: ARG002
            opened.append(url)
            return True

    monkeypatch.setattr(webbrowser, "_tryorder", ["recorder"])
    monkeypatch.setattr(webbrowser, "_browsers", {"recorder": [None, Recorder()]})
    [line] = call(workspace, "report", "tiny", "--open")
    file = workspace.store / "reports" / "tiny.html"
    assert line == f"wrote {file}"
    assert opened == [file.as_uri()]


def report(workspace: Workspace, *recipes: str) -> Page:
    """The report of recipes, where reports are kept."""
    [line] = call(workspace, "report", *recipes)
    file = workspace.store / "reports" / f"{'+'.join(recipes)}.html"
    assert line == f"wrote {file}"
    return Page(file.read_text(encoding="utf-8"))


def _time(seconds: float) -> str:
    """Seconds in words, of which a busy machine takes many."""
    if seconds < 59.5:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _bytes(size: int) -> str:
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
