"""Reading YAML that strangers wrote: small, shallow, and as large as it looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from threestudio.utils.errors import UserError

# What the YAML library raises besides its own error.
_DAMAGE = (RecursionError, AssertionError, ValueError, TypeError, AttributeError, LookupError)
MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Values in a file, those that an alias repeats counted each time."""
MAX_DEPTH = 64
MAX_CHARACTERS = 1 << 20
"""Of a value, with all that it refers to filled in."""

_REFERENCE = re.compile(r"\$\{\s*(\.*)([^\s${}:,]+)\s*\}")


class _Loader(yaml.SafeLoader):
    """The scanner takes time quadratic in the depth of brackets: seconds for 2000 of them."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise yaml.YAMLError(f"brackets are more than {MAX_DEPTH} deep")
        super().fetch_flow_collection_start(token)


def load_yaml(path: str) -> Any:
    """A file of settings, as OmegaConf has it; tags that make Python objects are refused.

    Raises:
        UserError: a file that cannot be read, is no YAML, is not text, is deeper or larger than
            settings are, or grows when its aliases are filled in.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise UserError(f"the configuration {path} cannot be read: it is not a file")
        if Path(path).stat().st_size > MAX_BYTES:
            raise UserError(f"the configuration {path} is larger than {MAX_BYTES >> 10} KiB")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the configuration {path} is not text in UTF-8: {error}") from error
    try:
        # Not the C parser: it runs out of stack where Python's raises an error.
        _count(yaml.compose(text, Loader=_Loader), {}, [])
        return OmegaConf.create(text)
    except yaml.YAMLError as error:
        raise UserError(f"the configuration {path} is not YAML: {error}") from error
    except UserError:
        raise
    except (*_DAMAGE, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the configuration {path} cannot be read: {reason}") from error


def _count(node: yaml.Node | None, known: dict[int, int], above: list[int]) -> int:
    """Values below a node, aliases filled in; each node is looked at once."""
    if id(node) in above:
        raise UserError("the configuration has an alias for what it stands in itself")
    if len(above) > MAX_DEPTH:
        raise UserError(f"the configuration is nested more than {MAX_DEPTH} deep")
    if id(node) not in known:
        total = 1
        if isinstance(node, yaml.CollectionNode):
            above.append(id(node))
            for item in node.value:
                for part in item if isinstance(item, tuple) else (item,):
                    total += _count(part, known, above)
            above.pop()
        known[id(node)] = total
    if known[id(node)] > MAX_NODES:
        raise UserError(f"the configuration has more than {MAX_NODES} values")
    return known[id(node)]


def check_growth(root: Any) -> None:
    """Refuse settings whose references make texts or lists of millions of one another.

    Args:
        root: nested dictionaries and lists, ``${...}`` not yet filled in.

    Raises:
        UserError: names the setting that would be too large.
    """
    known: dict[tuple[Any, ...], int] = {}

    def size(path: tuple[Any, ...], value: Any, depth: int) -> int:
        if path in known:
            return known[path]
        known[path] = 0  # what refers to itself is OmegaConf's to refuse
        if depth > 200:
            raise UserError(f"{_dotted(path)} refers to something that refers on and on")
        if isinstance(value, dict):
            total = sum(size((*path, key), item, depth + 1) for key, item in value.items())
        elif isinstance(value, list):
            total = sum(size((*path, i), item, depth + 1) for i, item in enumerate(value))
        else:
            total = len(value) if isinstance(value, str) else 8
            for dots, name in _REFERENCE.findall(value) if isinstance(value, str) else ():
                target = (*path[: len(path) - len(dots)], *_keys(name)) if dots else _keys(name)
                total += size(target, _at(root, target), depth + 1)
        if total > MAX_CHARACTERS:
            raise UserError(f"{_dotted(path)} becomes too large when its references are filled in")
        known[path] = total
        return total

    size((), root, 0)


def _keys(name: str) -> tuple[Any, ...]:
    parts = [part for part in re.split(r"[.\[\]]+", name) if part]
    return tuple(int(p) if p.isdecimal() and len(p) < 9 else p for p in parts)


def _at(root: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if isinstance(root, dict):
            root = root.get(key, root.get(str(key)))
        elif isinstance(root, list) and isinstance(key, int) and key < len(root):
            root = root[key]
        else:
            return None
    return root


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "the configuration"
