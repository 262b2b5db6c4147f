"""The parts of a diffusion prior: where each lies, whether it is there, whether they fit.

A prior is a folder in diffusers' layout, on a hub or on disk. What can be checked of a folder is
checked before anything heavy is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstudio.errors import HeadStudioError

_CONFIG_FILES = {
    "tokenizer": ("tokenizer_config.json", "vocab.json", "tokenizer.json"),
    "text_encoder": ("config.json",),
    "vae": ("config.json",),
    "unet": ("config.json",),
    "controlnet": ("config.json",),
    "scheduler": ("scheduler_config.json",),
}
_SHARD = re.compile(r"\w[\w.-]{0,150}\.safetensors", re.ASCII)
"""What a file of weights may be called: never a path that leads out of the folder."""
_MAX_INDEX = 1 << 26
_WEIGHTED = ("text_encoder", "vae", "unet", "controlnet")


@dataclass(frozen=True)
class Source:
    """Where one part is loaded from: ``from_pretrained(name, subfolder=subfolder)``."""

    part: str
    name: str
    subfolder: str | None

    def __str__(self) -> str:
        return f"{self.name}/{self.subfolder}" if self.subfolder else self.name

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``from_pretrained``."""
        return {"subfolder": self.subfolder} if self.subfolder else {}


def locate(
    name_or_folder: str | Path,
    controlnet_name_or_folder: str | Path | None,
    controlnet_subfolder: str | None,
    vae_name_or_folder: str | Path | None,
    with_controlnet: bool,
) -> dict[str, Source]:
    """Where each part is to be found.

    Returns:
        by part: tokenizer, text_encoder, vae, unet, scheduler, and controlnet if asked for.
    """
    base = str(name_or_folder)
    sources = {
        part: Source(part, base, part)
        for part in ("tokenizer", "text_encoder", "vae", "unet", "scheduler")
    }
    if vae_name_or_folder is not None:
        sources["vae"] = _own_or_inside("vae", str(vae_name_or_folder), None)
    if with_controlnet:
        sources["controlnet"] = (
            Source("controlnet", base, controlnet_subfolder or "controlnet")
            if controlnet_name_or_folder is None
            else _own_or_inside("controlnet", str(controlnet_name_or_folder), controlnet_subfolder)
        )
    return sources


def _own_or_inside(part: str, name: str, subfolder: str | None) -> Source:
    """A part that was named by itself: the named folder, or the usual place inside of it."""
    folder = Path(name)
    inside = (folder / part / "config.json").is_file() and not (folder / "config.json").is_file()
    return Source(part, name, part if subfolder is None and inside else subfolder)


def check_local(sources: dict[str, Source]) -> None:
    """Look for every file that a local part needs; parts that are hub names are left alone.

    Raises:
        HeadStudioError: lists everything that is missing, and what to do.
    """
    problems = []
    for source in sources.values():
        if is_local(source.name):
            folder = Path(source.name) / (source.subfolder or "")
            problem = _what_is_missing(source.part, folder)
            if problem:
                problems.append(problem)
    if problems:
        listed = "\n  ".join(problems)
        raise HeadStudioError(
            f"the diffusion prior is not complete:\n  {listed}\n"
            "Expected a folder in diffusers' layout (tokenizer/ text_encoder/ vae/ unet/ "
            "controlnet/ scheduler/, weights as .safetensors), or the name of one on a hub. "
            "The ControlNet may be given apart."
        )


def is_local(name: str) -> bool:
    """Whether a name means a folder on this machine rather than a repository on a hub.

    Hub names are ``name`` or ``owner/name``; anything that exists here or cannot be such a name
    is taken for a folder.
    """
    return Path(name).exists() or name.count("/") > 1 or name.startswith((".", "/", "~", "load/"))


def _what_is_missing(part: str, folder: Path) -> str | None:
    if not folder.is_dir():
        return f"{part}: there is no folder {folder}"
    if not any((folder / name).is_file() for name in _CONFIG_FILES[part]):
        return f"{part}: {folder} has no {_CONFIG_FILES[part][0]}"
    if part not in _WEIGHTED:
        return None
    for index in sorted(folder.glob("*.safetensors.index.json")):
        shards = sorted(set(_shards(index)))
        outside = [shard for shard in shards if not _SHARD.fullmatch(shard)]
        if outside:
            shown = outside[0][:80]
            return f"{part}: {index} names {shown!r}, which is no .safetensors file beside it"
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            return f"{part}: {folder} lacks {', '.join(absent)}, which {index.name} speaks of"
    if not any(folder.glob("*.safetensors")):
        other = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({', '.join(other)} is a pickle and is not read)" if other else ""
        return f"{part}: {folder} has no .safetensors weights{hint}"
    return None


def _shards(index: Path) -> list[str]:
    try:
        if index.stat().st_size > _MAX_INDEX:
            raise ValueError("too large")
        shards = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not all(isinstance(shard, str) for shard in shards):
            raise TypeError("a file name that is no text")
        return shards
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HeadStudioError(
            f"{index} is damaged: expected JSON with a 'weight_map'. Copy the folder again."
        ) from error


def check_fit(unet: Any, vae: Any, controlnet: Any | None, text_width: int) -> None:
    """Whether the loaded parts can work together.

    Args:
        unet: a UNet2DConditionModel.
        vae: an AutoencoderKL or AutoencoderTiny.
        controlnet: a ControlNetModel or None.
        text_width: last dimension of the text encoder's output.

    Raises:
        HeadStudioError: says which two do not fit, and by which numbers.
    """
    pairs = [
        ("UNet takes", unet.config.in_channels, "autoencoder gives", vae.config.latent_channels,
         "channels of latents"),
        ("UNet attends to", unet.config.cross_attention_dim, "text encoder gives", text_width,
         "numbers per token"),
    ]  # fmt: skip
    if controlnet is not None:
        pairs += [
            ("ControlNet attends to", controlnet.config.cross_attention_dim, "text encoder gives",
             text_width, "numbers per token"),
            ("ControlNet takes", controlnet.config.in_channels, "UNet",
             unet.config.in_channels, "channels of latents"),
            ("ControlNet has", tuple(controlnet.config.block_out_channels), "UNet",
             tuple(unet.config.block_out_channels), "channels in its blocks"),
            ("ControlNet takes", controlnet.config.conditioning_channels, "control image has", 3,
             "channels of colour"),
        ]  # fmt: skip
    for one, n, other, m, what in pairs:
        if n != m:
            raise HeadStudioError(
                f"these parts do not belong together: the {one} {n}, the {other} {m} {what}. "
                "Take the ControlNet, text encoder and autoencoder of the same model family as the "
                "UNet (Stable Diffusion 1.5 and 2.1, for one, do not mix)."
            )
    if unet.config.sample_size is None:
        raise HeadStudioError("the UNet's config.json has no sample_size, the side of its latents.")
