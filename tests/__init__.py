"""All tests; importing this package lets libraries keep their bytecode under jaxtyping's hook.

The hook gives the bytecode of modules that it checks a name of their own, and holds that name until
the module has run. All that such a module imports for the first time, torch and diffusers among it,
is then compiled from source, which takes most of the time a worker needs to start. Only the look-up
of the checked module's own bytecode needs the name.
"""

from functools import partial
from importlib.machinery import SourceFileLoader
from types import CodeType
from unittest.mock import patch

from jaxtyping import _import_hook as hook


def _get_code(loader: hook._JaxtypingLoader, fullname: str) -> CodeType:
    name = partial(hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", name):
        return SourceFileLoader.get_code(loader, fullname)


hook._JaxtypingLoader.get_code = _get_code
hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
