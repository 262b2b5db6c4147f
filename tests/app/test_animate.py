"""``headstudio animate``: the films, read back."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import wave
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from headstudio.app import main as app
from headstudio.app.animate.inputs import read_any
from headstudio.app.animate.stage import Stage
from headstudio.app.player import DEFAULT_HEAD, Player
from headstudio.app.recording import recording
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import Motion, expression_pose, save_motion
from headstudio.paths import find_asset
from headstudio.render import Cameras
from headstudio.splats import initialise_uniform, save_avatar
from tests.fixtures.foreign_motions import write_emoca

COLORS = {"red": (0.9, 0.2, 0.1), "blue": (0.1, 0.2, 0.9), "green": (0.1, 0.8, 0.2)}


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(find_asset(DEFAULT_HEAD))


@pytest.fixture(scope="module")
def avatars(head, tmp_path_factory) -> dict[str, Path]:
    """Heads of one colour each, with red lips."""
    folder = tmp_path_factory.mktemp("avatars")
    frame = head.world_frame(1.5)
    lips = head.region_mask("lips", "mouth_interior", "teeth", "tongue")
    files = {}
    for name, rgb in COLORS.items():
        g = torch.Generator().manual_seed(0)
        splats = initialise_uniform(frame.to_world(head.neutral()), head.faces, 6000, g, 0.95)
        splats.colors[:] = (torch.tensor(rgb) - 0.5) / 0.28209479177387814
        splats.colors[lips[splats.face]] = torch.tensor([-1.5, -1.5, -1.5])
        files[name] = folder / f"{name}.ply"
        save_avatar(files[name], splats, head, torch.zeros(head.n_shape), frame, f"a {name} head")
    return files


@pytest.fixture(scope="module")
def motion(head, tmp_path_factory) -> Path:
    """12 frames at 24 a second in which the jaw opens."""
    params = FlameParams.zeros(12, head.n_shape, head.n_expression)
    params.jaw_pose[:, 0] = torch.linspace(0, 0.4, 12)
    path = tmp_path_factory.mktemp("motion") / "open.npz"
    save_motion(path, Motion(params.replace(shape=params.shape[:1]), 24.0, "open"))
    return path


def animate(*words: object) -> int:
    return app.main(["animate", *(str(word) for word in words), "--quiet", "--device", "cpu"])


def probe(path: Path) -> str:
    """What ffmpeg says about a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def read_film(path: Path) -> tuple[dict, np.ndarray]:
    """What the file says of itself, and its frames [T, H, W, 3]."""
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return meta, np.stack(frames)


def speech(path: Path, seconds: float) -> Path:
    """A tone as a .wav file."""
    t = np.arange(round(16000 * seconds)) / 16000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes())
    return path


def test_an_mp4_has_the_motions_frames_rate_and_size(avatars, motion, tmp_path, capsys):
    out = tmp_path / "new folder" / "film.mp4"
    assert animate(avatars["red"], "--motion", motion, "--out", out, "--size", "96x64") == 0
    meta, frames = read_film(out)
    assert frames.shape == (12, 64, 96, 3)
    assert meta["fps"] == pytest.approx(24.0)
    assert meta["codec"] == "h264"
    assert "Audio" not in probe(out)
    assert "yuv420p(tv, bt709" in probe(out)  # said, so that players need not guess
    said = capsys.readouterr().out
    assert "12 frames of 96 x 64 px, 24 a second, 0.50 s" in said
    # The picture is what the library renders, but for H.264's losses.
    player = Player.open(avatars["red"])
    params = FlameParams.zeros(1, player.head.n_shape, player.head.n_expression)
    cameras = Cameras.orbit(0, 5, 2.6, 40, 64, 96)
    expected = player.render(params, cameras, background=torch.ones(3)).rgb[0, 0].numpy() * 255
    assert np.abs(frames[0] - expected).mean() < 6
    assert np.abs(frames[0] - expected).mean(axis=(0, 1)).max() < 8  # the colours do not shift
    assert [file.name for file in out.parent.iterdir()] == ["film.mp4"]


