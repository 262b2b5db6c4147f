"""The exporter: which files, and that each is what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pygltflib
import pytest
from plyfile import PlyData

import threestudio
from headstudio.errors import HeadStudioError
from headstudio.plugin.geometry import FlameGaussians
from headstudio.plugin.system import HeadStudioSystem
from headstudio.splats import load_avatar


def write(geometry: FlameGaussians, folder: Path, **cfg: Any) -> list[str]:
    """What ``--export`` does once the exporter is there; the names of the files."""
    exporter = threestudio.find("avatar-exporter")
    outputs = exporter(cfg, geometry=geometry, material=None, background=None)()
    system = SimpleNamespace(_prompt="a man", get_save_path=lambda name: str(folder / name))
    for output in outputs:
        save = getattr(HeadStudioSystem, f"save_{output.save_type}")
        assert Path(save(system, output.save_name, **output.params)).is_file()
    return [output.save_name for output in outputs]


def test_by_default_the_avatar_is_all(make_geometry, tmp_path):
    assert write(make_geometry(), tmp_path) == ["avatar.ply"]


def test_all_formats_at_once(make_geometry, motion_file, tmp_path):
    geometry = make_geometry()
    geometry.shape.data[0] = 1.5
    names = write(
        geometry,
        tmp_path,
        formats=["avatar", "ply", "compressed-ply", "splat", "glb", "ply"],
        up="y",
        motion=str(motion_file),
        subdivide=0,
    )
    assert names == [
        *("avatar.ply", "avatar.3dgs.ply", "avatar.compressed.ply", "avatar.splat", "avatar.glb")
    ]
    posed = geometry.pose().splats.means[0].detach().numpy()
    own = load_avatar(tmp_path / "avatar.ply", geometry.head)
    assert own.prompt == "a man"
    vertex = PlyData.read(str(tmp_path / "avatar.3dgs.ply"))["vertex"]
    # y up: the file's x, y, z are our world's y, z, x.
    there = np.stack([vertex["z"], vertex["x"], vertex["y"]], -1)
    assert np.allclose(there, posed, atol=1e-5)
    assert (tmp_path / "avatar.splat").stat().st_size == 32 * len(posed)
    assert len(PlyData.read(str(tmp_path / "avatar.compressed.ply"))["vertex"].data) == len(posed)
    glb = pygltflib.GLTF2().load(str(tmp_path / "avatar.glb"))
    assert glb.asset.extras["prompt"] == "a man"
    assert [animation.name for animation in glb.animations] == ["ramp"]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"formats": ["splats"]}, "did you mean 'splat'"),
        ({"up": "x"}, "choose one of z, y, y-down"),
        ({"format": ["ply"]}, "format"),
    ],
)
def test_a_mistake_in_the_configuration_is_said_before_anything_is_written(
    make_geometry, tmp_path, cfg, message
):
    with pytest.raises(Exception, match=message) as raised:
        write(make_geometry(), tmp_path, **cfg)
    assert isinstance(raised.value, HeadStudioError) or "format" in cfg
    assert list(tmp_path.iterdir()) == []
