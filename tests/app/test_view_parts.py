"""The viewer without a browser: what it computes, offers and refuses."""

from __future__ import annotations

import math
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from headstudio.animation.prepared import grouped
from headstudio.animation.skinning import triangle_maps
from headstudio.app import main as app
from headstudio.app.player import DEFAULT_HEAD
from headstudio.app.view import open_viewer
from headstudio.app.view.controls import Controls, Rig, combine
from headstudio.app.view.drawing import LEAST, TALLEST, Body, Draft, draw
from headstudio.app.view.library import Library, is_avatar
from headstudio.app.view.playback import Playback
from headstudio.app.view.server import Server
from headstudio.app.view.splat_buffer import HEAD_UNITS, SplatBuffer
from headstudio.app.view.viewer import Viewer
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import EXPRESSIONS, Motion, expression_pose
from headstudio.paths import find_asset
from headstudio.render import Cameras
from headstudio.splats import initialise_uniform, save_avatar, triangle_frames


@pytest.fixture(scope="module")
def head():
    return HeadModel.load(find_asset(DEFAULT_HEAD))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, head):
    """Two avatars, one of them deeper, and a file that is none."""
    place = tmp_path_factory.mktemp("avatars")
    frame = head.world_frame(1.5)
    g = torch.Generator().manual_seed(0)
    splats = initialise_uniform(frame.to_world(head.neutral()), head.faces, 800, g, opacity=0.7)
    splats.colors = torch.randn(800, 3, generator=g)
    splats.quats = torch.randn(800, 4, generator=g)
    splats.scales = splats.scales + 0.5 * torch.randn(800, 3, generator=g)
    for name in ("first.ply", "runs/second.ply"):
        save_avatar(place / name, splats, head, torch.zeros(5), frame, f"the {name}")
    (place / "cloud.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    return place


# ------------------------------------------------------------------------------- what is drawn


def test_the_buffer_holds_the_posed_splats(folder, head):
    player = Library([folder / "first.ply"], head).open("first.ply")
    params = FlameParams.zeros(1, head.n_shape, head.n_expression)
    params.jaw_pose[0, 0], params.neck_pose[0, 1] = 0.3, 0.4
    vertices = player.vertices(params)
    buffer = SplatBuffer(player.avatar.splats, player.avatar.extent)
    array = buffer.pose(triangle_frames(vertices, head.faces))
    posed = player.pose(vertices)

    centers = array[:, :3].copy().view(np.float32) * buffer.scale
    assert np.allclose(centers, posed.means[0], atol=1e-6)

    axes = Rotation.from_quat(posed.quats[0].numpy(), scalar_first=True).as_matrix()
    axes = axes * posed.scales[0].numpy()[:, None, :]
    expected = axes @ axes.transpose(0, 2, 1)
    rows, columns = np.triu_indices(3)
    found = array[:, 4:7].copy().view(np.float16).astype(np.float64) * buffer.scale**2
    # Half precision: of the largest entry, a two-thousandth.
    largest = np.abs(expected).max((1, 2))[:, None]
    assert (np.abs(found - expected[:, rows, columns]) / largest).max() < 1e-3

    rgba = array[:, 7:].copy().view(np.uint8)
    assert np.abs(rgba[:, :3] / 255 - posed.colors.clamp(0, 1).numpy()).max() < 0.5 / 255 + 1e-6
    assert np.abs(rgba[:, 3] / 255 - posed.opacities.numpy()).max() < 0.5 / 255 + 1e-6


def test_a_pose_leaves_colours_alone_and_huge_splats_finite(folder, head):
    player = Library([folder / "first.ply"], head).open("first.ply")
    player.avatar.splats.scales[0] = 20.0  # exp(20) triangles
    buffer = SplatBuffer(player.avatar.splats, player.avatar.extent)
    before = buffer.array[:, 7].copy()
    params = FlameParams.zeros(1, head.n_shape, head.n_expression)
    array = buffer.pose(triangle_frames(player.vertices(params), head.faces))
    assert np.isfinite(array[:, 4:7].copy().view(np.float16)).all()
    assert (array[:, 7] == before).all()
    assert buffer.scale * HEAD_UNITS == pytest.approx(1.5)


def test_two_avatars_are_drawn_where_they_stand(folder, head):
    player = Library([folder / "first.ply"], head).open("first.ply")
    params = FlameParams.zeros(1, head.n_shape, head.n_expression)
    maps = triangle_maps(player.vertices(params), head.faces.T)[0]
    splats = grouped(player.avatar.splats.detach(), player.avatar.splats.face)
    ahead = torch.eye(3, 4)
    ahead[1, 3] = -1.7
    turned = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 1.7], [0, 0, 1, 0]])  # by 90 degrees, to +y
    bodies = [Body(splats, maps, ahead), Body(splats, maps, turned)]
    cameras, ground = Cameras.orbit(0.0, 5.0, 6.0, 40.0, 96, 192), torch.tensor([0.2, 0.9, 0.4])
    both = draw(bodies, cameras, ground).astype(int)
    for body, half in zip(bodies, (slice(0, 96), slice(96, 192)), strict=True):
        alone = draw([body], cameras, ground).astype(int)
        assert np.abs(both - alone)[:, half].max() <= 1
        assert (alone[:, half] != (ground * 255).round().int().numpy()).any(-1).mean() > 0.05
    # To turn and move the avatar is to do the opposite to the camera.
    moved = cameras.c2w.clone()
    moved[0, 0, :3] = turned[:, :3].T @ (cameras.c2w[0, 0, :3] - F.pad(turned[:, 3:], (3, 0)))
    seen = player.render(params, replace(cameras, c2w=moved), background=ground).rgb[0, 0]
    expected = (seen.numpy() * 255).round().astype(int)
    assert np.abs(draw([bodies[1]], cameras, ground) - expected).max() <= 2


