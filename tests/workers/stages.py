"""Stages whose units cost nothing, for tests of who computes them: workers import this module."""

import logging
import os
import time
from pathlib import Path

import numpy as np

from d4m.errors import PrototypeError, StoreError
from d4m.stages.base import Stage
from d4m.stages.context import Inputs

_log = logging.getLogger("d4m.tests")
PATIENCE_S = 120


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Squares(Stage):
    """Units in the layout of latents; the numbers in them are the squares of their names.

    Args:
        folder: where each worker writes which process computes which unit.
        count: how many units.
        seconds: that each unit takes.
        company: how many processes must have begun before any unit is done.
        lasting: a unit that the first process which begins it does not do before another has begun.
        hanging: a unit that the first process which begins it never does.
        bad: a unit that cannot be computed.
        deadly: a unit that kills its process.
    """

    name = "latents"
    sections = ()
    divisible = True

    def __init__(
        self,
        folder: Path,
        *,
        count=10,
        seconds=0.0,
        company=1,
        lasting=None,
        hanging=None,
        bad=None,
        deadly=None,
    ):
        self.folder, self.count, self.seconds = folder, count, seconds
        self.company, self.lasting, self.hanging = company, lasting, hanging
        self.bad, self.deadly = bad, deadly

    def plan(self, context):
        return [
            self.unit(context, f"{number:02d}", Inputs({"number": number}))
            for number in range(self.count)
        ]

    def compute(self, context, missing):
        for unit in missing:
            number = int(unit.name)
            device = context.compute.requested_device
            (self.folder / f"{unit.name}-{os.getpid()}-{device}").touch()
            _log.info("at unit %s", unit.name)
            time.sleep(self.seconds)
            if self.company > 1:
                wait_until(lambda: len(set.union(*self.processes().values())) >= self.company)
            if number == self.lasting:
                wait_until(lambda name=unit.name: len(self.processes()[name]) > 1)
            if number == self.hanging and len(self.processes()[unit.name]) == 1:
                time.sleep(PATIENCE_S)
            if number == self.bad:
                msg = f"no square of {number}: free some space"
                raise StoreError(msg) from OSError(28, "No space left on device")
            if number == self.deadly:
                os.kill(os.getpid(), 9)
            yield unit, {"latents": np.full((1, 4, 2, 2), (number % 256) ** 2, "float16")}

    def processes(self):
        """Return the processes that computed each unit."""
        found: dict[str, set[int]] = {}
        for path in self.folder.iterdir():
            unit, process, _ = path.name.split("-")
            found.setdefault(unit, set()).add(int(process))
        return found

    def devices(self):
        return {path.name.split("-")[2] for path in self.folder.iterdir()}


class Models(Squares):
    """Each unit holds how many models its process has loaded so far, and asks for one of three."""

    loaded = 0

    def compute(self, context, missing):
        for unit in missing:
            context.models.get(unit.settings["number"] % 3, self._load)
            yield unit, {"latents": np.full((1, 4, 2, 2), Models.loaded, "float16")}

    def _load(self):
        Models.loaded += 1
        return "a model"


class Together(Squares):
    """Units that must be made together."""

    divisible = False

    def compute(self, context, missing):
        if len(missing) != self.count:
            msg = "wanted all units"
            raise PrototypeError(msg)
        yield from super().compute(context, missing)
