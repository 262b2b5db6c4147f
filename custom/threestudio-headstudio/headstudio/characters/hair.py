"""Hair: strands that grow out of the scalp, are combed, and do not run into the head.

A strand is a chain of elongated splats, bound to the triangle of its root or of the nearest part
of the skull that keeps still. All strands of a style grow at once; a style is a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from headstudio.characters.anatomy import Anatomy, Array, smoothstep
from headstudio.characters.cloud import Cloud, unit
from headstudio.characters.hair_styles import STYLES, HairStyle
from headstudio.characters.surface import Surface
from headstudio.errors import HeadStudioError

Comb = Callable[["Scalp", Array], Array]


class Scalp:
    """What strands need to know about a head: roots, and a surface to stay off."""

    def __init__(self, anatomy: Anatomy, surface: Surface) -> None:
        self.anatomy = anatomy
        u = anatomy.unit
        keep = surface.skin & (surface.masks["ears"] < 0.5)
        self._points, self._normals = surface.cloud.points[keep], surface.normals[keep]
        self._tree = cKDTree(self._points)
        on_scalp = surface.masks["scalp"] > 0.5
        self.roots = surface.cloud.points[on_scalp]
        self.root_normals = surface.normals[on_scalp]
        self.crown = np.array([0.0, anatomy.skull_top - 0.004 * u, anatomy.axis_z - 0.045 * u])
        back = self._points[:, 2].min()
        self.tail = np.array([0.0, anatomy.skull_top - 0.040 * u, back + 0.004 * u])
        self.bun = np.array([0.0, anatomy.skull_top + 0.012 * u, anatomy.axis_z - 0.055 * u])

    def surface_at(self, points: Array) -> tuple[Array, Array]:
        """Signed distance [n] above the skin without ears, and the skin's normal [n, 3] there."""
        distance, index = self._tree.query(points, k=4)
        weight = 1.0 / (distance + 1e-4)
        weight /= weight.sum(1, keepdims=True)
        normal = unit((self._normals[index] * weight[..., None]).sum(1))
        height = ((points[:, None] - self._points[index]) * self._normals[index]).sum(-1)
        return (height * weight).sum(1), normal

    def coverage(self, points: Array, covers: str) -> Array:
        """Which part of the scalp a style leaves hair on: [n] in 0..1."""
        a, u = self.anatomy, self.anatomy.unit
        if covers == "strip":
            strip = smoothstep(0.017 * u, 0.013 * u, np.abs(points[:, 0]))
            return strip * smoothstep(a.eye_y, a.eye_y + 0.01 * u, points[:, 1])
        if covers == "sides":
            top = a.lm(10)[1] + 0.020 * u
            back = points[:, 2] < a.axis_z + 0.005 * u
            top = np.where(back, top + 0.012 * u, top - 0.010 * u)
            side = smoothstep(58.0, 66.0, np.degrees(a.azimuth(points)))
            return side * smoothstep(top + 0.006 * u, top - 0.006 * u, points[:, 1])
        return np.ones(len(points))


# --- direction fields: tangents [n, 3] of combed hair at points [n, 3] ------------------------


def _down(scalp: Scalp, points: Array) -> Array:
    return unit(points - scalp.crown) + np.array([0.0, -0.35, 0.0])


def _up(scalp: Scalp, points: Array) -> Array:
    center = np.array([0.0, scalp.anatomy.lm(10)[1] - 0.03, scalp.anatomy.axis_z])
    return unit(points - center)


def _back(scalp: Scalp, points: Array) -> Array:
    direction = np.tile([0.0, 0.05, -1.0], (len(points), 1))
    direction[:, 1] -= 0.9 * smoothstep(scalp.crown[2] + 0.03, scalp.crown[2] - 0.03, points[:, 2])
    return unit(direction)


def _side(scalp: Scalp, points: Array) -> Array:
    part = 0.024 * scalp.anatomy.unit
    over = np.tanh((part - points[:, 0]) / 0.004)  # the parting is on the subject's left
    direction = np.stack([-over, np.full(len(points), -0.25), np.full(len(points), -0.28)], 1)
    behind = smoothstep(0.0, -0.05, points[:, 2] - scalp.anatomy.axis_z)[:, None]
    return unit(direction * (1 - behind) + _down(scalp, points) * behind)


def _parting(scalp: Scalp, points: Array) -> Array:
    side = np.tanh(points[:, 0] / 0.006)
    behind = smoothstep(0.02, -0.05, points[:, 2] - scalp.anatomy.axis_z)
    away = side * (1 - 0.85 * behind)
    return unit(np.stack([away, -0.35 - 0.7 * behind, -0.45 - 0.3 * behind], 1))


