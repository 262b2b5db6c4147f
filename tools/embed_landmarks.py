"""Find MediaPipe's face landmarks on a head's surface.

    python -m tools.embed_landmarks load/flame/open_head.npz            # adds them to the file
    python -m tools.embed_landmarks FLAME2020/generic_model.pkl --out load/flame/flame_landmarks.npz

needs ``pip install mediapipe==0.10.21`` (which pins numpy below 2: use an environment of its own).

The detector runs on plainly shaded pictures of the head from several sides with the mouth closed
and open, and with the eyes shut where the head's actions have names. Every detection is cast back
onto the mesh, which gives each landmark many candidate points; the one that lands nearest to the
detections over *all* pictures is kept. The open mouth is what tells the upper lip's inner edge from
the lower one's: closed, they fall on the same pixel. The shut eyes tell the brow's lower edge from
the lid below it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import mediapipe as mp
import numpy as np
import torch
from numpy.typing import NDArray

from headstudio.flame import FlameParams, HeadModel
from headstudio.guidance._mediapipe_topology import (
    CONTROL_LANDMARKS,
    FACE_OVAL,
    LEFT_BROW,
    PUPILS,
    RIGHT_BROW,
)
from headstudio.paths import atomic_write
from headstudio.render import Cameras
from headstudio.render.mesh import rasterize_mesh, shade_mesh

View = dict[str, Any]

SIZE = 640
AZIMUTHS = (-40.0, -20.0, 0.0, 20.0, 40.0)
ELEVATIONS = (-12.0, 0.0, 15.0)
JAW_ANGLES = (0.0, 0.12, 0.25)
DISTANCE, FOVY = 5.0, 20.0
OVAL_CANDIDATES = 7
BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
REACH = 5.0  # pixels
IRIS_DEG = 27.0  # half the angle an iris takes of its eyeball


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("head", type=Path)
    parser.add_argument("--out", type=Path, help="default: add them to the head's own .npz")
    args = parser.parse_args()

    head = HeadModel.load(args.head)
    cameras = Cameras.orbit(
        *np.array([(a, e) for e in ELEVATIONS for a in AZIMUTHS]).T, DISTANCE, FOVY, SIZE, SIZE
    )
    poses = detection_poses(head)
    views = [
        {**view, "pose": i} for i in range(len(poses)) for view in detect(head, poses[i], cameras)
    ]
    print(f"a face was found in {len(views)} of {len(poses) * cameras.c2w.shape[1]} pictures")
    pupils = {pupil.landmark: joint for pupil, joint in zip(PUPILS, (4, 3), strict=True)}
    drawn = [index for index in CONTROL_LANDMARKS if index not in pupils]
    table = [embed(head, views, index) for index in drawn]
    error = np.array([row[2] for row in table])
    print(
        f"reprojection: median {np.median(error):.2f} px, worst {error.max():.2f} px at {SIZE} px"
    )
    table += [(*front_of_eyeball(head, joint), 0.0) for joint in pupils.values()]
    index = np.array([*drawn, *pupils])
    face = np.array([row[0] for row in table])
    barycentric = np.array([row[1] for row in table])
    write(args.head, args.out, index, face, barycentric)


def detection_poses(head: HeadModel) -> FlameParams:
    """The mouth at each of JAW_ANGLES, then the eyes shut if the head has actions of that name."""
    blinks = [head.expression_names.index(n) for n in BLINKS if n in head.expression_names]
    count = len(JAW_ANGLES) + bool(blinks)
    params = FlameParams.zeros(count, head.n_shape, head.n_expression)
    params.jaw_pose[: len(JAW_ANGLES), 0] = torch.tensor(JAW_ANGLES)
    if blinks:
        params.expression[-1, blinks] = 1.0
    return params


def detect(head: HeadModel, params: FlameParams, cameras: Cameras) -> list[View]:
    """The views in which a face was found, with its landmarks [478,2] in pixels."""
    with torch.no_grad():
        vertices = head.world_frame().to_world(head(params))
        pictures = shade_mesh(vertices, head.faces, cameras, face_colors=paint_eyes(head))[0]
        surface = rasterize_mesh(vertices, head.faces, cameras)
        view_matrices, intrinsics = cameras.viewmats()[0], cameras.intrinsics()[0]
    found = []
    with mp.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.5
    ) as detector:
        for c, picture in enumerate(pictures):
            result = detector.process((picture.numpy() * 255).astype(np.uint8))
            if not result.multi_face_landmarks:
                continue
            points = result.multi_face_landmarks[0].landmark
            in_camera = vertices[0] @ view_matrices[c, :3, :3].T + view_matrices[c, :3, 3]
            projected = in_camera @ intrinsics[c].T
            found.append(
                {
                    "landmarks": np.array([(p.x * SIZE, p.y * SIZE) for p in points]),
                    "vertices": (projected[:, :2] / projected[:, 2:]).numpy(),
                    "face_id": surface.face_id[0, c].numpy(),
                    "barycentric": surface.barycentric[0, c].numpy(),
                }
            )
    if not found:
        raise SystemExit("no face was found in any picture; is the head upright and facing +z?")
    return found


def paint_eyes(head: HeadModel) -> torch.Tensor:
    """Colours [F,3]: grey skin, white eyeballs with a dark iris, so that lids are where they seem.

    On eyeballs of plain grey the detector takes the upper lid to lie far too low.
    """
    colors = torch.full((len(head.faces), 3), 0.75)
    corners = head.v_template[head.faces]
    for joint in (3, 4):
        ball = (head.lbs_weights[head.faces][:, :, joint] > 0.5).all(dim=1)
        outward = corners[ball].mean(dim=1) - corners[ball].reshape(-1, 3).mean(dim=0)
        gaze = outward[:, 2] / outward.norm(dim=1)
        colors[ball] = 0.95
        colors[ball.nonzero()[gaze > math.cos(math.radians(IRIS_DEG)), 0]] = 0.15
    return colors


def embed(head: HeadModel, views: list[View], index: int) -> tuple[int, NDArray, float]:
    """The triangle, the barycentric coordinates and the median distance in pixels of a landmark."""
    faces = head.faces.numpy()
    # Lids are next to eyeballs, and no landmark but the pupils lies on those. The last entry
    # answers for -1, the background.
    skin = np.append((head.lbs_weights.numpy()[faces][:, :, 3:] < 0.5).all(axis=(1, 2)), False)
    candidates = []
    for view in views:
        pixel = nearest_pixel(skin[view["face_id"]], view["landmarks"][index])
        if pixel is not None:
            candidates.append((view["face_id"][pixel], view["barycentric"][pixel]))
    if not candidates:
        raise SystemExit(f"landmark {index} falls beside the head in every picture")
    face = np.array([candidate[0] for candidate in candidates])
    barycentric = np.array([candidate[1] for candidate in candidates])
    distances = np.stack(
        [
            np.linalg.norm(
                (view["vertices"][faces[face]] * barycentric[..., None]).sum(axis=1)
                - view["landmarks"][index],
                axis=1,
            )
            for view in views
        ]
    )
    # A mean, capped so that pictures in which the point is hidden do not decide. Detectors are less
    # sure of shut eyes, but a brow must not come down with the lid: its worst pose counts.
    pose = np.array([view["pose"] for view in views])
    capped = np.minimum(distances, 12.0)
    means = np.stack([capped[pose == p].mean(axis=0) for p in np.unique(pose)])
    brow = any(index in chain for part in (LEFT_BROW, RIGHT_BROW) for chain in part.chains)
    cost = means.max(axis=0) if brow else means[: len(JAW_ANGLES)].mean(axis=0)
    # The oval follows the silhouette and so slides over the surface; of its best few the middle one
    # keeps it smooth.
    few = OVAL_CANDIDATES if any(index in chain for chain in FACE_OVAL.chains) else 1
    best = np.argsort(cost)[:few]
    points = (head.v_template.numpy()[faces[face[best]]] * barycentric[best][..., None]).sum(axis=1)
    middle = best[np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()]
    return int(face[middle]), barycentric[middle], float(np.median(distances[:, middle]))


def nearest_pixel(wanted: NDArray, point: NDArray) -> tuple[int, int] | None:
    """The (row, column) of the wanted pixel nearest to a point (x, y), if one is within REACH.

    A lid's edge is a pixel wide, and detections of it fall on the eyeball as often as not.
    """
    rows, columns = np.nonzero(wanted)
    distance = np.hypot(columns + 0.5 - point[0], rows + 0.5 - point[1])
    best = int(distance.argmin()) if len(distance) else 0
    if not len(distance) or distance[best] > REACH:
        return None
    return int(rows[best]), int(columns[best])


def front_of_eyeball(head: HeadModel, joint: int) -> tuple[int, NDArray]:
    """The triangle and point where the optical axis leaves an eyeball.

    Detectors see an iris by its colour, which a plain mesh does not have.
    """
    weights = head.lbs_weights.numpy()
    faces, vertices = head.faces.numpy(), head.v_template.numpy().astype(np.float64)
    ball = np.flatnonzero((weights[faces][:, :, joint] > 0.5).all(axis=1))
    centre = vertices[np.unique(faces[ball])].mean(axis=0)
    corners = vertices[faces[ball]]
    # Cast along +z from the centre: solve a + u(b-a) + v(c-a) = centre + t z for each triangle.
    system = np.stack(
        [
            corners[:, 1] - corners[:, 0],
            corners[:, 2] - corners[:, 0],
            np.broadcast_to([0, 0, -1.0], (len(ball), 3)),
        ],
        axis=2,
    )
    usable = np.abs(np.linalg.det(system)) > 1e-14
    u, v, t = np.linalg.solve(system[usable], (centre - corners[usable, 0])[..., None])[..., 0].T
    hit = (u > -1e-6) & (v > -1e-6) & (u + v < 1 + 1e-6) & (t > 0)
    if not hit.any():
        raise SystemExit(f"the axis of the eyeball of joint {joint} meets none of its triangles")
    first = np.flatnonzero(hit)[t[hit].argmax()]
    barycentric = np.clip([1 - u[first] - v[first], u[first], v[first]], 0, 1)
    return int(ball[usable][first]), barycentric / barycentric.sum()


def write(head: Path, out: Path | None, index: NDArray, face: NDArray, bary: NDArray) -> None:
    """Write the table alone, or add it to the head's file."""
    table = {
        "landmark_mediapipe_index": index.astype(np.int32),
        "landmark_face": face.astype(np.int32),
        "landmark_barycentric": bary.astype(np.float32),
    }
    if out is None:
        if head.suffix != ".npz":
            raise SystemExit("a .pkl cannot be added to: give --out")
        out = head
        with np.load(head) as arrays:
            table = {**{key: arrays[key] for key in arrays.files}, **table}
    with atomic_write(out) as temporary:
        np.savez_compressed(temporary, **table)
    print(f"{out}: {len(index)} landmarks")


if __name__ == "__main__":
    main()
