"""After any edit and any partial run, no front end shows a figure of settings that did not make it.

Edits and partial runs are random, by the command line and by Dagster. After each, every front end
is driven, and what it shows is compared with what another store has for the settings that the front
end names: those of the present recipe, or those of a version.
"""

import json
import re
from dataclasses import dataclass
from functools import cache

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from d4m.pipeline import STAGES
from d4m.recipe.recipe import load_recipe
from d4m_assets.partitions import PARTITIONS
from tests.assets.conftest import Instance
from tests.assets.test_caching import stale_assets
from tests.assets.test_edited_recipes import Ticks
from tests.cli.commands import call, refused
from tests.conftest import FOLDER_RECIPE, Workspace
from tests.page.parsed import Page

STEPS = 5
BY_DAGSTER = (1,)  # the steps whose runs are Dagster's
IMAGES = 80  # of each class, of which most are test images
RECIPE = (
    FOLDER_RECIPE.replace("test_share: 0.3", "test_share: 0.8")
    .replace("teacher: {epochs: 1,", "teacher: {epochs: 20, optimizer: {batch_size: 4},")
    .replace("soft_labels: {epochs: 1}", "soft_labels: {epochs: 10}")
)
DATASET = "distilled_dataset"
# The keys that an edit changes, and the text before and after it.
EDITS = {
    "prototypes.ipc": ("ipc: 1", "ipc: 2"),
    "synthesis.strength": ("num_inference_steps: 2", "num_inference_steps: 2, strength: 0.5"),
    "prompts.template": ("dataset:", "prompts: {template: 'a small {name}'}\ndataset:"),
    "soft_labels.epochs": ("soft_labels: {epochs: 10}", "soft_labels: {epochs: 20}"),
    "evaluation.students.0.options.width": ("width: 16}}]}", "width: 8}}]}"),
}
NOTE = re.compile(r"version (\S+?)(?: of (\w+))?; changed since: (.+)")
MORE = re.compile(r"; and (\d+) more$")


@dataclass(frozen=True)
class State:
    """The text and files that a user has: the recipe, and whether there is one more image."""

    text: str
    extra: bool

    def put_into(self, workspace):
        workspace.write("pets", self.text)
        if self.extra:
            workspace.draw("cat", "extra")
        else:
            (workspace.folder / "images" / "cat" / "extra.png").unlink(missing_ok=True)

    def edited(self, rng):
        """Another state: one or two keys changed or put back, or an image added or taken away."""
        if rng.random() < 0.15:
            return State(self.text, not self.extra)
        text = self.text
        for key in rng.choice(list(EDITS), rng.integers(1, 3), replace=False):
            old, new = EDITS[key]
            text = text.replace(new, old) if new in text else text.replace(old, new)
        return State(text, self.extra)

    def keys_unlike(self, other):
        """The keys of the recipe that differ from those of another state."""
        return {key for key, (_, new) in EDITS.items() if (new in self.text) != (new in other.text)}


@dataclass(frozen=True)
class Truth:
    """The figures of a state, and all that is made for it.

    Attributes:
        ipc: images per class.
        top1: by training set and labels.
        frechet: of the synthetic images.
        digests: of all units, by artifact and unit.
        images: the synthetic images of each class.
        settings: all of them.
    """

    ipc: int
    top1: dict[tuple[str, str], float]
    frechet: float
    digests: dict[str, str]
    images: list[np.ndarray]
    settings: dict

    def percent(self, training_set="synthetic", labels="soft"):
        return f"{100 * self.top1[training_set, labels]:.2f}"


