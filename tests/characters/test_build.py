"""Characters as splats: colours in their places, closed surfaces, hair that keeps off the face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headstudio.characters import (
    ATTRIBUTES,
    Character,
    CharacterStudio,
    build_splats,
    option,
    sample_character,
)
from headstudio.characters.anatomy import polygon_signed_distance, polyline_distance, resample
from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams, HeadModel
from headstudio.paths import find_asset
from headstudio.render import Cameras, render
from headstudio.splats import pose_splats, triangle_frames

N_SPLATS = 12000
SIZE = 96


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


@pytest.fixture(scope="module")
def studio(head: HeadModel) -> CharacterStudio:
    return CharacterStudio(head, N_SPLATS)


def _vertices(head: HeadModel, shape: torch.Tensor, **pose: torch.Tensor) -> torch.Tensor:
    params = FlameParams.zeros(1, head.n_shape, head.n_expression).replace(shape=shape, **pose)
    return head.world_frame().to_world(head(params))


def _picture(
    head: HeadModel,
    studio: CharacterStudio,
    character: Character,
    azimuth: float = 0.0,
    background: float = 0.0,
    **pose: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Cameras]:
    """Picture [H, W, 3], alpha [H, W], vertices and cameras."""
    batch = studio.build([character])
    vertices = _vertices(head, batch.shape, **pose)
    cameras = Cameras.orbit(azimuth, 0.0, 2.4, 42.0, SIZE, SIZE)
    out = render(
        *batch.pose(triangle_frames(vertices, head.faces)),
        cameras,
        background=torch.full((3,), background),
    )
    return out.rgb[0, 0], out.alpha[0, 0, ..., 0], vertices, cameras


def _at_landmark(
    head: HeadModel, vertices: torch.Tensor, cameras: Cameras, picture: torch.Tensor, *index: int
) -> torch.Tensor:
    """Median colour around the mean of landmarks."""
    table = head.landmarks.mediapipe_index.tolist()
    points = head.landmark_points(vertices)[:, [table.index(i) for i in index]].mean(1)
    x, y = cameras.project(points[:, None])[0][0, 0, 0].round().int().tolist()
    return picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).median(0).values


PLAIN = Character(hair_style="bald", gender="man", seed=5)


@pytest.mark.parametrize("skin", ["fair", "black", "blue", "green", "red", "golden", "white"])
def test_skin_has_the_colour_of_its_name(
    head: HeadModel, studio: CharacterStudio, skin: str
) -> None:
    picture, _, vertices, cameras = _picture(head, studio, replace(PLAIN, skin=skin))
    cheek = _at_landmark(head, vertices, cameras, picture, 61, 33)
    assert np.abs(cheek.numpy() - option("skin", skin).rgb).max() < 0.17


@pytest.mark.parametrize("lips", ["red", "black", "blue", "green", "white"])
def test_lips_have_the_colour_of_their_name(
    head: HeadModel, studio: CharacterStudio, lips: str
) -> None:
    character = replace(PLAIN, lips=lips, skin="tan")
    picture, _, vertices, cameras = _picture(head, studio, character)
    seen = _at_landmark(head, vertices, cameras, picture, 17, 14)
    names = {o.name: np.array(o.rgb) for o in ATTRIBUTES["lips"] if o.rgb}
    nearest = min(names, key=lambda n: np.abs(names[n] - seen.numpy()).sum())
    assert nearest == lips


def test_where_there_is_no_mouth_the_skin_is_smooth_even_when_the_jaw_opens(
    head: HeadModel, studio: CharacterStudio
) -> None:
    character = replace(PLAIN, lips="none", skin="grey")
    jaw = torch.tensor([[0.3, 0.0, 0.0]])
    seen = {}
    for mouth, one in {"none": character, "plain": replace(character, lips="natural")}.items():
        picture, _, vertices, cameras = _picture(head, studio, one, jaw_pose=jaw)
        inside = _at_landmark(head, vertices, cameras, picture, 13, 14)
        seen[mouth] = (inside - _at_landmark(head, vertices, cameras, picture, 61, 33)).abs().max()
    assert seen["none"] < 0.06
    assert seen["plain"] > 0.2


def test_hair_colour_is_seen_from_behind(head: HeadModel, studio: CharacterStudio) -> None:
    for style in ("short", "long", "afro"):
        seen = []
        for color in ("red", "blue", "green", "black", "white"):
            character = replace(PLAIN, hair_style=style, hair_color=color)
            picture, alpha, _, _ = _picture(head, studio, character, azimuth=180.0)
            upper = picture[: SIZE // 3][alpha[: SIZE // 3] > 0.9]
            seen.append(upper.median(0).values.numpy())
        red, blue, green, black, white = seen
        assert red.argmax() == 0
        assert blue.argmax() == 2
        assert green.argmax() == 1
        assert black.max() < 0.2 < 0.5 < white.min()


def test_eyes_have_white_iris_and_pupil(head: HeadModel, studio: CharacterStudio) -> None:
    rgb = studio.build([replace(PLAIN, eyes="blue")]).rgb[0]
    masks = studio.masks
    surface = rgb[: len(masks["iris"])]
    iris = surface[(masks["iris"] > 0.9) & (masks["pupil"] < 0.1) & (masks["limbus"] < 0.3)]
    white = surface[(masks["eye_white"] > 0.9) & (masks["iris"] < 0.1) & (masks["limbus"] < 0.1)]
    pupil = surface[(masks["pupil"] > 0.9) & (masks["highlight"] < 0.1)]
    assert len(iris) > 5
    assert len(pupil) > 2
    assert iris.mean(0).argmax() == 2
    assert white.min(-1).values.median() > 0.6
    assert pupil.max() < 0.15


@pytest.mark.parametrize("azimuth", [0.0, 60.0, 90.0, 180.0])
def test_the_surface_has_no_holes(head: HeadModel, studio: CharacterStudio, azimuth: float) -> None:
    """Inside the outline nothing of a background in another colour shines through."""
    dark, alpha, *_ = _picture(head, studio, PLAIN, azimuth)
    bright, *_ = _picture(head, studio, PLAIN, azimuth, background=1.0)
    covered = (alpha > 0.5).float()[None, None]
    inside = torch.nn.functional.avg_pool2d(covered, 9, 1, 4)[0, 0] > 0.999
    assert inside.sum() > 500
    assert (bright - dark)[inside].abs().max() < 0.10


@pytest.mark.parametrize("style", [o.name for o in ATTRIBUTES["hair_style"] if o.name != "bald"])
def test_hair_is_on_the_head_and_not_on_the_face(
    head: HeadModel, studio: CharacterStudio, style: str
) -> None:
    character = replace(PLAIN, hair_style=style, hair_color="blue", skin="fair")
    picture, _, vertices, cameras = _picture(head, studio, character)
    for landmarks in ((33, 133), (61, 291), (61, 33), (291, 263), (152,)):
        red, _, blue = _at_landmark(head, vertices, cameras, picture, *landmarks)
        assert blue < red + 0.2, landmarks
    side, alpha, *_ = _picture(head, studio, character, azimuth=90.0)
    bluish = (side[..., 2] > side[..., 0] + 0.15) & (alpha > 0.8)
    assert bluish.sum() > 0.04 * (alpha > 0.8).sum()


def test_batches_equal_single_builds_and_are_deterministic(
    head: HeadModel, studio: CharacterStudio
) -> None:
    rng = np.random.default_rng(0)
    people = [sample_character(rng) for _ in range(6)]
    batch = studio.build(people)
    again = CharacterStudio(head, N_SPLATS).build(people)
    for name, value in vars(batch).items():
        assert torch.isfinite(value.float()).all(), name
        assert torch.equal(value, getattr(again, name)), name
        single = torch.cat([getattr(studio.build([p]), name) for p in people])
        torch.testing.assert_close(value, single, atol=1e-3, rtol=1e-2)
    assert batch.means.shape == (6, N_SPLATS, 3)
    assert batch.opacities.amin() >= 0
    assert batch.opacities.amax() <= 1
    assert batch.rgb.amin() >= 0
    assert batch.rgb.amax() <= 1


def test_single_splats_pose_as_the_batch_does(head: HeadModel, studio: CharacterStudio) -> None:
    batch = studio.build([Character(hair_style="ponytail", glasses="round", seed=3)])
    splats = batch.splats(0)
    frames = triangle_frames(_vertices(head, batch.shape), head.faces)
    means, _, scales, opacities, rgb = batch.pose(frames)
    used = opacities[0] > 0
    posed = pose_splats(splats, frames)
    assert splats.n == used.sum() < N_SPLATS
    torch.testing.assert_close(posed.means[0], means[0, used], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(posed.scales[0], scales[0, used], atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(posed.colors, rgb[0, used], atol=1e-5, rtol=1e-4)


def _part(studio: CharacterStudio, name: str) -> slice:
    """Where the splats of an attached part are in a batch."""
    start = len(studio.light)
    for part, pool in studio.pools.items():
        if part == name:
            return slice(start, start + len(pool))
        start += len(pool)
    raise KeyError(name)


def test_hair_and_glasses_ride_on_what_does_not_move_with_the_face(
    head: HeadModel, studio: CharacterStudio
) -> None:
    batch = studio.build([Character(hair_style="long", glasses="square")])
    jaw = torch.tensor([[0.3, 0.0, 0.0]])
    rest, open_ = (
        batch.pose(triangle_frames(_vertices(head, batch.shape, **pose), head.faces))[0][0]
        for pose in ({}, {"jaw_pose": jaw})
    )
    moved, used = (open_ - rest).norm(dim=-1), batch.opacities[0] > 0
    assert moved[: len(studio.light)].max() > 0.05
    for name in ("hair", "glasses"):
        part = _part(studio, name)
        assert used[part].sum() > 50, name
        assert moved[part][used[part]].max() < 2e-3, name


def test_identity_carries_hair_along(head: HeadModel, studio: CharacterStudio) -> None:
    """Hair goes where the skull beneath it goes when the skull's shape changes."""
    wide = Character(hair_style="buzz cut", shape=(2.0, -2.0, 2.0, 2.0))
    hair, skull = [], []
    for character in (replace(wide, shape=()), wide):
        batch = studio.build([character])
        vertices = _vertices(head, batch.shape)
        means, _, _, opacities, _ = batch.pose(triangle_frames(vertices, head.faces))
        part = _part(studio, "hair")
        hair.append(means[0, part][opacities[0, part] > 0][::20])
        skull.append(vertices[0])
    beneath = torch.cdist(hair[0], skull[0]).argmin(1)
    carried, moved = hair[1] - hair[0], (skull[1] - skull[0])[beneath]
    assert moved.norm(dim=-1).median() > 0.05
    assert (carried - moved).norm(dim=-1).quantile(0.95) < 0.02


