"""``headstudio export`` as it is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pygltflib
import pytest
import torch
from plyfile import PlyData

from headstudio.app import export, main
from headstudio.app.player import DEFAULT_HEAD
from headstudio.errors import HeadStudioError
from headstudio.export import SUFFIXES, UPS
from headstudio.flame import HeadModel
from headstudio.paths import find_asset
from headstudio.splats import initialise_uniform, save_avatar


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = HeadModel.load(find_asset(DEFAULT_HEAD))
    frame = head.world_frame(1.5)
    g = torch.Generator().manual_seed(0)
    splats = initialise_uniform(frame.to_world(head.neutral()), head.faces, 500, g, opacity=0.9)
    path = tmp_path_factory.mktemp("avatar") / "avatar.ply"
    save_avatar(path, splats, head, torch.zeros(head.n_shape), frame, "nobody")
    return path


TALK = str(find_asset("motion/talk.npz"))


def run(avatar: Path, *arguments: str) -> int:
    return main.main(["export", str(avatar), *arguments])


def means(path: Path) -> np.ndarray:
    vertex = PlyData.read(str(path))["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], -1)


def test_one_file_at_rest_in_words_and_of_a_motion(avatar, tmp_path, capsys):
    assert run(avatar, "--out", str(tmp_path / "rest.ply")) == 0
    assert "rest.ply: 0.0 MiB" in capsys.readouterr().out
    assert run(avatar, "--out", str(tmp_path / "o.ply"), "--expression", "jaw open") == 0
    frame = ["--motion", TALK, "--frame"]
    assert run(avatar, "--out", str(tmp_path / "last.ply"), *frame, "-1") == 0
    assert run(avatar, "--out", str(tmp_path / "same.ply"), *frame, "179", "--up", "z") == 0
    rest = means(tmp_path / "rest.ply")
    assert np.allclose(rest, means(avatar), atol=1e-6)  # the avatar's own file is at rest as well
    assert np.abs(means(tmp_path / "o.ply") - rest).max() > 0.02
    assert np.array_equal(means(tmp_path / "last.ply"), means(tmp_path / "same.ply"))


def test_one_file_for_each_frame(avatar, tmp_path):
    folder = tmp_path / "talk"
    frames = ["--format", "ply", "--motion", TALK, "--frames", "10:40:15"]
    assert run(avatar, "--out", str(folder), *frames) == 0
    names = ["frame_00010.ply", "frame_00025.ply"]
    assert sorted(path.name for path in folder.iterdir()) == names
    alone = tmp_path / "25.ply"
    assert run(avatar, "--out", str(alone), "--motion", TALK, "--frame", "25") == 0
    assert np.array_equal(means(folder / names[1]), means(alone))
    assert run(avatar, "--out", str(folder), *frames) == 2
    assert run(avatar, "--out", str(folder), *frames, "--force") == 0


def test_a_timeline_is_a_motion(avatar, tmp_path):
    script = ["--format", "ply", "--expression", "jaw open 0.5s, neutral 0.5s", "--fps", "10"]
    folder = tmp_path / "frames"
    assert run(avatar, "--out", str(folder), *script, "--frames", "::4") == 0
    assert len(list(folder.iterdir())) == 3
    opened = np.abs(means(folder / "frame_00004.ply") - means(avatar)).max()
    assert opened > np.abs(means(folder / "frame_00000.ply") - means(avatar)).max() + 0.02


def test_the_mesh_takes_the_motion_or_one_pose_of_it(avatar, tmp_path):
    path = tmp_path / "a.glb"
    assert run(avatar, "--out", str(path), "--motion", TALK, "--subdivide", "0") == 0
    glb = pygltflib.GLTF2().load(str(path))
    assert [animation.name for animation in glb.animations] == ["talk"]
    assert not any(glb.meshes[0].weights)
    pose = ["--motion", TALK, "--frame", "40", "--subdivide", "0", "--force"]
    assert run(avatar, "--out", str(path), *pose) == 0
    glb = pygltflib.GLTF2().load(str(path))
    assert not glb.animations
    assert any(glb.meshes[0].weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.xyz"], "a.xyz does not say which format"),
        (["--out", "a.ply", "--format", "splat"], "a file of format splat ends in .splat"),
        (["--out", "a.ply", "--frame", "3"], "give --motion FILE"),
        (
            ["--out", "f", "--format", "ply", "--expression", "smile", "--frames", "all"],
            "durations",
        ),
        (["--out", "a.ply", "--expression", "smile 1s"], "--frame N, or --frames all"),
        (["--out", "a.ply", "--motion", "tlak", "--frame", "0"], "'talk'"),
        (["--out", "a.ply", "--motion", TALK], "--frame N, or --frames all"),
        (["--out", "a.ply", "--motion", TALK, "--frame", "180"], "has 180 frames, 0 to 179"),
        (["--out", "a.ply", "--motion", TALK, "--frame", "-181"], "no frame -181"),
        (["--out", "a.glb", "--motion", TALK, "--frames", "all"], "holds the whole motion"),
        (["--out", "a.glb", "--expression", "smile 1s", "--fps", "1e9"], "expected from 0.001"),
        (["--out", "a.ply", "--motion", TALK, "--fps", "1e5", "--frame", "0"], "at most 200000"),
        (["--out", "a.glb", "--up", "z"], "y up by its specification"),
        (["--out", "a.ply", "--expression", "smlie"], "'smile'"),
        (["--out", "f", "--format", "ply", "--motion", TALK, "--frames", "1:2:3:4"], "A:B:STEP"),
        (["--out", "f", "--format", "ply", "--motion", TALK, "--frames", "5"], "A:B:STEP"),
        (["--out", "f", "--format", "ply", "--motion", TALK, "--frames", "::0"], "A:B:STEP"),
        (["--out", "f", "--format", "ply", "--motion", TALK, "--frames", "200:"], "180 frames"),
        (["--out", "taken.ply"], "--force"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    avatar, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.ply").write_text("mine")
    assert run(avatar, *arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken.ply"]
    assert (tmp_path / "taken.ply").read_text() == "mine"


def test_the_avatar_is_never_written_over(avatar, tmp_path, capsys):
    own = tmp_path / "frame_00002.ply"
    own.write_bytes(avatar.read_bytes())
    (tmp_path / "link.ply").symlink_to(own)
    frames = ["--format", "ply", "--motion", TALK, "--frames", "2:4"]
    for arguments in (
        ["--out", str(own)],
        ["--out", str(tmp_path / "link.ply")],
        ["--out", str(tmp_path), *frames],
    ):
        assert run(own, *arguments, "--force") == 2
        assert "is what is read, and would be lost" in capsys.readouterr().err
    assert own.read_bytes() == avatar.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_command_line_offers_what_the_library_has():
    assert tuple(SUFFIXES) == export._FORMATS
    assert UPS == export._UPS


@pytest.mark.parametrize(
    ("text", "frames"),
    [("all", [0, 1, 2, 3, 4]), ("1:3", [1, 2]), ("::2", [0, 2, 4]), ("-2:", [3, 4]),
     ("::-2", [4, 2, 0])],
)  # fmt: skip
def test_frames_are_chosen_as_in_python(text, frames):
    assert export.chosen_frames(text, 5) == frames


def test_a_name_says_its_format():
    names = {"a.ply": "ply", "a.compressed.ply": "compressed-ply", "A.GLB": "glb"}
    assert {name: export.format_of(Path(name)) for name in names} == names
    with pytest.raises(HeadStudioError, match="--format"):
        export.format_of(Path("folder"))
