"""Does the picture open its mouth and shut its eyes when the head beneath does?

The head beneath always does; what is asked is what one sees. A pixel within the driven outline of
the lips is open if its colour is nearer to those the ground truth shows inside its mouth than to
the picture's own lips and the skin around them. Likewise a pixel within the outline that the lids
have at rest is open if it is nearer to the ground truth's white, iris or pupil than to the
picture's own skin around the eye. All in CIE L*a*b*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.path import Path as Outline
from torch import Tensor

from headstudio.characters.anatomy import (
    LIPS_INNER,
    LIPS_OUTER,
    LOWER_LID,
    SIDES,
    UPPER_LID,
)
from headstudio.evaluation.colours import nearest_group

Pixels = dict[int, Tensor]
EYES = {side: (*UPPER_LID[side], *LOWER_LID[side][-2:0:-1]) for side in SIDES}
_LIPS_RING = (1.25, 1.8)  # around the lips, as multiples of their outline
_EYE_RING = (1.35, 2.0)


def inside(polygon: Tensor, height: int, width: int) -> Tensor:
    """Pixels whose centre lies in a polygon ``[n, 2]`` (x, y in pixels): bool ``[H, W]``."""
    y, x = np.mgrid[:height, :width] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], 1)
    within = Outline(polygon.double().numpy()).contains_points(centres)
    return torch.from_numpy(within).reshape(height, width)


def area(polygon: Tensor) -> float:
    """Area of a polygon ``[n, 2]``, pixels squared (the shoelace formula)."""
    x, y = polygon.double().unbind(-1)
    return 0.5 * abs(float((x * y.roll(-1) - x.roll(-1) * y).sum()))


def outline(pixels: Pixels, indices: tuple[int, ...], picture: int) -> Tensor:
    """The landmarks ``indices`` of one pose, ``[n, 2]``, from the first camera's pixels."""
    return torch.stack([pixels[i][picture, 0] for i in indices])


def _ring(polygon: Tensor, scales: tuple[float, float], height: int, width: int) -> Tensor:
    """Pixels between a polygon scaled about its middle by one factor and by another."""
    middle = polygon.mean(0)
    small, large = (inside(middle + s * (polygon - middle), height, width) for s in scales)
    return large & ~small


def _median(picture: Tensor, mask: Tensor) -> Tensor:
    """Median colour ``[1, 3]`` of a picture's masked pixels; none are no colours, ``[0, 3]``."""
    return picture[mask].median(0).values[None] if mask.any() else picture.new_zeros(0, 3)


@dataclass
class Interior:
    """Colours of what one sees through open lips and open lids of the ground truth: [k, 3]."""

    mouth: Tensor
    eyes: Tensor


def mouth_opening(pictures: Tensor, pixels: Pixels, interior: Interior, rest: int = 0) -> Tensor:
    """Visible opening of the mouth in each picture ``[T]``.

    Number of open pixels within the outer outline of the lips, divided by the area of that outline
    at rest. The outlines of :func:`driven_opening` are in the same unit.

    Args:
        pictures: ``[T, H, W, 3]``, one camera.
        pixels: the driven landmarks of these T poses, from the same camera.
        interior: of the ground truth.
        rest: which picture is at rest; its lips and skin are the colours of "shut".
    """
    height, width = pictures.shape[1:3]
    at_rest = outline(pixels, LIPS_OUTER, rest)
    own = [
        _median(pictures[rest], inside(at_rest, height, width)),
        _median(pictures[rest], _ring(at_rest, _LIPS_RING, height, width)),
    ]
    groups = {"open": interior.mouth, "shut": torch.cat(own)}
    if any(len(colours) == 0 for colours in groups.values()):
        return torch.zeros(len(pictures))
    is_open = nearest_group(pictures, groups)["open"]
    counts = [
        (is_open[t] & inside(outline(pixels, LIPS_OUTER, t), height, width)).sum()
        for t in range(len(pictures))
    ]
    return torch.stack(counts) / max(area(at_rest), 1.0)


def driven_opening(pixels: Pixels, count: int, rest: int = 0) -> Tensor:
    """What the driven head opens: area within the inner outline of the lips / that within the
    outer one at rest, ``[T]``."""
    whole = area(outline(pixels, LIPS_OUTER, rest))
    gaps = [area(outline(pixels, LIPS_INNER, t)) for t in range(count)]
    return torch.tensor(gaps) / max(whole, 1.0)


def eye_opening(pictures: Tensor, pixels: Pixels, interior: Interior, rest: int = 0) -> Tensor:
    """Visible opening of the eyes in each picture ``[T]``: the share of open pixels within the
    outlines that the lids have at rest. Arguments as for :func:`mouth_opening`."""
    height, width = pictures.shape[1:3]
    outlines = [outline(pixels, EYES[side], rest) for side in SIDES]
    aperture = torch.stack([inside(o, height, width) for o in outlines]).any(0)
    ring = torch.stack([_ring(o, _EYE_RING, height, width) for o in outlines]).any(0) & ~aperture
    groups = {"open": interior.eyes, "shut": _median(pictures[rest], ring)}
    if not aperture.any() or any(len(colours) == 0 for colours in groups.values()):
        return torch.zeros(len(pictures))
    is_open = nearest_group(pictures, groups)["open"]
    return is_open[:, aperture].float().mean(1)


def open_share(
    picture: Tensor, polygon: Tensor, interior: Tensor, lips: Tensor | None = None
) -> float | None:
    """Share of an outline's pixels that are open, in a picture for which there is none at rest.

    Args:
        picture: ``[H, W, 3]``.
        polygon: ``[n, 2]``, the outline of lips or lids.
        interior: colours ``[k, 3]`` that show through it when it is open.
        lips: bool ``[H, W]``, pixels that are lips; without them it is an eye.

    Returns:
        None if there are no colours, or no pixels, to compare with.
    """
    height, width = picture.shape[:2]
    within = inside(polygon, height, width)
    ring = _ring(polygon, _EYE_RING if lips is None else _LIPS_RING, height, width)
    shut = [_median(picture, ring)] + ([] if lips is None else [_median(picture, lips)])
    groups = {"open": interior, "shut": torch.cat(shut)}
    if not within.any() or any(len(colours) == 0 for colours in groups.values()):
        return None
    return float(nearest_group(picture, groups)["open"][within].float().mean())


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two series ``[T]``; 0 if one of them does not change."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    spread = a.norm() * b.norm()
    return float((a * b).sum() / spread) if spread > 1e-12 else 0.0
