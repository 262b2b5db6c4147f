"""Loading priors, and what they compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.guidance import DiffusionPrior, sample
from tests.fixtures.tiny_prior import IMAGE_SIZE, LATENT_SIZE, PARTS, TEXT_LENGTH, make_tiny_prior


def inputs(prior: DiffusionPrior, n: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(n, 4, LATENT_SIZE, LATENT_SIZE, generator=generator)
    control = torch.rand(n, IMAGE_SIZE, IMAGE_SIZE, 3, generator=generator)
    text = prior.embed_text([f"a woman with red hair {i}" for i in range(n)])
    t = torch.linspace(5, 995, n).long()
    return latents, t, text, control


def test_sizes_come_from_the_model(prior: DiffusionPrior) -> None:
    assert prior.latent_size == LATENT_SIZE
    assert prior.image_size == prior.control_size == IMAGE_SIZE
    assert prior.num_train_timesteps == len(prior.alphas_cumprod) == 1000
    assert prior.null_embedding.shape[:2] == (1, TEXT_LENGTH)
    assert prior.dtype == torch.float32
    for module in (prior.unet, prior.vae, prior.controlnet, prior.text_encoder):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())


def test_noise_is_the_models_own(prior: DiffusionPrior) -> None:
    """One batched call equals diffusers called sample by sample, control weight and all."""
    latents, t, text, control = inputs(prior, 4)
    weight = torch.tensor([0.0, 0.5, 1.0, 1.5])
    ours = prior.predict_noise(latents, t, text, control, weight)
    for i in range(4):
        with torch.no_grad():
            down, middle = prior.controlnet(
                latents[i : i + 1],
                t[i],
                encoder_hidden_states=text[i : i + 1],
                controlnet_cond=control[i : i + 1].movedim(-1, 1),
                conditioning_scale=float(weight[i]),
                return_dict=False,
            )
            expected = prior.unet(
                latents[i : i + 1],
                t[i],
                encoder_hidden_states=text[i : i + 1],
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
        torch.testing.assert_close(ours[i : i + 1], expected, atol=1e-5, rtol=1e-4)


def test_weight_zero_is_no_controlnet(prior: DiffusionPrior) -> None:
    latents, t, text, control = inputs(prior, 3)
    without = prior.predict_noise(latents, t, text)
    zero = prior.predict_noise(latents, t, text, control, torch.zeros(3))
    one = prior.predict_noise(latents, t, text, control, torch.ones(3))
    torch.testing.assert_close(zero, without, atol=1e-6, rtol=1e-5)
    assert (one - without).abs().max() > 1e-2  # there was something to switch off


def test_v_prediction_is_converted(prior: DiffusionPrior, v_prior: DiffusionPrior) -> None:
    latents, t, text, control = inputs(prior, 3)
    output = prior.predict_noise(latents, t, text, control)  # the same weights, unconverted
    alpha = prior.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    epsilon = v_prior.predict_noise(latents, t, text, control)
    torch.testing.assert_close(epsilon, alpha * output + sigma * latents)
    # v = αε − σx₀: the noise and the picture that v stands for add up to the noisy latents.
    clean = v_prior.denoise(latents, epsilon, t)
    torch.testing.assert_close(v_prior.add_noise(clean, epsilon, t), latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alpha * epsilon - sigma * clean, output, atol=1e-3, rtol=1e-3)


def test_encoding_is_differentiable_and_repeatable(prior: DiffusionPrior) -> None:
    rgb = torch.rand(2, 24, 20, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    latents = prior.encode(rgb)
    assert latents.shape == (2, 4, LATENT_SIZE, LATENT_SIZE)
    latents.square().sum().backward()
    assert (rgb.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    seeds = [torch.Generator().manual_seed(s) for s in (3, 3, 4)]
    drawn = [prior.encode(rgb, sample=True, generator=seed).detach() for seed in seeds]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], latents.detach())
    pictures = prior.decode(latents.detach())
    assert pictures.shape == (2, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_the_controlnet_may_be_elsewhere_or_left_out(prior_folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "control" / "diffusion_sd15"
    make_tiny_prior(tmp_path / "base", controlnet_folder=elsewhere)
    whole = DiffusionPrior.from_pretrained(prior_folder)
    apart = DiffusionPrior.from_pretrained(
        tmp_path / "base", tmp_path / "control", "diffusion_sd15", keep_text_encoder=False
    )
    latents, t, text, control = inputs(whole, 2)
    args = (latents, t, text, control)
    torch.testing.assert_close(apart.predict_noise(*args), whole.predict_noise(*args))
    torch.testing.assert_close(apart.null_embedding, whole.null_embedding)
    with pytest.raises(HeadStudioError, match="text encoder was freed"):
        apart.embed_text(["a man"])

    without = DiffusionPrior.from_pretrained(tmp_path / "base", with_controlnet=False)
    torch.testing.assert_close(
        without.predict_noise(latents, t, text), whole.predict_noise(latents, t, text)
    )
    with pytest.raises(HeadStudioError, match="without a ControlNet"):
        without.predict_noise(*args)


def test_another_autoencoder(prior_folder: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path / "taesd")
    prior = DiffusionPrior.from_pretrained(
        prior_folder, vae_name_or_folder=tmp_path / "taesd", dtype=torch.bfloat16
    )
    rgb = torch.rand(1, 40, 40, 3, requires_grad=True)
    latents = prior.encode(rgb, sample=True)
    latents.sum().backward()
    assert latents.shape == (1, 4, LATENT_SIZE, LATENT_SIZE)
    assert latents.dtype == torch.float32
    assert rgb.grad.abs().sum() > 0
    assert prior.decode(latents.detach()).shape == (1, IMAGE_SIZE, IMAGE_SIZE, 3)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_before_loading(
    prior_folder: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prior"
    shutil.copytree(prior_folder, folder)
    shutil.rmtree(folder / part)

    def never(*args, **kwargs):
        raise AssertionError("loaded something before looking for everything")

    monkeypatch.setattr("headstudio.guidance.prior._load", never)
    with pytest.raises(HeadStudioError, match=rf"{part}: there is no folder .*{part}"):
        DiffusionPrior.from_pretrained(folder)


def test_missing_files_are_named(prior_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prior"
    shutil.copytree(prior_folder, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin"
    )
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "shard-1.safetensors", "b": "shard-2.safetensors"}})
    )
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    (folder / "tokenizer" / "vocab.json").unlink()
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(HeadStudioError) as error:
        DiffusionPrior.from_pretrained(folder)
    message = str(error.value)
    assert "diffusion_pytorch_model.bin is a pickle" in message
    assert "lacks shard-1.safetensors, shard-2.safetensors" in message
    assert "tokenizer_config.json" in message
    assert "controlnet" not in message.split("Expected")[0]


def test_damage_is_reported(prior_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prior"
    shutil.copytree(prior_folder, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(HeadStudioError, match=r"cannot load the unet from .*unet"):
        DiffusionPrior.from_pretrained(folder)
    with pytest.raises(HeadStudioError, match="there is no folder"):
        DiffusionPrior.from_pretrained(tmp_path / "nowhere")


def test_parts_of_different_families_are_refused(prior_folder: Path, tmp_path: Path) -> None:
    from diffusers import ControlNetModel, UNet2DConditionModel

    config = dict(UNet2DConditionModel.load_config(prior_folder / "unet"))
    config["cross_attention_dim"] = 24
    other = UNet2DConditionModel.from_config(config)
    ControlNetModel.from_unet(other).save_pretrained(tmp_path / "controlnet")
    with pytest.raises(
        HeadStudioError, match="ControlNet attends to 24, the text encoder gives 16"
    ):
        DiffusionPrior.from_pretrained(prior_folder, tmp_path / "controlnet")


def test_sampling(prior: DiffusionPrior, v_prior: DiffusionPrior) -> None:
    prompts = ["a man with a beard", "a woman"]
    control = torch.rand(2, IMAGE_SIZE, IMAGE_SIZE, 3)
    one = sample(prior, prompts, control, steps=4, seed=1)
    assert one.shape == (2, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert torch.equal(one, sample(prior, prompts, control, steps=4, seed=1))
    assert not torch.equal(one, sample(prior, prompts, control, steps=4, seed=2))
    assert not torch.equal(one, sample(prior, prompts, steps=4, seed=1))
    embedded = sample(prior, prior.embed_text(prompts), control, steps=4, seed=1)
    assert torch.equal(one, embedded)
    assert sample(v_prior, prompts, steps=3).isfinite().all()
    with pytest.raises(HeadStudioError, match="0 steps"):
        sample(prior, prompts, steps=0)


def test_ddim_follows_the_noise_to_the_picture(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a known latent z the path is known: it keeps its noise to √ᾱ₀z + √(1−ᾱ₀)ε."""
    shape = (1, 4, LATENT_SIZE, LATENT_SIZE)
    target = torch.randn(shape, generator=torch.Generator().manual_seed(9))

    def exact(noisy, t, *_):
        alpha, sigma = prior.alpha_sigma(t)
        return (noisy - alpha * target) / sigma

    monkeypatch.setattr(prior, "predict_noise", exact)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    first = torch.tensor([951])  # 20 steps, leading spacing, an offset of 1
    noise = exact(start, first)
    end = prior.add_noise(target, noise, torch.tensor([0]))
    picture = sample(prior, ["a man"], steps=20, seed=5)
    torch.testing.assert_close(picture, prior.decode(end), atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, None])
def test_half_precision_agrees_on_cuda(prior_folder: Path, prior: DiffusionPrior, dtype) -> None:
    half = DiffusionPrior.from_pretrained(prior_folder, device="cuda", dtype=dtype)
    assert half.dtype in (torch.float16, torch.bfloat16)
    latents, t, text, control = inputs(prior, 3)
    expected = prior.predict_noise(latents, t, text, control, torch.tensor([0.0, 1.0, 1.5]))
    got = half.predict_noise(
        latents.cuda(), t.cuda(), text.cuda(), control.cuda(), torch.tensor([0.0, 1.0, 1.5]).cuda()
    )
    assert got.dtype == torch.float32
    assert (got.cpu() - expected).norm() / expected.norm() < 0.03
