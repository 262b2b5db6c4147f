"""Brows, lashes and beards as splats on the neutral head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from headstudio.characters.anatomy import (
    SIDES,
    UPPER_LID,
    Anatomy,
    Array,
    resample,
)
from headstudio.characters.cloud import Cloud, chain, unit
from headstudio.characters.surface import Surface
from headstudio.errors import HeadStudioError


def empty(anatomy: Anatomy) -> Cloud:
    """One invisible splat, to be padded."""
    x, z = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
    face = anatomy.anchor_faces[:1]
    return Cloud.make(np.zeros((1, 3)), x, z, np.full(3, 1e-3), face, opacity=0.0)


def skin_face(anatomy: Anatomy, points: Array) -> NDArray[np.int64]:
    return anatomy.nearest_face(points, np.flatnonzero(anatomy.skin_faces))


def build_brows(anatomy: Anatomy, surface: Surface, thickness: float, seed: int) -> Cloud:
    """Short hairs inside the brows' outline, lying outwards and a little up."""
    rng, u = np.random.default_rng(seed), anatomy.unit
    parts = []
    for side in SIDES:
        sign = 1.0 if side == "left" else -1.0
        upper, lower = anatomy.brow_outline(side)
        s, w = rng.random(150), rng.random(150)
        at = s * (len(upper) - 1)
        mix, across = _along((upper + lower) / 2, at), _along(upper - lower, at)
        taper = 0.75 * thickness * np.clip(1.25 - 0.75 * s, 0.3, 1.0)
        points = mix + across * ((w - 0.5) * taper)[:, None]
        nearest = nearest_skin(surface, points, ~anatomy.lid_faces)
        normal = surface.normals[nearest]
        height = ((points - surface.cloud.points[nearest]) * normal).sum(1, keepdims=True)
        points = points - (height - 0.0009 * u) * normal
        lean = np.stack([np.full(150, sign), 0.75 - 1.3 * s, np.full(150, -0.3)], 1)
        lean += rng.normal(size=(150, 3)) * 0.2
        parts.append(
            Cloud.make(
                points,
                lean,
                normal,
                np.array([0.0026, 0.0008, 0.0005]) * u,
                surface.cloud.face[nearest],
                opacity=0.9,
                shade=np.clip(rng.normal(0.85, 0.15, 150), 0.5, 1.2),
            )
        )
    return Cloud.cat(parts)


def _along(line: Array, at: Array) -> Array:
    """Points [n, 3] of a polyline [m, 3] at fractional positions [n] in 0 .. m - 1."""
    return np.stack([np.interp(at, np.arange(len(line)), column) for column in line.T], axis=1)


def nearest_skin(
    surface: Surface, points: Array, faces: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """The surface's nearest splats on skin, or on those triangles [F] of the skin: [n]."""
    wanted = surface.skin if faces is None else surface.skin & faces[surface.cloud.face]
    skin = np.flatnonzero(wanted)
    return skin[cKDTree(surface.cloud.points[skin]).query(points)[1]]


def build_lashes(anatomy: Anatomy, surface: Surface, length: float) -> Cloud:
    """A dark line along the upper lids, thicker and longer outwards: [m] splats.

    It rides on the lid's very rim, so that it comes down with it and draws the shut eye.
    """
    u, parts = anatomy.unit, []
    for side in SIDES:
        sign = 1.0 if side == "left" else -1.0
        rim = resample(anatomy.lm(*UPPER_LID[side]), 19)  # from the outer corner inwards
        face = surface.cloud.face[nearest_skin(surface, (rim[1:] + rim[:-1]) / 2)]
        line = rim + np.array([0.0, 0.0004, 0.0055]) * u
        t = np.linspace(0, 1, 19)
        line[:, 2] += length * 0.0012 * u
        line[:, 1] += length * 0.0008 * u * (1 - t)
        line[0] += length * np.array([sign * 0.0030, 0.0016, -0.0012]) * u
        width = (0.0008 + 0.0003 * length) * u
        parts.append(
            chain(
                line,
                width,
                np.array([[0.0, 0.0, 1.0]]),
                face,
                0.7,
                opacity=0.9,
                tint=(0.04, 0.03, 0.03),
            )
        )
    return Cloud.cat(parts)


# --- beards ---------------------------------------------------------------------------------------


def build_beard(anatomy: Anatomy, surface: Surface, style: str, count: int, seed: int) -> Cloud:
    """Short strands of two splats on the bearded skin; exactly ``count`` splats."""
    rng, u = np.random.default_rng(seed), anatomy.unit
    if style == "none":
        return empty(anatomy).resized(count, rng)
    length = {"stubble": 0.0022, "moustache": 0.0085, "goatee": 0.016, "full": 0.014, "long": 0.062}
    if style not in length:
        raise HeadStudioError(f"unknown beard {style!r}; there are none, {', '.join(length)}")
    area = style if style in ("moustache", "goatee") else "full"
    weight = surface.masks[f"beard {area}"] * surface.skin
    spacing = surface.cloud.sizes[:, 0] ** 2
    segments = {"stubble": 1, "long": 5}.get(style, 2)
    n = count // segments
    root = rng.choice(len(weight), n, p=weight * spacing / (weight * spacing).sum())
    normal = surface.normals[root]
    points = surface.cloud.points[root] + rng.normal(size=(n, 3)) * 0.0008 * u
    x = points[:, 0]
    on_lip = surface.masks["beard moustache"][root] > 0.3
    chin_ward = np.clip(1 - np.abs(x) / (0.05 * u), 0.15, 1.0)
    long = length[style] * u * rng.uniform(0.7, 1.0, n)
    if style == "long":
        long = long * chin_ward
    long = np.where(on_lip, np.minimum(long, 0.0085 * u), long)
    sideways = np.where(on_lip, np.sign(x) * 1.4, -x * 2.0 / u)
    fall = np.stack([sideways, np.full(n, -1.0), np.full(n, 0.12)], 1)
    fall += rng.normal(size=(n, 3)) * 0.22
    path = [points]
    direction = unit(0.55 * normal + unit(fall))
    for _ in range(segments):
        path.append(path[-1] + direction * (long / segments)[:, None])
        direction = unit(0.55 * direction + 0.45 * unit(fall))
    strands = np.stack(path, 1)
    middle = ((strands[:, 1:] + strands[:, :-1]) / 2).reshape(-1, 3)
    step = np.diff(strands, axis=1).reshape(-1, 3)
    size = np.linalg.norm(step, axis=1)
    t = np.tile((np.arange(segments) + 0.5) / segments, n)
    width = np.where(style == "stubble", 0.0007, 0.0014) * u
    light = 0.72 + 0.3 * t + 0.12 * unit(middle - anatomy.centroids.mean(0))[:, 1]
    shade = np.repeat(np.clip(rng.normal(1.0, 0.18, n), 0.6, 1.5), segments) * light
    across = np.full_like(size, width)
    cloud = Cloud.make(
        middle,
        step,
        np.repeat(normal, segments, 0),
        np.stack([np.maximum(0.6 * size, width), across, 0.7 * across], 1),
        np.repeat(surface.cloud.face[root], segments),
        opacity=0.5 if style == "stubble" else 0.92,
        shade=shade,
    )
    return cloud.resized(count, rng)
