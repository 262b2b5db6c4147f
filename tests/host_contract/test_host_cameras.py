"""The random-camera datamodule: where its cameras are, and what a batch holds.

No batch or circle here has three cameras: threestudio 0.2.3 takes cross products along the first
dimension of size three, which is then the wrong one.
"""

from __future__ import annotations

import math

import pytest
import torch

import threestudio
from threestudio.data.uncond import (
    RandomCameraDataModule,
    RandomCameraDataModuleConfig,
    RandomCameraDataset,
    RandomCameraIterableDataset,
)
from threestudio.utils.config import parse_structured
from threestudio.utils.ops import get_mvp_matrix, get_projection_matrix

EXACT = {"camera_perturb": 0.0, "center_perturb": 0.0, "up_perturb": 0.0}
KEYS = {
    "c2w": (4, 4),
    "mvp_mtx": (4, 4),
    "proj_mtx": (4, 4),
    "camera_positions": (3,),
    "light_positions": (3,),
    "elevation": (),
    "azimuth": (),
    "camera_distances": (),
    "fovy": (),
}


def draw(**settings: object) -> dict:
    cfg = parse_structured(RandomCameraDataModuleConfig, {"batch_size": 6, **EXACT, **settings})
    return RandomCameraIterableDataset(cfg).collate(None)


def circle(split: str, **settings: object) -> RandomCameraDataset:
    sizes = {"eval_height": 4, "eval_width": 8}
    return RandomCameraDataset(
        parse_structured(RandomCameraDataModuleConfig, {**sizes, **settings}), split
    )


def test_a_training_batch_has_its_keys_and_shapes() -> None:
    batch = draw(height=10, width=20)
    for key, shape in KEYS.items():
        assert batch[key].shape == (6, *shape), key
        assert batch[key].dtype == torch.float32, key
    assert (batch["height"], batch["width"]) == (10, 20)


