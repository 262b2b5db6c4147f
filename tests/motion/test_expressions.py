"""Faces in words, and timelines of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import (
    ARKIT_NAMES,
    EXPRESSIONS,
    Motion,
    expression_pose,
    for_head,
    parse_face,
    parse_script,
    script_motion,
)
from headstudio.motion.arkit import JAW_ANGLE
from headstudio.motion.expression_table import ALIASES
from headstudio.motion.expressions import find_expression
from headstudio.motion.root import place_root
from headstudio.motion.script import TRANSITION
from headstudio.paths import find_asset


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


def curve(motion: Motion, action: str) -> np.ndarray:
    column = motion.expression_names.index(action)
    return motion.params.expand().expression[:, column].numpy()


def plain(text: str, **options) -> Motion:
    return script_motion(text, **{"blinking": False, "sway_amount": 0.0, **options})


def test_the_table_holds_only_actions_that_exist_and_names_nothing_twice():
    for name, expression in EXPRESSIONS.items():
        assert expression.name == name == name.lower()
        assert set(expression.actions) <= set(ARKIT_NAMES), name
        assert all(0 < value <= 1 for value in expression.actions.values()), name
    aliases = [alias for e in EXPRESSIONS.values() for alias in e.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(EXPRESSIONS)
    assert set(ALIASES) == set(aliases)
    faces = {repr((sorted(e.actions.items()), e.turn, e.gesture)) for e in EXPRESSIONS.values()}
    assert len(faces) == len(EXPRESSIONS)  # no two are the same face


def test_left_and_right_are_mirror_images():
    for name in (name for name in EXPRESSIONS if "left" in name.split()):
        other = EXPRESSIONS[name.replace("left", "right")]
        mirrored = {}
        for action, value in EXPRESSIONS[name].actions.items():
            swapped = action.replace("Left", "·").replace("Right", "Left").replace("·", "Right")
            mirrored[swapped] = value
        assert mirrored == dict(other.actions), name
        down, left, right = EXPRESSIONS[name].turn
        assert (down, -left, -right) == other.turn, name


@pytest.mark.parametrize("name", ["left wink", "LEFT_WINK", "wink-left", "  Left   Wink "])
def test_names_are_found_however_they_are_written(name):
    assert find_expression(name).name == "left wink"


def test_arkit_actions_are_names_too():
    assert find_expression("browinnerup").actions == {"browInnerUp": 1.0}
    assert parse_face("mouthSmileLeft 0.3").actions == {"mouthSmileLeft": 0.3}


def test_a_face_is_the_scaled_sum_of_its_parts():
    smile, wink = EXPRESSIONS["smile"].actions, EXPRESSIONS["left wink"].actions
    face = parse_face("smile 0.8, left wink 50%")
    assert face == parse_face("smile 80% + left wink .5")
    for action in {*smile, *wink} - {"eyeSquintLeft"}:
        expected = 0.8 * smile.get(action, 0) + 0.5 * wink.get(action, 0)
        assert face.actions[action] == pytest.approx(min(1, expected))
    # What is half closed is half as narrowed.
    assert face.actions["eyeSquintLeft"] == pytest.approx(0.5 * 0.8 * smile["eyeSquintLeft"])
    assert parse_face("jaw open + yawn").actions["jawOpen"] == 1.0
    assert parse_face("wide eyes, blink").actions["eyeWideLeft"] == 0.0
    assert parse_face("turn left, head down 0.5").turn == pytest.approx(
        (math.radians(7.5), math.radians(25), 0)
    )


def test_a_timeline_has_steps_with_durations():
    steps = parse_script("smile 0.5 1s, surprised + nod 250ms, neutral")
    assert [step.seconds for step in steps] == [1.0, 0.25, 1.0]
    assert steps[0].face == parse_face("smile 0.5")
    assert steps[1].face == parse_face("surprised, nod")
    assert parse_script("smile 2 seconds")[0].seconds == 2.0
    assert parse_script("smile, sad")[0].seconds is None  # no duration: one face


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smlie", "did you mean 'smile'"),
        ("left wnk 1s, smile", "did you mean 'left wink'"),
        ("jawOpn", "did you mean .*'jawOpen'"),
        ("xyzzy", "no expression 'xyzzy'"),
        ("smile 2", "from 0 to 1"),
        ("smile -0.5", "from 0 to 1"),
        ("smile 150%", "from 0 to 1"),
        ("smile 0.5 0.6", "more than one intensity"),
        ("smile 1s 2s", "two durations"),
        ("smile 0s", "lasts 0 s"),
        ("smile -1s", "lasts -1 s"),
        ("smile 1s, sad -250ms", "lasts -0.25 s"),
        ("smile 4000s", "lasts 4000 s"),
        ("", "part without an expression"),
        ("smile,,sad", "part without an expression"),
        ("0.7", "part without an expression"),
        ("smile 3000s, sad 3000s", "longer than 3600 s"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(HeadStudioError, match=message):
        script_motion(text)


def test_a_timeline_is_no_face(head):
    with pytest.raises(HeadStudioError, match="is a timeline"):
        expression_pose("smile 1s", head)


def test_a_timeline_eases_from_face_to_face():
    motion = plain("smile 1s, neutral 1s", fps=50)
    smile = curve(motion, "mouthSmileLeft")
    full = EXPRESSIONS["smile"].actions["mouthSmileLeft"]
    assert len(motion) == 100
    assert smile[0] == 0
    reached = math.ceil(TRANSITION * 50)
    np.testing.assert_allclose(smile[reached:50], full, rtol=1e-6)
    np.testing.assert_allclose(smile[50 + reached :], 0, atol=1e-6)
    half = smile[round(TRANSITION * 50 / 2)]
    assert half == pytest.approx(full * 0.5, abs=0.05 * full)
    # Slope is bounded by smoothstep's, 1.5 times the mean, and there are no jumps between steps.
    assert np.abs(np.diff(smile)).max() <= 1.5 * full / (TRANSITION * 50) + 1e-6
    assert np.all(np.diff(smile[: reached + 1]) >= 0)


def test_a_timeline_of_one_step_begins_neutral_too():
    alone, first = (plain(text, fps=50) for text in ("smile 1s", "smile 1s, smile 1s"))
    assert curve(alone, "mouthSmileLeft")[0] == 0
    torch.testing.assert_close(alone.params.expression, first.params.expression[:50])


def test_a_single_face_is_there_from_first_to_last(head):
    motion = plain("smile 0.5, jaw open", seconds=1.5, fps=24)
    assert len(motion) == 36
    smile = curve(motion, "mouthSmileRight")
    np.testing.assert_allclose(smile, 0.5 * EXPRESSIONS["smile"].actions["mouthSmileRight"])
    posed = for_head(motion, head).params[0:1]
    still = expression_pose("smile 0.5, jaw open", head)
    for name, value in still.items():
        torch.testing.assert_close(getattr(posed, name).expand_as(value), value)
    assert float(still.jaw_pose[0, 0]) == pytest.approx(0.8 * JAW_ANGLE)


def test_a_nod_goes_down_and_comes_back():
    neck = plain("nod 1.25s, shake 2s").params.neck_pose.numpy()
    nod, shake = neck[:37], neck[38:]
    assert nod[:, 0].min() >= 0
    assert nod[:, 0].max() == pytest.approx(math.radians(11), rel=0.05)
    assert np.abs(nod[:, 1:]).max() == 0
    downs = np.sum((nod[1:-1, 0] > nod[:-2, 0]) & (nod[1:-1, 0] >= nod[2:, 0]))
    assert downs == 2  # 1.6 a second in 1.25 s
    assert shake[:, 1].max() == pytest.approx(-shake[:, 1].min(), rel=0.1)
    assert np.abs(neck[[0, 37]]).max() < 1e-3  # at rest where a step begins and ends


def test_what_is_added_is_decided_by_the_seed_alone():
    text = "smile 3s, neutral 5s"
    a, b, c = script_motion(text, seed=1), script_motion(text, seed=1), script_motion(text, seed=2)
    for (name, left), (_, right) in zip(a.params.items(), b.params.items(), strict=True):
        assert torch.equal(left, right), name
    assert not torch.equal(a.params.neck_pose, c.params.neck_pose)
    assert not torch.equal(a.params.expression, c.params.expression)
    # At twice the frame rate the same movement, seen more often.
    fast = script_motion(text, seed=1, fps=60)
    torch.testing.assert_close(fast.params.expression[::2], a.params.expression)
    torch.testing.assert_close(fast.params.neck_pose[::2], a.params.neck_pose)


def test_a_living_face_blinks_as_often_as_people_do_and_only_then():
    motion = script_motion("neutral 120s", seed=3)
    closed = curve(motion, "eyeBlinkLeft")
    starts = np.sum((closed[1:] > 0.5) & (closed[:-1] <= 0.5))
    assert 20 <= starts <= 60  # 10 to 30 a minute
    assert closed.max() > 0.95
    # At rest at both ends, but for the lids' following the eyes a little.
    assert max(closed[:10].max(), closed[-1]) < 0.02
    sway = motion.params.neck_pose.abs().amax(0)
    assert torch.all(sway > math.radians(0.2))
    assert torch.all(sway < math.radians(3))
    assert float(motion.params.neck_pose[0].abs().max()) == 0
    assert float(plain("neutral 120s").params.expression.abs().max()) == 0


def test_eyes_hold_on_to_what_they_look_at_while_the_head_sways(head):
    motion = for_head(script_motion("neutral 30s", seed=0), head)
    yaw, eye = motion.params.neck_pose[:, 1], motion.params.leye_pose[:, 1]
    correlation = np.corrcoef(yaw.numpy(), eye.numpy())[0, 1]
    assert correlation < -0.4


def test_faces_move_the_mouth_lids_and_eyes_they_speak_of(head):
    def moved(text: str, region: str) -> float:
        params = expression_pose(text, head)
        shift = (head(params) - head.neutral()).norm(dim=-1)[0]
        faces = head.faces[head.region_mask(region)]
        return float(shift[faces.unique()].max())

    assert moved("jaw open", "lips") > 0.008  # metres
    assert moved("jaw open", "brows") < 0.001
    assert moved("blink", "eyelids") > 0.004
    assert moved("raised brows", "brows") > 3 * moved("raised brows", "lips")
    assert moved("look left", "iris") > 0.003
    assert moved("tongue out", "tongue") > moved("jaw open", "tongue")


def test_a_head_that_names_no_actions_makes_the_same_faces(head, tmp_path, monkeypatch):
    """As FLAME, whose expressions have no names, and to which the actions are fitted."""
    monkeypatch.setenv("HEADSTUDIO_CACHE", str(tmp_path))
    with np.load(find_asset("flame/open_head.npz")) as arrays:
        np.savez(
            tmp_path / "nameless.npz",
            **{key: arrays[key] for key in arrays.files if key != "expression_names"},
        )
    nameless = HeadModel.load(tmp_path / "nameless.npz")
    assert nameless.expression_names == []
    for text in ("smile", "surprised", "left wink, turn right", "jaw open, look left"):
        face = nameless(expression_pose(text, nameless))
        expected = head(expression_pose(text, head))
        moved = (expected - head.neutral()).norm(dim=-1).max()
        assert float((face - expected).norm(dim=-1).max()) < 0.1 * float(moved), text
    motion = for_head(script_motion("smile 1s, neutral 1s", seed=1), nameless)
    assert float(motion.params.expression.abs().max()) > 0.3


def test_the_root_is_centred_kept_or_still():
    from scipy.spatial.transform import Rotation

    g = np.random.default_rng(0)
    wobble = Rotation.from_rotvec(0.2 * g.normal(size=(40, 3)))
    upside_down = Rotation.from_euler("xyz", [3.0, 0.3, 0.1])
    shift = np.array([1.0, -2.0, 3.0]) + 0.1 * g.normal(size=(40, 3))
    params = FlameParams.zeros(40).replace(
        global_orient=torch.from_numpy((upside_down * wobble).as_rotvec()).float(),
        translation=torch.from_numpy(shift).float(),
    )
    motion = Motion(params, 30.0, "tracked")
    centred = place_root(motion).params
    mean = Rotation.from_rotvec(centred.global_orient.numpy()).mean().magnitude()
    assert mean < 1e-3
    torch.testing.assert_close(centred.translation.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    # The movement itself is that of before, seen from elsewhere.
    before = motion.params.translation
    torch.testing.assert_close(
        (centred.translation[1:] - centred.translation[:-1]).norm(dim=1),
        (before[1:] - before[:-1]).norm(dim=1),
    )
    assert place_root(motion, "kept") is motion
    still = place_root(motion, "still").params
    assert float(still.global_orient.abs().max()) == float(still.translation.abs().max()) == 0
    with pytest.raises(HeadStudioError, match="root is 'middle'"):
        place_root(motion, "middle")
    nothing = place_root(Motion(FlameParams.zeros(5), 30.0)).params
    assert float(nothing.global_orient.abs().max()) == 0


@pytest.mark.parametrize("how", ["centred", "kept", "still"])
def test_a_motion_of_the_root_alone_keeps_its_frames(how):
    moving = torch.linspace(0, 1, 9)[:, None].expand(9, 3)
    params = FlameParams.zeros(1).replace(global_orient=moving, translation=moving)
    assert len(place_root(Motion(params, 30.0), how)) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 1e9}, "from 0.001 to 100000"),
        ({"fps": 1e5, "seconds": 3.0}, "300000 frames; a motion has at most 200000"),
        ({"sway_amount": -1.0}, "sway_amount is -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_memory_is_taken(options, message):
    with pytest.raises(HeadStudioError, match=message):
        plain("smile", **options)
