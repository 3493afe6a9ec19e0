"""A full disk causes a clear error in every stage, and the run completes once space is freed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from d4m.pipeline import STAGES
from tests.conftest import MADE
from tests.faults.conftest import StoredUnits, often

pytestmark = pytest.mark.faults

# This script runs in its own user namespace, where a user without rights can mount a small disk.
_ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} none "$D4M_STORE" || exit 99
cp -a "{source}/." "$D4M_STORE" || exit 98
dd if=/dev/zero of="$D4M_STORE/filler" bs=4096 2>/dev/null
truncate -s -{spare} "$D4M_STORE/filler"
"{d4m}" run tiny > "{out}/full.out" 2> "{out}/full.err"
echo $? > "{out}/full.rc"
find "$D4M_STORE" -name '.*.json-*' > "{out}/temporary"
rm "$D4M_STORE/filler"
"{d4m}" run tiny > "{out}/free.out" 2> "{out}/free.err"
echo $? > "{out}/free.rc"
cp -a "$D4M_STORE" "{out}/store"
"""
# No recipe here has units of these stages.
_STAGES = [
    stage.name for stage in STAGES if stage.name not in ("synthesis_choice", "baseline_images")
]
# One stage whose units are arrays and one whose unit is files; neither needs a model.
_CHOSEN = often(["prototypes", "distilled_dataset"], _STAGES)


@pytest.fixture(scope="session", autouse=True)
def _namespaces() -> None:
    """Skip the tests if the kernel gives users no namespaces."""
    try:
        subprocess.run(["unshare", "-rm", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("wanted `unshare -rm`, to mount a small disk without rights")


@pytest.mark.parametrize("spare", often([4096], [0, 4096, 16384]))
@pytest.mark.parametrize("stage", _CHOSEN)
def test_a_full_disk_is_named_and_once_there_is_space_the_run_completes(
    stored: StoredUnits, tmp_path: Path, stage: str, spare: int
):
    stored.forget(stage, *stored.names(stage))
    mounted, out = tmp_path / "mounted", tmp_path / "out"
    mounted.mkdir()
    out.mkdir()
    size = 2 * sum(p.stat().st_blocks * 512 for p in stored.workspace.store.rglob("*")) + (8 << 20)
    script = _ON_A_SMALL_DISK.format(
        size=size,
        source=stored.workspace.store,
        spare=spare,
        d4m=Path(sys.executable).with_name("d4m"),
        out=out,
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env=stored.workspace.environment() | {"D4M_STORE": str(mounted)},
        capture_output=True,
        text=True,
        check=False,
    )
    read = {path.name: path.read_text() for path in out.iterdir() if path.is_file()}
    assert done.returncode == 0, (done.stderr, read)
    assert read["full.rc"] == "1\n"
    assert "Traceback" not in read["full.err"]
    assert "error: " in read["full.err"]
    assert "No space left on device" in " ".join(read["full.err"].split())
    assert read["temporary"] == ""
    assert int(read["free.rc"]) in MADE, read["free.err"]
    workspace = stored.workspace
    shutil.rmtree(workspace.store)
    (out / "store").rename(workspace.store)
    assert workspace.digests() == stored.undisturbed
    assert [found for found in workspace.pipeline().verify() if found[2]] == []
    assert json.loads((workspace.store / "recipes" / "tiny" / stage / "current.json").read_text())
