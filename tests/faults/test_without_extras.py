"""The demo of a recipe without any optional library; what needs one says what to install."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from tests.conftest import Workspace
from tests.faults.conftest import often

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not often(False, True), reason="make test-faults"),
]

# Libraries whose modules have other names.
MODULES = {"dagster-postgres": "dagster_postgres"}
OPTIONAL = {re.split(r"[\[<>=; ]", text)[0] for text in requires("d4m") or () if "extra ==" in text}
MATERIALIZE = ("dagster", "asset", "materialize", "-m", "d4m_assets", "--select", "*")


@pytest.fixture
def call(pets: Workspace, tmp_path):
    """Return what runs a command in which no optional library can be imported."""
    absent = [MODULES.get(name, name) for name in sorted(OPTIONAL)]
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
    )
    home = pets.folder / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    def run(store: Path | str, *command: str, **more: str) -> tuple[int, str]:
        environment = pets.environment() | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "absent"), *sys.path]),
            "D4M_STORE": str(store),
        }
        done = subprocess.run(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            env=environment | more,
            cwd=pets.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return run


def test_every_optional_library_is_one_that_this_test_knows():
    assert {"ray", "obstore", "peft", "datasets", "dagster-postgres"} == OPTIONAL


def test_the_demo_works_without_optional_libraries_which_are_named_where_they_are_needed(
    call, pets: Workspace
):
    new = Workspace(pets.folder)
    new.store = pets.folder / "new"
    code, printed = call(new.store, *MATERIALIZE, "--partition", "pets")
    assert code == 0, printed
    assert new.digests("pets") == pets.digests("pets")
    code, printed = call(new.store, "d4m", "compare", "pets")
    assert code == 0, printed
    assert re.search(r"synthetic .*\d+\.\d\d", printed), printed

    code, printed = call(pets.folder / "other", "d4m", "run", "pets", D4M_WORKERS="ray")
    assert code == 1
    assert "error: D4M_WORKERS=ray needs Ray, which is not installed: `pip install 'd4m[ray]'`" in (
        printed
    )
    code, printed = call("s3://bucket/store", "d4m", "run", "pets")
    assert code == 1
    assert printed == (
        "error: an address at s3://, gs:// or az:// needs obstore, which is not installed: run "
        "`pip install 'd4m[objects]'`\n"
    )
