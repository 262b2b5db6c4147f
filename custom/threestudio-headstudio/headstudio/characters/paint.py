"""Face paint as colour layers over the skin: each a colour and a coverage per surface splat."""

from __future__ import annotations

import numpy as np

from headstudio.characters.anatomy import Anatomy, Array, polyline_distance, smoothstep
from headstudio.characters.surface import Surface
from headstudio.errors import HeadStudioError


class _Layers:
    """Colours laid one over the other, as a premultiplied RGBA picture on the splats."""

    def __init__(self, count: int) -> None:
        self.color, self.alpha = np.zeros((count, 3)), np.zeros((count, 1))

    def add(self, rgb: tuple[float, float, float] | Array, mask: Array) -> None:
        over = np.clip(mask, 0, 1)[:, None]
        self.color = self.color * (1 - over) + np.asarray(rgb) * over
        self.alpha = self.alpha * (1 - over) + over


def build_paint(name: str, anatomy: Anatomy, surface: Surface) -> Array:
    """Premultiplied RGBA [n, 4] of a face paint; lips are painted after it, eyes are left alone.

    Raises:
        HeadStudioError: for an unknown paint.
    """
    layers = _Layers(len(surface.cloud))
    if name not in _PAINTERS:
        raise HeadStudioError(f"unknown face paint {name!r}; there are {', '.join(_PAINTERS)}")
    _PAINTERS[name](layers, anatomy, surface)
    rgba = np.concatenate([layers.color, layers.alpha], 1)
    return rgba * surface.skin[:, None]


