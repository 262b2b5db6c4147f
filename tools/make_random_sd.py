"""Write Stable Diffusion 1.5 and its face ControlNet, in size, with random weights.

For measuring speed and memory, and for testing whatever loads such a model, where none can be
downloaded. Architecture, configuration and files are those of ``stable-diffusion-v1-5`` and of
``diffusion_sd15`` in ``CrucibleAI/ControlNetMediaPipeFace`` on the hub, in float16 safetensors (4.0
GB); its pictures are noise, of course. ``--tiny-autoencoder`` adds ``madebyollin/taesd``. ::

    python -m tools.make_random_sd --out /tmp/random-sd          # in size
    python -m tools.make_random_sd --out /tmp/tiny-sd --tiny     # the same layers, narrow: 10 MB

    sd=/tmp/random-sd
    python launch.py --config custom/threestudio-headstudio/configs/headstudio.yaml --train \\
        system.prompt_processor.pretrained_model_name_or_path=$sd/stable-diffusion-v1-5 \\
        system.guidance.controlnet_model_name_or_path=$sd/ControlNetMediaPipeFace \\
        system.geometry.head_model=load/flame/open_head.npz system.prompt_processor.prompt="a man"

Left out is the safety checker, which nobody here loads. The tokenizer's merges are made up: it
splits words as CLIP's does, but elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
import string
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

BASE = "stable-diffusion-v1-5"
CONTROLNET = Path("ControlNetMediaPipeFace") / "diffusion_sd15"
TINY_AUTOENCODER = "taesd"
VOCABULARY_SIZE = 49_408
TEXT_LENGTH = 77


@dataclass(frozen=True)
class Widths:
    """How wide the layers are; how many there are, and how they are connected, is the same."""

    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    vae: tuple[int, ...] = (128, 256, 512, 512)
    vae_groups: int = 32
    text: int = 768
    text_layers: int = 12
    text_heads: int = 12
    per_block: int = 2
    # Where None, 4 x the UNet's first width: 1280, which threestudio takes for granted.
    time: int | None = None


FULL = Widths()
TINY = Widths((32, 32, 64, 64), (8, 8, 16, 16), 8, 32, 2, 4, 1, 1280)


def make(out: Path, widths: Widths = FULL, seed: int = 0, device: str = "cpu") -> Path:
    """Write both models into ``out``, which must not hold them yet.

    Returns:
        the folder of the base model; the ControlNet's is ``out / CONTROLNET``.
    """
    from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder, control = out / BASE, out / CONTROLNET
    for place in (folder, control):
        if place.exists():
            raise FileExistsError(f"{place} exists already; remove it, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as name,
        torch.random.fork_rng(devices=[]),
        torch.device(device),
    ):
        torch.manual_seed(seed)
        part = Path(name)
        shared = shared_config(widths)
        unet = UNet2DConditionModel(**shared, **unet_config(widths))
        _save(unet, part / BASE / "unet")
        del unet
        controlnet = ControlNetModel(**shared)
        _speak(controlnet)
        _save(controlnet, part / CONTROLNET)
        del controlnet
        _save(AutoencoderKL(**vae_config(widths)), part / BASE / "vae")
        text_encoder = CLIPTextModel(CLIPTextConfig(**text_config(widths)))
        _save(text_encoder, part / BASE / "text_encoder")
        write_tokenizer(part / BASE / "tokenizer")
        PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            num_train_timesteps=1000,
            set_alpha_to_one=False,
            skip_prk_steps=True,
            steps_offset=1,
        ).save_pretrained(part / BASE / "scheduler")
        (part / BASE / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))
        control.parent.mkdir(exist_ok=True)
        (part / CONTROLNET).rename(control)
        (part / BASE).rename(folder)
    return folder


MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def make_tiny_autoencoder(out: Path, seed: int = 0) -> Path:
    """Write an AutoencoderTiny in size, 5 MB, into ``out``; returns its folder."""
    from diffusers import AutoencoderTiny

    folder = out / TINY_AUTOENCODER
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _save(AutoencoderTiny(), folder)
    return folder


def shared_config(widths: Widths) -> dict[str, Any]:
    """Of UNet2DConditionModel and ControlNetModel; what is not given is their default."""
    return {
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "block_out_channels": widths.unet,
        "layers_per_block": widths.per_block,
        "attention_head_dim": 8,  # by an old mistake of diffusers, the number of heads
        "cross_attention_dim": widths.text,
    }


def unet_config(widths: Widths) -> dict[str, Any]:
    """Of UNet2DConditionModel alone."""
    return {
        "sample_size": 64,
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "time_embedding_dim": widths.time,
    }


def vae_config(widths: Widths) -> dict[str, Any]:
    """Of AutoencoderKL."""
    return {
        "sample_size": 512,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": widths.vae,
        "layers_per_block": widths.per_block,
        "norm_num_groups": widths.vae_groups,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    }


def text_config(widths: Widths) -> dict[str, Any]:
    """Of CLIP ViT-L/14's text model."""
    return {
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": widths.text,
        "intermediate_size": 4 * widths.text,
        "num_hidden_layers": widths.text_layers,
        "num_attention_heads": widths.text_heads,
        "max_position_embeddings": TEXT_LENGTH,
        "projection_dim": widths.text,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _save(model: torch.nn.Module, folder: Path) -> None:
    model.half().save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]


def _speak(controlnet: Any) -> None:
    """Give a new ControlNet, whose last convolutions are zero, something to say."""
    for last in (
        controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    ):
        for parameter in last.parameters():
            torch.nn.init.normal_(parameter, std=0.02)


# --------------------------------------------------------------------------------- tokenizer


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer files, with as many tokens, and merges of our own."""
    pairs = merges()
    symbols = list(byte_symbols().values())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += [first + second for first, second in pairs]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TEXT_LENGTH,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def byte_symbols() -> dict[int, str]:
    """The character that byte-level BPE writes for each byte.

    Printable Latin-1 stands for itself, every other byte for the next character from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in set(printable))
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


def merges() -> list[tuple[str, str]]:
    """So many merges that the vocabulary has :data:`VOCABULARY_SIZE` tokens: 2, 3, 4 letters."""
    letters = string.ascii_lowercase
    endings = [*letters, *(letter + "</w>" for letter in letters)]
    two = itertools.product(letters, endings)
    three = ((a + b, c) for a, b, c in itertools.product(letters, letters, endings))
    four = ((a + b + c, d) for a, b, c, d in itertools.product(letters, repeat=4))
    return list(itertools.islice(itertools.chain(two, three, four), VOCABULARY_SIZE - 2 * 256 - 2))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Stable Diffusion 1.5 with random weights.")
    parser.add_argument("--out", type=Path, required=True, help="folder for both models")
    parser.add_argument("--tiny", action="store_true", help="narrow layers, for tests")
    parser.add_argument("--tiny-autoencoder", action="store_true", help="also a small one, in size")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the weights are drawn",
    )
    args = parser.parse_args(argv)
    try:
        folder = make(args.out, TINY if args.tiny else FULL, args.seed, args.device)
        if args.tiny_autoencoder:
            print(make_tiny_autoencoder(args.out, args.seed))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(folder, args.out / CONTROLNET, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
