"""Every command over a real object store prints what it prints over a folder."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from d4m.cli import app
from d4m.compute import Compute, WorkerSettings
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from d4m.store.open_storage import StoreRoot, open_storage
from d4m_assets.partitions import PARTITIONS
from d4m_assets.resources import StoreResource
from tests.assets.conftest import computed_by, opened
from tests.conftest import FOLDER_RECIPE, MADE, Workspace
from tests.export.hub import serving
from tests.faults.conftest import often
from tests.marks import COPY_KEYWORD
from tests.object_stores import BUCKET

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        often(True, False), reason="a real object store is 153 MB: `make test-faults` installs it"
    ),
    # huggingface_hub streams files by an older name of an argument of httpx.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    COPY_KEYWORD,
]

EARLIER = FOLDER_RECIPE.replace("ipc: 1", "ipc: 2")
RECIPE = EARLIER.replace("num_inference_steps: 2", "num_inference_steps: 3")
STRAY = PurePosixPath("objects", "latents", "00", f"{'0' * 64}-{'0' * 16}", "zarr.json")
RUN_COUNTS = r"^(\w+ +\d+ computed +\d+ reused)|^(\d+ units computed)"


@dataclass(frozen=True)
class Place:
    """A store with two versions of the recipe `pets`, and a folder for what commands write."""

    workspace: Workspace
    root: StoreRoot
    written: Path

    @property
    def pipeline(self) -> Pipeline:
        recipe = load_recipe(self.workspace.recipes / "pets.yaml")
        return Pipeline(recipe, self.root, Compute("cpu"))

    def call(self, command: str) -> tuple[int, str]:
        """Return the exit code and the output of a command in this process."""
        named = command.format(written=self.written, images=self.workspace.folder / "images")
        environment = self.workspace.environment() | {
            "D4M_STORE": str(self.root),
            "COLUMNS": "200",
        }
        result = CliRunner().invoke(app, named.split(), env=environment)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.stdout

    def digests(self) -> dict[str, dict[str, str]]:
        return {
            stage: {name: record.digest for name, record in units.items() if record}
            for stage, units in self.pipeline.open_context().upstream.items()
        }


def _set_latents_aside(place: Place):
    """Take a class's latents out of the store, and keep them as a file to adopt."""
    context = place.pipeline.open_context()
    latents = context.read("latents", "class-00000")["latents"]
    np.save(place.written / "class-00000.npy", latents)
    record = context.upstream["latents"]["class-00000"]
    assert record is not None
    context.store.set_aside("latents", record.key)


def _leave_a_stray(place: Place):
    """Write what a killed writer leaves behind."""
    open_storage(place.root).write(STRAY, "{}")


def _page(place: Place) -> object:
    text = (place.written / "page.html").read_text()
    return re.findall(r"<h\d[^>]*>.*?</h\d>", text), text.count("<img")


def _exported(place: Place) -> object:
    return {
        path.name: path.read_bytes()
        for path in sorted((place.written / "export").rglob("*.parquet"))
    }


def _picture(place: Place) -> object:
    return (place.written / "changes.png").read_bytes()


def _restored(place: Place) -> object:
    text = (place.workspace.recipes / "earlier.yaml").read_text()
    (place.workspace.recipes / "earlier.yaml").unlink()
    assert "num_inference_steps: 2" in text
    return text.partition("\n")[2]  # the first line names the version, and with it a time


def _begun(place: Place) -> object:
    text = (place.workspace.recipes / "first.yaml").read_text()
    (place.workspace.recipes / "first.yaml").unlink()
    return text


def _all_stored(place: Place) -> object:
    """Return all digests; every unit must be intact."""
    assert [found for found in place.pipeline.verify() if found[2]] == []
    return place.digests()


@dataclass(frozen=True)
class Case:
    """A command, and the lines that it must print over both stores.

    Attributes:
        command: as it is typed.
        facts: a pattern whose matches must be the same over both, and one at least.
        prepare: is called before.
        left: what the command has left behind, which must be the same over both.
    """

    command: str
    facts: str
    prepare: Callable[[Place], None] = lambda _: None
    left: Callable[[Place], object] = lambda _: None


