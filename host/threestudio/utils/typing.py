# ruff: noqa: UP035
"""The names that threestudio's modules use in annotations, to be imported with ``*``."""

from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Sized,
    Tuple,
    Type,
    TypeVar,
    Union,
)

from jaxtyping import Bool, Complex, Float, Inexact, Int, Integer, Num, Shaped, UInt
from omegaconf import DictConfig
from torch import Tensor

try:
    from typeguard import typechecked as typechecker
except ImportError:  # only `launch.py --typecheck` needs it, and says so
    F = TypeVar("F")

    def typechecker(target: F) -> F:  # type: ignore[no-redef]
        """Stand in for typeguard's decorator: check nothing."""
        return target


__all__ = [
    "Any",
    "Bool",
    "Callable",
    "Complex",
    "Dict",
    "DictConfig",
    "Float",
    "Inexact",
    "Int",
    "Integer",
    "Iterable",
    "List",
    "Literal",
    "NamedTuple",
    "NewType",
    "Num",
    "Optional",
    "Shaped",
    "Sized",
    "Tensor",
    "Tuple",
    "Type",
    "TypeVar",
    "UInt",
    "Union",
    "typechecker",
]