def paint(file, rng, *, coarse):
    """Draw noise, finer or coarser: classes that overlap, so that no two students are as good."""
    share = rng.uniform(0.3, 1) if coarse else rng.uniform(0, 0.7)
    fine, large = rng.normal(size=(8, 8, 3)), rng.normal(size=(2, 2, 3)).repeat(4, 0).repeat(4, 1)
    pixels = 128 + 40 * (share * large + (1 - share) * fine)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def measure(workspace, state):
    """Run a state, and read what it gives from its units."""
    state.put_into(workspace)
    workspace.run("pets")
    context = workspace.pipeline("pets").open_context()
    top1 = {}
    for unit in context.upstream["evaluation_scores"]:
        training_set, labels = (*unit.split("-"), "hard")[:2]
        top1[training_set, labels] = float(context.read("evaluation_scores", unit)["top1"])
    units = list(context.upstream["synthetic_images"])
    [fidelity] = context.upstream["image_fidelity"]
    digests = workspace.digests("pets")
    return Truth(
        ipc=2 if EDITS["prototypes.ipc"][1] in state.text else 1,
        top1=top1,
        frechet=float(context.read("image_fidelity", fidelity)["frechet"]),
        digests={f"{s}/{u}": digest for s, each in digests.items() for u, digest in each.items()},
        images=[context.read("synthetic_images", unit)["images"] for unit in units],
        settings=context.recipe.settings.model_dump(mode="json"),  # what is left open is chosen
    )


class Walk:
    """A workspace on a random walk, and the truth about every state."""

    def __init__(self, workspace, instance, oracle):
        self.workspace, self.instance = workspace, instance
        self.ticks = Ticks(instance)
        self.truth = cache(lambda state: measure(oracle, state))
        self.seen = dict.fromkeys([State(RECIPE, extra=False)])
        self.state = State(RECIPE, extra=False)
        self.made = {}  # artifact -> version -> the state that made it
        self.shown = {}  # materialization of the scores -> the state that it shows
        self.remember()

    def edit(self, rng):
        self.state = self.state.edited(rng)
        self.state.put_into(self.workspace)
        self.seen[self.state] = None

    def run(self, stages, *, by_dagster):
        """Run the first stages."""
        names = [stage.name for stage in STAGES[:stages]]
        if by_dagster:
            selection = " or ".join(["key:recipe/*", *(f'key:"{name}"' for name in names)])
            assert self.instance.materialize("pets", selection).success
        else:
            for name in names:
                self.workspace.pipeline("pets").run_stage(name)
        self.remember()

    def remember(self):
        """Note by which state new versions and new materializations were made."""
        manifests = self.workspace.pipeline("pets").open_context().manifests
        for stage in STAGES:
            known = self.made.setdefault(stage.name, {})
            for version in manifests.versions(stage.name):
                known.setdefault(version.name, self.state)
        if found := self.materialization():
            self.shown.setdefault(found.event_log_entry.timestamp, self.state)

    def materialization(self):
        """The last materialization of the scores."""
        key = dg.AssetKey("evaluation_scores")
        records = self.instance.dagster.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=["pets"]), limit=1
        )
        return next(iter(records.records), None)

    def claimed(self, note, artifact=DATASET):
        """The state that a note names, which must say rightly what has changed; else the present.

        A note is the text after `version`; without one, the present recipe is claimed.
        """
        found = NOTE.search(note)
        if not found:
            assert "not the present recipe" not in note
            return self.state
        version, of, changes = found.groups()
        assert (of or DATASET) == artifact
        state = self.made[artifact][version]
        changes = changes.partition("; `d4m run")[0]
        more = MORE.search(changes)
        named = MORE.sub("", changes).split("; ")
        keys = state.keys_unlike(self.state)
        if artifact == DATASET and keys:
            assert {each.partition(" changed from ")[0] for each in named} <= keys
            assert len(named) + int(more.group(1) if more else 0) == len(keys)
        else:
            assert state != self.state
        return state

    def matches(self, found, state):
        """Whether rows of JSON have the figures of a state."""
        truth = self.truth(state)
        for row in found:
            assert row["top1"] == truth.top1[row["training_set"], row["labels"]]
            assert row["ipc"] == (None if row["training_set"] == "teacher" else truth.ipc)
        assert len(found) == len(truth.top1)

    def has_row(self, lines, state, *before):
        """Whether a table has the synthetic images' row of a state."""
        truth = self.truth(state)
        wanted = [*before, "synthetic", str(truth.ipc), "soft", "convnet3", truth.percent()]
        assert [line for line in map(str.split, lines) if line[: len(wanted)] == wanted], lines


