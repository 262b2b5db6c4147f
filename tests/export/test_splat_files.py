"""Splat files read back by other means than those that wrote them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from headstudio.errors import HeadStudioError
from headstudio.export import UPS, turned, write_splats
from headstudio.render import Cameras, render, render_splats
from headstudio.splats import PosedSplats

SH_C0 = 0.28209479177387814
#: Rows: the file's axes in our world's, from the words of docs/exports.md.
IN_FILE = {
    "z": np.eye(3),
    "y": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),  # x = our y, y = our z, z = our x
    "y-down": np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
}


def read_ply(path: Path) -> dict[str, np.ndarray]:
    vertex = PlyData.read(str(path))["vertex"]

    def columns(*names: str) -> np.ndarray:
        return np.stack([vertex[name] for name in names], -1).astype(np.float64)

    return {
        "means": columns("x", "y", "z"),
        "quats": columns("rot_0", "rot_1", "rot_2", "rot_3"),
        "scales": np.exp(columns("scale_0", "scale_1", "scale_2")),
        "opacities": 1 / (1 + np.exp(-columns("opacity")[:, 0])),
        "colors": 0.5 + SH_C0 * columns("f_dc_0", "f_dc_1", "f_dc_2"),
    }


def read_compressed(path: Path) -> dict[str, np.ndarray]:
    """SuperSplat's format: chunks of 256 splats with bounds, four packed words a splat."""
    data = PlyData.read(str(path))
    assert [element.name for element in data.elements] == ["chunk", "vertex"]
    vertex, chunk = data["vertex"].data, data["chunk"].data
    of = np.arange(len(vertex)) // 256

    def bits(word: np.ndarray, shift: int, width: int) -> np.ndarray:
        return ((word >> np.uint32(shift)) & np.uint32(2**width - 1)) / (2**width - 1)

    def within(part: str, axes: str, units: np.ndarray) -> np.ndarray:
        low = np.stack([chunk[f"min_{part}{axis}"] for axis in axes], -1)[of]
        high = np.stack([chunk[f"max_{part}{axis}"] for axis in axes], -1)[of]
        return low + units * (high - low).astype(np.float64)

    def three(word: np.ndarray) -> np.ndarray:
        return np.stack([bits(word, 21, 11), bits(word, 11, 10), bits(word, 0, 11)], -1)

    color = np.stack([bits(vertex["packed_color"], 24 - 8 * i, 8) for i in range(4)], -1)
    word = vertex["packed_rotation"]
    small = np.stack([bits(word, shift, 10) - 0.5 for shift in (20, 10, 0)], -1) * math.sqrt(2)
    largest = (word >> np.uint32(30)).astype(int)
    quats = np.zeros((len(word), 4))
    rows = np.arange(len(word))
    for number in range(3):  # the others, in order
        quats[rows, number + (number >= largest)] = small[:, number]
    quats[rows, largest] = np.sqrt(1 - (small**2).sum(-1))
    return {
        "means": within("", "xyz", three(vertex["packed_position"])),
        "quats": quats,
        "scales": np.exp(within("scale_", "xyz", three(vertex["packed_scale"]))),
        "opacities": color[:, 3],
        "colors": within("", "rgb", color[:, :3]),
    }


def read_splat(path: Path) -> dict[str, np.ndarray]:
    """antimatter15's format: 32 bytes a splat."""
    rows = np.fromfile(
        path, np.dtype([("p", "<f4", 3), ("s", "<f4", 3), ("c", "u1", 4), ("q", "u1", 4)])
    )
    return {
        "means": rows["p"].astype(np.float64),
        "quats": (rows["q"].astype(np.float64) - 128) / 128,
        "scales": rows["s"].astype(np.float64),
        "opacities": rows["c"][:, 3] / 255,
        "colors": rows["c"][:, :3] / 255,
    }


READERS = {
    "ply": ("ply", read_ply),
    "compressed-ply": ("compressed.ply", read_compressed),
    "splat": ("splat", read_splat),
}


def to_world(read: dict[str, np.ndarray], up: str) -> dict[str, torch.Tensor]:
    """What a file holds, back in our world; P = 1."""
    back = IN_FILE[up].T
    rotation = Rotation.from_matrix(back) * Rotation.from_quat(read["quats"][:, [1, 2, 3, 0]])
    world = {
        **read,
        "means": read["means"] @ back.T,
        "quats": rotation.as_quat()[:, [3, 0, 1, 2]],
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)).float() for name, x in world.items()}
    return {k: x[None] if k in ("means", "quats", "scales") else x for k, x in tensors.items()}


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max(float(((one - other) ** 2).mean()), 1e-20))


