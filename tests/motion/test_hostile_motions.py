"""Files that are damaged, or made to do harm: each is refused with a sentence, and nothing runs."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from headstudio.errors import HeadStudioError
from headstudio.motion import read_motion
from tests.fixtures.foreign_motions import (
    LIVE_LINK_ACTIONS,
    _Reduced,
    mediapipe_frames,
    saved_storage,
    vhap_arrays,
    write_live_link,
    write_show,
)

T = 6
EXPRESSION = np.zeros((T, 100), np.float32)
JAW = np.zeros((T, 3), np.float32)
MARK = "harmed"


def touch(path: str) -> None:
    """What a hostile file would like to be called."""
    Path(path).touch()


def nested(payload: bytes, location: str = "cpu") -> Any:
    """A clip whose jaw is a tensor with ``payload`` as the bytes of its storage."""
    storage = _Reduced(torch.storage._load_from_bytes, payload)
    return _Reduced(torch._utils._rebuild_tensor_v2, storage, 0, (T, 3), (3, 1), False, {})


def clip(**entries: Any) -> bytes:
    return pickle.dumps({"expression": EXPRESSION, "jaw_pose": JAW, **entries}, protocol=2)


def view(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Any:
    """A tensor that looks at a storage of 18 numbers in its own way."""
    data = saved_storage(np.zeros(18, np.float32), "cuda:0")
    storage = _Reduced(torch.storage._load_from_bytes, data)
    return _Reduced(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def promised(count: int) -> bytes:
    """A storage that announces more numbers than it has."""
    data = saved_storage(np.zeros(18, np.float32), "cpu")
    return data[: -18 * 4 - 8] + struct.pack("<q", count) + data[-18 * 4 :]


def laughs() -> list[Any]:
    value: list[Any] = [0.0] * 10
    for _ in range(12):
        value = [value] * 10
    return value


def announced_array() -> bytes:
    """A pickled bytearray of 2**40 bytes that are not there."""
    return b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc."


def array_state(shape: tuple[int, ...]) -> bytes:
    """A pickled numpy array whose shape does not fit its bytes."""
    content = clip()
    marker = b"K\x06K\x03\x86"  # (6, 3)
    assert content.count(marker) == 1
    packed = b"".join(b"\x8a\x05" + struct.pack("<q", n)[:5] for n in shape)
    return content.replace(marker, packed + b"\x86")


PICKLES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "a call": (
        lambda mark: pickle.dumps(_Reduced(os.system, f"touch {mark}")),
        r"asks for posix\.system, which a motion has no use for\. Nothing was run",
    ),
    "a call beside the data": (
        lambda mark: clip(extra=_Reduced(touch, mark)),
        r"asks for .*touch, .*Nothing was run",
    ),
    "a call by name": (
        lambda mark: b"cbuiltins\nexec\n(S'open(%r, \"w\")'\ntR." % mark,
        r"asks for builtins\.exec",
    ),
    "a call inside a tensor": (
        lambda mark: clip(jaw_pose=nested(pickle.dumps(_Reduced(touch, mark)))),
        "asks for .*touch",
    ),
    "a call inside a tensor inside a tensor": (
        lambda mark: clip(jaw_pose=nested(clip(jaw_pose=nested(b"cos\nsystem\n(S'x'\ntR.")))),
        "'jaw_pose' is not an array of numbers",
    ),
    "an attribute of a class": (
        lambda mark: b"cnumpy\nndarray\n}S'__reduce__'\nNsb.",
        "cannot be read as a pickle",
    ),
    "endless nesting": (lambda mark: clip(jaw_pose=laughs()), "'jaw_pose' is not an array"),
    "a bytearray that is not there": (lambda mark: announced_array(), "1099511627776 bytes"),
    "an array that is not there": (lambda mark: array_state((1 << 30, 3)), "'jaw_pose' is not an"),
    "a storage that is not there": (
        lambda mark: clip(jaw_pose=nested(promised(1 << 40))),
        "1099511627776 numbers are announced",
    ),
    "a view beyond its storage": (lambda mark: clip(jaw_pose=view((T, 3), (300, 1))), "in a stor"),
    "a view before its storage": (lambda mark: clip(jaw_pose=view((T, 3), (3, 1), -9)), "in a st"),
    "a view backwards": (lambda mark: clip(jaw_pose=view((T, 3), (-3, 1), 15)), "in a storage"),
    "an endless view": (lambda mark: clip(jaw_pose=view((1 << 40, 3), (0, 1))), "'jaw_pose' is no"),
    "an object array": (
        lambda mark: clip(jaw_pose=np.array([[_Reduced(float)] * 3] * T, dtype=object)),
        r"asks for __builtin__\.float",
    ),
    "texts": (lambda mark: clip(jaw_pose=[["a"] * 3] * T), "'jaw_pose' is not an array"),
    "cut off": (lambda mark: clip()[:-40], "cannot be read as a pickle"),
    "only a beginning": (lambda mark: b"\x80\x04", "cannot be read as a pickle"),
    "no motion": (lambda mark: pickle.dumps({"weights": JAW}), "holds weights, which is none of"),
    "a number": (lambda mark: pickle.dumps(3), "is a pickle of a int"),
    "nothing": (lambda mark: pickle.dumps({}), "it holds nothing, which"),
    "an empty list": (lambda mark: pickle.dumps([]), "pickle of a list"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name: str, tmp_path: Path) -> None:
    make, message = PICKLES[name]
    mark = tmp_path / MARK
    path = tmp_path / "a.pkl"
    content = make(str(mark)) if name != "a call by name" else make(str(mark).encode())  # type: ignore[arg-type]
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(HeadStudioError, match=message) as caught:
            read_motion(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert not mark.exists()
    assert peak < 50e6


def test_numpy_objects_are_read_by_the_same_means(tmp_path: Path) -> None:
    mark = tmp_path / MARK
    value = np.array({"exp": EXPRESSION, "pose": _Reduced(touch, str(mark))}, dtype=object)
    np.save(tmp_path / "a.npy", value, allow_pickle=True)
    with pytest.raises(HeadStudioError, match=r"asks for .*touch"):
        read_motion(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", expr=value, rotation=JAW)
    with pytest.raises(HeadStudioError, match="holds Python objects"):
        read_motion(tmp_path / "a.npz")
    assert not mark.exists()


def _npy_header(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (_npy_header("(1099511627776, 265)"), r"\[1099511627776, 265\] of float32 are announced"),
        (_npy_header("(4, 265)") + b"\0" * 100, "are announced, 100 bytes are there"),
        (b"\x93NUMPY\x01\x00", "cannot be read as .npy"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 200, "cannot be read as .npy"),
        (b"PK\x03\x04" + b"\0" * 60, "cannot be read as a motion"),
        (b"MATLAB 7.3 MAT-file, Platform", "save it with -v7"),
        (b"MATLAB 5.0 MAT-file" + b"\0" * 200, "cannot be read as .mat"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "none of the formats. Read are SHOW"),
        (b"a,b,c\n1,2,3\n", "none of the formats"),
        (b"{", "cannot be read as .json"),
        (b"[" * 200_000, "cannot be read as .json"),
        (b"[]", "empty one; nothing was tracked"),
        (b"[1, 2]", "no score of a facial action"),
        (b'[{"jawOpen": NaN}]', "NaN stands for no score"),
        (b'[{"jawOpen": 1e999}]', "jawOpen is inf in the frame 0"),
        (b'[{"jawOpen": "0.3"}]', "jawOpen is 0.3 in the frame 0; expected a number"),
        (b'[{"jawOpen": 37}]', "jawOpen goes to 37; expected 0 to 1"),
        (b'[{"jawOpen": -80}, {"jawOpen": 1}]', "jawOpen goes to -80; expected 0 to 1"),
        (b'{"jawOpen": [1, 0], "cheekPuff": [1]}', "columns have different lengths"),
        (b'{"fps": 0, "frames": [{"jawOpen": 1}]}', "its frame rate is 0"),
        (b'[{"jawOpen": 1, "time": 2}, {"jawOpen": 1, "time": 1}]', "time does not increase"),
        (b'[{"jawOpen": 1, "matrix": [1, 2]}]', "not 4 by 4 numbers"),
        (b"Timecode,JawOpen\n", "a header and no frames"),
        (b"Timecode,JawOpen\n10:00:00:01,nan\n", "row 2 has 'nan' as JawOpen"),
        (b"Timecode,JawOpen\n10:00:00:01,0,5\n", "row 2 has 3 cells, the header 2"),
        (b"Timecode,JawOpen\n10:00:01,0.5\n", "'10:00:01' is no timecode"),
        (b"Timecode,JawOpen\n10:00:00:01,\n", "no row with values"),
        (b"Timecode,JawOpen,jawopen\n10:00:00:01,0,0\n", "has 'jawopen' twice"),
        (b"Timecode,JawOpen\n10:00:02:01,0\n10:00:01:01,0\n10:00:01:02,0\n", "goes back at row 3"),
        (b"Timecode,JawOpen\n0:0:0:1,0\n0:0:0:2,0\n0:0:0:3,0\n11:0:0:3,0\n", "span 2376002 frames"),
        (b"Timecode,JawOpen\n0:0:0:1,0\n0:0:0:3,\n0:0:0:2,0\n0:0:0:4,0\n", "goes back at row 4"),
        (b"timestamp,JawOpen\n2,0\n1,0\n", "times do not increase"),
        (b"JawOpen,Jaw\n0,\n" + b",\n" * 200_000, "more than 200000 rows"),
        (b"JawOpen,Jaw\n0,\n" + b",\n" * 30_000, "1 frames were recorded in the time of 30000"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_damaged_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(HeadStudioError, match=message):
        read_motion(path)


SHAPES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "frames": ({"jaw_pose": np.zeros((T + 1, 3))}, "different numbers of frames"),
    "quaternions": (
        {"jaw_pose": np.zeros((T, 4))},
        r"shape \[6, 4\]; expected axis",
    ),
    "nan": ({"jaw_pose": np.full((T, 3), np.nan)}, "'jaw_pose' is not finite in frame 0"),
    "huge": ({"jaw_pose": np.full((T, 3), 1e30)}, "not finite in frame 0"),
    "inf": ({"expression": np.diag([0, 0, np.inf, 0, 0, 0])}, "not finite in frame 2"),
    "empty": ({"expression": np.zeros((0, 100))}, "has no frames"),
    "no columns": ({"expression": np.zeros((T, 0))}, r"expected \[T, n\]"),
    "another model": ({"expression": np.ones((T, 101))}, "101 coefficients a frame; FLAME has 100"),
    "body": ({"body_pose_axis": np.zeros((T, 66))}, r"expected \[T, 63\], the 21 joints"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_wrong_arrays(name: str, tmp_path: Path) -> None:
    arrays, message = SHAPES[name]
    expression = arrays.pop("expression", EXPRESSION) if "expression" in arrays else EXPRESSION
    write_show(tmp_path / "a.pkl", expression, **arrays)
    with pytest.raises(HeadStudioError, match=message):
        read_motion(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("eyes_pose", np.zeros((T, 3)), r"'eyes_pose' has shape \[6, 3\]; expected \[T, 6\]"),
        ("translation", np.zeros((T, 2)), r"'translation' has shape \[6, 2\]"),
        ("expr", np.full((T, 100), "x"), "'expr' holds <U1; expected numbers"),
        ("expr", np.zeros((T, 100), complex), "'expr' holds complex128"),
        ("rotation", np.zeros((T, 3, 3)), "is no rotation matrix"),
    ],
)
def test_wrong_gaussian_avatars(key: str, value: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{**vhap_arrays(T, np.random.default_rng(0)), key: value})
    with pytest.raises(HeadStudioError, match=message):
        read_motion(tmp_path / "a.npz")


def test_files_without_parameters(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"verts": np.zeros((5023, 3)), "trans_verts": JAW})
    with pytest.raises(HeadStudioError, match=r"DECA's meshes .* Save the dictionary"):
        read_motion(tmp_path / "a.mat")
    np.savez(tmp_path / "b.npz", points=JAW)
    with pytest.raises(HeadStudioError, match="it holds points, which is none of the formats"):
        read_motion(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", JAW)
    with pytest.raises(HeadStudioError, match=r"array of shape \[6, 3\], which is none"):
        read_motion(tmp_path / "c.npy")
    with pytest.raises(HeadStudioError, match="a folder without motions"):
        read_motion(tmp_path)
    with pytest.raises(HeadStudioError, match="does not exist"):
        read_motion(tmp_path / "gone.csv")
    np.savez(tmp_path / "d.npz", jaw_pose=JAW)
    with pytest.raises(HeadStudioError, match="lacks fps"):
        read_motion(tmp_path / "d.npz")


@pytest.mark.parametrize("name", ["a.pkl", "a.mat", "a.csv", "a.npy", "a.npz", "EMOCA's"])
def test_files_that_may_not_be_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As whom tests run may be allowed to read everything.
    def denied(path: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = tmp_path / name
    path.touch() if path.suffix else path.mkdir()
    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(HeadStudioError, match=r"cannot be opened \(Permission denied\); expected"):
        read_motion(path)


def test_a_promising_zip(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"exp": torch.zeros(T, 50), "pose": torch.zeros(T, 6)}, stream)
    (tmp_path / "a.pt").write_bytes(stream.getvalue())
    assert len(read_motion(tmp_path / "a.pt")) == T
    # The directory at the end announces 4 GB for the first member.
    content = bytearray(stream.getvalue())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "a.pt").write_bytes(bytes(content))
    with pytest.raises(HeadStudioError, match="cannot be read as a pickle"):
        read_motion(tmp_path / "a.pt")


@pytest.mark.parametrize("fps", [0, -5, 1e9, float("nan"), float("inf")])
def test_impossible_rates(fps: float, tmp_path: Path) -> None:
    write_live_link(tmp_path / "a.csv", {"jawOpen": np.zeros(T)})
    write_show(tmp_path / "a.pkl", EXPRESSION)
    (tmp_path / "a.json").write_text(json.dumps(mediapipe_frames({"jawOpen": np.zeros(T)})))
    for name in ("a.csv", "a.pkl", "a.json"):
        with pytest.raises(HeadStudioError, match=r"stated as .* expected from 0\.001"):
            read_motion(tmp_path / name, fps=fps)


def test_a_wide_table_of_one_frame(tmp_path: Path) -> None:
    names = ",".join(LIVE_LINK_ACTIONS)
    (tmp_path / "a.csv").write_text(f"{names}\n{','.join(['0.5'] * 52)}\n")
    motion = read_motion(tmp_path / "a.csv")
    assert (len(motion), motion.fps) == (1, 60)


def test_corruption_raises_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_show(tmp_path / "show", EXPRESSION)
    write_live_link(tmp_path / "take", {"jawOpen": np.zeros(T)})
    (tmp_path / "scores").write_text(json.dumps(mediapipe_frames({"jawOpen": np.zeros(T)})))
    (tmp_path / "codes").write_bytes(pickle.dumps({"exp": EXPRESSION, "pose": np.zeros((T, 6))}))
    torch.save({"exp": torch.zeros(T, 50), "pose": torch.zeros(T, 6)}, tmp_path / "tensors")
    scipy.io.savemat(tmp_path / "mat", {"exp": EXPRESSION, "pose": JAW}, appendmat=False)
    with (tmp_path / "vhap").open("wb") as stream:
        np.savez(stream, expr=EXPRESSION, rotation=JAW)
    files = sorted(tmp_path.iterdir())
    damaged = tmp_path / "damaged"
    refused = 0
    for path in files:
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole[: rng.integers(len(whole)) if rng.random() < 0.3 else None])
            for place in rng.integers(0, min(len(content), 3000), size=3) if content else []:
                content[place] = rng.integers(256)
            damaged.write_bytes(bytes(content))
            try:
                read_motion(damaged)
            except HeadStudioError:
                refused += 1
    assert refused > 100
