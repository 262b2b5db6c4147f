"""Stable Diffusion with random weights: its files are read by whoever reads the hub's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from headstudio.guidance import DiffusionPrior
from tools.make_random_sd import (
    BASE,
    CONTROLNET,
    FULL,
    TINY,
    VOCABULARY_SIZE,
    main,
    make,
    shared_config,
    text_config,
    unet_config,
    vae_config,
)

FILES = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "sd"
    assert main(["--out", str(folder), "--tiny", "--device", "cpu"]) == 0
    return folder


def test_the_files_are_the_hubs_in_half_precision(out):
    base = out / BASE
    assert {str(p.relative_to(base)) for p in base.rglob("*") if p.is_file()} == FILES
    names = {p.name for p in (out / CONTROLNET).iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert {p.name for p in out.iterdir()} == {BASE, CONTROLNET.parts[0]}
    for path in out.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = file.keys()
            dtypes = {file.get_slice(name).get_dtype() for name in names}
        # The positions of the text's tokens are counted, not weighed.
        assert dtypes <= {"F16", "I64"}, path


def test_our_prior_loads_it(out):
    prior = DiffusionPrior.from_pretrained(out / BASE, out / CONTROLNET.parts[0], CONTROLNET.name)
    assert (prior.image_size, prior.latent_size, prior.control_size) == (512, 64, 512)
    assert prior.alphas_cumprod[999] == pytest.approx(0.00466, abs=1e-5)  # Stable Diffusion's
    text = prior.embed_text(["a man with a red beard", "a woman", ""])
    assert text.shape == (3, 77, 32)
    assert (text[0] - text[1]).abs().max() > 0.1
    z, t = torch.randn(1, 4, 64, 64), torch.tensor([500])
    plain = prior.predict_noise(z, t, text[:1])
    controlled = prior.predict_noise(z, t, text[:1], torch.rand(1, 512, 512, 3))
    assert plain.isfinite().all()
    assert (plain - controlled).abs().max() > 1e-3
    tokens = prior.tokenizer(["The  Red beard, é 5!"]).input_ids[0]
    assert tokens[0] == VOCABULARY_SIZE - 2
    assert tokens[-1] == VOCABULARY_SIZE - 1
    assert prior.tokenizer.decode(tokens[1:-1]).replace(" ", "") == "theredbeard,é5!"


def test_in_size_it_has_as_many_weights_as_stable_diffusion():
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        models = [
            UNet2DConditionModel(**shared_config(FULL), **unet_config(FULL)),
            ControlNetModel(**shared_config(FULL)),
            AutoencoderKL(**vae_config(FULL)),
            CLIPTextModel(CLIPTextConfig(**text_config(FULL))),
        ]
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    assert counts == [859_520_964, 361_279_120, 83_653_863, 123_060_480]


def test_the_vocabulary_is_as_large_as_clips(out):
    vocabulary = json.loads((out / BASE / "tokenizer" / "vocab.json").read_text())
    assert sorted(vocabulary.values()) == list(range(VOCABULARY_SIZE))


def test_what_is_there_is_not_overwritten(out, capsys):
    assert main(["--out", str(out), "--tiny"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_seed_decides(out, tmp_path):
    def weights(folder: Path) -> torch.Tensor:
        path = folder / "vae" / "diffusion_pytorch_model.safetensors"
        with safe_open(path, "pt") as file:
            return file.get_tensor("encoder.conv_in.weight")

    assert torch.equal(weights(out / BASE), weights(make(tmp_path / "same", TINY)))
    assert not torch.equal(weights(out / BASE), weights(make(tmp_path / "other", TINY, seed=1)))
