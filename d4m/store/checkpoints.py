"""Checkpoints of long units, from which the next run goes on where a killed one stopped.

```
<root>/objects/<stage>/<key[:2]>/<key>.checkpoint            which folder, its digest, made by what
<root>/objects/<stage>/<key[:2]>/<key>.checkpoint-<nonce>/   the state
```

A checkpoint is never read as a unit. It is removed when its unit is published; one that a killed
run leaves is unfinished work, which garbage collection removes when it is old.
"""

import json
import logging
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from d4m.errors import StoreError
from d4m.store.digest import canonical_json, digest_folder
from d4m.store.durable import make_durable, system_error, write_atomically
from d4m.store.nested import read_nested, write_nested

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_EVERY_S = 60.0
# The errors that broken files may cause, because any byte may be wrong.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@runtime_checkable
class Stateful(Protocol):
    """A part of a training that can be stopped and continued: a network, an optimizer, ..."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes in the course of the training."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take what `state_dict` has returned."""
        ...


class Checkpoint:
    """The place where one unit's training is saved, every minute at most.

    A training that takes less than a minute saves nothing.

    ```python
    progress = checkpoint.resume(parts) or {"step": 0}
    for step in range(progress["step"], steps):
        ...
        if checkpoint.due():
            checkpoint.save({"step": step + 1}, parts)
    ```

    Args:
        root: the store's folder; None: nothing is saved or found.
        stage: the unit's stage.
        key: the unit's key.
        device: on which it is trained; the streams of one kind of device are not those of another.
        every_s: seconds between two savings.
    """

    def __init__(
        self,
        root: Path | None = None,
        stage: str = "",
        key: str = "",
        *,
        device: str = "cpu",
        every_s: float = _EVERY_S,
    ) -> None:
        """Look for nothing yet; the first minute begins."""
        self._root = root
        self._name = f"{stage}/{key[:12]}"
        self._pointer = (root or Path()) / "objects" / stage / key[:2] / f"{key}.checkpoint"
        self._device = device.partition(":")[0]
        self._every_s = every_s
        self._since = time.monotonic()
        self._in_use = False

    def resume(self, parts: Mapping[str, Stateful]) -> dict[str, Any] | None:
        """Give every part its saved state; return how far the training was, or None.

        A checkpoint that is damaged, or was made by another version of d4m or torch or on another
        kind of device, is not used; a line in the log says so.
        """
        if self._root is None or not self._pointer.exists():
            return None
        self._in_use = True
        state, reason = self._read(self._root)
        if state is None or state["parts"].keys() != parts.keys():
            _log.warning("%s: its checkpoint is not used: %s", self._name, reason or "other parts")
            return None
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        place = (f"{name} {n}" for name, n in state["progress"].items() if isinstance(n, int))
        _log.info("%s: goes on from its checkpoint at %s", self._name, ", ".join(place))
        return state["progress"]

    def due(self) -> bool:
        """Return whether the last saving is long enough ago."""
        return self._root is not None and time.monotonic() - self._since >= self._every_s

    def save(self, progress: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
        """Save how far the training is and the state of its parts, in place of what was saved.

        Raises:
            StoreError: the checkpoint cannot be written.
        """
        assert self._root is not None, "only what is due is saved"
        before, self._in_use = self._folder(), True
        folder = self._pointer.with_name(f"{self._pointer.name}-{secrets.token_hex(8)}")
        try:
            folder.mkdir(parents=True)
            states = {name: part.state_dict() for name, part in parts.items()}
            write_nested(folder, {"progress": dict(progress), "parts": states})
            make_durable(folder)
            record = {
                "path": folder.relative_to(self._root).as_posix(),
                "digest": digest_folder(folder),
                "made_by": self._made_by(),
            }
            write_atomically(self._pointer, canonical_json(record))
        except BaseException as failure:
            shutil.rmtree(folder, ignore_errors=True)
            cause = system_error(failure)
            if cause is None:
                raise
            msg = f"cannot write a checkpoint of {self._name} to {folder.parent}: {cause}"
            raise StoreError(msg) from cause
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)
        self._since = time.monotonic()

    def remove(self) -> None:
        """Remove what was saved, when the unit is published."""
        if not self._in_use:
            return
        folder = self._folder()
        with suppress(OSError):  # a read-only store keeps it
            self._pointer.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _made_by(self) -> dict[str, str]:
        versions = {name: installed_version(name) for name in ("d4m", "torch")}
        return {**versions, "device": self._device}

    def _read(self, root: Path) -> tuple[dict[str, Any] | None, str]:
        """Return the saved state, or None and why it cannot be used."""
        try:
            record = json.loads(self._pointer.read_text(encoding="utf-8"))
            if record["made_by"] != self._made_by():
                return None, f"it was made by {record['made_by']}, not by {self._made_by()}"
            folder = root / record["path"]
            if digest_folder(folder) != record["digest"]:
                return None, "it is damaged, its digest differs"
            return read_nested(folder), ""
        except (*_BROKEN, OSError) as failure:
            return None, f"it is damaged ({failure})"

    def _folder(self) -> Path | None:
        """Return the folder that the pointer names, if it is one of this unit's."""
        try:
            path = json.loads(self._pointer.read_text(encoding="utf-8"))["path"]
        except (*_BROKEN, OSError):
            return None
        folder = self._pointer.with_name(Path(str(path)).name)
        return folder if folder.name.startswith(f"{self._pointer.name}-") else None


class RandomStream:
    """A random generator of torch as a part of a training: its own, or a device's global one."""

    def __init__(self, generator: "torch.Generator") -> None:
        """Take the generator."""
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""
        return {"stream": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to where the stream was."""
        self._generator.set_state(state_dict["stream"])


NOWHERE = Checkpoint()
"""The checkpoint of what is trained within less than a unit: nothing is saved."""
