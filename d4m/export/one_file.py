"""Join the parts of `distilled.py` into the one file that an export holds."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_PARTS = ("views", "dataset", "decoding", "networks", "optimizers", "training", "command")
_OURS = "d4m."
_HEAD = '''\
"""Load this distilled data set, and train a network on it; needs torch, pillow and pyarrow only.

```python
from distilled import DistilledDataset

data = DistilledDataset(".")  # the folder that this file is in
for epoch in range(data.epochs):
    for pixels, teacher_logits in data.batches(epoch, 50):
        ...  # the views that the teacher saw, and its logits for them
```

    python distilled.py train --model convnet3 --test FOLDER_OR_PARQUET

Every number that a view is made with is stored next to its label, so pixels are equal to those that
the teacher labelled, bit by bit. `train` uses the optimiser and the loss of the recipe.

This file was written by D4M, under the MIT licence. Do as you like with it.
"""
'''


def join_parts() -> str:
    """Return the source of `distilled.py`: all parts in order, with their imports at the top."""
    sources = [_read(part) for part in _PARTS]
    trees = list(map(ast.parse, sources))
    bodies = [_body(source, tree) for source, tree in zip(sources, trees, strict=True)]
    text = "\n\n".join([_HEAD, *_imports(trees)]).replace('"""\n\n\n', '"""\n\n')
    return text + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _read(part: str) -> str:
    path = Path(__file__).parent / "standalone" / f"{part}.py"
    return path.read_text(encoding="utf-8")


def _body(source: str, tree: ast.Module) -> str:
    """Return a part without its docstring and its imports, which come first."""
    first = next(
        each for each in tree.body[1:] if not isinstance(each, ast.Import | ast.ImportFrom)
    )
    decorators = getattr(first, "decorator_list", [])
    start = min(each.lineno for each in (first, *decorators))
    return "\n".join(source.splitlines()[start - 1 :])


def _imports(trees: list[ast.Module]) -> Iterator[str]:
    """Yield the imports of all parts but those of one another: the standard library's, others."""
    whole, names = set[str](), defaultdict[str, set[str]](set)
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Import):
                whole |= {ast.unparse(node)}
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(_OURS):
                names[node.module or ""] |= {alias.name for alias in node.names}
    lines = [
        *sorted(whole),
        *(f"from {m} import {', '.join(sorted(names[m]))}" for m in sorted(names)),
    ]
    others = ("pyarrow", "torch", "PIL")
    for ours in (False, True):
        yield "\n".join(each for each in lines if each.split()[1].startswith(others) is ours)
