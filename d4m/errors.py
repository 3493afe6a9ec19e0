"""Every error this library raises on purpose.

```
D4MError
├── RecipeError            a recipe that cannot be used: each problem with file, line and key
├── SourceError            images that cannot be found, read or split as the recipe asks
│   ├── SourceChangedError an image that has changed since it was indexed
│   └── UnreadableImageError  bytes that are not a usable image
├── PrototypeError         latents that cannot be clustered as asked
├── GeneratorError         a latent diffusion model that cannot be built, loaded or used as asked
├── ClassifierError        a teacher or student that cannot be built or loaded as asked
├── WorkerError            workers that cannot be had, or that are lost again and again
└── StoreError             an artifact store that cannot be used as asked
    ├── MissingUpstreamError  an upstream artifact that has not been made yet
    ├── UnsafeStoreError      a server that lets two writers create the same object
    └── DamagedUnitError      a stored unit that differs from what was written and was set aside
```
"""


class D4MError(Exception):
    """The base of every error raised on purpose, with a message that says what to do."""


class RecipeError(D4MError):
    """A recipe file that cannot be used."""


class SourceError(D4MError):
    """A data set whose images cannot be found, read or split as the recipe asks."""


class SourceChangedError(SourceError):
    """An image that has changed since it was indexed."""


class UnreadableImageError(SourceError):
    """A file whose bytes are not a usable image.

    The message is the reason, in one line.
    """


class PrototypeError(D4MError):
    """A set of latents that cannot be clustered as asked."""


class GeneratorError(D4MError):
    """A latent diffusion model that cannot be built, loaded or used as asked."""


class ClassifierError(D4MError):
    """A teacher or student that cannot be built or loaded as asked."""


class WorkerError(D4MError):
    """The workers cannot be had as asked, or a unit loses its worker again and again."""


class StoreError(D4MError):
    """An artifact store that cannot be used as asked."""


class MissingUpstreamError(StoreError):
    """An upstream artifact that has not been made yet."""


class UnsafeStoreError(StoreError):
    """A server of an object store that lets two writers create the same object."""


class DamagedUnitError(StoreError):
    """A stored unit that differs from what was written and was set aside.

    Attributes:
        stage: the stage the unit belongs to.
        key: the unit's cache key.
        reason: what is wrong with the unit.
    """

    def __init__(self, stage: str, key: str, reason: str) -> None:
        """Build the message from the unit and what is wrong with it."""
        self.stage = stage
        self.key = key
        self.reason = reason
        super().__init__(
            f"damaged unit {stage}/{key[:12]}: {reason}; it was set aside, and the next run "
            f"computes it again"
        )

    def __reduce__(self) -> tuple[type["DamagedUnitError"], tuple[str, str, str]]:
        """Let a worker send the error to the process that gave it the work."""
        return type(self), (self.stage, self.key, self.reason)
