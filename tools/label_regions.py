"""Label the triangles of the open head: skin, lips, brows, scalp, iris and so on.

    python -m tools.label_regions load/flame/open_head.npz

needs the landmarks of ``tools.embed_landmarks``.  Where anatomy has no edge in the mesh (hairline,
beard, neck) the lines are drawn between landmarks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from headstudio.guidance._mediapipe_topology import LEFT_BROW, LEFT_EYE, LIPS, RIGHT_BROW, RIGHT_EYE
from headstudio.paths import atomic_write

REGIONS = (
    "skin", "forehead", "cheeks", "nose", "eyelids", "brows", "lips", "beard", "ears", "scalp",
    "neck", "eye_white", "iris", "pupil", "teeth", "tongue", "mouth_interior",
)  # fmt: skip
EAR_HALF = (0.024, 0.036)  # metres, along z and y
IRIS_DEG, PUPIL_DEG = 27.0, 11.0
# Heights of the hairline around the head: azimuth from the face in degrees, and the height as a
# share between two landmarks (0 the chin, 1 the top of the face oval).
HAIRLINE = ((0, 1.03), (30, 1.02), (52, 0.88), (62, 0.62), (78, 0.52), (100, 0.40), (125, 0.18),
            (180, 0.10))  # fmt: skip


class Anatomy:
    """The measures of one head the labels are drawn with; FLAME frame, metres."""

    def __init__(self, arrays: dict[str, NDArray]) -> None:
        vertices = arrays["v_template"].astype(np.float64)
        self.centroid = vertices[arrays["f"]].mean(axis=1)
        corner = vertices[arrays["f"][arrays["landmark_face"]]]
        points = (corner * arrays["landmark_barycentric"][..., None]).sum(axis=1)
        self.landmark = dict(zip(arrays["landmark_mediapipe_index"].tolist(), points, strict=True))
        self.chin, self.top = self.landmark[152][1], self.landmark[10][1]
        # Midway between the ears, which is what azimuths are measured about.
        self.middle = (self.landmark[234][2] + self.landmark[454][2]) / 2 - 0.02

    def azimuth(self) -> NDArray:
        """[F] degrees away from the face, 0 in front, 180 behind."""
        x, _, z = self.centroid.T
        return np.degrees(np.abs(np.arctan2(x, z - self.middle)))

    def level(self) -> NDArray:
        """[F] height as a share of the way from the chin to the top of the face oval."""
        return (self.centroid[:, 1] - self.chin) / (self.top - self.chin)

    def inside(self, chain: list[int], grow: float = 1.0) -> NDArray:
        """[F] whether a triangle of the front lies in a loop of landmarks grown about its mean."""
        loop = np.array([self.landmark[index] for index in chain])
        middle = loop.mean(axis=0)
        polygon = Polygon((loop[:, :2] - middle[:2]) * grow + middle[:2])
        near = np.abs(self.centroid[:, 2] - middle[2]) < 0.035
        return polygon.contains_points(self.centroid[:, :2]) & near

    def near_ear(self) -> NDArray:
        """[F] whether a triangle is within an ear's reach, seen from the side."""
        x, y, z = self.centroid.T
        rim = np.abs(x) > 0.88 * np.abs(x[y > self.chin]).max()
        rim &= y > self.chin
        return ((z - z[rim].mean()) / EAR_HALF[0]) ** 2 + (
            (y - y[rim].mean()) / EAR_HALF[1]
        ) ** 2 < 1


def label(arrays: dict[str, NDArray]) -> NDArray:
    """[F] index into ``REGIONS``; later rules win over earlier ones."""
    head = Anatomy(arrays)
    part = arrays["part_names"][arrays["face_part"]]
    azimuth, level = head.azimuth(), head.level()
    result = np.zeros(len(part), dtype=np.int16)

    def set_region(name: str, mask: NDArray) -> None:
        result[mask] = REGIONS.index(name)

    skin = np.isin(part, ["body", "ears"])
    hairline = np.interp(azimuth, *np.array(HAIRLINE, dtype=float).T)
    eye, mouth = head.landmark[33][1], head.landmark[61][1]
    x, y, z = head.centroid.T
    nostril_width = abs(head.landmark[291][0] - head.landmark[61][0]) * 0.42
    nose_front = (head.landmark[133][2] + head.landmark[362][2]) / 2

    set_region("cheeks", skin & (azimuth < 75) & (y < eye))
    set_region("forehead", skin & (azimuth < 75) & (y >= eye) & (level <= hairline))
    jaw_line = np.interp(azimuth, [0, 60, 85, 180], [-0.10, 0.0, 0.2, 0.2])
    set_region("neck", skin & (level < jaw_line))
    face_side = np.interp(azimuth, [0, 14, 26, 45, 78], [0.42, 0.40, 0.24, 0.22, 0.50])
    set_region("beard", skin & (azimuth < 78) & (level < face_side) & (level > jaw_line - 0.04))
    set_region(
        "nose",
        skin
        & (np.abs(x) < nostril_width)
        & (y < eye)
        & (y > mouth + 0.35 * (eye - mouth))
        & (z > nose_front),
    )
    set_region("scalp", skin & (level > hairline))
    for lids in (LEFT_EYE, RIGHT_EYE):
        lower, upper = lids.chains
        set_region("eyelids", skin & head.inside([*lower, *upper[::-1]], grow=1.5))
    for brow in (LEFT_BROW, RIGHT_BROW):
        lower, upper = brow.chains
        set_region("brows", skin & head.inside([*lower, *upper[::-1]], grow=1.1))
    set_region("lips", skin & head.inside([*LIPS.chains[0], *LIPS.chains[1][::-1]], grow=1.03))
    set_region("ears", (part == "ears") & head.near_ear())
    set_region("mouth_interior", part == "mouth_cavity")
    set_region("eyelids", part == "eye_cavity")
    set_region("tongue", part == "tongue")
    set_region("teeth", np.isin(part, ["teeth_upper", "teeth_lower"]))
    for side in ("eye_left", "eye_right"):
        ball = part == side
        outward = head.centroid[ball] - head.centroid[ball].mean(axis=0)
        off_axis = np.degrees(np.arccos(outward[:, 2] / np.linalg.norm(outward, axis=1)))
        names = np.select(
            [off_axis < PUPIL_DEG, off_axis < IRIS_DEG], ["pupil", "iris"], "eye_white"
        )
        result[ball] = [REGIONS.index(name) for name in names]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("head", type=Path)
    args = parser.parse_args()
    with np.load(args.head) as file:
        arrays = {key: file[key] for key in file.files}
    if "landmark_face" not in arrays:
        raise SystemExit(f"{args.head} has no landmarks yet: run tools.embed_landmarks on it first")
    arrays["region_names"] = np.array(REGIONS)
    arrays["face_region"] = label(arrays)
    with atomic_write(args.head) as temporary:
        np.savez_compressed(temporary, **arrays)
    count = np.bincount(arrays["face_region"], minlength=len(REGIONS))
    print(", ".join(f"{name} {n}" for name, n in zip(REGIONS, count, strict=True)))


if __name__ == "__main__":
    main()
