"""Changes during a run: to its recipe, its images and its permission to write."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import FOLDER_RECIPE, MADE, ONE_STUDENT, Workspace
from tests.faults.conftest import StoredUnits, often

pytestmark = pytest.mark.faults

BIN = Path(sys.executable).parent
RUN = ["d4m", "run", "tiny"]
MATERIALIZE = [
    "dagster",
    "asset",
    "materialize",
    "-m",
    "d4m_assets",
    "--select",
    "*",
    "--partition",
    "tiny",
]
PATIENCE_S = 300
EDITED = ONE_STUDENT.replace("ipc: 3", "ipc: 2")
EDITED += 'prompts: {template: "another {name}"}\n'


def _run_with_a_change(start, workspace: Workspace, command, moment, change) -> tuple[int, str]:
    """Return the status and output of a run in the middle of which something changes."""
    home, output = workspace.folder / "dagster_home", workspace.folder / "output"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    deadline = time.monotonic() + PATIENCE_S
    process = start(workspace, output, *command)
    try:
        while process.poll() is None and not moment() and time.monotonic() < deadline:
            time.sleep(0.005)
        was_running = process.poll() is None
        change()
        status = process.wait(PATIENCE_S)
    finally:
        process.kill()
    printed = output.read_text()
    assert was_running, f"the moment never came: {printed}"
    return status, " ".join(printed.split())


@pytest.mark.parametrize("command", often([MATERIALIZE], [MATERIALIZE, RUN]))
def test_a_recipe_edited_during_a_run_applies_to_the_next_run(start, stored: StoredUnits, command):
    workspace = stored.workspace
    for stage in ("latents", "synthetic_images", "soft_labels"):
        stored.forget(stage, *stored.names(stage))
    stored.forget("evaluation_scores", "synthetic-soft-convnet3-00", "synthetic-hard-convnet3-00")
    status, printed = _run_with_a_change(
        start,
        workspace,
        command,
        lambda: stored.published("latents") == set(stored.names("latents")),
        lambda: workspace.write("tiny", EDITED),
    )
    assert status in MADE, printed
    assert workspace.digests() == stored.undisturbed
    computed = workspace.run()
    assert {name for name, units in computed.items() if not units} == {
        "real_images",
        "generator",
        "latents",
        "teacher",
        "synthesis_choice",  # no recipe here has units of these two
        "baseline_images",
    }
    assert not any(workspace.run().values())


def test_images_changed_during_a_run_stop_it_and_the_next_run_uses_the_new_ones(
    start, tmp_path: Path
):
    """The error names an image that has changed; no latent is ever made from another image."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.write("pets", FOLDER_RECIPE)
    drawn = {name: [workspace.draw(name, str(n)) for n in range(8)] for name in ("cat", "dog")}

    def change() -> None:
        workspace.draw("cat", "new").rename(drawn["dog"][4])
        drawn["dog"][3].unlink()

    status, printed = _run_with_a_change(
        start,
        workspace,
        ["d4m", "run", "pets"],
        (workspace.store / "recipes" / "pets" / "real_images" / "current.json").exists,
        change,
    )
    assert "Traceback" not in printed
    assert status == 1, printed
    assert "of class 1 ('dog') has changed since it was indexed" in printed
    workspace.run("pets")
    after = workspace.digests("pets")
    shutil.rmtree(workspace.store)
    workspace.run("pets")
    assert workspace.digests("pets") == after


_READ = """\
from d4m.cli import app
for command in ("status tiny", "show tiny", "verify tiny", "history tiny",
                "lineage tiny synthetic_images", "export tiny %s/exported"):
    print(command, flush=True)
    assert not app(command.split(), standalone_mode=False)
"""
_READ_ONLY = """
mount --bind "$D4M_STORE" "$D4M_STORE" && mount -o remount,bind,ro "$D4M_STORE" || exit 99
"{python}" -c '{read}' > "{out}/out" 2>&1 || {{ cat "{out}/out"; exit 98; }}
"{d4m}" run edited 2>&1
echo "rc $?"
"""


def test_a_store_that_cannot_be_written_can_be_read_and_says_so(
    stored: StoredUnits, tmp_path: Path
):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("wanted `unshare -rm`, to mount a store read-only")
    stored.workspace.write("edited", EDITED)
    read = _READ % tmp_path
    script = _READ_ONLY.format(out=tmp_path, d4m=BIN / "d4m", python=sys.executable, read=read)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env=stored.workspace.environment() | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.endswith("rc 1\n")
    assert "Traceback" not in done.stdout
    assert "Read-only file system" in done.stdout
    assert stored.workspace.digests() == stored.undisturbed
    computed = stored.workspace.run("edited")
    assert computed["prototypes"], done.stdout
    assert computed["soft_labels"]
