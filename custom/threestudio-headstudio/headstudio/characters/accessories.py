"""What a character wears: glasses, horns, a crown, a headband, an eye patch, a red nose.

Everything here keeps its form: it rides on one triangle of the skull, or of the nose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstudio.characters.anatomy import SIDES, Anatomy, Array, resample
from headstudio.characters.cloud import Cloud, chain, unit
from headstudio.characters.details import empty, nearest_skin, skin_face
from headstudio.characters.surface import Surface
from headstudio.errors import HeadStudioError

_AHEAD = np.array([[0.0, 0.0, 1.0]])


def _skull_anchor(anatomy: Anatomy) -> NDArray[np.int64]:
    """The triangle on top of the skull: [1]."""
    top = np.array([[0.0, anatomy.skull_top, anatomy.axis_z]])
    return anatomy.nearest_face(top, anatomy.anchor_faces)


def _rim(anatomy: Anatomy, side: str, shape: str, z: float, count: int = 44) -> Array:
    """A closed outline [count + 1, 3] in front of an eye."""
    u, eye = anatomy.unit, anatomy.eye_center[side]
    sign = 1.0 if side == "left" else -1.0
    angle = np.linspace(0, 2 * np.pi, count + 1)
    c, s = np.cos(angle), np.sin(angle)
    if shape == "round":
        x, y = 0.0225 * c, 0.0225 * s
    else:  # a superellipse
        x = 0.0255 * np.sign(c) * np.abs(c) ** 0.5
        y = 0.0175 * np.sign(s) * np.abs(s) ** 0.5
        if shape == "sunglasses":
            x, y = x * 1.06, y * 1.12 - 0.002
    x = eye[0] + sign * 0.0015 * u + x * u
    bend = np.clip(np.abs(x) - 0.012 * u, 0, None) ** 2 * 3.0 / u  # wrapped around the face
    return np.stack([x, eye[1] - 0.002 * u + y * u, z - bend], 1)


def build_glasses(anatomy: Anatomy, surface: Surface, style: str) -> Cloud:
    """Rims, bridge, temples, and dark lenses for sunglasses; rides on the skull as a whole."""
    if style == "none":
        return empty(anatomy)
    u = anatomy.unit
    points = surface.cloud.points[surface.skin]
    near = (np.abs(points[:, 0]) > 0.014 * u) & (np.abs(points[:, 1] - anatomy.eye_y) < 0.017 * u)
    z = float(points[near, 2].max()) + 0.004 * u
    anchor = _skull_anchor(anatomy)
    ahead, width = _AHEAD, (0.0012 if style == "round" else 0.0015) * u
    color = (0.045, 0.04, 0.04)
    parts, rims = [], {}
    for side in SIDES:
        rims[side] = rim = _rim(anatomy, side, style, z)
        parts.append(chain(rim, width, ahead, anchor, tint=color))
        outer = rim[np.abs(rim[:, 0]).argmax()] + [0.0, 0.006 * u, 0.0]
        sign = np.sign(outer[0])
        ear = np.array([sign * (np.abs(points[_beside(anatomy, points), 0]).max() + 0.002 * u),
                        anatomy.eye_y + 0.006 * u, anatomy.axis_z - 0.004 * u])  # fmt: skip
        bow = np.array(
            [max(abs(outer[0]) + 0.004 * u, abs(ear[0])) * sign, outer[1], outer[2] - 0.022 * u]
        )
        parts.append(
            chain(resample(np.stack([outer, bow, ear]), 26), width, ahead, anchor, tint=color)
        )
        if style == "sunglasses":
            parts.append(_lens(rim, u, anchor))
    inner = [r[np.abs(r[:, 0]).argmin()] + [0.0, 0.004 * u, 0.0] for r in rims.values()]
    top = (inner[0] + inner[1]) / 2 + [0.0, 0.003 * u, 0.002 * u]
    parts.append(
        chain(resample(np.stack([inner[0], top, inner[1]]), 8), width, ahead, anchor, tint=color)
    )
    return Cloud.cat(parts)


def _beside(anatomy: Anatomy, points: Array) -> NDArray[np.bool_]:
    u = anatomy.unit
    level = np.abs(points[:, 1] - anatomy.eye_y) < 0.012 * u
    return level & (points[:, 2] > anatomy.axis_z + 0.012 * u)


def _lens(rim: Array, u: float, anchor: NDArray[np.int64]) -> Cloud:
    center = rim[:-1].mean(0)
    rings = [center + (rim[:-1:2] - center) * r for r in (0.12, 0.34, 0.56, 0.78, 0.94)]
    points = np.concatenate(rings)
    size = np.array([0.0030, 0.0030, 0.0006]) * u
    glow = np.clip((points[:, 1] - center[1]) / (0.02 * u), 0, 1)[:, None]
    tint = np.array([0.03, 0.03, 0.035]) + 0.12 * glow * [0.8, 0.9, 1.0]
    return Cloud.make(points, [[1.0, 0, 0]], [[0, 0, 1.0]], size, anchor, opacity=0.97, tint=tint)


# --- accessories ----------------------------------------------------------------------------------


def build_accessory(anatomy: Anatomy, surface: Surface, name: str) -> Cloud:
    """Horns, an eye patch, a crown, a headband; a clown's nose is the paint's."""
    makers = {
        "none": lambda: empty(anatomy),
        "horns": lambda: _horns(anatomy, surface),
        "eye patch": lambda: _eye_patch(anatomy, surface),
        "crown": lambda: _crown(anatomy, surface),
        "headband": lambda: _headband(anatomy, surface),
        "red nose": lambda: _red_nose(anatomy, surface),
    }
    if name not in makers:
        raise HeadStudioError(f"unknown accessory {name!r}; there are {', '.join(makers)}")
    return makers[name]()


def _horns(anatomy: Anatomy, surface: Surface) -> Cloud:
    u, parts = anatomy.unit, []
    top = anatomy.lm(10)[1]
    for sign in (1.0, -1.0):
        wish = np.array([[sign * 0.042 * u, top + 0.026 * u, anatomy.axis_z + 0.062 * u]])
        base = surface.cloud.points[nearest_skin(surface, wish)][0]
        t = np.linspace(0, 1, 14)[:, None]
        line = base + u * (
            np.array([sign * 0.034, 0.050, 0.016]) * t
            + np.array([-sign * 0.024, 0.018, 0.006]) * t**2
            - np.array([0.0, 0.004, 0.0])
        )
        width = u * 0.0095 * (1 - 0.9 * (t[1:, 0] + t[:-1, 0]) / 2)
        face = anatomy.nearest_face(base[None], anatomy.anchor_faces)
        ridges = 0.8 + 0.2 * (np.arange(13) % 2) + 0.5 * t[1:, 0]
        tint = np.array([0.20, 0.15, 0.12]) * ridges[:, None] + 0.06
        parts.append(chain(line, width, _AHEAD, face, 0.6, opacity=0.97, tint=tint))
    return Cloud.cat(parts)


def _band_line(anatomy: Anatomy, surface: Surface, height: Array, out: float, count: int) -> Array:
    """A closed line [count + 1, 3] around the skull at the given heights [count + 1]."""
    u = anatomy.unit
    keep = (
        surface.skin
        & (surface.masks["ears"] < 0.5)
        & (surface.cloud.points[:, 1] > anatomy.mouth[1])
    )
    points = surface.cloud.points[keep]
    angle = np.linspace(0, 2 * np.pi, count + 1)
    around = np.arctan2(points[:, 0], points[:, 2] - anatomy.axis_z)
    radius = np.hypot(points[:, 0], points[:, 2] - anatomy.axis_z)
    line = []
    for a, y in zip(angle, height, strict=True):
        turn = np.abs((around - a + np.pi) % (2 * np.pi) - np.pi)
        weight = (
            np.exp(-0.5 * ((turn / 0.12) ** 2 + ((points[:, 1] - y) / (0.006 * u)) ** 2)) + 1e-12
        )
        r = (radius * weight).sum() / weight.sum() + out * u
        line.append([r * np.sin(a), y, anatomy.axis_z + r * np.cos(a)])
    return np.array(line)


def _band(
    anatomy: Anatomy, surface: Surface, height: Array, out: float, rows: Array, tint: Array
) -> Cloud:
    """Rows of splats around the head; ``rows`` are heights above ``height``, metres."""
    u, count, parts = anatomy.unit, len(height) - 1, []
    anchor = _skull_anchor(anatomy)
    for k, row in enumerate(rows):
        line = _band_line(anatomy, surface, height + row * u, out, count)
        up = unit(line[:-1] - [0.0, 0.0, anatomy.axis_z])
        shade = 0.85 + 0.25 * (k + 1) / len(rows)
        parts.append(chain(line, 0.0028 * u, up, anchor, 0.62, opacity=0.97, tint=tint * shade))
    return Cloud.cat(parts)


def _headband(anatomy: Anatomy, surface: Surface) -> Cloud:
    u = anatomy.unit
    angle = np.linspace(0, 2 * np.pi, 61)
    height = anatomy.lm(10)[1] + u * (0.002 + 0.008 * np.cos(angle))
    rows = np.array([-0.010, -0.005, 0.0, 0.005, 0.010])
    return _band(anatomy, surface, height, 0.015, rows, np.array([0.80, 0.07, 0.07]))


def _crown(anatomy: Anatomy, surface: Surface) -> Cloud:
    u = anatomy.unit
    gold = np.array([0.95, 0.72, 0.14])
    height = np.full(61, anatomy.lm(10)[1] + 0.020 * u)
    band = _band(anatomy, surface, height, 0.019, np.array([-0.006, -0.002, 0.002, 0.006]), gold)
    line = _band_line(anatomy, surface, height + 0.006 * u, 0.020, 60)
    anchor, parts = band.face[:1], [band]
    for k in range(0, 60, 6):
        for j in range(4):  # a point of the crown: four bars that taper
            spread = (2.2 - 0.7 * j) * 0.0022 * u
            base = line[k] + [0.0, (0.004 + 0.0075 * j) * u, 0.0]
            side = unit(np.cross([0.0, 1.0, 0.0], line[k] * [1, 0, 1] - [0, 0, anatomy.axis_z]))
            parts.append(
                Cloud.make(
                    base[None],
                    side[None],
                    unit(base[None] - [0.0, base[1], anatomy.axis_z]),
                    np.array([max(spread, 0.0015 * u), 0.0038 * u, 0.0012 * u]),
                    anchor,
                    opacity=0.97,
                    tint=gold * (0.95 + 0.04 * j),
                )
            )
        gem = line[k] - [0.0, 0.006 * u, 0.0]
        out = unit(gem * [1, 0, 1] - [0, 0, anatomy.axis_z])
        red, blue = np.array([0.85, 0.06, 0.1]), np.array([0.1, 0.2, 0.85])
        parts.append(
            Cloud.make(
                (gem + 0.003 * u * out)[None],
                [[0, 1.0, 0]],
                out[None],
                np.full(3, 0.0024 * u),
                anchor,
                tint=red if k % 12 == 0 else blue,
            )
        )
    return Cloud.cat(parts)


def _eye_patch(anatomy: Anatomy, surface: Surface) -> Cloud:
    """A black disc over the right eye, on a strap around the head."""
    u, eye = anatomy.unit, anatomy.eye_center["right"]
    rings = [(0.0, 1)] + [(0.0035 * k, 6 * k) for k in range(1, 7)]
    offsets = [
        [r * np.cos(a), r * 0.9 * np.sin(a)]
        for r, m in rings for a in np.linspace(0, 2 * np.pi, m, endpoint=False)
    ]  # fmt: skip
    flat = np.array(offsets) * u
    points = np.column_stack([eye[0] + flat[:, 0], eye[1] + flat[:, 1], np.zeros(len(flat))])
    front = surface.skin & (surface.cloud.points[:, 2] > anatomy.axis_z)
    near = front & (np.hypot(*(surface.cloud.points[:, :2] - eye[:2]).T) < 0.026 * u)
    ridge = np.sort(surface.cloud.points[near, 2])[-20:].mean()
    bend = np.clip(-(points[:, 0] - eye[0]), 0, None) ** 2 * 16 / u
    points[:, 2] = ridge + 0.003 * u - bend - 6.0 / u * ((flat / u) ** 2).sum(1) * u
    anchor = _skull_anchor(anatomy)
    black = (0.035, 0.03, 0.03)
    size = np.array([0.0030, 0.0030, 0.0006]) * u
    disc = Cloud.make(points, [[1.0, 0, 0]], [[0, 0, 1.0]], size, anchor, opacity=0.98, tint=black)
    angle = np.linspace(0, 2 * np.pi, 61)
    slant = np.sin(angle)  # +1 on the left
    height = anatomy.eye_y + u * (0.034 + 0.026 * np.cos(angle - np.pi) * -0.2 + 0.020 * slant)
    strap = _band_line(anatomy, surface, height, 0.0022, 60)
    up = unit(strap[:-1] - [0.0, 0.0, anatomy.axis_z])
    return Cloud.cat([disc, chain(strap, 0.0013 * u, up, anchor, opacity=0.97, tint=black)])


def _red_nose(anatomy: Anatomy, surface: Surface) -> Cloud:
    u = anatomy.unit
    points = surface.cloud.points
    middle = surface.skin & (np.abs(points[:, 0]) < 0.006 * u)
    tip = points[np.flatnonzero(middle)[points[middle, 2].argmax()]]
    k = np.arange(70) + 0.5  # a Fibonacci sphere
    polar, turn = np.arccos(1 - 2 * k / 70), np.pi * (1 + 5**0.5) * k
    ball = np.stack([np.sin(polar) * np.cos(turn), np.cos(polar), np.sin(polar) * np.sin(turn)], 1)
    center = tip + np.array([0.0, -0.001, 0.001]) * u
    face = skin_face(anatomy, tip[None])
    light = 0.80 + 0.25 * ball[:, 1:2] + 0.1 * ball[:, 2:]
    tint = np.clip(np.array([0.88, 0.06, 0.06]) * light, 0, 1)
    size = np.array([0.0026, 0.0026, 0.0010]) * u
    return Cloud.make(
        center + ball * 0.0115 * u, np.roll(ball, 1, 1), ball, size, face, opacity=0.97, tint=tint
    )
