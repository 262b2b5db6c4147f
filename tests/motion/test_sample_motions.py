"""The motions in ``load/motion/``, on the open head: right place, right direction, right time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import ARKIT_NAMES, Motion, for_head, from_arkit, load_motion
from headstudio.paths import find_asset
from tools import make_motions

NAMES = sorted(make_motions.TAKES)


@pytest.fixture(scope="module")
def open_head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


def shipped(name: str) -> Motion:
    return load_motion(find_asset(f"motion/{name}.npz"))


def curve(motion: Motion, action: str) -> np.ndarray:
    return motion.params.expression[:, motion.expression_names.index(action)].numpy()


def test_arkit_has_52_actions(open_head: HeadModel) -> None:
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    assert set(open_head.expression_names) == set(ARKIT_NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_the_tool_makes(name: str, open_head: HeadModel) -> None:
    made, file = make_motions.TAKES[name]().motion(open_head, name), shipped(name)
    assert (file.name, file.fps) == (name, made.fps)
    for (field, a), (_, b) in zip(
        made.params.expand().items(), file.params.expand().items(), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=field)


@pytest.mark.parametrize("name", NAMES)
def test_begins_and_ends_at_rest_and_moves_smoothly(name: str, open_head: HeadModel) -> None:
    motion = for_head(shipped(name), open_head)
    assert 2 <= motion.duration <= 7
    vertices = open_head(motion.params)
    rest = open_head.neutral()
    assert float((vertices[[0, -1]] - rest).norm(dim=-1).max()) < 4e-3
    # The fastest is the back of the turning head, at 130 degrees a second.
    assert float(vertices.diff(dim=0).norm(dim=-1).max()) < 15e-3
    assert float(motion.params.expression.min()) >= 0
    assert float(motion.params.expression.max()) <= 1


def test_talk_opens_the_jaw_at_the_rate_of_syllables() -> None:
    motion = shipped("talk")
    jaw = motion.params.jaw_pose[:, 0].numpy()
    assert 0.15 < jaw.max() < 0.35
    peaks, _ = find_peaks(jaw, prominence=0.015)
    assert len(peaks) >= 15
    assert 3 <= motion.fps / np.median(np.diff(peaks)) <= 5
    assert jaw.min() > -1e-6
    # Lips close for m and b.
    assert curve(motion, "mouthPressLeft").max() > 0.2
    assert curve(motion, "mouthPucker").max() > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_people_blink_every_few_seconds(name: str) -> None:
    motion = shipped(name)
    lids = curve(motion, "eyeBlinkLeft")
    blinks, _ = find_peaks(lids, height=0.9)
    assert len(blinks) >= 1
    gaps = np.diff([0, *blinks, len(lids)]) / motion.fps
    assert gaps.max() <= 4.0


def test_lids_close_over_the_eyes(open_head: HeadModel) -> None:
    motion = shipped("blink")
    frame = int(curve(motion, "eyeBlinkLeft").argmax())
    iris = open_head.faces[open_head.region_mask("iris", "pupil")].unique()
    lids = open_head.faces[open_head.region_mask("eyelids")].unique()
    open_lids, shut_lids = open_head.neutral()[lids], open_head(motion.params[frame])[0][lids]
    moved = (shut_lids - open_lids)[:, 1]
    assert float(moved.min()) < -5e-3  # an upper lid goes down
    centre = open_head.neutral()[iris][:, 1].mean()
    crossed = (open_lids[:, 1] > centre + 2e-3) & (shut_lids[:, 1] < centre)
    assert bool(crossed.any())


def one_frame(open_head: HeadModel, **actions: float) -> FlameParams:
    curves = {action: np.array([value]) for action, value in actions.items()}
    return from_arkit(curves, 30, open_head.expression_names).params


def test_the_jaw_opens_downward(open_head: HeadModel) -> None:
    params = one_frame(open_head, jawOpen=1.0)
    assert not params.expression.any()
    lips = open_head.faces[open_head.region_mask("lips")].unique()
    fall = (open_head(params)[0] - open_head.neutral())[lips, 1]
    upper = open_head.lbs_weights[lips, 2] < 0.01
    assert float(fall.min()) < -0.02
    assert float(fall[upper].abs().max()) < 1e-3
    by_expression = from_arkit(
        {"jawOpen": np.ones(1)}, 30, open_head.expression_names, jaw_joint=False
    ).params
    assert float(by_expression.expression.max()) == 1
    assert not by_expression.jaw_pose.any()


@pytest.mark.parametrize(
    ("actions", "axis", "sign"),
    [
        ({"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, 0, +1),  # the subject's left is +x
        ({"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0}, 0, -1),
        ({"eyeLookUpLeft": 1.0, "eyeLookUpRight": 1.0}, 1, +1),
        ({"eyeLookDownLeft": 1.0, "eyeLookDownRight": 1.0}, 1, -1),
    ],
)
def test_pupils_go_where_the_gaze_goes(
    actions: dict[str, float], axis: int, sign: int, open_head: HeadModel
) -> None:
    pupil = open_head.faces[open_head.region_mask("pupil")].unique()
    moved = (open_head(one_frame(open_head, **actions))[0] - open_head.neutral())[pupil]
    for left in (True, False):
        side = moved[(open_head.neutral()[pupil, 0] > 0) == left]
        assert float(sign * side[:, axis].mean()) > 2e-3
        assert abs(float(side[:, 1 - axis].mean())) < 1e-3


def test_look_around_moves_the_eyes_before_the_head() -> None:
    motion = shipped("look_around")
    eyes, neck = motion.params.leye_pose[:, 1].numpy(), motion.params.neck_pose[:, 1].numpy()
    first = {"eyes": np.argmax(np.abs(eyes) > 0.1), "neck": np.argmax(np.abs(neck) > 0.1)}
    assert 0 < first["eyes"] < first["neck"]
    assert np.abs(neck).max() > 0.3
    assert np.abs(eyes).max() <= 0.45 + 1e-6
    assert neck.max() > 0.2
    assert neck.min() < -0.2


def test_curves_are_checked(open_head: HeadModel) -> None:
    names = open_head.expression_names
    with pytest.raises(HeadStudioError, match="'jawopen' is not an ARKit action; did you mean jaw"):
        from_arkit({"jawopen": np.zeros(3)}, 30, names)
    with pytest.raises(HeadStudioError, match="one value a frame"):
        from_arkit({"jawOpen": np.zeros(3), "cheekPuff": np.zeros(4)}, 30, names)
    with pytest.raises(HeadStudioError, match="no expression named 'cheekPuff'"):
        from_arkit({"cheekPuff": np.ones(3)}, 30, ["jawOpen"])
