"""ARKit's actions on heads that do not name them.

FLAME may not be passed on, so a head is made whose right answers are known: the open head, larger,
with its actions hidden in a basis of principal components, as a FLAME's expressions are, and
without those that FLAME does by joints (jawOpen, eyeLook…).
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from headstudio.flame import FlameParams, HeadModel
from headstudio.flame.files import read_head
from headstudio.motion import (
    ARKIT_NAMES,
    FLAME_NAMES,
    Motion,
    actions,
    arkit_actions,
    for_head,
    load_motion,
)
from headstudio.motion.action_cache import cache_file
from headstudio.motion.actions import (
    _landmark_model,
    common_landmarks,
    fit,
    posed_landmarks,
)
from headstudio.motion.retarget import actions_of
from headstudio.paths import find_asset

SCALE = 1.12
BY_JOINT = [name for name in ARKIT_NAMES if name.startswith(("eyeLook", "jawOpen"))]
BY_EXPRESSION = [name for name in ARKIT_NAMES if name not in BY_JOINT]


@pytest.fixture(scope="module")
def open_head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


@pytest.fixture(scope="module")
def disguised() -> tuple[HeadModel, torch.Tensor]:
    """The head, and the coefficients [41, 100] that are the right answers."""
    arrays = read_head(find_asset("flame/open_head.npz"))
    columns = [arrays.expression_names.index(name) for name in BY_EXPRESSION]
    moves = arrays.shapedirs[:, :, 300:][:, :, columns].astype(np.float64)
    u, s, vt = np.linalg.svd(moves.reshape(-1, len(columns)), full_matrices=False)
    deviation = 0.4  # of an action's strength, so that a coefficient of 1 is usual
    shapedirs = np.zeros_like(arrays.shapedirs)
    shapedirs[:, :, 300 : 300 + len(s)] = (SCALE * deviation * u * s).reshape(*moves.shape[:2], -1)
    answers = np.zeros((len(columns), 100))
    answers[:, : len(s)] = vt.T / deviation
    head = dataclasses.replace(
        arrays,
        v_template=(SCALE * arrays.v_template).astype(np.float32),
        shapedirs=shapedirs,
        expression_names=[],
        name="disguised",
    )
    return HeadModel(head), torch.from_numpy(answers).float()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTUDIO_CACHE", str(tmp_path))
    return tmp_path


def row(name: str) -> int:
    return ARKIT_NAMES.index(name)


def test_on_the_open_head_they_are_its_own(open_head: HeadModel) -> None:
    own = arkit_actions(open_head)
    assert own.own
    params = own.pose(torch.eye(52))
    for i, name in enumerate(ARKIT_NAMES):
        column = open_head.expression_names.index(name)
        assert params.expression[i].nonzero().flatten().tolist() == [column]
    assert not params.jaw_pose.any()
    assert not own.residual.any()


def test_they_are_on_the_cpu_wherever_the_head_is(
    open_head: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeTensorMode():
        moved = torch.zeros(52, 4, 3, device="cuda")  # needs none
        monkeypatch.setattr(actions, "landmark_movements", lambda head, index: moved)
        own = vars(arkit_actions(open_head)).values()
    assert {value.device.type for value in own if isinstance(value, torch.Tensor)} == {"cpu"}


@pytest.fixture(scope="module")
def fitted(disguised: tuple[HeadModel, torch.Tensor], open_head: HeadModel) -> actions.Actions:
    return fit(disguised[0], open_head)


class TestFit:
    def test_vertices_move_as_they_should(
        self,
        fitted: actions.Actions,
        disguised: tuple[HeadModel, torch.Tensor],
        open_head: HeadModel,
    ) -> None:
        # Not the landmarks, which were fitted, but every vertex of the face.
        head, _ = disguised
        strengths = torch.zeros(len(BY_EXPRESSION), 52)
        strengths[range(len(BY_EXPRESSION)), [row(name) for name in BY_EXPRESSION]] = 1
        moved = head(fitted.pose(strengths)) - head.neutral()
        wanted = SCALE * (open_head(arkit_actions(open_head).pose(strengths)) - open_head.neutral())
        for i, name in enumerate(BY_EXPRESSION):
            if name == "tongueOut":
                continue
            missed = (moved[i] - wanted[i]).square().sum() / wanted[i].square().sum()
            # Cheeks and nose have few landmarks: there the prior holds back.
            limit = 0.35 if name.startswith(("cheek", "nose")) else 0.15
            assert missed < limit, (name, float(missed))

    def test_coefficients_are_those_that_were_hidden(
        self, fitted: actions.Actions, disguised: tuple[HeadModel, torch.Tensor]
    ) -> None:
        for i, name in enumerate(BY_EXPRESSION):
            if name.startswith(("mouthSmile", "eyeBlink", "brow", "mouthPucker", "jaw")):
                found, right = fitted.expression[row(name)], disguised[1][i]
                assert torch.cosine_similarity(found, right, dim=0) > 0.85, name

    def test_joints_do_what_the_expression_cannot(self, fitted: actions.Actions) -> None:
        degrees = torch.rad2deg
        jaw = degrees(fitted.jaw_pose[row("jawOpen")])
        assert 15 < jaw[0] < 30
        assert jaw[1:].abs().max() < 1
        for side, pose in (("Left", fitted.leye_pose), ("Right", fitted.reye_pose)):
            outwards = 1 if side == "Left" else -1
            assert degrees(pose[row(f"eyeLookOut{side}")])[1] * outwards > 15
            assert degrees(pose[row(f"eyeLookIn{side}")])[1] * outwards < -15
            assert degrees(pose[row(f"eyeLookDown{side}")])[0] > 10
            assert degrees(pose[row(f"eyeLookUp{side}")])[0] < -5
        other = [i for i, name in enumerate(ARKIT_NAMES) if not name.startswith(("jaw", "eyeLook"))]
        assert degrees(fitted.jaw_pose[other]).abs().max() < 2
        assert degrees(fitted.leye_pose[other]).abs().max() < 2

    def test_what_no_landmark_shows_stays_at_rest(self, fitted: actions.Actions) -> None:
        tongue = row("tongueOut")
        assert not fitted.seen[tongue]
        assert not fitted.expression[tongue].any()
        assert fitted.explained[tongue] == 0

    def test_the_residual_is_what_is_left(
        self,
        fitted: actions.Actions,
        disguised: tuple[HeadModel, torch.Tensor],
        open_head: HeadModel,
    ) -> None:
        head, _ = disguised
        index = common_landmarks(head, open_head)
        params = fitted.pose(torch.eye(52))
        own = arkit_actions(open_head).pose(torch.eye(52))
        rest = FlameParams.zeros(1)
        moved = posed_landmarks(head, params, index) - posed_landmarks(head, rest, index)
        wanted = SCALE * (
            posed_landmarks(open_head, own, index) - posed_landmarks(open_head, rest, index)
        )
        left = (moved - wanted).square().sum(-1).mean(-1).sqrt()
        torch.testing.assert_close(fitted.residual, left, atol=2e-6, rtol=1e-3)
        torch.testing.assert_close(fitted.target, wanted.norm(dim=-1).amax(-1), atol=2e-6, rtol=0)
        seen = fitted.seen
        assert fitted.explained[seen].min() > 0.8
        assert fitted.explained[seen].median() > 0.98

    def test_the_head_of_landmarks_alone_poses_as_the_whole(
        self, disguised: tuple[HeadModel, torch.Tensor], open_head: HeadModel
    ) -> None:
        head, _ = disguised
        index = common_landmarks(head, open_head)
        generator = torch.Generator().manual_seed(0)
        params = FlameParams(
            **{
                name: 0.3 * torch.randn(3, value.shape[1], generator=generator)
                for name, value in FlameParams.zeros(3).items()
            }
        )
        small = _landmark_model(head, index)
        assert len(small.v_template) < 500
        difference = posed_landmarks(small, params, index) - posed_landmarks(head, params, index)
        assert difference.abs().max() < 1e-6


class TestCache:
    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Grows by one at every fit, which is replaced by nothing but the time it takes."""
        from headstudio.motion import action_cache

        calls: list[int] = []

        def fit(head: HeadModel, pattern: HeadModel) -> actions.Actions:
            calls.append(1)
            numbers = torch.arange(52.0)
            three = torch.ones(52, 3)
            return actions.Actions(
                torch.ones(52, head.n_expression), three, three, three, numbers, numbers, numbers,
                own=False,
            )  # fmt: skip

        monkeypatch.setattr(action_cache, "fit", fit)
        return calls

    def test_a_head_is_fitted_once(
        self, disguised: tuple[HeadModel, torch.Tensor], cache: Path, counted: list[int]
    ) -> None:
        first, again = arkit_actions(disguised[0]), arkit_actions(disguised[0])
        assert len(counted) == 1
        assert torch.equal(first.residual, again.residual)
        assert torch.equal(first.expression, again.expression)
        assert [path.suffix for path in (cache / "arkit").iterdir()] == [".npz"]

    def test_another_head_is_another_fit(
        self, disguised: tuple[HeadModel, torch.Tensor], open_head: HeadModel
    ) -> None:
        head, _ = disguised
        name = cache_file(head, open_head)
        assert cache_file(open_head, head) != name
        moved = HeadModel.__new__(HeadModel)
        moved.__dict__.update(head.__dict__)
        moved.__dict__["_buffers"] = dict(head._buffers)
        moved.register_buffer(
            "_landmark_barycentric", head.landmarks.barycentric.roll(1, 0), persistent=False
        )
        assert cache_file(moved, open_head) != name

    @pytest.mark.parametrize("damage", ["cut off", "nothing", "another shape", "nan", "objects"])
    def test_damaged_files_are_made_again(
        self,
        damage: str,
        disguised: tuple[HeadModel, torch.Tensor],
        open_head: HeadModel,
        counted: list[int],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        head, _ = disguised
        arkit_actions(head)
        path = cache_file(head, open_head)
        arrays = dict(np.load(path))
        if damage == "cut off":
            path.write_bytes(path.read_bytes()[:-200])
        elif damage == "nothing":
            path.write_bytes(b"")
        else:
            replaced = {
                "another shape": np.zeros((51, 3), np.float32),
                "nan": np.full((52, 3), np.nan, np.float32),
                "objects": np.array([{}], dtype=object),
            }
            np.savez(path, **{**arrays, "jaw_pose": replaced[damage]})
        assert torch.equal(arkit_actions(head).jaw_pose, torch.ones(52, 3))
        assert len(counted) == 2
        assert "fitted again" in caplog.text
        arkit_actions(head)
        assert len(counted) == 2

    def test_a_folder_that_cannot_be_written_costs_time_only(
        self,
        disguised: tuple[HeadModel, torch.Tensor],
        counted: list[int],
        cache: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (cache / "arkit").write_text("a file where the folder should be")
        arkit_actions(disguised[0])
        arkit_actions(disguised[0])
        assert len(counted) == 2
        assert "could not be kept" in caplog.text


class TestForHead:
    def test_a_sample_motion_plays_on_a_head_without_names(
        self, disguised: tuple[HeadModel, torch.Tensor], open_head: HeadModel
    ) -> None:
        head, _ = disguised
        motion = load_motion(find_asset("motion/smile.npz"))
        theirs = for_head(motion, head)
        assert theirs.expression_names == []
        index = common_landmarks(head, open_head)
        rest = FlameParams.zeros(1)
        moved = posed_landmarks(head, theirs.params, index) - posed_landmarks(head, rest, index)
        ours = for_head(motion, open_head).params
        wanted = posed_landmarks(open_head, ours, index) - posed_landmarks(open_head, rest, index)
        missed = (moved - SCALE * wanted).square().sum() / (SCALE * wanted).square().sum()
        assert missed < 0.03

    def test_jaw_and_eyes_of_named_actions_reach_the_joints(
        self, disguised: tuple[HeadModel, torch.Tensor]
    ) -> None:
        strengths = FlameParams.zeros(1, n_expression=52).replace(expression=torch.eye(52))
        params = for_head(Motion(strengths, 30, "all", list(ARKIT_NAMES)), disguised[0]).params
        assert params.jaw_pose[row("jawOpen"), 0] > 0.25
        assert params.reye_pose[row("eyeLookOutRight"), 1] < -0.25

    def test_flame_coefficients_mean_nothing_to_a_head_with_names(
        self, open_head: HeadModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        params = FlameParams.zeros(5)
        tracked = params.replace(
            expression=torch.full((5, 100), 3.0), jaw_pose=torch.full((5, 3), 0.1)
        )
        motion = for_head(Motion(tracked, 30, "clip", list(FLAME_NAMES)), open_head)
        assert not motion.params.expression.any()
        assert motion.params.jaw_pose.any()
        assert len(motion) == 5
        assert "Give the FLAME file" in caplog.text
        caplog.clear()
        for_head(Motion(params, 30, "still", list(FLAME_NAMES)), open_head)
        assert not caplog.records

    def test_flame_coefficients_are_flames_own(
        self, disguised: tuple[HeadModel, torch.Tensor], open_head: HeadModel
    ) -> None:
        tracked = FlameParams.zeros(1).replace(expression=torch.randn(5, 100))
        motion = for_head(Motion(tracked, 30, "clip", list(FLAME_NAMES)), disguised[0])
        assert torch.equal(motion.params.expression, tracked.expression)
        assert motion.expression_names == []
        # Without names they are whatever head's.
        unnamed = for_head(Motion(tracked, 30, "clip"), open_head)
        assert torch.equal(unnamed.params.expression, tracked.expression)

    def test_the_flame_model_gives_them_meaning(
        self, disguised: tuple[HeadModel, torch.Tensor], open_head: HeadModel
    ) -> None:
        head, answers = disguised
        names = ["mouthSmileLeft", "browInnerUp", "eyeBlinkRight", "mouthPucker"]
        strengths = torch.tensor([0.8, 0.5, 1.0, 0.4])
        tracked = torch.stack(
            [s * answers[BY_EXPRESSION.index(n)] for s, n in zip(strengths, names, strict=True)]
        )
        found = actions_of(tracked, head, open_head)
        for i, name in enumerate(names):
            assert found[i, row(name)] == pytest.approx(float(strengths[i]), abs=0.2)
            others = found[i].clone()
            others[row(name)] = 0
            assert others.max() < 0.35
        motion = Motion(
            FlameParams.zeros(1).replace(expression=tracked), 30, "clip", list(FLAME_NAMES)
        )
        driven = for_head(motion, open_head, flame=head)
        column = open_head.expression_names.index("eyeBlinkRight")
        assert driven.params.expression[2, column] > 0.8
        # Their names say which they are, not their places.
        turned = FlameParams.zeros(1).replace(expression=tracked.flip(1))
        motion = Motion(turned, 30, "clip", list(FLAME_NAMES)[::-1])
        again = for_head(motion, open_head, flame=head)
        assert torch.equal(again.params.expression, driven.params.expression)

    def test_flame_coefficients_rest_on_a_head_with_other_actions(
        self, open_head: HeadModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        bare = read_head(find_asset("flame/open_head.npz"))
        head = HeadModel(dataclasses.replace(bare, expression_names=["grin", "frown"]))
        tracked = FlameParams.zeros(1).replace(expression=torch.ones(5, 100))
        motion = for_head(Motion(tracked, 30, "clip", list(FLAME_NAMES)), head, flame=open_head)
        assert not motion.params.expression.any()
        assert motion.expression_names == ["grin", "frown"]
        assert "does not name all of these" in caplog.text

    def test_a_head_without_landmarks_rests_with_a_warning(
        self, open_head: HeadModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        bare = read_head(find_asset("flame/open_head.npz"))
        head = HeadModel(dataclasses.replace(bare, expression_names=[], landmarks=None))
        with caplog.at_level(logging.WARNING):
            motion = for_head(load_motion(find_asset("motion/smile.npz")), head)
        assert not motion.params.expression.any()
        assert "cannot be fitted to head model" in caplog.text
