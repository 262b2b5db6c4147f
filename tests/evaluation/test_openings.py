"""Outlines and openings on drawn pictures, where the answer can be counted."""

from __future__ import annotations

import torch

from headstudio.evaluation import openings
from headstudio.evaluation.openings import EYES, LIPS_INNER, LIPS_OUTER, Interior

SIZE = 64
SKIN, LIP, DARK = (torch.tensor(c) for c in ([0.8, 0.6, 0.5], [0.8, 0.1, 0.1], [0.1, 0.02, 0.03]))


def test_the_area_of_a_polygon_is_its_number_of_pixels():
    square = torch.tensor([[2.0, 3.0], [12.0, 3.0], [12.0, 9.0], [2.0, 9.0]])
    mask = openings.inside(square, 20, 20)
    assert openings.area(square) == 60
    assert int(mask.sum()) == 60
    assert mask[3, 2]
    assert not mask[2, 2]
    assert not mask[9, 11]


def ellipse(indices: tuple[int, ...], height: float, width: float) -> dict[int, torch.Tensor]:
    """Landmarks ``indices`` around an ellipse in the middle of the picture."""
    angle = torch.arange(len(indices)) / len(indices) * 2 * torch.pi
    x = SIZE / 2 - width * angle.cos()
    y = SIZE / 2 - height * angle.sin()
    return {i: torch.stack([a, b]) for i, a, b in zip(indices, x, y, strict=True)}


def mouths(gaps: list[float], drawn: list[float]) -> tuple[torch.Tensor, openings.Pixels]:
    """Lips that are driven open by ``gaps`` px, with a dark ellipse of half-height ``drawn``."""
    rows = [ellipse(LIPS_OUTER, 6 + g, 14) | ellipse(LIPS_INNER, g, 11) for g in gaps]
    pixels = {i: torch.stack([row[i] for row in rows])[:, None] for i in rows[0]}
    pictures = SKIN.expand(len(gaps), SIZE, SIZE, 3).clone()
    for t, half in enumerate(drawn):
        pictures[t][openings.inside(openings.outline(pixels, LIPS_OUTER, t), SIZE, SIZE)] = LIP
        if half > 0:
            dark = torch.stack(list(ellipse(LIPS_INNER, half, 11).values()))
            pictures[t][openings.inside(dark, SIZE, SIZE)] = DARK
    return pictures, pixels


def test_the_visible_opening_is_that_which_is_drawn():
    interior = Interior(mouth=DARK[None], eyes=torch.zeros(0, 3))
    gaps = [0.0, 3.0, 6.0, 9.0]
    pictures, pixels = mouths(gaps, gaps)
    seen = openings.mouth_opening(pictures, pixels, interior)
    driven = openings.driven_opening(pixels, len(gaps))
    torch.testing.assert_close(seen, driven, atol=0.04, rtol=0)
    assert openings.correlation(seen, driven) > 0.999
    shut, _ = mouths(gaps, [0.0] * 4)
    assert openings.mouth_opening(shut, pixels, interior).tolist() == [0.0] * 4


def test_dark_lips_are_no_opening_of_their_own():
    """What is dark at rest already is the lips' colour, not the mouth's."""
    pictures, pixels = mouths([0.0, 4.0], [0.0, 0.0])
    dark = torch.tensor([0.2, 0.02, 0.05])
    pictures[(pictures - LIP).abs().amax(-1) < 1e-6] = dark
    interior = Interior(mouth=DARK[None], eyes=torch.zeros(0, 3))
    assert openings.mouth_opening(pictures, pixels, interior).tolist() == [0.0, 0.0]


def test_eyes_are_open_where_white_or_iris_show():
    at = {side: ellipse(EYES[side], 5, 9) for side in EYES}
    shift = {"left": 14.0, "right": -14.0}
    pixels = {
        i: (point + torch.tensor([shift[side], 0.0]))[None, None].expand(2, 1, 2)
        for side, landmarks in at.items()
        for i, point in landmarks.items()
    }
    pictures = SKIN.expand(2, SIZE, SIZE, 3).clone()
    for side in EYES:
        aperture = openings.inside(openings.outline(pixels, EYES[side], 0), SIZE, SIZE)
        pictures[0][aperture] = torch.tensor([0.9, 0.9, 0.9])
    interior = Interior(mouth=torch.zeros(0, 3), eyes=torch.tensor([[0.95, 0.94, 0.93]]))
    assert openings.eye_opening(pictures, pixels, interior).tolist() == [1.0, 0.0]


def test_correlation():
    t = torch.linspace(0, 6, 50)
    assert openings.correlation(t.sin(), 3 * t.sin() + 1) > 0.9999
    assert openings.correlation(t.sin(), -t.sin()) < -0.9999
    assert openings.correlation(t.sin(), torch.ones(50)) == 0.0
