"""Where things are on a head: eyes, lips, brows, hairline and beard, as smooth functions of points.

Region labels of triangles have edges as jagged as the mesh. Everything here is a function of a
point of the neutral head instead, from its MediaPipe landmarks and joints, so that the splats near
an edge decide for themselves on which side they are.

All numbers are metres in FLAME's frame: y up, face along +z, +x the subject's left.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.splats import triangle_frames

Array = NDArray[np.float64]

# MediaPipe landmark numbers; "left" is the subject's.
# fmt: off
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409,
              291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415,
              308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
UPPER_LID = {"left": (263, 466, 388, 387, 386, 385, 384, 398, 362),
             "right": (33, 246, 161, 160, 159, 158, 157, 173, 133)}
LOWER_LID = {"left": (263, 249, 390, 373, 374, 380, 381, 382, 362),
             "right": (33, 7, 163, 144, 145, 153, 154, 155, 133)}
BROW = {"left": (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
        "right": (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)}
# fmt: on
FACE_TOP, CHIN, LIP_TOP, LIP_BOTTOM = 10, 152, 0, 17
SIDES = ("left", "right")
_EYE_JOINT = {"left": 3, "right": 4}


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below ``low``, 1 above ``high`` (or the other way round if low > high), smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def polyline_distance(points: Array, line: Array, reach: float = 0.03) -> Array:
    """Distance of points [n, D] to a polyline [m, D]: [n].

    Exact up to ``reach``; farther away it is the distance to the line's bounding box, which is
    all that masks need of it.
    """
    low, high = line.min(0), line.max(0)
    distance = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0.0), axis=1)
    near = distance < reach
    start, step = line[:-1], np.diff(line, axis=0)
    offset = points[near, None] - start
    t = (offset * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-12)
    offset -= np.clip(t, 0.0, 1.0)[..., None] * step
    distance[near] = np.sqrt((offset**2).sum(-1).min(1))
    return distance


def polygon_signed_distance(points: Array, polygon: Array) -> Array:
    """Distance of points [n, 2] to a polygon's outline [m, 2], positive inside: [n]."""
    closed = np.concatenate([polygon, polygon[:1]])
    distance = polyline_distance(points, closed)
    within = ((points >= polygon.min(0)) & (points <= polygon.max(0))).all(1)
    (x0, y0), (x1, y1) = closed[:-1].T, closed[1:].T
    px, py = points[within, :1], points[within, 1:]
    crosses = (y0 > py) != (y1 > py)
    at = x0 + (py - y0) * (x1 - x0) / np.where(y1 == y0, 1e-12, y1 - y0)
    inside = np.zeros(len(points), bool)
    inside[within] = (crosses & (px < at)).sum(1) % 2 == 1
    return np.where(inside, distance, -distance)


