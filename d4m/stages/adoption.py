"""Adopt latents, teachers and compact generators made elsewhere, as units of a recipe.

An adopted unit takes the place of the one that the recipe would compute, and has its key, so it
is examined before anything is stored: shapes, number format, finite values; latents of one class by
encoding an image again. The provenance says who vouches for it and which file it was.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8

from d4m.errors import StoreError
from d4m.stages.base import Product, is_known, plan_stage
from d4m.stages.context import StageContext
from d4m.stages.generator import Generator
from d4m.stages.provenance import record_provenance
from d4m.stages.teacher import read_network, writer_of
from d4m.stages.unit_names import class_id_of
from d4m.store.digest import digest_file, digest_folder, digest_json
from d4m.store.reference import Unit

ADOPTED = "adopted"
"""The name in a provenance of what says where an adopted unit came from."""

_LEAST_LIKENESS = 0.8
_TRIED = 8
_TRIED_CLASSES = 64


def adopt(
    context: StageContext, units: Mapping[str, Unit], path: Path, *, vouched_by: str
) -> list[str]:
    """Store what others have made as units of an artifact, after examining all of it.

    Args:
        context: with what the artifact is made from: `real_images` and `generator`.
        units: the missing units of `generator`, `latents` or `teacher`, by name.
        path: a file, for one unit; or a folder with a file or Zarr array for each unit, by name;
            for a generator, the folder of a diffusers pipeline.
        vouched_by: who says that these are what the recipe would compute.

    Returns:
        The names of the adopted units.

    Raises:
        StoreError: there is nothing to adopt, or not what the recipe needs; nothing was stored.
        ClassifierError: a file does not hold the weights of the recipe's teacher.
        GeneratorError: a folder does not hold the recipe's compact generator.
    """
    stage = next(iter(units.values())).stage
    kind = {"generator": _Generator, "latents": _Latents, "teacher": _Teacher}[stage](context)
    files = kind.find(path, units)
    for name, file in files.items():
        kind.examine(units[name], file)
    for name, file in files.items():  # one at a time in memory
        unit = kind.planned(units[name])
        source = {"vouched_by": vouched_by, "file": file.name, "sha256": kind.digest(unit, file)}
        provenance = record_provenance(context) | {ADOPTED: source}
        product = kind.product(unit, file)
        if callable(product):
            context.store.publish_files(unit, product, provenance)
        else:
            context.store.publish_arrays(unit, product, provenance)
    return list(files)


class _Kind(ABC):
    """An artifact whose units can be adopted."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def find(self, path: Path, units: Mapping[str, Unit]) -> dict[str, Path]:
        """Return the file or folder of each unit that there is one for."""
        return _find_files(path, units)

    @abstractmethod
    def examine(self, unit: Unit, path: Path) -> None:
        """Refuse what cannot be the unit."""

    def planned(self, unit: Unit) -> Unit:
        """Return the unit as it is planned once those before it are stored."""
        return unit

    def digest(self, unit: Unit, path: Path) -> str:
        """Return the digest of what was made elsewhere."""
        del unit
        return digest_folder(path) if path.is_dir() else digest_file(path)

    @abstractmethod
    def product(self, unit: Unit, path: Path) -> Product:
        """Return the unit's arrays, or what writes its files."""


def _find_files(path: Path, units: Mapping[str, Unit]) -> dict[str, Path]:
    """Return the file of each unit that there is one for."""
    if not path.exists():
        msg = f"wanted a file or folder to adopt, found nothing at {path}"
        raise StoreError(msg)
    if path.is_file() or ((path / "zarr.json").is_file() and not _is_zarr_group(path)):
        if len(units) != 1:
            names = ", ".join([*units][:4])
            msg = (
                f"{path.name} is one unit, and {len(units)} are missing ({names}); name it: --unit"
            )
            raise StoreError(msg)
        return {next(iter(units)): path}
    found = {each.name.removesuffix(each.suffix): each for each in sorted(path.iterdir())}
    files = {name: found[name] for name in units if name in found}
    if not files:
        wanted = ", ".join([*units][:4])
        msg = f"wanted files or arrays named after missing units ({wanted}) in {path}, found none"
        raise StoreError(msg)
    return files


def _is_zarr_group(path: Path) -> bool:
    import zarr

    return isinstance(zarr.open(path, mode="r"), zarr.Group)


def _read_array(path: Path) -> np.ndarray:
    import zarr

    try:
        if path.is_dir():
            array = zarr.open_array(path, mode="r")
            return np.asarray(array[...])
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, KeyError) as failure:
        msg = f"{path} is neither a .npy file nor a Zarr array: {failure}"
        raise StoreError(msg) from failure


