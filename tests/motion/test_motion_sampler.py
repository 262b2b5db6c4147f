from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import (
    Motion,
    MotionSampler,
    MotionSamplerConfig,
    concatenate,
    for_head,
)


def fake_head(n_expression: int = 5, names: tuple[str, ...] = ()) -> HeadModel:
    """What the sampler asks of a head."""
    return cast(
        HeadModel,
        SimpleNamespace(
            name="fake", n_shape=4, n_expression=n_expression, expression_names=list(names)
        ),
    )


def numbered(start: int, frames: int) -> Motion:
    """Every parameter of frame i is start + i, so a frame can be recognised."""
    number = torch.arange(start, start + frames, dtype=torch.float32)[:, None]
    zeros = FlameParams.zeros(1, 4, 5)
    params = FlameParams(**{name: number.repeat(1, v.shape[1]) for name, v in zeros.items()})
    return Motion(params, 30, f"from {start}")


ALL = {"expression": True, "jaw": True, "neck": True, "eyes": True}


def sample(batch: int, seed: int = 0, **flags: Any) -> FlameParams:
    sampler = MotionSampler(
        [numbered(1, 10), numbered(101, 30)], fake_head(), MotionSamplerConfig(**flags)
    )
    return sampler.sample(batch, torch.Generator().manual_seed(seed))


def test_every_frame_of_every_motion_is_equally_likely() -> None:
    drawn = sample(8000).jaw_pose[:, 0]
    numbers, counts = drawn.unique(return_counts=True)
    assert numbers.tolist() == [*range(1, 11), *range(101, 131)]
    # 200 expected each; five standard deviations.
    assert counts.min() > 200 - 5 * 14
    assert counts.max() < 200 + 5 * 14


@pytest.mark.parametrize("part", ["expression", "jaw", "neck", "eyes"])
def test_each_part_has_its_switch(part: str) -> None:
    flags = {**dict.fromkeys(ALL, False), part: True}
    moving = {name for name, value in sample(50, **flags).items() if value.any()}
    expected = {"expression": {"expression"}, "eyes": {"leye_pose", "reye_pose"}}
    assert moving == expected.get(part, {f"{part}_pose"})


def test_shape_translation_and_orientation_stay_with_the_caller() -> None:
    params = sample(50, **ALL)
    assert params.shape.shape == (1, 4)
    assert not params.shape.any()
    assert not params.translation.any()
    assert not params.global_orient.any()


def test_mixing_keeps_lips_with_jaw_and_eyes_with_each_other() -> None:
    mixed = sample(200, **ALL, mix=True)
    assert torch.equal(mixed.expression[:, :3], mixed.jaw_pose)
    assert torch.equal(mixed.leye_pose, mixed.reye_pose)
    assert (mixed.neck_pose != mixed.jaw_pose).any()
    assert (mixed.leye_pose != mixed.neck_pose).any()
    together = sample(200, **ALL, mix=False)
    assert torch.equal(together.neck_pose, together.jaw_pose)
    assert torch.equal(together.leye_pose, together.jaw_pose)


def test_switches_do_not_change_what_is_drawn() -> None:
    assert torch.equal(sample(50, neck=True).expression, sample(50, eyes=True).expression)


def test_the_jaw_is_opened_further_as_often_as_asked() -> None:
    plain = sample(2000, **ALL)
    opened = sample(2000, **ALL, open_probability=0.3, open_deg=20)
    turned = opened.jaw_pose - plain.jaw_pose
    assert not turned[:, 1:].any()
    assert 0.25 < float((turned[:, 0] > 0).float().mean()) < 0.35
    assert 0.3 < float(turned.max()) < 0.35  # 20 degrees are 0.349
    assert float(turned.min()) == 0
    assert torch.equal(opened.expression, plain.expression)


def test_rest_is_drawn_as_often_as_asked() -> None:
    resting = (sample(2000, **ALL, rest_probability=0.25).jaw_pose == 0).all(1)
    assert 0.2 < float(resting.float().mean()) < 0.3
    assert not sample(20, **ALL, rest_probability=1.0).expression.any()


