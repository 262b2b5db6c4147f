from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion import Motion, load_motion, save_motion


def some_motion() -> Motion:
    generator = torch.Generator().manual_seed(0)
    params = FlameParams.zeros(7, n_expression=60)
    params = params.replace(
        expression=torch.randn(7, 60, generator=generator),
        jaw_pose=torch.randn(7, 3, generator=generator),
        neck_pose=torch.randn(1, 3, generator=generator),
    )
    return Motion(params, 29.97, "some", ["jawOpen", "mouthClose"])


def test_round_trip(tmp_path: Path) -> None:
    motion = some_motion()
    save_motion(tmp_path / "a.npz", motion)
    back = load_motion(tmp_path / "a.npz")
    assert back.fps == 29.97
    assert back.name == "some"
    assert back.expression_names == ["jawOpen", "mouthClose"]
    expected, loaded = motion.params.expand(), back.params.expand()
    for (name, a), (_, b) in zip(expected.items(), loaded.items(), strict=True):
        assert torch.equal(a, b), name
    save_motion(tmp_path / "b.npz", back)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_rates_of_older_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", fps=np.float32(29.97), jaw_pose=np.zeros((4, 3)))
    assert load_motion(tmp_path / "a.npz").fps == pytest.approx(29.97)


def test_what_numpy_1_writes_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def savez_compressed(file: Path, **arrays: object) -> None:
        """As before numpy 2, which took every keyword for an array."""
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, np.asanyarray(array))

    monkeypatch.setattr(np, "savez_compressed", savez_compressed)
    save_motion(tmp_path / "a.npz", some_motion())
    assert len(load_motion(tmp_path / "a.npz")) == 7


def test_a_motionless_motion_keeps_its_length(tmp_path: Path) -> None:
    save_motion(
        tmp_path / "a.npz", Motion(FlameParams.zeros(1).replace(translation=torch.zeros(9, 3)), 25)
    )
    assert len(load_motion(tmp_path / "a.npz")) == 9


def test_missing_parameters_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "nod.npz"
    np.savez(path, fps=25, jaw_pose=np.ones((4, 3)))
    motion = load_motion(path)
    assert (len(motion), motion.fps, motion.name) == (4, 25.0, "nod")
    assert motion.params.jaw_pose.dtype == torch.float32
    for name, value in motion.params.items():
        assert name == "jaw_pose" or not value.any(), name
    assert motion.params.expand().expression.shape == (4, 100)
    assert motion.params.expand().shape.shape == (4, 300)


T = 4
DEFECTS = {
    "no fps": ({"fps": None}, "lacks fps"),
    "zero fps": ({"fps": 0}, "fps is 0; expected one positive"),
    "slow": ({"fps": 1e-9}, "fps is 1e-09; expected one positive number, from 0.001 to 100000"),
    "nan fps": ({"fps": np.nan}, "fps is nan"),
    "many fps": ({"fps": [30, 30]}, r"fps is \[30, 30\]"),
    "text fps": ({"fps": "30"}, "fps is 30"),
    "typo": ({"jaw": np.zeros((T, 3))}, "unknown key 'jaw'.*Did you mean 'jaw_pose'"),
    "foreign": ({"poses": np.zeros((T, 3))}, "unknown key 'poses'; a motion file has shape, expre"),
    "nothing": ({"jaw_pose": None, "expression": None}, "has no FLAME parameter"),
    "flat": ({"jaw_pose": np.zeros(3)}, r"jaw_pose has shape \[3\]; expected \[T, 3\]"),
    "matrices": ({"jaw_pose": np.zeros((T, 3, 3))}, r"jaw_pose has shape \[4, 3, 3\]"),
    "quaternions": ({"neck_pose": np.zeros((T, 4))}, r"neck_pose has shape \[4, 4\]"),
    "lengths": ({"jaw_pose": np.zeros((T + 1, 3))}, r"expected \[T, .\].*longest here has 5"),
    "short shape": ({"shape": np.zeros((1, 10))}, r"shape has shape \[1, 10\]; .*\[T, 300\]"),
    "scalar": ({"expression": 3.0}, r"expression has shape \[\]"),
    "no columns": ({"expression": np.zeros((T, 0))}, r"expression has shape \[4, 0\]"),
    "no frames": ({"jaw_pose": np.zeros((0, 3)), "expression": None}, r"shape \[0, 3\]"),
    "text": ({"jaw_pose": np.full((T, 3), "a")}, "jaw_pose holds <U1"),
    "nan": ({"jaw_pose": np.diag([1, np.nan, 1, 1])[:, :3]}, "jaw_pose is not finite in frame 1"),
    "complex": ({"jaw_pose": np.zeros((T, 3), complex)}, "jaw_pose holds complex128"),
    "names": ({"expression_names": np.full(101, "x")}, "101 expression_names for 100"),
    "number names": ({"expression_names": np.zeros(3)}, "expression_names is float64"),
    "long": (
        {"jaw_pose": np.zeros((200_001, 3)), "expression": None},
        "has 200001 frames; at most 200000 are read",
    ),
    "objects": ({"jaw_pose": np.array([None])}, "holds Python objects"),
}


@pytest.mark.parametrize(("change", "message"), DEFECTS.values(), ids=DEFECTS.keys())
def test_defective_files_say_what_is_wrong(change: dict, message: str, tmp_path: Path) -> None:
    entries = {"fps": 30, "jaw_pose": np.zeros((T, 3)), "expression": np.zeros((T, 100)), **change}
    path = tmp_path / "defective.npz"
    np.savez(path, **{key: value for key, value in entries.items() if value is not None})
    with pytest.raises(HeadStudioError, match=message) as caught:
        load_motion(path)
    assert str(path) in str(caught.value)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match="does not exist; expected a motion file"):
        load_motion(tmp_path / "gone.npz")
    save_motion(tmp_path / "a.npz", some_motion())
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(HeadStudioError, match="damaged"):
        load_motion(tmp_path / "a.npz")


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    save_motion(path, some_motion())
    before = path.read_bytes()

    def broken(file: Path, **arrays: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        save_motion(path, some_motion())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_only_npz_is_written(tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match=r"must end in \.npz"):
        save_motion(tmp_path / "a.pkl", some_motion())
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadStudioError, match="cannot write"):
        save_motion(tmp_path / "file" / "a.npz", some_motion())


def test_nothing_is_written_that_is_not_read(tmp_path: Path) -> None:
    long = FlameParams.zeros(1).replace(translation=torch.zeros(200_001, 3))
    with pytest.raises(HeadStudioError, match="has 200001 frames; a motion has at most 200000"):
        save_motion(tmp_path / "a.npz", Motion(long, 25))
    assert list(tmp_path.iterdir()) == []
