"""Modules that threestudio imports but seldom uses, for where they are not installed.

threestudio imports, as soon as it is imported itself, libraries that only its NeRF and mesh
pipelines use, some of which have to be compiled against CUDA. Here such a library is given an empty
module in its place: importing it works, and using anything of it says what to install.

``./install.sh --threestudio`` puts this folder on the path of the environment by a ``.pth`` file,
which imports this module whenever Python starts. It therefore needs nothing but the standard
library, and does nothing but add a finder behind all others: what is installed is found first. The
finder answers threestudio's own modules only. Others, which ask whether a library is there in order
to do without, are told the truth.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any, NoReturn

_GITHUB = "pip install --no-build-isolation git+https://github.com"

#: Name of the module, what in threestudio uses it, how to install it.
PLACEHOLDERS: dict[str, tuple[str, str]] = {
    "tinycudann": (
        "the hash grids and fused networks of NeRFs",
        f"{_GITHUB}/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch   (needs nvcc)",
    ),
    "nvdiffrast": (
        "the rasteriser of meshes",
        f"{_GITHUB}/NVlabs/nvdiffrast.git   (needs nvcc)",
    ),
    "pysdf": ("starting a geometry from a mesh", "pip install pysdf"),
    "envlight": (
        "the light of physically based materials",
        f"{_GITHUB}/ashawkey/envlight.git   (needs nvdiffrast)",
    ),
    "wandb": ("the logger of Weights & Biases", "pip install wandb"),
    "torchvision": (
        "the data of CO3D, Zero123 and perceptual losses",
        "pip install torchvision, from the index that torch came from; another build does not load",
    ),
    "controlnet_aux": (
        "the edges and normals that stable-diffusion-controlnet-guidance draws",
        "pip install controlnet-aux   (needs torchvision)",
    ),
}

# What threestudio calls whether or not it uses the library.
_HARMLESS = {"tinycudann": {"free_temporary_memory": lambda: None}}
# Whose imports are answered: threestudio/, and the code of others that it brings along.
_ASKERS = ("threestudio", "extern")


class MissingModule(ImportError):
    """Something of a module was used that is not installed."""

    def __init__(self, module: str, what: str) -> None:
        use, how = PLACEHOLDERS[module]
        super().__init__(
            f"{what} was used, but {module} is not installed. It is {use}. To install it:\n  {how}",
            name=module,
        )


class _Missing(type):
    """The type of what is taken from a placeholder: a class that cannot be used."""

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise MissingModule(*cls._origin())

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):  # asked by inspect, typing and dataclasses of every class
            raise AttributeError(name)
        module, what = cls._origin()
        raise MissingModule(module, f"{what}.{name}")

    def _origin(cls) -> tuple[str, str]:
        return cls.__module__.partition(".")[0], f"{cls.__module__}.{cls.__name__}"


class Placeholder(types.ModuleType):
    """An empty module, and package, of which anything can be imported and nothing used."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"Stands in for {name}, which is not installed.")
        self.__path__: list[str] = []
        vars(self).update(_HARMLESS.get(name, {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        missing = _Missing(name, (), {"__module__": self.__name__})
        setattr(self, name, missing)
        return missing


class PlaceholderFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of :data:`PLACEHOLDERS` when one of threestudio's modules imports them."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in PLACEHOLDERS:
            return None
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if "." in fullname and not isinstance(parent, Placeholder):
            return None  # the library is there, and has no such part
        if _asker().partition(".")[0] not in _ASKERS:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        _let_others_look_first(spec.name)
        return Placeholder(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _asker() -> str:
    """The name of the module whose ``import`` is being carried out."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and name.partition(".")[0] not in ("importlib", "_frozen_importlib"):
            return str(name)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _let_others_look_first(name: str) -> None:
    """transformers looks for torchvision when first asked, and must not find the placeholder.

    It remembers the answer.
    """
    if name == "torchvision":
        try:
            from transformers.utils import is_torchvision_available
        except ImportError:
            return
        is_torchvision_available()


def install() -> None:
    """Add the finder, once, behind all others."""
    if not any(isinstance(finder, PlaceholderFinder) for finder in sys.meta_path):
        sys.meta_path.append(PlaceholderFinder())


install()
