"""Cutting the head off the body along a smooth surface, with a clean edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


@dataclass
class Cut:
    """``faces`` [F,3] of the piece, ``part`` [F], and ``blend`` [V_new, V_old].

    Each row of ``blend`` holds the one or two old vertices a new vertex is made of, so anything
    linear in the old mesh (positions, displacements, skinning) carries over as ``blend @ old``.
    """

    faces: NDArray
    part: NDArray
    blend: sp.csr_matrix


def cut_where_positive(height: NDArray, faces: NDArray, part: NDArray) -> Cut:
    """Keep where ``height`` [V] is positive; split the triangles in which it changes sign."""
    above = height[faces] > 0
    whole = above.all(axis=1)
    crossed = above.any(axis=1) & ~whole
    new_faces = [list(face) for face in faces[whole]]
    new_part = list(part[whole])
    edges: dict[tuple[int, int], int] = {}

    def on_edge(a: int, b: int) -> int:
        return len(height) + edges.setdefault((min(a, b), max(a, b)), len(edges))

    for face, label in zip(faces[crossed], part[crossed], strict=True):
        kept = [k for k in range(3) if height[face[k]] > 0]
        if len(kept) == 1:
            a, b, c = np.roll(face, -kept[0])
            new_faces.append([a, on_edge(a, b), on_edge(a, c)])
            new_part.append(label)
        else:
            lost = ({0, 1, 2} - set(kept)).pop()
            c, a, b = np.roll(face, -lost)
            new_faces += [[a, b, on_edge(b, c)], [a, on_edge(b, c), on_edge(a, c)]]
            new_part += [label, label]
    return _compact(height, np.array(new_faces), np.array(new_part), list(edges))


def _compact(height: NDArray, faces: NDArray, part: NDArray, edges: list[tuple[int, int]]) -> Cut:
    """Drop unused vertices and write down what each remaining one is made of."""
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    rows, columns, values = [], [], []
    for row, old in enumerate(used):
        if old < len(height):
            rows.append(row), columns.append(old), values.append(1.0)
        else:
            a, b = edges[old - len(height)]
            share = height[a] / (height[a] - height[b])
            rows += [row, row]
            columns += [a, b]
            values += [1.0 - share, share]
    blend = sp.csr_matrix((values, (rows, columns)), shape=(len(used), len(height)))
    return Cut(faces, part, blend)