def test_build_splats_is_the_same_as_the_studio(head: HeadModel) -> None:
    character = Character(hair_style="bald")
    a = build_splats(character, head, n=6000)
    b = build_splats(character, head, n=6000)
    assert torch.equal(a.means, b.means)
    assert a.n <= 6000
    assert torch.isfinite(a.scales).all()


def test_a_head_without_regions_is_refused(head: HeadModel) -> None:
    bare = HeadModel.load(find_asset("flame/open_head.npz"))
    bare.region_names = []
    with pytest.raises(HeadStudioError, match="regions"):
        CharacterStudio(bare, 6000)
    with pytest.raises(HeadStudioError, match="at least 4000"):
        CharacterStudio(head, 100)


def test_distances_to_lines_and_polygons() -> None:
    square = np.array([[0.0, 0.0], [0.02, 0.0], [0.02, 0.02], [0.0, 0.02]])
    points = np.array([[0.01, 0.01], [0.01, 0.03], [0.024, 0.023], [0.001, 0.01]])
    expected = [0.01, -0.01, -0.005, 0.001]
    np.testing.assert_allclose(polygon_signed_distance(points, square), expected, atol=1e-12)
    line = np.array([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0]])
    far = polyline_distance(np.array([[0.005, 0.004, 0.003], [0.013, 0.004, 0.0]]), line)
    np.testing.assert_allclose(far, [0.005, 0.005], atol=1e-12)
    even = resample(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), 5)
    np.testing.assert_allclose(even[:, 0], np.linspace(0, 1, 5))
