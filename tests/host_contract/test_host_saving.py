"""Pictures, videos and data: what is written is what was given."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh

from threestudio.utils.saving import SaverMixin


@pytest.fixture
def saver(tmp_path: Path) -> SaverMixin:
    made = SaverMixin()
    made.set_save_dir(str(tmp_path / "save"))
    return made


def read(path: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_paths_are_inside_the_save_folder(tmp_path: Path, saver: SaverMixin) -> None:
    path = Path(saver.get_save_path("a/b/c.txt"))
    assert path == tmp_path / "save" / "a" / "b" / "c.txt"
    assert path.parent.is_dir()
    assert saver.get_save_dir() == str(tmp_path / "save")
    assert saver.get_loggers() == []
    with pytest.raises(ValueError, match=r"(?i)save"):
        SaverMixin().get_save_dir()


def test_an_rgb_picture(saver: SaverMixin) -> None:
    img = torch.rand(6, 5, 3)
    expected = (img.numpy() * 255).astype(np.uint8)
    assert (read(saver.save_rgb_image("a.png", img)) == expected).all()
    chw = img.permute(2, 0, 1) * 2 - 1
    path = saver.save_rgb_image("b.png", chw, data_format="CHW", data_range=(-1, 1))
    assert np.abs(read(path).astype(int) - expected).max() <= 1
    wide = saver.save_rgb_image("c.png", torch.cat([img, img], dim=-1))
    assert (read(wide) == np.concatenate([expected, expected], axis=1)).all()


def test_a_grayscale_picture(saver: SaverMixin) -> None:
    img = np.array([[0.0, 1.0], [2.0, 4.0]])
    path = saver.save_grayscale_image("a.png", img, data_range=None, cmap=None)
    assert read(path)[..., 0].tolist() == [[0, 63], [127, 255]]
    path = saver.save_grayscale_image("b.png", img, data_range=(0, 2), cmap=None)
    assert read(path)[..., 1].tolist() == [[0, 127], [255, 255]]
    jet = read(saver.save_grayscale_image("c.png", img, cmap="jet"))
    assert jet[0, 0, 2] > jet[0, 0, 0]  # low is blue
    assert jet[1, 1, 0] > jet[1, 1, 2]  # high is red


def test_a_grid(saver: SaverMixin) -> None:
    rgb = {"type": "rgb", "img": torch.ones(4, 6, 3), "kwargs": {"data_format": "HWC"}}
    gray = {
        "type": "grayscale",
        "img": torch.zeros(2, 3),
        "kwargs": {"cmap": None, "data_range": (0, 1)},
    }
    row = read(saver.save_image_grid("row.png", [rgb, gray], name="x", step=1))
    assert row.shape == (4, 12, 3)
    assert (row[:, :6] == 255).all()
    assert (row[:, 6:] == 0).all()
    rows = read(saver.save_image_grid("rows.png", [[rgb, gray], [gray, rgb]], align=4))
    assert rows.shape == (8, 8, 3)
    assert rows[0, 0, 0] == rows[7, 7, 0] == 255
    assert rows[0, 7, 0] == rows[7, 0, 0] == 0
    small = read(saver.save_image_grid("small.png", [rgb, gray], align="min"))
    assert small.shape == (2, 6, 3)
    big = {**gray, "img": torch.zeros(64, 64)}
    written = read(saver.save_image_grid("texts.png", [big], texts=["one", "two"]))
    assert written[:32].max() > 128
    assert written[32:].max() > 128


def test_integers_are_saved_as_they_are(saver: SaverMixin) -> None:
    img = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    assert (read(saver.save_image("a.png", img)) == img).all()
    deep = np.array([[0, 65535]], dtype=np.uint16)
    path = saver.save_image("b.png", deep)
    assert (cv2.imread(path, cv2.IMREAD_UNCHANGED) == deep).all()


def test_data(saver: SaverMixin) -> None:
    assert np.load(saver.save_data("a", torch.arange(3))).tolist() == [0, 1, 2]
    saved = np.load(saver.save_data("b", {"x": torch.ones(2), "y": np.zeros(1)}))
    assert (saved["x"].tolist(), saved["y"].tolist()) == ([1, 1], [0])
    path = saver.save_json("c.json", {"a": [1, 2]})
    assert json.loads(Path(path).read_text()) == {"a": [1, 2]}
    copy = saver.save_file("d.txt", path)
    assert Path(copy).read_text() == Path(path).read_text()


@pytest.mark.parametrize("save_format", ["mp4", "gif"])
def test_a_video_of_numbered_pictures(saver: SaverMixin, save_format: str) -> None:
    for i in (2, 10, 1):
        level = np.full((32, 48, 3), 20 * i, dtype=np.uint8)
        saver.save_image(f"frames/{i}.png", level)
    path = saver.save_img_sequence("video", "frames", r"(\d+)\.png", save_format, fps=5)
    assert Path(path).name == f"video.{save_format}"
    frames = [frame[..., :3] for frame in imageio.mimread(path, memtest=False)]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 3
    assert [float(frame.mean()) for frame in frames] == pytest.approx([20, 40, 200], abs=8)


def test_a_mesh(saver: SaverMixin) -> None:
    vertices, faces = torch.rand(4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]])
    mesh = trimesh.load(saver.save_mesh("a.obj", vertices, faces), process=False)
    np.testing.assert_allclose(mesh.vertices, vertices.numpy(), atol=1e-6)
    assert mesh.faces.tolist() == faces.tolist()


def test_nothing_but_the_file_is_left(tmp_path: Path, saver: SaverMixin) -> None:
    saver.save_rgb_image("a.png", torch.rand(2, 2, 3))
    saver.save_data("b", torch.ones(1))
    assert sorted(p.name for p in (tmp_path / "save").iterdir()) == ["a.png", "b.npy"]
