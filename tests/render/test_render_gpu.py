"""gsplat on a GPU against the numba kernels, and the mesh operations on both devices."""

from __future__ import annotations

import math

import pytest
import torch

from headstudio.render import Cameras, RenderOutput, render
from headstudio.render.mesh import point_visibility, rasterize_mesh, shade_mesh

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
INPUTS = ("means", "quats", "scales", "opacities", "colors", "features")


def scene(poses: int, n: int, size: float = 0.03) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "means": torch.randn(poses, n, 3, generator=g) * 0.35,
        "quats": torch.randn(poses, n, 4, generator=g),
        "scales": size * torch.exp(0.7 * torch.randn(poses, n, 3, generator=g)),
        "opacities": 0.02 + 0.97 * torch.rand(n, generator=g),
        "colors": torch.rand(n, 3, generator=g),
        "features": torch.randn(n, 2, generator=g),
    }


def on(
    device: str, splats: dict[str, torch.Tensor], cameras: Cameras
) -> tuple[RenderOutput, list[torch.Tensor]]:
    """Render and differentiate on a device; everything comes back to the CPU."""
    # Copies: on the CPU `to` gives the tensor itself, and requires_grad_ would be the caller's too.
    leaves = {k: v.clone().to(device).requires_grad_() for k, v in splats.items()}
    background = torch.tensor([0.1, 0.6, 0.3], device=device)
    output = render(**leaves, cameras=cameras.to(device), background=background)
    g = torch.Generator().manual_seed(1)
    loss = torch.zeros((), device=device)
    for part in (output.rgb, output.alpha, 0.3 * output.depth, output.features):
        assert part is not None
        loss = loss + (part * torch.randn(part.shape, generator=g).to(device)).sum()
    loss.backward()
    gradients = {name: leaves[name].grad for name in INPUTS} | {"means2d": output.means2d.grad}
    assert [name for name, x in gradients.items() if x is None] == []
    return output, [x.cpu() for x in gradients.values() if x is not None]


def assert_close(splats: dict[str, torch.Tensor], cameras: Cameras) -> None:
    cpu, cpu_gradients = on("cpu", splats, cameras)
    gpu, gpu_gradients = on("cuda", splats, cameras)
    for name in ("rgb", "alpha", "depth", "features"):
        error = getattr(cpu, name) - getattr(gpu, name).cpu()
        psnr = -10 * math.log10(max(float((error.detach() ** 2).mean()), 1e-20))
        assert psnr > 50, (name, psnr)
    radii = gpu.radii.cpu()
    assert ((cpu.radii > 0) == (radii > 0)).float().mean() > 0.999
    for name, a, b in zip((*INPUTS, "means2d"), cpu_gradients, gpu_gradients, strict=True):
        assert float((a - b).norm() / a.norm()) < 1e-3, name


def test_one_picture() -> None:
    assert_close(scene(1, 10_000, 0.015), Cameras.orbit(25.0, 15.0, 2.0, 45.0, 128, 128))


def test_poses_times_cameras() -> None:
    one = Cameras.orbit(torch.tensor([0.0, 80.0, 200.0]), 10.0, 2.0, 50.0, 60, 76)
    assert_close(scene(3, 1000), one.expand(3))


def test_close_up() -> None:
    assert_close(scene(1, 1000, 0.06), Cameras.orbit(0.0, 0.0, 0.4, 70.0, 48, 64))


@pytest.mark.parametrize(("n", "height", "width"), [(0, 8, 8), (1, 1, 1), (5, 1, 1), (5, 17, 1)])
def test_degenerate_sizes(n: int, height: int, width: int) -> None:
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 45.0, height, width).to("cuda")
    splats = {k: v.cuda().requires_grad_() for k, v in scene(1, n, 0.3).items()}
    output = render(**splats, cameras=cameras)
    assert output.rgb.shape == (1, 1, height, width, 3)
    output.rgb.sum().backward()
    assert splats["means"].grad is not None


def test_nothing_visible_is_the_background() -> None:
    splats = {k: v.cuda() for k, v in scene(1, 20).items()}
    splats["means"] = (splats["means"] + torch.tensor([10.0, 0, 0]).cuda()).requires_grad_()
    cameras = Cameras.orbit(0.0, 0.0, 2.0, 45.0, 20, 20).to("cuda")
    output = render(**splats, cameras=cameras, background=torch.ones(3).cuda())
    assert torch.equal(output.rgb, torch.ones_like(output.rgb))
    assert output.depth.abs().max() == 0
    output.rgb.sum().backward()
    assert splats["means"].grad is not None
    assert splats["means"].grad.abs().max() == 0


def test_meshes_look_the_same_on_both_devices() -> None:
    import trimesh

    mesh = trimesh.creation.torus(0.6, 0.25)
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)[None]
    vertices = torch.cat([vertices, vertices * torch.tensor([1.0, 0.7, 1.3])])
    faces = torch.tensor(mesh.faces, dtype=torch.int64)
    cameras = Cameras.orbit(torch.tensor([10.0, 100.0]), 35.0, 2.0, 60.0, 90, 70).expand(2)
    arguments = vertices.cuda(), faces.cuda(), cameras.to("cuda")
    one, two = rasterize_mesh(vertices, faces, cameras), rasterize_mesh(*arguments)
    assert (one.face_id == two.face_id.cpu()).float().mean() > 0.999
    shaded = shade_mesh(vertices, faces, cameras), shade_mesh(*arguments).cpu()
    assert float((shaded[0] - shaded[1]).abs().mean()) < 1e-3
    g = torch.Generator().manual_seed(0)
    points = vertices[:, torch.randperm(vertices.shape[1], generator=g)[:150]]
    seen = point_visibility(points, vertices, faces, cameras)
    assert (seen == point_visibility(points.cuda(), *arguments).cpu()).float().mean() > 0.99


def test_visibility_and_projection_do_not_wait_for_the_device() -> None:
    vertices = torch.randn(8, 5000, 3, device="cuda")
    faces = torch.randint(5000, (10_000, 3), device="cuda")
    cameras = Cameras.orbit(torch.arange(8) * 45.0, 0.0, 2.0, 50.0, 512, 512).to("cuda")
    cameras = Cameras(cameras.c2w.transpose(0, 1), cameras.fovy.T, 512, 512)
    points = vertices[:, :150].clone()
    torch.cuda.set_sync_debug_mode("error")
    try:
        point_visibility(points, vertices, faces, cameras)
        cameras.project(points)
    finally:
        torch.cuda.set_sync_debug_mode("default")
