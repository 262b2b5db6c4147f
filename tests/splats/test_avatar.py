"""``avatar.ply``: what goes in comes out, and what is not one is refused."""

from __future__ import annotations

import json
import resource

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData, PlyElement

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadArrays, HeadModel
from headstudio.render import Cameras, render_splats
from headstudio.splats import (
    Splats,
    initialise_uniform,
    load_avatar,
    pose_splats,
    save_avatar,
    triangle_frames,
)

PROMPT = 'a woman with "blue" skin\nand résumé-long red hair 🙂'
EXTENT = 1.5


def make_head(name="test head", seed=0):
    g = np.random.default_rng(seed)
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.12)
    n = len(mesh.vertices)
    weights = g.random((n, 5))
    return HeadModel(
        HeadArrays(
            v_template=(mesh.vertices * [1, 1.3, 1]).astype(np.float32),
            faces=mesh.faces.astype(np.int64),
            shapedirs=(2e-3 * g.standard_normal((n, 3, 400))).astype(np.float32),
            posedirs=np.zeros((n, 3, 36), np.float32),
            J_regressor=np.full((5, n), 1 / n, np.float32),
            weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
            name=name,
        )
    )


def make_avatar(head, n=500):
    g = torch.Generator().manual_seed(0)
    frame = head.world_frame(EXTENT)
    splats = initialise_uniform(frame.to_world(head.neutral()), head.faces, n, g)
    splats.means += 0.5 * torch.randn(n, 3, generator=g)
    splats.quats = torch.randn(n, 4, generator=g)
    splats.scales += 0.5 * torch.randn(n, 3, generator=g)
    splats.opacities += torch.randn(n, generator=g)
    splats.colors += 2 * torch.randn(n, 3, generator=g)  # some below what a picture can show
    shape = torch.randn(head.n_shape, generator=g)
    return splats, shape, frame


@pytest.fixture(scope="module")
def head():
    return make_head()


@pytest.fixture
def saved(head, tmp_path):
    path = tmp_path / "deep" / "avatar.ply"
    splats, shape, frame = make_avatar(head)
    save_avatar(path, splats, head, shape, frame, PROMPT)
    return path


def pose(head, splats, shape, **changes):
    params = FlameParams.zeros(1).replace(shape=shape[None], **changes)
    vertices = head.world_frame(EXTENT).to_world(head(params))
    return pose_splats(splats, triangle_frames(vertices, head.faces))


def test_a_round_trip_keeps_every_parameter(head, saved) -> None:
    splats, shape, _ = make_avatar(head)
    avatar = load_avatar(saved, head)
    assert (avatar.prompt, avatar.extent) == (PROMPT, EXTENT)
    assert avatar.metadata == {
        "format_version": 1,
        "head_name": "test head",
        "head_hash": head.content_hash,
    }
    assert torch.equal(avatar.shape, shape)
    assert torch.equal(avatar.splats.face, splats.face)
    assert torch.equal(avatar.splats.opacities, splats.opacities)
    assert torch.equal(avatar.splats.colors, splats.colors)
    # World positions are stored to 1e-7; in units of a triangle that is 1e-6 or so.
    torch.testing.assert_close(avatar.splats.means, splats.means, atol=1e-5, rtol=0)
    torch.testing.assert_close(avatar.splats.scales, splats.scales, atol=1e-5, rtol=0)
    quats = torch.nn.functional.normalize(splats.quats, dim=-1)
    quats = quats * (quats * avatar.splats.quats).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(avatar.splats.quats, quats, atol=1e-6, rtol=0)


def test_a_loaded_avatar_moves_like_the_saved_one(head, saved) -> None:
    splats, shape, _ = make_avatar(head)
    avatar = load_avatar(saved, head)
    changes = {
        "jaw_pose": torch.tensor([[0.3, 0, 0]]),
        "neck_pose": torch.tensor([[0.1, 0.4, 0]]),
        "expression": torch.randn(1, 100, generator=torch.Generator().manual_seed(1)),
    }
    expected = pose(head, splats, shape, **changes)
    given = pose(head, avatar.splats, avatar.shape, **changes)
    for name in ("means", "scales", "opacities", "colors"):
        torch.testing.assert_close(
            getattr(given, name), getattr(expected, name), atol=1e-6, rtol=1e-5
        )


