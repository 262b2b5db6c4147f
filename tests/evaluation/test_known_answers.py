"""Avatars of which it is known what is wrong with them: that, and only that, has to show."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headstudio.evaluation.coverage import floaters, holes
from headstudio.evaluation.score import FLOATER_RADIUS, colours, face, score, talk_correlation
from headstudio.evaluation.stage import Figure, Stage, bench_poses, world_of
from headstudio.evaluation.summary import summarise
from headstudio.evaluation.truth import Truth, show_truth
from headstudio.flame import FlameParams
from headstudio.splats import Splats, triangle_frames, unpose
from tests.evaluation.conftest import NAMED


@pytest.fixture(scope="module")
def itself(truth, stage, talk, perceptual):
    return score(truth.figure, truth, NAMED, stage, talk, perceptual).figures


def right(figure: Figure, truth: Truth, stage: Stage) -> dict[str, bool]:
    read = colours(figure, truth, NAMED, stage)
    return {region: one["right"] for region, one in read.items() if one is not None}


def test_the_ground_truth_against_itself_is_perfect(itself):
    assert set(itself["colours"]) == set(NAMED)
    for one in itself["colours"].values():
        assert one["right"]
        assert one["delta_e"] < 1e-3
    assert itself["psnr"] == pytest.approx(100)
    assert itself["ssim"] == pytest.approx(1, abs=1e-4)
    assert itself["perceptual"] == 0
    assert itself["floaters"] == 0
    assert itself["holes"] == 0
    for movement in ("mouth", "lids"):
        assert itself[movement]["truth"] > 0.3
        assert itself[movement]["ratio"] == 1
    assert itself["talk"]["ours"] == itself["talk"]["truth"] > 0.8


def test_another_hair_colour_fails_exactly_the_hair(
    truth, character, studio, stage, talk, perceptual, itself
):
    dyed = Figure.of_character(replace(character, hair_color="green"), studio)
    figures = score(dyed, truth, NAMED, stage, talk, perceptual).figures
    read = figures["colours"]
    assert {region for region, one in read.items() if not one["right"]} == {"hair"}
    assert read["hair"]["read"] == "green"
    assert read["hair"]["delta_e"] > 50
    assert figures["psnr"] < 40
    assert figures["ssim"] < 0.999
    assert figures["perceptual"] > 0
    assert figures["mouth"] == itself["mouth"]
    assert figures["floaters"] == 0


def test_every_option_of_a_colour_is_told_from_the_others(character, studio, stage, truth):
    for name in ("black", "grey", "white", "brown", "blonde"):
        dyed = Figure.of_character(replace(character, hair_color=name), studio)
        read = colours(dyed, truth, {"hair": name}, stage)["hair"]
        assert read is not None
        assert read["right"], (name, read["read"])


def test_an_identity_of_its_own_does_not_change_the_colours(truth, stage, studio, character):
    other = replace(character, shape=tuple(-value for value in character.shape))
    figure = Figure.of_character(other, studio)
    assert right(figure, truth, stage) == dict.fromkeys(NAMED, True)


def outside(figure: Figure, truth: Truth, stage: Stage) -> float:
    vertices = figure.vertices(bench_poses(figure.head))
    alpha = figure.render(vertices, stage.cameras(), stage.background).alpha[..., 0]
    radius = round(FLOATER_RADIUS * stage.size)
    return float(floaters(alpha.flatten(0, 1), truth.alpha.flatten(0, 1), radius).mean())


FLOATER_AT = [-0.35, 0.6, 0.6]


def floating(figure: Figure, sigma: float, opacity: float) -> Figure:
    """The figure with one round splat more, beside the head in both views."""
    rest = FlameParams.zeros(1, figure.head.n_shape, figure.head.n_expression)
    frames = triangle_frames(figure.vertices(rest), figure.head.faces)
    anchor = int(figure.vertices(rest)[0, figure.head.faces].mean(1)[:, 2].argmax())  # topmost
    own = figure.splats
    extra = unpose(
        torch.tensor([FLOATER_AT]),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.full((1, 3), sigma),
        torch.tensor([anchor]),
        frames,
        torch.tensor([opacity]),
        torch.full((1, 3), 0.5),
    )
    both = {k: torch.cat([v, getattr(extra, k)]) for k, v in own.parameters().items()}
    return replace(figure, splats=Splats(**both, face=torch.cat([own.face, extra.face])))


def test_a_floating_splat_raises_the_floaters_by_its_footprint(truth, stage):
    sigma, opacity = 0.02, 0.9
    figure = floating(truth.figure, sigma, opacity)
    measured = outside(figure, truth, stage)
    # A Gaussian covers 2 pi sqrt(det Σ) px times its opacity. A sphere of deviation s px, seen
    # off the axis by the tangent u, has the eigenvalues s^2 and s^2 (1 + u^2); 0.3 px^2 is the
    # renderer's blur. Every view has its own distance to the splat, and its own silhouette.
    cameras = stage.cameras()
    pixels, depth = cameras.project(torch.tensor([[FLOATER_AT]]))
    variance = (cameras.focal()[0] * sigma / depth[0, :, 0]) ** 2
    tangent = (pixels[0, :, 0] - stage.size / 2).norm(dim=-1) / cameras.focal()[0]
    determinant = (variance + 0.3) * (variance * (1 + tangent**2) + 0.3)
    footprint = 2 * math.pi * determinant.sqrt() * opacity
    silhouette = (truth.alpha > 0.5).flatten(2).sum(2)  # [poses, views]
    expected = float((footprint / silhouette).mean())
    assert measured == pytest.approx(
        expected, rel=0.03
    )  # what is fainter than 1/255, or beyond three deviations, is not drawn


def test_a_floater_may_come_as_near_as_the_margin(truth):
    alpha = torch.zeros(1, 40, 40)
    alpha[0, 10:20, 10:20] = 1
    radius = round(FLOATER_RADIUS * 128)
    near, far = alpha.clone(), alpha.clone()
    near[0, 15, 19 + radius] = 1
    far[0, 15, 20 + radius] = 0.25
    assert float(floaters(near, alpha, radius)) == 0
    assert float(floaters(far, alpha, radius)) == pytest.approx(0.25 / 100)


def test_a_mouth_without_splats_is_a_hole(truth, stage):
    head, splats = truth.figure.head, truth.figure.splats
    gone = head.region_mask("lips", "teeth", "tongue", "mouth_interior")[splats.face]
    holed = replace(truth.figure, splats=splats[~gone])
    assert face(holed, truth, stage)["holes"] > 0.25
    # With nothing left at all, every pixel of the mouth is one.
    nothing = replace(truth.figure, splats=splats[torch.arange(splats.n) < 1])
    assert face(nothing, truth, stage)["holes"] > 0.99
    assert outside(holed, truth, stage) == 0


def test_holes_are_counted_exactly():
    alpha, depth, mesh = torch.ones(1, 4, 4), torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), 2.0)
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, :2] = True
    alpha[0, 0, 0] = 0.4  # nothing there
    depth[0, 0, 1] = 2.2  # the back of the head from within
    depth[0, 0, 2] = 2.05  # a little behind the mesh
    alpha[0, 3, 3] = 0.0  # outside the region
    assert float(holes(alpha, depth, mesh, region)) == 2 / 8


class StiffJaw(Figure):
    """What one sees keeps its mouth shut, whatever the head beneath does."""

    def vertices(self, params: FlameParams, shape: Tensor | None = None) -> Tensor:
        driven = super().vertices(params, shape)
        shut = params.replace(
            jaw_pose=torch.zeros_like(params.jaw_pose), expression=self.lids_only(params)
        )
        self.shown[driven.data_ptr()] = super().vertices(shut, shape)
        self.kept.append(driven)
        return driven

    def lids_only(self, params: FlameParams) -> Tensor:
        blinks = torch.tensor([name.startswith("eye") for name in self.head.expression_names])
        lids = torch.zeros(self.head.n_expression)
        lids[: len(blinks)] = blinks.float()
        return params.expression * lids

    def render(self, vertices, cameras, background, features=None):
        shown = self.shown.get(vertices.data_ptr(), vertices)
        return super().render(shown, cameras, background, features)


def test_a_jaw_that_does_not_move_fails_the_mouth_alone(truth, stage, talk):
    own = truth.figure
    stiff = StiffJaw(own.splats, own.shape, own.head, own.frame)
    stiff.shown, stiff.kept = {}, []
    moved = face(stiff, truth, stage)
    assert moved["mouth"]["ratio"] < 0.15
    assert moved["lids"]["ratio"] == pytest.approx(1, abs=0.1)
    assert talk_correlation(stiff, truth, stage, talk) < 0.5
    assert right(stiff, truth, stage) == dict.fromkeys(NAMED, True)


def test_lids_that_cannot_be_told_from_eyes_are_not_judged(studio, stage, character):
    hidden = replace(character, glasses="sunglasses")
    blind = show_truth(hidden, {}, studio, stage)
    assert face(blind.figure, blind, stage)["lids"]["ratio"] is None


def test_a_character_without_a_mouth_has_holes_but_no_opening(
    studio, stage, character, talk, perceptual
):
    """An avatar that has a mouth there is no nearer to it for opening it."""
    mouthless = replace(character, lips="none")
    truth = show_truth(mouthless, {"skin": "tan"}, studio, stage)
    for gone in ("lips", "mouth", "teeth", "tongue"):
        assert truth.region(gone).sum() == 0
    with_mouth = Figure.of_character(character, studio)
    figures = score(with_mouth, truth, {"skin": "tan"}, stage, talk, perceptual).figures
    assert figures["mouth"]["ratio"] is None
    assert figures["talk"] == {"ours": None, "truth": None}
    assert figures["colours"]["skin"]["right"]
    assert figures["lids"]["ratio"] == pytest.approx(1, abs=0.1)
    row = summarise([{"figures": figures, "kind": "mouthless"}])
    assert (row["mouth"], row["talk"]) == (None, None)
    assert row["holes"] == 0


def test_a_region_that_cannot_be_seen_is_not_measured(studio, stage, character):
    bald = replace(character, hair_style="bald")
    truth = show_truth(bald, {"hair": "red", "skin": "tan"}, studio, stage)
    read = colours(truth.figure, truth, {"hair": "red", "skin": "tan"}, stage)
    assert read["hair"] is None
    assert read["skin"] is not None
    assert read["skin"]["right"]


def test_paint_is_not_skin(studio, stage, character):
    plain = show_truth(character, {}, studio, stage)
    painted = show_truth(replace(character, paint="skull"), {}, studio, stage)
    front = (0,)
    assert painted.region("skin")[front].sum() < 0.4 * plain.region("skin")[front].sum()


def test_the_poses_move_what_they_are_named_for(studio):
    head = studio.head
    vertices = world_of(head).to_world(head(bench_poses(head)))
    moved = (vertices - vertices[:1]).norm(dim=-1).amax(1)
    assert moved[0] == 0
    assert (moved[1:] > 0.01).all()