@pytest.mark.parametrize(
    ("name", "value"),
    [("rest_probability", 1.5), ("open_probability", -0.1), ("open_deg", 100.0)],
)
def test_settings_outside_their_range(name: str, value: float) -> None:
    with pytest.raises(HeadStudioError, match=f"animation.{name} is {value}; expected a number"):
        sample(1, **{name: value})


def test_a_seed_means_the_same_poses() -> None:
    assert torch.equal(sample(50, seed=3).expression, sample(50, seed=3).expression)
    assert not torch.equal(sample(50, seed=3).expression, sample(50, seed=4).expression)


def test_the_configuration_is_one_omegaconf_can_read() -> None:
    config = OmegaConf.structured(MotionSamplerConfig)
    config.neck = True
    assert OmegaConf.to_object(config) == MotionSamplerConfig(neck=True)


def test_no_motions() -> None:
    with pytest.raises(HeadStudioError, match="no motions"):
        MotionSampler([], fake_head())


class TestForHead:
    def test_unnamed_coefficients_are_padded(self) -> None:
        fitted = for_head(numbered(1, 3), fake_head(8)).params.expression
        assert fitted.shape == (3, 8)
        assert not fitted[:, 5:].any()
        assert torch.equal(fitted[:, :5], numbered(1, 3).params.expression)

    def test_unnamed_coefficients_get_the_heads_names(self) -> None:
        head = fake_head(5, ("a", "b", "c", "d", "e"))
        named = numbered(101, 4)
        named.expression_names = ["e", "d", "c", "b", "a"]
        both = [for_head(motion, head) for motion in (numbered(1, 3), named)]
        assert both[0].expression_names == ["a", "b", "c", "d", "e"]
        assert len(concatenate(both, transition=0)) == 7

    def test_unnamed_coefficients_in_use_are_not_cut(self) -> None:
        with pytest.raises(HeadStudioError, match="uses 5 expression coefficients, the head has 3"):
            for_head(numbered(1, 3), fake_head(3))
        motion = numbered(1, 3)
        motion.params.expression[:, 3:] = 0
        assert for_head(motion, fake_head(3)).params.expression.shape == (3, 3)

    def test_named_coefficients_find_their_place(self) -> None:
        motion = Motion(
            FlameParams.zeros(1, 4, 2).replace(expression=torch.tensor([[1.0, 2.0]])),
            30,
            "named",
            ["smile", "frown"],
        )
        fitted = for_head(motion, fake_head(4, ("blink", "frown", "smile")))
        assert fitted.params.expression.tolist() == [[0, 2, 1, 0]]
        assert fitted.expression_names == ["blink", "frown", "smile"]

    def test_some_of_flames_coefficients_find_their_place(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        params = FlameParams.zeros(1, 4, 2).replace(expression=torch.tensor([[1.0, 2.0]]))
        motion = Motion(params, 30, "two", ["flame003", "flame001"])
        fitted = for_head(motion, fake_head(5))
        assert fitted.params.expression.tolist() == [[2, 0, 1, 0, 0]]
        assert fitted.expression_names == []
        assert not caplog.records

    def test_coefficients_without_names_behind_others_rest_with_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        motion = numbered(1, 3)
        motion.expression_names = ["flame002", "flame001"]
        fitted = for_head(motion, fake_head())
        assert torch.equal(fitted.params.expression[:, :2], motion.params.expression[:, :2])
        assert not fitted.params.expression[:, 2:].any()
        assert "names 2 of its expression coefficients and uses more" in caplog.text

    def test_actions_the_head_does_not_know_rest_with_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        motion = numbered(1, 3)
        motion.expression_names = ["a", "b", "c", "d", "e"]
        fitted = for_head(motion, fake_head())
        assert not fitted.params.expression.any()
        assert torch.equal(fitted.params.jaw_pose, motion.params.jaw_pose)
        assert "moves a, b, c, d, e, which head model 'fake' does not have" in caplog.text
