"""The embedded host's parts around a small avatar on the open head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstudio.plugin  # noqa: F401  (registers the classes)
import threestudio
from headstudio.flame import FlameParams
from headstudio.motion import Motion, save_motion
from headstudio.paths import find_asset
from headstudio.plugin.geometry import FlameGaussians
from headstudio.plugin.renderer import GsplatRenderer

SIZE = 24


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_geometry() -> Callable[..., FlameGaussians]:
    def make(**cfg: Any) -> FlameGaussians:
        return threestudio.find("flame-gaussians")({"n_splats": 300, **cfg})

    return make


@pytest.fixture
def make_head(tmp_path: Path) -> Callable[..., Path]:
    """The open head with some of its arrays changed, as a file ``<name>.npz``."""

    def make(name: str, **changed: Callable[[np.ndarray], np.ndarray]) -> Path:
        arrays = dict(np.load(find_asset("flame/open_head.npz")), name=np.array(name))
        arrays |= {key: change(arrays[key]) for key, change in changed.items()}
        np.savez(tmp_path / f"{name}.npz", **arrays)
        return tmp_path / f"{name}.npz"

    return make


@pytest.fixture
def other_head(make_head: Callable[..., Path]) -> Path:
    """A tenth larger: as many vertices and triangles, another content."""
    return make_head("larger", v_template=lambda vertices: vertices * 1.1)


@pytest.fixture
def make_renderer() -> Callable[..., GsplatRenderer]:
    def make(geometry: FlameGaussians, color: tuple[float, ...] = (0.0, 0.0, 0.0), **cfg: Any):
        return threestudio.find("gsplat-renderer")(
            cfg,
            geometry=geometry,
            material=threestudio.find("no-material")({}),
            background=threestudio.find("solid-color-background")({"color": color}),
        )

    return make


@pytest.fixture
def motion_file(tmp_path: Path) -> Path:
    """Ten frames: the jaw opens, the neck turns, the eyes look up, an expression comes."""
    ramp = torch.linspace(0.0, 0.3, 10)[:, None]
    axis = torch.tensor([[1.0, 0.0, 0.0]])
    params = FlameParams.zeros(10).replace(
        jaw_pose=ramp * axis,
        neck_pose=ramp * axis.flip(1),
        leye_pose=-ramp * axis,
        reye_pose=-ramp * axis,
        expression=torch.nn.functional.pad(ramp, (0, 99)),
    )
    path = tmp_path / "motion" / "ramp.npz"
    path.parent.mkdir()
    save_motion(path, Motion(params, fps=10.0, name="ramp"))
    return path


@pytest.fixture
def make_data(motion_file: Path) -> Callable[..., Any]:
    def make(**cfg: Any):
        defaults = {
            "motions": str(motion_file),
            "batch_size": 3,
            "height": SIZE,
            "width": SIZE,
            "eval_height": SIZE,
            "eval_width": SIZE,
            "n_test_views": 8,
        }
        module = threestudio.find("head-camera-datamodule")({**defaults, **cfg})
        module.setup()
        return module

    return make


@pytest.fixture
def batch(make_data: Callable[..., Any]) -> dict[str, Any]:
    return next(iter(make_data().train_dataloader()))