def see_show(walk):
    found = json.loads("\n".join(call(walk.workspace, "show", "pets", "--json")))
    state = walk.claimed(found["note"])
    walk.matches(found["scores"], state)
    for row in found["fidelity"]:
        assert row["frechet"] == walk.truth(state).frechet
    if walk.state == state:  # else `compare` prints the same table
        walk.has_row(call(walk.workspace, "show", "pets"), state)


def see_compare(walk):
    """Next to a recipe that was never run, with the settings of the first state."""
    names = ("pets",) if walk.state.extra else ("pets", "steady")
    lines = call(walk.workspace, "compare", *names)
    state = walk.claimed(lines[0])
    walk.has_row(lines, state, *names[:-1])
    if not walk.state.extra:
        walk.has_row(lines, State(RECIPE, extra=False), "steady")
    found = json.loads("\n".join(call(walk.workspace, "compare", *names, "--json")))["recipes"]
    assert walk.claimed(found["pets"]["note"]) == state
    walk.matches(found["pets"]["scores"], state)


def see_list(walk):
    found = json.loads("\n".join(call(walk.workspace, "list", "--json")))["pets"]
    state = walk.made[DATASET][found["version"]] if found["version"] else walk.state
    assert found["top1"] == {"synthetic": walk.truth(state).top1["synthetic", "soft"]}
    assert ("earlier version" in found["state"]) == bool(found["version"])


def see_history(walk):
    for artifact in ("prototypes", DATASET):
        known = walk.made[artifact]
        lines = call(walk.workspace, "history", "pets", artifact)
        state = walk.claimed(lines[0], artifact)
        entries = [line.split()[0] for line in lines if re.match(r"\d{8}T", line)]
        assert entries == list(known)
        unlike = walk.truth(known[entries[-1]]).digests, walk.truth(walk.state).digests
        same = [
            {name: digest for name, digest in each.items() if name.startswith(artifact)}
            for each in unlike
        ]
        assert state == (walk.state if same[0] == same[1] else known[entries[-1]])
    found = json.loads("\n".join(call(walk.workspace, "history", "pets", "--json")))
    assert [each["present"] for each in found] == [
        *[False] * (len(found) - 1),
        state == walk.state,
    ]


def see_diff(walk):
    known = list(walk.made[DATASET])
    lines = call(walk.workspace, "diff", "pets", known[0], known[-1])
    state = walk.claimed(lines[0])
    old, new = (walk.truth(walk.made[DATASET][each]) for each in (known[0], known[-1]))
    assert f"{known[0]} -> {known[-1]}" in lines
    [row] = [line for line in lines if line.startswith("synthetic, soft, convnet3")]
    assert row.split()[3:5] == [old.percent(), new.percent()]
    assert walk.truth(state).top1 == new.top1


def see_lineage(walk):
    for artifact, unit in ((DATASET, DATASET), ("synthetic_images", "class-00001")):
        lines = call(walk.workspace, "lineage", "pets", artifact, unit)
        truth = walk.truth(walk.claimed(lines[0], artifact))
        shown = re.findall(r"(\w+/[\w-]+) ([0-9a-f]{12})\b", "\n".join(lines))
        assert shown[0][0] == f"{artifact}/{unit}"
        for name, digest in shown:
            assert truth.digests[name].startswith(digest), name


