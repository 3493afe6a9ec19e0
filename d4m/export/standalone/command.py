"""Train and score from the command line."""

import argparse
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import torch
from torch import Tensor

from d4m.export.standalone.dataset import DistilledDataset, decode_image
from d4m.export.standalone.decoding import DECODED, decode_real
from d4m.export.standalone.networks import MODELS, build_model
from d4m.export.standalone.training import count_hits, say, train


@dataclass(frozen=True)
class Found:
    """An image file that was found, and its class.

    Attributes:
        name: of the file.
        content: its bytes.
        class_id: its class.
        decoded: whether d4m has decoded and resized it before.
    """

    name: str
    content: bytes
    class_id: int
    decoded: bool = False


def read_test(path: str | Path, about: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Read labelled images: a parquet file, a folder of such files, or a folder per class.

    Files that cannot be read as images are left out, as the pipeline does, and counted in a line.

    Args:
        path: parquet has the columns `image` and `label`, as the hub has them; the folder of a
            class has its name, or its number.
        about: what `distilled.json` says of size, channels, classes and real images.

    Returns:
        Images, uint8 (image, height, width, channel), as the pipeline decodes them, and their class
        ids.

    Raises:
        ValueError: there are no images, or their classes are unknown.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    images, class_ids, refused = list[Tensor](), list[int](), list[str]()
    for found in _in_parquet(files) if files else _in_folders(path, about["classes"]):
        try:
            images.append(_decode(found, about))
            class_ids.append(found.class_id)
        except ValueError as failure:
            refused.append(f"{found.name}: {failure}")
    if "real_images" not in about:
        say(
            "this export does not say how its recipe decodes images: colours behind transparency "
            "are as they are stored, nothing is turned upright, and all is squeezed into a square"
        )
    if refused:
        total = len(images) + len(refused)
        say(f"left out {len(refused)} of {total} files, which are no usable images: {refused[0]}")
    if not images:
        msg = f"wanted images to score, found none in {path}"
        raise ValueError(msg)
    return torch.stack(images), torch.tensor(class_ids)


def _decode(found: Found, about: dict[str, Any]) -> Tensor:
    """Return the pixels of an image; an older export does not say how, so colours are converted."""
    if "real_images" in about and not found.decoded:
        return decode_real(found.content, about, found.name)
    mode = "L" if about["channels"] == 1 else "RGB"
    return decode_image(io.BytesIO(found.content), mode, about["size_px"])


def _in_parquet(files: list[Path]) -> Iterator[Found]:
    for path in files:
        schema = pq.read_schema(path)
        if not {"image", "label"} <= set(schema.names):
            msg = f"wanted columns `image` and `label`, found {schema.names} in {path}"
            raise ValueError(msg)
        decoded = DECODED.encode() in (schema.metadata or {})
        table = pq.read_table(path, columns=["image", "label"])
        for number, row in enumerate(cast("list[dict[str, Any]]", table.to_pylist())):
            name = f"row {number} of {path}"
            yield Found(name, row["image"]["bytes"] or b"", row["label"], decoded)


def _in_folders(path: Path, classes: list[str]) -> Iterator[Found]:
    numbers = {name: number for number, name in enumerate(classes)}
    numbers |= {str(number): number for number in range(len(classes)) if str(number) not in numbers}
    folders = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    for folder in folders:
        if folder.name not in numbers:
            msg = f"wanted folders named as classes are, such as {classes[0]!r}; found {folder}"
            raise ValueError(msg)
    for folder in folders:
        for file in sorted(each for each in folder.rglob("[!.]*") if each.is_file()):
            yield Found(str(file), file.read_bytes(), numbers[folder.name])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train a network on this distilled data set.")
    command = parser.add_subparsers(required=True).add_parser("train", help="train and score")
    command.add_argument("--model", choices=sorted(MODELS), default="convnet3")
    command.add_argument("--data", default=Path(__file__).parent, help="the exported folder")
    command.add_argument("--test", help="parquet, or a folder with one folder per class")
    command.add_argument("--epochs", type=_count, help="default: as in the recipe")
    command.add_argument("--students", type=_count, default=1, help="how many to train")
    command.add_argument("--seed", type=int, default=0, help="of the first student")
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    command.add_argument("--save", help="file for the last student's weights")
    chosen = parser.parse_args(arguments)
    try:
        _check_device(chosen.device)
        if chosen.save and not Path(chosen.save).absolute().parent.is_dir():
            msg = f"wanted a file in a folder that there is, found --save {chosen.save}"
            raise ValueError(msg)  # noqa: TRY301 - before a long training
        _train(chosen)
    except (OSError, ValueError) as failure:
        sys.exit(f"error: {failure}")


def _count(text: str) -> int:
    """Return a number of at least 1 that is given on the command line."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"wanted a whole number of at least 1, found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _check_device(device: str) -> None:
    """Refuse a device that torch does not know, or that is not there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as failure:  # AssertionError: torch without CUDA
        msg = f"wanted a device of this machine, found --device {device}: {failure}"
        raise ValueError(msg) from failure


def _train(chosen: argparse.Namespace) -> None:
    data = DistilledDataset(chosen.data)
    test = read_test(chosen.test, data.about) if chosen.test else None
    scores = list[float]()
    for seed in range(chosen.seed, chosen.seed + chosen.students):
        model = build_model(chosen.model, data.about, seed=seed)
        train(model, data, epochs=chosen.epochs, seed=seed, device=chosen.device)
        if test is not None:
            hits = count_hits(model, *test, device=chosen.device)
            scores.append(100 * hits / len(test[1]))
            say(f"student {seed}: top-1 {scores[-1]:.2f} % ({hits} of {len(test[1])})")
        if chosen.save:
            torch.save(model.state_dict(), chosen.save)
    if len(scores) > 1:
        say(f"mean of {len(scores)} students: top-1 {sum(scores) / len(scores):.2f} %")


if __name__ == "__main__":
    main()
