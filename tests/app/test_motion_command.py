from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headstudio.app.main import main
from headstudio.motion import ARKIT_NAMES, load_motion
from headstudio.paths import find_asset
from tests.fixtures.foreign_motions import vhap_arrays, write_live_link

T = 60


@pytest.fixture
def take(tmp_path: Path) -> Path:
    path = tmp_path / "take.csv"
    time = np.linspace(0, 1, T)
    write_live_link(path, {"jawOpen": time, "mouthSmileLeft": 0.4 * time, "cheekPuff": 0 * time})
    return path


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    path = tmp_path / "flame_param.npz"
    np.savez(path, **vhap_arrays(T, np.random.default_rng(0)))
    return path


def test_info(take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["motion", "info", str(take)]) == 0
    out = capsys.readouterr().out
    assert f"{take}: Live Link Face\n  60 frames at 30 a second, 2 s" in out
    assert "jaw                  0.0 to 20.1" in out
    assert "mouthSmileLeft          0.00 to 0.40   mean 0.20" in out
    assert "cheekPuff" not in out


def test_info_json(tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["motion", "info", str(tracked), "--json", "--fps", "24"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["fps"], summary["fps_from"], summary["frames"]) == (24, "stated", T)
    arrays = np.load(tracked)
    yaw = np.rad2deg(arrays["neck_pose"][:, 1])
    assert summary["joints_deg"]["neck_pose"]["y"] == pytest.approx(
        [yaw.min(), yaw.max()], abs=0.01
    )
    depth = arrays["translation"][:, 2] * 1000
    assert summary["translation_mm"]["z"] == pytest.approx([depth.min(), depth.max()], abs=0.01)
    strongest = int(np.abs(arrays["expr"]).max(0).argmax())
    assert summary["expressions"][0]["name"] == f"expression {strongest + 1}"


def test_info_says_when_the_rate_is_assumed(
    tracked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["motion", "info", str(tracked)]) == 0
    assert "60 frames at 25 a second (assumed: this format" in capsys.readouterr().out


def test_convert(take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.npz"
    command = ["motion", "convert", str(take), "--out", str(out)]
    assert main([*command, "--start", "0.5", "--end", "1.5", "--resample", "24"]) == 0
    motion = load_motion(out)
    assert motion.fps == 24
    # From 0.5 s to the last frame before 1.5 s.
    jaw = motion.params.jaw_pose[:, 0] / 0.35 * (T - 1) / 30
    assert jaw[0] == pytest.approx(0.5, abs=1e-3)
    assert jaw[-1] == pytest.approx(0.5 + 23 / 24, abs=1e-3)
    assert capsys.readouterr().out.startswith(f"{out}: 24 frames at 24 a second, 1.00 s, from Live")
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert len(load_motion(out)) == T


def test_convert_in_place_and_for_a_head(tracked: Path, tmp_path: Path) -> None:
    out, head = tmp_path / "out.npz", str(find_asset("flame/open_head.npz"))
    command = ["motion", "convert", str(tracked), "--out", str(out)]
    assert main([*command, "--in-place", "--head", head]) == 0
    motion = load_motion(out)
    assert not motion.params.global_orient.any()
    assert not motion.params.translation.any()
    assert motion.params.neck_pose.any()
    assert motion.expression_names[:52] != []
    assert not motion.params.expression.any()
    arrays = np.load(tracked)
    assert main([*command, "--force", "--fps", "50"]) == 0
    whole = load_motion(out)
    assert whole.fps == 50
    assert torch.equal(whole.params.translation, torch.from_numpy(arrays["translation"]))


def test_convert_in_place_keeps_the_frames(tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    np.savez(tmp_path / "a.npz", fps=30, translation=np.ones((9, 3)))
    assert (
        main(["motion", "convert", str(tmp_path / "a.npz"), "--in-place", "--out", str(out)]) == 0
    )
    assert len(load_motion(out)) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.csv"], "a motion file ends in .npz"),
        (
            ["--out", "a.npz", "--start", "9"],
            "nothing from 9 s to the end; the motion has 2",
        ),
        (["--out", "a.npz", "--start", "1", "--end", "0.5"], "nothing from 1 s to 0.5 s"),
        (["--out", "a.npz", "--resample", "1e-9"], "1e-09 frames a second; expected from 0.001"),
        (["--out", "a.npz", "--resample", "120000", "--end", "0.2"], "to 100000, such as 25"),
        (["--out", "a.npz", "--fps", "1", "--resample", "1e5"], "a motion has at most 200000"),
        (["--out", "a.npz", "--flame", "FLAME.pkl"], "--flame needs --head"),
        (["--out", "a.npz", "--head", "gone.npz"], "gone.npz does not exist"),
    ],
)
def test_convert_mistakes(
    arguments: list[str], message: str, take: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["motion", "convert", str(take), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["take.csv"]


def test_arkit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["motion", "arkit"]) == 0
    assert "its own expression dimensions" in capsys.readouterr().out
    assert main(["motion", "arkit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["own"]
    assert [action["name"] for action in report["actions"]] == list(ARKIT_NAMES)


def test_arkit_of_a_head_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADSTUDIO_CACHE", str(tmp_path / "cache"))
    arrays = dict(np.load(find_asset("flame/open_head.npz")))
    del arrays["expression_names"]
    np.savez(tmp_path / "head.npz", **{**arrays, "name": "nameless"})
    assert main(["motion", "arkit", "--head", str(tmp_path / "head.npz")]) == 0
    out = capsys.readouterr().out
    assert "nameless: the 52 actions, fitted to the open head's landmarks" in out
    assert "tongueOut             no landmark shows it" in out
    assert out.count("%") == 51
