"""Kills of workers, nodes, drivers and servers at random moments, until all is made."""

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from cluster_runs import D4M, digests_of, finish, forget, open_pipeline, run_tiny, start

from d4m.pipeline import STAGES
from tests.object_stores import SeaweedFS
from tests.ray_nodes import RayNodes, ray_nodes

VICTIMS = ("worker", "node", "driver", "server")


def measure_kills(arguments: argparse.Namespace, folder: Path, server: SeaweedFS) -> None:
    """Kill a worker, a node, the driver or the server at random moments; go on until all is made.

    What a run has published before a kill must be there, as it was, after the next run.
    """
    recipe, root, digests = run_tiny(folder, "kills")
    rng, kills, forgotten, kept = np.random.default_rng(5), dict.fromkeys(VICTIMS, 0), 0, 0
    with ray_nodes({"num_cpus": 1, "include_dashboard": False}, *2 * [{"num_cpus": 1}]) as nodes:
        on = root | {"D4M_WORKERS": "auto", "D4M_WORKER_CPUS": "1"}
        doomed = nodes.add(num_cpus=1)
        while sum(kills.values()) < arguments.kills:
            victim = str(rng.choice(arguments.victims))
            stages = rng.choice([stage.name for stage in STAGES], 4, replace=False)
            forgotten += sum(forget(open_pipeline(recipe, root), str(stage)) for stage in stages)
            process = start([D4M, "run", recipe], on)
            time.sleep(rng.uniform(3, 25))
            published = _published(recipe, root)
            killed = process.poll() is None and _kill(victim, process, server, nodes, doomed)
            printed = process.communicate()[0]
            assert "Traceback" not in printed, printed
            if victim == "node" and killed:
                nodes.cluster.remove_node(doomed, allow_graceful=False)
                doomed = nodes.add(num_cpus=1)
            finish(start([D4M, "run", recipe], on))
            assert digests_of(recipe, root) == digests
            after = _published(recipe, root)
            again = [name for name, place in published.items() if after.get(name) != place]
            assert not again, f"published before the {victim} was killed, and made again: {again}"
            kills[victim] += killed
            kept += killed * len(published)
            print(f"{sum(kills.values())} of {arguments.kills} kills: {kills}", file=sys.stderr)
    print(f"| kills of a {' | of a '.join(VICTIMS)} | units forgotten | units kept | digests |")
    print(f"|{'---|' * (len(VICTIMS) + 3)}")
    print(
        f"| {' | '.join(map(str, kills.values()))} | {forgotten:,} | {kept:,} | equal after each |"
    )


def _published(recipe: Path, root: dict[str, str]) -> dict[str, str]:
    """Return the folder of every stored unit of the artifacts that are current."""
    context = open_pipeline(recipe, root).open_context()
    found = {
        f"{stage}/{name}": context.store.find(stage, record.key)
        for stage, units in context.upstream.items()
        for name, record in units.items()
        if record is not None
    }
    return {name: reference.path for name, reference in found.items() if reference is not None}


def _kill(
    victim: str, process: subprocess.Popen[str], server: SeaweedFS, nodes: RayNodes, doomed: Any
) -> bool:
    """Kill with SIGKILL; return whether the victim was there."""
    match victim:
        case "server":
            server.kill()
            server.start()
        case "driver":
            os.killpg(process.pid, signal.SIGKILL)
        case "node":
            nodes.kill(nodes.processes(doomed))
        case "worker":
            while process.poll() is None:
                if computing := [each for each in _children() if _computes(each)]:
                    nodes.kill(computing[:1])
                    return True
                time.sleep(0.1)
            return False
        case _:
            raise AssertionError(victim)
    return True


def _children() -> list[psutil.Process]:
    """Return all processes that this one has started, which the nodes of Ray are among."""
    return psutil.Process().children(recursive=True)


def _computes(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return (process.cmdline() or [""])[0].startswith("ray::compute_shard")
    return False
