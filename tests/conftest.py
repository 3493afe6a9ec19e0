"""Shared by all tests: a tiny recipe, and a store in which it has been run."""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from PIL import Image

from d4m.cli.app import FAILED_CHECK, console
from d4m.compute import Compute, keep_freed_memory, spin_briefly
from d4m.pipeline import Pipeline
from d4m.recipe.recipe import load_recipe
from tests import CALLS, CLOSURES, KINDS

# Tests have instances of their own: whoever imports `d4m_assets` must not touch the user's.
os.environ.pop("DAGSTER_HOME", None)

# Rates of this machine are measured once for all tests, and not among the user's.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"d4m-tests-{os.getuid()}")

# Tests write and copy some hundred thousand small files, which memory takes several times faster
# than a disk; `tmp_path_retention_policy` in pyproject.toml keeps only those of tests that fail.
MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 4 << 30  # noqa: S108
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# As on the command line: idle threads sleep sooner, and freed memory is kept.
spin_briefly()
keep_freed_memory()

# pytest's import of readline exports the terminal's size, so its workers start with a `$COLUMNS`,
# at which the console stays; a command of a test is as wide as the `$COLUMNS` that the test sets.
console._width = None

# A run that made everything; the tiny recipe's teacher has learnt too little for a check.
MADE = (0, FAILED_CHECK)

# A busy machine is slow, not wrong; and the same examples every time, as in all we do.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

# The slowest files, slowest first. Each worker takes whole files in this order, so no worker is
# left idle at the end while another one runs a slow file.
SLOWEST_FIRST = (
    "pipeline/test_digits.py",
    "assets/test_live.py",
    "workers/test_ray.py",
    "pipeline/test_dependencies.py",
    "assets/test_caching.py",
    "pipeline/test_units_say_it_all.py",
    "faults/test_kill.py",
    "pipeline/test_object_store.py",
    "faults/test_damage.py",
    "faults/test_changes.py",
    "assets/test_definitions.py",
    "prototypes/test_refinement.py",
    "parity/test_timm_sizes.py",
    "contracts/test_generator_contract.py",
    "faults/test_disk_full.py",
    "reports/test_present.py",
    "reports/test_plan_ahead.py",
    "assets/test_edited_recipes.py",
    "pipeline/test_cache.py",
    "pipeline/test_determinism.py",
    "assets/test_terminal.py",
    "reports/test_versions.py",
    "cli/test_store.py",
    "prototypes/test_student_regression.py",
    "reports/test_cost.py",
)

# No group of keys is left to the defaults that follow the images: these take minutes.
TINY_RECIPE = """\
dataset: {source: digits}
generator:
  compact:
    autoencoder: {steps: 30, channels: [8, 16]}
    denoiser: {steps: 20, channels: [8, 16], text_width: 16}
prototypes: {ipc: 3, starts: 1}
synthesis: {num_inference_steps: 4}
teacher: {epochs: 2, options: {width: 16}, optimizer: {batch_size: 128}, augmentation: {}}
soft_labels: {epochs: 4, epochs_per_block: 2, augmentation: {}}
evaluation:
  {students: [{architecture: convnet3, options: {width: 16}}, {architecture: test_vit,
  options: {depth: 1}}], seeds: 2, full_data: {epochs: 1}, matching: {}, optimizer: {}}
"""
SECOND_STUDENT = "{architecture: test_vit,\n  options: {depth: 1}}"
ONE_STUDENT = TINY_RECIPE.replace(f", {SECOND_STUDENT}], seeds: 2", "], seeds: 1")
"""The tiny recipe with its first student and first seed alone."""
PROMPTED = TINY_RECIPE + "prompts: {per_class: {three: 'a [b]bold[/b] three'}}\n"
"""The tiny recipe with another prompt for one class, which looks like markup."""

# As little as a folder of images needs; `Workspace.draw` fills the folder.
FOLDER_RECIPE = """\
dataset: {source: image_folder, path: ../images, size_px: 8, test_share: 0.3}
generator: {compact: {autoencoder: {steps: 5, channels: [8, 16]},
  denoiser: {steps: 5, channels: [8, 16], text_width: 16}}}
prototypes: {ipc: 1, starts: 1}
synthesis: {num_inference_steps: 2}
teacher: {epochs: 1, options: {width: 16}}
soft_labels: {epochs: 1}
evaluation: {seeds: 1, baselines: [], students: [{architecture: convnet3, options: {width: 16}}]}
"""


