"""The head's own surface as splats: even samples, soft shading, and masks for whatever is painted.

Sample points are spread by farthest-point sampling with a spacing that is finest at eyes and lips,
so that few splats close the surface without pinholes. All is done once per head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from headstudio.characters.anatomy import (
    SIDES,
    UPPER_LID,
    Anatomy,
    Array,
    polyline_distance,
    resample,
    smoothstep,
)
from headstudio.characters.cloud import Cloud, perpendicular, unit

IRIS_RADIUS, PUPIL_RADIUS, HIGHLIGHT_RADIUS = 0.0068, 0.0029, 0.0013  # metres, a bit generous
_CANDIDATES_PER_SAMPLE = 7
_SIGMA_PER_RADIUS = 1.25  # standard deviation of a disc over the radius of its cell
_FLATNESS = 0.12


@dataclass
class Surface:
    """Splats of the mesh and scalar fields on them, each [n] in 0..1 unless it says otherwise."""

    cloud: Cloud
    normals: Array  # [n, 3]
    skin: NDArray[np.bool_]
    masks: dict[str, Array]  # "x" and "y" are metres
    shade: Array  # baked light, about 1 on the front of the face
    noise: Array  # [n, K] smooth random fields, zero mean, unit deviation


def build_surface(anatomy: Anatomy, count: int, seed: int) -> Surface:
    """Sample ``count`` splats on the neutral head and compute the fields on them."""
    rng = np.random.default_rng(seed)
    points, face, bary, radius = _samples(anatomy, count, rng)
    corner = anatomy.faces[face]
    normals = vertex_normals(anatomy, face, bary)
    skin = anatomy.skin_faces[face]
    masks = _masks(anatomy, points, face, skin)
    sigma = _SIGMA_PER_RADIUS * radius
    cloud = Cloud.make(
        points + _wider_eyes(anatomy, points, skin),
        perpendicular(normals),
        normals,
        np.stack([sigma, sigma, _FLATNESS * sigma], 1),
        face,
        opacity=0.99,
    )
    light = (_soft_light(anatomy)[corner] * bary).sum(1)
    shade = np.where(skin, light, _inner_light(anatomy, points, masks))
    noise = np.stack([_smooth_noise(points, scale, rng) for scale in (0.03, 0.012, 0.004)], 1)
    return Surface(cloud, normals, skin, masks, shade, noise)


# --- sampling ---------------------------------------------------------------------------------


def _samples(
    anatomy: Anatomy, count: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.int64], Array, Array]:
    """Points [n, 3], triangles [n], barycentric coordinates [n, 3] and cell radii [n] (metres)."""
    corners = anatomy.vertices[anatomy.faces]
    area = np.linalg.norm(_cross(corners), axis=1)
    wish = _relative_spacing(anatomy, corners.mean(1), np.arange(len(area)))
    weight = area / wish**2
    n_candidates = _CANDIDATES_PER_SAMPLE * count
    face = np.sort(rng.choice(len(area), n_candidates, p=weight / weight.sum()))
    r1, r2 = np.sqrt(rng.random(n_candidates)), rng.random(n_candidates)
    bary = np.stack([1 - r1, r1 * (1 - r2), r1 * r2], 1)
    points = (corners[face] * bary[..., None]).sum(1)
    wish = _relative_spacing(anatomy, points, face)
    chosen = _farthest_points(points.astype(np.float32), wish.astype(np.float32), count)
    chosen, radius = _relaxed(points, vertex_normals(anatomy, face, bary), chosen)
    return points[chosen], face[chosen], bary[chosen], radius


def vertex_normals(anatomy: Anatomy, face: NDArray[np.int64], bary: Array) -> Array:
    """Interpolated unit normals [n, 3] of points on triangles."""
    return unit((anatomy.vertex_normals[anatomy.faces[face]] * bary[..., None]).sum(1))


def _relaxed(
    points: Array, normals: Array, chosen: NDArray[np.int64], rounds: int = 3
) -> tuple[NDArray[np.int64], Array]:
    """Lloyd's relaxation among the candidates: samples move to the middle of their cells.

    Returns the samples and the radius of each one's cell, metres. Normals keep the two sides of
    a lid or a lip apart.
    """
    lifted = np.concatenate([points, 0.003 * normals], 1)
    for _ in range(rounds):
        cell = cKDTree(lifted[chosen]).query(lifted)[1]
        size = np.maximum(np.bincount(cell, minlength=len(chosen)), 1)
        middle = np.stack([np.bincount(cell, x, len(chosen)) for x in lifted.T], 1) / size[:, None]
        nearest = cKDTree(lifted).query(middle)[1]
        chosen = np.where(size > 1, nearest, chosen)
    distance, cell = cKDTree(lifted[chosen]).query(lifted)
    radius = np.zeros(len(chosen))
    np.maximum.at(radius, cell, distance)
    around = cKDTree(points[chosen]).query(points[chosen], k=7)[0][:, 1:].mean(1)
    return chosen, np.clip(radius, 0.45 * around, 0.9 * around)


def _relative_spacing(anatomy: Anatomy, points: Array, face: NDArray[np.int64]) -> Array:
    u = anatomy.unit
    azimuth = np.degrees(anatomy.azimuth(points))
    height = points[:, 1]
    on_face = smoothstep(85.0, 65.0, azimuth) * smoothstep(
        anatomy.chin[1] - 0.02 * u, anatomy.chin[1], height
    )
    spacing = 1.9 - 0.9 * on_face
    spacing = np.where(height < anatomy.chin[1] - 0.03 * u, 1.9, spacing)
    ears = anatomy.region_faces("ears")[face]
    spacing = np.where(ears, 1.1, spacing)
    lips = anatomy.lips_distance(points)
    spacing *= np.where(np.abs(lips) < 0.006 * u, 0.75, 1.0)
    spacing *= np.where(np.abs(lips) < 0.0022 * u, 0.62, 1.0)
    lids = anatomy.lid_distance(points)
    spacing *= 1.0 - 0.4 * smoothstep(0.010 * u, 0.005 * u, lids)
    spacing *= 1.0 - 0.4 * smoothstep(0.005 * u, 0.002 * u, lids)
    inner = anatomy.inner_faces[face]
    spacing = np.where(inner, 1.7, spacing)
    for side in SIDES:
        gaze = unit(points - anatomy.eye_center[side])[:, 2]
        eye = anatomy.eye_faces(side)[face]
        spacing = np.where(eye, np.where(gaze > 0.45, 0.42, 2.5), spacing)
    spacing = np.where(anatomy.region_faces("teeth")[face], 0.7, spacing)
    return spacing / anatomy.stretch[face]


@numba.njit(fastmath=True)
def _farthest_points(
    points: NDArray[np.float32], wish: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """Farthest-point sampling of ``points`` [m, 3] in the metric distance / wish: indices."""
    m = points.shape[0]
    nearest = np.full(m, np.float32(1e9))
    chosen = np.empty(count, np.int64)
    current = 0
    for i in range(count):
        chosen[i] = current
        x, y, z = points[current]
        nearest[current] = -1.0
        best, best_at = np.float32(-1.0), 0
        for j in range(m):
            d = nearest[j]
            if d < 0.0:
                continue
            dx, dy, dz = points[j, 0] - x, points[j, 1] - y, points[j, 2] - z
            s = np.sqrt(dx * dx + dy * dy + dz * dz) / wish[j]
            if s < d:
                d = s
                nearest[j] = s
            if d > best:
                best, best_at = d, j
        current = best_at
    return chosen


# --- masks --------------------------------------------------------------------------------------


def _masks(
    anatomy: Anatomy, points: Array, face: NDArray[np.int64], skin: NDArray[np.bool_]
) -> dict[str, Array]:
    u = anatomy.unit
    ears = anatomy.region_faces("ears")[face]
    x, y = points[:, 0], points[:, 1]
    masks: dict[str, Array] = {"ears": ears.astype(float)}
    lips = anatomy.lips_distance(points)
    masks["lips"] = smoothstep(-0.0007 * u, 0.0007 * u, lips)
    masks["mouth_line"] = (
        smoothstep(0.0016 * u, 0.0004 * u, anatomy.mouth_line_distance(points)) * masks["lips"]
    )
    masks["around_mouth"] = smoothstep(-0.014 * u, -0.002 * u, lips)
    masks["brows"] = smoothstep(0.0004 * u, 0.0030 * u, anatomy.brow_distance(points))
    masks["brows"] *= ~anatomy.lid_faces[face]  # else it would come down with the lid
    masks["scalp"] = anatomy.scalp(points, ears)
    for style in ("full", "moustache", "goatee"):
        masks[f"beard {style}"] = anatomy.beard(points, style)
    masks["lid_line"] = smoothstep(0.0018 * u, 0.0006 * u, _upper_lid_distance(anatomy, points))
    masks["eye_socket"] = smoothstep(0.016 * u, 0.004 * u, -anatomy.eye_opening_distance(points))
    masks["blush"] = _blush(anatomy, points)
    masks["wrinkles"] = _wrinkles(anatomy, points)
    front = smoothstep(95.0, 70.0, np.degrees(anatomy.azimuth(points)))
    chin = smoothstep(anatomy.chin[1] - 0.022 * u, anatomy.chin[1] - 0.006 * u, y)
    masks["face"] = front * chin * (1 - masks["scalp"]) * (1 - ears)
    for name in ("lips", "mouth_line", "brows", "scalp", "lid_line", "eye_socket", "face"):
        masks[name] = np.where(skin, masks[name], 0.0)
    masks |= _eye_masks(anatomy, points, face)
    masks["teeth"] = anatomy.region_faces("teeth")[face].astype(float)
    masks["tongue"] = anatomy.region_faces("tongue")[face].astype(float)
    masks["mouth"] = anatomy.region_faces("mouth_interior", "gums")[face].astype(float)
    masks["x"], masks["y"] = x, y
    return masks


def _upper_lid_distance(anatomy: Anatomy, points: Array) -> Array:
    lines = [resample(anatomy.lm(*UPPER_LID[side]), 24) for side in SIDES]
    return np.min([polyline_distance(points, line) for line in lines], axis=0)


def _blush(anatomy: Anatomy, points: Array) -> Array:
    u = anatomy.unit
    total = np.zeros(len(points))
    for side in SIDES:
        eye = anatomy.eye_center[side]
        center = np.array([eye[0] * 1.25, (eye[1] * 0.45 + anatomy.mouth[1] * 0.55)])
        distance = np.linalg.norm(points[:, :2] - center, axis=1)
        total += np.exp(-0.5 * (distance / (0.011 * u)) ** 2)
    tip = (anatomy.eye_y * 0.33 + anatomy.mouth[1] * 0.67) + 0.004 * u
    nose = np.exp(-0.5 * (np.hypot(points[:, 0], points[:, 1] - tip) / (0.007 * u)) ** 2)
    return np.where(points[:, 2] > anatomy.axis_z, np.clip(total + 0.6 * nose, 0, 1), 0.0)


def _wrinkles(anatomy: Anatomy, points: Array) -> Array:
    """Lines of age: across the forehead, from nose to mouth, beside and under the eyes."""
    u = anatomy.unit
    x, y = points[:, 0], points[:, 1]
    top = anatomy.lm(10)[1]
    lines = np.zeros(len(points))
    brow_y = anatomy.lm(105)[1]
    for k in range(2):
        level = brow_y + (top - brow_y) * (0.40 + 0.26 * k) + 0.002 * u * np.cos(x / (0.013 * u))
        level = level - 0.004 * u * (x / (0.03 * u)) ** 2  # down towards the temples
        line = np.exp(-0.5 * ((y - level) / (0.0017 * u)) ** 2)
        reach = (0.026 - 0.006 * k) * u  # they fade out, each at a place of its own
        lines += 0.6 * line * np.exp(-0.5 * (x / reach) ** 4)
    nose_y = anatomy.mouth[1] + 0.022 * u
    for sign in (-1.0, 1.0):
        fold = np.array(
            [[0.017, nose_y / u], [0.025, nose_y / u - 0.009], [0.031, nose_y / u - 0.024]]
        )
        distance = polyline_distance(points[:, :2], resample(fold * [sign * u, u], 20))
        lines += np.exp(-0.5 * (distance / (0.0013 * u)) ** 2)
    for side in SIDES:
        eye = anatomy.eye_center[side]
        arc = np.hypot((x - eye[0]) / 1.35, y - eye[1] - 0.002 * u)
        under = np.exp(-0.5 * ((arc - 0.0135 * u) / (0.0011 * u)) ** 2) * (y < eye[1] - 0.004 * u)
        lines += 0.8 * under
    return np.where(points[:, 2] > anatomy.axis_z, np.clip(lines, 0, 1), 0.0)


def _eye_masks(anatomy: Anatomy, points: Array, face: NDArray[np.int64]) -> dict[str, Array]:
    """Rings about the gaze; an eyeball looks along +z at rest."""
    n = len(points)
    names = ("eye_white", "iris", "pupil", "limbus", "highlight", "lid_shadow")
    masks = {name: np.zeros(n) for name in names}
    u = anatomy.unit
    for side in SIDES:
        eye = anatomy.eye_faces(side)[face]
        offset = points - anatomy.eye_center[side]
        front = offset[:, 2] > 0
        radial = np.where(front, np.hypot(offset[:, 0], offset[:, 1]), 1.0)
        spark = np.hypot(offset[:, 0] - 0.0024 * u, offset[:, 1] - 0.0024 * u)
        edge = 0.0005 * u
        masks["eye_white"] += eye
        masks["iris"] += eye * smoothstep(edge, -edge, radial - IRIS_RADIUS * u)
        masks["pupil"] += eye * smoothstep(edge, -edge, radial - PUPIL_RADIUS * u)
        ring = np.exp(-0.5 * ((radial - IRIS_RADIUS * u) / (0.0008 * u)) ** 2)
        masks["limbus"] += eye * ring
        masks["highlight"] += eye * front * smoothstep(edge, -edge, spark - HIGHLIGHT_RADIUS * u)
        masks["lid_shadow"] += eye * smoothstep(0.0025 * u, 0.006 * u, offset[:, 1])
    return masks


def _wider_eyes(anatomy: Anatomy, points: Array, skin: NDArray[np.bool_]) -> Array:
    """Shift [n, 3] of the lids' splats away from the opening, by about what their width covers."""
    u = anatomy.unit
    near = skin * smoothstep(0.006 * u, 0.001 * u, anatomy.lid_distance(points))
    upper = _upper_lid_distance(anatomy, points) < anatomy.lid_distance(points) + 1e-6
    rise = np.where(upper, 0.0008, -0.0004) * u * near
    return np.stack([np.zeros_like(rise), rise, np.zeros_like(rise)], 1)


