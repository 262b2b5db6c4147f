"""The readers that are fuzzed: how each is called, and how its files are changed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutations

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Target:
    """One reader of one kind of file."""

    name: str
    suffix: str
    """Of the file; a name with a slash is a file in a folder, and the folder is what is read."""
    call: str
    """``module:function`` of one path, in `readers` or in the library."""
    mutate: mutations.Mutate
    instrument: tuple[str, ...] = ("headstudio",)
    """Modules whose branches guide the fuzzer."""

    def load(self) -> Callable[[Path], Any]:
        """The reader."""
        module, _, function = self.call.partition(":")
        loaded: Callable[[Path], Any] = getattr(importlib.import_module(module), function)
        return loaded

    def read(self, path: Path) -> Any:
        return self.load()(path)

    def own_errors(self) -> tuple[type[Exception], ...]:
        """What a reader may raise: errors that are meant for people."""
        from headstudio.errors import HeadStudioError
        from threestudio.utils.errors import UserError

        return (HeadStudioError, UserError)

    def place(self, folder: Path, data: bytes) -> Path:
        """Put a file of these bytes where the reader is told to look."""
        name = self.suffix if "/" in self.suffix else f"input{self.suffix}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return folder / name.split("/")[0]

    def files(self) -> list[Path]:
        """The seeds and the regressions."""
        folders = (_HERE / "corpus" / self.name, _HERE / "regressions" / self.name)
        return sorted(file for folder in folders if folder.is_dir() for file in folder.iterdir())


_ARCHIVE = ("headstudio", "zipfile")
_PICKLE = ("headstudio", "pickle", "_compat_pickle")

TARGETS = {
    target.name: target
    for target in (
        Target("head_npz", ".npz", "headstudio.flame:read_head", mutations.npz, _ARCHIVE),
        Target("head_pkl", ".pkl", "headstudio.flame:read_head", mutations.pickled, _PICKLE),
        Target("landmarks", ".npz", "readers:landmarks", mutations.npz, _ARCHIVE),
        Target("motion_npz", ".npz", "headstudio.motion:load_motion", mutations.npz, _ARCHIVE),
        Target("motion_vhap", ".npz", "headstudio.motion:read_recording", mutations.npz,
               _ARCHIVE),
        Target("motion_pkl", ".pkl", "headstudio.motion:read_recording", mutations.pickled,
               _PICKLE),
        Target("motion_torch", ".pt", "headstudio.motion:read_recording", mutations.torch_zip,
               (*_PICKLE, "zipfile")),
        Target("motion_npy", ".npy", "headstudio.motion:read_recording", mutations.npy, _PICKLE),
        Target("motion_mat", ".mat", "headstudio.motion:read_recording", mutations.mat),
        Target("motion_csv", ".csv", "headstudio.motion:read_recording", mutations.text,
               ("headstudio", "csv")),
        Target("motion_json", ".json", "headstudio.motion:read_recording", mutations.text,
               ("headstudio", "json")),
        Target("avatar_ply", ".ply", "readers:avatar", mutations.ply),
        Target("camera_path", ".json", "readers:camera_path", mutations.text,
               ("headstudio", "json")),
        Target("prior_index", "prior/unet/diffusion_pytorch_model.safetensors.index.json",
               "readers:prior_index", mutations.text, ("headstudio", "json")),
        Target("prompt_cache", ".safetensors", "readers:prompt_cache", mutations.safetensors,
               ("threestudio",)),
        Target("checkpoint", ".ckpt", "readers:checkpoint", mutations.torch_zip,
               ("threestudio", "torch._weights_only_unpickler", "torch.serialization")),
        Target("config_yaml", ".yaml", "readers:config", mutations.text,
               ("threestudio", "headstudio", "yaml", "omegaconf")),
        Target("suite_yaml", ".yaml", "headstudio.evaluation.suite:load_suite", mutations.text,
               ("headstudio", "yaml")),
    )
}  # fmt: skip
