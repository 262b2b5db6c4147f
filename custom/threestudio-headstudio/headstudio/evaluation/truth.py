"""What a character looks like: the pictures, regions and colours that avatars are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from headstudio.characters import Character, CharacterStudio
from headstudio.evaluation.openings import Interior
from headstudio.evaluation.regions import (
    label,
    label_pixels,
    label_splats,
    named_options,
    one_hot,
    recoloured,
)
from headstudio.evaluation.stage import JAW, NEUTRAL, Figure, Stage, bench_poses, world_of
from headstudio.render import Cameras

MIN_PIXELS = 20  # of a region, in all views together, for its colour to be measured
_MIN_PART_PIXELS = 6  # of a part of the mouth or the eyes
_OPTIONS_AT_ONCE = 9  # with the picture itself 30 channels; gsplat takes 32 at once


@dataclass
class Truth:
    """A character on the stage; everything is on the CPU but the figure.

    Shapes: 4 poses, C views of ``Stage.cameras``, H by W pixels.
    """

    figure: Figure
    rgb: Tensor  # [4, C, H, W, 3]
    alpha: Tensor  # [4, C, H, W]
    labels: Tensor  # [C, H, W], of the neutral pose
    interior: Interior
    palettes: dict[str, dict[str, Tensor]]  # region -> named colour -> how it would look, [3]
    talk: float | None = None  # correlation of its mouth with the drive, once it is known

    def region(self, name: str) -> Tensor:
        """Pixels of the neutral views that show a region: bool ``[C, H, W]``."""
        return self.labels == label(name)


def show_truth(
    character: Character, regions: Iterable[str], studio: CharacterStudio, stage: Stage
) -> Truth:
    """Take the pictures of a character, and find out how its regions would look in each of their
    named colours.

    Args:
        character: who.
        regions: those whose colours are to be named, from ``regions.COLOUR_OF``.
        studio: of the head.
        stage: the cameras.
    """
    figure = Figure.of_character(character, studio)
    vertices = figure.vertices(bench_poses(studio.head))
    out = figure.render(vertices, stage.cameras(), stage.background)
    hot = one_hot(label_splats(studio, character))
    cameras = stage.cameras()
    neutral = figure.render(vertices[:1], cameras, stage.background, features=hot)
    assert neutral.features is not None
    labels = label_pixels(neutral.features[0], neutral.alpha[0]).cpu()
    truth = Truth(
        figure=figure,
        rgb=out.rgb.cpu(),
        alpha=out.alpha[..., 0].cpu(),
        labels=labels,
        interior=interior_colours(figure, vertices, hot, stage),
        palettes={},
    )
    for region in regions:
        mask = truth.region(region)
        if int(mask.sum()) >= MIN_PIXELS:
            truth.palettes[region] = palette(
                character, region, mask, studio, vertices[:1], cameras, stage.background
            )
    return truth


def interior_colours(figure: Figure, vertices: Tensor, hot: Tensor, stage: Stage) -> Interior:
    """Median colours of the parts that show through lips and lids, from nearby.

    Args:
        figure: the character.
        vertices: ``[4, V, 3]``, of the bench's poses.
        hot: ``[N, len(LABELS)]``, the labels of its splats.
        stage: the close camera.
    """
    poses = vertices[[NEUTRAL, JAW]]
    out = figure.render(poses, stage.close_camera(figure.head), stage.background, features=hot)
    assert out.features is not None
    labels = label_pixels(out.features[:, 0], out.alpha[:, 0])

    def colours(pose: int, names: tuple[str, ...]) -> Tensor:
        masks = [labels[pose] == label(name) for name in names]
        found = [
            out.rgb[pose, 0][mask].median(0).values
            for mask in masks
            if int(mask.sum()) >= _MIN_PART_PIXELS
        ]
        return torch.stack(found).cpu() if found else torch.zeros(0, 3)

    return Interior(
        mouth=colours(1, ("mouth", "teeth", "tongue")),
        eyes=colours(0, ("eye_white", "eyes", "pupil")),
    )


def palette(
    character: Character,
    region: str,
    mask: Tensor,
    studio: CharacterStudio,
    vertices: Tensor,
    cameras: Cameras,
    background: tuple[float, float, float],
) -> dict[str, Tensor]:
    """Median colour of a region's pixels if the character had each of the named options.

    So light and shadow, the same for all options, do not turn white hair into grey.

    Args:
        character: who.
        region: one of ``regions.COLOUR_OF``.
        mask: bool ``[C, H, W]``, the region's pixels.
        studio: of the head.
        vertices: ``[1, V, 3]``, the posed head in the world.
        cameras: C views.
        background: what is behind, RGB.
    """
    names = named_options(region)
    colours: dict[str, Tensor] = {}
    for start in range(0, len(names), _OPTIONS_AT_ONCE):
        some = names[start : start + _OPTIONS_AT_ONCE]
        batch = studio.build([recoloured(character, region, name) for name in some])
        used = batch.opacities[0] > 0
        figure = Figure(batch.splats(0), batch.shape[0], studio.head, world_of(studio.head))
        # All options as further channels of one picture: they only differ in colour.
        features = batch.rgb[:, used].movedim(0, 1).flatten(1)
        out = figure.render(vertices, cameras, background, features=features)
        assert out.features is not None
        ground = torch.tensor(background).repeat(len(some)).to(out.alpha)
        seen = out.features[0] + (1 - out.alpha[0]) * ground
        medians = seen.cpu()[mask].median(0).values.unflatten(0, (-1, 3))
        colours |= dict(zip(some, medians, strict=True))
    return colours