# --- light --------------------------------------------------------------------------------------


def _soft_light(anatomy: Anatomy) -> Array:
    """What reaches the skin from a bright sky with a soft key light, fixed to the head at rest.

    Returns:
        About 1 on the front of the face, at every vertex [V].
    """
    normals = anatomy.vertex_normals
    sky = 0.5 + 0.5 * normals[:, 1]
    key = normals @ unit(np.array([0.30, 0.50, 0.85]))
    light = 0.76 + 0.08 * sky + 0.22 * smoothstep(-0.8, 1.0, key)
    return light * (1.0 - 0.75 * _occlusion(anatomy))


def _occlusion(anatomy: Anatomy) -> Array:
    """How hidden every vertex lies, [V] in 0..1: how far its surroundings rise above its tangent
    plane, at three radii, smoothed along the edges."""
    u, rng = anatomy.unit, np.random.default_rng(0)
    corners = anatomy.vertices[anatomy.faces[anatomy.skin_faces]]
    area = np.linalg.norm(_cross(corners), axis=1)
    face = rng.choice(len(area), 30000, p=area / area.sum())
    occluders = (corners[face] * rng.dirichlet(np.ones(3), len(face))[..., None]).sum(1)
    points, normals = anatomy.vertices, anatomy.vertex_normals
    total = np.zeros(len(points))
    for radius, amount, share in ((0.008, 0.35, 1.0), (0.018, 0.5, 0.25), (0.042, 0.5, 0.05)):
        some = occluders[: int(share * len(occluders))]
        index = cKDTree(some).query(points, k=80, distance_upper_bound=radius * u)[1]
        valid = index < len(some)
        offset = some[np.minimum(index, len(some) - 1)] - points[:, None]
        rise = np.clip((offset * normals[:, None]).sum(-1) / (radius * u), 0.0, 1.0)
        mean = (rise * valid).sum(1) / np.maximum(valid.sum(1), 1)
        total += amount * np.clip(3.0 * (mean - 0.04), 0.0, 1.0)
    return np.clip(_smoothed(anatomy, total, 3), 0.0, 1.0)


