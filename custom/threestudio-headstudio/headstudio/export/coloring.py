"""Splats to one colour per vertex of the mesh they ride on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.export.subdivide import FineMesh
from headstudio.render.mesh import vertex_normals
from headstudio.render.reference import quats_to_rotations
from headstudio.splats import PosedSplats

FOOTPRINT = 0.35
"""Standard deviation of the area a vertex stands for, in mean edges around it: what the linear
interpolation between vertices can show, and no finer."""
RINGS = 6
"""Rings of triangles around a vertex whose splats are looked for: hair is longer than they are."""
SAME_WAY = 0.3
"""Cosine between where the vertex is looked at from, and where a splat's triangle faces."""
REACH = 3.5
"""Standard deviations after which a splat is taken to end."""
_MAX_ALPHA = 0.99
_PRIOR, _SMOOTHNESS = 1e-3, 2e-3
_BLOCK = 2048  # vertices


def vertex_colors(
    vertices: Tensor, mesh: FineMesh, splats: PosedSplats, face: Tensor, rings: int = RINGS
) -> tuple[Tensor, Tensor]:
    """What somebody sees who looks straight at each vertex from outside.

    A vertex is looked at against its normal (a mean over the vertices around it: the rims of lids
    and lips are seen from the front), by a parallel projection, and the splats on that line are
    blended from the outermost inwards, as in rendering. Only splats count that ride on triangles
    near the vertex, and on ones that face the same way: lips do not colour the teeth behind them,
    lids not the eyeballs, nor long hair the shoulders it falls on, whatever is open or shut in this
    pose. Before the projection is sampled it is blurred to the size of the triangles.

    Where little or nothing covers the surface the colour is that of the vertices around it; on a
    piece of the mesh without any splats, that of the splat nearest in space.

    Args:
        vertices: ``[V', 3]``, world.
        mesh: V' vertices, made from the V of the mesh that the splats ride on.
        splats: of exactly one pose, the one of the vertices.
        face: ``[N]`` int64, the triangle of the coarse mesh that each splat rides on.
        rings: how many rings of coarse triangles around a vertex are near it.

    Returns:
        rgb ``[V', 3]`` in 0..1, of the kind the splats have; and ``[V']``, how much of it the
        splats at the vertex cover, 0..1.
    """
    if splats.means.shape[0] != 1:
        raise HeadStudioError(
            f"vertex_colors takes splats in one pose; {splats.means.shape[0]} were given."
        )
    vertices, face = vertices.detach().cpu().double(), face.cpu()
    posed = (splats.means[0], splats.quats[0], splats.scales[0], splats.opacities, splats.colors)
    means, quats, scales, opacities, rgb = (x.detach().cpu().double() for x in posed)
    axes = quats_to_rotations(quats) * scales[:, None, :]
    edges = _edges(mesh.faces, len(vertices))
    blur = FOOTPRINT * _mean_edge(vertices, edges)
    reach = REACH * scales.amax(-1)
    coarse = vertices[: mesh.weights.shape[1]]
    directions, upright = _directions(coarse, mesh, rings // 3)
    upright = upright[face]

    color, coverage = torch.zeros_like(vertices), torch.zeros_like(vertices[:, 0])
    for vertex, splat in _pairs(mesh, face, rings):
        offset, direction = means[splat] - vertices[vertex], directions[vertex]
        height = (offset * direction).sum(-1)
        aside = (offset - height[:, None] * direction).norm(dim=-1)
        near = (aside < reach[splat] + REACH * blur[vertex]) & (
            (upright[splat] * direction).sum(-1) > SAME_WAY
        )
        vertex, splat, height = vertex[near], splat[near], height[near]
        alpha = _coverage(offset[near], axes[splat], direction[near], blur[vertex] ** 2)
        weight = _blend(vertex, height, (opacities[splat] * alpha).clamp(max=_MAX_ALPHA))
        color.index_add_(0, vertex, weight[:, None] * rgb[splat])
        coverage.index_add_(0, vertex, weight)
    nearest = cKDTree(means.numpy()).query(vertices.numpy())[1]
    filled = _fill(color, coverage, rgb[torch.from_numpy(nearest)], edges)
    return filled.clamp(0, 1).float(), coverage.float()


def _directions(coarse: Tensor, mesh: FineMesh, times: int) -> tuple[Tensor, Tensor]:
    """From where each vertex is looked at, ``[V', 3]``, and the coarse triangles' normals.

    Args:
        coarse: ``[V, 3]``, the vertices of the coarse mesh.
        mesh: the fine one.
        times: how often each normal is turned towards those around it.
    """
    faces = torch.from_numpy(mesh.coarse_faces)
    a, b, c = coarse[faces].unbind(1)
    upright = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    around = _edges(mesh.coarse_faces, len(coarse)) + sparse.eye(len(coarse))
    turned = vertex_normals(coarse[None], faces)[0].numpy()
    for _ in range(times):
        turned = F.normalize(torch.from_numpy(around @ turned), dim=-1).numpy()
    return F.normalize(torch.from_numpy(mesh.weights @ turned), dim=-1), upright


def _edges(faces: np.ndarray, n_vertices: int) -> sparse.csr_matrix:
    """Which vertices are joined, ``[V, V]`` of zeros and ones, symmetric."""
    sides = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    joined = _incidence(sides[:, 0], sides[:, 1], (n_vertices, n_vertices))
    return ((joined + joined.T) > 0).astype(np.float64)


def _mean_edge(vertices: Tensor, edges: sparse.csr_matrix) -> Tensor:
    """Mean length of the edges at each vertex, ``[V]``."""
    pairs = edges.tocoo()
    lengths = np.linalg.norm(vertices.numpy()[pairs.row] - vertices.numpy()[pairs.col], axis=1)
    total = np.bincount(pairs.row, lengths, minlength=len(vertices))
    return torch.from_numpy(total / np.maximum(np.asarray(edges.sum(1)).ravel(), 1))


def _pairs(mesh: FineMesh, face: Tensor, rings: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(vertex, splat) for the splats near each vertex, in pieces that fit into memory."""
    faces, n = mesh.coarse_faces, mesh.weights.shape[1]
    near = _incidence(faces.ravel(), np.repeat(np.arange(len(faces)), 3), (n, len(faces)))
    edges = _edges(faces, n)
    for _ in range(rings - 1):
        near = near + edges @ near
        near.data[:] = 1  # only whether, not on how many ways
    rides = _incidence(face.numpy(), np.arange(len(face)), (len(faces), len(face)))
    near = (near @ rides).tocsr()
    for start in range(0, len(mesh.weights.indptr) - 1, _BLOCK):
        found = (mesh.weights[start : start + _BLOCK] @ near).tocsr()
        vertex = start + np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
        yield torch.from_numpy(vertex), torch.from_numpy(found.indices.astype(np.int64))


def _incidence(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape)


def _coverage(offset: Tensor, axes: Tensor, direction: Tensor, blur: Tensor) -> Tensor:
    """How much of each vertex its splat covers, blurred, before its opacity: ``[M]``, 0..1.

    Args:
        offset: ``[M, 3]`` from the vertex to the splat.
        axes: ``[M, 3, 3]``, the splat's axes as columns, one standard deviation long.
        direction: ``[M, 3]`` unit, to who looks at it.
        blur: ``[M]`` variance.
    """
    helper = F.one_hot(direction.abs().argmin(-1), 3).to(direction)
    right = F.normalize(torch.linalg.cross(direction, helper), dim=-1)
    plane = torch.stack([right, torch.linalg.cross(direction, right)], dim=1)  # [M, 2, 3]
    x, y = (plane @ offset[..., None]).squeeze(-1).unbind(-1)
    flat = plane @ axes
    (a, b), (_, c) = ((flat @ flat.mT)[:, i].unbind(-1) for i in range(2))
    before = (a * c - b * b).clamp(min=0)
    a, c = a + blur, c + blur
    after = a * c - b * b
    exponent = 0.5 * (c * x * x - 2 * b * x * y + a * y * y) / after
    return (before / after).sqrt() * torch.exp(-exponent)


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
