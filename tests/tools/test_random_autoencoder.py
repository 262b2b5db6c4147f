"""The small autoencoder with random weights stands in for a prior's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headstudio.guidance import DiffusionPrior
from tests.fixtures.tiny_prior import LATENT_SIZE, make_tiny_prior
from tools.make_random_sd import TINY_AUTOENCODER, make_tiny_autoencoder

SIDE = 8 * LATENT_SIZE  # it halves the side three times, as Stable Diffusion's own does


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_autoencoder(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> DiffusionPrior:
    tiny = make_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")
    return DiffusionPrior.from_pretrained(tiny, vae_name_or_folder=folder)


def test_its_folder_has_what_the_hubs_has(folder: Path) -> None:
    assert folder.name == TINY_AUTOENCODER
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }


def test_a_prior_takes_it_instead_of_its_own(prior: DiffusionPrior) -> None:
    assert type(prior.vae).__name__ == "AutoencoderTiny"
    assert prior.image_size == SIDE
    # madebyollin/taesd's, with which a loss in latents keeps its scale.
    assert sum(p.numel() for p in prior.vae.parameters()) == 2_445_063
    assert prior.vae.config.scaling_factor == 1.0
    assert prior.dtype == torch.float32  # whatever the file has


def test_pictures_of_any_size_get_a_gradient_through_it(prior: DiffusionPrior) -> None:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 80, 48, 3, generator=generator, requires_grad=True)
    latents = prior.encode(rgb, sample=True, generator=generator)
    assert latents.shape == (2, 4, LATENT_SIZE, LATENT_SIZE)
    # It has no posterior to draw from.
    torch.testing.assert_close(latents, prior.encode(rgb))
    latents[0].square().sum().backward()
    assert rgb.grad[0].isfinite().all()
    assert (rgb.grad[0].abs().sum(dim=-1) > 0).float().mean() > 0.9  # every part of the picture
    assert not rgb.grad[1].any()  # a picture by itself
    pictures = prior.decode(latents.detach())
    assert pictures.shape == (2, SIDE, SIDE, 3)
    assert pictures.isfinite().all()


def test_the_gradient_is_the_slope(prior: DiffusionPrior) -> None:
    """Where it points, by differences on both sides."""
    generator = torch.Generator().manual_seed(1)
    rgb = 0.25 + 0.5 * torch.rand(1, SIDE, SIDE, 3, generator=generator)
    weight = torch.randn(1, 4, LATENT_SIZE, LATENT_SIZE, generator=generator)

    def value(picture: torch.Tensor) -> torch.Tensor:
        return (weight * prior.encode(picture)).sum()

    leaf = rgb.clone().requires_grad_()
    value(leaf).backward()
    steepness = leaf.grad.norm()
    step = 0.02 * leaf.grad / steepness
    with torch.no_grad():
        measured = (value(rgb + step) - value(rgb - step)) / 0.04
    assert float(measured) == pytest.approx(float(steepness), rel=0.02)


def test_the_seed_decides_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    name = "diffusion_pytorch_model.safetensors"
    state = torch.get_rng_state()
    same = make_tiny_autoencoder(tmp_path / "same", seed=0)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's numbers go on as they would
    other = make_tiny_autoencoder(tmp_path / "other", seed=1)
    assert (same / name).read_bytes() == (folder / name).read_bytes()
    assert (other / name).read_bytes() != (folder / name).read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        make_tiny_autoencoder(tmp_path / "same")
