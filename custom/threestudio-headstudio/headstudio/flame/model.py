"""The head model: FLAME parameters in, vertices out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from smplx.lbs import blend_shapes
from torch import Tensor, nn

from headstudio.errors import HeadStudioError
from headstudio.flame.files import PARENTS, HeadArrays, read_head
from headstudio.flame.frame import WorldFrame
from headstudio.flame.landmarks import (
    FLAME_FACES,
    FLAME_VERTICES,
    LandmarkEmbedding,
    flame_landmarks,
)
from headstudio.flame.params import POSE_NAMES, FlameParams
from headstudio.flame.skinning import skin


class HeadModel(nn.Module):
    """A head in FLAME's format: FLAME itself, or the open head of this repository.

    V vertices, F triangles, 5 joints (root, neck, jaw, left eye, right eye). The frame is FLAME's:
    y up, face along +z, +x the subject's left, metres.

    The buffers are not part of the state dict: a checkpoint then neither grows by the model nor
    carries a file whose licence forbids passing it on. ``content_hash`` tells heads apart.
    """

    v_template: Tensor  # [V, 3]
    faces: Tensor  # [F, 3] int64
    shapedirs: Tensor  # [V, 3, n_shape + n_expression]
    posedirs: Tensor  # [36, V * 3], as smplx.lbs takes them
    J_regressor: Tensor  # [5, V]
    parents: Tensor  # [5] int64
    lbs_weights: Tensor  # [V, 5]
    face_region: Tensor  # [F] int64 into region_names, -1 unlabelled
    _landmark_face: Tensor | None
    _landmark_barycentric: Tensor | None

    def __init__(self, arrays: HeadArrays) -> None:
        super().__init__()
        n_vertices, n_faces = len(arrays.v_template), len(arrays.faces)
        self.name = arrays.name
        self.licence = arrays.licence
        self.content_hash = content_hash(arrays)
        self.n_shape = arrays.n_shape
        self.n_expression = arrays.shapedirs.shape[2] - arrays.n_shape
        self.region_names = list(arrays.region_names)
        self.expression_names = list(arrays.expression_names)
        self.shape_names = list(arrays.shape_names)
        region = arrays.face_region
        if region is None:
            region = np.full(n_faces, -1, np.int64)
        posedirs = arrays.posedirs.reshape(n_vertices * 3, -1).T
        for name, array in (
            ("v_template", arrays.v_template),
            ("faces", arrays.faces),
            ("shapedirs", arrays.shapedirs),
            ("posedirs", np.ascontiguousarray(posedirs)),
            ("J_regressor", arrays.J_regressor),
            ("parents", np.array(PARENTS, np.int64)),
            ("lbs_weights", arrays.weights),
            ("face_region", region),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        self._set_landmarks(arrays.landmarks)

    @classmethod
    def load(cls, path: str | Path) -> HeadModel:
        """Load ``open_head.npz``, or FLAME 2020/2023 as ``.pkl`` or ``.npz``.

        Nothing in the file is executed; FLAME's pickles are read without chumpy.

        Raises:
            HeadStudioError: missing or damaged file, wrong or missing arrays, refused pickle.
        """
        return cls(read_head(path))

    def forward(self, params: FlameParams) -> Tensor:
        """Posed vertices [P, V, 3] in FLAME's frame, by linear blend skinning.

        ``shape`` and ``expression`` may have fewer columns than the model, the rest being zero.
        Always in the precision of the buffers, also under autocast: half precision would move
        vertices by a tenth of a millimetre and more.

        Raises:
            HeadStudioError: coefficients the model does not have.
        """
        return self._pose(params)[0]

    def joints(self, params: FlameParams) -> Tensor:
        """Posed joints [P, 5, 3]: root, neck, jaw, left eye, right eye."""
        return self._pose(params)[1]

    def neutral(self) -> Tensor:
        """The mean head at rest, [V, 3]."""
        return self.v_template

    def _pose(self, params: FlameParams) -> tuple[Tensor, Tensor]:
        n_shape, n_expression = params.shape.shape[1], params.expression.shape[1]
        if n_shape > self.n_shape or n_expression > self.n_expression:
            raise HeadStudioError(
                f"got {n_shape} shape and {n_expression} expression coefficients; head model "
                f"{self.name!r} has {self.n_shape} and {self.n_expression}."
            )
        size = params.batch_size
        dtype = self.v_template.dtype
        with torch.autocast(self.v_template.device.type, enabled=False):
            # The identity part, 300 of 400 directions, is summed for its own rows only: training
            # shares one shape among all poses.
            identity = self.v_template + blend_shapes(
                params.shape.to(dtype), self.shapedirs[..., :n_shape]
            )
            pose = torch.cat(
                [getattr(params, name).to(dtype).expand(size, 3) for name in POSE_NAMES], dim=1
            )
            vertices, joints = skin(
                expression=params.expression.to(dtype).expand(size, -1),
                pose=pose,
                identity=identity,
                expression_directions=self.shapedirs[
                    ..., self.n_shape : self.n_shape + n_expression
                ],
                posedirs=self.posedirs,
                J_regressor=self.J_regressor,
                parents=PARENTS,
                weights=self.lbs_weights,
            )
            translation = params.translation.to(dtype)[:, None]
        return vertices + translation, joints + translation

    @property
    def landmarks(self) -> LandmarkEmbedding:
        """The MediaPipe landmarks, on the device of the model; their numbers stay on the CPU.

        The numbers are looked up by the host alone, at every training step: from a GPU they would
        have to be waited for.

        Raises:
            HeadStudioError: if the head has none.
        """
        if self._landmark_face is None:
            self._set_landmarks(self._default_landmarks())
        assert self._landmark_index is not None
        assert self._landmark_face is not None
        assert self._landmark_barycentric is not None
        return LandmarkEmbedding(
            self._landmark_index, self._landmark_face, self._landmark_barycentric
        )

    def _default_landmarks(self) -> LandmarkEmbedding:
        """The table that fits FLAME's topology; other heads bring their own or have none."""
        if (len(self.v_template), len(self.faces)) != (FLAME_VERTICES, FLAME_FACES):
            raise HeadStudioError(
                f"head model {self.name!r} has no landmarks; embed them with "
                "`python tools/embed_landmarks.py <head file>`."
            )
        embedding = flame_landmarks()
        device = self.v_template.device
        return LandmarkEmbedding(
            embedding.mediapipe_index,
            embedding.face.to(device),
            embedding.barycentric.to(self.v_template),
        )

    def _set_landmarks(self, embedding: LandmarkEmbedding | None) -> None:
        self._landmark_index = None if embedding is None else embedding.mediapipe_index.cpu()
        # Buffers, so that they follow the model to its device.
        for name, field in (
            ("_landmark_face", "face"),
            ("_landmark_barycentric", "barycentric"),
        ):
            value = None if embedding is None else getattr(embedding, field)
            self.register_buffer(name, value, persistent=False)

    def landmark_points(self, vertices: Tensor) -> Tensor:
        """Landmarks [..., L, 3] on given vertices [..., V, 3], in the vertices' own frame."""
        embedding = self.landmarks
        corners = vertices[..., self.faces[embedding.face], :]  # [..., L, 3 corners, 3]
        return (corners * embedding.barycentric.to(vertices.dtype)[..., None]).sum(-2)

    def region_mask(self, *names: str) -> Tensor:
        """Which triangles belong to any of the named regions: bool [F].

        Raises:
            HeadStudioError: a region this head does not name (FLAME itself names none).
        """
        unknown = [name for name in names if name not in self.region_names]
        if unknown:
            known = ", ".join(self.region_names) or "no regions at all"
            raise HeadStudioError(
                f"head model {self.name!r} has no region {', '.join(unknown)}; it names {known}."
            )
        chosen = torch.tensor(
            [self.region_names.index(name) for name in names],
            dtype=torch.int64,
            device=self.face_region.device,
        )
        return torch.isin(self.face_region, chosen)

    def world_frame(self, extent: float = 1.5) -> WorldFrame:
        """The frame that centres the neutral head's bounding box and makes its longest side
        ``extent`` world units."""
        low, high = self.v_template.amin(0), self.v_template.amax(0)
        return WorldFrame(center=(low + high) / 2, scale=extent / float((high - low).max()))


def content_hash(arrays: HeadArrays) -> str:
    """SHA-256 of what decides where a vertex goes: names, shapes and little-endian contents
    (floats as float32) of template, triangles, directions, regressor and weights."""
    digest = hashlib.sha256()
    for name, array in (
        ("v_template", arrays.v_template.astype("<f4")),
        ("f", arrays.faces.astype("<i4")),
        ("shapedirs", arrays.shapedirs.astype("<f4")),
        ("posedirs", arrays.posedirs.astype("<f4")),
        ("J_regressor", arrays.J_regressor.astype("<f4")),
        ("weights", arrays.weights.astype("<f4")),
    ):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