def test_the_mouth_moves_when_the_jaw_opens_and_the_brows_do_not(avatars, head, tmp_path):
    out = tmp_path / "frames"
    words = ["--expression", "neutral 0.1s, jaw open 1s", "--still", "--fps", 10, "--size", 128]
    assert animate(avatars["green"], *words, "--out", out) == 0
    first, last = (np.asarray(Image.open(out / f"frame_{n:05d}.png"), float) for n in (0, 10))
    cameras = Cameras.orbit(0, 5, 2.6, 40, 128, 128)
    player = Player.open(avatars["green"])
    rest = FlameParams.zeros(1, head.n_shape, head.n_expression)
    open_mouth = expression_pose("jaw open", head)
    vertices = player.vertices(FlameParams.cat([rest, open_mouth]))
    pixels = cameras.expand(2).project(vertices)[0][:, 0]
    changed = np.abs(last - first).mean(-1)

    def within(region: str) -> np.ndarray:
        """The changes in the box that a region fills in either pose."""
        at = pixels[:, head.faces[head.region_mask(region)].unique()].flatten(0, 1)
        (left, top), (right, bottom) = at.amin(0).int().tolist(), at.amax(0).int().tolist()
        return changed[top : bottom + 2, left : right + 2]

    assert within("lips").mean() > 20
    assert within("brows").mean() < 0.02 * within("lips").mean()


def test_the_same_command_writes_the_same_frames(avatars, tmp_path):
    text = "smile 0.5s, left wink 0.5s"

    def frames(name: str, *words: object) -> list[bytes]:
        out = tmp_path / name
        assert (
            animate(avatars["red"], "--expression", text, "--out", out, "--size", 32, *words) == 0
        )
        return [file.read_bytes() for file in sorted(out.iterdir())]

    a, b, c = frames("a", "--seed", 1), frames("b", "--seed", 1), frames("c", "--seed", 2)
    assert len(a) == 30
    assert a == b
    assert a[0] == c[0]  # the first frame is the script's alone
    assert a != c


def test_avatars_stand_in_a_grid_in_their_order(avatars, motion, tmp_path):
    files = [avatars[name] for name in COLORS]
    out = tmp_path / "grid"
    words = ["--motion", motion, "--seconds", 0.05, "--size", "40x60", "--show", "mesh,control"]
    assert animate(*files, *words, "--columns", 2, "--background", "#204060", "--out", out) == 0
    (frame,) = sorted(out.iterdir())
    pixels = np.asarray(Image.open(frame), float) / 255
    assert pixels.shape == (2 * 60, 2 * 3 * 40, 3)
    for n, rgb in enumerate(COLORS.values()):
        row, column = divmod(n, 2)
        cell = pixels[60 * row : 60 * row + 60, 120 * column : 120 * column + 120]
        avatar, mesh, control = cell[:, :40], cell[:, 40:80], cell[:, 80:]
        forehead = avatar[18, 20]
        assert np.abs(forehead - rgb).max() < 0.25, n
        grey = mesh[30, 20]
        assert np.ptp(grey) < 0.02 < grey.mean()
        assert (control.max(-1) == 0).mean() > 0.6  # lines on black
        assert (control.max(-1) > 0.5).sum() > 20
        for layer in (avatar, mesh):
            assert np.allclose(layer[0, 0], [0x20 / 255, 0x40 / 255, 0x60 / 255], atol=0.01)
    assert np.allclose(pixels[60:, 120:], [0x20 / 255, 0x40 / 255, 0x60 / 255], atol=0.01)


def test_labels_say_the_prompts(avatars, motion, tmp_path):
    common = [avatars["red"], "--motion", motion, "--seconds", 0.05, "--size", 128]
    assert animate(*common, "--out", tmp_path / "plain") == 0
    assert animate(*common, "--labels", "--out", tmp_path / "labelled") == 0
    plain, labelled = (
        np.asarray(Image.open(tmp_path / name / "frame_00000.png"), float)
        for name in ("plain", "labelled")
    )
    assert np.array_equal(plain[:100], labelled[:100])
    assert np.abs(plain[115:] - labelled[115:]).mean() > 30


