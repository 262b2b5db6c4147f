"""Splats to one colour per vertex of the mesh they ride on."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.render.mesh import vertex_normals
from headstudio.splats import PosedSplats

FOOTPRINT = 0.35
"""Standard deviation of the area a vertex stands for, in mean edges around it: what the linear
interpolation between vertices can show, and no finer."""
_MAX_ALPHA = 0.99
_PRIOR, _SMOOTHNESS = 1e-3, 2e-3
_CHUNK = 2_000_000


def vertex_colors(
    vertices: Tensor,
    faces: Tensor,
    splats: PosedSplats,
    face: Tensor,
    parent: Tensor | None = None,
    rings: int = 2,
) -> tuple[Tensor, Tensor]:
    """What somebody sees who looks straight at each vertex from outside.

    A vertex is looked at against its normal, by a parallel projection, and the splats on that line
    are blended from the outermost inwards, as in rendering. Only splats count that ride on the
    triangles around the vertex: lips do not colour the teeth behind them, lids
    not the eyeballs, nor long hair the shoulders it falls on, whatever is open or shut in this
    pose. Before the projection is sampled it is blurred to the size of the triangles.

    Where little or nothing covers the surface the colour is that of the vertices around it; on a
    piece of the mesh without any splats, that of the splat nearest in space.

    Args:
        vertices: ``[V, 3]``, world.
        faces: ``[F, 3]`` int64.
        splats: of exactly one pose, the one of the vertices.
        face: ``[N]`` int64, the triangle each splat rides on.
        parent: ``[F]`` int64, where the mesh is finer than the one the splats ride on: the
            triangle of that one in which each of ``faces`` lies.
        rings: how many rings of triangles around a vertex count.

    Returns:
        rgb ``[V, 3]`` in 0..1, of the kind the splats have; and ``[V]``, how much of it the splats
        at the vertex cover, 0..1.
    """
    if splats.means.shape[0] != 1:
        raise HeadStudioError(
            f"vertex_colors takes splats in one pose; {splats.means.shape[0]} were given."
        )
    vertices, faces, face = vertices.detach().cpu().double(), faces.cpu(), face.cpu()
    parent = torch.arange(len(faces)) if parent is None else parent.cpu()
    posed = (splats.means[0], splats.quats[0], splats.scales[0], splats.opacities, splats.colors)
    means, quats, scales, opacities, rgb = (x.detach().cpu().double() for x in posed)
    edges = _edges(faces, len(vertices))
    axes = _rotations(quats) * scales[:, None, :]
    normals = vertex_normals(vertices[None], faces)[0]
    blur = (FOOTPRINT * _mean_edge(vertices, edges)) ** 2

    color, coverage = torch.zeros_like(vertices), torch.zeros_like(vertices[:, 0])
    for vertex, splat in _chunks(*_pairs(faces, edges, face, parent, rings)):
        height, alpha = _projected(
            means[splat] - vertices[vertex], axes[splat], normals[vertex], blur[vertex]
        )
        weight = _blend(vertex, height, (opacities[splat] * alpha).clamp(max=_MAX_ALPHA))
        color.index_add_(0, vertex, weight[:, None] * rgb[splat])
        coverage.index_add_(0, vertex, weight)
    nearest = cKDTree(means.numpy()).query(vertices.numpy())[1]
    filled = _fill(color, coverage, rgb[torch.from_numpy(nearest)], edges)
    return filled.clamp(0, 1).float(), coverage.float()


def _edges(faces: Tensor, n_vertices: int) -> sparse.csr_matrix:
    """Which vertices are joined, ``[V, V]`` of zeros and ones, symmetric."""
    f = faces.numpy()
    one, other = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]).T
    joined = sparse.coo_matrix((np.ones(len(one)), (one, other)), (n_vertices, n_vertices))
    joined = ((joined + joined.T) > 0).astype(np.float64)
    return sparse.csr_matrix(joined)


def _mean_edge(vertices: Tensor, edges: sparse.csr_matrix) -> Tensor:
    """Mean length of the edges at each vertex, ``[V]``."""
    pairs = edges.tocoo()
    lengths = np.linalg.norm(vertices.numpy()[pairs.row] - vertices.numpy()[pairs.col], axis=1)
    total = np.bincount(pairs.row, lengths, minlength=len(vertices))
    return torch.from_numpy(total / np.maximum(np.asarray(edges.sum(1)).ravel(), 1))


def _rotations(quats: Tensor) -> Tensor:
    w, x, y, z = (quats / torch.linalg.vector_norm(quats, dim=-1, keepdim=True)).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _pairs(
    faces: Tensor, edges: sparse.csr_matrix, face: Tensor, parent: Tensor, rings: int
) -> tuple[Tensor, Tensor]:
    """(vertex, splat) for the splats of the triangles within so many rings, by vertex."""
    rides = _incidence(parent.numpy(), np.arange(len(faces)))
    splats = _incidence(face.numpy(), np.arange(len(face)), rides.shape[0])
    found = _incidence(faces.numpy().ravel(), np.repeat(np.arange(len(faces)), 3), edges.shape[0])
    for _ in range(rings - 1):
        found = found + edges @ found
    found = (found @ rides.T @ splats).tocsr()
    vertex = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    return torch.from_numpy(vertex), torch.from_numpy(found.indices.astype(np.int64))


def _incidence(row: np.ndarray, column: np.ndarray, rows: int | None = None) -> sparse.csr_matrix:
    shape = (int(row.max()) + 1 if rows is None else rows, int(column.max()) + 1)
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape)


def _chunks(vertex: Tensor, splat: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The pairs in pieces that fit into memory, never parting those of one vertex."""
    pieces, start = [], 0
    while start < len(vertex):
        stop = min(start + _CHUNK, len(vertex))
        if stop < len(vertex):
            first = int(torch.searchsorted(vertex, vertex[stop]))
            stop = first if first > start else int(torch.searchsorted(vertex, vertex[stop] + 1))
        pieces.append((vertex[start:stop], splat[start:stop]))
        start = stop
    return pieces


