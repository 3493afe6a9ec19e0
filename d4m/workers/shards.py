"""Cut the work of a stage into shards, each of which a worker computes in one go."""

from collections import deque
from collections.abc import Sequence

from d4m.store.reference import Unit

Piece = list[Unit]
_SHARDS_PER_WORKER = 4
_SECONDS = 60.0


class Shards:
    """The pieces that nobody computes yet, from which shards are cut as workers get free.

    At first a shard is a fourth of what each worker gets, so that a lost or slow worker costs no
    more than that. If these turn out to take less than a minute, the next ones are larger.

    Args:
        pieces: parts of the work that can be computed apart.

    Example:
        >>> shards = Shards([[unit] for unit in range(16)])
        >>> len(shards.take(workers=2)), len(shards.take(workers=2))
        (2, 2)
        >>> shards.record(pieces=2, seconds=1.0)
        >>> len(shards.take(workers=2))  # half of what is left, as a minute is worth far more
        6
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Hold all pieces."""
        self._waiting = deque(pieces)
        self._alone = deque[Piece]()
        self._pieces = len(pieces)
        self._measured, self._seconds = 0, 0.0

    def __len__(self) -> int:
        """Return how many pieces wait."""
        return len(self._waiting) + len(self._alone)

    def take(self, workers: int) -> list[Piece]:
        """Cut the next shard.

        Args:
            workers: how many work at a time.
        """
        if self._alone:
            return [self._alone.popleft()]
        return [self._waiting.popleft() for _ in range(self._size(workers))]

    def give_back(self, pieces: Sequence[Piece]) -> None:
        """Take the pieces of a lost worker, each of which becomes a shard: one may be at fault."""
        self._alone.extend(pieces)

    def record(self, *, pieces: int, seconds: float) -> None:
        """Learn how long pieces took."""
        self._measured += pieces
        self._seconds += seconds

    def _size(self, workers: int) -> int:
        size = -(-self._pieces // (_SHARDS_PER_WORKER * workers))
        if self._measured:
            per_piece = max(self._seconds / self._measured, 1e-6)
            size = max(size, int(_SECONDS / per_piece))
        most = -(-len(self._waiting) // workers)  # each worker is to have something to do
        return min(size, most)