def see_export(walk, folder):
    shown = json.loads("\n".join(call(walk.workspace, "show", "pets", "--json")))
    command = ("export", "pets", folder, "--format", "imagefolder")
    state = walk.state
    if shown["note"] or shown["folder"] is None:
        error = refused(walk.workspace, *command)
        assert "d4m run pets" in error
        version = list(walk.made[DATASET])[-1]
        assert bool(shown["note"]) == (f"`--version {version}`" in error)
        command, state = (*command, "--version", version), walk.made[DATASET][version]
    call(walk.workspace, *command)
    truth = walk.truth(state)
    for images, name in zip(truth.images, ("00000_cat", "00001_dog"), strict=True):
        files = sorted((folder / "train" / name).iterdir())
        assert np.array_equal(np.stack([np.asarray(Image.open(each)) for each in files]), images)
    card = (folder / "README.md").read_text(encoding="utf-8")
    walk.has_row([line.replace("|", " ") for line in card.splitlines()], state)


def see_restore(walk):
    for number, (version, state) in enumerate(walk.made[DATASET].items()):
        call(walk.workspace, "restore", "pets", version, f"old-{number}")
        path = walk.workspace.recipes / f"old-{number}.yaml"
        found = load_recipe(path).settings.model_dump(mode="json")
        path.unlink()
        assert found == walk.truth(state).settings


def see_report(walk, file):
    call(walk.workspace, "report", "pets", "--output", file)
    page = Page(file.read_text(encoding="utf-8"))
    notice = [words for words in (page.words(),) if "Scores of an earlier version" in words]
    state = walk.claimed(notice[0].partition(". d4m run pets")[0] if notice else "")
    walk.has_row([" ".join(row) for row in page.tables["Scores of pets"]], state)
    assert f"{walk.truth(state).percent()} %" in " ".join(page.words().split())


def see_metadata(walk):
    """The UI: scores belong to the recipe as it is, unless they or what they follow from are stale.

    Dagster calls an asset stale where its own sections have changed, or an asset that it reads.
    """
    walk.ticks.tick()
    record = walk.materialization()
    if record is None:
        return
    metadata = record.asset_materialization.metadata
    state = walk.shown[record.event_log_entry.timestamp]
    truth = walk.truth(state)
    assert metadata["top-1 %, soft labels"].value == float(truth.percent())
    assert metadata["images per class"].value.startswith(f"{truth.ipc} in every training set")
    followed = {"evaluation_scores"}
    for stage in reversed(STAGES):
        followed.update(stage.upstream if stage.name in followed else ())
    if not followed & stale_assets(walk.instance, "pets"):
        assert walk.state.keys_unlike(state) == set()


@pytest.fixture
def walk(tmp_path):
    workspace, rng = Workspace(tmp_path / "workspace"), np.random.default_rng(1)
    for name in ("cat", "dog"):
        for image in range(IMAGES):
            paint(workspace.draw(name, str(image)), rng, coarse=name == "dog")
    workspace.write("pets", RECIPE)
    workspace.run("pets")
    oracle = workspace.copy(tmp_path / "oracle")
    workspace.write("steady", RECIPE)
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(
        str(tmp_path / "home"), overrides={"telemetry": {"enabled": False}}
    ) as made:
        made.add_dynamic_partitions(PARTITIONS, ["pets"])
        yield Walk(workspace, Instance(workspace, made), oracle)


def test_every_front_end_shows_what_made_it_after_random_edits_and_partial_runs(walk, tmp_path):
    rng = np.random.default_rng(0)
    earlier = 0
    for step in range(STEPS):
        walk.edit(rng)
        walk.run(int(rng.integers(0, len(STAGES) + 1)), by_dagster=step in BY_DAGSTER)
        for see in (see_show, see_compare, see_list, see_history, see_diff, see_lineage):
            see(walk)
        see_export(walk, tmp_path / f"export-{step}")
        see_metadata(walk)
        found = call(walk.workspace, "show", "pets")[0]
        if found.startswith("not the present recipe"):
            earlier += 1
        if step % 2:
            see_report(walk, tmp_path / "page.html")
    see_restore(walk)
    assert 1 <= earlier < STEPS  # both happened
    truths = [walk.truth(state) for state in walk.seen]
    figures = {(each.ipc, each.frechet, *each.top1.values()) for each in truths}
    assert len(figures) > len(truths) / 2  # so that those of one are not taken for another's
