from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from headstudio.errors import HeadStudioError
from headstudio.flame import POSE_NAMES, FlameParams
from headstudio.motion import Motion, concatenate, frame_of, loop, resample


def smooth_motion(frames: int, seed: int = 0, fps: float = 30.0, names: tuple = ()) -> Motion:
    """Every parameter a slow wave of its own."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None] / 30.0

    def waves(width: int, amount: float) -> torch.Tensor:
        speed, phase = rng.uniform(1, 4, width), rng.uniform(0, 6, width)
        return torch.from_numpy(amount * np.sin(t * speed + phase)).float()

    params = FlameParams(
        **{name: waves(value.shape[1], 0.5) for name, value in FlameParams.zeros(1, 4, 6).items()}
    )
    return Motion(params, fps, f"wave {seed}", list(names))


def steps(params: FlameParams) -> dict[str, float]:
    """Largest change from one frame to the next, by parameter."""
    return {name: float(value.diff(dim=0).abs().max()) for name, value in params.items()}


class TestResample:
    def test_positions_in_time_are_kept(self) -> None:
        motion = smooth_motion(31)
        fine = resample(motion, 60)
        assert len(fine) == 61
        assert fine.fps == 60
        for (name, a), (_, b) in zip(motion.params.items(), fine.params.items(), strict=True):
            torch.testing.assert_close(b[::2], a, atol=1e-6, rtol=0, msg=name)

    def test_there_and_back(self) -> None:
        motion = smooth_motion(31)
        back = resample(resample(motion, 90), 30)
        for (name, a), (_, b) in zip(motion.params.items(), back.params.items(), strict=True):
            torch.testing.assert_close(b, a, atol=1e-6, rtol=0, msg=name)

    def test_never_reads_past_the_end(self) -> None:
        motion = smooth_motion(10)
        for fps in (7.0, 24.0, 25.0, 29.97, 50.0, 1000.0):
            resampled = resample(motion, fps)
            assert (len(resampled) - 1) / fps <= 9 / 30 + 1e-6
            assert len(resampled) / fps > 9 / 30 - 1e-6
            assert torch.isfinite(resampled.params.jaw_pose).all()

    def test_rotations_follow_the_arc_and_the_rest_a_line(self) -> None:
        a, b = [1.5, 0.2, 0.0], [-0.3, 1.6, 0.9]
        params = FlameParams.zeros(2, 3, 3).replace(
            neck_pose=torch.tensor([a, b]), expression=torch.tensor([[0.0, 1, 2], [1.0, 3, -2]])
        )
        fine = resample(Motion(params, 1.0), 4.0).params
        arc = Slerp([0, 1], Rotation.from_rotvec([a, b]))(np.linspace(0, 1, 5)).as_rotvec()
        np.testing.assert_allclose(fine.neck_pose.numpy(), arc, atol=1e-6)
        assert fine.expression[2].tolist() == pytest.approx([0.5, 2, 0])

    def test_a_turn_through_pi_takes_the_short_way(self) -> None:
        params = FlameParams.zeros(2).replace(
            global_orient=torch.tensor([[0.0, 3.0, 0], [0.0, -3.0, 0]])
        )
        middle = resample(Motion(params, 1.0), 2.0).params.global_orient[1]
        assert float(middle.norm()) == pytest.approx(np.pi, abs=1e-5)

    @pytest.mark.parametrize("fps", [0.0, -1.0, 1e-9, 1.2e5, float("inf"), float("nan")])
    def test_impossible_rates(self, fps: float) -> None:
        with pytest.raises(HeadStudioError, match="expected from"):
            resample(smooth_motion(3), fps)
        with pytest.raises(HeadStudioError, match="expected from"):
            Motion(FlameParams.zeros(3), fps)

    def test_more_frames_than_a_motion_may_have(self) -> None:
        """Said before memory is taken: 10^5 frames a second of talk took 1 GiB, 10^9 all of it."""
        with pytest.raises(HeadStudioError, match=r"would have 300001 frames; .* at most 200000"):
            resample(smooth_motion(91), 1e5)


class TestLoop:
    def test_no_step_is_larger_than_in_the_motion(self) -> None:
        motion = smooth_motion(90)
        fade = 0.4
        looped = loop(motion, 400, fade)
        assert len(looped) == 400
        for name, step in steps(looped.params).items():
            # A cross-fade adds at most the difference of its two ends times the fade's slope.
            value = getattr(motion.params, name)
            gap = float((value[-12:] - value[:12]).abs().max())
            allowed = steps(motion.params)[name] + gap * 1.6 / (fade * motion.fps)
            assert step <= allowed, name

    def test_repeats_exactly(self) -> None:
        motion = smooth_motion(90)
        looped = loop(motion, 300, 0.4)
        period = 90 - 12
        assert torch.equal(looped.params.jaw_pose[:period], looped.params.jaw_pose[period:156])
        assert torch.equal(looped.params.expression[12:78], motion.params.expression[12:78])

    def test_without_fade_it_is_plain_repetition(self) -> None:
        motion = smooth_motion(5)
        looped = loop(motion, 12, fade=0)
        assert torch.equal(looped.params.expression, motion.params.expression[torch.arange(12) % 5])

    @pytest.mark.parametrize("frames", [1, 2, 3])
    def test_shortest_motions(self, frames: int) -> None:
        looped = loop(smooth_motion(frames), 7)
        assert len(looped) == 7
        assert torch.isfinite(looped.params.neck_pose).all()

    def test_senseless_requests(self) -> None:
        with pytest.raises(HeadStudioError, match="0 frames"):
            loop(smooth_motion(5), 0)
        with pytest.raises(HeadStudioError, match=r"fade of -1"):
            loop(smooth_motion(5), 5, fade=-1)


class TestConcatenate:
    def test_motions_are_kept_and_joined_smoothly(self) -> None:
        a, b = smooth_motion(40, 1), smooth_motion(50, 2)
        joined = concatenate([a, b], transition=0.5, name="both")
        assert joined.name == "both"
        assert len(joined) == 40 + 15 + 50
        assert torch.equal(joined.params.expression[:40], a.params.expression)
        assert torch.equal(joined.params.jaw_pose[-50:], b.params.jaw_pose)
        bridge = joined.params.expression[39:56]
        low = torch.minimum(bridge[0], bridge[-1]) - 1e-6
        high = torch.maximum(bridge[0], bridge[-1]) + 1e-6
        assert ((bridge >= low) & (bridge <= high)).all()
        # Gentle at both ends: the first and last steps are the smallest.
        speed = bridge.diff(dim=0).abs().sum(1)
        assert speed.argmax() not in (0, 15)
        assert speed[0] < 0.4 * speed.max()
        assert speed[-1] < 0.4 * speed.max()

    def test_frame_rates_and_widths_are_brought_together(self) -> None:
        a = smooth_motion(30, 1)
        b = smooth_motion(61, 2, fps=60.0)
        b.params.expression = b.params.expression[:, :2]
        joined = concatenate([a, b], transition=0)
        assert joined.fps == 30
        assert len(joined) == 30 + 31
        assert joined.params.expression.shape[1] == 6
        assert not joined.params.expression[30:, 2:].any()

    def test_refuses_what_cannot_be_joined(self) -> None:
        with pytest.raises(HeadStudioError, match="join 0 motions"):
            concatenate([])
        a, b = smooth_motion(3, 1, names=("jawOpen",)), smooth_motion(3, 2)
        with pytest.raises(HeadStudioError, match="differently"):
            concatenate([a, b])


def test_slices_and_moments() -> None:
    motion = smooth_motion(30)
    assert len(motion[10:20]) == 10
    assert motion[10:20].duration == pytest.approx(1 / 3)
    with pytest.raises(HeadStudioError, match="no frames"):
        motion[20:10]
    moment = frame_of(motion, torch.tensor([0.0, 0.5, 99.0]))
    torch.testing.assert_close(
        moment.jaw_pose, motion.params.jaw_pose[[0, 15, 29]], atol=1e-6, rtol=0
    )
    for name in POSE_NAMES:
        assert getattr(moment, name).shape == (3, 3)
