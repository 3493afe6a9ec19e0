"""The workers that `$D4M_WORKERS` can name."""

from d4m.compute import WorkerSettings
from d4m.workers.base import Workers
from d4m.workers.ray_workers import RayWorkers
from d4m.workers.serial import SerialWorkers


def open_workers(settings: WorkerSettings) -> Workers:
    """Return the workers that the settings name; Ray is started when a unit is to be computed."""
    return SerialWorkers() if settings.address == "serial" else RayWorkers(settings)
