"""Artifact `generator`: a latent diffusion pipeline, component by component."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from d4m.errors import GeneratorError
from d4m.seeds import stream_seed
from d4m.settings import PretrainedSettings
from d4m.stages.base import Product, Stage, StageContext
from d4m.stages.training_sets import real_batches, spool_images
from d4m.store.reference import Unit

if TYPE_CHECKING:
    from d4m.generators.pretrained import PretrainedModel
    from d4m.synthesis.synthesize import ImageToImagePipeline

_FINGERPRINT = "component.json"


class Generator(Stage):
    """Unit: a component.

    A compact generator has three: `vae`; `denoiser`, which is the U-Net with the text encoder and
    tokenizer it was trained with; `scheduler`. A pretrained one has a fingerprint for each of
    `vae`, `text_encoder` (a DiT has none), `denoiser` and `scheduler`, and its weights stay where
    they are.
    """

    name: ClassVar[str] = "generator"
    upstream: ClassVar[tuple[str, ...]] = ("real_images",)
    sections: ClassVar[tuple[str, ...]] = ("dataset", "generator", "seed")

    def plan(self, context: StageContext) -> list[Unit]:
        """Training settings and images, or the files of a pretrained pipeline."""
        settings = context.recipe.settings
        if settings.generator.pretrained is not None:
            return self._plan_pretrained(context, settings.generator.pretrained)
        vae = self._vae_unit(context)
        denoiser = context.unit(
            self,
            "denoiser",
            settings.generator.compact.denoiser.model_dump(mode="json")
            | _pixels_read(context)
            | {
                "class_names": list(context.source.class_table.names),
                "seed": stream_seed(settings.seed, "generator", "denoiser"),
            },
            context.all_of("real_images", "train-"),
        )
        trained = context.store.find(self.name, vae.key)
        denoiser.inputs["upstream"]["generator/vae"] = trained.digest if trained else None
        return [vae, denoiser, context.unit(self, "scheduler", {"kind": "compact"})]

    def _vae_unit(self, context: StageContext) -> Unit:
        settings = context.recipe.settings
        return context.unit(
            self,
            "vae",
            settings.generator.compact.autoencoder.model_dump(mode="json")
            | _pixels_read(context)
            | {"seed": stream_seed(settings.seed, "generator", "vae")},
            context.all_of("real_images", "train-"),
        )

    def compute(
        self, context: StageContext, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        """Train the missing components, or take the fingerprints of the missing ones."""
        settings = context.recipe.settings.generator.pretrained
        if settings is not None:
            yield from self._fingerprint(context, settings, missing)
            return
        from d4m.generators import compact

        wanted = {unit.name: unit for unit in missing}
        if "scheduler" in wanted:
            yield wanted["scheduler"], compact.save({"scheduler": compact.build_scheduler()})
        if "vae" in wanted:
            yield wanted["vae"], self._train_vae(context, wanted["vae"])
        if "denoiser" in wanted:
            yield wanted["denoiser"], self._train_denoiser(context, wanted["denoiser"])

    def _train_vae(self, context: StageContext, unit: Unit) -> Product:
        from d4m.generators import compact

        pixels = spool_images(real_batches(context, "train"), context.device)
        vae = compact.train_autoencoder(
            pixels,
            context.recipe.settings.generator.compact.autoencoder,
            seed=unit.inputs["settings"]["seed"],
        )
        return compact.save({"vae": vae})

    def _train_denoiser(self, context: StageContext, unit: Unit) -> Product:
        import torch

        from d4m.generators import compact
        from d4m.generators.encode import encode_images
        from d4m.images.spool import Spool

        settings = unit.inputs["settings"]
        vae = compact.load_vae(context.store.open_files(self.name, self._vae_unit(context).key))
        batches = encode_images(real_batches(context, "train"), vae.to(context.device))
        counts = [len(context.image_index("train", c).image_ids) for c in context.class_ids]
        trained = compact.train_denoiser(
            Spool(batches, torch.Tensor.float, device=context.device),
            torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(
                context.device
            ),
            settings["class_names"],
            context.recipe.settings.generator.compact.denoiser,
            seed=settings["seed"],
        )
        return compact.save(
            {
                "unet": trained.unet,
                "text_encoder": trained.text_encoder,
                "tokenizer": trained.tokenizer,
            }
        )

    def _plan_pretrained(self, context: StageContext, settings: PretrainedSettings) -> list[Unit]:
        from d4m.generators import pretrained

        origins = pretrained.describe_origin(settings, context.recipe, context.device)
        return [
            context.unit(self, component, {"component": component, "origin": origin})
            for component, origin in origins.items()
        ]

    def _fingerprint(
        self, context: StageContext, settings: PretrainedSettings, missing: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Product]]:
        from d4m.generators import pretrained

        model = pretrained.find_model(settings, context.recipe, context.device)
        for unit in missing:
            if unit.name not in model.kind.folders:
                continue  # planned before the pipeline was downloaded; the next plan knows better
            files = pretrained.component_digests(model, unit.name)

            def write(target: Path, files: dict[str, str] = files) -> None:
                content = {"files": files, "precision": model.precision}
                text = json.dumps(content, indent=2, sort_keys=True)
                (target / _FINGERPRINT).write_text(text, encoding="utf-8")

            yield unit, write


def _pixels_read(context: StageContext) -> dict[str, Any]:
    """What decides, beside the files, which pixels a compact generator is trained on."""
    return {"size_px": context.source.size_px, "decoding": dict(context.source.decoding)}


def load_vae(context: StageContext) -> Any:
    """The generator's autoencoder, in evaluation mode, on the context's device."""
    from d4m.generators.placement import place_vae

    settings = context.recipe.settings.generator.pretrained
    if settings is None:
        from d4m.generators import compact

        vae: Any = compact.load_vae(context.open_files("generator", "vae"))
        return place_vae(vae, context.compute)
    from d4m.generators import pretrained

    model = pretrained.find_model(settings, context.recipe, context.device)
    _check_fingerprints(context, model, ["vae"])
    return place_vae(pretrained.load_vae(model), context.compute)


def load_pipeline(context: StageContext) -> "ImageToImagePipeline":
    """The generator as an img2img pipeline, on the context's device, in its memory."""
    from d4m.generators.placement import place_pipeline

    settings = context.recipe.settings.generator.pretrained
    if settings is None:
        from d4m.generators import compact

        folders = [context.open_files("generator", unit) for _, unit in context.all_of("generator")]
        pipeline: Any = compact.load_pipeline(folders)
    else:
        from d4m.generators import pretrained

        model = pretrained.find_model(settings, context.recipe, context.device)
        _check_fingerprints(context, model, [unit for _, unit in context.all_of("generator")])
        pipeline = pretrained.load_pipeline(model)
    return place_pipeline(pipeline, context.compute)


def _check_fingerprints(
    context: StageContext, model: "PretrainedModel", components: Sequence[str]
) -> None:
    """Refuse a model that was replaced, or has rotted, since its fingerprints were taken."""
    from d4m.generators import pretrained

    for component in components:
        path = context.open_files("generator", component) / _FINGERPRINT
        known = json.loads(path.read_text(encoding="utf-8"))["files"]
        found = pretrained.component_digests(model, component)
        if changed := sorted(name for name in known | found if known.get(name) != found.get(name)):
            msg = (
                f"{model.path}: wanted the {component} that artifact `generator` has the "
                f"fingerprint of, found other contents in {', '.join(changed)}; put the files back "
                f"if they are damaged, run the recipe again if the model was replaced, or set "
                f"`generator.pretrained.revision` to a commit if a hub's branch has moved on"
            )
            raise GeneratorError(msg)
