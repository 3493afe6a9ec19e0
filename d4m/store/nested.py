"""Nested state, such as an optimizer's, as a file of tensors and a file of JSON; never pickle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TENSORS = "tensors.safetensors"
_TREE = "tree.json"


def write_nested(folder: Path, state: Any) -> None:
    """Write dicts, lists and tuples of tensors, numbers, texts and None into a folder.

    Raises:
        TypeError: the state holds something else.
    """
    from safetensors.torch import save_file

    tensors: list[Tensor] = []
    tree = _pack(state, tensors)
    # A copy each: two tensors may share their memory, which safetensors refuses.
    named = {str(n): each.detach().cpu().contiguous().clone() for n, each in enumerate(tensors)}
    save_file(named, str(folder / _TENSORS))
    (folder / _TREE).write_text(json.dumps(tree), encoding="utf-8")


def read_nested(folder: Path) -> Any:
    """Read what `write_nested` has written; tensors are on the CPU, in their memory format."""
    from safetensors.torch import load_file

    tree = json.loads((folder / _TREE).read_text(encoding="utf-8"))
    tensors = load_file(str(folder / _TENSORS))
    return _unpack(tree, [tensors[str(number)] for number in range(len(tensors))])


def _pack(value: Any, tensors: "list[Tensor]") -> Any:
    import torch

    match value:
        case torch.Tensor():
            tensors.append(value)
            last = value.ndim == 4 and not value.is_contiguous()  # an optimizer may insist on it
            kind = "channels_last" if last else "tensor"
            return {kind: len(tensors) - 1}
        case dict():
            return {"dict": [[key, _pack(each, tensors)] for key, each in value.items()]}
        case list() | tuple():
            return {type(value).__name__: [_pack(each, tensors) for each in value]}
        case bool() | int() | float() | str() | None:
            return value
        case _:
            msg = f"cannot write a {type(value).__name__}"
            raise TypeError(msg)


def _unpack(tree: Any, tensors: "Sequence[Tensor]") -> Any:
    import torch

    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "channels_last":
            return tensors[content].contiguous(memory_format=torch.channels_last)
        case "dict":
            return {key: _unpack(each, tensors) for key, each in content}
        case "tuple":
            return tuple(_unpack(each, tensors) for each in content)
        case _:
            return [_unpack(each, tensors) for each in content]
