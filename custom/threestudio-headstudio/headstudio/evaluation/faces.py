"""Would somebody else's face detector find the face, and its features where they were driven to?

Needs the extra ``[detect]``: mediapipe, which pins numpy below 2.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.guidance._mediapipe_topology import CONTOURS
from headstudio.render.pictures import to_bytes

if TYPE_CHECKING:
    from headstudio.evaluation.wild import Fronts

INSTALL = (
    'pip install -e ".[detect]" in this repository, into an environment of its own '
    "(mediapipe 0.10.21 needs numpy below 2)"
)
MIN_CONFIDENCE = 0.5
_OUTER_EYE_CORNERS = (33, 263)


def is_available() -> bool:
    """Whether mediapipe is installed."""
    return importlib.util.find_spec("mediapipe") is not None


def landmark_groups() -> dict[str, set[int]]:
    """MediaPipe landmarks of the control image by feature: face_oval, left_eye, lips …"""
    return {group.name: {i for chain in group.chains for i in chain} for group in CONTOURS}


class FaceDetector:
    """MediaPipe's face mesh, a picture at a time; a context manager.

    Raises:
        HeadStudioError: mediapipe is not installed, or is a release without the face mesh.
    """

    def __init__(self, min_confidence: float = MIN_CONFIDENCE) -> None:
        if not is_available():
            raise HeadStudioError(f"the face detector needs mediapipe: {INSTALL}.")
        import mediapipe

        if not hasattr(mediapipe, "solutions"):
            raise HeadStudioError(
                f"mediapipe {mediapipe.__version__} has no face mesh any more: {INSTALL}."
            )
        self._mesh: Any = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=True,
            max_num_faces=1,
            refine_landmarks=True,
            min_detection_confidence=min_confidence,
        )

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._mesh.close()

    def __call__(self, pictures: Tensor) -> list[Tensor | None]:
        """Landmarks ``[478, 2]`` (x, y in pixels) of each of ``pictures [B, H, W, 3]`` in 0..1;
        None where no face is found."""
        found: list[Tensor | None] = []
        for picture in to_bytes(pictures):
            height, width = picture.shape[:2]
            faces = self._mesh.process(picture).multi_face_landmarks
            points = [(p.x * width, p.y * height) for p in faces[0].landmark] if faces else None
            found.append(None if points is None else torch.tensor(points))
        return found


def compare(
    detected: Sequence[Tensor | None], driven: dict[int, Tensor], visible: Tensor
) -> dict[str, Any]:
    """Detection rate, and how far detected landmarks lie from the driven ones.

    The error is the mean distance over the landmarks that are visible, as a share of the distance
    of the driven outer corners of the eyes (the usual "inter-ocular" normalisation), averaged over
    the pictures in which a face was found.

    Args:
        detected: of B pictures, from :class:`FaceDetector`.
        driven: pixels ``[B, 2]`` by MediaPipe number.
        visible: bool ``[B, L]``, in the order of ``driven``.

    Returns:
        ``pictures``, ``rate``, ``error`` (None where nothing was found), ``error_by_feature``.
    """
    numbers = list(driven)
    points = torch.stack([driven[i] for i in numbers], dim=1)  # [B, L, 2]
    first, second = (points[:, numbers.index(i)] for i in _OUTER_EYE_CORNERS)
    scale = (first - second).norm(dim=-1)
    rows = [i for i, one in enumerate(detected) if one is not None]
    distances = {i: (_rows(detected[i], numbers) - points[i]).norm(dim=-1) / scale[i] for i in rows}

    def mean(among: set[int] | None) -> float | None:
        chosen = torch.tensor([among is None or number in among for number in numbers])
        errors = [
            distances[i][chosen & visible[i]].mean() for i in rows if (chosen & visible[i]).any()
        ]
        return float(torch.stack(errors).mean()) if errors else None

    return {
        "pictures": len(detected),
        "rate": len(rows) / len(detected),
        "error": mean(None),
        "error_by_feature": {name: mean(group) for name, group in landmark_groups().items()},
    }


def look(
    fronts: Mapping[str, Fronts], detector: Callable[[Tensor], list[Tensor | None]]
) -> dict[str, Any]:
    """What a detector says of each expression, and of all pictures together.

    Args:
        fronts: by the expression's words.
        detector: a :class:`FaceDetector`.

    Returns:
        What :func:`compare` says of all pictures, and in ``expressions`` of each.
    """
    detected = {name: detector(one.pictures) for name, one in fronts.items()}
    every = list(fronts.values())
    numbers = list(every[0].driven)
    together = compare(
        [face for faces in detected.values() for face in faces],
        {n: torch.cat([one.driven[n] for one in every]) for n in numbers},
        torch.cat([one.visible for one in every]),
    )
    return {
        **together,
        "expressions": {
            name: compare(detected[name], one.driven, one.visible) for name, one in fronts.items()
        },
    }


def _rows(landmarks: Tensor | None, numbers: list[int]) -> Tensor:
    assert landmarks is not None
    return landmarks[numbers]
