"""The .glb, opened with pygltflib and deformed by glTF's own rules."""

from __future__ import annotations

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation, Slerp

from headstudio.errors import HeadStudioError
from headstudio.export import export_avatar
from headstudio.export.gltf import quaternions_xyzw
from headstudio.export.head_mesh import export_glb, find_targets, srgb_to_linear
from headstudio.flame import FlameParams, HeadModel, LandmarkEmbedding
from headstudio.flame.files import HeadArrays
from headstudio.motion import ARKIT_NAMES, Motion, for_head, load_motion
from headstudio.paths import find_asset
from headstudio.render import Cameras
from headstudio.render.mesh import rasterize_mesh

_DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_SHAPES = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}


class Glb:
    """As much of a glTF viewer as the deformation of one mesh needs."""

    def __init__(self, path) -> None:
        self.gltf = pygltflib.GLTF2().load(str(path))
        self.blob = self.gltf.binary_blob()
        self.primitive = self.gltf.meshes[0].primitives[0]

    def array(self, index: int) -> np.ndarray:
        accessor = self.gltf.accessors[index]
        view = self.gltf.bufferViews[accessor.bufferView]
        shape = _SHAPES[accessor.type]
        count = accessor.count * int(np.prod(shape, initial=1))
        data = np.frombuffer(self.blob, _DTYPES[accessor.componentType], count, view.byteOffset)
        return data.reshape(accessor.count, *shape)

    def attribute(self, name: str) -> np.ndarray:
        return self.array(getattr(self.primitive.attributes, name))

    @property
    def target_names(self) -> list[str]:
        return self.gltf.meshes[0].extras["targetNames"]

    def vertices(self, seconds: float | None = None) -> np.ndarray:
        """Vertices as the file shows them, or at a moment of its animation."""
        weights = np.array(self.gltf.meshes[0].weights)
        rotations = {i: np.array(node.rotation) for i, node in enumerate(self.gltf.nodes)
                     if node.rotation}  # fmt: skip
        places = {i: np.array(node.translation) for i, node in enumerate(self.gltf.nodes)
                  if node.translation}  # fmt: skip
        for channel in self.gltf.animations[0].channels if seconds is not None else []:
            sampler = self.gltf.animations[0].samplers[channel.sampler]
            assert sampler.interpolation == "LINEAR"
            times, values = self.array(sampler.input), self.array(sampler.output)
            node = channel.target.node
            if channel.target.path == "weights":
                weights = _at(times, values.reshape(len(times), -1), seconds)
            elif channel.target.path == "rotation":
                rotations[node] = Slerp(times, Rotation.from_quat(values))(seconds).as_quat()
            else:
                assert channel.target.path == "translation"
                places[node] = _at(times, values, seconds)
        return self._skinned(self._morphed(weights), rotations, places)

    def _morphed(self, weights: np.ndarray) -> np.ndarray:
        points = self.attribute("POSITION").astype(np.float64)
        for weight, target in zip(weights, self.primitive.targets, strict=True):
            points = points + weight * self.array(target["POSITION"])
        return points

    def _skinned(self, points, rotations, places) -> np.ndarray:
        skin = self.gltf.skins[0]
        world: dict[int, np.ndarray] = {}

        def visit(node: int, above: np.ndarray) -> None:
            own = np.eye(4)
            own[:3, :3] = Rotation.from_quat(rotations[node]).as_matrix()
            own[:3, 3] = places[node]
            world[node] = above @ own
            for child in self.gltf.nodes[node].children:
                visit(child, world[node])

        for node in self.gltf.scenes[0].nodes:
            if self.gltf.nodes[node].mesh is None:
                visit(node, np.eye(4))
        inverse = self.array(skin.inverseBindMatrices).transpose(0, 2, 1)
        matrices = np.stack([world[j] @ inverse[i] for i, j in enumerate(skin.joints)])
        mixed = np.einsum(
            "vk,vkab->vab", self.attribute("WEIGHTS_0"), matrices[self.attribute("JOINTS_0")]
        )
        return (mixed @ np.pad(points, ((0, 0), (0, 1)), constant_values=1)[..., None])[:, :3, 0]


def _at(times: np.ndarray, values: np.ndarray, seconds: float) -> np.ndarray:
    return np.array([np.interp(seconds, times, column) for column in values.T])


@pytest.fixture(scope="module")
def talk() -> Motion:
    return load_motion(find_asset("motion/talk.npz"))


def flame_vertices(player, params) -> np.ndarray:
    with torch.no_grad():
        return player.head(params.replace(shape=player.avatar.shape[None]))[0].numpy()


