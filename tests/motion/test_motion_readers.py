from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from scipy.spatial.transform import Rotation

from headstudio.errors import HeadStudioError
from headstudio.motion import (
    ARKIT_NAMES,
    FLAME_NAMES,
    Recording,
    read_motion,
    read_recording,
    save_motion,
)
from headstudio.motion.arkit import GAZE_PITCH, JAW_ANGLE
from headstudio.motion.readers import pickled
from headstudio.motion.rotations import to_rotvec
from tests.fixtures.foreign_motions import (
    mediapipe_frames,
    talkshow_array,
    tensor_as_pickled,
    vhap_arrays,
    write_emoca,
    write_live_link,
    write_show,
)

T = 12
RNG = np.random.default_rng(5)
EXPRESSION = RNG.normal(size=(T, 100)).astype(np.float32)
JAW, NECK, HEAD, EYE = (RNG.normal(scale=0.2, size=(T, 3)).astype(np.float32) for _ in range(4))


def close(actual: torch.Tensor, expected: Any, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(actual.numpy(), np.asarray(expected), atol=atol)


def body(neck: np.ndarray = NECK, head: np.ndarray = HEAD) -> np.ndarray:
    """SMPL-X's 21 joints; the collar bones, whose numbers are next to the neck's, move wildly."""
    joints = np.zeros((T, 21, 3), np.float32)
    joints[:, 11], joints[:, 14], joints[:, 12], joints[:, 13] = neck, head, 9, 9
    return joints.reshape(T, 63)


# What the neck joint must do, by matrices.
NECK_AND_HEAD = (Rotation.from_rotvec(NECK) * Rotation.from_rotvec(HEAD)).as_rotvec()


class TestShow:
    def test_clip_with_cuda_tensors(self, tmp_path: Path) -> None:
        path = tmp_path / "clip.pkl"
        write_show(path, EXPRESSION, jaw_pose=JAW, leye_pose=EYE, body_pose_axis=body())
        recording = read_recording(path)
        params = recording.motion.params
        assert (recording.format, recording.motion.fps) == ("SHOW", 30)
        assert recording.motion.expression_names == list(FLAME_NAMES)
        close(params.expression, EXPRESSION)
        close(params.jaw_pose, JAW)
        close(params.leye_pose, EYE)
        close(params.neck_pose, NECK_AND_HEAD)
        # The body turns in a camera's frame and has another model's shape.
        assert not params.global_orient.any()
        assert not params.shape.any()

    def test_the_maker_writes_what_torch_writes(self, tmp_path: Path) -> None:
        # On the CPU the same stream is one that torch itself reads; only the device differs.
        path = tmp_path / "clip.pkl"
        write_show(path, EXPRESSION, location="cpu", jaw_pose=JAW)
        clip = pickle.loads(path.read_bytes())
        assert clip["losses_to_log"]["sil_loss"].requires_grad
        assert clip["losses_to_log"]["sil_loss"].item() == 1.5
        cuda = path.with_name("cuda.pkl")
        write_show(cuda, EXPRESSION, jaw_pose=JAW)
        assert cuda.read_bytes().count(b"cuda:0") == 2

    @pytest.mark.parametrize("wrap", [lambda a: a, lambda a: a[None]])
    def test_talkshow_array(self, wrap: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
        np.save(tmp_path / "out.npy", wrap(talkshow_array(EXPRESSION, JAW, body())))
        recording = read_recording(tmp_path / "out.npy")
        assert (recording.format, recording.motion.fps) == ("TalkSHOW", 30)
        close(recording.motion.params.expression, EXPRESSION)
        close(recording.motion.params.jaw_pose, JAW)
        close(recording.motion.params.neck_pose, NECK_AND_HEAD)

    @pytest.mark.parametrize("form", ["matrices", "6d"])
    def test_other_rotations(self, form: str, tmp_path: Path) -> None:
        matrices = Rotation.from_rotvec(JAW).as_matrix()
        jaw = matrices if form == "matrices" else matrices[:, :2].reshape(T, 6)
        write_show(tmp_path / "a.pkl", EXPRESSION, jaw_pose=jaw)
        close(read_motion(tmp_path / "a.pkl").params.jaw_pose, JAW)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 3),
        torch.randn(3, 4).T,
        torch.randn(9, 3)[2:8:2],
        torch.randn(4, 3, dtype=torch.float64),
        torch.randn(4, 3).half(),
        torch.randn(4, 3).bfloat16(),
        torch.arange(12).reshape(4, 3),
        torch.randn(1, 3).expand(4, 3),
        torch.nn.Parameter(torch.randn(4, 3)),
        torch.zeros(0, 3),
        torch.tensor(3.5),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}{tensor.stride()}",
)
@pytest.mark.parametrize("how", ["pickle", "zip", "legacy"])
def test_tensors_as_torch_writes_them(tensor: torch.Tensor, how: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"a": tensor, "again": tensor}))
    else:
        torch.save({"a": tensor}, path, _use_new_zipfile_serialization=how == "zip")
    fields = pickled.mapping(pickled.read_pickle(path))
    assert fields is not None
    expected = tensor.detach().float().numpy()
    np.testing.assert_array_equal(pickled.array(fields["a"]).astype(np.float32), expected)


