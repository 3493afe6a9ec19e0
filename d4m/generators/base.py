"""The contract of a generator: the latent diffusion model that encodes, draws and decodes.

```python
for component in generator.plan_components(description, seed=0):
    write = generator.make(component.name, component.settings, images, folders)
    write(folders[component.name])
vae = generator.load_vae(folders["vae"])
pipeline = generator.load_pipeline(folders)
```
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from d4m.errors import GeneratorError
from d4m.recipe.problems import Problem
from d4m.settings import RecipeSynthesisSettings
from d4m.store.checkpoints import NOWHERE, Checkpoint

Writer = Callable[[Path], None]
"""A function that writes a component's files into a folder."""


@dataclass(frozen=True)
class ImagesDescription:
    """The real images as a generator plans with them, without their pixels.

    Attributes:
        class_names: in the order of the class ids.
        pixels: what decides, apart from the files, which pixels are read: size and decoding.
        prompts: the recipe's, in the order of the class ids.
    """

    class_names: Sequence[str]
    pixels: Mapping[str, Any]
    prompts: Sequence[str] = ()


@dataclass(frozen=True)
class TrainingImages:
    """The real training images, for a generator that is trained on them.

    Attributes:
        batches: reads all of them, in class order, batch by batch.
        counts: how many there are of each class.
        device: where to train.
        checkpoint: where the training of a component is saved.
    """

    batches: Callable[[], Iterator[UInt8[np.ndarray, "image height width channel"]]]
    counts: Sequence[int]
    device: str
    checkpoint: Checkpoint = NOWHERE


@dataclass(frozen=True)
class Component:
    """A part of a generator that is made, stored and replaced as one.

    Attributes:
        name: `vae`, `text_encoder`, `denoiser`, `scheduler`, or `adapter`, which changes the
            denoiser.
        settings: what its content depends on, in JSON's types.
        trained: whether it is trained on the real training images.
        reads: other components that it is made with.
    """

    name: str
    settings: Mapping[str, Any]
    trained: bool = False
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptFinding:
    """A prompt that a generator does not read whole, or not at all.

    Attributes:
        reason: what the generator makes of it.
        read: characters that are read; None: it is no prompt for this generator.
        wanted: the prompts that this generator takes, where it is none of them.
    """

    reason: str
    read: int | None
    wanted: str = ""


class Generator(ABC):
    """A latent diffusion model in components, each of which is a unit of artifact `generator`."""

    @abstractmethod
    def plan_components(self, images: ImagesDescription, *, seed: int) -> list[Component]:
        """Return the components, without reading weights or importing torch.

        Args:
            images: the real training images.
            seed: the recipe's root seed.
        """

    @abstractmethod
    def make(
        self,
        component: str,
        settings: Mapping[str, Any],
        images: TrainingImages,
        folders: Mapping[str, Path],
    ) -> Writer | None:
        """Make one component; returns what writes its files.

        Args:
            component: its name.
            settings: as planned.
            images: the real training images.
            folders: where the components are that `Component.reads` names.

        Returns:
            None where the model, once it is on this machine, turns out to have no such component.
        """

    def parts(self, component: str) -> tuple[str, ...]:
        """Return the folders of a diffusers pipeline that hold a component which can be taken in.

        A component without any is not taken in, because it is read or built and not trained.
        """
        del component
        return ()

    def take_in(
        self,
        component: str,
        settings: Mapping[str, Any],
        images: UInt8[np.ndarray, "image height width channel"],
        folder: Path,
    ) -> Writer:
        """Examine a component that was trained elsewhere; return what writes its files.

        Args:
            component: its name, for which `parts` names folders.
            settings: as planned.
            images: some of the real training images, of all classes.
            folder: of a diffusers pipeline.

        Raises:
            GeneratorError: it is not the component that the recipe describes.
        """
        del settings, images, folder
        msg = f"{component} is not trained here, so there is nothing to take in"
        raise GeneratorError(msg)

    @abstractmethod
    def find_problems(self, images: ImagesDescription, *, channels: int) -> list[Problem]:
        """Return what keeps this generator from such images, as far as that is known beforehand.

        Neither torch nor weights are loaded, and nothing is downloaded.

        Args:
            images: the real training images.
            channels: of these images, 1 or 3.
        """

    @abstractmethod
    def find_unfollowed(self, settings: RecipeSynthesisSettings) -> list[Problem]:
        """Return the settings of synthesis that this generator cannot follow, as far as is known.

        Args:
            settings: how images are to be drawn.
        """

    def reads_negative_prompt(self) -> bool:
        """Return whether guidance is away from a negative prompt, as far as is known."""
        return True

    @abstractmethod
    def examine_prompts(
        self, prompts: Iterable[str], class_names: Sequence[str]
    ) -> dict[str, PromptFinding]:
        """Return the prompts that are not read whole; none where that is not known yet.

        Args:
            prompts: distinct texts.
            class_names: in the order of the class ids.
        """

    @abstractmethod
    def load_vae(self, folder: Path) -> Any:
        """Return the autoencoder, in evaluation mode, on the CPU.

        Args:
            folder: of the component `vae`.

        Raises:
            GeneratorError: it cannot be loaded, or is not what was made.
        """

    @abstractmethod
    def load_pipeline(self, folders: Mapping[str, Path]) -> Any:
        """Return the generator as a diffusers img2img pipeline, on the CPU.

        Args:
            folders: of every component.

        Raises:
            GeneratorError: it cannot be loaded, or is not what was made.
        """

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Return the settings of this generator as people look at them, under its kind."""
