"""The connection to Ray: the workers that its machines suffice for, and how shards get to them."""

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from d4m.compute import Compute, WorkerSettings
from d4m.errors import WorkerError
from d4m.workers.ray_task import Note, Notes, compute_shard

_STORE_BYTES = 512 << 20  # Ray's object store holds the stages' contexts alone
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # hides no GPU from work that asks for none
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
# A busy machine is slow, not wrong: seconds until a process that is being started counts as lost.
_PATIENT = {"RAY_raylet_start_wait_time_s": "300", "RAY_worker_register_timeout_seconds": "300"}
# Ray would run its workers at a lower priority, at which they hardly move on a busy machine.
_EQUAL = {"RAY_worker_niceness": "0"}
# With these, `localhost` stays the address of a Ray of its own, and its servers listen there alone.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Workers choose their GPU by its number, because a worker outlives a shard and may get another one.
_OWN_CHOICE = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
_OWN = _PATIENT | _EQUAL | _LOOPBACK  # of a Ray that this process starts
_INSTALL = (
    "D4M_WORKERS={address} needs Ray, which is not installed: `pip install 'd4m[ray]'`; without "
    "D4M_WORKERS, this process computes"
)


@dataclass(frozen=True)
class Share:
    """The part of a machine that one worker has.

    Attributes:
        cpus: cores, and threads of its libraries.
        gpus: GPUs, or a share of one.
    """

    cpus: int
    gpus: float


class RayCluster:
    """A running Ray, to which shards are given.

    Args:
        settings: which Ray, and what each worker has.

    Raises:
        WorkerError: Ray is not installed, or cannot be reached.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        """Connect to Ray, or start one on this machine; use the one that this process has."""
        self._settings = settings
        self._asked: Any = None
        self._arrived = ("", 0)
        self.ray: Any = _connect(settings.address)

    def share(self, compute: Compute, *, uses_device: bool) -> Share:
        """Return the part of a machine that each worker of a stage gets.

        Args:
            compute: the device that is asked for.
            uses_device: whether the stage needs one.
        """
        nodes = self._nodes()
        wanted, count = self._settings.cpus, self._settings.count
        cores = min((int(node.get("CPU", 0)) for node in nodes), default=1)
        has_gpus = any(node.get("GPU", 0) for node in nodes)
        if has_gpus and uses_device and _wants_gpu(compute):
            gpus = self._settings.gpus
            each = min(
                int(node.get("CPU", 0)) // max(1, int(node["GPU"] / gpus))
                for node in nodes
                if node.get("GPU", 0)
            )
            return Share(wanted or max(1, each), gpus)
        return Share(wanted or max(1, cores // count if count else 1), 0.0)

    def slots(self, share: Share) -> int:
        """Return how many workers of this size compute at a time, at least 1."""
        found = sum(
            min(
                int(node.get("CPU", 0)) // share.cpus,
                int(node.get("GPU", 0) / share.gpus) if share.gpus else 1 << 30,
            )
            for node in self._nodes()
        )
        return max(1, min(found, self._settings.count or found))

    def submit(self, boxed: list[Any], units: list[Any], shard: int, share: Share) -> Any:
        """Give a shard to Ray; return the reference of its outcome."""
        task = self._task.options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            runtime_env={"env_vars": _environment(share)},
        )
        return task.remote(boxed, units, shard, self.notes, share.gpus)

    @cached_property
    def _task(self) -> Any:
        """The function that computes a shard, whose workers live on with their models.

        Ray does not try again: pieces of a lost shard are given out one by one, see `ShardRun`.
        """
        return self.ray.remote(max_retries=0, max_calls=0)(compute_shard)

    @cached_property
    def notes(self) -> Any:
        """The actor that gathers what workers say."""
        actor = self.ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Notes)
        return actor.remote()

    def take_notes(self, patience_s: float) -> list[Note]:
        """Return what workers have said since the last call, of whichever stage.

        What does not come in time is not asked for again, but waited for by the next call: a stage
        that fails may leave its question to the stage after it, whose first notes are the answer.
        """
        self._asked = self._asked or self.notes.take.remote(*self._arrived)
        ready, _ = self.ray.wait([self._asked], timeout=patience_s)
        if not ready:
            return []
        asked, self._asked = self._asked, None
        try:
            life, arrived, notes = self.ray.get(asked)
        except self.ray.exceptions.RayActorError:
            return []
        self._arrived = (life, arrived)
        return notes

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]


def _wants_gpu(compute: Compute) -> bool:
    """Return whether workers are to have GPUs, if there are any.

    Raises:
        WorkerError: a certain GPU is asked for.
    """
    if compute.requested_device.startswith("cuda:"):
        msg = (
            f"D4M_WORKERS shares out all GPUs, and D4M_DEVICE names one: wanted auto, cuda or cpu, "
            f"found {compute.requested_device!r}; to use some GPUs alone, set CUDA_VISIBLE_DEVICES"
        )
        raise WorkerError(msg)
    return compute.requested_device in ("auto", "cuda")


def _environment(share: Share) -> dict[str, str]:
    """Return the environment variables of a worker: its threads, as many as it has cores."""
    threads = os.environ.get("OMP_NUM_THREADS", str(share.cpus))
    spin = {name: os.environ[name] for name in ("GOMP_SPINCOUNT",) if name in os.environ}
    return {"OMP_NUM_THREADS": threads, **spin, **(_OWN_CHOICE if share.gpus else {})}


def _connect(address: str) -> Any:
    if find_spec("ray") is None:
        raise WorkerError(_INSTALL.format(address=address))
    for name, value in (_QUIET | (_OWN if address == "ray" else {})).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "ray":  # reached by this machine alone
        own = {"_node_ip_address": "127.0.0.1", "object_store_memory": _STORE_BYTES}
        quiet |= {"include_dashboard": False, **own}
    try:
        ray.init(address="local" if address == "ray" else address, **quiet)
    except Exception as failure:  # Ray raises plain exceptions too
        ray.shutdown()
        why = str(failure).strip().rpartition("\n")[2].strip()  # of a traceback, what was raised
        msg = (
            f"D4M_WORKERS={address}: cannot reach Ray ({why}); start it on every machine with "
            f"`ray start`, or set D4M_WORKERS=ray for the CPUs and GPUs of this machine alone"
        )
        raise WorkerError(msg) from failure
    return ray
