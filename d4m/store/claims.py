"""Claims on units that are being computed, so that no other run computes them too.

```
<root>/claims/<stage>/<nonce>.json    the keys that one run computes now, and a pulse
<root>/claims/<stage>/<nonce>.wish    the keys for which a run waits, and a pulse
<root>/claims/<stage>/lock            held by a run for as long as it takes to write a claim
```

Claims are written one run at a time, under a short lock. They save work, and correctness never
depends on them: if two runs compute a unit all the same, the first to publish it wins. A claim is
renewed by a thread while its run lives. One that has not changed for a minute, by the clock of
whoever looks at it, or whose process has ended on this machine, is void, and so is such a lock or
wish. Whoever sees a wish gives up half of what it has not begun, see `Claim`.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from d4m.errors import StoreError, UnsafeStoreError
from d4m.store.digest import canonical_json
from d4m.store.reference import Unit
from d4m.store.storage import CLAIMS, Entry, Storage

_log = logging.getLogger(__name__)
_PULSE_S = 10.0
_VOID_S = 60.0
_LOOK_S = 1.0
_LOCK = "lock"
_CLAIM, _WISH = ".json", ".wish"


class Claim:
    """The units that one run computes, until the end of `Claims.take`.

    ```python
    claim.divide(pieces)
    for piece in pieces:
        if not claim.begin(piece):
            break
    ```

    Args:
        units: what is claimed.
        write: writes the claim on these units.
    """

    def __init__(self, units: list[Unit], write: Callable[[Iterable[Unit]], None]) -> None:
        """Hold units whose claim is written already."""
        self.units = units
        self._write = write
        self._lock = threading.Lock()
        self._waiting = dict[str, list[Unit]]()  # pieces by the key of their first unit
        self._given = set[str]()

    def divide(self, pieces: Sequence[list[Unit]]) -> None:
        """Say which units are computed together, and in which order.

        From now on, whenever another run waits for some of them, it is given the last half of the
        pieces but the first that have not begun.
        """
        with self._lock:
            self._waiting = {piece[0].key: piece for piece in pieces[1:]}

    def begin(self, piece: Sequence[Unit]) -> bool:
        """Keep a piece, whoever waits; return whether it has not been given away."""
        with self._lock:
            for unit in piece:
                self._waiting.pop(unit.key, None)
            return piece[0].key not in self._given

    def renew(self, *, wanted: bool) -> None:
        """Write the claim again, with another pulse, and without what a run that waits is given."""
        with self._lock:
            if wanted:
                pieces = [*self._waiting.values()]
                given = pieces[len(pieces) // 2 :]
                self._waiting = {piece[0].key: piece for piece in pieces[: len(pieces) // 2]}
                self._given |= {unit.key for piece in given for unit in piece}
                self.units = [unit for unit in self.units if unit.key not in self._given]
            self._write(self.units)


@dataclass
class Claims:
    """The claims of one run on units of a stage.

    ```python
    with claims.take(missing) as claim:
        ...  # compute and publish claim.units
    if not claim.units:
        wait_for_any([(claims, missing)])
    ```

    Attributes:
        storage: the store's.
        stage: the stage's name.
    """

    storage: Storage
    stage: str
    _seen: dict[PurePosixPath, tuple[str, float]] = field(
        default_factory=dict[PurePosixPath, tuple[str, float]]
    )

    @contextmanager
    def take(self, units: Iterable[Unit]) -> Generator[Claim]:
        """Claim those units that no other run has claimed, until the end of the block.

        Yields:
            The claim. In a store that cannot be written it is on all units: the first one will say
            so.

        Raises:
            UnsafeStoreError: the server of the store would let units be overwritten.
        """
        units = list(units)
        path = CLAIMS / self.stage / f"{secrets.token_hex(8)}{_CLAIM}"
        ended = threading.Event()

        def write(units: Iterable[Unit]) -> None:
            with suppress(StoreError, OSError):  # at worst, others compute these units too
                self.storage.write(path, _claim(units))

        try:
            with self._lock():
                taken = self._taken()
                claim = Claim([unit for unit in units if unit.key not in taken], write)
                self.storage.write(path, _claim(claim.units))
        except UnsafeStoreError:
            raise
        except (StoreError, OSError):
            yield Claim(units, lambda _: None)
            return
        pulse = threading.Thread(target=self._beat, args=(claim, ended), daemon=True)
        pulse.start()
        try:
            yield claim
        finally:
            ended.set()
            pulse.join()
            self._remove(path)

    @contextmanager
    def wish(self, units: Iterable[Unit]) -> Generator[Callable[[], bool]]:
        """Let runs that compute these units see that another one waits, until the end of the block.

        Yields:
            What says whether one of the units has no valid claim any more: it is published, or
            given up. To be asked again and again, which keeps the wish valid.
        """
        units = list(units)
        keys = {unit.key for unit in units}
        path = CLAIMS / self.stage / f"{secrets.token_hex(8)}{_WISH}"
        wished = -_PULSE_S

        def is_free() -> bool:
            nonlocal wished
            if not keys <= self._taken():
                return True
            if time.monotonic() - wished >= _PULSE_S:
                wished = time.monotonic()
                with suppress(StoreError, OSError):
                    self.storage.write(path, _claim(units))
            return False

        try:
            yield is_free
        finally:
            self._remove(path)

    def _beat(self, claim: Claim, ended: threading.Event) -> None:
        """Renew a claim, and look for wishes, until the run ends its work on the units."""
        while not ended.wait(_PULSE_S):
            with suppress(StoreError, OSError):
                own = {unit.key for unit in claim.units}
                claim.renew(wanted=any(own & keys for keys in self._unanswered()))

    @contextmanager
    def _lock(self) -> Generator[None]:
        """Keep other runs from writing claims on units of this stage."""
        entry = Entry(CLAIMS / self.stage / _LOCK, is_folder=False)
        while not self.storage.create(entry.path, _claim(())):
            if not self._remove_if_void(entry, self._read(entry)):
                time.sleep(_LOOK_S / 20)
        try:
            yield
        finally:
            self.storage.delete(entry)

    def _unanswered(self) -> list[set[str]]:
        """Return the keys of each wish none of whose units is free."""
        wishes = [set[str](json.loads(text)["keys"]) for text in self._valid(_WISH)]
        taken = self._taken() if wishes else set[str]()
        return [keys for keys in wishes if keys <= taken]

    def _taken(self) -> set[str]:
        """Return the keys of all valid claims."""
        return {key for text in self._valid(_CLAIM) for key in json.loads(text)["keys"]}

    def _valid(self, suffix: str) -> list[str]:
        """Return what the valid claims or wishes say, and remove those that are void."""
        entries = [e for e in self.storage.entries(CLAIMS / self.stage) if e.path.suffix == suffix]
        texts = zip(entries, self.storage.each(self._read, entries), strict=True)
        return [text for entry, text in texts if not self._remove_if_void(entry, text)]

    def _remove(self, path: PurePosixPath) -> None:
        with suppress(StoreError, OSError):  # it is void in a minute
            self.storage.delete(Entry(path, is_folder=False))

    def _remove_if_void(self, entry: Entry, text: str) -> bool:
        """Return whether a claim or lock is void, and remove it if so."""
        before, since = self._seen.get(entry.path, ("", 0.0))
        if text != before:
            since = time.monotonic()
            self._seen[entry.path] = text, since
        if time.monotonic() - since <= _VOID_S and not _has_ended(text):
            return False
        self._remove(entry.path)
        return True

    def _read(self, entry: Entry) -> str:
        try:
            return self.storage.read(entry.path)
        except FileNotFoundError:
            return _claim(())  # it has just been removed
        except UnicodeDecodeError:
            return ""  # which is no claim


def wait_for_any(held: Iterable[tuple[Claims, Sequence[Unit]]]) -> None:
    """Wait until a unit has no valid claim any more: published, or given up because of the wish.

    Args:
        held: units of one stage or of several, with the claims that say who computes them.
    """
    held = list(held)
    stages = ", ".join(f"{claims.stage} ({len(units)})" for claims, units in held)
    _log.info("waiting for units that another run computes: %s", stages)
    with ExitStack() as wishes:
        free = [wishes.enter_context(claims.wish(units)) for claims, units in held]
        while not any(is_free() for is_free in free):
            time.sleep(_LOOK_S)


def _claim(units: Iterable[Unit]) -> str:
    """Return the text of a claim by this process, with another pulse every time."""
    holder = {"host": socket.gethostname(), "process": os.getpid()}
    keys = sorted(unit.key for unit in units)
    return canonical_json({**holder, "keys": keys, "pulse": secrets.token_hex(8)})


def _has_ended(text: str) -> bool:
    """Return whether the process of a claim has ended, or the claim is none."""
    try:
        claim = json.loads(text)
        process, here = int(claim["process"]), claim["host"] == socket.gethostname()
        return not isinstance(claim["keys"], list) or (here and not _is_alive(process))
    except (ValueError, LookupError, TypeError):
        return True


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
