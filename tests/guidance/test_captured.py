"""The prior's networks as CUDA graphs, and autoencoders with wide attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.guidance import DiffusionPrior, ScoreDistillation
from headstudio.guidance._networks import _write_out_wide_attention

gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
VIEWS = 4


def step(prior: DiffusionPrior, seed: int, t: list[int], visible: list[float]) -> list[Tensor]:
    """Loss and gradient of one step of distillation, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.rand(VIEWS, 20, 20, 3, generator=generator).to(prior.device).requires_grad_()
    control = torch.rand(VIEWS, 16, 16, 3, generator=generator).to(prior.device)
    noise = torch.randn(VIEWS, 4, 8, 8, generator=generator).to(prior.device)
    text = prior.embed_text([f"a woman {i}" for i in range(VIEWS)])
    guided = ScoreDistillation(prior)(
        rgb, text, prior.embed_text(["ugly"]), control=control, t=torch.tensor(t), noise=noise,
        visible=torch.tensor(visible, device=prior.device), generator=generator,
    )  # fmt: skip
    guided["loss_sds"].backward()
    return [guided["loss_sds"].detach().cpu(), rgb.grad.cpu()]


@gpu
@needs_cuda
def test_a_step_with_graphs_equals_one_without(prior_folder: Path) -> None:
    eager = DiffusionPrior.from_pretrained(prior_folder, device="cuda", dtype=torch.float32)
    graphs = DiffusionPrior.from_pretrained(prior_folder, device="cuda", dtype=torch.float32)
    graphs.speed_up(cuda_graphs=True)
    steps = [
        ([30, 199, 300, 640], [1.0, 0.0, 1.0, 0.5]),
        ([300, 400, 300, 640], [1.0, 1.0, 1.0, 0.5]),
        ([3, 19, 30, 64], [0.0, 0.0, 1.0, 0.5]),
        ([30, 199, 300, 640], [0.0, 1.0, 0.0, 0.0]),  # shapes that are captured already
        ([300, 400, 300, 640], [0.0, 0.0, 0.0, 0.0]),
    ]
    for seed, (t, visible) in enumerate(steps):
        for got, expected in zip(
            step(graphs, seed, t, visible), step(eager, seed, t, visible), strict=True
        ):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_graphs_change_nothing_on_a_cpu(prior_folder: Path) -> None:
    prior = DiffusionPrior.from_pretrained(prior_folder)
    before = step(prior, 0, [30, 199, 300, 640], [1.0, 0.0, 1.0, 0.5])
    prior.speed_up(cuda_graphs=True)
    after = step(prior, 0, [30, 199, 300, 640], [1.0, 0.0, 1.0, 0.5])
    assert not prior.networks.captured
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_graphs_and_compilation_exclude_each_other(prior_folder: Path) -> None:
    prior = DiffusionPrior.from_pretrained(prior_folder)
    with pytest.raises(HeadStudioError, match="choose one"):
        prior.speed_up(compile=True, cuda_graphs=True)


def test_wide_attention_is_written_out_with_the_same_result() -> None:
    from diffusers import AutoencoderKL
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    torch.manual_seed(0)
    narrow, wide = (
        AutoencoderKL(block_out_channels=(width,), norm_num_groups=4, latent_channels=4)
        for width in (16, 512)
    )
    for vae, processor in ((narrow, AttnProcessor2_0), (wide, AttnProcessor)):
        picture = torch.rand(1, 3, 8, 8)
        before = vae.eval().encode(picture).latent_dist.mean
        _write_out_wide_attention(vae)
        attention = vae.encoder.mid_block.attentions[0]
        assert type(attention.processor) is processor
        torch.testing.assert_close(vae.encode(picture).latent_dist.mean, before)
