"""A finer mesh with the same shape: every triangle in four."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass
class FineMesh:
    """Triangles of a finer mesh, and how its vertices come from those of the coarse one."""

    coarse_faces: np.ndarray
    """``[F, 3]`` int64, into V vertices."""
    faces: np.ndarray
    """``[F', 3]`` int64, into V' vertices; those of one coarse triangle follow each other."""
    weights: sparse.csr_matrix
    """``[V', V]``: any attribute ``[V, K]`` of the coarse vertices, multiplied from the left, is
    that of the fine ones. The first V rows are the coarse vertices themselves."""

    @classmethod
    def of(cls, faces: np.ndarray, n_vertices: int, times: int = 0) -> FineMesh:
        """Cut each triangle ``[F, 3]`` in four at the middles of its edges, so many times."""
        faces = np.asarray(faces, np.int64)
        mesh = cls(faces, faces, sparse.csr_matrix(sparse.eye(n_vertices)))
        for _ in range(times):
            mesh = mesh._cut()
        return mesh

    def _cut(self) -> FineMesh:
        n = self.weights.shape[0]
        sides = np.sort(self.faces[:, [[0, 1], [1, 2], [2, 0]]], axis=-1)
        edges, middle = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True)
        ab, bc, ca = (n + middle.reshape(-1, 3)).T
        a, b, c = self.faces.T
        quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = np.stack([np.stack(quarter, -1) for quarter in quarters], 1).reshape(-1, 3)
        halves = sparse.coo_matrix(
            (np.full(edges.size, 0.5), (np.repeat(np.arange(len(edges)), 2), edges.ravel())),
            (len(edges), n),
        )
        weights = sparse.vstack([self.weights, halves @ self.weights])
        return FineMesh(self.coarse_faces, faces, sparse.csr_matrix(weights))
