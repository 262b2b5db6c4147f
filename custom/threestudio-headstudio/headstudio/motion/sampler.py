"""Poses for training, drawn from motions."""

# No postponed annotations: OmegaConf reads the types of the configuration.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion.motion import Motion
from headstudio.motion.retarget import for_head
from headstudio.settings import check_all, setting


@dataclass
class MotionSamplerConfig:
    """Which parts of a frame are taken; the others stay at rest."""

    expression: bool = True
    jaw: bool = True
    neck: bool = False
    eyes: bool = False
    mix: bool = True
    """Draw neck and eyes from other frames than expression and jaw. These two stay together: lips
    are shaped for the jaw they were made with."""
    rest_probability: float = setting(0.0, at_least=0, at_most=1)
    """How often the neutral pose is drawn instead."""
    open_probability: float = setting(0.0, at_least=0, at_most=1)
    """How often the jaw is then turned further open. Talking shows an open mouth seldom: inside of
    it there would be little to learn from."""
    open_deg: float = setting(20.0, at_least=0, at_most=90)
    """By up to so many degrees."""


class MotionSampler:
    """Draws random frames, each frame of every motion equally likely.

    Args:
        motions: what to draw from.
        head: whose expression coefficients are wanted.
        config: which parts are taken.

    Raises:
        HeadStudioError: no motions, a setting outside its range, or motions the head cannot play.
    """

    def __init__(
        self,
        motions: Sequence[Motion],
        head: HeadModel,
        config: MotionSamplerConfig | None = None,
    ) -> None:
        if not motions:
            raise HeadStudioError("no motions to draw poses from; give at least one motion file.")
        self.config = config or MotionSamplerConfig()
        check_all(self.config, "animation", MotionSamplerConfig)
        self._n_shape = head.n_shape
        # The subject's shape is what training learns; a motion's own is another person's.
        nobody = torch.zeros(1, head.n_shape)
        self._frames = FlameParams.cat(
            [for_head(motion, head).params.replace(shape=nobody) for motion in motions]
        )

    def __len__(self) -> int:
        return self._frames.batch_size

    def sample(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> FlameParams:
        """``batch`` poses, on ``device``; the shape is zero and has one row.

        Drawn on the CPU by ``generator``, so that a seed means the same poses on any device.
        """
        config = self.config
        # Every number is drawn whatever the configuration: an ablation sees the same faces.
        face, neck, eyes = torch.randint(len(self), (3, batch), generator=generator)
        moving, opening, degrees = torch.rand(3, batch, 1, generator=generator)
        moving = moving >= config.rest_probability
        opening = (opening < config.open_probability) * degrees * config.open_deg
        if not config.mix:
            neck = eyes = face
        frames = self._frames
        result = FlameParams.zeros(batch, self._n_shape, frames.expression.shape[1])
        result = result.replace(shape=result.shape[:1])
        if config.expression:
            result = result.replace(expression=frames.expression[face] * moving)
        if config.jaw:
            # Opening is a turn about x, in FLAME's axes.
            opened = F.pad(torch.deg2rad(opening), (0, 2))
            result = result.replace(jaw_pose=frames.jaw_pose[face] * moving + opened)
        if config.neck:
            result = result.replace(neck_pose=frames.neck_pose[neck] * moving)
        if config.eyes:
            result = result.replace(
                leye_pose=frames.leye_pose[eyes] * moving,
                reye_pose=frames.reye_pose[eyes] * moving,
            )
        return result.to(device)
