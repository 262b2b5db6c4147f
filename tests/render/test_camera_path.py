"""Cameras that move."""

from __future__ import annotations

import json

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.render import Cameras, render
from headstudio.render.camera_path import (
    FARTHEST,
    CameraPath,
    View,
    load_camera_path,
    turntable_azimuths,
)


def test_a_fixed_camera_is_the_orbits():
    view = View(azimuth=30, elevation=10, distance=2.0, fov=35)
    cameras = CameraPath.fixed(view).at(torch.tensor([0.0, 1.0, 7.0]), 20, 30)
    expected = Cameras.orbit(30, 10, 2.0, 35, 20, 30)
    assert (cameras.poses, cameras.views, cameras.height, cameras.width) == (3, 1, 20, 30)
    for n in range(3):
        torch.testing.assert_close(cameras.c2w[n], expected.c2w[0])
        torch.testing.assert_close(cameras.fovy[n], expected.fovy[0])


def test_a_turntable_goes_round_evenly():
    seconds = torch.arange(8) / 8 * 2.0
    cameras = CameraPath.turntable(View(azimuth=90), 2.0, turns=1).at(seconds, 8, 8)
    azimuth = 90 + turntable_azimuths(8)
    expected = Cameras.orbit(azimuth, 5.0, 2.6, 40.0, 8, 8)
    torch.testing.assert_close(cameras.c2w[:, 0], expected.c2w[0], atol=1e-5, rtol=0)
    assert turntable_azimuths(4, 2).tolist() == [0, 180, 0, 180]


def test_a_path_without_time_to_go_it_is_refused():
    with pytest.raises(HeadStudioError, match=r"turntable cannot take 0 seconds; .* more than 0"):
        CameraPath.turntable(View(), 0.0)
    with pytest.raises(HeadStudioError, match="time 1 follows 1; times must grow"):
        CameraPath((1.0, 1.0), (View(), View()))
    with pytest.raises(HeadStudioError, match="2 times were given for 1 views"):
        CameraPath((1.0, 2.0), (View(),))


def test_the_farthest_camera_still_sees_the_head():
    """With a small field of view; what is farther than `Cameras.far` is not drawn."""
    ball = {
        "means": torch.tensor([[[-0.75, 0.0, 0.0]]]),  # where the head ends
        "quats": torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        "scales": torch.full((1, 1, 3), 0.3),
        "opacities": torch.tensor([0.9]),
        "colors": torch.ones(1, 3),
    }
    cameras = CameraPath.fixed(View(distance=FARTHEST, fov=1.5)).at(torch.zeros(1), 32, 32)
    assert render(**ball, cameras=cameras).alpha.max() > 0.5


def path_of(tmp_path, data):
    file = tmp_path / "camera.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return load_camera_path(file, View())


def test_key_frames_are_passed_smoothly_and_never_overshot(tmp_path):
    keys = [
        {"time": 0, "azimuth": -40, "distance": 3},
        {"time": 1, "azimuth": 20, "fov": 30},
        {"time": 3, "azimuth": 20, "target": [0, 0, 0.2]},
    ]
    path = path_of(tmp_path, {"keyframes": keys})
    at = path.at(torch.tensor([0.0, 1.0, 3.0, 99.0]), 8, 8)
    for n, key in enumerate(keys):
        view = {"azimuth": 0, "elevation": 5, "distance": 2.6, "fov": 40} | key
        expected = Cameras.orbit(
            view["azimuth"], view["elevation"], view["distance"], view["fov"], 8, 8
        )
        c2w = expected.c2w[0, 0].clone()
        c2w[:3, 3] += torch.tensor(key.get("target", [0.0, 0.0, 0.0]))
        torch.testing.assert_close(at.c2w[n, 0], c2w, atol=1e-5, rtol=0)
        torch.testing.assert_close(at.fovy[n], expected.fovy[0])
    torch.testing.assert_close(at.c2w[3], at.c2w[2])  # stands still after the end
    between = path.at(torch.linspace(1, 3, 50), 8, 8)
    azimuth = torch.rad2deg(torch.atan2(between.c2w[:, 0, 1, 3], between.c2w[:, 0, 0, 3]))
    torch.testing.assert_close(azimuth, torch.full((50,), 20.0), atol=1e-3, rtol=0)
    assert path_of(tmp_path, keys).seconds == path.seconds  # the bare list will do


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "is not a JSON file"),
        ([], "has no key frames"),
        ({"frames": []}, "has no key frames"),
        ([{"azimuth": 3}], "key frame 0: expected an object with a time"),
        ([{"time": 0, "azimut": 3}], "unknown key 'azimut'; did you mean 'azimuth'"),
        ([{"time": 0, "fov": "wide"}], "fov is 'wide'; expected a number"),
        ([{"time": 0, "distance": -1}], "key frame 0: a camera's distance cannot be -1"),
        ([{"time": 0, "distance": 105, "fov": 1.5}], "distance cannot be 105.0; .* up to 95"),
        ([{"time": 0, "target": [0, 0, 93]}], r"target cannot be .*93.* camera's 2.6 add up to 95"),
        ([{"time": 0, "elevation": 95}], "elevation cannot be 95"),
        ([{"time": 0, "target": [1, 2]}], r"target is \[1, 2\]; expected 3 numbers"),
        ([{"time": -1}], "expected 0 or more seconds"),
        ([{"time": 1}, {"time": 1}], "times must grow"),
        ('[{"time": 0, "azimuth": NaN}]', "azimuth is nan; expected a number"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, data, message):
    with pytest.raises(HeadStudioError, match=message):
        path_of(tmp_path, data)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(HeadStudioError, match="cannot read the camera file"):
        load_camera_path(tmp_path / "none.json", View())
