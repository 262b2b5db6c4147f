"""The same figures on a GPU as on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from headstudio.characters import studio_for
from headstudio.evaluation.likeness import PerceptualDistance
from headstudio.evaluation.score import score
from headstudio.evaluation.stage import Figure
from headstudio.evaluation.truth import show_truth
from headstudio.flame import HeadModel
from headstudio.paths import find_asset
from tests.evaluation.conftest import NAMED


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_figures_are_those_of_the_cpu(character, studio, stage, talk, perceptual, tiny_prior):
    on_gpu = studio_for(HeadModel.load(find_asset("flame/open_head.npz")).to("cuda"), 6000)
    dyed = replace(character, hair_color="green")
    figures = []
    for where, distance in (
        (studio, perceptual),
        (on_gpu, PerceptualDistance.from_pretrained(tiny_prior, "cuda")),
    ):
        truth = show_truth(character, NAMED, where, stage)
        figure = Figure.of_character(dyed, where)
        figures.append(score(figure, truth, NAMED, stage, talk, distance).figures)
    cpu, gpu = figures
    for region, one in cpu["colours"].items():
        assert gpu["colours"][region]["read"] == one["read"]
        assert gpu["colours"][region]["delta_e"] == pytest.approx(one["delta_e"], abs=1.5)
    for key in ("psnr", "ssim", "perceptual", "floaters", "holes"):
        assert gpu[key] == pytest.approx(cpu[key], rel=0.02, abs=2e-3)
    for key in ("mouth", "lids"):
        assert gpu[key]["ratio"] == pytest.approx(cpu[key]["ratio"], abs=0.05)
    assert gpu["talk"]["ours"] == pytest.approx(cpu["talk"]["ours"], abs=0.05)
