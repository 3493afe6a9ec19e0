"""A cluster of Ray for tests: nodes on the loopback interface only, which can be killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
import torch

PATIENCE_S = 300
_ENVIRONMENT = {
    "RAY_raylet_start_wait_time_s": f"{PATIENCE_S}",
    "RAY_worker_register_timeout_seconds": f"{PATIENCE_S}",
    "RAY_worker_niceness": "0",
    # Otherwise Ray takes 127.0.0.1 for the address by which other machines reach this one.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayNodes:
    """Nodes that are processes of this machine; `cluster` is Ray's own object for them."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.address: str

    def add(self, **options: Any) -> Any:
        """Start a node, the first of which is the head, and return it."""
        node = self.cluster.add_node(node_ip_address="127.0.0.1", **options)
        self.address = self.cluster.address
        return node

    @staticmethod
    def processes(node: Any) -> list[psutil.Process]:
        """Return a node's own process and those of its workers."""
        [raylet] = node.all_processes["raylet"]
        own = psutil.Process(raylet.process.pid)
        return [own, *own.children(recursive=True)]

    @staticmethod
    def kill(processes: list[psutil.Process]) -> None:
        """Kill a node's processes with SIGKILL."""
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@contextmanager
def ray_nodes(*nodes: Mapping[str, Any]) -> Iterator[RayNodes]:
    """Start nodes with these options; `auto` is the address of their cluster.

    The nodes have the environment of this process, with what is in it now.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        import ray

        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        patient = _patiently(ray._private.services.get_node)
        patch.setattr("ray._private.services.get_node", patient)
        ray.shutdown()
        started = RayNodes()
        for options in nodes:
            started.add(**options)
        started.cluster.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", started.address)
        yield started
        ray.shutdown()
        started.cluster.shutdown()


def _patiently(look_up: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for a node to begin for longer than the 30 seconds that Ray allows."""

    def wait(*arguments: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return look_up(*arguments)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return wait
