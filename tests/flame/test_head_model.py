from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from headstudio import paths
from headstudio.errors import HeadStudioError
from headstudio.flame import POSE_NAMES, FlameParams, HeadArrays, HeadModel, LandmarkEmbedding


def random_params(batch: int, seed: int = 0) -> FlameParams:
    generator = torch.Generator().manual_seed(seed)
    zeros = FlameParams.zeros(batch)
    return FlameParams(
        **{
            name: torch.randn(value.shape, generator=generator) * (0.4 if name in POSE_NAMES else 1)
            for name, value in zeros.items()
        }
    )


def slow_pose(entries: dict[str, np.ndarray], params: FlameParams) -> tuple[np.ndarray, np.ndarray]:
    """FLAME's definition for one head, vertex by vertex, in float64."""
    p = {name: value[0].double().numpy() for name, value in params.items()}
    coefficients = np.concatenate([p["shape"], p["expression"]])
    rest = entries["v_template"] + entries["shapedirs"] @ coefficients
    joints = entries["J_regressor"] @ rest
    rotations = [Rotation.from_rotvec(p[name]).as_matrix() for name in POSE_NAMES]
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    bent = rest + entries["posedirs"] @ feature
    world: list[np.ndarray] = []
    for joint, parent in enumerate([-1, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    vertices = np.zeros_like(bent)
    for v, vertex in enumerate(bent):
        for joint in range(5):
            moved = world[joint][:3, :3] @ (vertex - joints[joint]) + world[joint][:3, 3]
            vertices[v] += entries["weights"][v, joint] * moved
    posed_joints = np.stack([matrix[:3, 3] for matrix in world])
    return vertices + p["translation"], posed_joints + p["translation"]


def test_posing_equals_the_definition(head: HeadModel, head_entries) -> None:
    params = random_params(3)
    vertices, joints = head(params), head.joints(params)
    for row in range(3):
        expected_vertices, expected_joints = slow_pose(head_entries(), params[row])
        np.testing.assert_allclose(vertices[row].numpy(), expected_vertices, atol=2e-6)
        np.testing.assert_allclose(joints[row].numpy(), expected_joints, atol=2e-6)


def test_shared_rows_are_broadcast(head: HeadModel) -> None:
    params = random_params(4)
    shared = params.replace(shape=params.shape[:1], translation=params.translation[:1])
    repeated = params.replace(
        shape=params.shape[:1].repeat(4, 1), translation=params.translation[:1].repeat(4, 1)
    )
    torch.testing.assert_close(head(shared), head(repeated), atol=1e-6, rtol=0)
    assert head(shared[1]).shape == (1, 60, 3)
    torch.testing.assert_close(head(shared[1]), head(shared)[1:2], atol=1e-6, rtol=0)


def test_zero_parameters_give_the_template(head: HeadModel) -> None:
    torch.testing.assert_close(head(FlameParams.zeros(1))[0], head.neutral(), atol=1e-7, rtol=0)


def test_global_orient_and_translation_are_a_rigid_motion(head: HeadModel) -> None:
    params = random_params(1).replace(
        global_orient=torch.zeros(1, 3), translation=torch.zeros(1, 3)
    )
    moved = params.replace(
        global_orient=torch.tensor([[0.3, -1.2, 0.5]]), translation=torch.tensor([[1.0, 2.0, -3.0]])
    )
    rotation = torch.from_numpy(Rotation.from_rotvec([0.3, -1.2, 0.5]).as_matrix()).float()
    root = head.joints(params)[:, :1]
    expected = (head(params) - root) @ rotation.T + root + moved.translation
    torch.testing.assert_close(head(moved), expected, atol=1e-6, rtol=0)


def test_gradients_match_finite_differences(head: HeadModel) -> None:
    head = head.double()
    params = random_params(2).to(dtype=torch.float64)
    fields = ["shape", "expression", "jaw_pose", "neck_pose", "leye_pose", "translation"]
    weight = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(1)).double()

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return (head(params.replace(**dict(zip(fields, values, strict=True)))) * weight).sum()

    # One shape shared by both poses, as in training.
    values = [params.shape[:1, :5], params.expression[:, :5]]
    values += [getattr(params, name) for name in fields[2:]]
    assert torch.autograd.gradcheck(loss, [v.clone().requires_grad_() for v in values])


def test_gradient_at_rest_is_finite(head: HeadModel) -> None:
    params = FlameParams.zeros(2)
    for _, value in params.items():
        value.requires_grad_()
    head(params).square().sum().backward()
    for name, value in params.items():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


def test_fewer_coefficients_mean_zeros(head: HeadModel) -> None:
    params = random_params(2)
    short = params.replace(shape=params.shape[:, :10], expression=params.expression[:, :52])
    padded = params.replace(
        shape=torch.nn.functional.pad(short.shape, (0, 290)),
        expression=torch.nn.functional.pad(short.expression, (0, 48)),
    )
    torch.testing.assert_close(head(short), head(padded), atol=1e-6, rtol=0)


def test_too_many_coefficients_are_refused(head: HeadModel) -> None:
    with pytest.raises(HeadStudioError, match=r"101 expression coefficients.*'random head'"):
        head(FlameParams.zeros(1, n_expression=101))


def test_autocast_does_not_lower_the_precision(head: HeadModel) -> None:
    params = random_params(2)
    expected = head(params)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vertices = head(params)
    assert vertices.dtype == torch.float32
    assert torch.equal(vertices, expected)


def test_same_input_same_bits(head: HeadModel) -> None:
    gradients = []
    for _ in range(2):
        shape = torch.full((1, 300), 0.1, requires_grad=True)
        head(random_params(8).replace(shape=shape)).square().sum().backward()
        gradients.append(shape.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_world_frame_is_threestudios(head: HeadModel) -> None:
    frame = head.world_frame(extent=1.5)
    world = frame.to_world(head.neutral())
    size = world.amax(0) - world.amin(0)
    assert float(size.max()) == pytest.approx(1.5, abs=1e-5)
    torch.testing.assert_close(world.amax(0), -world.amin(0), atol=1e-5, rtol=0)
    by_matrix = (head.neutral() - frame.center) @ frame.rotation.T * frame.scale
    torch.testing.assert_close(world, by_matrix, atol=1e-6, rtol=0)
    assert float(torch.linalg.det(frame.rotation)) == pytest.approx(1.0)
    forward, up, left = (
        torch.tensor([0.0, 0, 1]),
        torch.tensor([0.0, 1, 0]),
        torch.tensor([1.0, 0, 0]),
    )
    assert (frame.rotation @ forward).tolist() == [1, 0, 0]
    assert (frame.rotation @ left).tolist() == [0, 1, 0]
    assert (frame.rotation @ up).tolist() == [0, 0, 1]


def test_landmarks_ride_on_their_triangles(head: HeadModel, head_entries) -> None:
    entries = head_entries()
    vertices = head(random_params(2))
    points = head.landmark_points(vertices)
    assert points.shape == (2, 7, 3)
    for row in range(7):
        corners = vertices[1].numpy()[entries["f"][entries["landmark_face"][row]]]
        expected = entries["landmark_barycentric"][row] @ corners
        np.testing.assert_allclose(points[1, row].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(head.landmark_points(vertices[1]), points[1])


def test_region_masks(head: HeadModel, head_entries) -> None:
    region = head_entries()["face_region"]
    expected = np.isin(region, [0, 2])
    assert np.array_equal(head.region_mask("skin", "iris").numpy(), expected)
    with pytest.raises(HeadStudioError, match="no region moustache; it names skin, lips, iris"):
        head.region_mask("skin", "moustache")


def test_nothing_of_the_head_is_in_the_state_dict(head: HeadModel) -> None:
    assert not head.state_dict()


def test_content_hash_sees_contents_not_containers(
    head: HeadModel, head_entries, tmp_path: Path
) -> None:
    entries = head_entries()
    same = {name: a.astype(np.float32) if a.dtype == float else a for name, a in entries.items()}
    del same["landmark_face"], same["landmark_barycentric"], same["landmark_mediapipe_index"]
    np.savez_compressed(tmp_path / "same.npz", **same)
    assert HeadModel.load(tmp_path / "same.npz").content_hash == head.content_hash
    for key in ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights"):
        changed = {**entries, key: np.flip(entries[key], axis=0)}
        np.savez(tmp_path / "changed.npz", **changed)
        assert HeadModel.load(tmp_path / "changed.npz").content_hash != head.content_hash, key


def flame_sized() -> HeadModel:
    """FLAME's topology counts with few directions, to be small."""
    rng = np.random.default_rng(0)
    weights = np.zeros((5023, 5), np.float32)
    weights[:, 0] = 1
    arrays = HeadArrays(
        v_template=rng.normal(size=(5023, 3)).astype(np.float32),
        faces=rng.integers(0, 5023, (9976, 3)),
        shapedirs=np.zeros((5023, 3, 8), np.float32),
        posedirs=np.zeros((5023, 3, 36), np.float32),
        J_regressor=np.full((5, 5023), 1 / 5023, np.float32),
        weights=weights,
        name="FLAME test",
        n_shape=5,
    )
    return HeadModel(arrays)


def test_flames_landmarks_come_from_our_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    head = flame_sized()
    assert head.n_shape == 5
    assert head.n_expression == 3
    with pytest.raises(HeadStudioError, match=r"flame_landmarks\.npz was not found"):
        _ = head.landmarks
    (tmp_path / "load/flame").mkdir(parents=True)
    np.savez(
        tmp_path / "load/flame/flame_landmarks.npz",
        landmark_mediapipe_index=np.array([468, 473]),
        landmark_face=np.array([9975, 3]),
        landmark_barycentric=np.full((2, 3), 1 / 3),
    )
    assert isinstance(head.landmarks, LandmarkEmbedding)
    assert head.landmarks.mediapipe_index.tolist() == [468, 473]
    expected = head.v_template[head.faces[[9975, 3]]].mean(1)
    torch.testing.assert_close(head.landmark_points(head.v_template), expected)


def test_a_head_without_landmarks_says_how_to_get_them(head_entries, tmp_path: Path) -> None:
    entries = {k: v for k, v in head_entries().items() if not k.startswith("landmark")}
    np.savez(tmp_path / "head.npz", **entries)
    with pytest.raises(HeadStudioError, match=r"has no landmarks.*embed_landmarks"):
        _ = HeadModel.load(tmp_path / "head.npz").landmarks


class TestFlameParams:
    def test_widths_are_checked(self) -> None:
        with pytest.raises(HeadStudioError, match=r"jaw_pose has shape \(2, 4\).*\[P, 3\]"):
            FlameParams.zeros(2).replace(jaw_pose=torch.zeros(2, 4))
        with pytest.raises(HeadStudioError, match=r"expression has shape \(100,\)"):
            FlameParams.zeros(2).replace(expression=torch.zeros(100))

    def test_batch_sizes_must_agree(self) -> None:
        with pytest.raises(HeadStudioError, match="disagree about the batch size"):
            FlameParams.zeros(2).replace(jaw_pose=torch.zeros(3, 3))

    def test_indexing_and_concatenation_are_inverse(self) -> None:
        params = random_params(5)
        back = FlameParams.cat([params[0], params[1:4], params[torch.tensor([4])]])
        for (name, a), (_, b) in zip(params.items(), back.items(), strict=True):
            assert torch.equal(a, b), name
        assert torch.equal(params[-1].jaw_pose, params.jaw_pose[-1:])
        with pytest.raises(IndexError, match="row 5 of 5"):
            params[5]

    def test_shared_rows_survive_indexing(self) -> None:
        params = random_params(5).replace(shape=torch.ones(1, 300))
        assert params[2:4].shape.shape == (1, 300)
        assert params[2:4].batch_size == 2
        assert FlameParams.cat([params, params[1]]).shape.shape == (6, 300)

    def test_a_single_row_can_be_picked_repeatedly(self) -> None:
        picked = random_params(1)[torch.zeros(3, dtype=torch.int64)]
        assert picked.batch_size == 3

    def test_every_field_moves_and_converts(self) -> None:
        for name, value in FlameParams.zeros(2).to("meta", torch.float64).items():
            assert value.device.type == "meta", name
            assert value.dtype == torch.float64, name

    def test_fields_are_flames(self) -> None:
        names = [field.name for field in dataclasses.fields(FlameParams)]
        assert names == ["shape", "expression", *POSE_NAMES, "translation"]
