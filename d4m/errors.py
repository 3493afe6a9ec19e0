"""Every error this library raises on purpose.

```
D4MError
├── RecipeError            a recipe that cannot be used: each problem with file, line and key
├── SourceError            images that cannot be found, read or split as the recipe asks
│   ├── SourceChangedError an image is no longer the one that was indexed
│   └── UnreadableImageError  bytes that are not an image that can be used
├── PrototypeError         latents that cannot be clustered as asked
├── GeneratorError         a latent diffusion model that cannot be built, loaded or used as asked
├── ClassifierError        a teacher or student that cannot be built or loaded as asked
└── StoreError             an artifact store that cannot be used as asked
    ├── MissingUpstreamError  an upstream artifact has not been made yet
    └── DamagedUnitError      a stored unit is not what was written; it has been set aside
```
"""


class D4MError(Exception):
    """Base of every error raised on purpose; its message names what to do."""


class RecipeError(D4MError):
    """A recipe file that cannot be used."""


class SourceError(D4MError):
    """Images that cannot be found, read or split as the recipe asks."""


class SourceChangedError(SourceError):
    """An image is no longer the one that was indexed."""


class UnreadableImageError(SourceError):
    """Bytes that are not an image that can be used; the message is the reason, in one line."""


class PrototypeError(D4MError):
    """Latents that cannot be clustered as asked."""


class GeneratorError(D4MError):
    """A latent diffusion model that cannot be built, loaded or used as asked."""


class ClassifierError(D4MError):
    """A teacher or student that cannot be built or loaded as asked."""


class StoreError(D4MError):
    """An artifact store that cannot be used as asked."""


class MissingUpstreamError(StoreError):
    """An upstream artifact has not been made yet."""


class DamagedUnitError(StoreError):
    """A stored unit is not what was written; it has been set aside.

    Attributes:
        stage: the stage the unit belongs to.
        key: the unit's cache key.
        reason: what is wrong with it.
    """

    def __init__(self, stage: str, key: str, reason: str) -> None:
        """Name the unit and what is wrong with it."""
        self.stage = stage
        self.key = key
        self.reason = reason
        super().__init__(
            f"damaged unit {stage}/{key[:12]}: {reason}; it was set aside and is computed again "
            f"by the next run"
        )
