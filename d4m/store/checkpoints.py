"""Checkpoints of long units, from which the next run goes on where a killed one stopped.

```
<root>/objects/<stage>/<key[:2]>/<key>.checkpoint            which folder, its digest, made by what
<root>/objects/<stage>/<key[:2]>/<key>.checkpoint-<nonce>/   the state
```

A checkpoint is in the store, so whoever computes the unit next finds it, on whatever machine. It is
never read as a unit. It is removed when its unit is published; one that a killed run leaves is
unfinished work, which garbage collection removes when it is old.
"""

import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from d4m.errors import StoreError
from d4m.store.digest import canonical_json, digest_folder
from d4m.store.durable import system_error
from d4m.store.nested import read_nested, write_nested
from d4m.store.storage import Entry, Storage

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
EVERY_S = 50.0  # the step in hand and the writing make it a minute at most
_LOOKS = 3
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
    """The place where one unit's training is saved, more than once a minute.

    A training that takes less than `every_s` saves nothing. Where the store is on a server, a
    thread sends what was saved while the training goes on, and nothing is due before it is done.

    ```python
    progress = checkpoint.resume(parts) or {"step": 0}
    for step in range(progress["step"], steps):
        ...
        if checkpoint.due():
            checkpoint.save({"step": step + 1}, parts)
    ```

    Args:
        storage: the store's; None: nothing is saved or found.
        stage: the unit's stage.
        key: the unit's key.
        device: on which it is trained; the streams of one kind of device are not those of another.
        every_s: seconds between two savings.
    """

    def __init__(
        self,
        storage: Storage | None = None,
        stage: str = "",
        key: str = "",
        *,
        device: str = "cpu",
        every_s: float = EVERY_S,
    ) -> None:
        """Look for nothing yet; the time to the first saving begins."""
        self._storage = storage
        self._name = f"{stage}/{key[:12]}"
        self._pointer = PurePosixPath("objects", stage, key[:2], f"{key}.checkpoint")
        self._device = device.partition(":")[0]
        self._every_s = every_s
        self._since = time.monotonic()
        self._in_use = False
        self._sending: Thread | None = None

    def resume(self, parts: Mapping[str, Stateful]) -> dict[str, Any] | None:
        """Give every part its saved state; return how far the training was, or None.

        A checkpoint that cannot be read, is damaged, or was made by another version of d4m or torch
        or on another kind of device, is not used; a line in the log says so.
        """
        if self._storage is None:
            return None
        state, reason = self._find(self._storage)
        if state is None and not reason:
            return None
        self._in_use = True
        if state is None or state["parts"].keys() != parts.keys():
            _log.warning("%s: its checkpoint is not used: %s", self._name, reason or "other parts")
            return None
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        place = (f"{name} {n}" for name, n in state["progress"].items() if isinstance(n, int))
        _log.info("%s: goes on from its checkpoint at %s", self._name, ", ".join(place))
        return state["progress"]

    def due(self) -> bool:
        """Return whether the last saving is long enough ago, and done."""
        return (
            self._storage is not None
            and time.monotonic() - self._since >= self._every_s
            and not self._is_sending()
        )

    def save(self, progress: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
        """Save how far the training is and the state of its parts, in place of what was saved.

        What a server does not take is no error: a line in the log says so, and the training goes on
        to the next saving.

        Raises:
            StoreError: the checkpoint cannot be written on this machine.
        """
        assert self._storage is not None, "only what is due is saved"
        storage, self._in_use = self._storage, True
        path = self._pointer.with_name(f"{self._pointer.name}-{secrets.token_hex(8)}")
        try:
            draft = self._write(storage, path, progress, parts)
            if not storage.is_remote:
                self._publish(storage, draft, path)
        except Exception as failure:
            cause = system_error(failure)
            if cause is None:
                raise
            where = storage.locate(path.parent)
            msg = f"cannot write a checkpoint of {self._name} to {where}: {cause}"
            raise StoreError(msg) from cause
        self._since = time.monotonic()
        if storage.is_remote:
            self._sending = Thread(target=self._send, args=(storage, draft, path))
            self._sending.start()

    def remove(self) -> None:
        """Remove what was saved, when the unit is published."""
        if not self._in_use or self._storage is None:
            return
        self.wait()
        folder = self._folder(self._storage)
        with suppress(OSError, StoreError):  # a read-only store keeps it
            self._storage.delete(Entry(self._pointer, is_folder=False))
            if folder is not None:
                self._storage.delete(folder)

    def wait(self) -> None:
        """Wait until a server has what was saved."""
        if self._sending is not None:
            self._sending.join()

    def _is_sending(self) -> bool:
        return self._sending is not None and self._sending.is_alive()

    def _write(
        self,
        storage: Storage,
        path: PurePosixPath,
        progress: Mapping[str, Any],
        parts: Mapping[str, Stateful],
    ) -> Path:
        """Write the state into a folder of this machine, which no later step changes."""
        draft = storage.draft(path)
        try:
            draft.mkdir(exist_ok=True)
            states = {name: part.state_dict() for name, part in parts.items()}
            write_nested(draft, {"progress": dict(progress), "parts": states})
        except BaseException:
            storage.discard(draft, path)
            raise
        return draft

    def _send(self, storage: Storage, draft: Path, path: PurePosixPath) -> None:
        """Publish a checkpoint in a thread, in which nobody would see an exception."""
        try:
            self._publish(storage, draft, path)
        # A RuntimeError: the process ends, and starts no threads that would send files.
        except (OSError, StoreError, RuntimeError) as failure:
            _log.warning("%s: its checkpoint was not saved: %s", self._name, failure)

    def _publish(self, storage: Storage, draft: Path, path: PurePosixPath) -> None:
        """Make a written checkpoint durable, and then the one that is found."""
        try:
            record = {
                "path": str(path),
                "digest": digest_folder(draft),
                "made_by": self._made_by(),
            }
            before = self._folder(storage)
            storage.seal(draft, path)
            storage.write(self._pointer, canonical_json(record))
        except BaseException:
            storage.discard(draft, path)
            raise
        if before is not None:
            with suppress(OSError, StoreError):  # what stays is garbage, which is collected later
                storage.delete(before)

    def _made_by(self) -> dict[str, str]:
        versions = {name: installed_version(name) for name in ("d4m", "torch")}
        return {**versions, "device": self._device}

    def _find(self, storage: Storage) -> tuple[dict[str, Any] | None, str]:
        """Return the saved state, or None and why it cannot be used: "" if there is none.

        A slow worker may save the same unit, and so replace what is being read: then look again.
        """
        text, reason = "", ""
        for _ in range(_LOOKS):
            before = text
            try:
                text = storage.read(self._pointer)
            except FileNotFoundError:
                return None, ""
            except (*_BROKEN, OSError, StoreError) as failure:
                return None, f"it cannot be read ({failure})"
            if text == before:
                break
            state, reason = self._read(storage, text)
            if state is not None:
                return state, ""
        return None, reason

    def _read(self, storage: Storage, text: str) -> tuple[dict[str, Any] | None, str]:
        """Return the state that a pointer names, or None and why it cannot be used."""
        try:
            record = json.loads(text)
            if record["made_by"] != self._made_by():
                return None, f"it was made by {record['made_by']}, not by {self._made_by()}"
            with storage.opened(PurePosixPath(record["path"])) as folder:
                if digest_folder(folder) != record["digest"]:
                    return None, "it is damaged, its digest differs"
                return read_nested(folder), ""
        except (*_BROKEN, OSError, StoreError) as failure:
            return None, f"it is damaged ({failure})"

    def _folder(self, storage: Storage) -> Entry | None:
        """Return the folder that the pointer names, if it is one of this unit's."""
        try:
            path = json.loads(storage.read(self._pointer))["path"]
        except (*_BROKEN, OSError, StoreError):
            return None
        folder = self._pointer.with_name(PurePosixPath(str(path)).name)
        is_own = folder.name.startswith(f"{self._pointer.name}-")
        return Entry(folder, is_folder=True) if is_own else None


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