def test_the_animation_moves_the_mesh_as_flame_does(player, talk, tmp_path):
    params = talk.params.expand()
    turning = torch.linspace(0, 4.0, len(talk))[:, None] * torch.tensor([0.2, 0.9, 0.1])
    moving = params.replace(
        global_orient=turning,  # past half a turn: the signs of quaternions have to follow
        leye_pose=0.1 * turning,
        translation=0.02 * turning,
    )
    motion = Motion(moving, talk.fps, talk.name, talk.expression_names)
    path = tmp_path / "a.glb"
    export_glb(path, player.avatar, player.head, motion=motion, subdivisions=0)
    glb = Glb(path)
    played = for_head(motion, player.head).params
    still = flame_vertices(player, played[0])
    for frame in (0, 20, 75, 179):
        expected = flame_vertices(player, played[frame])
        assert np.abs(glb.vertices(frame / motion.fps) - expected).max() < 2e-5  # metres
    assert np.abs(flame_vertices(player, played[75]) - still).max() > 1e-2
    between = glb.vertices(75.5 / motion.fps)
    apart = np.abs(flame_vertices(player, played[75]) - flame_vertices(player, played[76])).max()
    assert np.abs(between - flame_vertices(player, played[75])).max() < apart


def test_a_pose_is_set_and_the_actions_have_their_names(player, rest, tmp_path):
    expression = rest.expression.clone()
    expression[0, player.head.expression_names.index("mouthSmileLeft")] = 0.8
    expression[0, 70] = 0.5  # a direction without a name
    pose = rest.replace(expression=expression, jaw_pose=torch.tensor([[0.2, 0.0, 0.0]]))
    path = tmp_path / "smile.glb"
    export_glb(path, player.avatar, player.head, pose, subdivisions=0)
    glb = Glb(path)
    assert glb.target_names[:52] == list(ARKIT_NAMES) == player.head.expression_names
    assert glb.target_names[52:] == ["expression_070"]
    assert glb.gltf.meshes[0].weights[glb.target_names.index("mouthSmileLeft")] == pytest.approx(
        0.8
    )
    # FLAME's joints follow the expression a little, glTF's stay: 0.02 mm here.
    assert np.abs(glb.vertices() - flame_vertices(player, pose)).max() < 5e-5
    assert np.abs(glb.attribute("POSITION") - flame_vertices(player, rest)).max() < 1e-6
    assert glb.gltf.asset.extras["prompt"] == "a lady with tiger stripes"


def test_a_pose_may_have_fewer_coefficients_than_the_head(player, rest, talk, tmp_path):
    jaw, path = torch.tensor([[0.2, 0.0, 0.0]]), tmp_path / "few.glb"
    for n, motion in ((0, None), (10, None), (10, talk)):
        pose = rest.replace(expression=0.5 * torch.ones(1, n), jaw_pose=jaw)
        export_glb(path, player.avatar, player.head, pose, motion, subdivisions=0)
        assert np.abs(Glb(path).vertices() - flame_vertices(player, pose)).max() < 1e-4


def test_of_a_pose_nothing_is_left_in_a_motion(player, rest, tmp_path):
    turning = torch.linspace(0, 0.5, 5)[:, None] * torch.tensor([0.0, 1.0, 0.0])
    motion = Motion(FlameParams.zeros(5, 300, 100).replace(neck_pose=turning), 30.0, "turn")
    pose = rest.replace(
        expression=torch.eye(100)[3:4],
        jaw_pose=torch.tensor([[0.4, 0.0, 0.0]]),
        translation=torch.tensor([[0.1, 0.0, 0.0]]),
    )
    path = tmp_path / "a.glb"
    export_glb(path, player.avatar, player.head, pose, motion, subdivisions=0)
    glb = Glb(path)
    assert np.abs(glb.vertices() - flame_vertices(player, pose)).max() < 1e-4
    for frame in (0, 4):
        expected = flame_vertices(player, motion.params[frame])
        assert np.abs(glb.vertices(frame / 30) - expected).max() < 2e-5
    # What moves in neither has no channel: the eyes and the whole head.
    paths = sorted(channel.target.path for channel in glb.gltf.animations[0].channels)
    assert paths == ["rotation", "rotation", "translation", "weights"]


def test_trimesh_reads_the_mesh_as_it_is(player, rest, tmp_path):
    path = tmp_path / "a.glb"
    export_avatar(path, "glb", player.avatar, player.head, subdivisions=1)
    mesh = next(iter(trimesh.load(path, process=False).geometry.values()))
    neutral = flame_vertices(player, rest)
    n = len(neutral)
    assert len(mesh.faces) == 4 * len(player.head.faces)
    assert np.abs(mesh.vertices[:n] - neutral).max() < 1e-6
    outward = trimesh.Trimesh(neutral, player.head.faces, process=False).vertex_normals
    assert (np.einsum("vi,vi->v", mesh.vertex_normals[:n], outward) > 0.9).mean() > 0.98


