"""Splats on the neutral head before they get a colour: sets of oriented ellipsoids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from headstudio.characters.anatomy import Array


@dataclass
class Cloud:
    """n ellipsoids in FLAME's frame, on the neutral head, each with the triangle it rides on.

    The axes of an ellipsoid: ``along`` (unit, first axis), ``up`` (third axis, made perpendicular).
    ``shade`` multiplies the colour; ``tint`` and ``tint_amount`` override it (a golden crown).
    """

    points: Array  # [n, 3]
    along: Array  # [n, 3]
    up: Array  # [n, 3]
    sizes: Array  # [n, 3] standard deviations, metres
    opacity: Array  # [n]
    shade: Array  # [n]
    face: NDArray[np.int64]  # [n]
    tint: Array  # [n, 3]
    tint_amount: Array  # [n]

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def make(
        cls,
        points: Array,
        along: ArrayLike,
        up: ArrayLike,
        sizes: Array,
        face: NDArray[np.int64],
        opacity: Array | float = 0.95,
        shade: Array | float = 1.0,
        tint: Array | tuple[float, float, float] | None = None,
    ) -> Cloud:
        """Broadcast what is shared; normalise and square the axes."""
        n = len(points)
        along = unit(np.broadcast_to(along, (n, 3)))
        up = np.broadcast_to(up, (n, 3))
        up = unit(up - (up * along).sum(1, keepdims=True) * along)
        return cls(
            points=np.asarray(points, np.float64),
            along=along,
            up=up,
            sizes=np.broadcast_to(sizes, (n, 3)).astype(np.float64),
            opacity=np.broadcast_to(opacity, (n,)).astype(np.float64),
            shade=np.broadcast_to(shade, (n,)).astype(np.float64),
            face=np.broadcast_to(face, (n,)).astype(np.int64),
            tint=np.broadcast_to(0.0 if tint is None else tint, (n, 3)).astype(np.float64),
            tint_amount=np.full(n, 0.0 if tint is None else 1.0),
        )

    @staticmethod
    def cat(parts: list[Cloud]) -> Cloud:
        """All ellipsoids of ``parts``, in order."""
        return Cloud(**{k: np.concatenate([getattr(p, k) for p in parts]) for k in vars(parts[0])})

    def resized(self, count: int, rng: np.random.Generator) -> Cloud:
        """Exactly ``count`` ellipsoids: a random subset, or padded with invisible ones."""
        n = len(self)
        if n >= count:
            index = np.sort(rng.choice(n, count, replace=False))
            return Cloud(**{k: v[index] for k, v in vars(self).items()})
        padding = _invisible(count - n, int(self.face[0]) if n else 0)
        return Cloud.cat([self, padding])

    def quaternions(self) -> Array:
        """Rotations as wxyz [n, 4]: columns along, up x along, up."""
        matrix = np.stack([self.along, np.cross(self.up, self.along), self.up], axis=-1)
        return Rotation.from_matrix(matrix).as_quat()[:, [3, 0, 1, 2]]


def _invisible(count: int, face: int) -> Cloud:
    x, z = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
    return Cloud.make(
        np.zeros((count, 3)), x, z, np.array([1e-3] * 3), np.array([face]), opacity=0.0
    )


def unit(vectors: Array) -> Array:
    """Vectors [..., 3] at length 1; the zero vector becomes +y."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])


def perpendicular(vectors: Array) -> Array:
    """Some unit vectors at right angles to unit vectors [n, 3]."""
    axis = np.eye(3)[np.abs(vectors).argmin(1)]
    return unit(np.cross(vectors, axis))


def chain(
    line: Array,
    width: float | Array,
    up: Array,
    face: NDArray[np.int64],
    overlap: float = 0.7,
    **kwargs: object,
) -> Cloud:
    """A tube along a polyline [m, 3]: one ellipsoid per segment, ``width`` thick."""
    middle, step = (line[1:] + line[:-1]) / 2, np.diff(line, axis=0)
    length = np.linalg.norm(step, axis=1)
    width = np.broadcast_to(width, length.shape)
    sizes = np.stack([np.maximum(overlap * length, width), width, width], 1)
    return Cloud.make(middle, step, up, sizes, face, **kwargs)  # type: ignore[arg-type]
