"""Pictures of random characters with captions, control images and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstudio.characters.attributes import (
    Character,
    attribute_classes,
    attribute_names,
)
from headstudio.characters.build import DEFAULT_SPLATS, studio_for
from headstudio.characters.captions import VIEWS, caption
from headstudio.characters.people import sample_character
from headstudio.characters.poses import random_poses
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.guidance.control_image import control_image
from headstudio.motion import Motion, MotionSampler, MotionSamplerConfig
from headstudio.render import Cameras, render
from headstudio.splats import triangle_frames

#: What is behind most characters, RGB.
BACKGROUND = (0.8, 0.8, 0.8)

# Thresholds of threestudio's view-dependent prompts, degrees.
FRONT_THRESHOLD, BACK_THRESHOLD, OVERHEAD_THRESHOLD = 45.0, 45.0, 60.0


@dataclass(frozen=True)
class CameraRange:
    """Where pictures are taken from, in the world where the head is 1.5 units tall.

    A prior only knows views like those it was trained on, so distillation with the bundled prior
    has to look from these ranges too: the names are those of threestudio's random cameras, and of
    the close-ups of ``head-camera-datamodule``.
    """

    camera_distance_range: tuple[float, float] = (1.7, 2.2)
    fovy_range: tuple[float, float] = (40.0, 46.0)  # degrees
    elevation_range: tuple[float, float] = (-20.0, 40.0)
    usual_elevation_range: tuple[float, float] = (-10.0, 20.0)
    usual_elevation_share: float = 0.7
    azimuth_range: tuple[float, float] = (-180.0, 180.0)
    front_share: float = 0.45  # of azimuths, drawn from a normal distribution about the front
    front_deviation: float = 35.0
    close_up_share: float = 0.35
    close_up_distance_range: tuple[float, float] = (1.2, 1.8)
    close_up_azimuth_range: tuple[float, float] = (-90.0, 90.0)
    close_up_offset: float = 0.15  # how far above the origin these cameras are, and look

    def sample(
        self, count: int, size: int, generator: torch.Generator
    ) -> tuple[Cameras, Tensor, Tensor]:
        """Cameras [1, count] on the CPU, their azimuths and elevations [count] in degrees.

        Args:
            count: number of cameras.
            size: height and width of the pictures.
            generator: a CPU generator.
        """

        def uniform(low_high: tuple[float, float]) -> Tensor:
            low, high = low_high
            return low + (high - low) * torch.rand(count, generator=generator)

        def share(of: float) -> Tensor:
            return torch.rand(count, generator=generator) < of

        close = share(self.close_up_share)
        usual = share(self.usual_elevation_share)
        elevation = torch.where(
            usual, uniform(self.usual_elevation_range), uniform(self.elevation_range)
        )
        frontal = torch.randn(count, generator=generator) * self.front_deviation
        azimuth = torch.where(share(self.front_share), frontal, uniform(self.azimuth_range))
        azimuth = (azimuth + 180.0) % 360.0 - 180.0
        low, high = self.close_up_azimuth_range
        outside = (azimuth < low) | (azimuth > high)
        azimuth = torch.where(close & outside, uniform(self.close_up_azimuth_range), azimuth)
        distance = torch.where(
            close, uniform(self.close_up_distance_range), uniform(self.camera_distance_range)
        )
        cameras = Cameras.orbit(azimuth, elevation, distance, uniform(self.fovy_range), size, size)
        cameras.c2w[0, :, 2, 3] += close * self.close_up_offset
        return cameras, azimuth, elevation


def view_word(azimuth_deg: float, elevation_deg: float) -> str:
    """The direction threestudio's prompt processors find for a camera."""
    azimuth = (azimuth_deg + 180.0) % 360.0 - 180.0
    if elevation_deg > OVERHEAD_THRESHOLD:
        return "overhead"
    if abs(azimuth) < FRONT_THRESHOLD:
        return "front"
    return "back" if abs(azimuth) > 180.0 - BACK_THRESHOLD else "side"


