"""One avatar against the character it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstudio.characters.anatomy import LIPS_OUTER
from headstudio.errors import HeadStudioError
from headstudio.evaluation import coverage, likeness, openings
from headstudio.evaluation.colours import difference, nearest_name
from headstudio.evaluation.regions import label
from headstudio.evaluation.stage import (
    BLINK,
    JAW,
    NEUTRAL,
    POSES,
    Figure,
    Stage,
    bench_poses,
    landmark_pixels,
)
from headstudio.evaluation.truth import Truth
from headstudio.flame import FlameParams
from headstudio.motion import Motion, for_head
from headstudio.render.mesh import rasterize_mesh

FLOATER_RADIUS = 0.03  # of the picture's height: 8 px of 256
TALK_FRAMES = 48
# The least that a character's own lids have to be seen to move for an avatar's to be judged.
_VISIBLE_MOVEMENT = 0.2


@dataclass
class Scored:
    """Figures for the table, and the pictures they were measured on."""

    figures: dict[str, Any]
    rgb: Tensor  # [4, C, H, W, 3], on the CPU


def score(
    figure: Figure,
    truth: Truth,
    named: Mapping[str, str],
    stage: Stage,
    talk: Motion,
    perceptual: likeness.PerceptualDistance,
) -> Scored:
    """Compare an avatar with the ground truth.

    Args:
        figure: the avatar, on the same head model as the truth.
        truth: of the same stage.
        named: the colours that the prompt names, by region.
        stage: the cameras.
        talk: a motion that opens the mouth, for the correlation.
        perceptual: the distance of pictures to report.

    Returns:
        Figures that JSON can hold: ``colours``, ``psnr``, ``ssim``, ``perceptual``, ``mouth``,
        ``lids``, ``talk``, ``floaters``, ``holes``; see docs/benchmark.md.
    """
    if figure.head.content_hash != truth.figure.head.content_hash:
        raise HeadStudioError("the avatar and the character ride on different head models.")
    vertices = figure.vertices(bench_poses(figure.head))
    out = figure.render(vertices, stage.cameras(), stage.background)
    rgb, alpha = out.rgb.cpu(), out.alpha[..., 0].cpu()
    ours, theirs = rgb.flatten(0, 1), truth.rgb.flatten(0, 1)
    radius = round(FLOATER_RADIUS * stage.size)
    outside = coverage.floaters(alpha.flatten(0, 1), truth.alpha.flatten(0, 1), radius)
    figures = {
        "colours": colours(figure, truth, named, stage),
        "psnr": float(likeness.psnr(ours, theirs).mean()),
        "ssim": float(likeness.ssim(ours, theirs).mean()),
        "perceptual": float(perceptual(ours, theirs).mean()),
        "floaters": float(outside.mean()),
        **face(figure, truth, stage),
        "talk": {
            "ours": talk_correlation(figure, truth, stage, talk),
            "truth": _of_truth(truth, stage, talk),
        },
    }
    return Scored(figures, rgb)


def colours(
    figure: Figure, truth: Truth, named: Mapping[str, str], stage: Stage
) -> dict[str, dict[str, Any] | None]:
    """For each region whose colour the prompt names: the colour that is read from the avatar.

    The avatar is put on the ground truth's identity for this, so that its lips are where the
    ground truth's are, and the median colour over the ground truth's pixels of the region is
    compared with the palette of :class:`Truth`.

    Returns:
        ``None`` for a region of which the ground truth shows too little; else ``named``, ``read``,
        ``right``, ``delta_e`` to the named colour, the ``rgb`` read, and the number of ``pixels``.
    """
    rest = FlameParams.zeros(1, figure.head.n_shape, figure.head.n_expression)
    vertices = figure.vertices(rest, shape=truth.figure.shape.to(figure.shape))
    rgb = figure.render(vertices, stage.cameras(), stage.background).rgb[0].cpu()
    return read_colours(rgb, truth.labels, truth.palettes, named)


def read_colours(
    rgb: Tensor,
    labels: Tensor,
    palettes: Mapping[str, Mapping[str, Tensor]],
    named: Mapping[str, str],
) -> dict[str, dict[str, Any] | None]:
    """What is read from pictures ``rgb [..., 3]`` of which the ground truth's ``labels [...]``
    are known, and for each region with enough pixels the palette; see :func:`colours`."""
    results: dict[str, dict[str, Any] | None] = {}
    for region, name in named.items():
        palette = palettes.get(region)
        if palette is None:
            results[region] = None
            continue
        mask = labels == label(region)
        median = rgb[mask].median(0).values
        read = nearest_name(median, palette)
        results[region] = {
            "named": name,
            "read": read,
            "right": read == name,
            "delta_e": float(difference(median, palette[name])),
            "rgb": [round(float(v), 4) for v in median],
            "pixels": int(mask.sum()),
        }
    return results


@torch.no_grad()
def face(figure: Figure, truth: Truth, stage: Stage) -> dict[str, Any]:
    """Openings and holes, from the close camera."""
    camera = stage.close_camera(figure.head)
    mouth, lids, holes = {}, {}, 0.0
    for who, one in (("truth", truth.figure), ("ours", figure)):
        vertices = one.vertices(bench_poses(one.head))
        out = one.render(vertices, camera, stage.background)
        pictures = out.rgb[:, 0].cpu()
        pixels = landmark_pixels(one.head, vertices, camera)
        opened = openings.mouth_opening(pictures, pixels, truth.interior)
        seen = openings.eye_opening(pictures, pixels, truth.interior)
        mouth[who] = float(opened[JAW] - opened[NEUTRAL])
        lids[who] = float(seen[NEUTRAL] - seen[BLINK])
        if one is figure:
            lips = torch.stack(
                [
                    openings.inside(openings.outline(pixels, LIPS_OUTER, p), stage.size, stage.size)
                    for p in range(len(POSES))
                ]
            )
            mesh = rasterize_mesh(vertices, one.head.faces, camera.to(vertices.device))
            through = coverage.holes(
                out.alpha[:, 0, ..., 0].cpu(), out.depth[:, 0, ..., 0].cpu(),
                mesh.depth[:, 0].cpu(), lips,
            )  # fmt: skip
            holes = float(through.mean())
    return {"mouth": _ratio(mouth), "lids": _ratio(lids), "holes": holes}


def _ratio(moved: dict[str, float]) -> dict[str, float | None]:
    """Both movements and ours in units of the ground truth's; None where that is not seen."""
    visible = moved["truth"] >= _VISIBLE_MOVEMENT
    return {**moved, "ratio": moved["ours"] / moved["truth"] if visible else None}