def _projected(offset: Tensor, axes: Tensor, normal: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """Height above the vertex ``[M]``, and the share of the blurred splat there, 0..1 ``[M]``.

    Args:
        offset: ``[M, 3]`` from the vertex to the splat.
        axes: ``[M, 3, 3]``, the splat's axes as columns, one standard deviation long.
        normal: ``[M, 3]`` unit.
        blur: ``[M]`` variance.
    """
    height = (offset * normal).sum(-1)
    helper = torch.nn.functional.one_hot(normal.abs().argmin(-1), 3).to(normal)
    right = torch.nn.functional.normalize(torch.linalg.cross(normal, helper), dim=-1)
    plane = torch.stack([right, torch.linalg.cross(normal, right)], dim=1)  # [M, 2, 3]
    x, y = (plane @ offset[..., None]).squeeze(-1).unbind(-1)
    flat = plane @ axes
    (a, b), (_, c) = ((flat @ flat.mT)[:, i].unbind(-1) for i in range(2))
    before = (a * c - b * b).clamp(min=0)
    a, c = a + blur, c + blur
    after = a * c - b * b
    exponent = 0.5 * (c * x * x - 2 * b * x * y + a * y * y) / after
    return height, (before / after).sqrt() * torch.exp(-exponent)


def _blend(vertex: Tensor, height: Tensor, alpha: Tensor) -> Tensor:
    """Each pair's share of what is seen at its vertex, ``[M]``, from the outermost inwards."""
    order = np.lexsort((-height.numpy(), vertex.numpy()))
    order_t = torch.from_numpy(order)
    passed = torch.log1p(-alpha[order_t])
    before = passed.cumsum(0) - passed
    own = vertex[order_t]
    first = torch.searchsorted(own, own)
    light = torch.exp(before - before[first])
    weight = torch.empty_like(alpha)
    weight[order_t] = light * alpha[order_t]
    return weight


def _fill(color: Tensor, coverage: Tensor, nearest: Tensor, edges: sparse.csr_matrix) -> Tensor:
    """Colours that follow ``color / coverage`` where there is cover, and the neighbours elsewhere.

    Least squares: ``coverage |c - seen|² + smoothness |differences along edges|² + prior |c -
    nearest|²``.
    """
    degree = sparse.diags(np.asarray(edges.sum(1)).ravel())
    weight = sparse.diags(coverage.numpy() + _PRIOR)
    right = color.numpy() + _PRIOR * nearest.numpy()
    solved = spsolve((weight + _SMOOTHNESS * (degree - edges)).tocsc(), right)
    return torch.from_numpy(solved.reshape(right.shape))
