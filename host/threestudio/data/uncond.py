"""Cameras all around the scene: random ones to train with, a circle of them to look with."""

import bisect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from threestudio._registry import register
from threestudio.data import cameras
from threestudio.utils.base import Updateable
from threestudio.utils.config import parse_structured
from threestudio.utils.errors import UserError


@dataclass
class RandomCameraDataModuleConfig:
    """``height``, ``width`` and ``batch_size`` may be lists, one entry for each stage of
    training; ``resolution_milestones`` are the steps where the second and later stages begin.
    Angles are in degrees. ``rays`` is this host's own: ask for ``rays_o`` and ``rays_d``.
    """

    height: Any = 64
    width: Any = 64
    batch_size: Any = 1
    resolution_milestones: list[int] = field(default_factory=list)
    eval_height: int = 512
    eval_width: int = 512
    eval_batch_size: int = 1
    n_val_views: int = 1
    n_test_views: int = 120
    elevation_range: tuple[float, float] = (-10, 90)
    azimuth_range: tuple[float, float] = (-180, 180)
    camera_distance_range: tuple[float, float] = (1, 1.5)
    fovy_range: tuple[float, float] = (40, 70)
    camera_perturb: float = 0.1
    center_perturb: float = 0.2
    up_perturb: float = 0.02
    light_position_perturb: float = 1.0
    light_distance_range: tuple[float, float] = (0.8, 1.5)
    eval_elevation_deg: float = 15.0
    eval_camera_distance: float = 1.5
    eval_fovy_deg: float = 70.0
    light_sample_strategy: str = "dreamfusion"
    batch_uniform_azimuth: bool = True
    progressive_until: int = 0
    rays_d_normalize: bool = True
    rays: bool = False

    def __post_init__(self) -> None:
        sizes = {len(_stages(size)) for size in (self.height, self.width, self.batch_size)}
        if sizes != {len(self.resolution_milestones) + 1}:
            raise UserError(
                "height, width and batch_size need as many entries as each other, and "
                f"resolution_milestones one less; they are {self.height}, {self.width}, "
                f"{self.batch_size} and {self.resolution_milestones}"
            )


def _stages(value: Any) -> list[int]:
    """What a size is in each stage.

    Raises:
        UserError: for anything but a whole number, or a list of such.
    """
    sizes = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not all(isinstance(size, int) for size in sizes):
        raise UserError(
            "height, width and batch_size are whole numbers, or lists of such with one for each "
            f"stage; one of them is {value!r}"
        )
    return sizes


