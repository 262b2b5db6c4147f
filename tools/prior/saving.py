"""The finished prior as a folder in diffusers' layout, and that folder in a few archives."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write
from tools.prior.models import Denoiser, make_scheduler

MAX_SHARD = "15MB"
MAX_TOTAL = 32 * 2**20
ARCHIVE = 15 * 2**20  # bytes of files per archive
_KEPT = ("README.md",)  # written by hand, survives a new training

_INDEX = {
    "_class_name": "StableDiffusionControlNetPipeline",
    "controlnet": ["diffusers", "ControlNetModel"],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def save_prior(
    folder: Path,
    denoiser: Denoiser,
    autoencoder: AutoencoderKL,
    tokenizer_folder: Path,
    about: dict[str, Any],
) -> int:
    """Write the prior; what stood at ``folder`` is replaced once everything is on disk.

    The networks are left in float16.

    Args:
        folder: as ``load/prior``; a README.md in it is kept.
        denoiser: averaged networks.
        autoencoder: with its scaling factor set.
        tokenizer_folder: as written by :func:`tools.prior.tokenizer.train_tokenizer`.
        about: how it was made, written to ``training.json``.

    Returns:
        The folder's size in bytes.

    Raises:
        HeadStudioError: if it would be larger than 32 MiB, or a weight is not finite in float16.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        parts = {
            "vae": autoencoder,
            "unet": denoiser.unet,
            "controlnet": denoiser.controlnet,
            "text_encoder": denoiser.text_encoder,
        }
        for name, network in parts.items():
            _save_network(new / name, name, network)
        make_scheduler().save_pretrained(new / "scheduler")
        shutil.copytree(tokenizer_folder, new / "tokenizer")
        index = {**_INDEX, "_diffusers_version": diffusers.__version__}
        (new / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
        (new / "training.json").write_text(json.dumps(about, indent=2) + "\n")
        for name in _KEPT:
            if (folder / name).exists():
                shutil.copy2(folder / name, new / name)
        size = sum(f.stat().st_size for f in new.rglob("*") if f.is_file())
        if size > MAX_TOTAL:
            raise HeadStudioError(
                f"the prior is {size / 2**20:.1f} MiB, more than {MAX_TOTAL / 2**20:.0f}; "
                "make its networks smaller"
            )
        _swap(new, folder, Path(temporary) / "old")
    return size


def _save_network(folder: Path, name: str, network: nn.Module) -> None:
    network.half()
    broken = [key for key, p in network.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise HeadStudioError(f"{name} has weights that float16 cannot hold, such as {broken[0]}")
    network.save_pretrained(folder, safe_serialization=True, max_shard_size=MAX_SHARD)
    if name == "text_encoder":
        # Older transformers know these weights only by the names Stable Diffusion's files use.
        path = folder / "model.safetensors"
        weights = {
            key if key.startswith("text_model.") else f"text_model.{key}": value
            for key, value in load_file(path).items()
        }
        save_file(weights, path, metadata={"format": "pt"})


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Put ``new`` where ``folder`` is; if that fails, ``folder`` is as before."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def pack(folder: Path, target: Path, prefix: str = "prior") -> list[Path]:
    """Write a folder as ``<prefix>_00.tar``, ``<prefix>_01.tar`` … of at most 15 MiB of files each.

    Returns:
        The archives written.

    Raises:
        HeadStudioError: if the folder holds no files.
    """
    files = [f for f in folder.rglob("*") if f.is_file()]
    if not files:
        raise HeadStudioError(f"{folder} holds no files to pack")
    groups: list[tuple[int, list[Path]]] = []
    for file in sorted(files, key=lambda f: (-f.stat().st_size, f.as_posix())):
        size = file.stat().st_size
        for i, (used, members) in enumerate(groups):
            if used + size <= ARCHIVE:
                groups[i] = (used + size, [*members, file])
                break
        else:
            groups.append((size, [file]))
    archives = []
    for i, (_, members) in enumerate(groups):
        archive = target / f"{prefix}_{i:02d}.tar"
        with atomic_write(archive) as temporary, tarfile.open(temporary, "w") as tar:
            for member in sorted(members):
                tar.add(member, arcname=member.relative_to(folder).as_posix())
        archives.append(archive)
    return archives


def unpack(archives: Sequence[Path], folder: Path) -> int:
    """Put the files of archives made by :func:`pack` into a folder, over what is there.

    Only plain files with names inside the folder are accepted.

    Returns:
        The number of files.

    Raises:
        HeadStudioError: for an archive that is missing, damaged or holds anything else.
    """
    contents: dict[PurePosixPath, bytes] = {}
    for archive in archives:
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = PurePosixPath(member.name)
                    if not member.isfile() or name.is_absolute() or ".." in name.parts:
                        raise HeadStudioError(
                            f"{archive} holds {member.name!r}, which is not a file of a packed "
                            "folder; nothing was unpacked"
                        )
                    stream = tar.extractfile(member) or io.BytesIO()
                    contents[name] = stream.read()
        except (OSError, tarfile.TarError) as error:
            raise HeadStudioError(f"{archive} cannot be unpacked: {error}") from error
    for name, data in contents.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(data)
    return len(contents)
