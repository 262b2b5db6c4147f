"""Going on from a finished prior: autoencoder and tokenizer as they are, the rest to train on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel

from headstudio.errors import HeadStudioError
from headstudio.paths import atomic_write
from tools.prior.models import Denoiser

_TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


def start_autoencoder(folder: Path, device: torch.device) -> AutoencoderKL:
    """The prior's autoencoder in float32, which is not trained on: latents stay what they were."""
    weights = _load(AutoencoderKL, folder, "vae").state_dict()
    # Made anew: diffusers notes where a model was read from, and would write that place, a path of
    # this machine, beside the weights.
    autoencoder = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
    autoencoder.load_state_dict(weights)
    return autoencoder.to(device).eval().requires_grad_(False)


def start_tokenizer(folder: Path, target: Path) -> None:
    """Copy the prior's tokenizer, whose numbers the text encoder's weights belong to."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER:
        try:
            with atomic_write(target / name) as temporary:
                shutil.copyfile(folder / "tokenizer" / name, temporary)
        except OSError as error:
            raise HeadStudioError(
                f"{folder} has no tokenizer/{name} to go on from ({error.strerror}); give a folder "
                "that this program wrote"
            ) from error


def start_record(folder: Path, state: Path) -> dict[str, Any]:
    """How the prior was made: its ``training.json`` as it was on the first call.

    Args:
        folder: of the prior.
        state: of the run; keeps the copy for later calls, since what training ends with may
            have replaced the prior by then.

    Returns:
        What it says; nothing if there is no such file.

    Raises:
        HeadStudioError: the file cannot be read.
    """
    copy, source = state / "started_from.json", folder / "training.json"
    if not copy.exists():
        try:
            text = source.read_text()
            json.loads(text)
        except FileNotFoundError:
            text = "{}"
        except (OSError, ValueError) as error:
            raise HeadStudioError(
                f"{source} cannot be read ({error}); it says how the prior to go on from was made. "
                "Put it right, or remove it"
            ) from error
        with atomic_write(copy) as temporary:
            temporary.write_text(text)
    record: dict[str, Any] = json.loads(copy.read_text())
    return record


def start_denoiser(folder: Path, denoiser: Denoiser) -> None:
    """Fill freshly made networks with the prior's weights; the attribute heads start anew.

    Raises:
        HeadStudioError: if a part is missing, or is of other sizes than the settings ask for.
    """
    kinds = {
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "controlnet": ControlNetModel,
    }
    for name, network in denoiser.modules().items():
        if name in kinds:
            weights = _load(kinds[name], folder, name).state_dict()
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                raise HeadStudioError(
                    f"the {name} in {folder} is not of the sizes to be trained; go on from a prior "
                    f"of the same sizes, or from none ({str(error)[:300]})"
                ) from error


def _load(kind: type, folder: Path, part: str) -> torch.nn.Module:
    try:
        return kind.from_pretrained(folder / part, torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise HeadStudioError(
            f"{folder} has no {part} to go on from ({str(error)[:300]}); give a folder that this "
            "program wrote, such as load/prior"
        ) from error
