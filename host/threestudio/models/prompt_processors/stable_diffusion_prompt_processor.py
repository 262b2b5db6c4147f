"""Prompts for models that were trained with a CLIP text encoder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

import threestudio
from threestudio.models.prompt_processors.base import PromptProcessor
from threestudio.models.prompt_processors.cache import hash_folders
from threestudio.utils.errors import UserError

FILES = ["tokenizer/*", "text_encoder/*.json", "text_encoder/model*.safetensors"]
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
HALF_WEIGHTS = "model.fp16.safetensors"


@threestudio.register("stable-diffusion-prompt-processor")
class StableDiffusionPromptProcessor(PromptProcessor):
    """Uses ``tokenizer/`` and ``text_encoder/`` of a model in diffusers' layout.

    The model is a local folder or a name on the hub. Embeddings of a folder are kept by what is
    in it, so that a text encoder that is trained further does not get those of the old one.
    """

    @dataclass
    class Config(PromptProcessor.Config):
        pass

    cfg: Config

    @property
    def folder(self) -> Path:
        """The local folder of the model, downloaded where it has to be.

        Raises:
            UserError: if there is no such model, or a part of it is missing.
        """
        given = self.cfg.pretrained_model_name_or_path
        folder = Path(given)
        if not folder.is_dir():
            folder = _from_hub(given)
        for part in ("tokenizer", "text_encoder"):
            if not (folder / part).is_dir():
                raise UserError(
                    f"{given} has no folder {part!r}; a text encoder in diffusers' layout is "
                    "a folder with tokenizer/ and text_encoder/"
                )
        return folder

    def fingerprint(self) -> str:
        folder = self.folder
        if not Path(self.cfg.pretrained_model_name_or_path).is_dir():
            # The hub's snapshots lie in folders named by their commit.
            return f"{self.cfg.pretrained_model_name_or_path}@{folder.name}"
        return hash_folders([folder / "tokenizer", folder / "text_encoder"])

    def load(self) -> tuple[Any, Any]:
        """The tokenizer, and the text encoder in single precision.

        Raises:
            UserError: if one of them is damaged, or has no weights as safetensors.
        """
        from transformers import AutoTokenizer, CLIPTextModel

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        folder = self.folder
        names = {path.name for path in (folder / "text_encoder").iterdir()}
        if not names & {*WEIGHTS, HALF_WEIGHTS}:
            raise UserError(
                f"{folder / 'text_encoder'} has no {WEIGHTS[0]}; weights in other formats are not "
                "loaded, for they can execute code"
            )
        variant = None if names & {*WEIGHTS} else "fp16"
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", trust_remote_code=False)
            encoder: Any = CLIPTextModel.from_pretrained(
                folder / "text_encoder", use_safetensors=True, variant=variant
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(f"the text encoder in {folder} cannot be loaded: {error}") from error
        return tokenizer, encoder.float().to(self.device).eval()

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """n prompts -> [n, 77, F], the last hidden state."""
        tokenizer, encoder = self.load()
        longest = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer(
            prompts, padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )
        for prompt in prompts:
            n_tokens = len(tokenizer(prompt).input_ids)
            if n_tokens > longest:
                threestudio.warn(
                    f"Only the first {longest} of {n_tokens} tokens are used of: {prompt}"
                )
        return encoder(tokens.input_ids.to(self.device))[0]


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=FILES, ignore_patterns=["*.fp16.*"]))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{name} is neither a folder here nor a model that can be had from the hub "
            f"({type(error).__name__}). Check the name, or give a folder with tokenizer/ and "
            "text_encoder/."
        ) from error