class Workspace:
    """A folder with `recipes/` and `store/`, as a user has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipes = folder / "recipes"
        self.store = folder / "store"
        self.recipes.mkdir(parents=True, exist_ok=True)

    def copy(self, folder: Path) -> "Workspace":
        """Copy everything into a folder that does not exist yet."""
        shutil.copytree(self.folder, folder)
        return Workspace(folder)

    def write(self, name: str, text: str) -> Path:
        path = self.recipes / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def draw(self, class_name: str, image: str) -> Path:
        """A file of noise among the images of a class; other names, other noise."""
        path = self.folder / "images" / class_name / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(f"{class_name}/{image}".encode()))
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
        return path

    def pipeline(self, name: str = "tiny") -> Pipeline:
        return Pipeline(load_recipe(self.recipes / f"{name}.yaml"), self.store, Compute("cpu"))

    def run(self, name: str = "tiny") -> dict[str, tuple[str, ...]]:
        """Names of the units that a run computed, by stage."""
        return {report.manifest.asset: report.computed for report in self.pipeline(name).run()}

    def digests(self, name: str = "tiny") -> dict[str, dict[str, str]]:
        """Digest of every unit of the current manifests."""
        manifests = self.pipeline(name).open_context().upstream
        return {
            stage: {unit: record.digest for unit, record in units.items() if record}
            for stage, units in manifests.items()
        }

    def environment(self) -> dict[str, str]:
        """The environment of a process that works in here."""
        return os.environ | {
            "D4M_RECIPES": str(self.recipes),
            "D4M_STORE": str(self.store),
            "D4M_DEVICE": "cpu",
            "DAGSTER_HOME": str(self.folder / "dagster_home"),
        }


@pytest.fixture(autouse=True)
def alone() -> None:
    """Give each test torch's stream from its beginning, and checks of every function's shapes."""
    torch.manual_seed(0)
    for counted in (CALLS, CLOSURES, KINDS):
        counted.clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty store next to the tiny recipe."""
    made = Workspace(tmp_path / "workspace")
    made.write("tiny", TINY_RECIPE)
    return made


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def make_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]
) -> Path:
    """Return a folder that the first worker to ask for it has filled, for all workers."""
    base = shared_folder(tmp_path_factory)
    folder, unfinished = base / name, base / f"{name}.unfinished"
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            fill(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which one worker has run the tiny recipe: copy it, do not change it."""

    def run_tiny(folder: Path) -> None:
        made = Workspace(folder)
        made.write("tiny", TINY_RECIPE)
        made.run()

    return Workspace(make_once(tmp_path_factory, "finished", run_tiny))


@pytest.fixture(scope="session")
def prompted_once(finished_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with a run of the tiny recipe and one of its other prompt: copy it."""

    def run_prompted(folder: Path) -> None:
        made = finished_once.copy(folder)
        made.write("tiny", PROMPTED)
        made.run()

    return Workspace(make_once(tmp_path_factory, "prompted", run_prompted))


@pytest.fixture(scope="session")
def pets_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which one worker has run a folder of 16 images: copy it."""

    def run_pets(folder: Path) -> None:
        made = Workspace(folder)
        for name in ("cat", "dog"):
            for image in range(8):
                made.draw(name, str(image))
        made.write("pets", FOLDER_RECIPE)
        made.run("pets")

    return Workspace(make_once(tmp_path_factory, "pets", run_pets))


@pytest.fixture
def pets(pets_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace in which a folder of images has been run: few units, few files."""
    return pets_once.copy(tmp_path / "workspace")


@pytest.fixture
def prompted(prompted_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace in which the tiny recipe has been run with both prompts."""
    return prompted_once.copy(tmp_path / "workspace")


@pytest.fixture
def finished(finished_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace in which the tiny recipe has been run."""
    return finished_once.copy(tmp_path / "workspace")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import all tests in an order of the worker's own, so that one worker compiles each file.

    The others find it compiled; otherwise each would spend six seconds on that in a fresh clone.
    """
    folder = Path(__file__).parent
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if count == 1 or folder not in [Path(each).resolve() for each in session.config.args]:
        return
    files = [each for each in sorted(folder.rglob("test_*.py")) if "browser" not in each.parts]
    first = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) * len(files) // count
    for path in files[first:] + files[:first]:
        with suppress(Exception):  # which the collection will meet again, and report
            import_module(".".join(path.relative_to(folder.parent).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the libraries and tests, which stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first and leave all other order random."""
    folder = Path(__file__).parent
    place = {folder / name: number for number, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, with `record_property("measured", ...)`."""
    properties = [each for r in terminalreporter.getreports("passed") for each in r.user_properties]
    if figures := [value for name, value in properties if name == "measured"]:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(str(figure))