def test_azimuth_zero_is_on_x_and_ninety_on_y() -> None:
    views = circle(
        "val", n_val_views=4, eval_elevation_deg=0.0, eval_camera_distance=2.0, eval_fovy_deg=60.0
    )
    positions = torch.stack([views[i]["camera_positions"] for i in range(4)])
    expected = torch.tensor([[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0]])
    torch.testing.assert_close(positions, expected, atol=1e-5, rtol=0)
    # Camera axes in the world: x right, y up, -z forward.
    front = torch.tensor([[0.0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(views[0]["c2w"], front, atol=1e-5, rtol=0)


def test_training_cameras_lie_where_their_angles_say_and_look_at_the_middle() -> None:
    ranges = {
        "elevation_range": [-20, 40],
        "azimuth_range": [-90, 180],
        "camera_distance_range": [2, 3],
        "fovy_range": [30, 50],
    }
    for _ in range(5):  # elevations are drawn in two ways, by turns
        batch = draw(**ranges)
        elevation, azimuth = batch["elevation"], batch["azimuth"]
        assert ((elevation >= -20) & (elevation <= 40)).all()
        assert ((azimuth >= -90) & (azimuth <= 180)).all()
        assert ((batch["camera_distances"] >= 2) & (batch["camera_distances"] <= 3)).all()
        assert ((batch["fovy"] >= math.radians(30)) & (batch["fovy"] <= math.radians(50))).all()
        e, a = torch.deg2rad(elevation), torch.deg2rad(azimuth)
        direction = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1)
        expected = batch["camera_distances"][:, None] * direction
        torch.testing.assert_close(batch["camera_positions"], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batch["c2w"][:, :3, 3], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batch["c2w"][:, :3, 2], direction, atol=1e-5, rtol=1e-5)
        rotation = batch["c2w"][:, :3, :3]
        torch.testing.assert_close(
            rotation.transpose(1, 2) @ rotation, torch.eye(3).expand(6, 3, 3), atol=1e-5, rtol=0
        )
        assert (torch.linalg.det(rotation) > 0.99).all()
        assert (rotation[:, 2, 0].abs() < 1e-5).all()  # right is horizontal
        assert (rotation[:, 2, 1] > 0).all()  # up is up


def test_the_matrices_belong_to_the_camera() -> None:
    batch = draw(height=10, width=20)
    projection = get_projection_matrix(batch["fovy"], 2.0, 0.01, 100.0)
    torch.testing.assert_close(batch["proj_mtx"], projection)
    torch.testing.assert_close(batch["mvp_mtx"], get_mvp_matrix(batch["c2w"], projection))


def test_azimuths_of_a_batch_are_spread_evenly() -> None:
    for _ in range(5):
        azimuth = draw(batch_uniform_azimuth=True, azimuth_range=[0, 360])["azimuth"]
        assert (azimuth // 60).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("strategy", ["dreamfusion", "magic3d"])
def test_lights_are_at_their_distance_and_on_the_camera_side(strategy: str) -> None:
    batch = draw(
        light_sample_strategy=strategy,
        light_distance_range=[0.8, 1.5],
        light_position_perturb=0.0,
        elevation_range=[-30, 60],
    )
    distance = batch["light_positions"].norm(dim=-1)
    assert ((distance > 0.79) & (distance < 1.51)).all()
    cosine = torch.cosine_similarity(batch["light_positions"], batch["camera_positions"])
    # The first keeps the camera's direction, the second stays within 60 degrees of it.
    assert (cosine > (0.999 if strategy == "dreamfusion" else 0.499)).all()


def test_cameras_are_perturbed() -> None:
    still = draw(elevation_range=[0, 0], azimuth_range=[0, 0], camera_distance_range=[2, 2])
    moved = draw(
        elevation_range=[0, 0],
        azimuth_range=[0, 0],
        camera_distance_range=[2, 2],
        camera_perturb=0.1,
        center_perturb=0.2,
        up_perturb=0.02,
    )
    assert (still["camera_positions"] == torch.tensor([2.0, 0, 0])).all()
    offset = moved["camera_positions"] - still["camera_positions"]
    assert 0.01 < offset.abs().max() <= 0.1
    assert (moved["c2w"][:, :3, 2] - still["c2w"][:, :3, 2]).abs().max() > 1e-3
    torch.testing.assert_close(moved["azimuth"], still["azimuth"])


def test_the_stages_of_a_growing_resolution() -> None:
    cfg = parse_structured(
        RandomCameraDataModuleConfig,
        {
            "height": [8, 16],
            "width": [8, 32],
            "batch_size": [4, 2],
            "resolution_milestones": [100],
        },
    )
    dataset = RandomCameraIterableDataset(cfg)
    for step, expected in ((0, (4, 8, 8)), (99, (4, 8, 8)), (100, (2, 16, 32)), (500, (2, 16, 32))):
        dataset.update_step(0, step)
        batch = dataset.collate(None)
        assert (len(batch["c2w"]), batch["height"], batch["width"]) == expected


def test_views_open_progressively() -> None:
    cfg = parse_structured(
        RandomCameraDataModuleConfig,
        {"progressive_until": 99, "elevation_range": [-10, 90], "eval_elevation_deg": 15.0},
    )
    dataset = RandomCameraIterableDataset(cfg)
    dataset.update_step(0, 0)
    assert (tuple(dataset.elevation_range), tuple(dataset.azimuth_range)) == ((15, 15), (0, 0))
    dataset.update_step(0, 50)
    assert tuple(dataset.elevation_range) == pytest.approx((2.5, 52.5))
    assert tuple(dataset.azimuth_range) == pytest.approx((-90, 90))
    dataset.update_step(0, 100)
    assert tuple(dataset.azimuth_range) == pytest.approx((-180, 180))


def test_the_evaluation_circle() -> None:
    validation = circle("val", n_val_views=4)
    assert len(validation) == 4
    assert [float(validation[i]["azimuth"]) for i in range(4)] == pytest.approx([0, 90, 180, 270])
    test = circle("test", n_test_views=5, eval_elevation_deg=20.0, eval_fovy_deg=45.0)
    assert [float(test[i]["azimuth"]) for i in range(5)] == pytest.approx([0, 90, 180, 270, 360])
    view = test[2]
    assert (view["index"], view["height"], view["width"]) == (2, 4, 8)
    assert float(view["elevation"]) == 20.0
    assert float(view["fovy"]) == pytest.approx(math.radians(45))
    torch.testing.assert_close(view["light_positions"], view["camera_positions"])
    batch = test.collate([test[1], test[3]])
    for key, shape in KEYS.items():
        assert batch[key].shape == (2, *shape), key
    assert batch["index"].tolist() == [1, 3]
    assert (batch["height"], batch["width"]) == (4, 8)


def test_the_datamodule_serves_every_stage() -> None:
    assert threestudio.find("random-camera-datamodule") is RandomCameraDataModule
    settings = {"batch_size": 2, "n_val_views": 2, "n_test_views": 5}
    module = RandomCameraDataModule({**settings, "eval_height": 4, "eval_width": 4})
    module.setup("fit")
    assert next(iter(module.train_dataloader()))["c2w"].shape == (2, 4, 4)
    assert [int(batch["index"][0]) for batch in module.val_dataloader()] == [0, 1]
    module.setup("test")
    assert len(module.test_dataloader()) == len(module.predict_dataloader()) == 5


def test_an_extension_may_add_to_both_datasets() -> None:
    class Training(RandomCameraIterableDataset):
        def collate(self, batch: object) -> dict:
            return {**super().collate(batch), "extra": torch.zeros(self.batch_size)}

    class Looking(RandomCameraDataset):
        def __getitem__(self, index: int) -> dict:
            return {**super().__getitem__(index), "extra": torch.tensor(float(index))}

    cfg = parse_structured(
        RandomCameraDataModuleConfig, {"batch_size": 2, "eval_height": 4, "eval_width": 4}
    )
    assert Training(cfg).collate(None)["extra"].shape == (2,)
    views = Looking(cfg, "test")
    assert views.collate([views[0], views[1]])["extra"].tolist() == [0.0, 1.0]