class RandomCameraIterableDataset(IterableDataset, Updateable):
    """An endless source of random batches; ``collate`` draws one."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg: RandomCameraDataModuleConfig = cfg
        self.heights = _stages(cfg.height)
        self.widths = _stages(cfg.width)
        self.batch_sizes = _stages(cfg.batch_size)
        self.resolution_milestones = [-1, *cfg.resolution_milestones]
        self.azimuth_range = tuple(cfg.azimuth_range)
        self.elevation_range = tuple(cfg.elevation_range)
        self.camera_distance_range = tuple(cfg.camera_distance_range)
        self.fovy_range = tuple(cfg.fovy_range)
        self._enter_stage(0)

    def _enter_stage(self, stage: int) -> None:
        self.height = self.heights[stage]
        self.width = self.widths[stage]
        self.batch_size = self.batch_sizes[stage]

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self._enter_stage(bisect.bisect_right(self.resolution_milestones, global_step) - 1)
        self.progressive_view(global_step)

    def progressive_view(self, global_step: int) -> None:
        """Open the ranges of angles from the front view to all, until ``progressive_until``."""
        opened = min(1.0, global_step / (self.cfg.progressive_until + 1))

        def between(start: float, bounds: Any) -> tuple[float, ...]:
            return tuple((1 - opened) * start + opened * bound for bound in bounds)

        self.elevation_range = between(self.cfg.eval_elevation_deg, self.cfg.elevation_range)
        self.azimuth_range = between(0.0, self.cfg.azimuth_range)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield {}

    def collate(self, batch: Any) -> dict[str, Any]:
        """Draw a batch of B cameras; ``batch``, what the loader passes, is not looked at.

        Returns:
            ``c2w``, ``mvp_mtx``, ``proj_mtx`` [B, 4, 4]; ``camera_positions``,
            ``light_positions`` [B, 3]; ``elevation``, ``azimuth`` in degrees,
            ``camera_distances``, ``fovy`` in radians [B]; ``height``, ``width``; with
            ``cfg.rays`` also ``rays_o``, ``rays_d`` [B, H, W, 3].
        """
        cfg, n = self.cfg, self.batch_size
        # By turns uniform in angle, which favours the poles, and uniform over the sphere.
        over_sphere = random.random() >= 0.5
        elevation = cameras.sample_elevation(n, self.elevation_range, over_sphere)
        azimuth = cameras.sample_azimuth(n, self.azimuth_range, cfg.batch_uniform_azimuth)
        distance = cameras.uniform(n, self.camera_distance_range)
        position = cameras.on_sphere(elevation, azimuth, distance)
        position = position + (torch.rand(n, 3) * 2 - 1) * cfg.camera_perturb
        target = torch.randn(n, 3) * cfg.center_perturb
        up = torch.tensor([0.0, 0.0, 1.0]) + torch.randn(n, 3) * cfg.up_perturb
        fovy = torch.deg2rad(cameras.uniform(n, self.fovy_range))
        lights = cameras.sample_lights(
            cfg.light_sample_strategy,
            position,
            cfg.light_distance_range,
            cfg.light_position_perturb,
        )
        c2w = cameras.look_at(position, target, up)
        views: dict[str, Any] = {
            **cameras.projections(c2w, fovy, self.height, self.width),
            "c2w": c2w,
            "camera_positions": position,
            "light_positions": lights,
            "elevation": elevation,
            "azimuth": azimuth,
            "camera_distances": distance,
            "fovy": fovy,
            "height": self.height,
            "width": self.width,
        }
        if cfg.rays:
            views.update(
                cameras.pixel_rays(c2w, fovy, self.height, self.width, cfg.rays_d_normalize)
            )
        return views


class RandomCameraDataset(Dataset):
    """A circle of cameras at one height, which are also where the light is.

    ``split`` ``"val"`` takes ``n_val_views``, all different; otherwise ``n_test_views``, the
    last where the first was, so that a video closes.
    """

    def __init__(self, cfg: Any, split: str) -> None:
        super().__init__()
        self.cfg: RandomCameraDataModuleConfig = cfg
        self.split = split
        self.n_views = cfg.n_val_views if split == "val" else cfg.n_test_views
        n_steps = self.n_views + 1 if split == "val" else self.n_views
        self.azimuth_deg = torch.linspace(0, 360.0, n_steps)[: self.n_views]
        self.elevation_deg = torch.full((self.n_views,), float(cfg.eval_elevation_deg))
        self.camera_distances = torch.full((self.n_views,), float(cfg.eval_camera_distance))
        self.azimuth = torch.deg2rad(self.azimuth_deg)
        self.elevation = torch.deg2rad(self.elevation_deg)
        self.fovy = torch.deg2rad(torch.full((self.n_views,), float(cfg.eval_fovy_deg)))
        self.camera_positions = cameras.on_sphere(
            self.elevation_deg, self.azimuth_deg, self.camera_distances
        )
        self.light_positions = self.camera_positions
        centre = torch.zeros_like(self.camera_positions)
        up = torch.tensor([0.0, 0.0, 1.0]).expand_as(centre)
        self.c2w = cameras.look_at(self.camera_positions, centre, up)
        matrices = cameras.projections(self.c2w, self.fovy, cfg.eval_height, cfg.eval_width)
        self.proj_mtx, self.mvp_mtx = matrices["proj_mtx"], matrices["mvp_mtx"]

    def __len__(self) -> int:
        return self.n_views

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One view: the keys of a training batch without B, and ``index``."""
        view: dict[str, Any] = {
            "index": index,
            "c2w": self.c2w[index],
            "mvp_mtx": self.mvp_mtx[index],
            "proj_mtx": self.proj_mtx[index],
            "camera_positions": self.camera_positions[index],
            "light_positions": self.light_positions[index],
            "elevation": self.elevation_deg[index],
            "azimuth": self.azimuth_deg[index],
            "camera_distances": self.camera_distances[index],
            "fovy": self.fovy[index],
            "height": self.cfg.eval_height,
            "width": self.cfg.eval_width,
        }
        if self.cfg.rays:
            view.update(self._rays(index))
        return view

    def _rays(self, index: int) -> dict[str, Tensor]:
        one = slice(index, index + 1)
        rays = cameras.pixel_rays(
            self.c2w[one],
            self.fovy[one],
            self.cfg.eval_height,
            self.cfg.eval_width,
            self.cfg.rays_d_normalize,
        )
        return {key: value[0] for key, value in rays.items()}

    def collate(self, batch: Any) -> dict[str, Any]:
        """Stack views; ``height`` and ``width`` stay numbers."""
        stacked = torch.utils.data.default_collate(batch)
        stacked.update(height=self.cfg.eval_height, width=self.cfg.eval_width)
        return stacked


@register("random-camera-datamodule")
class RandomCameraDataModule(pl.LightningDataModule):
    """The cameras above for lightning; testing and predicting share theirs."""

    cfg: RandomCameraDataModuleConfig

    def __init__(self, cfg: dict | DictConfig | None = None) -> None:
        super().__init__()
        self.cfg = parse_structured(RandomCameraDataModuleConfig, cfg)

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.train_dataset = RandomCameraIterableDataset(self.cfg)
        if stage in (None, "fit", "validate"):
            self.val_dataset = RandomCameraDataset(self.cfg, "val")
        if stage in (None, "test", "predict"):
            self.test_dataset = RandomCameraDataset(self.cfg, "test")

    def general_loader(
        self, dataset: Any, batch_size: int | None, collate_fn: Any = None
    ) -> DataLoader:
        """A loader in this process: the dataset must hear of steps, which a copy would not."""
        return DataLoader(dataset, num_workers=0, batch_size=batch_size, collate_fn=collate_fn)

    def train_dataloader(self) -> DataLoader:
        return self.general_loader(
            self.train_dataset, batch_size=None, collate_fn=self.train_dataset.collate
        )

    def _evaluation_loader(self, dataset: RandomCameraDataset) -> DataLoader:
        return self.general_loader(dataset, self.cfg.eval_batch_size, dataset.collate)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.test_dataset)