@pytest.fixture(scope="module")
def posed(player, rest):
    """The avatar talking, not at rest."""
    params = rest.replace(
        jaw_pose=torch.tensor([[0.2, 0.0, 0.0]]), neck_pose=torch.tensor([[0.1, 0.3, 0.0]])
    )
    with torch.no_grad():
        return player.pose(player.vertices(params))


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize(
    ("file_format", "precision"), [("ply", 90.0), ("compressed-ply", 45.0), ("splat", 45.0)]
)
def test_a_file_read_back_gives_the_same_pictures(posed, tmp_path, file_format, precision, up):
    ending, reader = READERS[file_format]
    path = tmp_path / f"avatar.{ending}"
    count = write_splats(path, posed, file_format, up)
    read = to_world(reader(path), up)
    cameras = Cameras.orbit(torch.tensor([20.0, 130.0]), 10.0, 2.4, 40.0, 128, 128)
    expected = render_splats(posed, cameras).rgb
    assert len(read["opacities"]) == count == posed.means.shape[1]
    assert psnr(render(**read, cameras=cameras).rgb, expected) > precision


def test_the_head_stands_as_the_documentation_says(player, rest, posed):
    """y up: the crown has the largest y, the nose the largest z, the left ear the largest x."""
    with torch.no_grad():
        flame = player.head(rest.replace(shape=player.avatar.shape[None]))[0]
    world = player.frame.to_world(flame)
    nobody = PosedSplats(
        means=world[None],
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, len(world), 4),
        scales=torch.full((1, len(world), 3), 0.01),
        opacities=torch.ones(len(world)),
        colors=torch.ones(len(world), 3),
    )
    y_up = turned(nobody, "y").means[0]
    assert torch.allclose(y_up, (flame - player.frame.center) * player.frame.scale, atol=1e-6)
    y_down = turned(nobody, "y-down").means[0]
    assert torch.allclose(y_down, y_up * torch.tensor([1.0, -1.0, -1.0]), atol=1e-6)
    with pytest.raises(HeadStudioError, match="z, y, y-down"):
        turned(posed, "x")


def flat(n: int, **changes: torch.Tensor) -> PosedSplats:
    """n splats of one colour and one size; some chunk bounds have no extent."""
    g = torch.Generator().manual_seed(0)
    values = {
        "means": torch.randn(1, n, 3, generator=g),
        "quats": torch.nn.functional.normalize(torch.randn(1, n, 4, generator=g), dim=-1),
        "scales": torch.full((1, n, 3), 0.02),
        "opacities": torch.full((n,), 0.7),
        "colors": torch.full((n, 3), 0.25),
    }
    return PosedSplats(**{**values, **changes})


@pytest.mark.parametrize("file_format", list(READERS))
@pytest.mark.parametrize("n", [1, 300])
def test_splats_that_are_all_alike_keep_their_colour_and_size(tmp_path, file_format, n):
    ending, reader = READERS[file_format]
    path = tmp_path / f"flat.{ending}"
    write_splats(path, flat(n), file_format)
    read = reader(path)
    assert np.allclose(read["colors"], 0.25, atol=1 / 255)
    assert np.allclose(read["scales"], 0.02, rtol=1e-3)
    assert np.allclose(read["opacities"], 0.7, atol=1 / 255)
    assert read["means"].shape == (n, 3)


def test_the_compressed_format_leaves_out_what_cannot_be_seen(tmp_path):
    opacities = torch.full((10,), 0.7)
    opacities[:4] = 1e-3
    path = tmp_path / "a.compressed.ply"
    assert write_splats(path, flat(10, opacities=opacities), "compressed-ply") == 6
    assert len(read_compressed(path)["opacities"]) == 6
    with pytest.raises(HeadStudioError, match="fainter than 1/255"):
        write_splats(path, flat(10, opacities=torch.full((10,), 1e-3)), "compressed-ply")
    assert len(read_compressed(path)["opacities"]) == 6  # what was there is still there


def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(HeadStudioError, match="unknown splat format 'obj'"):
        write_splats(path, flat(3), "obj")
    means = torch.zeros(1, 3, 3)
    means[0, 1, 2] = torch.nan
    with pytest.raises(HeadStudioError, match="means are not all finite"):
        write_splats(path, flat(3, means=means))
    two = PosedSplats(*(x.repeat(2, 1, 1) for x in vars(flat(3)).values() if x.ndim == 3),
                      opacities=torch.ones(3), colors=torch.ones(3, 3))  # fmt: skip
    with pytest.raises(HeadStudioError, match="one pose; 2 were given"):
        write_splats(path, two)
    assert list(tmp_path.iterdir()) == []