CASES = (
    Case("run pets", RUN_COUNTS, left=_all_stored),
    Case("status pets", r"^ *(\w+ +\d+ +\d+ +\d+) *$|(everything is cached)"),
    Case("status pets --cost", r"^ *(\w+ +\d+ +\d+ +\d+) *$|(everything is stored.*)"),
    Case("show pets", r"^ *(.*\d+\.\d\d.*)$"),
    Case("compare pets --training-set synthetic", r"^ *(.*\d+\.\d\d.*)$"),
    Case("list", r"^ *(pets .*)$"),
    Case("prompts pets", r"^ *(\d .*|negative prompt.*)$"),
    Case("verify pets --images", r"^(\d+ .*)$"),
    Case("history pets", r"(\(current\).*|\d+ of \d+ units changed.*)|^    (.*)$"),
    Case("lineage pets synthetic_images class-00001", r"(\w+/[\w-]+ [0-9a-f]{12})|(sha256 \w+)"),
    Case("diff pets --picture {written}/changes.png", r"^(\w+: .*|synthesis.*)$", left=_picture),
    Case("restore pets previous earlier", r"wrote .*(earlier)", left=_restored),
    Case("export pets {written}/export", r"wrote .*(export)", left=_exported),
    Case("push pets someone/pets", r"uploaded to http://[^/]*/(.*)"),
    Case("report pets --output {written}/page.html", r"wrote .*(page)", left=_page),
    Case("diagnose pets --parts 2 --sets 0", r"^ *(.*\d+\.\d.*)$"),
    Case("init {images} --name first", r"^(.*(?:classes|images).*)$", left=_begun),
    Case(
        "adopt pets latents {written}/class-00000.npy --unit class-00000 --by Ada",
        r"(adopted .*)",
        _set_latents_aside,
        _all_stored,
    ),
    Case(
        "gc --yes --grace-hours 0",
        r"latents +(unfinished files of killed writers) +(1) ",
        _leave_a_stray,
        _all_stored,
    ),
)


@pytest.fixture(scope="module")
def places(server, tmp_path_factory):
    """The same two versions of a recipe, made over a folder and over a bucket."""
    assert server
    own = Workspace(tmp_path_factory.mktemp("commands"))
    for name in ("cat", "dog"):
        for image in range(8):
            own.draw(name, str(image))
    places = Place(own, own.store, own.folder), Place(own, f"s3://{BUCKET}/commands", own.folder)
    for text in (EARLIER, RECIPE):
        own.write("pets", text)
        made = [place.call("run pets") for place in places]
        assert all(code in MADE for code, _ in made)
        assert len({str(re.findall(RUN_COUNTS, printed, re.MULTILINE)) for _, printed in made}) == 1
    assert places[0].digests() == places[1].digests()
    return places


@pytest.fixture(scope="module")
def hub():
    """Serve a hub on this machine; return its address."""
    with serving() as made:
        yield made.address


def test_every_command_has_a_case():
    assert {case.command.split()[0] for case in CASES} == {*get_command(app).commands}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command.partition("{")[0].strip())
def test_a_command_prints_the_same_over_a_bucket_as_over_a_folder(
    places, hub, case, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_tests")
    monkeypatch.setenv("HF_ENDPOINT", hub)
    found = []
    for number, place in enumerate(places):
        own = replace(place, written=tmp_path / str(number))
        own.written.mkdir()
        case.prepare(own)
        code, printed = own.call(case.command)
        facts = re.findall(case.facts, printed, re.MULTILINE)
        assert facts, printed
        found.append((code, facts, case.left(own)))
    assert found[0] == found[1]
    assert found[0][0] in MADE if case.command.startswith("run") else found[0][0] == 0


def test_dagster_finds_every_artifact_in_a_bucket(places):
    folder, bucket = places
    with opened(folder.workspace) as instance:
        instance.dagster.add_dynamic_partitions(PARTITIONS, ["pets"])
        instance.store = StoreResource.at(bucket.root, Compute("cpu"), WorkerSettings())
        result = instance.materialize("pets")
        made = computed_by(result)
    assert result.success
    assert {*made} == {*bucket.digests()}
    assert not any(made.values())
