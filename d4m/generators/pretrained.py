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
from d4m.generators.kinds import find_denoiser
from d4m.generators.pretrained_checks import (
    examine_prompts,
    find_local,
    find_problems,
    find_unfollowed_here,
    find_untrainable,
)
from d4m.generators.pretrained_model import (
    PretrainedModel,
    component_digests,
    describe_origin,
    find_model,
    load_pipeline,
    load_vae,
)
from d4m.recipe.problems import Problem
from d4m.seeds import stream_seed
from d4m.settings import FinetuneSettings, PretrainedSettings, RecipeSynthesisSettings

ADAPTER = "adapter"
"""The component of a denoiser that is fine-tuned here."""

_FINGERPRINT = "component.json"


class PretrainedGenerator(Generator):
    """A generator whose weights stay where they are; its components are fingerprints of them.

    They are `vae`, `text_encoder` (a DiT has none), `denoiser` and `scheduler`. A model that was
    replaced, or has rotted, since its fingerprints were taken is refused. A denoiser that is
    fine-tuned here has a fifth component `adapter`, with the weights that were trained.

    Args:
        settings: which pipeline.
        path: the file or folder that the settings may mean; else they mean a hub id.
        device: where it will be, which decides the precision `auto`.
        finetune: how its denoiser is fine-tuned; None: it is used as it is.
    """

    def __init__(
        self,
        settings: PretrainedSettings,
        path: Path,
        device: str,
        *,
        finetune: FinetuneSettings | None = None,
    ) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._path = path
        self._device = device
        self._finetune = finetune

    def plan_components(self, images: ImagesDescription, *, seed: int) -> list[Component]:
        """Return the components; images and seed play a part only where the denoiser is tuned."""
        origins = describe_origin(self._settings, self._path, self._device)
        components = [
            Component(name, {"component": name, "origin": origin})
            for name, origin in origins.items()
        ]
        if self._finetune is None:
            return components
        own = {
            **self._finetune.model_dump(mode="json"),
            **images.pixels,
            "prompts": list(images.prompts),
            "seed": stream_seed(seed, "generator", ADAPTER),
        }
        return [*components, Component(ADAPTER, own, trained=True, reads=tuple(origins))]

    def make(
        self,
        component: str,
        settings: Mapping[str, Any],
        images: TrainingImages,
        folders: Mapping[str, Path],
    ) -> Writer | None:
        """Take the fingerprint of one component, or train the adapter.

        A hub id is downloaded first.
        """
        model = self._model()
        if component == ADAPTER:
            _check_fingerprints(model, folders)
            return _train_adapter(load_pipeline(model), settings, images)
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
        found = list(find_problems(self._settings, self._path, size_px=size_px, channels=channels))
        tuned = find_untrainable(self._settings, self._path) if self._finetune else ()
        return [*found, *tuned]

    def find_unfollowed(self, settings: RecipeSynthesisSettings) -> list[Problem]:
        """Return what the kind of the pipeline, once it is on this machine, cannot follow."""
        return list(find_unfollowed_here(self._settings, self._path, settings))

    def reads_negative_prompt(self) -> bool:
        """Return whether guidance is away from a negative prompt; True if that is unknown."""
        found = find_local(self._settings, self._path)
        return found is None or found[1].reads_negative

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
        _check_fingerprints(model, {name: folders[name] for name in folders if name != ADAPTER})
        pipeline = load_pipeline(model)
        if self._finetune is not None:
            from d4m.generators.finetune import Adapter

            Adapter.load(folders[ADAPTER]).merge_into(find_denoiser(pipeline))
        return pipeline

    def describe(self) -> Mapping[str, Any]:
        """Return all of its settings."""
        tuned = {"finetune": self._finetune.model_dump(mode="json")} if self._finetune else {}
        return {"pretrained": self._settings.model_dump(mode="json"), **tuned}

    def _model(self) -> PretrainedModel:
        return find_model(self._settings, self._path, self._device)


def _train_adapter(pipeline: Any, settings: Mapping[str, Any], images: TrainingImages) -> Writer:
    import torch

    from d4m.generators.encode import encode_images
    from d4m.generators.finetune import train_adapter
    from d4m.images.spool import Spool

    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to(images.device)
    latents = encode_images(images.batches(), pipeline.vae)
    counts = torch.tensor(images.counts)
    adapter = train_adapter(
        pipeline,
        Spool(latents, torch.Tensor.float, device=images.device),
        torch.repeat_interleave(torch.arange(len(counts)), counts).to(images.device),
        settings["prompts"],
        FinetuneSettings.among(settings),
        seed=settings["seed"],
        checkpoint=images.checkpoint,
    )
    return adapter.save


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
