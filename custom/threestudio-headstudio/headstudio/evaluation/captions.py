"""Captions of characters that no prior has seen, each with a view, a pose and the named colours.

They are drawn as the training's are (`CharacterDataset`), but for seeds that it does not use, and
only from where a face can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstudio.characters import (
    ATTRIBUTES,
    CameraRange,
    Character,
    caption_and_content,
    random_poses,
    sample_character,
    view_word,
)
from headstudio.evaluation.regions import COLOUR_OF, named_options
from headstudio.evaluation.suite import FIRST_HELD_OUT_SEED, held_out_shape
from headstudio.flame import FlameParams, HeadModel
from headstudio.guidance.control_image import control_image
from headstudio.motion import Motion, MotionSampler, MotionSamplerConfig
from headstudio.render import Cameras

VIEWS = ("front", "side")
_CAMERAS_TRIED = 64  # two thirds of the training's look from the front or a side


@dataclass(frozen=True)
class Described:
    """A held-out character, a sentence about it, and how it is looked at."""

    index: int
    character: Character
    caption: str
    named: dict[str, str]  # region -> the colour that the caption names
    hair_style_told: bool  # whether the caption says how the hair is worn
    view: str
    params: FlameParams  # one pose, without the identity
    cameras: Cameras  # [1, 1]

    def record(self) -> dict[str, Any]:
        """What a result was measured for, as JSON holds it."""
        own = {key: getattr(self.character, key) for key in (*ATTRIBUTES, "seed")}
        return {
            "caption": self.caption,
            "named": self.named,
            "hair_style_told": self.hair_style_told,
            "character": own,
            "azimuth_deg": round(azimuth_deg(self.cameras), 2),
        }


def azimuth_deg(cameras: Cameras) -> float:
    """Where the first camera stands around the head, 0 in front of it."""
    x, y = cameras.positions[0, 0, :2].tolist()
    return float(np.degrees(np.arctan2(y, x)))


def describe(
    index: int, seed: int, head: HeadModel, size: int, motions: Sequence[Motion] = ()
) -> Described:
    """The caption of a number; the same whatever other numbers are asked for.

    Args:
        index: 0 or more.
        seed: of all captions.
        head: whose poses these are.
        size: height and width of the pictures.
        motions: half of the poses are frames of these; the others, or all, are drawn at random.
    """
    key = (seed, 30, index)
    rng = np.random.default_rng(key)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31 - 1)))
    own_seed = FIRST_HELD_OUT_SEED + int(rng.integers(2**31 - 1))
    character = replace(sample_character(rng), seed=own_seed, shape=held_out_shape(own_seed))
    cameras, view = _camera(size, generator)
    told = caption_and_content(character, rng, view)
    params = random_poses(head, 1, generator)
    if motions and rng.random() < 0.5:
        sampler = MotionSampler(motions, head, MotionSamplerConfig(neck=True, eyes=True))
        params = sampler.sample(1, generator).replace(shape=params.shape)
    named = _by_region(told.colors)
    return Described(
        index, character, told.text, named, told.hair_style_told, view, params, cameras
    )


def _camera(size: int, generator: torch.Generator) -> tuple[Cameras, str]:
    """The first of the training's cameras that looks from the front or a side."""
    drawn, azimuth, elevation = CameraRange().sample(_CAMERAS_TRIED, size, generator)
    words = [view_word(a, e) for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True)]
    at = next(i for i, word in enumerate(words) if word in VIEWS)
    one = slice(at, at + 1)
    return Cameras(drawn.c2w[:, one], drawn.fovy[:, one], size, size), words[at]


def _by_region(colours: dict[str, str]) -> dict[str, str]:
    """Named options by region instead of by attribute, those that are colours."""
    return {
        region: colours[attribute]
        for region, attribute in COLOUR_OF.items()
        if colours.get(attribute) in named_options(region)
    }


def control_of(described: Described, head: HeadModel, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """The control image ``[H, W, 3]`` of a pose ``[1, V, 3]`` in the world, and its weight."""
    image, weight = control_image(head, vertices, described.cameras.to(vertices.device))
    return image[0, 0], weight[0, 0]