def test_pictures_become_smaller_where_they_come_too_slowly_and_larger_again():
    draft = Draft()
    assert draft.height == TALLEST
    draft.took(0.08)
    assert draft.height == TALLEST
    for _ in range(3):
        draft.took(0.2)
    assert LEAST < draft.height < 0.75 * TALLEST
    for _ in range(20):
        draft.took(0.2)
    assert draft.height == LEAST
    draft.took(0.08)
    assert draft.height == LEAST  # fast enough, but not so fast that larger ones would be
    for _ in range(20):
        draft.took(0.02)
    assert draft.height == TALLEST


# --------------------------------------------------------------------------------- the sliders


def test_sliders_at_an_expression_are_that_expression(head):
    """The page's sliders and `headstudio animate --expression` mean the same."""
    rig = Rig(head)
    for name in ("big smile", "thinking", "jaw open"):
        expression = EXPRESSIONS[name]
        found = rig.params(Controls(actions=expression.actions, neck_deg=expression.turn))
        for key, expected in expression_pose(name, head).items():
            assert torch.allclose(getattr(found, key), expected, atol=1e-5), (name, key)


def test_every_action_of_the_head_has_a_slider_that_does_something(head):
    rig = Rig(head)
    names = [name for listed in rig.folders().values() for name in listed]
    assert sorted(names) == sorted(head.expression_names)
    rest = head(FlameParams.zeros(1, head.n_shape, head.n_expression))
    for name in names:
        moved = head(rig.params(Controls(actions={name: 1.0}))) - rest
        assert moved.norm(dim=-1).max() > 1e-4, name


def test_joints_and_identity_have_sliders(head):
    params = Rig(head).params(
        Controls(jaw_deg=(30, 0), neck_deg=(0, 90, 0), eyes_deg=(0, 10), identity=[0, 2.0])
    )
    assert params.jaw_pose[0, 0] == pytest.approx(math.radians(30))
    assert params.neck_pose[0, 1] == pytest.approx(math.pi / 2)
    assert torch.equal(params.leye_pose, params.reye_pose)
    assert params.shape.shape == (1, head.n_shape)
    assert params.shape[0, :3].tolist() == [0, 2, 0]


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """A head whose expressions have no names, with landmarks and without."""
    folder = tmp_path_factory.mktemp("heads")
    with np.load(find_asset(DEFAULT_HEAD)) as arrays:
        kept = {key: arrays[key] for key in arrays.files if key != "expression_names"}
    np.savez(folder / "landmarks.npz", **kept)
    bare = {key: array for key, array in kept.items() if not key.startswith("landmark_")}
    np.savez(folder / "bare.npz", **bare)
    return folder