class CharacterDataset:
    """A population of characters and a camera.

    Args:
        head: the open head; it is moved to ``device``.
        n_characters: size of the population.
        image_size: height and width of the pictures.
        device: where everything is computed.
        seed: of the population.
        motions: faces are drawn half from these, half at random; None: all at random.
        n_splats: per character.
        cameras: where pictures are taken from.
        views_per_character: pictures of one character in one pose that ``render`` takes in a row.
        batch_pictures: pictures rendered at once.
        wordings: captions written for each picture.

    Raises:
        HeadStudioError: no characters, or a head they cannot be built on.
    """

    def __init__(
        self,
        head: HeadModel,
        n_characters: int = 2000,
        image_size: int = 128,
        device: torch.device | str | None = None,
        seed: int = 0,
        motions: Sequence[Motion] | None = None,
        n_splats: int = DEFAULT_SPLATS,
        cameras: CameraRange | None = None,
        views_per_character: int = 4,
        batch_pictures: int = 128,
        wordings: int = 1,
    ) -> None:
        if n_characters < 1:
            raise HeadStudioError(f"a dataset needs characters, got n_characters={n_characters}")
        self.head = head.to(device) if device is not None else head
        self.device = self.head.v_template.device
        self.image_size, self.cameras = image_size, cameras or CameraRange()
        self.views_per_character, self.wordings = views_per_character, max(1, wordings)
        self.batch_pictures = max(batch_pictures, views_per_character)
        rng = np.random.default_rng(seed)
        self.characters: list[Character] = [sample_character(rng) for _ in range(n_characters)]
        self.studio = studio_for(self.head, n_splats)
        self.frame = self.head.world_frame().to(self.device)
        # The view is in the caption too: what has to read captions learns to hear it.
        self.attribute_names = attribute_names() | {"view": list(VIEWS)}
        config = MotionSamplerConfig(neck=True, eyes=True)
        self._sampler = MotionSampler(motions, self.head, config) if motions else None

    def __len__(self) -> int:
        return len(self.characters)

    @torch.no_grad()
    def render(self, n_pictures: int, generator: torch.Generator) -> dict[str, Any]:
        """Draw characters, poses and cameras, and take pictures.

        Args:
            n_pictures: how many.
            generator: a CPU generator; it decides everything.

        Returns:
            ``image`` [n, H, W, 3] in 0..1, ``control`` [n, H, W, 3], ``control_weight`` [n],
            ``captions``: n strings, ``wordings``: for each picture its captions, of which that is
            the first, ``attributes``: for each attribute its classes [n] int64
            (-100 where the character shows nothing of it; another side of the head may show
            nothing of others), ``attribute_names``: names of the classes,
            ``character`` [n] int64, ``azimuth`` and ``elevation`` [n] in degrees. Tensors are on
            the dataset's device, angles and indices on the CPU.
        """
        views = self.views_per_character
        people = -(-n_pictures // views)
        chosen = torch.randint(len(self), (people,), generator=generator)
        step = max(1, self.batch_pictures // views)
        batches = [
            self._take(chosen[start : start + step], views, generator)
            for start in range(0, people, step)
        ]
        merged = {
            key: torch.cat([batch[key] for batch in batches])[:n_pictures]
            for key in ("image", "control", "control_weight", "azimuth", "elevation")
        }
        character = chosen.repeat_interleave(views)[:n_pictures]
        rows = [attribute_classes(self.characters[i]) for i in character.tolist()]
        attributes = {
            key: torch.tensor([row[key] for row in rows], device=self.device)
            for key in attribute_names()
        }
        angles = zip(merged["azimuth"].tolist(), merged["elevation"].tolist(), strict=True)
        words = [VIEWS.index(view_word(a, e)) for a, e in angles]
        attributes["view"] = torch.tensor(words, device=self.device)
        wordings = self._captions(character, merged, generator)
        return merged | {
            "captions": [texts[0] for texts in wordings],
            "wordings": wordings,
            "attributes": attributes,
            "attribute_names": self.attribute_names,
            "character": character,
        }

    def _take(self, chosen: Tensor, views: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Pictures of characters in a pose each, by ``views`` cameras each."""
        people = len(chosen)
        size = self.image_size
        batch = self.studio.build([self.characters[i] for i in chosen.tolist()])
        params = self._poses(people, generator).to(self.device).replace(shape=batch.shape)
        vertices = self.frame.to_world(self.head(params))
        flat, azimuth, elevation = self.cameras.sample(people * views, size, generator)
        cameras = Cameras(
            flat.c2w.view(people, views, 4, 4), flat.fovy.view(people, views), size, size
        ).to(self.device)
        posed = batch.pose(triangle_frames(vertices, self.head.faces))
        background = _backgrounds(people * views, generator).view(people, views, 3)
        picture = render(*posed, cameras, background=background.to(self.device)).rgb
        control, weight = control_image(self.head, vertices, cameras)
        return {
            "image": picture.clamp(0, 1).flatten(0, 1),
            "control": control.flatten(0, 1),
            "control_weight": weight.flatten(),
            "azimuth": azimuth,
            "elevation": elevation,
        }

    def _poses(self, count: int, generator: torch.Generator) -> FlameParams:
        poses = random_poses(self.head, count, generator)
        if self._sampler is None:
            return poses
        recorded = self._sampler.sample(count, generator).expand()
        use = torch.rand(count, 1, generator=generator) < 0.5
        mixed = {name: torch.where(use, v, getattr(poses, name)) for name, v in recorded.items()}
        return FlameParams(**mixed)

    def _captions(
        self, character: Tensor, angles: dict[str, Tensor], generator: torch.Generator
    ) -> list[list[str]]:
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        rng = np.random.default_rng(seed)
        rows = zip(
            character.tolist(),
            angles["azimuth"].tolist(),
            angles["elevation"].tolist(),
            strict=True,
        )
        return [
            [caption(self.characters[i], rng, view_word(a, e)) for _ in range(self.wordings)]
            for i, a, e in rows
        ]


def _backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """Plain colours [count, 3]: three in four the usual grey, the rest other greys and soft."""
    kind = torch.rand(count, 1, generator=generator)
    grey = torch.rand(count, 1, generator=generator).expand(-1, 3)
    tint = 0.35 + 0.6 * torch.rand(count, 3, generator=generator)
    usual = torch.tensor(BACKGROUND).expand(count, 3)
    return torch.where(kind < 0.75, usual, torch.where(kind < 0.88, grey, tint))
