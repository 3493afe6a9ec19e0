"""Dagster's UI as a person sees it: the graph, pictures, scores, checks, staleness, failures."""

import re

import pytest

from d4m.pipeline import STAGES
from d4m_assets.asset_keys import GROUPS, RECIPE_GROUP
from tests.assets.server import Server, wait_until
from tests.assets.test_edited_recipes import OF_PROMPTS
from tests.browser.conftest import (
    MARKUP,
    PATIENCE_MS,
    PRINTED,
    materialize_by_hand,
    open_tab,
    status_of,
    sync_api,
)

expect = sync_api.expect
expect.set_options(timeout=PATIENCE_MS)

INJECTED = "img[src='x'], img[onerror], svg[onload], a[href^=javascript]"
HEIGHTS = """wanted => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) {
    const text = texts.currentNode, start = text.data.indexOf(wanted), range = new Range();
    if (start < 0) continue;
    range.setStart(text, start);
    range.setEnd(text, start + wanted.length);
    found.push(range.getBoundingClientRect().top);
  }
  return found;
}"""
"""Where on the page a text stands, each time that it does."""
NAMES = {stage.name for stage in STAGES}


@pytest.fixture(scope="session")
def digits(browser, server: Server) -> str:
    """The run that made all of the digits, launched in the UI."""
    page = open_tab(browser, server)
    run_id = materialize_by_hand(page, server, "digits")
    page.close()
    return run_id


def test_a_recipe_is_materialized_by_hand(page, server: Server, digits, screenshot):
    assert status_of(server, digits) == "SUCCESS"
    assert server.computed("digits").keys() == NAMES
    page.goto(f"/runs/{digits}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    expect(page.get_by_text(f"Succeeded ({len(STAGES) + 1})")).to_be_visible()
    page.screenshot(path=screenshot("run"))


@pytest.mark.usefixtures("digits")
def test_the_graph_names_every_artifact_in_its_group(page, browser, server: Server, screenshot):
    groups = sorted(set(GROUPS.values()))
    page.goto(PRINTED["graph"])
    for group in groups:
        expect(page.get_by_text(group, exact=True).locator("visible=true").last).to_be_visible()
    _draw_graph(browser, server, screenshot("graph"))
    for group in groups:  # only what is in sight of the graph exists, so the lists are looked at
        page.goto(f"/locations/d4m_assets/asset-groups/{group}/list")
        for name in (name for name, own in GROUPS.items() if own == group):
            expect(page.locator(f"a[href='/assets/{name}']").first).to_be_visible()


def _draw_graph(browser, server: Server, path):
    """Photograph the groups alone, in letters that can be read."""
    tab = open_tab(browser, server, device_scale_factor=2)
    tab.goto(PRINTED["graph"])
    found = tab.get_by_text(re.compile(r"^\d_\w+$")).locator("visible=true")
    tab.get_by_text("Hide navigation", exact=True).click()
    expect(found).to_have_count(2 * len(set(GROUPS.values()) | {RECIPE_GROUP}))  # list and graph
    tab.wait_for_timeout(3_000)  # the graph slides into place
    boxes = [box for box in (each.bounding_box() for each in found.all()) if box]
    inside = [box for box in boxes if box["x"] > 360]  # of the list of groups
    left, top = (min(box[side] for box in inside) - 20 for side in "xy")
    right = max(box["x"] + box["width"] for box in inside) + 40
    bottom = max(box["y"] for box in inside) + 40
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    tab.screenshot(path=path, clip=clip)
    tab.close()


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_artifact_says_what_it_is(page, server: Server, stage):
    query = "query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {"
    query += "... on AssetNode { description groupName } } }"
    node = server.ask(query, key={"path": [stage.name]})["assetNodeOrError"]
    assert node["groupName"] == GROUPS[stage.name]
    page.goto(f"/assets/{stage.name}")
    said = node["description"].replace("`", "")  # which Markdown turns into a typeface
    assert len(said) > 30
    expect(page.get_by_text(said[:40]).first).to_be_visible()


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("asset", "key", "name"),
    [
        ("synthetic_images", "synthetic images", "images"),
        ("synthetic_images", "their prototypes, decoded", None),
        ("evaluation_scores", "learning curves", "curves"),
        ("evaluation_scores", "students", None),
    ],
)
def test_pictures_are_a_click_away(page, screenshot, asset, key, name):
    path = f"/assets/{asset}?view=partitions&partition=digits"
    assert path in PRINTED.values()
    page.goto(path)
    row = page.get_by_role("row").filter(has=page.get_by_text(key, exact=True))
    row.get_by_text("[Show Markdown]").click()
    picture = page.get_by_role("dialog").get_by_role("img", name="picture")
    expect(picture).to_be_visible()
    width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 200
    assert height > 100
    if name:
        page.screenshot(path=screenshot(name))


@pytest.mark.usefixtures("digits")
def test_scores_are_a_table_that_is_whole_where_one_lands(page, screenshot):
    page.goto(PRINTED["scores"])
    table = page.get_by_role("table").filter(has=page.get_by_text("top-1 %", exact=True)).last
    for name in ("synthetic", "random_real", "nearest_real", "full_data", "teacher"):
        expect(table.get_by_text(name, exact=True).first).to_be_visible()
    numbers = [float(text) for text in re.findall(r"\d+\.\d+", table.inner_text())]
    assert len(numbers) >= 10
    assert all(0 <= number <= 100 for number in numbers)
    for sized in (table, page.get_by_role("table").first):
        box = sized.bounding_box()
        assert box["x"] + box["width"] <= page.viewport_size["width"]
    page.screenshot(path=screenshot("scores"))


