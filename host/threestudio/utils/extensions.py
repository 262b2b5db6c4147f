"""Loading what stands in ``custom/``."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import threestudio
from threestudio.utils.errors import UserError


def load_extensions(folder: str | Path = "custom") -> list[str]:
    """Import every extension, which registers its classes.

    An extension is a Python file, or a folder with an ``__init__.py``. Names that end in
    ``_disabled`` or begin with a dot or an underscore are passed over.

    Returns:
        The names of the extensions.

    Raises:
        UserError: if one cannot be imported; the message says why.
    """
    loaded = []
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
        source = path / "__init__.py" if path.is_dir() else path
        passed_over = path.stem.endswith("_disabled") or path.name.startswith((".", "_"))
        if passed_over or source.suffix != ".py" or not source.is_file():
            continue
        start = time.perf_counter()
        _import(path.stem if path.is_file() else path.name, source)
        threestudio.debug(f"Loaded {path} in {time.perf_counter() - start:.1f} s")
        loaded.append(path.name)
    return loaded


def _import(name: str, source: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise UserError(f"the extension {source} cannot be imported: it is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(
            f"the extension {source} cannot be imported: {type(error).__name__}: {error}. "
            f"Repair it, or rename it to {source.parent.name}_disabled to do without."
            if source.name == "__init__.py"
            else f"the extension {source} cannot be imported: {type(error).__name__}: {error}"
        ) from error