def test_the_mesh_looks_like_the_splats(player, rest, tmp_path):
    """Where there is skin; it has stripes, so a plain colour would not do."""
    cameras = Cameras.orbit(torch.tensor([-30.0, 20.0]), 0.0, 2.2, 40.0, 128, 128)
    world = player.vertices(rest)
    rendered = player.render(rest, cameras)
    splats, covered = rendered.rgb, rendered.alpha[..., 0] > 0.9
    skin = player.head.region_mask("forehead", "cheeks", "nose", "lips", "neck")
    for subdivisions in (0, 1):
        path = tmp_path / f"{subdivisions}.glb"
        export_glb(path, player.avatar, player.head, subdivisions=subdivisions)
        glb = Glb(path)
        faces = torch.from_numpy(glb.array(glb.primitive.indices).reshape(-1, 3).astype(np.int64))
        points = torch.from_numpy(glb.attribute("POSITION").copy())
        assert torch.allclose(player.frame.to_world(points)[: world.shape[1]], world[0], atol=1e-5)
        seen = rasterize_mesh(player.frame.to_world(points)[None], faces, cameras)
        light = torch.from_numpy(glb.attribute("COLOR_0").copy())
        shown = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        picture = seen.interpolate(shown[None], faces)
        there = (seen.face_id >= 0) & skin[seen.face_id.clamp(min=0) // 4**subdivisions]
        there &= covered
        assert there.float().mean() > 0.08
        plain = (splats[there].mean(0) - splats[there]).abs().mean()
        assert (picture - splats)[there].abs().mean() < min(0.05, 0.3 * float(plain))


def test_linear_light_is_the_inverse_of_what_screens_do():
    shown = np.linspace(0, 1, 256)
    light = srgb_to_linear(shown)
    back = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.allclose(back, shown, atol=1e-6)
    assert light[128] == pytest.approx(0.2159, abs=1e-3)


def test_rotation_vectors_become_gltfs_quaternions():
    vectors = np.array([[0.0, 0, 0], [1e-9, 0, 0], [0.3, -0.2, 0.9], [0, 3.1, 0], [0, 0, -5.0]])
    ours = Rotation.from_quat(quaternions_xyzw(vectors))
    assert np.allclose((ours.inv() * Rotation.from_rotvec(vectors)).magnitude(), 0, atol=1e-12)
    assert np.allclose(np.linalg.norm(quaternions_xyzw(vectors), axis=1), 1)


def nameless(head: HeadModel, landmarks: LandmarkEmbedding | None) -> HeadModel:
    """A head as FLAME is: its expression coefficients have no names."""
    return HeadModel(
        HeadArrays(
            v_template=head.v_template.numpy(),
            faces=head.faces.numpy(),
            shapedirs=head.shapedirs.numpy(),
            posedirs=np.zeros((len(head.v_template), 3, 36), np.float32),
            J_regressor=head.J_regressor.numpy(),
            weights=head.lbs_weights.numpy(),
            name="nameless",
            landmarks=landmarks,
        )
    )


def test_a_head_without_names_gets_the_actions_that_are_fitted_to_it(player, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTUDIO_CACHE", str(tmp_path))
    monkeypatch.setattr("headstudio.motion.actions.ITERATIONS", 1)  # a coarse fit does here
    head = nameless(player.head, player.head.landmarks)
    used = torch.zeros(2, 100)
    used[1, 3] = 0.7
    targets = find_targets(head, player.avatar.shape, used)
    assert set(targets.names[:-1]) <= set(ARKIT_NAMES)
    assert len(targets.names) > 40
    opened = targets.displacements[targets.names.index("jawOpen")]
    lips = player.head.faces[player.head.region_mask("lips")].unique()
    assert opened[lips, 1].min() < -5e-3  # metres, downwards
    # The coefficients in use are there as well, and they alone follow a motion's coefficients.
    assert targets.names[-1] == "expression_003"
    assert torch.equal(targets.displacements[-1], player.head.shapedirs[..., head.n_shape + 3])
    weights = targets.weights(used)
    assert weights[1, -1] == pytest.approx(0.7)
    assert np.count_nonzero(weights) == 1


def test_a_head_without_names_and_landmarks_goes_without_actions(player, caplog):
    targets = find_targets(nameless(player.head, None), player.avatar.shape, torch.zeros(1, 100))
    assert targets.names == []
    assert targets.displacements.shape == (0, *player.head.v_template.shape)
    assert "has no landmarks" in caplog.text


def test_what_cannot_be_exported_is_refused(player, rest, talk, tmp_path):
    with pytest.raises(HeadStudioError, match="one pose; 180 were given"):
        export_glb(tmp_path / "a.glb", player.avatar, player.head, talk.params)
    many = rest.replace(expression=torch.ones(1, player.head.n_expression + 5))
    with pytest.raises(HeadStudioError, match="105 expression coefficients, the head has 100"):
        export_glb(tmp_path / "a.glb", player.avatar, player.head, many)
    with pytest.raises(HeadStudioError, match="9 subdivisions"):
        export_glb(tmp_path / "a.glb", player.avatar, player.head, subdivisions=9)
    with pytest.raises(HeadStudioError, match="holds one pose and no motion"):
        export_avatar(tmp_path / "a.ply", "ply", player.avatar, player.head, motion=talk)
    with pytest.raises(HeadStudioError, match="y up by its specification"):
        export_avatar(tmp_path / "a.glb", "glb", player.avatar, player.head, up="z")
    with pytest.raises(HeadStudioError, match="did you mean 'splat'"):
        export_avatar(tmp_path / "a.glb", "splats", player.avatar, player.head)
    assert list(tmp_path.iterdir()) == []