@pytest.mark.usefixtures("digits")
def test_numbers_are_plotted_per_recipe_and_over_time(page, screenshot):
    page.goto("/assets/evaluation_scores?view=overview")
    page.get_by_role("button", name="Plots").click()
    for across in ("Events", "Partitions"):
        page.get_by_text(across, exact=True).last.click()  # the first is a tab of the page
        for name in ("top-1 %, soft labels", "lead over random real, points"):
            expect(page.get_by_text(name, exact=True)).to_be_visible()
        expect(page.locator("canvas")).to_have_count(8)  # every number has a plot of its own
    page.wait_for_timeout(2_000)  # lines are drawn little by little
    page.screenshot(path=screenshot("plots"))


@pytest.mark.usefixtures("digits")
def test_checks_say_what_they_promise_and_what_they_found(page, screenshot):
    page.goto("/assets/synthetic_images?view=checks")
    expect(page.get_by_text("no_blank_image").first).to_be_visible()
    page.get_by_text("ipc_images_per_class").first.click()
    expect(page.get_by_text("Every class has IPC images.")).to_be_visible()
    expect(page.get_by_text("Passed", exact=True)).to_be_visible()
    page.screenshot(path=screenshot("checks"))


@pytest.mark.usefixtures("digits")
def test_a_changed_prompt_makes_its_recipe_stale_and_no_other(page, server: Server, screenshot):
    """Nothing is run: the sensor that is on by default reports what was edited."""
    before = len(server.runs())
    digits = (server.workspace.recipes / "digits.yaml").read_text(encoding="utf-8")
    kept = "\n".join(line for line in digits.splitlines() if not line.startswith("prompts:"))
    server.workspace.write("digits", kept + '\nprompts: {template: "a printed digit {name}"}\n')
    try:
        wait_until(lambda: "synthetic_images" in server.stale("digits"))
        page.goto("/assets/synthetic_images?view=partitions&partition=digits")
        stale = page.get_by_text(re.compile(r"Unsynced|Stale|upstream|Outdated", re.IGNORECASE))
        expect(stale.locator("visible=true").first).to_be_visible()
        page.screenshot(path=screenshot("stale"))
        assert server.stale("digits") == OF_PROMPTS
        assert server.stale("marked") == set()
    finally:
        server.workspace.write("digits", digits)
    wait_until(lambda: server.stale("digits") == set())
    assert len(server.runs()) == before


@pytest.mark.usefixtures("digits")
def test_a_failure_is_readable_at_first_glance(page, server: Server, screenshot):
    """And it is the failure of one recipe: another recipe's partition is as it was."""
    run_id = materialize_by_hand(page, server, "failing")
    page.goto(f"/runs/{run_id}")
    expect(page.get_by_text("Failure", exact=True).first).to_be_visible()
    reason = page.get_by_text(
        re.compile("wanted a folder of class folders, found no folder at .*nowhere")
    )
    expect(reason.first).to_be_visible()
    trace = [y for y in page.evaluate(HEIGHTS, "Stack Trace") if 0 < y < 900]
    clip = {"x": 0, "y": 0, "width": 1400, "height": min(trace) - 4}  # without this machine's paths
    page.screenshot(path=screenshot("failure"), clip=clip)
    page.goto("/assets/real_images?view=partitions&partition=failing")
    expect(page.get_by_text("failed, and did not materialize this asset").first).to_be_visible()
    page.goto("/assets/real_images?view=partitions&partition=digits")
    expect(page.get_by_text("Materialized", exact=True).first).to_be_visible()
    query = "query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {"
    query += "assetPartitionStatuses { ... on DefaultPartitionStatuses {"
    query += "materializedPartitions failedPartitions } } } } }"
    found = server.ask(query, key={"path": ["real_images"]})["assetNodeOrError"]
    assert found["assetPartitionStatuses"]["failedPartitions"] == ["failing"]
    assert "digits" in found["assetPartitionStatuses"]["materializedPartitions"]


def test_markup_in_names_is_text(page, server: Server, screenshot):
    """Names of classes and files come from anyone; the `page` fixture fails if one is executed."""
    run_id = materialize_by_hand(page, server, "marked")
    assert status_of(server, run_id) == "SUCCESS"
    for path in (
        "/assets/real_images?view=partitions&partition=marked",
        "/assets/synthetic_images?view=partitions&partition=marked",
        "/assets/synthetic_images?view=checks",
        f"/runs/{run_id}",
    ):
        page.goto(path)
        page.wait_for_timeout(3_000)
        assert page.locator(INJECTED).count() == 0
    page.goto("/assets/synthetic_images?view=partitions&partition=marked")
    expect(page.get_by_text(MARKUP[0]).first).to_be_visible()
    page.goto("/assets/real_images?view=partitions&partition=marked")
    expect(page.get_by_text("<svg onload=alert(4)>.png").first).to_be_visible()
    page.screenshot(path=screenshot("markup"))