def _to_tail(scalp: Scalp, points: Array) -> Array:
    return unit(scalp.tail - points)


def _to_bun(scalp: Scalp, points: Array) -> Array:
    return unit(scalp.bun - points)


_COMBS: dict[str, Comb] = {
    "down": _down,
    "up": _up,
    "back": _back,
    "side": _side,
    "parting": _parting,
    "tail": _to_tail,
    "bun": _to_bun,
}


# --- growing ----------------------------------------------------------------------------------


def _keep_off_face(scalp: Scalp, style: HairStyle, points: Array, fringe: bool) -> Array:
    """Push points that hang before the face to its side, and there onto the head."""
    a, u = scalp.anatomy, scalp.anatomy.unit
    floor = a.lm(105)[1] + 0.004 * u if fringe else a.hairline_height(points)
    degrees = np.degrees(a.azimuth(points))
    low = smoothstep(a.chin[1] + 0.03 * u, a.chin[1] - 0.02 * u, points[:, 1])
    limit = np.where(points[:, 1] > a.eye_y + 0.02 * u, 64.0, 78.0) + 10.0 * low
    inside = (points[:, 1] < floor - 0.001 * u) & (degrees < limit)
    if not inside.any():
        return points
    offset = points[inside] - [0.0, 0.0, a.axis_z]
    radius = np.hypot(offset[:, 0], offset[:, 2])
    angle = np.radians(limit[inside])
    sign = np.where(offset[:, 0] >= 0, 1.0, -1.0)
    moved = np.stack([sign * radius * np.sin(angle), offset[:, 1], radius * np.cos(angle)], 1)
    moved += [0.0, 0.0, a.axis_z]
    for _ in range(2):  # the head is narrower at its side than it is deep
        height, normal = scalp.surface_at(moved)
        moved -= np.maximum(height - style.volume * u, 0.0)[:, None] * normal * [1.0, 0.0, 1.0]
    points = points.copy()
    points[inside] = moved
    return points


def _grow(
    scalp: Scalp,
    style: HairStyle,
    roots: Array,
    normals: Array,
    comb: Comb,
    rng: np.random.Generator,
    fringe: bool = False,
) -> Array:
    """Strands [S, segments + 1, 3]."""
    a, u = scalp.anatomy, scalp.anatomy.unit
    n, k = len(roots), style.segments
    length = style.length * u * (1 - style.length_spread * rng.random(n))
    layer = rng.random(n) ** 0.7  # where in the thickness of the hair a strand lies
    tilt = rng.normal(size=(n, 3)) * style.scatter
    down = np.array([0.0, -1.0, 0.0])
    points, path = roots.copy(), [roots]
    direction = unit(style.lift * normals + (1 - style.lift) * comb(scalp, roots) + 0.5 * tilt)
    for i in range(k):
        t = (i + 1) / k
        _, normal = scalp.surface_at(points)
        tangent = comb(scalp, points)
        tangent = tangent - (tangent * normal).sum(1, keepdims=True) * normal * (1 - style.lift)
        # Hair over the face is combed aside before it may hang.
        beside = np.ones(n) if fringe else smoothstep(45.0, 80.0, np.degrees(a.azimuth(points)))
        hang = (style.weight * min(1.0, 1.6 * t) * beside)[:, None]
        goal = unit(tangent) * (1 - hang) + down * hang + tilt * (1 - 0.6 * t)
        stiff = 0.75 if style.lift > 0.9 else 0.45
        direction = unit(stiff * direction + (1 - stiff) * unit(goal))
        points = points + direction * (length / k)[:, None]
        if style.lift < 0.9:
            points = _hold(scalp, style, points, layer, t, u)
            points = _keep_off_face(scalp, style, points, fringe)
            points = _hold(scalp, style, points, layer, t, u, push_only=True)
        if style.ends_at is not None:
            end = a.chin[1] + style.ends_at * a.face_height * (1 - 0.12 * rng.random(n))
            points[:, 1] = np.maximum(points[:, 1], np.minimum(end, path[-1][:, 1]))
        path.append(points)
    return _curl(np.stack(path, 1), style, rng, u)


