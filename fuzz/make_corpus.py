"""Writes the seeds of the fuzzers, small whole files: ``python fuzz/make_corpus.py``."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
for _place in (HERE.parent, HERE, HERE.parent / "custom/threestudio-headstudio"):
    sys.path.insert(0, str(_place))

import numpy as np  # noqa: E402
import scipy.io  # noqa: E402
import scipy.sparse  # noqa: E402
import torch  # noqa: E402
from readers import tiny_head, tiny_head_entries  # noqa: E402

from headstudio.splats import Splats, save_avatar  # noqa: E402
from tests.fixtures import foreign_motions as foreign  # noqa: E402

T = 2
RNG = np.random.default_rng(0)


def _some(*shape: int) -> np.ndarray:
    return (RNG.integers(-4, 5, shape) / 8).astype(np.float32)


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _head() -> dict[str, bytes]:
    extras = {
        "region_names": np.array(["skin", "lips"]),
        "face_region": np.int16([0, 1, -1, 0]),
        "expression_names": np.array(["jawOpen"]),
        "name": np.array("tiny"),
    }
    return {
        "tiny.npz": _npz(**tiny_head_entries()),
        "named.npz": _npz(**tiny_head_entries(), **extras),
    }


def _flame_pickle() -> dict[str, bytes]:
    entries: dict = tiny_head_entries()
    for name in ("shapedirs", "posedirs"):
        entries[name] = entries[name].astype(np.int8)
    plain = pickle.dumps(entries, protocol=2)
    entries["J_regressor"] = scipy.sparse.csc_matrix(entries["J_regressor"])
    few = {name: entries[name] for name in ("v_template", "J_regressor", "f", "weights")}
    return {
        "plain.pkl": plain.replace(b"numpy._core.", b"numpy.core."),
        "sparse.pkl": pickle.dumps(few, protocol=4),
        "text.pkl": pickle.dumps(
            {"f": tiny_head_entries()["f"], "weights": [[1.0, 2.0]]}, protocol=0
        ),
    }


def _landmarks() -> dict[str, bytes]:
    return {
        "two.npz": _npz(
            landmark_mediapipe_index=np.int64([468, 473]),
            landmark_face=np.int64([0, 3]),
            landmark_barycentric=np.float32([[1, 0, 0], [0.25, 0.25, 0.5]]),
        )
    }


def _motion() -> dict[str, bytes]:
    names = {"expression_names": np.array(["jawOpen", "eyeBlinkLeft"]), "name": np.array("seed")}
    return {
        "jaw.npz": _npz(jaw_pose=_some(T, 3), fps=np.float32(25)),
        "names.npz": _npz(expression=_some(T, 4), fps=np.array(30), **names),
    }


def _vhap() -> dict[str, bytes]:
    arrays = {"expr": _some(T, 3), "rotation": _some(T, 3), "eyes_pose": _some(T, 6)}
    code = {"exp": _some(T, 5), "pose": _some(T, 6), "shape": _some(T, 4)}
    return {"vhap.npz": _npz(**arrays, shape=_some(4)), "deca.npz": _npz(**code)}


def _written(write: Callable[[Path], object], suffix: str) -> bytes:
    path = HERE / f".seed{suffix}"
    try:
        write(path)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _show() -> dict[str, bytes]:
    arrays = {"expression": _some(T, 3), "jaw_pose": _some(T, 3), "body_pose": _some(T, 63)}
    tensors = {name: foreign.tensor_as_pickled(_some(T, 3)) for name in ("expression", "jaw_pose")}
    frames = [{"exp": _some(3), "pose": _some(6)} for _ in range(T)]
    return {
        "arrays.pkl": pickle.dumps(arrays, protocol=2).replace(b"numpy._core.", b"numpy.core."),
        "tensors.pkl": pickle.dumps(tensors, protocol=2),
        "frames.pkl": pickle.dumps(dict(enumerate(frames)), protocol=4),
        "lists.pkl": pickle.dumps(
            {"expression": [[0.5, 1.0]], "jaw_pose": [[0, 0, 1]]}, protocol=2
        ),
        "text.pkl": pickle.dumps([{"exp": [1.5], "jaw": [0.0, 0.0, 1.0]}], protocol=0),
    }


def _torch() -> dict[str, bytes]:
    stream, legacy = io.BytesIO(), io.BytesIO()
    tensors = {"expression": torch.ones(T, 3), "jaw_pose": torch.zeros(1, 3).expand(T, 3)}
    torch.save(tensors, stream)
    torch.save(tensors, legacy, _use_new_zipfile_serialization=False)
    return {"zip.pt": stream.getvalue(), "legacy.pt": legacy.getvalue()}


def _npys() -> dict[str, bytes]:
    objects = np.array({"exp": _some(T, 3), "pose": _some(T, 6)}, dtype=object)
    return {
        "talkshow.npy": _npy(foreign.talkshow_array(_some(1, 100), _some(1, 3))),
        "objects.npy": _npy(objects),
    }


def _mat() -> dict[str, bytes]:
    code = {"exp": _some(T, 3), "pose": _some(T, 6), "note": "text"}
    seeds = {}
    for name, packed in (("packed.mat", True), ("plain.mat", False)):
        stream = io.BytesIO()
        scipy.io.savemat(stream, code, do_compression=packed)
        seeds[name] = stream.getvalue()
    return seeds


def _csv() -> dict[str, bytes]:
    clock = "Timecode,BlendshapeCount,EyeBlinkLeft,JawOpen,HeadYaw,HeadPitch,HeadRoll\n" + "".join(
        f"13:04:31:{frame}.652,61,0.25,0.{frame},0.1,0.0,-0.1\n" for frame in (27, 28, 30)
    )
    plain = "timestamp_ms,jawOpen,browInnerUp\n0,0.1,0.2\n33,0.2,\n66,0.3,0.1\n"
    return {"clock.csv": clock.encode(), "plain.csv": plain.encode()}


def _json() -> dict[str, bytes]:
    category = {"index": 9, "score": 0.25, "categoryName": "jawOpen"}
    matrix = np.eye(4).ravel().tolist()
    frames = [
        {"timestamp_ms": 40 * i, "faceBlendshapes": [{"categories": [category]}],
         "facialTransformationMatrixes": [{"data": matrix}]}
        for i in range(T)
    ]  # fmt: skip
    columns = {"fps": 30, "jawOpen": [0.1, 0.2], "eyeBlinkLeft": [0, 1]}
    return {
        "frames.json": json.dumps(frames).encode(),
        "columns.json": json.dumps(columns).encode(),
        "nested.json": json.dumps({"results": [{"scores": {"jawOpen": 0.5}}]}).encode(),
    }


def _avatar() -> dict[str, bytes]:
    head = tiny_head()
    values = {name: torch.from_numpy(_some(3, 3)) for name in ("means", "scales", "colors")}
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1)
    splats = Splats(**values, quats=quats, opacities=torch.zeros(3), face=torch.tensor([0, 1, 3]))
    shape = torch.zeros(head.n_shape)

    def write(path: Path) -> None:
        save_avatar(path, splats, head, shape, head.world_frame(1.5), "a seed")

    return {"three.ply": _written(write, ".ply")}


def _cameras() -> dict[str, bytes]:
    frames = [{"time": 0, "azimuth": -40, "target": [0, 0, 0.1]}, {"time": 2.5, "fov": 30}]
    return {"two.json": json.dumps({"keyframes": frames}).encode()}


def _index() -> dict[str, bytes]:
    weights = {
        "a.weight": "a-00001-of-00002.safetensors",
        "b.weight": "a-00002-of-00002.safetensors",
    }
    return {"two.json": json.dumps({"metadata": {"total_size": 8}, "weight_map": weights}).encode()}


def _embedding() -> dict[str, bytes]:
    from safetensors.torch import save

    return {"small.safetensors": save({"embedding": torch.ones(2, 3)})}


def _checkpoint() -> dict[str, bytes]:
    stream = io.BytesIO()
    state = {"geometry.shape": torch.zeros(3), "geometry.splats.means": torch.ones(2, 3)}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save(
        {"state_dict": state, "epoch": 0, "global_step": 5, "optimizer_states": [optimizer]}, stream
    )
    return {"small.ckpt": stream.getvalue()}


def _configs() -> dict[str, bytes]:
    folder = HERE.parent / "custom/threestudio-headstudio/configs"
    mini = (folder / "headstudio-mini.yaml").read_text().replace("prompt: ???", "prompt: a man")
    small = (
        "name: a\ntag: ${name}\nuse_timestamp: false\ndata_type: random-camera-datamodule\n"
        "data: {batch_size: 1, height: ${system.size}}\nsystem_type: x\n"
        "system: {size: 64, loss: {lambda_sds: [0, 1.0, 0.5, 10]}}\ntrainer: {max_steps: 5}\n"
    )
    lines = [
        line for line in mini.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    return {"mini.yaml": "\n".join(lines).encode() + b"\n", "small.yaml": small.encode()}


def _suite() -> dict[str, bytes]:
    text = (HERE.parent / "configs/benchmark/closed_world.yaml").read_text()
    return {"two.yaml": text[text.index("prompts:") : text.index("  - id: black-afro")].encode()}


SEEDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "head_npz": _head, "head_pkl": _flame_pickle, "landmarks": _landmarks, "motion_npz": _motion,
    "motion_vhap": _vhap, "motion_pkl": _show, "motion_torch": _torch, "motion_npy": _npys,
    "motion_mat": _mat, "motion_csv": _csv, "motion_json": _json, "avatar_ply": _avatar,
    "camera_path": _cameras, "prior_index": _index, "prompt_cache": _embedding,
    "checkpoint": _checkpoint, "config_yaml": _configs, "suite_yaml": _suite,
}  # fmt: skip


def main() -> None:
    total = 0
    for reader, seeds in SEEDS.items():
        folder = HERE / "corpus" / reader
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds().items():
            (folder / name).write_bytes(content)
            total += len(content)
    print(f"{total / 1024:.0f} KiB in {HERE / 'corpus'}")


if __name__ == "__main__":
    main()