def test_any_viewer_finds_splats_at_rest_in_the_world(head, saved) -> None:
    splats, shape, _ = make_avatar(head)
    ply = PlyData.read(saved)
    assert ply.byte_order == "<"
    assert not ply.text
    assert [e.name for e in ply.elements] == ["vertex", "flame_shape"]
    vertex = ply["vertex"]
    assert [p.name for p in vertex.properties] == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
        *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "face"),
    ]
    posed = pose(head, splats, shape)

    def columns(*names):
        return torch.from_numpy(np.stack([vertex[name] for name in names], -1))

    torch.testing.assert_close(columns("x", "y", "z"), posed.means[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        columns("scale_0", "scale_1", "scale_2").exp(), posed.scales[0], atol=1e-6, rtol=1e-4
    )
    quats = columns("rot_0", "rot_1", "rot_2", "rot_3")
    alike = (quats * posed.quats[0]).sum(-1).abs()
    torch.testing.assert_close(alike, torch.ones(splats.n), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        0.5 + 0.28209479177387814 * columns("f_dc_0", "f_dc_1", "f_dc_2"),
        0.5 + 0.28209479177387814 * splats.colors,
    )
    assert vertex["face"].dtype == np.uint32


def test_a_short_shape_is_padded(head, tmp_path) -> None:
    splats, shape, frame = make_avatar(head)
    save_avatar(tmp_path / "a.ply", splats, head, shape[:7], frame, "x")
    loaded = load_avatar(tmp_path / "a.ply", head).shape
    assert torch.equal(loaded[:7], shape[:7])
    assert not loaded[7:].any()


def test_saving_twice_gives_the_same_bytes(head, saved, tmp_path) -> None:
    save_avatar(tmp_path / "again.ply", *_order(head, *make_avatar(head)), PROMPT)
    assert (tmp_path / "again.ply").read_bytes() == saved.read_bytes()


def _order(head, splats, shape, frame):
    return splats, head, shape, frame


# ------------------------------------------------------------------- what is refused


def test_another_head_is_refused_by_both_names(saved) -> None:
    with pytest.raises(HeadStudioError, match=r"'test head'.*'other head'"):
        load_avatar(saved, make_head("other head", seed=1))


def test_a_truncated_file_is_refused_wherever_it_ends(head, saved) -> None:
    content = saved.read_bytes()
    for length in (0, 3, 100, 500, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(HeadStudioError, match=r"avatar\.ply"):
            load_avatar(saved, head)
    saved.write_bytes(content + b"\0")
    with pytest.raises(HeadStudioError, match="damaged"):
        load_avatar(saved, head)


def replace(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_a_header_that_promises_too_much_takes_no_memory(head, saved) -> None:
    replace(saved, b"element vertex 500\n", b"element vertex 99999999999999\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(HeadStudioError, match="damaged"):
        load_avatar(saved, head)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"binary_little_endian", b"ascii", "binary_little_endian"),
        (b"property float opacity\n", b"property list uchar float opacity\n", "not understood"),
        (b"property float opacity\n", b"property float opocity\n", "lacks opacity"),
        (b"property float opacity\n", b"property float x\n", "two of one name"),
        (b"property uint face\n", b"property float face\n", "not an integer"),
        (b"property uint face\n", b"property uint triangle\n", "lacks face"),
        (b"element flame_shape", b"element flame_shade", "flame_shape lacks"),
        (b"element flame_shape", b"element vertex", "repeats"),
        (b"format_version 1", b"format_version 2", "version 2"),
        (b"format_version 1", b"format_version [", "comment"),
        (b"headstudio format_version 1", b"made by something else", "not an avatar"),
        (b"extent 1.5", b"extent -1", "extent"),
        (b"extent 1.5", b"extent NaN", "extent"),
        (b"extent 1.5", b'extent "1.5"', "extent"),
        (b"headstudio prompt", b"headstudio prampt", "'prompt' is missing"),
        (b'head_name "test head"', b"head_name 5", "head_name"),
        (b"property float opacity\n", b"property float op\xffcity\n", "ASCII"),
    ],
)
def test_damaged_headers_are_refused(head, saved, old, new, message) -> None:
    replace(saved, old, new)
    with pytest.raises(HeadStudioError, match=message):
        load_avatar(saved, head)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", np.nan, "1 values of means"),
        ("scale_1", np.inf, "1 values of scales"),
        ("opacity", -np.inf, "1 values of opacities"),
        ("face", 320, "triangles 0 to 320"),
        ("face", 2**32 - 1, "4294967295"),
        (("rot_0", "rot_1", "rot_2", "rot_3"), 0.0, "no length"),
    ],
)
def test_impossible_values_are_refused(head, saved, column, value, message) -> None:
    ply = PlyData.read(saved, mmap=False)
    for name in [column] if isinstance(column, str) else column:
        ply["vertex"].data[name][3] = value
    ply.write(saved)
    with pytest.raises(HeadStudioError, match=message):
        load_avatar(saved, head)