class TestGaussianAvatars:
    def test_file(self, tmp_path: Path) -> None:
        arrays = vhap_arrays(T, RNG)
        np.savez(tmp_path / "flame_param.npz", **arrays)
        recording = read_recording(tmp_path / "flame_param.npz")
        params = recording.motion.params
        assert recording.format == "VHAP / GaussianAvatars"
        assert (recording.motion.fps, recording.fps_from) == (25, "assumed")
        close(params.expression, arrays["expr"])
        close(params.global_orient, arrays["rotation"])
        close(params.translation, arrays["translation"])
        close(params.neck_pose, arrays["neck_pose"])
        close(params.leye_pose, arrays["eyes_pose"][:, :3])
        close(params.reye_pose, arrays["eyes_pose"][:, 3:])
        close(params.shape, arrays["shape"][None])
        stated = read_recording(tmp_path / "flame_param.npz", fps=24.3)
        assert (stated.motion.fps, stated.fps_from) == (24.3, "stated")

    def test_folder_with_a_file_for_each_frame(self, tmp_path: Path) -> None:
        arrays = vhap_arrays(T, RNG)
        for frame in range(T):
            one = {name: value[frame : frame + 1] for name, value in arrays.items()}
            one |= {"shape": arrays["shape"], "static_offset": arrays["static_offset"]}
            np.savez(tmp_path / f"{frame}.npz", **one)  # 10 sorts behind 9
        motion = read_motion(tmp_path)
        close(motion.params.expression, arrays["expr"])
        close(motion.params.reye_pose, arrays["eyes_pose"][:, 3:])
        close(motion.params.shape, arrays["shape"][None])


CODE = {
    "exp": EXPRESSION[:, :50],
    "pose": np.concatenate([NECK, JAW], axis=1),
    "shape": RNG.normal(size=(T, 100)).astype(np.float32),
    "cam": np.ones((T, 3), np.float32),
}
CODES = [{name: value[i : i + 1] for name, value in CODE.items()} for i in range(T)]