def test_png_frames_can_be_transparent(avatars, motion, tmp_path):
    out = tmp_path / "frames"
    words = ["--motion", motion, "--size", 64, "--background", "transparent", "--show", "mesh"]
    assert animate(avatars["blue"], *words, "--out", out) == 0
    assert len(list(out.iterdir())) == 12
    pixels = np.asarray(Image.open(out / "frame_00000.png"), float) / 255
    assert pixels.shape == (64, 128, 4)
    for left in (0, 64):
        assert pixels[0, left, 3] == 0
        assert pixels[32, left + 32, 3] > 0.9
    # At the soft rim too the colour is the head's, not mixed with black.
    alpha = pixels[:, :64, 3]
    rim = pixels[:, :64][(alpha > 0.2) & (alpha < 0.7)]
    assert len(rim) > 10
    assert np.abs(np.median(rim[:, 2]) - COLORS["blue"][2]) < 0.1


def test_a_gif_plays_for_ever_at_its_rate(avatars, motion, tmp_path):
    out = tmp_path / "film.gif"
    assert animate(avatars["red"], "--motion", motion, "--out", out, "--size", 48, "--fps", 20) == 0
    with Image.open(out) as image:
        assert image.size == (48, 48)
        assert image.n_frames == 10  # 11 / 24 s at 20 a second
        assert image.info["duration"] == 50
        assert image.info["loop"] == 0


@pytest.mark.parametrize("seconds", [0.2, 2.0])
def test_sound_lasts_as_long_as_the_film(avatars, motion, tmp_path, seconds, capsys):
    out = tmp_path / "talk.mp4"
    wav = speech(tmp_path / "it's speech.wav", seconds)
    words = ["--motion", motion, "--size", 32, "--audio", wav, "--out", out]
    assert animate(avatars["red"], *words) == 0
    said = probe(out)
    assert re.search(r"Audio: aac", said)
    duration = re.search(r"Duration: 00:00:(\d\d\.\d\d)", said)
    assert duration is not None
    assert float(duration[1]) == pytest.approx(0.5, abs=0.06)
    assert read_film(out)[1].shape[0] == 12
    assert ("is cut" if seconds > 0.5 else "silence follows") in capsys.readouterr().err


def test_a_motion_is_repeated_or_cut_to_the_seconds(avatars, motion, tmp_path):
    for seconds, frames in ((0.25, 6), (1.25, 30)):
        out = tmp_path / f"{frames}.mp4"
        words = ["--motion", motion, "--seconds", seconds, "--size", 32, "--out", out]
        assert animate(avatars["red"], *words) == 0
        assert len(read_film(out)[1]) == frames


def test_samples_are_known_by_name_and_follow_each_other(avatars, tmp_path):
    out = tmp_path / "film.mp4"
    words = ["--motion", "blink", "smile", "--fps", 5, "--size", 32, "--out", out]
    assert animate(avatars["red"], *words) == 0
    assert len(read_film(out)[1]) in range(39, 44)  # 4 s, 0.3 s between, 4 s


def test_a_folder_named_like_a_sample_does_not_hide_it(motion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = read_any("talk")
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "frame_00000.png").touch()
    assert len(read_any("talk")) == len(sample) == 180
    with pytest.raises(HeadStudioError, match="talk"):
        read_any("./talk/")
    (tmp_path / "smile").write_bytes(motion.read_bytes())
    assert len(read_any("smile")) == 12  # a file of this name is meant


def test_a_folder_of_a_recording_is_meant_though_named_like_a_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = {"expcode": np.zeros(50), "posecode": np.zeros(6)}
    write_emoca(tmp_path / "talk", [code] * 3)
    assert len(read_any("talk")) == 3


