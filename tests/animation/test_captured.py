"""What is copied to the graph and what is drawn from it, on a CPU: gsplat and graphs are replaced.

Here a graph runs the Python again and writes to the same addresses, and the "ellipses" are what
gsplat would be given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from headstudio.animation import FastPlayer, captured, fast_player
from headstudio.animation.captured import CapturedPlayer
from headstudio.render import Cameras
from headstudio.render._gsplat_stages import Ellipses
from headstudio.render.grouped import place


def project(means: Tensor, covariances: Tensor, opacities: Tensor, cameras: Cameras) -> Ellipses:
    """A place for everything that gsplat's projection is given."""
    return Ellipses(means, covariances, cameras.viewmats(), cameras.intrinsics())


def record(frame: Callable[[], Ellipses]) -> tuple[Callable[[], None], Ellipses]:
    written = frame()
    written = Ellipses(*(getattr(written, f.name).clone() for f in fields(written)))

    def replay() -> None:
        again = frame()
        for field in fields(again):
            getattr(written, field.name).copy_(getattr(again, field.name))

    return replay, written


class CurrentDevice:
    """Which device is the current one."""

    now: torch.device | None = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None:
        CurrentDevice.now = self.device

    def __exit__(self, *_: object) -> None:
        CurrentDevice.now = None


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[Tensor, ...]]:
    """What each picture was drawn from: means, covariances, both matrices, the background."""
    pictures: list[tuple[Tensor, ...]] = []

    def rasterize(ellipses, tiles, splats, cameras, background):
        values = [getattr(ellipses, f.name).clone() for f in fields(ellipses)]
        pictures.append((*values, None if background is None else background.clone()))
        size = (cameras.poses, cameras.views, cameras.height, cameras.width)
        return torch.zeros(*size, 3), torch.zeros(*size, 1)

    monkeypatch.setattr(captured, "record", record)
    monkeypatch.setattr(captured._gsplat, "require", lambda: None)
    monkeypatch.setattr(captured._gsplat_stages, "project", project)
    monkeypatch.setattr(captured._gsplat_stages, "intersect", lambda ellipses, cameras: None)
    monkeypatch.setattr(captured._gsplat_stages, "rasterize", rasterize)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    stream = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "device", CurrentDevice)
    return pictures


@pytest.fixture
def fast(player) -> FastPlayer:
    made = FastPlayer(player.avatar, player.head)
    made.capture = True
    return made


def check(seen: tuple[Tensor, ...], fast: FastPlayer, params, cameras: Cameras, ground) -> None:
    means, covariances = place(fast.splats, fast.maps(fast.head.pack(params)))
    expected = (means, covariances, cameras.viewmats(), cameras.intrinsics())
    for one, other in zip(seen[:4], expected, strict=True):
        assert torch.equal(one, other.float())
    if ground is None:
        assert seen[4] is None
    else:
        assert torch.equal(seen[4], ground)


def test_every_picture_is_of_what_it_was_asked_for(fast, poses, drawn):
    front = Cameras.orbit(torch.tensor([0.0, 30.0]), 5.0, 2.5, 40.0, 32, 48)
    side = Cameras.orbit(torch.tensor([0.0, 90.0]), 5.0, 2.5, 40.0, 32, 48)
    wide = replace(front, fovy=1.5 * front.fovy)
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1])
    asked = [
        (poses[1], front, red),
        (poses[1], front, red),  # nothing new
        (poses[2], front, blue),
        (poses[2], side, None),
        (poses[1], wide, blue),
        (poses[0], replace(side, c2w=side.c2w.double()), red),
    ]
    for params, cameras, ground in asked:
        pictures = fast.render(params, cameras, ground)
        assert pictures.rgb.shape == (1, 2, 32, 48, 3)
        check(drawn[-1], fast, params, cameras, ground)
    assert len(fast._captured) == 1


def test_everything_is_done_on_the_players_own_device(fast, poses, drawn, monkeypatch):
    """Another GPU may be the current one."""
    seen = []

    def noted(function):
        def noting(*args):
            seen.append(CurrentDevice.now)
            return function(*args)

        return noting

    stages = captured._gsplat_stages
    for place_of, name in ((captured, "record"), (stages, "intersect"), (stages, "rasterize")):
        monkeypatch.setattr(place_of, name, noted(getattr(place_of, name)))
    current = torch.cuda.current_stream
    monkeypatch.setattr(torch.cuda, "current_stream", noted(current))
    fast.render(poses[1], Cameras.orbit(0.0, 5.0, 2.5, 40.0, 32, 32))
    assert seen == [fast.device] * 4
    assert CurrentDevice.now is None


def test_what_the_caller_writes_into_the_same_tensors_is_seen(fast, poses, drawn):
    cameras = Cameras.orbit(0.0, 5.0, 2.5, 40.0, 32, 32)
    params, ground = poses[1], torch.tensor([0.1, 0.2, 0.3])
    fast.render(params, cameras, ground)
    cameras.c2w[..., 0, 3] += 0.5
    params.jaw_pose[:] += 0.1
    ground += 0.2
    fast.render(params, cameras, ground)
    check(drawn[-1], fast, params, cameras, ground)


def test_what_is_there_already_is_not_copied_again(fast, poses, drawn):
    cameras = Cameras.orbit(0.0, 5.0, 2.5, 40.0, 32, 32)
    fast.render(poses[1], cameras)
    (graph,) = fast._captured.values()
    inputs = (graph._packed, graph.cameras._viewmats, graph.cameras._intrinsics)
    versions = [x.values._version for x in inputs]
    fast.render(poses[1], cameras)
    assert [x.values._version for x in inputs] == versions
    fast.render(poses[2], cameras)
    assert [x.values._version - v for x, v in zip(inputs, versions, strict=True)] == [1, 0, 0]


def test_batches_are_captured_up_to_a_size(fast, poses, drawn, monkeypatch):
    monkeypatch.setattr(fast_player, "MOST_CAPTURED", 4)
    two = Cameras.orbit(torch.tensor([0.0, 90.0]), 5.0, 2.5, 40.0, 32, 32)
    fast.render(poses[:2], two)
    check(drawn[-1], fast, poses[:2], two.expand(2), None)
    fast.render(poses[:4], Cameras.orbit(0.0, 5.0, 2.5, 40.0, 32, 32))
    assert len(drawn) == len(fast._captured) == 2
    pictures = fast.render(poses[:3], two)  # six: drawn without a graph, here on the CPU
    assert len(drawn) == len(fast._captured) == 2
    assert float(pictures.alpha.max()) > 0.9


def test_a_graph_for_each_size_and_number(fast, poses, drawn):
    for rows, size in ((1, 32), (4, 32), (1, 48), (1, 32)):
        fast.render(poses[:rows], Cameras.orbit(0.0, 5.0, 2.5, 40.0, size, size))
    assert len(fast._captured) == 3
    assert all(isinstance(x, CapturedPlayer) for x in fast._captured.values())