def _of_truth(truth: Truth, stage: Stage, talk: Motion) -> float | None:
    """The ground truth's own correlation, worked out once: what colours can tell at best."""
    if truth.talk is None:
        truth.talk = talk_correlation(truth.figure, truth, stage, talk)
    return truth.talk


def talk_correlation(figure: Figure, truth: Truth, stage: Stage, talk: Motion) -> float | None:
    """Pearson's correlation of the visible opening of the mouth with the driven one, over
    frames of a motion; the first picture is at rest and does not count. None if the ground truth
    shows nothing through its lips."""
    if len(truth.interior.mouth) == 0:
        return None
    frames = for_head(talk, figure.head).params
    step = max(1, len(frames) // TALK_FRAMES)
    rest = FlameParams.zeros(1, figure.head.n_shape, figure.head.n_expression)
    spoken = frames[torch.arange(0, len(frames), step)].replace(shape=rest.shape)
    params = FlameParams.cat([rest, spoken])
    vertices = figure.vertices(params)
    camera = stage.close_camera(figure.head)
    pictures = figure.render(vertices, camera, stage.background).rgb[:, 0].cpu()
    pixels = landmark_pixels(figure.head, vertices, camera)
    visible = openings.mouth_opening(pictures, pixels, truth.interior)
    driven = openings.driven_opening(pixels, len(pictures))
    return openings.correlation(visible[1:], driven[1:])