class _Latents(_Kind):
    """Latents of a class, of which the first are compared with those of its images."""

    def examine(self, unit: Unit, path: Path) -> None:
        """Refuse another shape or format, values that are not finite, and others' latents."""
        found = _read_array(path)
        own, count = self._encode_first(unit)
        wanted = (count, *own.shape[1:])
        if found.shape != wanted or found.dtype.kind != "f":
            msg = (
                f"{path.name}: wanted latents of shape {wanted} as floating point for {unit.name}, "
                f"found {found.shape} of {found.dtype}"
            )
            raise StoreError(msg)
        finite = np.isfinite(_as_half(found)).reshape(count, -1).all(axis=1)
        if not finite.all():
            msg = (
                f"{path.name}: {(~finite).sum()} latents are not finite as float16, such as number "
                f"{np.flatnonzero(~finite)[0]}"
            )
            raise StoreError(msg)
        for number, (theirs, ours) in enumerate(zip(found, own, strict=False)):
            likeness = _likeness(theirs.astype(np.float64), ours.astype(np.float64))
            if likeness < _LEAST_LIKENESS:
                msg = (
                    f"{path.name}: latent {number} is not that of image {number} of {unit.name} by "
                    f"the recipe's VAE (likeness {likeness:.2f}, wanted {_LEAST_LIKENESS}); look "
                    f"at the order of the images, their size, the VAE and its scaling factor"
                )
                raise StoreError(msg)

    def product(self, unit: Unit, path: Path) -> Product:
        """Return the unit's arrays."""
        del unit
        return {"latents": _as_half(_read_array(path))}

    @cached_property
    def _vae(self) -> Any:
        from d4m.stages.generator import load_vae

        return load_vae(self._context)

    def _encode_first(
        self, unit: Unit
    ) -> tuple[Float16[np.ndarray, "image channel height width"], int]:
        """Encode the first images of a class; return their latents and the number of all images."""
        from d4m.generators.encode import encode_images

        class_id, size_px = class_id_of(unit.name), unit.settings["size_px"]
        index = self._context.image_index("train", class_id)
        first = index.subset(np.arange(min(_TRIED, len(index.image_ids))))
        batches = self._context.read_images("train", class_id, first, size_px=size_px)
        return np.concatenate(list(encode_images(batches, self._vae))), len(index.image_ids)


class _Teacher(_Kind):
    """The weights of a teacher."""

    def examine(self, unit: Unit, path: Path) -> None:
        """Refuse weights of another network, and values that are not finite."""
        import torch

        tensors = read_network(unit.settings, path).state_dict()
        wrong = [
            n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()
        ]
        if wrong:
            msg = f"{path.name}: {len(wrong)} tensors are not finite, such as {wrong[0]}"
            raise StoreError(msg)

    def product(self, unit: Unit, path: Path) -> Product:
        """Return what writes the unit's files."""
        return writer_of(read_network(unit.settings, path), unit)


class _Generator(_Kind):
    """The trained components of a compact generator, in the folder of a diffusers pipeline."""

    def find(self, path: Path, units: Mapping[str, Unit]) -> dict[str, Path]:
        """Return the pipeline's folder for each component that it holds all parts of."""
        generator = self._context.generator
        parts = {name: generator.parts(name) for name in units}
        if not any(parts.values()):
            msg = (
                f"wanted a missing component that is trained, found {', '.join(parts)}: a "
                f"pretrained generator needs no adoption, as the recipe names its folder "
                f"(`generator.pretrained.model`)"
            )
            raise StoreError(msg)
        found = {
            name: path
            for name, folders in parts.items()
            if folders and all((path / folder).is_dir() for folder in folders)
        }
        if not found:
            wanted = "; or ".join(
                f"{', '.join(f'{each}/' for each in folders)} for {name}"
                for name, folders in parts.items()
                if folders
            )
            msg = f"wanted the folder of a diffusers pipeline with {wanted}, found none in {path}"
            raise StoreError(msg)
        waiting = [name for name in found if not is_known(units[name])]
        if waiting and "vae" not in found:
            msg = (
                f"{waiting[0]} cannot be adopted before the VAE that it works with is stored: "
                f"put vae/ into {path} too, or let `d4m run` train it"
            )
            raise StoreError(msg)
        return found

    def examine(self, unit: Unit, path: Path) -> None:
        """Refuse other networks, values that are not finite, and a VAE of other images."""
        self._writer(unit, path)

    def planned(self, unit: Unit) -> Unit:
        """Plan the denoiser's unit again, which names the digest of the VAE."""
        if is_known(unit):
            return unit
        units, _ = plan_stage(Generator(), self._context)
        return next(each for each in units if each.name == unit.name)

    def digest(self, unit: Unit, path: Path) -> str:
        """Return the digest of the component's folders alone."""
        folders = self._context.generator.parts(unit.name)
        return digest_json({folder: digest_folder(path / folder) for folder in folders})

    def product(self, unit: Unit, path: Path) -> Product:
        """Return what writes the component's files."""
        return self._writer(unit, path)

    def _writer(self, unit: Unit, path: Path) -> Product:
        return self._context.generator.take_in(unit.name, unit.settings, self._images, path)

    @cached_property
    def _images(self) -> UInt8[np.ndarray, "image height width channel"]:
        """The first images of some classes, evenly spread over all."""
        classes = self._context.class_ids[:: -(-len(self._context.class_ids) // _TRIED_CLASSES)]
        batches = list[np.ndarray]()
        for class_id in classes:
            index = self._context.image_index("train", class_id)
            first = index.subset(np.arange(min(_TRIED, len(index.image_ids))))
            batches += self._context.read_images("train", class_id, first)
        return np.concatenate(batches)


def _as_half(latents: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return latents.astype(np.float16)


def _likeness(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return 1 - |a - b|^2 / |b|^2: 1 for equal ones, less for another image, VAE or scale."""
    return 1 - float(((theirs - ours) ** 2).sum()) / max(float((ours**2).sum()), 1e-12)
