"""Poses for training, drawn from motions."""

# No postponed annotations: OmegaConf reads the types of the configuration.

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion.motion import Motion
from headstudio.motion.retarget import for_head
from headstudio.settings import setting


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


class MotionSampler:
    """Draws random frames, each frame of every motion equally likely.

    Args:
        motions: what to draw from.
        head: whose expression coefficients are wanted.
        config: which parts are taken.

    Raises:
        HeadStudioError: no motions, a probability outside [0, 1], or motions the head cannot play.
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
        if not 0 <= self.config.rest_probability <= 1:
            raise HeadStudioError(
                f"rest_probability is {self.config.rest_probability}; expected 0 to 1."
            )
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
        moving = torch.rand(batch, 1, generator=generator) >= config.rest_probability
        if not config.mix:
            neck = eyes = face
        frames = self._frames
        result = FlameParams.zeros(batch, self._n_shape, frames.expression.shape[1])
        result = result.replace(shape=result.shape[:1])
        if config.expression:
            result = result.replace(expression=frames.expression[face] * moving)
        if config.jaw:
            result = result.replace(jaw_pose=frames.jaw_pose[face] * moving)
        if config.neck:
            result = result.replace(neck_pose=frames.neck_pose[neck] * moving)
        if config.eyes:
            result = result.replace(
                leye_pose=frames.leye_pose[eyes] * moving,
                reye_pose=frames.reye_pose[eyes] * moving,
            )
        return result.to(device)
