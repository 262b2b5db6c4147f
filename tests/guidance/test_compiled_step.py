"""A step of distillation whose networks are compiled equals the step as PyTorch runs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstudio.guidance import DiffusionPrior, ScoreDistillation
from tests.fixtures.tiny_prior import TEXT_WIDTH, make_tiny_prior

B = 4
SIZE = 8  # of pictures, control images and latents

CASES = {
    # timesteps, of which those from 200 on are late; how visible the faces are
    "some late, some seen": ([30, 199, 300, 640], [1.0, 0.0, 1.0, 0.5]),
    "one more of each": ([300, 199, 300, 640], [1.0, 1.0, 1.0, 0.5]),
    "none late, one seen": ([3, 19, 30, 64], [0.0, 0.0, 1.0, 0.0]),
    "none late, all seen": ([3, 19, 30, 64], [1.0, 0.25, 1.0, 0.5]),
    "all late, none seen": ([300, 400, 979, 640], [0.0, 0.0, 0.0, 0.0]),
    "none late, none seen": ([3, 19, 30, 64], [0.0, 0.0, 0.0, 0.0]),
    "one late, one seen": ([3, 19, 200, 64], [0.0, 1.0, 0.0, 0.0]),
    "all late, all seen": ([300, 400, 979, 640], [1.0, 1.0, 0.25, 0.5]),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def compiled_anew() -> Iterator[None]:
    """Neither find what another test compiled, nor leave anything behind."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny prior with a single level in each network: half as much to compile."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

    folder = make_tiny_prior(tmp_path_factory.mktemp("prior") / "flat")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8,),
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE,
            scaling_factor=0.5,
        ).save_pretrained(folder / "vae")
        unet = UNet2DConditionModel(
            sample_size=SIZE,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=TEXT_WIDTH,
        )
        unet.save_pretrained(folder / "unet")
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8,))
        for silent in (
            controlnet.controlnet_down_blocks,
            controlnet.controlnet_mid_block,
            controlnet.controlnet_cond_embedding.conv_out,
        ):
            for parameter in silent.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
        controlnet.save_pretrained(folder / "controlnet")
    return folder


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusionPrior:
    return DiffusionPrior.from_pretrained(folder, device=device, dtype=dtype)


def step(prior: DiffusionPrior, case: str) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the pictures of one step, on the CPU. The noise differs by case."""
    steps, visible = CASES[case]
    generator = torch.Generator().manual_seed(list(CASES).index(case))
    device = prior.device
    rgb = torch.rand(B, SIZE, SIZE, 3, generator=generator).to(device).requires_grad_()
    out = ScoreDistillation(prior)(
        rgb,
        prior.embed_text([f"a woman, view {i}" for i in range(B)]),
        prior.embed_text(["ugly"]),
        control=torch.rand(B, SIZE, SIZE, 3, generator=generator).to(device),
        visible=torch.tensor(visible, device=device),
        t=torch.tensor(steps),
        generator=generator,
    )
    out["loss_sds"].backward()
    assert out["n_nonfinite"] == 0
    return out["loss_sds"].detach().cpu(), rgb.grad.cpu()


def distance(found: Tensor, expected: Tensor) -> float:
    """In parts of the expected length."""
    return float((found - expected).norm() / expected.norm())


class Counted:
    """A backend of torch.compile that notes what it is given, one graph after the other."""

    def __init__(self, with_gradient: str, without: str) -> None:
        """
        Args:
            with_gradient, without: the backends that graphs with a backward pass and those without
                are handed on to.
        """
        self.backends = with_gradient, without
        self.nodes: list[int] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.nodes.append(len(graph.graph.nodes))
        needs = any(isinstance(one, Tensor) and one.requires_grad for one in inputs)
        return torch._dynamo.lookup_backend(self.backends[0 if needs else 1])(graph, inputs)


def compiled(prior: DiffusionPrior, backend: Any = "inductor") -> DiffusionPrior:
    prior.speed_up(compile=True, backend=backend)
    return prior


def preview(prior: DiffusionPrior) -> list[Tensor]:
    """What three pictures are seen as, and what is wanted instead."""
    generator = torch.Generator().manual_seed(1)
    rgb, control = torch.rand(2, 3, SIZE, SIZE, 3, generator=generator)
    text = prior.embed_text(["a man"] * 3)
    seen = ScoreDistillation(prior).preview(rgb, text, control=control, visible=0.5)
    return [seen["imgs_noisy"], seen["imgs_1step"]]


def gradient_of_two_at_once(prior: DiffusionPrior) -> list[Tensor]:
    """Of four pictures' latents, whose ten predictions are made in passes of six and four."""
    generator = torch.Generator().manual_seed(2)
    latents, noise = torch.randn(2, B, 4, SIZE, SIZE, generator=generator)
    prior.views_at_once = 2
    gradient, _, n = ScoreDistillation(prior).gradient(
        latents,
        torch.tensor([30, 199, 300, 640]),
        prior.embed_text(["a man"] * B),
        prior.embed_text(["ugly"]),
        control=torch.rand(B, SIZE, SIZE, 3, generator=generator),
        noise=noise,
    )
    prior.views_at_once = None
    assert n == 10
    return [gradient]


