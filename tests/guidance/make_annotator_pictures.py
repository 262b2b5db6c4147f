"""Let controlnet_aux's MediaPipe-face annotator draw landmarks for test_drawing.py.

Not a test. Run it where ``mediapipe==0.10.21`` and ``controlnet_aux`` are installed (they pin
numpy < 2, hence an environment of their own)::

    pip install mediapipe==0.10.21 controlnet_aux==0.0.10
    python tests/guidance/make_annotator_pictures.py

Only the annotator's drawing is run, not its detector: the landmarks are a made-up face, turned and
moved at random, in part outside the picture, in part said to be invisible. Writes
``data/landmarks.npz`` (``points`` float32 [B, 478, 2], relative to the picture's width and height;
``visible`` bool [B, 478]) and ``data/annotated_<i>.png``.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import cv2
import numpy as np

SIZE = 512
DATA = Path(__file__).parent / "data"


def load_annotator(path: str | None):
    """The annotator's module alone: its package imports torchvision, which drawing needs not."""
    if path is None:
        package = importlib.util.find_spec("controlnet_aux")
        if package is None or package.origin is None:
            raise SystemExit(
                "controlnet_aux is not installed; give --annotator mediapipe_face_common.py"
            )
        path = str(Path(package.origin).parent / "mediapipe_face" / "mediapipe_face_common.py")
    spec = importlib.util.spec_from_file_location("mediapipe_face_common", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ring(indices, center, radii, start, sweep):
    """Landmarks along an arc of an ellipse: {index: (x, y, z)}; angles in degrees, y down."""
    angles = np.radians(start + sweep * np.linspace(0, 1, len(indices)))
    x = center[0] + radii[0] * np.cos(angles)
    y = center[1] + radii[1] * np.sin(angles)
    return {i: (a, b, -0.5 * (a * a + b * b)) for i, a, b in zip(indices, x, y, strict=True)}


def made_up_face(rng: np.random.Generator) -> np.ndarray:
    """[478, 3], about one unit wide, centred on the origin: arcs where a face has its contours."""
    points = np.zeros((478, 3))
    mouth, lid = rng.uniform(0.0, 0.12), rng.uniform(0.005, 0.05)
    oval = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
    oval += [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
    parts = [ring([*oval, 10], (0, 0), (0.42, 0.55), -90, 360)]
    for side, lower, upper, brow_low, brow_high in (
        (
            1,
            [263, 249, 390, 373, 374, 380, 381, 382, 362],
            [263, 466, 388, 387, 386, 385, 384, 398, 362],
            [276, 283, 282, 295, 285],
            [300, 293, 334, 296, 336],
        ),
        (
            -1,
            [33, 7, 163, 144, 145, 153, 154, 155, 133],
            [33, 246, 161, 160, 159, 158, 157, 173, 133],
            [46, 53, 52, 65, 55],
            [70, 63, 105, 66, 107],
        ),
    ):
        eye = (0.18 * side, -0.1)
        parts.append(ring(lower, eye, (0.08 * side, lid), 0, 180))
        parts.append(ring(upper, eye, (0.08 * side, lid), 0, -180))
        parts.append(ring(brow_low, (eye[0], -0.2), (0.12 * side, 0.04), -20, -140))
        parts.append(ring(brow_high, (eye[0], -0.22), (0.12 * side, 0.05), -20, -140))
        points[468 if side < 0 else 473] = (*eye, -0.02)
    for indices, y, height in (
        ([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291], 0.27, 0.08 + mouth),
        ([61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291], 0.27, -0.07),
        ([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308], 0.27, 0.01 + mouth),
        ([78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308], 0.27, -0.01),
    ):
        parts.append(ring(indices, (0, y), (-0.16, height), 0, 180))
    for part in parts:
        for index, point in part.items():
            points[index] = point
    return points


def in_picture(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn, scale and move the face: relative coordinates [478, 2]."""
    yaw, roll = rng.uniform(-0.9, 0.9), rng.uniform(-0.5, 0.5)
    x = face[:, 0] * np.cos(yaw) + face[:, 2] * np.sin(yaw)
    y = face[:, 1]
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    scale = rng.uniform(0.35, 1.1)
    center = 0.5 + rng.uniform(-0.2, 0.2, 2)
    relative = np.stack([x, y], -1) * scale + center
    jitter = rng.normal(0, 0.002, relative.shape) * face.any(-1, keepdims=True)
    return (relative + jitter).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotator", help="mediapipe_face_common.py of controlnet_aux")
    parser.add_argument("--pictures", type=int, default=4)
    arguments = parser.parse_args()
    annotator = load_annotator(arguments.annotator)
    from mediapipe.framework.formats import landmark_pb2

    rng = np.random.default_rng(7)
    faces = np.stack([in_picture(made_up_face(rng), rng) for _ in range(arguments.pictures)])
    # One face that fills the picture exactly, with landmarks on the border itself.
    faces[-1] = np.clip(faces[-1], 0, 1)
    visible = rng.random(faces.shape[:2]) < np.array([1.0, 0.8])[np.arange(len(faces)) % 2, None]
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(DATA / "landmarks.npz", points=faces, visible=visible)
    for i, face in enumerate(faces):
        landmarks = landmark_pb2.NormalizedLandmarkList(
            landmark=[
                landmark_pb2.NormalizedLandmark(x=x, y=y, visibility=float(seen))
                for (x, y), seen in zip(face.tolist(), visible[i], strict=True)
            ]
        )
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        # As generate_annotation does with what its detector found.
        annotator.mp_drawing.draw_landmarks(
            picture,
            landmarks,
            connections=annotator.face_connection_spec.keys(),
            landmark_drawing_spec=None,
            connection_drawing_spec=annotator.face_connection_spec,
        )
        annotator.draw_pupils(picture, landmarks, annotator.iris_landmark_spec, 2)
        # The annotator reverses the channels and calls the result RGB; imwrite wants BGR.
        cv2.imwrite(str(DATA / f"annotated_{i}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
