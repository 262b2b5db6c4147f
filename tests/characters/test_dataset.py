"""Pictures of characters: shapes, repeatability, views and their words."""

from __future__ import annotations

import pytest
import torch

from headstudio.characters import (
    IGNORED_CLASS,
    VIEWS,
    CameraRange,
    CharacterDataset,
    attribute_classes,
    random_poses,
    view_word,
)
from headstudio.errors import HeadStudioError
from headstudio.flame import HeadModel
from headstudio.motion import load_motion
from headstudio.paths import find_asset

SIZE = 48


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(find_asset("flame/open_head.npz"))


@pytest.fixture(scope="module")
def dataset(head: HeadModel) -> CharacterDataset:
    return CharacterDataset(
        head, n_characters=12, image_size=SIZE, seed=3, n_splats=6000, views_per_character=3
    )


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_batch_has_the_promised_shapes(dataset: CharacterDataset) -> None:
    batch = dataset.render(7, _seeded(0))
    assert batch["image"].shape == batch["control"].shape == (7, SIZE, SIZE, 3)
    assert batch["control_weight"].shape == (7,)
    assert set(batch["control_weight"].tolist()) <= {0.0, 1.0}
    assert batch["image"].min() >= 0
    assert batch["image"].max() <= 1
    assert len(batch["captions"]) == 7
    assert all(batch["captions"])
    assert set(batch["attributes"]) == set(batch["attribute_names"]) == set(dataset.attribute_names)
    for name, classes in batch["attributes"].items():
        assert classes.dtype == torch.int64
        assert classes.shape == (7,)
        known = (classes == IGNORED_CLASS) | (classes < len(dataset.attribute_names[name]))
        assert known.all()


def test_attributes_are_those_of_the_characters(dataset: CharacterDataset) -> None:
    batch = dataset.render(9, _seeded(1))
    for i, number in enumerate(batch["character"].tolist()):
        word = view_word(float(batch["azimuth"][i]), float(batch["elevation"][i]))
        expected = attribute_classes(dataset.characters[number]) | {"view": VIEWS.index(word)}
        assert {k: int(v[i]) for k, v in batch["attributes"].items()} == expected


def test_the_generator_decides_everything(dataset: CharacterDataset) -> None:
    first, second = dataset.render(6, _seeded(4)), dataset.render(6, _seeded(4))
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["control"], second["control"])
    assert first["captions"] == second["captions"]
    other = dataset.render(6, _seeded(5))
    assert not torch.equal(first["image"], other["image"])


def test_the_head_is_in_the_picture(dataset: CharacterDataset) -> None:
    """The middle of the picture differs from its corners, which are background."""
    images = dataset.render(12, _seeded(6))["image"]
    middle = images[:, SIZE // 3 : -SIZE // 3, SIZE // 3 : -SIZE // 3].flatten(1, 2)
    corner = images[:, :1, 0]
    assert ((middle - corner).abs().amax(-1) > 0.05).float().mean(1).median() > 0.9


def test_control_is_drawn_for_front_views_and_weighs_nothing_for_backs(
    dataset: CharacterDataset,
) -> None:
    batch = dataset.render(60, _seeded(7))
    azimuth, weight = batch["azimuth"].abs(), batch["control_weight"]
    assert (weight[azimuth < 40] == 1).all()
    assert (weight[azimuth > 170] == 0).all()
    drawn = batch["control"].flatten(1).amax(1) > 0
    assert torch.equal(drawn, weight > 0)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "word"),
    [
        (0, 0, "front"), (44, 0, "front"), (-44, 0, "front"), (46, 0, "side"), (-90, 10, "side"),
        (136, 0, "back"), (-179, 0, "back"), (270, 0, "side"), (0, 61, "overhead"),
    ],
)  # fmt: skip
def test_view_words_follow_the_prompt_processors(
    azimuth: float, elevation: float, word: str
) -> None:
    assert view_word(azimuth, elevation) == word


def test_cameras_stay_in_their_ranges_and_see_all_sides() -> None:
    ranges = CameraRange()
    cameras, azimuth, elevation = ranges.sample(4000, SIZE, _seeded(0))
    assert azimuth.min() >= -180
    assert azimuth.max() < 180
    assert elevation.min() >= ranges.elevation_range[0]
    assert elevation.max() <= ranges.elevation_range[1]
    position, forward = cameras.positions[0], -cameras.c2w[0, :, :3, 2]
    # Where along its axis each camera passes the vertical through the head's centre.
    distance = -(position * forward)[:, :2].sum(1) / forward[:, :2].square().sum(1)
    height = position[:, 2] + distance * forward[:, 2]
    close = height > 0.5 * ranges.close_up_offset
    torch.testing.assert_close(height, close * ranges.close_up_offset, atol=1e-4, rtol=0)
    for some, (low, high) in (
        (distance[close], ranges.close_up_distance_range),
        (distance[~close], ranges.camera_distance_range),
    ):
        assert low - 1e-3 <= some.min() < low + 0.05
        assert high - 0.05 < some.max() <= high + 1e-3
    assert close.float().mean() == pytest.approx(ranges.close_up_share, abs=0.05)
    measured = torch.rad2deg(torch.atan2(position[:, 1], position[:, 0]))
    torch.testing.assert_close(torch.cos(torch.deg2rad(measured - azimuth)), torch.ones(4000))
    back = (azimuth.abs() > 135).float().mean()
    front = (azimuth.abs() < 45).float().mean()
    assert back > 0.08
    assert front > 0.4


def test_poses_are_varied_and_within_reach(head: HeadModel) -> None:
    poses = random_poses(head, 500, _seeded(0))
    assert poses.expression.min() >= 0
    assert poses.expression.max() <= 1
    jaw = poses.jaw_pose[:, 0]
    assert jaw.min() == 0
    assert 0.2 < jaw.max() <= 0.32
    at_rest = (poses.expression.abs().amax(1) == 0) & (jaw == 0)
    assert 0.15 < at_rest.float().mean() < 0.35
    blink = poses.expression[:, head.expression_names.index("eyeBlinkLeft")]
    assert (blink > 0.6).float().mean() > 0.05


def test_motions_are_mixed_in(head: HeadModel) -> None:
    motions = [load_motion(find_asset("motion/talk.npz"))]
    mixed = CharacterDataset(
        head, n_characters=2, image_size=16, n_splats=6000, motions=motions, views_per_character=1
    )
    assert torch.isfinite(mixed.render(2, _seeded(0))["image"]).all()
    poses = mixed._poses(200, _seeded(1))
    alone = random_poses(head, 200, _seeded(1))
    changed = (poses.expression != alone.expression).any(1).float().mean()
    assert 0.2 < changed < 0.8


def test_an_empty_population_is_refused(head: HeadModel) -> None:
    with pytest.raises(HeadStudioError, match="n_characters=0"):
        CharacterDataset(head, n_characters=0, n_splats=6000)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_pictures_equal_those_of_the_cpu(dataset: CharacterDataset) -> None:
    head = HeadModel.load(find_asset("flame/open_head.npz"))
    on_gpu = CharacterDataset(
        head,
        n_characters=12,
        image_size=SIZE,
        seed=3,
        n_splats=6000,
        views_per_character=3,
        device="cuda",
    )
    a, b = dataset.render(12, _seeded(0)), on_gpu.render(12, _seeded(0))
    error = ((a["image"] - b["image"].cpu()) ** 2).mean()
    assert -10 * torch.log10(error) > 35
    assert a["captions"] == b["captions"]
