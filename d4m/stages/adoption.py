"""Adopt latents and teachers that were made elsewhere, as units of a recipe.

An adopted unit takes the place of the one that the recipe would compute, and has its key, so it
is examined before anything is stored: shapes, number format, finite values; latents of one class by
encoding an image again. The provenance says who vouches for it and which file it was.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16

from d4m.errors import StoreError
from d4m.stages.base import Product
from d4m.stages.context import StageContext
from d4m.stages.provenance import record_provenance
from d4m.stages.teacher import read_network, writer_of
from d4m.stages.unit_names import class_id_of
from d4m.store.digest import digest_file, digest_folder
from d4m.store.reference import Unit

ADOPTED = "adopted"
"""The name in a provenance of what says where an adopted unit came from."""

_LEAST_LIKENESS = 0.8
_TRIED = 8


def adopt(
    context: StageContext, units: Mapping[str, Unit], path: Path, *, vouched_by: str
) -> list[str]:
    """Store what others have made as units of an artifact, after examining all of it.

    Args:
        context: with what the artifact is made from: `real_images` and `generator`.
        units: the missing units of `latents` or `teacher`, by name.
        path: a file, for one unit; or a folder with a file or Zarr array for each unit, by name.
        vouched_by: who says that these are what the recipe would compute.

    Returns:
        The names of the adopted units.

    Raises:
        StoreError: there is nothing to adopt, or not what the recipe needs; nothing was stored.
        ClassifierError: a file does not hold the weights of the recipe's teacher.
    """
    files = _find_files(path, units)
    kind = {"latents": _Latents, "teacher": _Teacher}[next(iter(units.values())).stage](context)
    for name, file in files.items():
        kind.examine(units[name], file)
    for name, file in files.items():  # one at a time in memory
        source = {"vouched_by": vouched_by, "file": file.name, "sha256": _digest(file)}
        provenance = record_provenance(context) | {ADOPTED: source}
        product = kind.product(units[name], file)
        if callable(product):
            context.store.publish_files(units[name], product, provenance)
        else:
            context.store.publish_arrays(units[name], product, provenance)
    return list(files)


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


def _digest(path: Path) -> str:
    return digest_folder(path) if path.is_dir() else digest_file(path)


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


class _Latents:
    """Latents of a class, of which the first are compared with those of its images."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

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


class _Teacher:
    """The weights of a teacher."""

    def __init__(self, context: StageContext) -> None:
        del context

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


def _as_half(latents: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return latents.astype(np.float16)


def _likeness(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return 1 - |a - b|^2 / |b|^2: 1 for equal ones, less for another image, VAE or scale."""
    return 1 - float(((theirs - ours) ** 2).sum()) / max(float((ours**2).sum()), 1e-12)