@pytest.mark.timeout(900)  # tracing takes a minute of a CPU that is idle
def test_the_step_with_compilation_equals_the_step_without(folder: Path) -> None:
    """And each network is compiled once, whole, however many samples are late or asked about."""
    # What Dynamo makes of the predictions, and AOTAutograd of the encoder with its backward pass;
    # the slow test has both for all.
    backend = Counted(with_gradient="aot_eager", without="eager")
    plain, other = load(folder), compiled(load(folder), backend)
    graphs = []
    for case in CASES:
        loss, gradient = step(other, case)
        expected_loss, expected = step(plain, case)
        assert expected.norm() > 1e-4, case
        torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=0)
        # The order of features in memory differs as well, and with it that of the sums.
        assert distance(gradient, expected) < 1e-4, case
        graphs.append(len(backend.nodes))
    # The encoder and the guided UNet at first; the UNet alone where no face is seen for once.
    assert graphs == [2, 2, 2, 2, 3, 3, 3, 3]

    # A preview looks at other numbers of pictures than a step; passes for two views, or for what is
    # left of the samples, at others again.
    for other_numbers in (preview, gradient_of_two_at_once):
        for found, expected in zip(other_numbers(other), other_numbers(plain), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert len(backend.nodes) == 3


@pytest.mark.slow
@pytest.mark.timeout(1200)  # g++ compiles a hundred small kernels
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_compiled_code_of_a_cpu_equals_the_step_without(folder: Path, backend: str) -> None:
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler: there is no g++")
    plain, other = load(folder), compiled(load(folder), counted := Counted(backend, backend))
    for case in list(CASES)[:4]:  # where the encoder and the guided UNet are all that is used
        loss, gradient = step(other, case)
        expected_loss, expected = step(plain, case)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=0)
        assert distance(gradient, expected) < 1e-4, case
    assert len(counted.nodes) == 2


@pytest.fixture
def exact_products() -> Iterator[None]:
    """Without TF32, which keeps 10 bits: two ways to compute in float32 then agree to 1e-5."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_compiled_for_a_gpu_equals_the_step_without(
    folder: Path, exact_products: None
) -> None:
    plain = load(folder, "cuda")
    other = compiled(load(folder, "cuda"), counted := Counted("inductor", "inductor"))
    for case in CASES:
        loss, gradient = step(other, case)
        expected_loss, expected = step(plain, case)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-3, atol=0)
        # Rounding is 1e-7; a guidance scale of 7.5 on a difference of predictions, and the
        # layers, make tens to hundreds of it.
        assert distance(gradient, expected) < 1e-4, case
    assert len(counted.nodes) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_bfloat16_is_as_near_to_the_truth_as_bfloat16_is(
    folder: Path, exact_products: None
) -> None:
    """Compiled code rounds elsewhere (less often: what is fused stays in float32), so that the two
    gradients need not agree in more than bfloat16's 8 bits, and these are of predictions whose
    difference counts 7.5 times. What must hold is that it is no worse."""
    truth = load(folder, "cuda")
    plain = load(folder, "cuda", torch.bfloat16)
    other = compiled(load(folder, "cuda", torch.bfloat16))
    away: dict[str, list[float]] = {"plain": [], "compiled": []}
    for case in CASES:
        _, expected = step(truth, case)
        away["plain"].append(distance(step(plain, case)[1], expected))
        away["compiled"].append(distance(step(other, case)[1], expected))
    mean = {name: sum(values) / len(values) for name, values in away.items()}
    assert mean["compiled"] < 1.25 * mean["plain"] + 0.002, away
    assert max(away["compiled"]) < 0.2, away
