"""The control image equals the annotator's, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.guidance import CONTROL_LANDMARKS, draw_control
from headstudio.guidance._mediapipe_topology import CONTOURS, PUPILS
from headstudio.guidance._spans import covered, line_spans

DATA = Path(__file__).parent / "data"


def annotated() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Relative landmarks [B, 478, 2], their visibility, and the annotator's RGB pictures."""
    with np.load(DATA / "landmarks.npz") as file:
        points, visible = torch.from_numpy(file["points"]), torch.from_numpy(file["visible"])
    pictures = [cv2.imread(str(DATA / f"annotated_{i}.png"))[..., ::-1] for i in range(len(points))]
    return points, visible, torch.from_numpy(np.stack(pictures))


def test_equals_the_annotator_bit_for_bit() -> None:
    points, visible, expected = annotated()
    drawn = draw_control(512 * points, visible, range(478), 512, 512)
    assert drawn.dtype == torch.float32
    assert (expected.amax(-1) > 0).sum() > 10_000  # there is something to compare
    assert torch.equal((255 * drawn).round().to(torch.uint8), expected)
    # Any order of landmarks, and only those that are needed, give the same picture.
    subset = torch.tensor(CONTROL_LANDMARKS).flip(0)
    again = draw_control(512 * points[:, subset], visible[:, subset], subset, 512, 512)
    assert torch.equal(again, drawn)


def test_every_colour_of_the_table_appears() -> None:
    points, _, _ = annotated()
    drawn = draw_control(512 * points, torch.ones(points.shape[:2]).bool(), range(478), 512, 512)
    seen = set(map(tuple, (255 * drawn).round().int().reshape(-1, 3).unique(dim=0).tolist()))
    assert seen == {(0, 0, 0), *(item.rgb for item in (*CONTOURS, *PUPILS))}


@pytest.mark.parametrize("thickness", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(
    ("height", "width", "longest"), [(64, 64, 90), (40, 96, 100), (512, 512, 12)]
)
def test_lines_are_opencvs(thickness: int, height: int, width: int, longest: int) -> None:
    rng = np.random.default_rng(thickness)
    limit = np.array([width, height]) - 1
    start = rng.integers(0, limit + 1, (150, 2))
    start[:20] *= rng.integers(0, 2, (20, 2))  # some on the border
    end = np.clip(start + rng.integers(-longest, longest + 1, start.shape), 0, limit)
    end[:5] = start[:5]
    spans = line_spans(
        torch.from_numpy(start)[:, None], torch.from_numpy(end)[:, None], thickness, height, width
    )
    ours = covered(spans, torch.zeros(1, dtype=torch.long), 1, height, width)[:, 0]
    for mask, a, b in zip(ours.numpy(), start.tolist(), end.tolist(), strict=True):
        picture = np.zeros((height, width), np.uint8)
        cv2.line(picture, a, b, 1, thickness)
        assert np.array_equal(mask, picture.astype(bool)), (a, b)


def test_lines_scale_with_the_picture_and_never_vanish() -> None:
    points, _, _ = annotated()
    visible = torch.ones(points.shape[:2], dtype=torch.bool)
    share = {}
    for size in (64, 128, 256, 512, 1024):
        drawn = draw_control(size * points, visible, range(478), size, size)
        share[size] = float((drawn.amax(-1) > 0).float().mean())
    # Twice the size, twice the width: about the same share of the picture is covered.
    assert share[1024] == pytest.approx(share[512], rel=0.25)
    assert share[256] < share[128] < share[64]  # 1 px, and never less
    assert torch.equal(
        draw_control(128 * points, visible, range(478), 128, 128),
        draw_control(128 * points, visible, range(478), 128, 128, thickness=1, half_width=1),
    )


def test_what_cannot_be_seen_is_not_drawn() -> None:
    points, _, _ = annotated()
    points = 512 * points
    nothing = torch.zeros(points.shape[:2], dtype=torch.bool)
    assert not draw_control(points, nothing, range(478), 512, 512).any()
    assert not draw_control(points + 5000, ~nothing, range(478), 512, 512).any()
    assert not draw_control(points * float("nan"), ~nothing, range(478), 512, 512).any()
    # A single visible landmark joins to nothing; with its neighbour it makes one line.
    one = nothing.clone()
    one[:, 13] = True
    assert not draw_control(points, one, range(478), 512, 512).any()
    one[:, 312] = True
    pixels = (draw_control(points, one, range(478), 512, 512).amax(-1) > 0).sum(dim=(1, 2))
    length = (points[:, 13] - points[:, 312]).norm(dim=-1)
    assert ((pixels > 0) & (pixels < 4 * (length + 3))).all()


def test_each_picture_of_a_batch_is_its_own() -> None:
    points, visible, _ = annotated()
    together = draw_control(256 * points, visible, range(478), 256, 200)
    for i in range(len(points)):
        alone = draw_control(256 * points[i : i + 1], visible[i : i + 1], range(478), 256, 200)
        assert torch.equal(together[i], alone[0])


def test_missing_landmarks_and_wrong_shapes_are_named() -> None:
    index = [i for i in CONTROL_LANDMARKS if i != 468]
    with pytest.raises(HeadStudioError, match=r"missing \[468\]"):
        draw_control(torch.zeros(1, 129, 2), torch.ones(1, 129).bool(), index, 64, 64)
    with pytest.raises(HeadStudioError, match=r"expected \[B, 130, 2\]"):
        draw_control(torch.zeros(1, 9, 2), torch.ones(1, 9).bool(), CONTROL_LANDMARKS, 64, 64)
    with pytest.raises(HeadStudioError, match="at least 1"):
        draw_control(torch.zeros(1, 130, 2), torch.ones(1, 130).bool(), CONTROL_LANDMARKS, 0, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_makes_no_difference() -> None:
    points, visible, expected = annotated()
    drawn = draw_control(512 * points.cuda(), visible.cuda(), range(478), 512, 512)
    assert torch.equal((255 * drawn).round().to(torch.uint8).cpu(), expected)
