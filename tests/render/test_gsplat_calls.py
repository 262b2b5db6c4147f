"""How gsplat is called, without a GPU: its CUDA operations are replaced by PyTorch ones.

``gsplat.rasterization`` itself runs as it is installed, on gsplat's own reference projection and
our compositing, so that shapes, conventions and where gradients end up are seen in every test run.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gsplat import rendering
from gsplat.cuda import _torch_impl
from torch import Tensor

from headstudio.render import Cameras, _gsplat, reference

INPUTS = ("means", "quats", "scales", "opacities", "values")


class Operations:
    """What ``gsplat.rasterization`` calls, in PyTorch; names and arguments are gsplat's."""

    def __init__(self) -> None:
        self.radii = self.depths = torch.empty(0)

    def fully_fused_projection(
        self,
        means: Tensor,
        covars: None,
        quats: Tensor,
        scales: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        *,
        eps2d: float,
        near_plane: float,
        far_plane: float,
        calc_compensations: bool,
        camera_model: str,
        packed: bool,
        **_: Any,
    ) -> tuple[Any, ...]:
        assert covars is None
        assert not packed
        covariances, _precisions = _torch_impl._quat_scale_to_covar_preci(
            quats, scales, True, False
        )
        return _torch_impl._fully_fused_projection(
            means, covariances, viewmats, Ks, width, height,
            eps2d, near_plane, far_plane, calc_compensations, camera_model,
        )  # fmt: skip

    def isect_tiles(self, means2d: Tensor, radii: Tensor, depths: Tensor, *_: Any, **__: Any):
        self.radii, self.depths = radii, depths
        nothing = torch.empty(0, dtype=torch.int64)
        return nothing, nothing, nothing

    @staticmethod
    def isect_offset_encode(_: Tensor, images: int, across: int, down: int) -> Tensor:
        return torch.zeros(images, down, across, dtype=torch.int32)

    def rasterize_to_pixels(
        self,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        width: int,
        height: int,
        *_: Any,
        backgrounds: None,
        **__: Any,
    ) -> tuple[Tensor, Tensor]:
        assert backgrounds is None
        images = means2d.shape[:-2]
        each = [
            x.flatten(0, 1)
            for x in (means2d, conics, opacities, colors, self.depths.detach(), self.radii)
        ]
        pictures = [reference.composite(*image, height, width) for image in zip(*each, strict=True)]
        blended, alphas = (torch.stack(x).unflatten(0, images) for x in zip(*pictures, strict=True))
        return blended, alphas


@pytest.fixture
def gsplat_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = Operations()
    for name in dir(Operations):
        if not name.startswith("_"):
            monkeypatch.setattr(rendering, name, getattr(operations, name))
    monkeypatch.setattr(_gsplat, "require", lambda: None)


def scene(poses: int, n: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    splats = {
        "means": torch.randn(poses, n, 3, generator=g) * 0.35,
        "quats": torch.randn(poses, n, 4, generator=g),
        "scales": 0.05 * torch.exp(0.7 * torch.randn(poses, n, 3, generator=g)),
        "opacities": 0.02 + 0.97 * torch.rand(1, n, generator=g),
        "values": torch.randn(1, n, 5, generator=g),
    }
    return {name: value.double().requires_grad_() for name, value in splats.items()}


@pytest.mark.usefixtures("gsplat_on_a_cpu")
@pytest.mark.parametrize(("poses", "views"), [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_pictures_and_gradients_are_the_references(poses: int, views: int) -> None:
    cameras = Cameras.orbit(torch.arange(views) * 70.0 + 20, 15.0, 1.2, 50.0, 24, 40).expand(poses)
    cameras = Cameras(cameras.c2w.double(), cameras.fovy.double(), cameras.height, cameras.width)
    results = []
    for backend in (_gsplat.rasterize, reference.rasterize):
        splats = scene(poses, 60)
        outputs = backend(*splats.values(), cameras)
        blended, depth, alpha, means2d, radii = outputs
        assert blended.shape == (poses, views, 24, 40, 5)
        assert means2d.shape == radii.shape == (poses, views, 60, 2)
        g = torch.Generator().manual_seed(1)
        weighted = [(x * torch.randn(x.shape, generator=g)).sum() for x in (blended, depth, alpha)]
        sum(weighted).backward()
        gradients = {"means2d": means2d.grad} | {name: splats[name].grad for name in INPUTS}
        seen = (radii > 0).all(-1)
        results.append(({"blended": blended, "depth": depth, "alpha": alpha}, gradients, seen))
    (pictures, gradients, seen), (expected, expected_gradients, expected_seen) = results
    assert torch.equal(seen & expected_seen, expected_seen)  # gsplat's reference culls less
    assert 0 < expected_seen.double().mean() < 1
    for name, value in expected.items():
        torch.testing.assert_close(pictures[name], value, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in expected_gradients.items():
        torch.testing.assert_close(gradients[name], value, msg=lambda m, n=name: f"{n}: {m}")
        assert value.abs().max() > 0, name