def _pickled(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


def _npy(path: Path, value: Any) -> Path:
    np.save(path, value, allow_pickle=True)
    return path.with_suffix(".npy")


def _npz(path: Path) -> Path:
    np.savez(path, **CODE)
    return path.with_suffix(".npz")


def _mat(path: Path, compressed: bool) -> Path:
    # Beside the code stand a text, as in DECA's files, and a complex number.
    extra = {"name": "IMG_0392", "z": 1j, "one": 1}
    scipy.io.savemat(path.with_suffix(".mat"), {**extra, **CODE}, do_compression=compressed)
    return path.with_suffix(".mat")


def _emoca(path: Path) -> Path:
    write_emoca(path, [{name: value[0] for name, value in code.items()} for code in CODES])
    return path


def _tensors(code: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: tensor_as_pickled(value) for name, value in code.items()}


DECA_FILES: dict[str, Callable[[Path], Path]] = {
    "dictionary": lambda path: _pickled(path, CODE),
    "dictionary of CUDA tensors": lambda path: _pickled(path, _tensors(CODE)),
    "EMOCA's names": lambda path: _pickled(
        path, {f"{name}code" if name != "cam" else name: value for name, value in CODE.items()}
    ),
    "a list of frames": lambda path: _pickled(path, [_tensors(code) for code in CODES]),
    "frames by name": lambda path: _pickled(path, {f"{i}.jpg": c for i, c in enumerate(CODES)}),
    "npy of a dictionary": lambda path: _npy(path, CODE),
    "npy of frames": lambda path: _npy(path, np.array(CODES, dtype=object)),
    "npz": _npz,
    "mat": lambda path: _mat(path, False),
    "compressed mat": lambda path: _mat(path, True),
    "EMOCA's folders": _emoca,
}


@pytest.mark.parametrize("form", DECA_FILES)
def test_deca(form: str, tmp_path: Path) -> None:
    recording = read_recording(DECA_FILES[form](tmp_path / "codes"))
    params = recording.motion.params
    assert (recording.format, recording.fps_from) == ("DECA / EMOCA", "assumed")
    close(params.expression[:, :50], CODE["exp"])
    assert not params.expression[:, 50:].any()
    close(params.global_orient, NECK)
    close(params.jaw_pose, JAW)
    close(params.shape[:, :100], CODE["shape"].mean(0, keepdims=True))


def test_deca_pose_of_all_joints_and_eulers(tmp_path: Path) -> None:
    pose = RNG.normal(scale=0.1, size=(T, 15))
    params = read_motion(_pickled(tmp_path / "a", {"exp": EXPRESSION[:, :50], "pose": pose})).params
    close(params.neck_pose, pose[:, 3:6])
    close(params.reye_pose, pose[:, 12:15])
    # DECA composes its Euler angles as Rx Ry Rz.
    x, y, z = (Rotation.from_euler(axis, JAW[:, i : i + 1]) for i, axis in enumerate("xyz"))
    code = {"exp": EXPRESSION[:, :50], "shape": CODE["shape"], "euler_jaw_pose": JAW}
    close(read_motion(_pickled(tmp_path / "b", code)).params.jaw_pose, (x * y * z).as_rotvec())


def test_one_emoca_file_stands_for_its_folder(tmp_path: Path) -> None:
    write_emoca(tmp_path, [{name: value[0] for name, value in CODES[0].items()}])
    motion = read_motion(tmp_path / "000001_000" / "exp.npy")
    close(motion.params.jaw_pose, JAW[:1])


RAMP = np.linspace(0, 1, T)
CURVES = {"jawOpen": RAMP, "mouthSmileLeft": 1 - RAMP, "eyeBlinkRight": RAMP**2}


def column(recording: Recording, name: str) -> np.ndarray:
    motion = recording.motion
    return motion.params.expression[:, motion.expression_names.index(name)].numpy()


class TestLiveLink:
    def test_take(self, tmp_path: Path) -> None:
        write_live_link(tmp_path / "take.csv", CURVES)
        recording = read_recording(tmp_path / "take.csv")
        assert (recording.format, recording.fps_from) == ("Live Link Face", "the file")
        assert (recording.motion.fps, len(recording.motion)) == (30, T)
        assert set(recording.motion.expression_names) == set(ARKIT_NAMES)
        np.testing.assert_allclose(column(recording, "mouthSmileLeft"), 1 - RAMP, atol=1e-6)
        close(recording.motion.params.jaw_pose[:, 0], JAW_ANGLE * RAMP)
        assert recording.notes == []

    @pytest.mark.parametrize(
        ("clock", "step", "start", "fps"),
        [
            (60, 1, "23:59:59:55", 60),  # midnight
            (60, 2, "10:00:00:01", 30),
            (60, 4, "10:00:00:02", 15),
            (30, 1, "10:59:59:20", 30),
            (24, 1, "10:00:00:15", 24),
            (25, 1, "10:00:00:15", 25),
        ],
    )
    def test_rates(self, clock: int, step: int, start: str, fps: float, tmp_path: Path) -> None:
        curve = np.linspace(0, 1, 60)
        write_live_link(
            tmp_path / "a.csv", {"mouthPucker": curve}, clock=clock, step=step, start=start
        )
        recording = read_recording(tmp_path / "a.csv")
        assert (recording.motion.fps, recording.fps_from) == (fps, "the file")
        np.testing.assert_allclose(column(recording, "mouthPucker"), curve, atol=1e-6)

    def test_less_than_a_second_leaves_the_clock_open(self, tmp_path: Path) -> None:
        write_live_link(tmp_path / "a.csv", CURVES, start="10:00:00:00", step=1)
        recording = read_recording(tmp_path / "a.csv")
        assert (recording.motion.fps, recording.fps_from) == (60, "assumed")
        assert read_recording(tmp_path / "a.csv", fps=24).motion.fps == 24
        assert len(read_recording(tmp_path / "a.csv", fps=24).motion) == T

    def test_dropped_frames_keep_their_time(self, tmp_path: Path) -> None:
        curve = np.linspace(0, 1, 90)
        write_live_link(tmp_path / "a.csv", {"cheekPuff": curve}, skipped=[10, 40, 41])
        recording = read_recording(tmp_path / "a.csv")
        assert recording.notes[0] == "3 frames that were not recorded were interpolated"
        np.testing.assert_allclose(column(recording, "cheekPuff"), curve, atol=2e-4)

    def test_rows_without_a_face(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        write_live_link(path, {"cheekPuff": RAMP}, start="10:00:00:50")
        lines = path.read_text().splitlines()
        lines[5] = ",".join([lines[5].split(",")[0], "0"])
        path.write_text("\n".join(lines))
        recording = read_recording(path)
        assert recording.notes == ["1 rows without a face were filled in"]
        np.testing.assert_allclose(column(recording, "cheekPuff"), RAMP, atol=1e-3)

    def test_lost_faces_keep_their_time_without_a_clock(self, tmp_path: Path) -> None:
        seen, lost = [f"{value},0" for value in RAMP], [","]
        rows = ["cheekPuff,jawOpen", *5 * lost, *seen, *30 * lost, *seen, *2 * lost]
        (tmp_path / "a.csv").write_text("\n".join(rows))
        recording = read_recording(tmp_path / "a.csv")
        assert recording.notes[0] == "37 rows without a face were filled in"
        falling = np.linspace(1, 0, 32)[1:-1]
        expected = np.concatenate([np.zeros(5), RAMP, falling, RAMP, np.ones(2)])
        np.testing.assert_allclose(column(recording, "cheekPuff"), expected, atol=1e-6)
        assert len(read_recording(tmp_path / "a.csv", fps=24).motion) == len(expected)

    def test_lost_faces_at_the_ends_of_a_take(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        write_live_link(path, {"cheekPuff": RAMP}, start="10:00:00:50", skipped=[5])
        lines = path.read_text().splitlines()
        for row in (1, 2, 3, -2, -1):  # the face is lost, and the clock goes on
            lines[row] = ",".join([lines[row].split(",")[0], "0"])
        path.write_text("\n".join(lines))
        recording = read_recording(path)
        assert recording.notes == [
            "5 rows without a face were filled in",
            "1 frames that were not recorded were interpolated",
        ]
        held = np.clip(RAMP, RAMP[3], RAMP[-3])
        np.testing.assert_allclose(column(recording, "cheekPuff"), held, atol=1e-3)

    def test_rows_without_a_face_and_a_time(self, tmp_path: Path) -> None:
        rows = [f"{i / 25:.2f},{value}" for i, value in enumerate(RAMP)]
        rows[4] = ","
        rows = ["time,cheekPuff", ",", *rows, "nan,", ","]
        (tmp_path / "a.csv").write_text("\n".join(rows))
        recording = read_recording(tmp_path / "a.csv")
        assert recording.notes[:2] == [
            "1 rows without a face were filled in",
            "3 rows without a face and without a time were left out",
        ]
        np.testing.assert_allclose(column(recording, "cheekPuff"), RAMP, atol=1e-6)

    def test_angles(self, tmp_path: Path) -> None:
        angles = {"HeadYaw": 0.3 * RAMP, "LeftEyeYaw": -0.2 * RAMP, "LeftEyePitch": 0.1 * RAMP}
        write_live_link(tmp_path / "a.csv", CURVES, angles, start="10:00:00:50")
        params = read_motion(tmp_path / "a.csv").params
        # Positive yaw turns to the subject's right, -x; the eye looks left and down.
        nose = Rotation.from_rotvec(params.neck_pose[-1].numpy()).apply([0, 0, 1])
        np.testing.assert_allclose(nose, [-np.sin(0.3), 0, np.cos(0.3)], atol=1e-6)
        gaze = Rotation.from_rotvec(params.leye_pose[-1].numpy()).apply([0, 0, 1])
        assert gaze[0] > 0.19
        assert gaze[1] < -0.09
        assert not params.reye_pose.any()

    def test_degrees_are_noticed(self, tmp_path: Path) -> None:
        write_live_link(tmp_path / "a.csv", CURVES, {"HeadPitch": 20 * RAMP}, start="10:00:00:50")
        recording = read_recording(tmp_path / "a.csv")
        close(recording.motion.params.neck_pose[-1], [np.deg2rad(20), 0, 0], 1e-5)
        assert "degrees" in recording.notes[0]

    def test_other_tables_of_actions(self, tmp_path: Path) -> None:
        rows = ["timestamp_ms,jawOpen,eye_look_down_left"]
        rows += [f"{round(i * 1000 / 24)},{value},{value}" for i, value in enumerate(RAMP)]
        (tmp_path / "a.csv").write_text("\ufeff" + "\r\n".join(rows))
        recording = read_recording(tmp_path / "a.csv")
        assert (recording.motion.fps, len(recording.motion)) == (24, T)
        close(recording.motion.params.leye_pose[:, 0], GAZE_PITCH * RAMP, 1e-5)
        assert recording.notes[0].startswith("not recorded, at rest: browDownLeft")


def turned(yaw: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", yaw).as_matrix()
    matrix[:3, 3] = [1, 2, -40]
    return matrix


def _with_matrices(style: str) -> Any:
    frames = mediapipe_frames(CURVES, style)
    for i, frame in enumerate(frames):
        matrix = turned(0.1 * i)
        if style == "javascript":
            data = matrix.T.ravel().tolist()
            frame["facialTransformationMatrixes"] = [{"rows": 4, "columns": 4, "data": data}]
        else:
            frame["facial_transformation_matrixes"] = [matrix.tolist()]
    return frames


MEDIAPIPE_FILES: dict[str, Callable[[], Any]] = {
    "results (JavaScript)": lambda: mediapipe_frames(CURVES),
    "results (Python)": lambda: mediapipe_frames(CURVES, "python"),
    "lists of categories": lambda: [
        frame["face_blendshapes"][0] for frame in mediapipe_frames(CURVES, "python")
    ],
    "dictionaries": lambda: [{name: float(c[i]) for name, c in CURVES.items()} for i in range(T)],
    "frames with blendshapes": lambda: {
        "frames": [
            {"frame": i, "blendshapes": {name: float(c[i]) for name, c in CURVES.items()}}
            for i in range(T)
        ]
    },
    "columns": lambda: {name: curve.tolist() for name, curve in CURVES.items()},
    "matrices (JavaScript)": lambda: _with_matrices("javascript"),
    "matrices (Python)": lambda: _with_matrices("python"),
}


class TestMediaPipe:
    @pytest.mark.parametrize("form", MEDIAPIPE_FILES)
    def test_forms(self, form: str, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(json.dumps(MEDIAPIPE_FILES[form]()))
        recording = read_recording(tmp_path / "a.json")
        assert recording.format == "MediaPipe blendshapes"
        assert (recording.motion.fps, recording.fps_from) == (30, "assumed")
        np.testing.assert_allclose(column(recording, "mouthSmileLeft"), 1 - RAMP, atol=1e-6)
        close(recording.motion.params.jaw_pose[:, 0], JAW_ANGLE * RAMP)
        if form.startswith("matrices"):
            close(recording.motion.params.neck_pose, np.outer(0.1 * np.arange(T), [0, 1, 0]), 1e-5)

    def test_frames_without_a_matrix(self, tmp_path: Path) -> None:
        frames = _with_matrices("python")
        for number in (0, 4, 5):
            del frames[number]["facial_transformation_matrixes"]
        frames[8] = {"face_blendshapes": []}
        (tmp_path / "a.json").write_text(json.dumps(frames))
        recording = read_recording(tmp_path / "a.json")
        assert recording.notes[:2] == [
            "1 frames without a face were filled in",
            "the head's rotation was interpolated in 3 frames without a matrix",
        ]
        yaw = np.clip(0.1 * np.arange(T), 0.1, None)
        close(recording.motion.params.neck_pose, np.outer(yaw, [0, 1, 0]), 1e-5)

    @pytest.mark.parametrize(
        ("key", "unit"), [("timestamp_ms", 1000), ("timestamp", 1), ("timestamp", 1000)]
    )
    def test_times(self, key: str, unit: float, tmp_path: Path) -> None:
        frames = mediapipe_frames(CURVES)
        for i, frame in enumerate(frames):
            frame[key] = round(7 + i / 25, 3) * unit
        del frames[4]
        (tmp_path / "a.json").write_text(json.dumps(frames))
        recording = read_recording(tmp_path / "a.json")
        assert (recording.motion.fps, recording.fps_from) == (25, "the file")
        assert len(recording.motion) == T
        np.testing.assert_allclose(column(recording, "mouthSmileLeft"), 1 - RAMP, atol=2e-3)

    def test_stated_rate_and_lost_faces(self, tmp_path: Path) -> None:
        frames = mediapipe_frames(CURVES)
        frames[3] = {"faceBlendshapes": []}
        (tmp_path / "a.json").write_text(json.dumps({"fps": 24, "frames": frames}))
        recording = read_recording(tmp_path / "a.json")
        assert (recording.motion.fps, recording.fps_from) == (24, "the file")
        assert recording.notes[0] == "1 frames without a face were filled in"
        np.testing.assert_allclose(column(recording, "mouthSmileLeft"), 1 - RAMP, atol=1e-6)
        stated = read_recording(tmp_path / "a.json", fps=48).motion
        assert (stated.fps, len(stated)) == (48, T)

    @pytest.mark.parametrize("timed", ["no frame", "frames with a face", "every frame"])
    def test_lost_faces_at_the_ends(self, timed: str, tmp_path: Path) -> None:
        lost: dict[str, Any] = {"faceBlendshapes": []}
        frames = [*([lost] * 30), *mediapipe_frames(CURVES), *([lost] * 5)]
        for i, frame in enumerate(frames):
            if timed == "every frame" or (timed == "frames with a face" and frame is not lost):
                frames[i] = {**frame, "timestamp_ms": 40 * i}
        (tmp_path / "a.json").write_text(json.dumps(frames))
        recording = read_recording(tmp_path / "a.json")
        smile = 1 - RAMP
        if timed == "frames with a face":
            # How long it was lost for is not known.
            assert recording.notes[0] == "35 frames without a face and without a time were left out"
        else:
            assert recording.notes[0] == "35 frames without a face were filled in"
            smile = np.concatenate([np.ones(30), smile, np.zeros(5)])
        np.testing.assert_allclose(column(recording, "mouthSmileLeft"), smile, atol=1e-6)


def test_our_own_files(tmp_path: Path) -> None:
    write_live_link(tmp_path / "a.csv", CURVES)
    motion = read_motion(tmp_path / "a.csv")
    save_motion(tmp_path / "b.npz", motion)
    recording = read_recording(tmp_path / "b.npz")
    assert (recording.format, recording.fps_from) == ("HeadStudio", "the file")
    assert torch.equal(recording.motion.params.expression, motion.params.expression)


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    write_show(tmp_path / "a.csv", EXPRESSION)
    write_live_link(tmp_path / "b.pkl", CURVES)
    np.savez(tmp_path / "c.npz", **vhap_arrays(T, RNG))
    (tmp_path / "c.npz").rename(tmp_path / "c.json")
    formats = [read_recording(path).format for path in sorted(tmp_path.iterdir())]
    assert formats == ["SHOW", "Live Link Face", "VHAP / GaussianAvatars"]


def test_rotation_forms() -> None:
    rotations = Rotation.random(20, random_state=0)
    matrices, vectors = rotations.as_matrix(), rotations.as_rotvec()
    for form in (
        vectors,
        vectors[:, None],
        matrices,
        matrices[:, None],
        matrices.reshape(20, 9),
        3 * matrices[:, :2].reshape(20, 6),  # scale does not matter
    ):
        np.testing.assert_allclose(to_rotvec(form, "a"), vectors, atol=1e-9)
    for wrong in (np.zeros((20, 4)), np.zeros((20, 3, 3)), np.zeros((20, 6)), -matrices):
        with pytest.raises(HeadStudioError, match=r"^jaw .*(expected|no rotation|for no rot)"):
            to_rotvec(wrong, "jaw")