def _smoothed(anatomy: Anatomy, values: Array, rounds: int) -> Array:
    """Average values [V] with those of the vertices joined by an edge, ``rounds`` times."""
    a, b, c = anatomy.faces.T
    ends = np.concatenate([np.stack([a, b]), np.stack([b, c]), np.stack([c, a])], axis=1)
    degree = np.bincount(ends.ravel(), minlength=len(values))
    for _ in range(rounds):
        sums = np.bincount(ends[0], values[ends[1]], len(values))
        sums += np.bincount(ends[1], values[ends[0]], len(values))
        values = 0.5 * values + 0.5 * sums / np.maximum(degree, 1)
    return values


def _cross(corners: Array) -> Array:
    """Normals [n, 3] of triangles [n, 3, 3], twice their area long."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _inner_light(anatomy: Anatomy, points: Array, masks: dict[str, Array]) -> Array:
    """Darker the deeper inside the mouth; eyes are lit, with the upper lid's shadow on them."""
    u = anatomy.unit
    depth = anatomy.mouth[2] - points[:, 2]
    mouth = 1.0 - 0.55 * smoothstep(0.008 * u, 0.045 * u, depth)
    return np.where(masks["eye_white"] > 0, 1.0 - 0.28 * masks["lid_shadow"], mouth)


def _smooth_noise(points: Array, scale: float, rng: np.random.Generator) -> Array:
    """A sum of random plane waves of about the given wavelength, zero mean, unit deviation."""
    waves = unit(rng.normal(size=(24, 3))) * (2 * np.pi / scale) * rng.uniform(0.6, 1.6, (24, 1))
    field = np.cos(points @ waves.T + rng.uniform(0, 2 * np.pi, 24)).sum(1)
    return (field - field.mean()) / field.std()
