"""The pretrained generator: a latent diffusion pipeline that exists already, by fingerprints."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d4m.errors import GeneratorError
from d4m.generators.base import (
    Component,
    Generator,
    ImagesDescription,
    PromptFinding,
    TrainingImages,
    Writer,
)
from d4m.generators.pretrained_checks import examine_prompts, find_problems
from d4m.generators.pretrained_model import (
    PretrainedModel,
    component_digests,
    describe_origin,
    find_model,
    load_pipeline,
    load_vae,
)
from d4m.recipe.problems import Problem
from d4m.settings import PretrainedSettings

_FINGERPRINT = "component.json"


class PretrainedGenerator(Generator):
    """A generator whose weights stay where they are; its components are fingerprints of them.

    They are `vae`, `text_encoder` (a DiT has none), `denoiser` and `scheduler`. A model that was
    replaced, or has rotted, since its fingerprints were taken is refused.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings may mean; else they mean a hub id.
        device: where it will be, which decides the precision `auto`.
    """

    def __init__(self, settings: PretrainedSettings, path: Path, device: str) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._path = path
        self._device = device

    def plan_components(self, images: ImagesDescription, *, seed: int) -> list[Component]:
        """Return the components; the real images and the seed play no part."""
        del images, seed
        origins = describe_origin(self._settings, self._path, self._device)
        return [
            Component(name, {"component": name, "origin": origin})
            for name, origin in origins.items()
        ]

    def make(
        self,
        component: str,
        settings: Mapping[str, Any],
        images: TrainingImages,
        folders: Mapping[str, Path],
    ) -> Writer | None:
        """Take the fingerprint of one component; a hub id is downloaded first."""
        del settings, images, folders
        model = self._model()
        if component not in model.kind.folders:
            return None  # planned before the pipeline was downloaded; the next plan knows better
        files = component_digests(model, component)

        def write(target: Path) -> None:
            content = {"files": files, "precision": model.precision}
            text = json.dumps(content, indent=2, sort_keys=True)
            (target / _FINGERPRINT).write_text(text, encoding="utf-8")

        return write

    def find_problems(self, images: ImagesDescription, *, channels: int) -> list[Problem]:
        """Return what the pipeline's files and configurations say against such images."""
        size_px = images.pixels["size_px"]
        return list(find_problems(self._settings, self._path, size_px=size_px, channels=channels))

    def examine_prompts(
        self, prompts: Iterable[str], class_names: Sequence[str]
    ) -> dict[str, PromptFinding]:
        """Return prompts that a text encoder cuts, or that name no class of a DiT."""
        del class_names
        return examine_prompts(self._settings, self._path, prompts)

    def load_vae(self, folder: Path) -> Any:
        """Load the pipeline's autoencoder."""
        model = self._model()
        _check_fingerprints(model, {"vae": folder})
        return load_vae(model)

    def load_pipeline(self, folders: Mapping[str, Path]) -> Any:
        """Load the whole pipeline as an img2img pipeline."""
        model = self._model()
        _check_fingerprints(model, folders)
        return load_pipeline(model)

    def describe(self) -> Mapping[str, Any]:
        """Return all of its settings."""
        return {"pretrained": self._settings.model_dump(mode="json")}

    def _model(self) -> PretrainedModel:
        return find_model(self._settings, self._path, self._device)


def _check_fingerprints(model: PretrainedModel, folders: Mapping[str, Path]) -> None:
    """Refuse a model that was replaced, or has rotted, since its fingerprints were taken."""
    for component, folder in folders.items():
        known = json.loads((folder / _FINGERPRINT).read_text(encoding="utf-8"))["files"]
        found = component_digests(model, component)
        if changed := sorted(name for name in known | found if known.get(name) != found.get(name)):
            msg = (
                f"{model.path}: wanted the {component} that artifact `generator` has the "
                f"fingerprint of, found other contents in {', '.join(changed)}; put the files back "
                f"if they are damaged, run the recipe again if the model was replaced, or set "
                f"`generator.pretrained.revision` to a commit if a hub's branch has moved on"
            )
            raise GeneratorError(msg)
