"""What training leaves: a folder any diffusers reader takes, and archives of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from headstudio.errors import HeadStudioError
from headstudio.guidance import DiffusionPrior
from tests.fixtures.prior_training import (
    Discs,
    tiny,
)
from tools.prior.autoencoder import reconstruction_figures
from tools.prior.data import HELD_OUT, render_chunk, render_pictures
from tools.prior.models import make_denoiser, predict_noise
from tools.prior.sampling import pictures_of_views
from tools.prior.saving import pack, save_prior, unpack
from tools.prior.settings import Sizes
from tools.prior.tokenizer import load_tokenizer


def test_saved_folder_is_a_working_pipeline(trained: Path) -> None:
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(trained / "prior")
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline.to(torch.float32)(
        "a head with blue skin",
        image=Image.new("RGB", (32, 32)),
        num_inference_steps=2,
        output_type="np",
    ).images
    assert result.shape == (1, 32, 32, 3)
    assert result.std() > 0


def test_saved_parts_agree_with_each_other(trained: Path) -> None:
    prior = trained / "prior"
    tokenizer = CLIPTokenizer.from_pretrained(prior, subfolder="tokenizer")
    text = CLIPTextModel.from_pretrained(prior, subfolder="text_encoder")
    unet = UNet2DConditionModel.from_pretrained(prior, subfolder="unet")
    assert text.config.eos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert text.config.vocab_size == len(tokenizer)
    assert unet.config.cross_attention_dim == text.config.hidden_size
    for scheduler in (DDIMScheduler, PNDMScheduler):
        loaded = scheduler.from_pretrained(prior, subfolder="scheduler")
        assert loaded.alphas_cumprod[-1] == pytest.approx(0.00466, abs=1e-4)  # SD 1.5's
    for file in prior.rglob("*.safetensors"):
        assert {weight.dtype for weight in load_file(file).values()} == {torch.float16}, file
    stored = json.loads((prior / "text_encoder" / "config.json").read_text())
    assert stored["dtype"] == "float16"


def test_guidance_loads_it_and_predicts_the_same_noise(trained: Path) -> None:
    prior = DiffusionPrior.from_pretrained(trained / "prior", dtype=torch.float32)
    assert (prior.image_size, prior.latent_size, prior.control_size) == (32, 8, 32)
    generator = torch.Generator().manual_seed(0)
    noisy, control = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 32, 32, 3)
    t, weight = torch.tensor([100, 900]), torch.tensor([1.0, 0.0])
    text = prior.embed_text(["a head with blue skin, front view", ""])
    guided = prior.predict_noise(noisy, t, text, control, weight)
    with torch.no_grad():
        ours = predict_noise(
            prior.unet, prior.controlnet, noisy, t, text, control.movedim(-1, 1), weight
        )
    assert torch.allclose(guided, ours, atol=1e-5)
    assert not torch.allclose(text[0], text[1])


def test_scaling_factor_makes_unit_latents(trained: Path) -> None:
    vae = AutoencoderKL.from_pretrained(trained / "prior", subfolder="vae").float()
    images = render_chunk(Discs(), tiny(), 0, 0).image.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1.0, abs=0.2)


def test_logs_and_pictures_are_left(trained: Path) -> None:
    logs = trained / "logs"
    for name in ("curves", "samples_guidance_3", "samples_guidance_7.5", "samples_truth"):
        assert Image.open(logs / f"{name}.png").size[0] > 200
    table = (logs / "diffusion.csv").read_text().splitlines()
    assert {"step", "loss", "attribute_loss", "text/skin", "text/view"} <= {*table[0].split(",")}
    assert [row.split(",")[0] for row in table[1:]] == ["0", "2", "4"]
    about = json.loads((trained / "prior" / "training.json").read_text())
    assert about["complete"] is True
    assert about["diffusion_steps"] == 6
    assert 0 <= about["figures"]["guidance_7.5/skin"] <= 1


def test_reconstructions_are_measured_on_all_held_out_pictures(trained: Path) -> None:
    vae = AutoencoderKL.from_pretrained(trained / "prior", subfolder="vae").float()
    figures = json.loads((trained / "prior" / "training.json").read_text())["figures"]
    settings = tiny()
    held_out = render_pictures(Discs(), settings, HELD_OUT, settings.held_out_pictures)
    for name, value in reconstruction_figures(vae, held_out).items():
        assert figures[name] == pytest.approx(value, abs=0.01), name


def test_archives_restore_the_folder(trained: Path, tmp_path: Path) -> None:
    archives = pack(trained / "prior", tmp_path / "packed")
    assert all(a.stat().st_size <= 16 * 2**20 for a in archives)
    count = unpack(archives, tmp_path / "back")
    files = [f for f in (trained / "prior").rglob("*") if f.is_file()]
    assert count == len(files) > 10
    for file in files:
        copy = tmp_path / "back" / file.relative_to(trained / "prior")
        assert copy.read_bytes() == file.read_bytes()


def test_archives_that_reach_outside_are_refused(tmp_path: Path) -> None:
    import io
    import tarfile

    evil = tmp_path / "evil_00.tar"
    with tarfile.open(evil, "w") as tar:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(HeadStudioError, match="nothing was unpacked"):
        unpack([evil], tmp_path / "back")
    assert not (tmp_path / "outside.txt").exists()
    with pytest.raises(HeadStudioError, match="cannot be unpacked"):
        unpack([tmp_path / "missing.tar"], tmp_path / "back")


def test_full_size_fits_and_too_large_is_refused(trained: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")
    out = tmp_path / "prior"
    out.mkdir()
    (out / "README.md").write_text("kept")
    for channels, fits in (((48, 96, 192), True), ((64, 128, 256), False)):
        sizes = Sizes(unet_channels=channels, attention_heads=(4, 4, 6))
        denoiser = make_denoiser(sizes, tokenizer, [3, 3])
        vae = AutoencoderKL.from_pretrained(trained / "prior", subfolder="vae")
        if fits:
            size = save_prior(out, denoiser, vae, trained / "state" / "tokenizer", {})
            assert 26 * 2**20 < size < 30 * 2**20  # with the tiny autoencoder; the real has 1.8
            assert max(f.stat().st_size for f in out.rglob("*") if f.is_file()) <= 15 * 2**20
            assert (out / "README.md").read_text() == "kept"
        else:
            before = sorted(p.name for p in tmp_path.iterdir())
            with pytest.raises(HeadStudioError, match="more than 32"):
                save_prior(out, denoiser, vae, trained / "state" / "tokenizer", {"new": 1})
            assert json.loads((out / "training.json").read_text()) == {}
            assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_grid_columns_show_the_views_they_are_named_after() -> None:
    captions = ["a, side view", "b", "c, front view", "d, back view", "e, front view"]
    assert pictures_of_views(captions) == [2, 0, 3, 4]
    assert pictures_of_views(captions[:2]) == [0, 1]
