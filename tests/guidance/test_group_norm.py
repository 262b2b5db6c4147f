"""The group norm that keeps the channels last is PyTorch's, and keeps them last."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from headstudio.guidance import DiffusionPrior
from headstudio.guidance._group_norm import GroupNormChannelsLast, keep_channels_last
from headstudio.guidance._networks import Networks

LAST = torch.channels_last


def pair(channels: int, groups: int, affine: bool = True) -> tuple[nn.GroupNorm, nn.GroupNorm]:
    """PyTorch's and ours, with the same parameters."""
    plain = nn.GroupNorm(groups, channels, eps=1e-6, affine=affine)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    ours = copy.deepcopy(plain)
    keep_channels_last(ours)
    assert type(ours) is GroupNormChannelsLast
    return plain, ours


def results(norm: nn.GroupNorm, features: Tensor) -> list[Tensor]:
    leaf = features.clone().requires_grad_()
    out = norm(leaf)
    wanted = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    (out * wanted).sum().backward()
    return [out.detach(), leaf.grad]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (1, 12, 1, 1), (3, 8, 6)])
def test_it_is_pytorchs(shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(0)
    plain, ours = pair(shape[1], 4, affine)
    features = torch.randn(shape).double()
    plain, ours = plain.double(), ours.double()
    for found, expected in zip(results(ours, features), results(plain, features), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mean", [0.0, 100.0, -3000.0])
def test_it_is_as_exact_far_from_zero(mean: float) -> None:
    torch.manual_seed(0)
    plain, ours = pair(16, 4)
    features = mean + torch.randn(2, 16, 40, 40)
    features[:, :, 0] *= 5  # a border unlike the rest
    exact = results(copy.deepcopy(plain).double(), features.double())
    for found, theirs, expected in zip(
        results(ours, features), results(plain, features), exact, strict=True
    ):
        tolerance = 2 * float((theirs - expected).abs().max()) + 1e-5
        assert (found - expected).abs().max() < tolerance


def test_what_is_the_same_everywhere_becomes_the_bias() -> None:
    _, ours = pair(8, 2)
    out, gradient = results(ours, torch.full((1, 8, 4, 4), 1e4))
    torch.testing.assert_close(out, ours.bias[:, None, None].expand_as(out[0])[None].detach())
    assert gradient.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    plain, ours = pair(16, 4)
    features = (3 + torch.randn(2, 16, 20, 20)).bfloat16()
    expected = results(plain, features.float())
    found = results(copy.deepcopy(ours).bfloat16(), features)
    assert all(one.dtype == torch.bfloat16 for one in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.05)


def test_no_convolution_gets_features_or_gradients_to_turn_around(prior_folder: Path) -> None:
    """On "meta", which holds no values. There, as on a GPU and other than on a CPU, PyTorch's own
    group norm returns the channels first; as a GPU's, convolutions are made to return them last."""
    vae = DiffusionPrior.from_pretrained(prior_folder).vae.to("meta")
    networks = Networks(None, None, vae)
    networks.arrange(channels_last=True)
    turned: dict[str, int] = {}

    def look(of: str, features: Tensor) -> None:
        turned[of] = turned.get(of, 0) + (not features.is_contiguous(memory_format=LAST))

    def watch(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        look("features", inputs[0])
        out = out.contiguous(memory_format=LAST)
        out.register_hook(lambda gradient: look("gradients", gradient))
        return out

    for module in vae.encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(watch)

    def encode() -> dict[str, int]:
        turned.clear()
        pictures = torch.rand(2, 3, 16, 16, device="meta", requires_grad=True)
        mean, deviation = networks._encode(pictures.contiguous(memory_format=LAST))
        (mean.sum() + deviation.sum()).backward()
        return turned

    assert min(encode().values()) > 0
    networks.compile(backend="eager")
    assert encode() == {"features": 0, "gradients": 0}