def _bare(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    pass


def _clown(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m, u = surface.masks, anatomy.unit
    layers.add((0.97, 0.96, 0.95), m["face"])
    x, y = np.abs(m["x"]), m["y"]
    eye = anatomy.eye_center["left"]
    diamond = np.abs(x - eye[0]) / (0.011 * u) + np.abs(y - eye[1]) / (0.030 * u)
    layers.add((0.12, 0.30, 0.85), m["face"] * smoothstep(1.08, 0.92, diamond))
    smile = _smile_distance(anatomy, surface)
    layers.add((0.85, 0.06, 0.06), m["face"] * smoothstep(0.0062 * u, 0.0048 * u, smile))


def _smile_distance(anatomy: Anatomy, surface: Surface) -> Array:
    """Distance to the mouth's line, drawn out and up at its corners."""
    u, left, right = anatomy.unit, anatomy.lm(291), anatomy.lm(61)
    out = np.array([0.016, 0.012]) * u
    flip = np.array([-1.0, 1.0])
    line = np.array([right[:2] + flip * out, right[:2], left[:2], left[:2] + out])
    points = surface.cloud.points
    lips = np.maximum(-anatomy.lips_distance(points), 0.0)
    tails = polyline_distance(points[:, :2], line)
    ahead = points[:, 2] > anatomy.axis_z + 0.03 * u
    return np.where(ahead, np.minimum(np.maximum(tails, 0.0015 * u), lips), 1.0)


def _zombie(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m = surface.masks
    everywhere = np.where(surface.skin, 1.0, 0.0)
    layers.add((0.50, 0.58, 0.42), everywhere)
    layers.add((0.36, 0.42, 0.27), 0.75 * smoothstep(0.35, 1.1, surface.noise[:, 0]))
    layers.add((0.40, 0.10, 0.08), 0.85 * smoothstep(1.25, 1.7, surface.noise[:, 1]))
    layers.add((0.10, 0.09, 0.07), 0.85 * m["eye_socket"])
    layers.add((0.33, 0.36, 0.26), 0.7 * m["blush"])
    below = (m["y"] < anatomy.mouth[1]) & (m["y"] > anatomy.chin[1])
    drip = smoothstep(0.7, 1.0, np.cos(m["x"] / anatomy.unit * 620.0)) * below
    near = smoothstep(0.030, 0.018, np.abs(m["x"]) / anatomy.unit)
    layers.add((0.42, 0.03, 0.03), 0.9 * drip * near * m["face"])


def _robot(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    """Seams between panels and bolts; the metal itself is the skin's colour."""
    m, u = surface.masks, anatomy.unit
    points, x, y = surface.cloud.points, np.abs(m["x"]), m["y"]
    azimuth = anatomy.azimuth(points)
    eye, mouth, top = anatomy.eye_center["left"], anatomy.mouth, anatomy.lm(10)
    seams = [np.abs(y - (top[1] - 0.012 * u)), np.abs(azimuth - 1.25) * 0.07]
    seams.append(np.where(y > top[1] - 0.012 * u, x, 1.0))
    cheek = np.array([[eye[0], eye[1] - 0.018 * u], [eye[0] + 0.004 * u, mouth[1] + 0.004 * u],
                      [0.027 * u, anatomy.chin[1] - 0.01 * u]])  # fmt: skip
    front = points[:, 2] > anatomy.axis_z
    seams.append(np.where(front, polyline_distance(np.column_stack([x, y]), cheek), 1.0))
    seams.append(np.abs(y - (anatomy.chin[1] - 0.022 * u)))
    line = np.min(seams, axis=0)
    layers.add((1.0, 1.0, 1.0), 0.20 * smoothstep(0.0044 * u, 0.0022 * u, line))
    layers.add((0.05, 0.06, 0.08), 0.9 * smoothstep(0.0022 * u, 0.0011 * u, line))
    for bx, by in ((0.043, top[1] / u - 0.002), (0.018, top[1] / u - 0.002), (0.052, mouth[1] / u)):
        spot = np.hypot(x - bx * u, y - by * u)
        layers.add((0.10, 0.11, 0.13), front * smoothstep(0.0042 * u, 0.0032 * u, spot))
        layers.add((0.80, 0.82, 0.85), front * smoothstep(0.0026 * u, 0.0016 * u, spot))


def _warrior(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m, u = surface.masks, anatomy.unit
    x, y, eye = np.abs(m["x"]), m["y"], anatomy.eye_center["left"]
    outside = smoothstep(0.013 * u, 0.016 * u, x) * smoothstep(0.060 * u, 0.055 * u, x)
    for k, shift in enumerate((0.017, 0.028)):
        level = eye[1] - shift * u - 0.18 * (x - eye[0])
        stripe = smoothstep(0.0042 * u, 0.0030 * u, np.abs(y - level))
        rgb = (0.82, 0.06, 0.05) if k == 0 else (0.95, 0.93, 0.88)
        layers.add(rgb, m["face"] * outside * stripe)
    brow = smoothstep(0.0035 * u, 0.0025 * u, x) * smoothstep(
        eye[1] + 0.005 * u, eye[1] + 0.01 * u, y
    )
    layers.add((0.82, 0.06, 0.05), m["face"] * brow)


def _skull(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m, u = surface.masks, anatomy.unit
    x, y, eye, mouth = np.abs(m["x"]), m["y"], anatomy.eye_center["left"], anatomy.mouth
    black = (0.03, 0.03, 0.03)
    layers.add((0.93, 0.92, 0.88), m["face"])
    socket = np.hypot((x - eye[0]) / 0.0205, (y - eye[1] - 0.002 * u) / 0.0185) / u
    layers.add(black, m["face"] * smoothstep(1.06, 0.94, socket))
    nose_y = mouth[1] + 0.020 * u
    nose = x / (0.010 * u) + np.abs(y - nose_y) / (0.016 * u)
    layers.add(black, m["face"] * smoothstep(1.1, 0.95, nose) * (y > nose_y - 0.010 * u))
    teeth = smoothstep(0.55, 0.85, np.cos(x / u * 2 * np.pi / 0.0075)) * (x < 0.040 * u)
    row = smoothstep(0.013 * u, 0.011 * u, np.abs(y - mouth[1] + 0.002 * u))
    layers.add(black, m["face"] * teeth * row)
    line = smoothstep(0.0022 * u, 0.0012 * u, np.abs(y - mouth[1])) * (x < 0.046 * u)
    layers.add(black, m["face"] * line)
    hollow = np.hypot((x - 0.052 * u) / 0.011, (y - mouth[1] - 0.006 * u) / 0.020) / u
    layers.add((0.25, 0.24, 0.23), 0.8 * m["face"] * smoothstep(1.2, 0.7, hollow))


def _tiger(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m, u = surface.masks, anatomy.unit
    x, y, mouth = np.abs(m["x"]), m["y"], anatomy.mouth
    layers.add((0.96, 0.53, 0.10), m["face"])
    muzzle = np.hypot(x / 0.030, (y - mouth[1]) / 0.020) / u
    layers.add((0.97, 0.95, 0.90), m["face"] * smoothstep(1.1, 0.85, muzzle))
    wave = 0.004 * u * np.sin(y / u * 260.0)
    side = smoothstep(0.034 * u, 0.040 * u, x)
    stripes = smoothstep(0.45, 0.75, np.cos((y + 0.35 * x + wave) / u * 2 * np.pi / 0.017))
    layers.add((0.05, 0.04, 0.04), m["face"] * side * stripes)
    brow = anatomy.lm(105)[1] + 0.012 * u
    crown = smoothstep(0.45, 0.75, np.cos((y - 0.5 * x) / u * 2 * np.pi / 0.014))
    width = smoothstep(0.030 * u, 0.024 * u, x)
    layers.add((0.05, 0.04, 0.04), m["face"] * (y > brow) * crown * width)
    nose_y = mouth[1] + 0.020 * u
    nose = np.hypot(x / 0.009, (y - nose_y) / 0.006) / u
    layers.add((0.10, 0.05, 0.05), m["face"] * smoothstep(1.1, 0.9, nose))


def _mask(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m, u = surface.masks, anatomy.unit
    x, y, eye = np.abs(m["x"]), m["y"], anatomy.eye_center["left"]
    half = np.interp(
        x, [0.0, 0.010 * u, eye[0], 0.055 * u, 0.09 * u], [0.008, 0.011, 0.021, 0.014, 0.010]
    )
    band = smoothstep(0.0015 * u, -0.0015 * u, np.abs(y - eye[1] - 0.003 * u) - half * u)
    scalp = smoothstep(100.0, 85.0, np.degrees(anatomy.azimuth(surface.cloud.points)))
    layers.add((0.035, 0.035, 0.045), band * scalp * (1 - m["ears"]))


def _tribal(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    """Darker stripes from the sides towards the middle of the face, and pale dots on it."""
    m, u = surface.masks, anatomy.unit
    x, y, top = np.abs(m["x"]), m["y"], anatomy.lm(10)[1]
    bend = (y - 0.30 * x + 0.0012 * u * np.sin(x / u * 220.0)) / u
    stripes = smoothstep(0.30, 0.70, np.cos(bend * 2 * np.pi / 0.020))
    side = smoothstep(0.020 * u, 0.034 * u, x)
    layers.add((0.02, 0.05, 0.20), 0.55 * m["face"] * side * stripes * (1 - m["eye_socket"]))
    middle = smoothstep(0.0045 * u, 0.0030 * u, x) * (y > anatomy.eye_y + 0.012 * u)
    layers.add((0.02, 0.05, 0.20), 0.55 * m["face"] * middle * (y < top))
    for dx, dy in (
        (0.010, 0.030),
        (0.020, 0.036),
        (0.031, 0.034),
        (0.022, -0.020),
        (0.030, -0.026),
    ):
        spot = np.hypot(x - dx * u, y - anatomy.eye_y - dy * u)
        layers.add((0.85, 0.95, 1.0), 0.9 * m["face"] * smoothstep(0.0024 * u, 0.0014 * u, spot))


def _eye_shadow(layers: _Layers, anatomy: Anatomy, surface: Surface) -> None:
    m, u = surface.masks, anatomy.unit
    above = smoothstep(-0.004 * u, 0.002 * u, m["y"] - anatomy.eye_y)
    below_brow = 1 - m["brows"]
    layers.add((0.45, 0.12, 0.55), 0.85 * m["eye_socket"] * above * below_brow)


_PAINTERS = {
    "none": _bare,
    "clown": _clown,
    "zombie": _zombie,
    "robot": _robot,
    "warrior": _warrior,
    "skull": _skull,
    "tiger": _tiger,
    "mask": _mask,
    "tribal": _tribal,
    "eye shadow": _eye_shadow,
}
