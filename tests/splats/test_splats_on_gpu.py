"""The same splats on a GPU as on the CPU."""

from __future__ import annotations

import pytest
import torch
import trimesh

from headstudio.splats import (
    DensityControl,
    SplatModule,
    initialise_uniform,
    pose_splats,
    position_regulariser,
    scale_regulariser,
    triangle_frames,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MESH = trimesh.creation.icosphere(subdivisions=3)
VERTICES = torch.tensor(MESH.vertices).float()
FACES = torch.tensor(MESH.faces, dtype=torch.int64)


def module_on(device: str) -> SplatModule:
    splats = initialise_uniform(
        VERTICES.to(device), FACES.to(device), 3000, torch.Generator().manual_seed(0)
    )
    generator = torch.Generator().manual_seed(1)
    splats.means += torch.randn(3000, 3, generator=generator).to(device)
    splats.quats += torch.randn(3000, 4, generator=generator).to(device)
    return SplatModule(splats)


def test_posing_and_its_gradients_agree() -> None:
    results = []
    for device in ("cpu", "cuda"):
        module = module_on(device)
        vertices = torch.stack([VERTICES, 1.2 * VERTICES[:, [1, 2, 0]]]).to(device)
        vertices.requires_grad_()
        faces = FACES.to(device)
        frames = triangle_frames(vertices, faces)
        posed = pose_splats(module.splats, frames)
        losses = [
            position_regulariser(posed, module.face, frames, adaptive=True),
            scale_regulariser(posed, module.face, frames),
            posed.means.square().sum(),
            posed.quats[..., 0].square().sum(),
        ]
        sum(losses).backward()
        gradients = [vertices.grad, *(p.grad for p in module.parameters() if p.grad is not None)]
        tensors = [posed.means, posed.scales, posed.quats.square(), *losses, *gradients]
        results.append([tensor.detach().cpu() for tensor in tensors])
    for expected, given in zip(*results, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(given, expected, atol=1e-4 * max(scale, 1e-6), rtol=1e-3)


def test_density_control_grows_reproducibly() -> None:
    def grow(global_seed: int) -> dict[str, torch.Tensor]:
        module = module_on("cuda")
        groups = [{"params": [p]} for p in module.parameters()]
        optimizer = torch.optim.Adam(groups, lr=1e-3)
        sum(p.square().sum() for p in module.parameters()).backward()
        optimizer.step()
        control = DensityControl(DensityControl.Config(clone_size=0.005))
        grad = torch.randn(2, 3000, 2, generator=torch.Generator().manual_seed(2)).cuda()
        control.observe(grad, torch.full((2, 3000), 4.0, device="cuda"), 128, 128)
        torch.manual_seed(global_seed)
        frames = triangle_frames(VERTICES.cuda()[None], FACES.cuda())
        report = control.step(300, module, optimizer, frames)
        assert report is not None
        assert report.n_cloned > 0
        assert report.n_split > 0
        assert optimizer.state[module.means]["exp_avg"].shape == module.means.shape
        return module.state_dict()

    first, again = grow(1), grow(2)
    assert all(value.is_cuda for value in first.values())
    assert all(torch.equal(first[name], again[name]) for name in first)