def resample(line: Array, count: int, smooth: bool = True) -> Array:
    """``count`` evenly spaced points [count, 3] along a polyline [m, 3], corners rounded."""
    if smooth and len(line) > 2:
        for _ in range(2):  # Chaikin's corner cutting, ends kept
            ends = 0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]
            inner = np.stack(ends, 1)
            line = np.concatenate([line[:1], inner.reshape(-1, line.shape[1]), line[-1:]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count)
    return np.stack([np.interp(at, length, column) for column in line.T], axis=1)


class Anatomy:
    """The landmarks of a neutral head and the masks that follow from them.

    Raises:
        HeadStudioError: for a head without region labels (FLAME itself): characters are made for
            the open head.
    """

    def __init__(self, head: HeadModel) -> None:
        if not head.region_names:
            raise HeadStudioError(
                f"characters are built on a head with labelled regions such as "
                f"load/flame/open_head.npz; {head.name!r} has none."
            )
        self.head = head
        self.vertices: Array = head.v_template.detach().cpu().numpy().astype(np.float64)
        self.faces = head.faces.cpu().numpy()
        embedding = head.landmarks
        points = head.landmark_points(head.v_template).detach().cpu().numpy().astype(np.float64)
        self._landmark = dict(zip(embedding.mediapipe_index.tolist(), points, strict=True))
        joints = (head.J_regressor @ head.v_template).cpu().numpy().astype(np.float64)
        self.eye_center = {side: joints[_EYE_JOINT[side]] for side in SIDES}
        weights = head.lbs_weights.cpu().numpy()
        self._eye_vertices = {side: weights[:, _EYE_JOINT[side]] > 0.5 for side in SIDES}

        self.eye_y = float(np.mean([c[1] for c in self.eye_center.values()]))
        self.mouth = (self.lm(61) + self.lm(291)) / 2
        self.chin = self.lm(CHIN)
        self.face_height = float(self.lm(FACE_TOP)[1] - self.chin[1])
        #: All lengths below are for a face 166 mm from hairline to chin and scale with it.
        self.unit = self.face_height / 0.166

    def lm(self, *indices: int) -> Array:
        """MediaPipe landmarks [3] (one index) or [n, 3]."""
        missing = [i for i in indices if i not in self._landmark]
        if missing:
            raise HeadStudioError(f"head {self.head.name!r} lacks MediaPipe landmarks {missing}.")
        found = np.stack([self._landmark[i] for i in indices])
        return found[0] if len(indices) == 1 else found

    # --- parts of the mesh ------------------------------------------------------------------

    def eye_faces(self, side: str) -> NDArray[np.bool_]:
        """Triangles of an eyeball: bool [F]."""
        return self._eye_vertices[side][self.faces].all(1)

    def region_faces(self, *names: str) -> NDArray[np.bool_]:
        """Triangles of those of the named regions that the head has: bool [F]."""
        known = [name for name in names if name in self.head.region_names]
        if not known:
            return np.zeros(len(self.faces), bool)
        return self.head.region_mask(*known).cpu().numpy()

    @cached_property
    def inner_faces(self) -> NDArray[np.bool_]:
        """Triangles one only sees through the eyelids or the open mouth."""
        eyes = self.eye_faces("left") | self.eye_faces("right")
        return eyes | self.region_faces("teeth", "tongue", "gums", "mouth_interior")

    @cached_property
    def skin_faces(self) -> NDArray[np.bool_]:
        """The outer surface: bool [F]."""
        return ~self.inner_faces

    @cached_property
    def anchor_faces(self) -> NDArray[np.int64]:
        """Triangles that only follow the head as a whole, for what must not wobble with the face
        (hair, glasses): int64 [A]."""
        head = self.head
        n_shape = head.n_shape
        moved = head.shapedirs[:, :, n_shape:].norm(dim=1).amax(-1).cpu().numpy()
        rigid = (moved < 1e-3 * self.unit) & (head.lbs_weights[:, 1].cpu().numpy() > 0.95)
        ears = self.region_faces("ears")
        return np.flatnonzero(rigid[self.faces].all(1) & self.skin_faces & ~ears)

    @cached_property
    def lid_faces(self) -> NDArray[np.bool_]:
        """Triangles that a blink moves by more than 1.5 mm: bool [F]."""
        moved = (self._moved_heads[0] - self.head.v_template).norm(dim=-1).cpu().numpy()
        return (moved[self.faces] > 1.5e-3 * self.unit).any(1)

    @cached_property
    def stretch(self) -> Array:
        """How much longer triangles get at most when eyes shut and the mouth opens: [F], 1 to 3.

        Lids lie folded over open eyes; what covers them at rest has gaps when they shut.
        """
        head = self.head
        area = triangle_frames(self._moved_heads, head.faces).area
        rest = triangle_frames(head.v_template[None], head.faces).area
        longer = (area / rest.clamp(min=1e-12)).amax(0).sqrt()
        return longer.clamp(1.0, 3.0).cpu().numpy().astype(np.float64)

    @cached_property
    def _moved_heads(self) -> torch.Tensor:
        """Vertices [3, V, 3] with the eyes shut, the lips in a funnel, and the jaw open."""
        head = self.head
        params = FlameParams.zeros(3, head.n_shape, head.n_expression, head.v_template.device)
        for row, names in enumerate((("eyeBlinkLeft", "eyeBlinkRight"), ("mouthFunnel",))):
            for name in names:
                if name in head.expression_names:
                    params.expression[row, head.expression_names.index(name)] = 1.0
        params.jaw_pose[2, 0] = 0.3
        with torch.no_grad():
            return head(params)

    @cached_property
    def vertex_normals(self) -> Array:
        """Area-weighted unit normals [V, 3] of the neutral head."""
        corner = self.vertices[self.faces]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        total = np.zeros_like(self.vertices)
        for k in range(3):
            np.add.at(total, self.faces[:, k], normal)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)

    # --- coordinates ------------------------------------------------------------------------

    @cached_property
    def skull_top(self) -> float:
        """Height of the highest point."""
        return float(self.vertices[:, 1].max())

    @cached_property
    def axis_z(self) -> float:
        """Depth of the vertical axis through the skull, between forehead and back of the head."""
        level = np.abs(self.vertices[:, 1] - self.lm(FACE_TOP)[1]) < 0.02 * self.unit
        z = self.vertices[level, 2]
        return float((z.min() + z.max()) / 2)

    def azimuth(self, points: Array) -> Array:
        """Angle from the face's direction about the skull's axis, 0 front to pi back: [n]."""
        return np.arctan2(np.abs(points[:, 0]), points[:, 2] - self.axis_z)

    # --- masks, each [n] in 0..1 unless it says otherwise -------------------------------------

    def lips_distance(self, points: Array) -> Array:
        """Signed distance to the lips' outline as seen from the front, positive inside."""
        outline = resample(self.lm(*LIPS_OUTER, LIPS_OUTER[0]), 60)[:-1]
        distance = polygon_signed_distance(points[:, :2], outline[:, :2])
        behind = points[:, 2] < self.mouth[2] - 0.012 * self.unit
        return np.where(behind, -1.0, distance)

    def mouth_line_distance(self, points: Array) -> Array:
        """Distance to the line where the closed lips meet."""
        upper = self.lm(*LIPS_INNER[:11])
        lower = self.lm(*LIPS_INNER[10:], LIPS_INNER[0])[::-1]
        return polyline_distance(points, resample((upper + lower) / 2, 40))

    def lid_distance(self, points: Array) -> Array:
        """Distance to the nearest lid margin."""
        lines = [resample(self.lm(*t[s]), 24) for t in (UPPER_LID, LOWER_LID) for s in SIDES]
        return np.min([polyline_distance(points, line) for line in lines], axis=0)

    def eye_opening_distance(self, points: Array) -> Array:
        """Signed distance in the frontal plane to the nearer eye's outline, positive inside."""
        distances = []
        for side in SIDES:
            outline = self.lm(*UPPER_LID[side], *LOWER_LID[side][-2:0:-1])
            distances.append(polygon_signed_distance(points[:, :2], outline[:, :2]))
        distance = np.max(distances, axis=0)
        return np.where(points[:, 2] < self.axis_z, -1.0, distance)

    def brow_outline(self, side: str) -> Array:
        """A brow as upper and lower line of [9, 3] each: [2, 9, 3]; from nose to temple."""
        ring = self.lm(*BROW[side])
        upper, lower = ring[:5][::-1], ring[5:]
        return np.stack([resample(upper, 9), resample(lower, 9)])

    def brow_distance(self, points: Array) -> Array:
        """Signed distance in the frontal plane to the nearer brow's outline, positive inside."""
        distances = []
        for side in SIDES:
            upper, lower = self.brow_outline(side)
            outline = np.concatenate([upper, lower[::-1]])[:, :2]
            distances.append(polygon_signed_distance(points[:, :2], outline))
        return np.where(points[:, 2] < self.axis_z, -1.0, np.max(distances, axis=0))

    def hairline_height(self, points: Array) -> Array:
        """Height above which hair grows, at the azimuth of each point."""
        u, top = self.unit, self.lm(FACE_TOP)[1]
        eye, mouth = self.eye_y, self.mouth[1]
        degrees = np.array([0, 15, 32, 46, 58, 70, 80, 90, 100, 112, 130, 150, 180.0])
        heights = np.array(
            [
                top + 0.012 * u, top + 0.012 * u, top + 0.013 * u, top + 0.004 * u,
                eye + 0.040 * u, eye + 0.024 * u, eye + 0.002 * u, eye - 0.004 * u,
                eye + 0.008 * u, eye - 0.012 * u, mouth + 0.022 * u, mouth + 0.004 * u, mouth,
            ]
        )  # fmt: skip
        return np.interp(np.degrees(self.azimuth(points)), degrees, heights)

    def scalp(self, points: Array, on_ears: NDArray[np.bool_], softness: float = 0.004) -> Array:
        """Where hair grows on the head; the caller says which points lie on an ear."""
        above = points[:, 1] - self.hairline_height(points)
        soft = softness * self.unit
        return np.where(on_ears, 0.0, smoothstep(-soft, soft, above))

    def beard(self, points: Array, style: str) -> Array:
        """Where a beard of a style of the table grows."""
        u = self.unit
        x, y = np.abs(points[:, 0]), points[:, 1]
        lip_top, lip_bottom = self.lm(LIP_TOP)[1], self.lm(LIP_BOTTOM)[1]
        corner_x = abs(self.lm(291)[0] - self.lm(61)[0]) / 2
        front = smoothstep(self.axis_z - 0.01 * u, self.axis_z + 0.015 * u, points[:, 2])
        off_lips = smoothstep(0.0012 * u, 0.003 * u, -self.lips_distance(points))

        nose_base = lip_top + 0.0125 * u
        edge_top = np.interp(
            x,
            [0.0, corner_x * 0.55, corner_x * 1.3, corner_x * 1.9, 0.055 * u, 0.07 * u],
            [nose_base, nose_base, lip_top - 0.001 * u, lip_bottom + 0.004 * u,
             self.mouth[1] + 0.016 * u, self.eye_y - 0.004 * u],
        )  # fmt: skip
        below = smoothstep(-0.002 * u, 0.003 * u, edge_top - y)
        throat = smoothstep(-0.024 * u, -0.012 * u, y - self.chin[1])
        azimuth = np.degrees(self.azimuth(points))
        full = below * throat * front * off_lips * smoothstep(86.0, 78.0, azimuth)

        above_mouth = smoothstep(-0.005 * u, 0.001 * u, y - self.mouth[1])
        moustache = full * above_mouth * smoothstep(corner_x * 1.35, corner_x * 1.1, x)
        if style == "moustache":
            return moustache
        if style == "goatee":
            around = smoothstep(corner_x * 1.25, corner_x * 1.0, x)
            return full * around
        return full

    # --- nearest skin -------------------------------------------------------------------------

    @cached_property
    def vertex_tree(self) -> cKDTree:
        """Of the vertices of the outer surface; indices are into :attr:`outer_vertices`."""
        return cKDTree(self.vertices[self.outer_vertices])

    @cached_property
    def outer_vertices(self) -> NDArray[np.int64]:
        """Vertices of the skin's triangles: int64."""
        return np.unique(self.faces[self.skin_faces])

    @cached_property
    def centroids(self) -> Array:
        """Centroid of every triangle [F, 3]."""
        return self.vertices[self.faces].mean(1)

    def nearest_face(self, points: Array, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each point the triangle out of ``candidates`` with the nearest centroid: [n]."""
        tree = cKDTree(self.centroids[candidates])
        return candidates[tree.query(points)[1]]