def test_a_head_without_names_has_its_coefficients(nameless, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTUDIO_CACHE", str(tmp_path))
    bare = Rig(HeadModel.load(nameless / "bare.npz"))
    assert bare.folders() == {}
    params = bare.params(Controls(coefficients=[0.5, -1.0]))
    assert params.expression[0, :3].tolist() == [0.5, -1.0, 0.0]

    fitted = Rig(HeadModel.load(nameless / "landmarks.npz"))
    assert "smile left" in [n[5:].replace("L", " l").lower() for n in fitted.folders()["mouth"]]
    smiling = fitted.params(Controls(actions={"mouthSmileLeft": 1.0}))
    head = fitted.head
    rest = head(FlameParams.zeros(1, head.n_shape, head.n_expression))
    moved = (head.landmark_points(head(smiling)) - head.landmark_points(rest))[0]
    corner = head.landmarks.mediapipe_index.tolist().index(291)  # the left corner of the mouth
    assert moved[corner, 1] > 0.002  # goes up


def test_sliders_go_on_top_of_a_motion_and_end_at_one(head):
    moving = FlameParams.zeros(1, 300, 4)
    moving = moving.replace(expression=torch.tensor([[0.8, 1.2, 0.1, 0.0]]))
    still = FlameParams.zeros(1, 300, 4)
    still = still.replace(
        expression=torch.tensor([[0.5, 0.5, 0.5, 2.0]]), jaw_pose=torch.full((1, 3), 0.1)
    )
    both = combine(moving, still, n_actions=3)
    assert torch.allclose(both.expression, torch.tensor([[1.0, 1.2, 0.6, 2.0]]))
    assert torch.equal(both.jaw_pose, still.jaw_pose)


# -------------------------------------------------------------------------------- the playback


def motion(frames=31, fps=30.0):
    params = FlameParams.zeros(frames, 1, 1)
    return Motion(params.replace(jaw_pose=torch.arange(frames)[:, None] * torch.eye(3)[:1]), fps)


def test_a_motion_plays_loops_stops_and_is_scrubbed():
    playback = Playback()
    assert playback.params() is None
    with pytest.raises(HeadStudioError, match="choose a motion"):
        playback.play()
    playback.load(motion())
    assert playback.duration == pytest.approx(1.0)
    playback.play()
    playback.speed = 0.5
    playback.advance(0.9)
    assert playback.seconds == pytest.approx(0.45)
    playback.advance(1.3)
    assert playback.seconds == pytest.approx(0.1)
    assert playback.playing
    playback.loop = False
    playback.advance(10.0)
    assert (playback.seconds, playback.playing) == (playback.duration, False)
    playback.play()
    assert playback.seconds == 0
    playback.seek(0.5)
    assert not playback.playing
    assert playback.params().jaw_pose.norm() == pytest.approx(15 % (2 * math.pi), abs=1e-3)
    playback.seek(99.0)
    assert playback.seconds == playback.duration


def test_a_motion_of_one_frame_can_be_played():
    playback = Playback()
    playback.load(motion(frames=1))
    playback.play()
    playback.advance(0.1)
    assert (playback.seconds, playback.playing) == (0.0, False)
    assert playback.params().batch_size == 1


# ----------------------------------------------------------------------------------- the files


def test_avatars_beside_and_below_are_offered_and_nothing_else(folder, head, tmp_path):
    assert Library([folder / "first.ply"], head).names == ["first.ply"]
    below = Library([folder], head)
    assert below.names == ["first.ply", "runs/second.ply"]
    assert below.open("runs/second.ply").avatar.prompt == "the runs/second.ply"
    assert below.name_of(folder / "runs") == "runs/second.ply"
    assert not is_avatar(folder / "cloud.ply")
    with pytest.raises(HeadStudioError, match="does not exist"):
        Library([tmp_path / "nowhere.ply"], head)
    with pytest.raises(HeadStudioError, match="no avatar in"):
        Library([tmp_path], head).name_of(tmp_path)
    with pytest.raises(HeadStudioError, match="look for files again"):
        below.open("../../etc/passwd")


def test_new_files_are_found(folder, head, tmp_path):
    (tmp_path / "a.ply").write_bytes((folder / "first.ply").read_bytes())
    library = Library([tmp_path], head)
    (tmp_path / "b.ply").write_bytes((folder / "first.ply").read_bytes())
    assert library.names == ["a.ply"]
    assert library.refresh() == ["a.ply", "b.ply"]


def test_a_file_keeps_its_name_whatever_else_is_found(folder, head, tmp_path):
    content = (folder / "first.ply").read_bytes()
    for name in ("runs/a/x.ply", "other/y.ply"):
        (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / "runs/a/x.ply").write_bytes(content)
    library = Library([tmp_path], head)
    assert library.names == ["runs/a/x.ply"]
    (tmp_path / "other/y.ply").write_bytes(content)
    assert library.refresh() == ["other/y.ply", "runs/a/x.ply"]
    (tmp_path / "runs/a/x.ply").unlink()
    assert library.refresh() == ["other/y.ply"]


def test_of_two_places_the_names_are_told_apart(folder, head, tmp_path):
    for name in ("one/x.ply", "two/x.ply", "one/z.ply"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "first.ply", tmp_path / name)
    library = Library([tmp_path / "two/x.ply", tmp_path / "one"], head)
    assert library.names == ["two/x.ply", "one/x.ply", "one/z.ply"]


def test_a_folder_that_is_gone_is_not_replaced_by_the_one_above(folder, head, tmp_path):
    shutil.copy(folder / "first.ply", tmp_path / "above.ply")
    (tmp_path / "here").mkdir()
    shutil.copy(folder / "first.ply", tmp_path / "here")
    library = Library([tmp_path / "here"], head)
    shutil.rmtree(tmp_path / "here")
    assert library.refresh() == []


def test_other_files_do_not_crowd_out_avatars(folder, head, tmp_path, monkeypatch):
    for i in range(40):
        (tmp_path / f"frame_{i:02d}.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    for name in ("x.ply", "y.ply"):
        shutil.copy(folder / "first.ply", tmp_path / name)
    monkeypatch.setattr("headstudio.app.view.library.MAX_AVATARS", 3)
    library = Library([tmp_path], head)
    assert library.names == ["x.ply", "y.ply"]
    assert library.left_out == []
    monkeypatch.setattr("headstudio.app.view.library.MAX_AVATARS", 1)
    assert len(library.refresh()) == 1
    assert "1 are avatars; no others are listed" in library.left_out[0]


def test_that_not_all_files_were_looked_at_is_said(folder, head, tmp_path, monkeypatch, capsys):
    for i in range(12):
        (tmp_path / f"frame_{i:02d}.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    monkeypatch.setattr("headstudio.app.view.library.MAX_LOOKED_AT", 10)
    with pytest.raises(HeadStudioError, match=r"no avatar in .* than the 10 that were looked at"):
        Library([tmp_path], head).name_of(tmp_path)
    shutil.copy(folder / "first.ply", tmp_path / "first.ply")
    viewer, _ = open_viewer([tmp_path / "first.ply"], port=0)
    viewer.close()
    assert "Not all files are listed: There are more .ply files in" in capsys.readouterr().out


def test_a_file_is_sent_and_a_wrong_one_is_refused(folder, head, monkeypatch):
    library = Library([folder / "first.ply"], head)
    content = (folder / "runs/second.ply").read_bytes()
    name = library.add_upload("../../up/my face?.ply", content)
    assert name == "my_face_.ply (sent)"
    assert library.open(name).avatar.prompt == "the runs/second.ply"
    with pytest.raises(HeadStudioError, match=r"^x\.ply is not a") as caught:
        library.add_upload("x.ply", b"no avatar")
    assert "headstudio-view" not in str(caught.value)
    monkeypatch.setattr("headstudio.app.view.library.MAX_UPLOAD", 1000)
    with pytest.raises(HeadStudioError, match="at most"):
        library.add_upload("big.ply", bytes(1001))
    assert library.names == ["first.ply", name]
    place = library._files[name]
    library.close()
    assert not place.exists()


def test_files_that_are_sent_under_one_name_are_kept_side_by_side(folder, head):
    library = Library([folder / "first.ply"], head)
    names = [
        library.add_upload("avatar.ply", (folder / file).read_bytes())
        for file in ("first.ply", "runs/second.ply", "first.ply")
    ]
    with pytest.raises(HeadStudioError, match=r"^avatar\.ply is not a"):
        library.add_upload("avatar.ply", b"no avatar")
    assert names == ["avatar.ply (sent)", "avatar (2).ply (sent)", "avatar (3).ply (sent)"]
    assert sorted(library.refresh()) == sorted(["first.ply", *names])
    prompts = [library.open(name).avatar.prompt for name in names]
    assert prompts == ["the first.ply", "the runs/second.ply", "the first.ply"]


# ---------------------------------------------------------------------------------- the thread


@pytest.fixture
def viewer(folder: Path, tmp_path: Path) -> Iterator[Viewer]:
    """A viewer of a folder of its own, with no page open."""
    shutil.copy(folder / "first.ply", tmp_path / "first.ply")
    viewer, _ = open_viewer([tmp_path], port=0)
    yield viewer
    viewer.close()


def ask(viewer: Viewer, task: Callable[[], None]) -> None:
    """Have the thread do something, as a click on the page has; returns when it is done."""
    done: list[None] = []
    event = SimpleNamespace(client=None)
    viewer._do(event, task)
    viewer._do(event, lambda: done.append(None))
    until(lambda: bool(done))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_rest_is_no_part_of_what_begins_after_it(viewer, monkeypatch):
    advance, steps = viewer._advance, []

    def noted(elapsed: float) -> None:
        advance(elapsed)
        steps.append((viewer._playback.seconds, viewer._turn_deg))

    viewer.page.loop.value = False
    ask(viewer, lambda: None)
    monkeypatch.setattr(viewer, "_advance", noted)
    time.sleep(0.5)
    viewer.page.motion.value = "anger"
    ask(viewer, viewer._choose_motion)
    until(lambda: bool(steps))
    assert steps[0][0] == 0
    until(lambda: steps[-1][0] > 0)
    ask(viewer, lambda: viewer._seek(1.0))
    time.sleep(0.5)
    steps.clear()
    viewer.page.turntable.value = True
    until(lambda: bool(steps))
    assert steps[0] == (1.0, 0.0)
    until(lambda: steps[-1][1] > 0)


def test_when_all_avatars_are_gone_it_says_so_and_goes_on(viewer, tmp_path, capsys):
    (tmp_path / "first.ply").unlink()
    ask(viewer, lambda: viewer._refresh(None))
    assert f"there is no avatar in {tmp_path} any more" in capsys.readouterr().out
    assert viewer.page.avatar.value == "first.ply"
    assert viewer.page.avatar.options == ("first.ply",)
    assert viewer.page.compare.options == ("none",)
    assert viewer.figures["first"].player.avatar.prompt == "the first.ply"


def test_the_list_goes_on_naming_the_avatar_that_is_shown(viewer, folder, tmp_path):
    shutil.copy(folder / "first.ply", tmp_path / "another.ply")
    ask(viewer, lambda: viewer._refresh(None))
    assert viewer.page.avatar.options == ("another.ply", "first.ply")
    assert viewer.page.avatar.value == "first.ply"
    (tmp_path / "first.ply").unlink()
    ask(viewer, lambda: viewer._refresh(None))
    assert viewer.page.avatar.options == ("another.ply", "first.ply")
    assert viewer.page.avatar.value == "first.ply"


def test_no_error_ends_the_thread(viewer, capsys):
    def broken() -> None:
        raise KeyError("nobody expects this")

    ask(viewer, broken)
    ask(viewer, lambda: None)
    said = capsys.readouterr()
    assert "That did not work: KeyError: 'nobody expects this'" in said.out
    assert "Traceback" in said.err


# ---------------------------------------------------------------------------------- the server


def test_the_server_stays_where_it_is_put(capsys):
    server = Server("127.0.0.1", 0, "test")
    try:
        assert server.url == f"http://127.0.0.1:{server.get_port()}"
        assert server.request_share_url() is None
        with pytest.raises(HeadStudioError, match="is taken"):
            Server("127.0.0.1", server.get_port(), "test")
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", server.get_port()))
    finally:
        server.close()
    assert capsys.readouterr().out == ""
    with pytest.raises(HeadStudioError, match="--host"):
        Server("no such host.invalid", 0, "test")
    with pytest.raises(HeadStudioError, match="cannot listen at 192"):
        Server("192.0.2.1", 0, "test")  # an address for documentation, nobody's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.ply"], "does not exist"),
        (["."], "no avatar in"),
        (["{avatar}", "--compare", "nowhere.ply"], "does not exist"),
        (["{avatar}", "--motion", "nowhere.npz"], "nowhere.npz"),
        (["{avatar}", "--head", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_what_is_missing_is_said_before_a_page_is_opened(
    arguments, message, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("a browser was opened"))
    given = [argument.format(avatar=folder / "first.ply") for argument in arguments]
    assert app.main(["view", *given, "--port", "0"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_a_port_is_a_number(port, capsys):
    with pytest.raises(SystemExit):
        app.main(["view", "a.ply", "--port", port])
    assert "0 to 65535" in capsys.readouterr().err