def test_cameras_stand_turn_or_follow_a_file(avatars, motion, head, tmp_path):
    keys = [{"time": 0, "azimuth": 0}, {"time": 0.5, "azimuth": 90}]
    (tmp_path / "path.json").write_text(json.dumps({"keyframes": keys}))

    def film(camera: object) -> np.ndarray:
        out = tmp_path / f"{Path(str(camera)).stem}"
        words = ["--expression", "neutral", "--still", "--seconds", 0.5, "--fps", 8, "--size", 48]
        assert animate(avatars["red"], *words, "--camera", camera, "--out", out) == 0
        return np.stack([np.asarray(Image.open(f), float) for f in sorted(out.iterdir())])

    fixed, turning, following = (film(c) for c in ("fixed", "turntable", tmp_path / "path.json"))
    assert np.array_equal(fixed[0], fixed[3])
    assert np.array_equal(fixed[0], turning[0])
    player = Player.open(avatars["red"])
    rest = FlameParams.zeros(1, head.n_shape, head.n_expression)
    for frame, azimuth in ((turning[1], 90), (turning[2], 180), (following[2], 45)):
        cameras = Cameras.orbit(azimuth, 5, 2.6, 40, 48, 48)
        expected = player.render(rest, cameras, background=torch.ones(3)).rgb[0, 0].numpy() * 255
        assert np.abs(frame - expected).max() < 3, azimuth


def test_an_existing_film_is_kept_unless_told_otherwise(avatars, motion, tmp_path, capsys):
    out = tmp_path / "film.mp4"
    out.write_text("precious")
    words = [avatars["red"], "--motion", motion, "--size", 32, "--out", out]
    assert animate(*words) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert animate(*words, "--force") == 0
    assert len(read_film(out)[1]) == 12


def test_a_folder_is_replaced_only_if_it_holds_frames(avatars, motion, tmp_path, capsys):
    out = tmp_path / "frames"
    words = [avatars["red"], "--motion", motion, "--size", 32, "--out", out]
    assert animate(*words) == 0
    assert animate(*words) == 2
    assert animate(*words, "--force", "--seconds", 0.1) == 0
    assert sorted(f.name for f in out.iterdir()) == ["frame_00000.png", "frame_00001.png"]
    (out / "thesis.txt").write_text("precious")
    assert animate(*words, "--force") == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text() == "precious"


