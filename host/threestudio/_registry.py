"""The table of registered classes, by the names that configurations use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from threestudio.utils.errors import UserError, nearest

MODULES: dict[str, type] = {}

T = TypeVar("T", bound=type)


class UnknownNameError(UserError, KeyError):
    """A name that nothing was registered under."""


def register(name: str) -> Callable[[T], T]:
    """Decorate a class to be found under ``name``.

    Raises:
        ValueError: if another class already has the name.
    """

    def decorator(cls: T) -> T:
        if name in MODULES:
            raise ValueError(
                f"the name {name!r} is already registered by "
                f"{MODULES[name].__module__}.{MODULES[name].__qualname__}; "
                f"{cls.__module__}.{cls.__qualname__} needs another one"
            )
        MODULES[name] = cls
        return cls

    return decorator


def find(name: str) -> Any:
    """Look a class up.

    Args:
        name: a registered name, or ``"main:mixin,mixin"`` for a new class that derives from the
            mixins, in that order, and then from ``main``.

    Raises:
        UnknownNameError: if a name is not registered; says which one is nearest.
    """
    main, _, mixins = name.partition(":")
    if not mixins:
        return _lookup(main)
    bases = [*mixins.split(","), main]
    return type(f"{main}.{mixins}", tuple(_lookup(base) for base in bases), {})


def _lookup(name: str) -> type:
    try:
        return MODULES[name]
    except KeyError:
        if not name:
            raise UnknownNameError(
                "the configuration does not say which class to use: data_type, system_type, or "
                "one of the system's types, such as geometry_type, is empty"
            ) from None
        raise UnknownNameError(
            f"nothing is registered under the name {name!r}{nearest(name, MODULES)}. "
            f"Registered are: {', '.join(sorted(MODULES))}."
        ) from None
