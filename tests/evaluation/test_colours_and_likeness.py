"""Colours by name, and the likeness of pictures, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from headstudio.errors import HeadStudioError
from headstudio.evaluation.colours import difference, nearest_group, nearest_name, to_lab
from headstudio.evaluation.coverage import dilate
from headstudio.evaluation.likeness import PerceptualDistance, psnr, ssim


def test_lab_has_the_known_values_of_the_primaries():
    # CIE L*a*b* of sRGB under D65, from the definition (as in any table of colours).
    known = {
        (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
        (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
        (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
        (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    }
    lab = to_lab(torch.tensor(list(known)))
    torch.testing.assert_close(lab, torch.tensor(list(known.values())), atol=0.1, rtol=0)


def test_lab_is_nearer_to_the_eye_than_rgb():
    # Half grey is, to the eye, nearer to white than to black; in linear light it is not.
    grey = torch.full((3,), 0.5)
    assert difference(grey, torch.ones(3)) < difference(grey, torch.zeros(3))


def test_the_nearest_name():
    palette = {"red": torch.tensor([0.8, 0.1, 0.1]), "pink": torch.tensor([0.95, 0.5, 0.6])}
    assert nearest_name(torch.tensor([0.7, 0.15, 0.2]), palette) == "red"
    assert nearest_name(torch.tensor([0.9, 0.6, 0.6]), palette) == "pink"
    with pytest.raises(HeadStudioError, match="palette"):
        nearest_name(torch.zeros(3), {})


def test_groups_divide_the_pixels():
    pictures = torch.rand(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    groups = {"dark": torch.zeros(1, 3), "light": torch.tensor([[1.0, 1, 1], [0.9, 0.9, 0.2]])}
    found = nearest_group(pictures, groups)
    assert (found["dark"] ^ found["light"]).all()
    one = pictures[1, 2, 3]
    nearest = min(float(difference(one, c)) for c in groups["light"])
    assert bool(found["light"][1, 2, 3]) == (nearest < float(difference(one, torch.zeros(3))))


def test_psnr_is_its_formula():
    truth = torch.full((2, 8, 8, 3), 0.5)
    ours = truth + torch.tensor([0.1, 0.01])[:, None, None, None]
    torch.testing.assert_close(psnr(ours, truth), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)
    assert psnr(truth, truth).tolist() == [100.0, 100.0]


def test_ssim_of_flat_pictures_is_its_formula():
    # Without structure only the means are left: (2 a b + C1) / (a^2 + b^2 + C1), C1 = 0.01^2.
    a, b, c1 = 0.3, 0.6, 1e-4
    value = ssim(torch.full((2, 32, 32, 3), a), torch.full((2, 32, 32, 3), b))
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    torch.testing.assert_close(value, torch.full((2,), expected), atol=5e-4, rtol=0)


def test_the_perceptual_distance_is_a_distance(perceptual):
    one, two = torch.rand(2, 3, 32, 32, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert perceptual(one, one).tolist() == [0.0] * 3
    there, back = perceptual(one, two), perceptual(two, one)
    torch.testing.assert_close(there, back)
    assert (there > 0).all()
    assert (there <= 4).all()
    halfway = perceptual(one, one + 0.1 * (two - one))
    assert (halfway < there).all()
    torch.testing.assert_close(perceptual(one, two, batch=2), there)


def test_a_missing_autoencoder_is_said(tmp_path):
    with pytest.raises(HeadStudioError, match="autoencoder of the prior"):
        PerceptualDistance.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_a_mask_grows_by_a_disc(radius):
    mask = torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(1)) > 0.96
    grown = dilate(mask, radius)
    for image, y, x in [(i, y, x) for i in range(2) for y in range(12) for x in range(15)]:
        near = [math.hypot(y - v, x - u) <= radius for v, u in mask[image].nonzero().tolist()]
        assert bool(grown[image, y, x]) == any(near)
