"""The numba renderer against the PyTorch reference, and both against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.render import Cameras, RenderOutput, render

NAMES = ("means", "quats", "scales", "opacities", "colors", "features", "means2d")


def random_splats(
    poses: int, n: int, seed: int = 0, size: float = 0.03, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """A cloud of splats around the origin, with every input that takes a gradient."""
    g = torch.Generator().manual_seed(seed)
    splats = {
        "means": torch.randn(poses, n, 3, generator=g) * 0.35,
        "quats": torch.randn(poses, n, 4, generator=g),
        "scales": size * torch.exp(0.7 * torch.randn(poses, n, 3, generator=g)),
        "opacities": 0.02 + 0.97 * torch.rand(n, generator=g),
        "colors": torch.rand(n, 3, generator=g),
        "features": torch.randn(n, 2, generator=g),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in splats.items()}


def loss_of(output: RenderOutput, seed: int = 1) -> torch.Tensor:
    """A scalar on which every output has a random influence."""
    g = torch.Generator().manual_seed(seed)
    assert output.features is not None
    parts = (output.rgb, output.alpha, 0.3 * output.depth, output.features)
    return sum((part * torch.randn(part.shape, generator=g).to(part)).sum() for part in parts)  # type: ignore[return-value]


def gradients(
    splats: dict[str, torch.Tensor], cameras: Cameras, backend: str
) -> tuple[RenderOutput, dict[str, torch.Tensor]]:
    output = render(**splats, cameras=cameras, backend=backend)  # type: ignore[arg-type]
    values = torch.autograd.grad(loss_of(output), [*splats.values(), output.means2d])
    return output, dict(zip(NAMES, values, strict=True))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(max(float(((a - b) ** 2).mean().detach()), 1e-20))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def assert_agree(
    splats: dict[str, torch.Tensor], cameras: Cameras, a: str = "numba", b: str = "reference"
) -> None:
    one, grad_one = gradients(splats, cameras, a)
    two, grad_two = gradients(splats, cameras, b)
    assert two.alpha.max() > 0.2, "the scene shows nothing"
    for field in ("rgb", "alpha", "depth", "features"):
        assert psnr(getattr(one, field), getattr(two, field)) > 60, field
    seen = (one.radii > 0) & (two.radii > 0)
    assert ((one.radii > 0) == (two.radii > 0)).float().mean() > 0.999
    torch.testing.assert_close(one.means2d[seen], two.means2d[seen], rtol=1e-4, atol=1e-3)
    for name in NAMES:
        assert relative(grad_one[name], grad_two[name]) < 1e-3, name


def test_pictures_and_gradients_equal_the_reference() -> None:
    cameras = Cameras.orbit(25.0, 15.0, 2.0, 45.0, 72, 100)
    assert_agree(random_splats(1, 1500), cameras)


def test_poses_times_cameras() -> None:
    one = Cameras.orbit(torch.tensor([0.0, 80.0, 200.0]), 10.0, 2.0, 50.0, 33, 40)
    c2w = one.c2w.repeat(2, 1, 1, 1)
    c2w[1, :, 2, 3] += 0.2
    cameras = Cameras(c2w, one.fovy.repeat(2, 1), 33, 40)
    splats = random_splats(2, 300)
    assert_agree(splats, cameras)

    together = render(**splats, cameras=cameras)
    alone = render(
        **{k: v[1:] if k in ("means", "quats", "scales") else v for k, v in splats.items()},
        cameras=Cameras(c2w[1:, 2:], one.fovy[:, 2:], 33, 40),
    )
    assert torch.equal(together.rgb[1, 2], alone.rgb[0, 0])


def test_one_pose_for_many_cameras_and_the_reverse() -> None:
    cameras = Cameras.orbit(torch.tensor([0.0, 90.0]), 0.0, 2.0, 50.0, 24, 24)
    splats = random_splats(3, 50)
    assert render(**splats, cameras=cameras).rgb.shape == (3, 2, 24, 24, 3)
    per_view = Cameras(cameras.c2w.transpose(0, 1), cameras.fovy.T, 24, 24)
    single = {k: v[:1] if k in ("means", "quats", "scales") else v for k, v in splats.items()}
    across = render(**single, cameras=per_view)
    assert across.rgb.shape == (2, 1, 24, 24, 3)
    assert torch.equal(across.rgb[:, 0], render(**single, cameras=cameras).rgb[0])


def test_opacities_and_colors_per_pose() -> None:
    splats = random_splats(2, 200)
    shared = dict(splats)
    g = torch.Generator().manual_seed(5)
    splats["opacities"] = torch.rand(2, 200, generator=g).requires_grad_()
    splats["colors"] = torch.rand(2, 200, 3, generator=g).requires_grad_()
    assert_agree(splats, Cameras.orbit(torch.tensor([10.0, 70.0]), 0.0, 2.0, 45.0, 32, 32))

    # What two poses share is the same as two equal rows, and its gradient is their sum.
    twice = {
        k: v.detach().expand(2, *v.shape).clone().requires_grad_()
        if k in ("opacities", "colors", "features")
        else v
        for k, v in shared.items()
    }
    cameras = Cameras.orbit(10.0, 0.0, 2.0, 45.0, 32, 32)
    one, grad_one = gradients(shared, cameras, "numba")
    two, grad_two = gradients(twice, cameras, "numba")
    assert torch.equal(one.rgb, two.rgb)
    for name in ("opacities", "colors", "features"):
        torch.testing.assert_close(grad_one[name], grad_two[name].sum(0), rtol=1e-4, atol=1e-4)


def test_splats_beside_and_behind_the_camera() -> None:
    """Close up: culling by near plane and picture edge, and the clamp of the Jacobian."""
    splats = random_splats(1, 600, size=0.06)
    cameras = Cameras.orbit(0.0, 0.0, 0.4, 70.0, 48, 64)
    output = render(**splats, cameras=cameras)
    culled = float((output.radii == 0).float().mean())
    assert 0.1 < culled < 0.9
    assert_agree(splats, cameras)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_equal_finite_differences(seed: int) -> None:
    """In float64 on the reference, which the kernels are held to by the tests above."""
    splats = random_splats(1, 6, seed=seed, size=0.15, dtype=torch.float64)
    cameras = Cameras.orbit(30.0, 20.0, 2.0, 40.0, 9, 11)
    cameras = Cameras(cameras.c2w.double(), cameras.fovy.double(), 9, 11)

    def scalar(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip(splats, values, strict=True))
        return loss_of(render(**named, cameras=cameras, backend="reference"))  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(scalar, tuple(splats.values()), eps=1e-6, atol=1e-5, rtol=1e-3)


def test_kernel_gradients_equal_finite_differences_of_the_reference() -> None:
    """Directional derivatives: float32 kernels against float64 differences."""
    splats = random_splats(1, 40, seed=3, size=0.1)
    cameras = Cameras.orbit(30.0, 20.0, 2.0, 40.0, 24, 24)
    _, grads = gradients(splats, cameras, "numba")
    exact = Cameras(cameras.c2w.double(), cameras.fovy.double(), 24, 24)
    g = torch.Generator().manual_seed(9)
    for name, value in splats.items():
        direction = torch.randn(value.shape, generator=g).double()
        wide = {k: v.detach().double() for k, v in splats.items()}

        def at(step: float, wide=wide, name=name, direction=direction) -> float:
            moved = {**wide, name: wide[name] + step * direction}
            output = render(**moved, cameras=exact, backend="reference")  # type: ignore[arg-type]
            return float(loss_of(output))

        # A pixel may cross the visibility threshold within a step; the median step is clean.
        slopes = sorted((at(h) - at(-h)) / (2 * h) for h in (3e-7, 1e-6, 2e-6))
        analytic = float((grads[name].double() * direction).sum())
        assert analytic == pytest.approx(slopes[1], rel=2e-3, abs=2e-3), name


def test_one_splat_in_closed_form() -> None:
    height = width = 15  # odd, so that the middle pixel's centre is the principal point
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 45.0, height, width)
    sigma, opacity = 0.2, 0.8
    output = render(
        means=torch.zeros(1, 1, 3),
        quats=torch.tensor([[[2.0, 0, 0, 0]]]),
        scales=torch.full((1, 1, 3), sigma),
        opacities=torch.tensor([opacity]),
        colors=torch.tensor([[0.2, 0.5, 0.9]]),
        cameras=cameras,
        background=torch.tensor([1.0, 0.0, 0.0]),
    )
    variance = (float(cameras.focal()) * sigma / 2.0) ** 2 + 0.3
    for offset in (0, 2, 4):
        alpha = opacity * math.exp(-0.5 * offset**2 / variance)
        assert float(output.alpha[0, 0, 7, 7 + offset]) == pytest.approx(alpha, rel=1e-4)
        assert float(output.depth[0, 0, 7 - offset, 7]) == pytest.approx(2.0, rel=1e-5)
        expected = torch.tensor([0.2 * alpha + 1 - alpha, 0.5 * alpha, 0.9 * alpha])
        torch.testing.assert_close(output.rgb[0, 0, 7 + offset, 7], expected, rtol=1e-4, atol=1e-5)
    assert output.means2d[0, 0, 0].tolist() == pytest.approx([7.5, 7.5])


def test_occlusion_stops_when_the_pixel_is_full() -> None:
    """Behind nearly opaque splats nothing is drawn, whatever the order of the inputs."""
    x = torch.tensor([-0.5, 0.5, 0.4, 0.3, 0.0])  # the camera is on +x: 0.5 is in front
    means = torch.stack([x, torch.zeros(5), torch.zeros(5)], dim=-1)[None]
    colors = torch.eye(5)[:, :3]
    output = render(
        means,
        torch.tensor([1.0, 0, 0, 0]).expand(1, 5, 4),
        torch.full((1, 5, 3), 0.3),
        torch.tensor([0.999, 0.9, 0.95, 0.999, 0.999]),
        colors,
        Cameras.orbit(0.0, 0.0, 3.0, 40.0, 9, 9),
    )
    middle = output.rgb[0, 0, 4, 4]
    assert float(middle[1]) == pytest.approx(0.9, abs=0.02)
    assert float(middle[2]) == pytest.approx(0.095, abs=0.02)
    assert float(middle[0]) == 0.0
    # 0.1 * 0.05 = 5e-3 is left before the third, which would leave 5e-6 < 1e-4: it is not drawn.
    assert float(output.alpha[0, 0, 4, 4]) == pytest.approx(0.995, abs=0.003)


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize(("n", "height", "width"), [(0, 8, 8), (1, 1, 1), (5, 1, 1), (5, 17, 1)])
def test_degenerate_sizes(backend: str, n: int, height: int, width: int) -> None:
    splats = random_splats(1, n, size=0.3)
    output = render(
        **splats,
        cameras=Cameras.orbit(0.0, 0.0, 2.0, 45.0, height, width),
        background=torch.tensor([0.0, 0.5, 1.0]),
        backend=backend,  # type: ignore[arg-type]
    )
    assert output.rgb.shape == (1, 1, height, width, 3)
    loss_of(output).backward()
    assert splats["means"].grad is not None
    assert output.means2d.grad is not None
    if n == 0:
        assert torch.equal(output.rgb[0, 0, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
    else:
        assert output.alpha.max() > 0


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_nothing_visible_is_the_background(backend: str) -> None:
    splats = random_splats(1, 20)
    moved = {**splats, "means": splats["means"] + torch.tensor([10.0, 0, 0])}  # behind the camera
    output = render(
        **moved,
        cameras=Cameras.orbit(0.0, 0.0, 2.0, 45.0, 20, 20),
        background=torch.ones(3),
        backend=backend,  # type: ignore[arg-type]
    )
    assert torch.equal(output.rgb, torch.ones_like(output.rgb))
    assert output.depth.abs().max() == 0
    assert (output.radii == 0).all()
    loss_of(output).backward()
    assert splats["means"].grad is not None
    assert splats["means"].grad.abs().max() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_splat_that_is_not_finite_spoils_nothing(bad: float) -> None:
    splats = {k: v.detach().clone() for k, v in random_splats(1, 50).items()}
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 45.0, 24, 24)
    without = render(**{k: _drop_first(k, v) for k, v in splats.items()}, cameras=cameras)
    for name in ("means", "quats", "scales"):
        spoiled = {k: v.clone() for k, v in splats.items()}
        spoiled[name][0, 0, 0] = bad
        output = render(**spoiled, cameras=cameras)
        assert output.radii[0, 0, 0] == 0
        assert torch.equal(output.rgb, without.rgb), name


def _drop_first(name: str, value: torch.Tensor) -> torch.Tensor:
    return value[:, 1:] if name in ("means", "quats", "scales") else value[1:]


def test_backgrounds_of_every_shape() -> None:
    splats = random_splats(2, 100)
    cameras = Cameras.orbit(torch.tensor([0.0, 90.0, 180.0]), 0.0, 2.0, 45.0, 16, 20)
    black = render(**splats, cameras=cameras)
    g = torch.Generator().manual_seed(0)
    for shape in [(3,), (2, 3, 3), (2, 3, 16, 20, 3)]:
        background = torch.rand(shape, generator=g, requires_grad=True)
        full = background[:, :, None, None] if len(shape) == 3 else background
        output = render(**splats, cameras=cameras, background=background)
        torch.testing.assert_close(output.rgb, black.rgb + (1 - black.alpha) * full)
        output.rgb.sum().backward()
        assert background.grad is not None
        assert float(background.grad.sum()) == pytest.approx(
            3 * float((1 - black.alpha).sum().detach()), rel=1e-4
        )


def test_the_same_bits_every_time_and_for_any_number_of_threads() -> None:
    cameras = Cameras.orbit(torch.tensor([0.0, 130.0]), 10.0, 2.0, 45.0, 64, 64)
    splats = random_splats(1, 2000)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (2, 2, 1):
            torch.set_num_threads(count)
            output, grads = gradients(splats, cameras, "numba")
            results.append([output.rgb, output.depth, *grads.values()])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_means2d_keeps_its_gradient_after_backward() -> None:
    splats = random_splats(1, 60)
    output = render(**splats, cameras=Cameras.orbit(0.0, 0.0, 2.0, 45.0, 32, 32))
    loss_of(output).backward()
    assert output.means2d.grad is not None
    assert output.means2d.grad.shape == (1, 1, 60, 2)
    assert output.means2d.grad[output.radii == 0].abs().sum() == 0
    assert output.means2d.grad[output.radii > 0].abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"means": torch.zeros(5, 3)}, r"means have shape \[5, 3\].*\[P, N, 3\]"),
        ({"quats": torch.zeros(1, 5, 3)}, r"quats have shape \[1, 5, 3\], expected \[1, 5, 4\]"),
        ({"opacities": torch.zeros(4)}, r"opacities have shape \[4\], expected \[5\]"),
        ({"colors": torch.zeros(5, 4)}, r"colors have shape \[5, 4\], expected \[5, 3\]"),
        ({"features": torch.zeros(6, 2)}, r"features have shape \[6, 2\]"),
        ({"background": torch.zeros(4)}, r"background has shape \[4\], expected \[3\]"),
        ({"backend": "cuda"}, "unknown rendering backend 'cuda'"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = dict(random_splats(1, 5))
    arguments["cameras"] = Cameras.orbit(0.0, 0.0, 2.0, 45.0, 8, 8)
    with pytest.raises(HeadStudioError, match=words):
        render(**{**arguments, **change})  # type: ignore[arg-type]


def test_poses_that_do_not_match_are_refused() -> None:
    cameras = Cameras.orbit(torch.tensor([0.0, 1.0]), 0.0, 2.0, 45.0, 8, 8)
    two = Cameras(cameras.c2w.transpose(0, 1), cameras.fovy.T, 8, 8)
    with pytest.raises(HeadStudioError, match="for 2 poses and cannot be used for 3"):
        render(**random_splats(3, 5), cameras=two)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without CUDA")
def test_gsplat_without_cuda_says_what_to_do() -> None:
    with pytest.raises(HeadStudioError, match=r"backend='gsplat' needs a CUDA device.*numba"):
        render(
            **random_splats(1, 5),
            cameras=Cameras.orbit(0.0, 0.0, 2.0, 45.0, 8, 8),
            backend="gsplat",
        )