def test_the_working_directory_is_not_replaced(avatars, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for place in (".", tmp_path):
        words = [avatars["red"], "--motion", "talk", "--force", "--out", place]
        assert animate(*words) == 2
        assert "is the working directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [1, 2])
def test_a_folder_that_cannot_be_replaced_stays(at, tmp_path, monkeypatch):
    out = tmp_path / "frames"
    out.mkdir()
    (out / "frame_00000.png").write_text("precious")
    calls = []

    def replace(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == at:
            raise PermissionError(errno.EACCES, "Permission denied")
        os.rename(source, target)

    monkeypatch.setattr("headstudio.app.recording.os.replace", replace)

    def record() -> None:
        with recording(out, 1, 10, 16, 16):
            pass

    with pytest.raises(HeadStudioError, match=r"cannot replace .*frames: Permission denied"):
        record()
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    assert (out / "frame_00000.png").read_text() == "precious"


def test_what_fails_leaves_nothing_behind(tmp_path):
    def interrupted(name: str) -> None:
        with recording(tmp_path / name, 3, 10, 16, 16) as write:
            write(np.zeros((1, 16, 16, 3), np.uint8))
            raise KeyboardInterrupt

    def impossible() -> None:
        with recording(tmp_path / "odd.mp4", 2000, 10, 15, 15) as write:
            for _ in range(200):
                write(np.zeros((10, 15, 15, 3), np.uint8))

    for name in ("a.mp4", "a.gif", "frames"):
        with pytest.raises(KeyboardInterrupt):
            interrupted(name)
    with pytest.raises(HeadStudioError, match="ffmpeg could not write"):
        impossible()
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_odd_size_get_an_even_frame(avatars, head):
    players = [Player.open(avatars["red"])]
    stage = Stage(players, 31, 45, (0.0, 0.0, 1.0))
    pose = FlameParams.zeros(1, head.n_shape, head.n_expression)
    cameras = Cameras.orbit(0, 5, 2.6, 40, 31, 45)
    (picture,) = stage.pictures(pose, cameras)
    assert stage.size == (32, 46)
    assert picture.shape == (1, 32, 46, 3)
    assert (picture[0, 31] == [0, 0, 255]).all()
    assert (picture[0, :, 45] == [0, 0, 255]).all()


def test_frames_are_the_same_in_batches_of_any_size(avatars, head, monkeypatch):
    stage = Stage([Player.open(avatars["red"])], 24, 24, (1.0, 1.0, 1.0))
    poses = FlameParams.zeros(7, head.n_shape, head.n_expression)
    poses.jaw_pose[:, 0] = torch.linspace(0, 0.3, 7)
    cameras = Cameras.orbit(0, 5, 2.6, 40, 24, 24).expand(7)
    together = np.concatenate(list(stage.pictures(poses, cameras)))
    monkeypatch.setattr("headstudio.app.animate.stage._MAX_BATCH", 3)
    batches = list(stage.pictures(poses, cameras))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert np.array_equal(np.concatenate(batches), together)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_pictures(avatars, head):
    poses = FlameParams.zeros(5, head.n_shape, head.n_expression)
    poses.jaw_pose[:, 0] = torch.linspace(0, 0.3, 5)
    cameras = Cameras.orbit(20, 5, 2.6, 40, 64, 64).expand(5)
    frames = {}
    for device in ("cpu", "cuda"):
        player = Player.open(avatars["red"], device=device)
        stage = Stage([player], 64, 64, None, ("avatar", "mesh", "control"))
        frames[device] = np.concatenate(list(stage.pictures(poses, cameras))).astype(float)
    assert frames["cpu"].shape == (5, 64, 192, 4)
    assert np.abs(frames["cpu"] - frames["cuda"]).mean() < 1


BAD = [
    (["--expression", "smlie"], "did you mean 'smile'"),
    (["--motion", "tlk"], "did you mean 'talk'"),
    (["--motion", "none.npz"], "none.npz"),
    (["--motion", "notes.npz"], "notes.npz"),
    (["--motion", "talk", "--background", "whit"], "did you mean 'white'"),
    (["--motion", "talk", "--background", "transparent"], "no transparency"),
    (["--motion", "talk", "--show", "mehs"], "did you mean 'mesh'"),
    (["--motion", "talk", "--camera", "turntabel"], "did you mean 'turntable'"),
    (["--motion", "talk", "--camera", "none.json"], "cannot read the camera file"),
    (["--motion", "talk", "--fov", "190"], "fov cannot be 190"),
    (["--motion", "talk", "--audio", "none.wav"], "none.wav does not exist"),
    (["--motion", "talk", "--audio", "notes.npz"], "no sound that ffmpeg can read"),
    (["--motion", "talk", "--out", "a.avi"], "expected .mp4, .gif"),
    (["--motion", "talk", "--fps", "60", "--out", "a.gif"], "50 frames a second"),
    (["--motion", "talk", "--seconds", "1e6"], "frames are more than"),
    (["--motion", "talk", "--fps", "1e9"], "1e+09 frames a second; expected from 0.001 to 100000"),
    (["--motion", "talk", "--fps", "1e5"], "a motion has at most 200000"),
    (["--motion", "talk", "--device", "abacus"], "--device abacus cannot be used"),
    (["--motion", "talk", "--head", "none.pkl"], "none.pkl"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_command_lines_write_nothing(words, message, avatars, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.npz").write_text("not a motion, not a sound")
    out = [] if "--out" in words else ["--out", "film.mp4"]
    device = [] if "--device" in words else ["--device", "cpu"]
    assert app.main(["animate", str(avatars["red"]), *words, *out, *device, "--quiet"]) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.npz"]


@pytest.mark.parametrize("words", [["--size", "5"], ["--size", "wide"], ["--fps", "0"], []])
def test_the_parser_refuses_what_is_no_number(words, avatars, capsys):
    motion = ["--motion", "talk"] if words else []
    with pytest.raises(SystemExit):
        app.main(["animate", str(avatars["red"]), "--out", "a.mp4", *motion, *words])
    assert "error" in capsys.readouterr().err


def test_the_list_of_expressions(capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["animate", "--list-expressions"])
    assert end.value.code == 0
    assert "left wink (also: wink left, wink)" in capsys.readouterr().out