def _hold(
    scalp: Scalp, style: HairStyle, points: Array, layer: Array, t: float, u: float,
    push_only: bool = False,
) -> Array:  # fmt: skip
    """Keep strands out of the head, and those of a style that hugs it near the head."""
    height, normal = scalp.surface_at(points)
    clearance = style.volume * u * (0.25 + 0.75 * layer) * min(1.0, 2.5 * t) + 0.0008 * u
    push = np.maximum(clearance - height, 0.0)
    if not push_only:
        push -= style.hug * np.clip(height - clearance, 0.0, 0.006 * u)
    return points + push[:, None] * normal


def _curl(path: Array, style: HairStyle, rng: np.random.Generator, u: float) -> Array:
    if style.curl == 0 and style.wave == 0:
        return path
    n, k = path.shape[:2]
    t = np.linspace(0, 1, k)
    along = unit(np.gradient(path, axis=1))
    side = unit(np.cross(along, np.array([0.3, 0.2, 1.0])))
    other = np.cross(along, side)
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    if style.wave:  # neighbours wave together, or it reads as frizz
        phase = path[:, :1, 0] * 30 + path[:, :1, 2] * 25 + 0.35 * phase
    angle = 2 * np.pi * style.turns * t + phase
    grow = np.minimum(1.0, 3 * t)
    path = path + (style.curl * u * grow * np.cos(angle))[..., None] * side
    path = path + (style.curl * u * grow * np.sin(angle))[..., None] * other
    return path + (style.wave * u * grow * np.sin(angle))[..., None] * side


# --- to splats ----------------------------------------------------------------------------------


def _shine(points: Array, along: Array, anatomy: Anatomy) -> Array:
    """Hair shines where it runs across the light (Kajiya and Kay's sine), seen from nowhere."""
    light = unit(np.array([0.25, 1.0, 0.45]))
    sine = np.sqrt(np.clip(1 - (along @ light) ** 2, 0, 1))
    center = np.array([0.0, anatomy.eye_y + 0.03, anatomy.axis_z])
    facing = 0.5 + 0.5 * unit(points - center) @ light
    return 0.62 + 0.18 * sine + 0.30 * facing * sine**2


def strands_to_cloud(
    path: Array,
    width: float,
    anatomy: Anatomy,
    rng: np.random.Generator,
    depth_shade: float = 0.35,
) -> Cloud:
    """Chains of splats along strands [S, K + 1, 3]; roots are darker, every strand has a shade."""
    n, k = path.shape[0], path.shape[1] - 1
    middle, step = (path[:, 1:] + path[:, :-1]) / 2, np.diff(path, axis=1)
    length = np.linalg.norm(step, axis=-1)
    t = (np.arange(k) + 0.5) / k
    strand = np.clip(rng.normal(1.0, 0.17, (n, 1)), 0.55, 1.5)
    middle, along = middle.reshape(-1, 3), unit(step.reshape(-1, 3))
    shade = (strand * (1 - depth_shade * (1 - np.minimum(1, 2.2 * t)))).reshape(-1)
    shade = shade * _shine(middle, along, anatomy)
    thick = width * anatomy.unit * np.where(t > 0.85, 0.75, 1.0)
    thick = np.broadcast_to(thick, (n, k)).reshape(-1)
    # A strand that was pushed aside leaves a leap behind.
    usual = np.median(length)
    keep = ((length > 1e-5) & (length < 2.0 * usual)).reshape(-1)
    center = np.array([0.0, anatomy.eye_y, anatomy.axis_z])
    face = anatomy.nearest_face(middle, anatomy.anchor_faces)
    cloud = Cloud.make(
        middle,
        along,
        unit(middle - center),
        np.stack([np.maximum(0.62 * length.reshape(-1), thick), thick, 0.7 * thick], 1),
        face,
        opacity=np.where(keep, 0.93, 0.0),
        shade=shade,
    )
    return cloud


def _fringe(scalp: Scalp, style: HairStyle, rng: np.random.Generator) -> Array:
    """Hair from the front of the scalp, combed forward over the forehead."""
    a, u = scalp.anatomy, scalp.anatomy.unit
    front = (np.degrees(a.azimuth(scalp.roots)) < 55) & (scalp.roots[:, 2] > a.axis_z + 0.03 * u)
    roots, normals = scalp.roots[front], scalp.root_normals[front]
    pick = rng.choice(len(roots), 170)
    forward = HairStyle("front", 0.085, 8, 0, 0.25, 0.55, 0.4, 0.008, scatter=0.05)

    def comb(_: Scalp, points: Array) -> Array:
        return unit(
            np.stack([points[:, 0] * 4, np.full(len(points), -0.5), np.full(len(points), 1.0)], 1)
        )

    path = _grow(scalp, forward, roots[pick], normals[pick], comb, rng, fringe=True)
    floor = a.lm(105)[1] + 0.003 * u + 0.004 * u * rng.random(len(path))
    path[..., 1] = np.maximum(path[..., 1], floor[:, None])
    return path


