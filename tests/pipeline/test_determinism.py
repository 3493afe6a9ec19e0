"""The same recipe is the same data set, whichever process makes it and wherever it is."""

import subprocess
import sys
from pathlib import Path

D4M = Path(sys.executable).with_name("d4m")


def test_another_process_with_another_store_makes_every_unit_with_the_same_digest(
    workspace, finished_once
):
    environment = workspace.environment() | {"PYTHONHASHSEED": "77"}
    subprocess.run(
        [D4M, "run", "tiny"],
        env=environment,
        cwd=workspace.folder,
        check=False,
        capture_output=True,
    )
    assert workspace.digests() == finished_once.digests()
    assert sum(len(units) for units in workspace.digests().values()) == 79