@pytest.mark.parametrize("value", [np.nan, None])
def test_a_damaged_shape_is_refused(head, saved, value) -> None:
    ply = PlyData.read(saved, mmap=False)
    coefficients = ply["flame_shape"].data.copy()
    if value is None:
        coefficients = coefficients[:299]
    else:
        coefficients["coefficient"][0] = value
    elements = [ply["vertex"], PlyElement.describe(coefficients, "flame_shape")]
    PlyData(elements, byte_order="<", comments=ply.comments).write(saved)
    with pytest.raises(HeadStudioError, match="shape"):
        load_avatar(saved, head)


def test_an_avatar_without_splats_is_refused(head, saved) -> None:
    ply = PlyData.read(saved, mmap=False)
    elements = [PlyElement.describe(ply["vertex"].data[:0], "vertex"), ply["flame_shape"]]
    PlyData(elements, byte_order="<", comments=ply.comments).write(saved)
    with pytest.raises(HeadStudioError, match="no splats"):
        load_avatar(saved, head)


def test_files_that_cannot_be_read_are_refused(head, tmp_path) -> None:
    with pytest.raises(HeadStudioError, match="No such file"):
        load_avatar(tmp_path / "nothing.ply", head)
    with pytest.raises(HeadStudioError, match="directory"):
        load_avatar(tmp_path, head)
    (tmp_path / "cat.ply").write_bytes(b"ply" + bytes(range(256)) * 10)
    with pytest.raises(HeadStudioError, match="not a PLY file"):
        load_avatar(tmp_path / "cat.ply", head)


def test_a_comment_nested_without_end_is_damage_and_not_a_crash(head, saved) -> None:
    content = saved.read_bytes()
    deep = b"extent " + b"[" * 100_000
    saved.write_bytes(content.replace(b"extent 1.5", deep))
    with pytest.raises(HeadStudioError, match="extent"):
        load_avatar(saved, head)


@pytest.mark.parametrize("broken", ["nan", "face", "shape", "frame"])
def test_nothing_is_written_that_could_not_be_read(head, saved, broken) -> None:
    splats, shape, frame = make_avatar(head)
    before = saved.read_bytes()
    if broken == "nan":
        splats.means[5, 1] = float("nan")
    elif broken == "face":
        splats.face[5] = 320
    elif broken == "shape":
        shape = torch.zeros(301)
    else:
        frame.center = frame.center + 0.01
    with pytest.raises(HeadStudioError):
        save_avatar(saved, splats, head, shape, frame, PROMPT)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["avatar.ply"]


def test_a_folder_that_cannot_be_made_is_an_error(head, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    splats, shape, frame = make_avatar(head)
    with pytest.raises(HeadStudioError, match="cannot write"):
        save_avatar(tmp_path / "file" / "avatar.ply", splats, head, shape, frame, PROMPT)


def test_parameters_that_are_being_trained_can_be_saved(head, tmp_path) -> None:
    splats, shape, frame = make_avatar(head)
    training = Splats(
        **{k: torch.nn.Parameter(v) for k, v in splats.parameters().items()}, face=splats.face
    )
    save_avatar(tmp_path / "a.ply", training, head, torch.nn.Parameter(shape), frame, "x")
    assert load_avatar(tmp_path / "a.ply", head).splats.n == splats.n
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode("ascii")
    assert f"comment headstudio prompt {json.dumps('x')}" in header


def test_a_round_trip_renders_the_same_picture(head, saved) -> None:
    splats, shape, _ = make_avatar(head)
    avatar = load_avatar(saved, head)
    cameras = Cameras.orbit(30.0, 10.0, 3.0, 40.0, 48, 48)
    expected, given = (
        render_splats(pose(head, s, shape), cameras, backend="reference").rgb
        for s in (splats, avatar.splats)
    )
    assert expected.std() > 0.05  # there is something in the picture
    assert (expected - given).square().mean().sqrt() < 1e-4  # 80 dB