def _tail(scalp: Scalp, rng: np.random.Generator) -> Array:
    u, n, k = scalp.anatomy.unit, 170, 14
    around = rng.normal(size=(n, 3)) * 0.0055 * u
    t = np.linspace(0, 1, k + 1)[None, :, None]
    out = scalp.tail + np.array([0.0, 0.016, -0.045]) * u
    low = scalp.tail + np.array([0.0, -0.17, -0.050]) * u
    start, end = scalp.tail + around * 0.6, low + around * 1.6
    bend = out + around * 2.6
    path = (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * bend[:, None] + t**2 * end[:, None]
    path[..., 1] += t[..., 0] * rng.uniform(0, 0.03 * u, (n, 1))
    return path


def _bun(scalp: Scalp, rng: np.random.Generator) -> Array:
    """Strands wound around a ball."""
    u, n, k = scalp.anatomy.unit, 170, 12
    radius = 0.029 * u
    axis = unit(rng.normal(size=(n, 3)) * 0.5 + [0.0, 0.9, -0.3])
    start = unit(np.cross(axis, rng.normal(size=(n, 3))))
    side = np.cross(axis, start)
    tilt = rng.uniform(-0.75, 0.95, (n, 1, 1))
    angle = np.linspace(0, 2.4, k + 1)[None, :, None]
    ring = np.cos(angle) * start[:, None] + np.sin(angle) * side[:, None]
    shell = radius * (0.85 + 0.2 * rng.random((n, 1, 1)))
    return scalp.bun + shell * (np.sqrt(1 - tilt**2) * ring + tilt * axis[:, None])


def _clump(path: Array, scalp: Scalp, rng: np.random.Generator) -> Array:
    """Draw the tips of neighbouring strands together into spikes."""
    tips = path[rng.choice(len(path), 170, replace=False)]
    index = cKDTree(tips[:, 0]).query(path[:, 0])[1]
    t = np.linspace(0, 1, path.shape[1])[None, :, None] ** 1.2
    return path * (1 - 0.85 * t) + tips[index] * 0.85 * t


def build_hair(name: str, scalp: Scalp, count: int, seed: int) -> Cloud:
    """Exactly ``count`` splats of a hair style (invisible ones where it needs fewer).

    Raises:
        HeadStudioError: for an unknown style.
    """
    rng = np.random.default_rng(seed)
    if name == "bald":
        blank = Cloud.make(np.zeros((1, 3)), [[1.0, 0, 0]], [[0, 0, 1.0]], np.full(3, 1e-3),
                           scalp.anatomy.anchor_faces[:1], opacity=0.0)  # fmt: skip
        return blank.resized(count, rng)
    if name not in STYLES:
        raise HeadStudioError(f"unknown hair style {name!r}; there are bald, {', '.join(STYLES)}")
    style = STYLES[name]
    cover = scalp.coverage(scalp.roots, style.covers) > 0.5
    roots, normals = scalp.roots[cover], scalp.root_normals[cover]
    pick = _spread(len(roots), style.strands, rng)
    jitter = rng.normal(size=(len(pick), 3)) * 0.0015 * scalp.anatomy.unit
    path = _grow(scalp, style, roots[pick] + jitter, normals[pick], _COMBS[style.comb], rng)
    if name == "spiky":
        path = _clump(path, scalp, rng)
    parts = [strands_to_cloud(path, style.width, scalp.anatomy, rng)]
    if style.extra == "fringe":
        parts.append(strands_to_cloud(_fringe(scalp, style, rng), 0.0021, scalp.anatomy, rng))
    if style.extra == "tail":
        parts.append(strands_to_cloud(_tail(scalp, rng), 0.0030, scalp.anatomy, rng, 0.1))
    if style.extra == "bun":
        parts.append(strands_to_cloud(_bun(scalp, rng), 0.0030, scalp.anatomy, rng, 0.0))
    return Cloud.cat(parts).resized(count, rng)


def _spread(available: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of ``wanted`` roots: every root as often as any other, give or take one."""
    rounds = [rng.permutation(available) for _ in range(-(-wanted // available))]
    return np.concatenate(rounds)[:wanted]
