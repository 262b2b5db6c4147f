"""``head-camera-datamodule``: threestudio's random cameras, and a pose of the head for each."""

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import threestudio
from headstudio.flame import FlameParams, HeadModel
from headstudio.motion import (
    Motion,
    MotionSampler,
    MotionSamplerConfig,
    concatenate,
    for_head,
    frame_of,
    load_motion,
)
from headstudio.plugin._cameras import aim_again
from headstudio.plugin._common import find_files, resolve_asset
from headstudio.plugin._randomness import BATCH, own_numbers
from headstudio.render import Cameras
from headstudio.render.camera_path import turntable_azimuths
from headstudio.settings import Valid, check_all, setting, shown
from threestudio.data.uncond import (
    RandomCameraDataModule,
    RandomCameraDataModuleConfig,
    RandomCameraIterableDataset,
)
from threestudio.utils.config import parse_structured
from threestudio.utils.ops import get_mvp_matrix, get_projection_matrix, get_ray_directions

NEAR, FAR = 0.01, 100.0


@dataclass
class CloseUpConfig:
    """Steps that look at a part of the head from nearby instead of at the whole."""

    probability: float = setting(0.0, at_least=0, at_most=1)
    # Only from start_step to end_step.
    start_step: int = setting(1200, at_least=0)
    end_step: int = setting(3600, at_least=0)
    distance_range: tuple[float, float] = setting((0.4, 0.6), pair=True, above=0)
    azimuth_range: tuple[float, float] = setting((-90.0, 90.0), pair=True)
    # How far above the origin these cameras are, and look.
    offset: float = setting(0.0)

    @staticmethod
    def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :func:`headstudio.settings.violations`."""
        start, end = (
            values.get(name, getattr(CloseUpConfig, name)) for name in ("start_step", "end_step")
        )
        if isinstance(start, int) and isinstance(end, int) and start > end:
            yield "end_step", f"is {end} and start_step {start}: these cameras would never come"


@dataclass
class HeadCameraConfig(RandomCameraDataModuleConfig):
    # The head the motions are for; that of the geometry.
    head_model: str = "load/flame/open_head.npz"
    # --- poses in training: a pattern of motion files, or a list of patterns
    motions: Any = "load/motion/*.npz"
    # False is the ablation: every step shows the neutral head.
    training_with_animation: bool = True
    # A motion frame for each view of a step, or one shared by all of them.
    pose_per_view: bool = True
    # Which parts of a frame move: the fields of headstudio.motion.MotionSamplerConfig.
    animation: dict[str, Any] = setting(factory=dict, of=MotionSamplerConfig)
    # --- close-ups in training: lists of the fields of CloseUpConfig
    close_ups: list[dict[str, Any]] = setting(factory=list, of=CloseUpConfig)
    # --- validation: these views (n_val_views is not used), the jaw open by so much in each
    val_azimuths_deg: list[float] = setting(
        factory=lambda: [0.0, 0.0, 45.0, 90.0, 180.0], each=True
    )
    val_jaws_deg: list[float] = setting(factory=lambda: [0.0, 15.0, 0.0, 0.0, 0.0], each=True)
    # --- test: n_test_views frames of a turntable, while these motions (or, without any, those of
    # the training) are played one after the other, so many times over
    test_motions: list[str] = field(default_factory=list)
    test_turns: float = setting(1.0, at_least=-1000, at_most=1000)
    test_repeats: int = setting(1, at_least=1)

    # Ranges of the host's settings.
    RANGES: ClassVar[dict[str, Valid]] = {
        **{
            name: Valid(stages=True, whole=True, strict=True, at_least=1, at_most=most)
            for name, most in (("height", 8192), ("width", 8192), ("batch_size", 4096))
        },
        **{name: Valid(at_least=1, at_most=8192) for name in ("eval_height", "eval_width")},
        **{name: Valid(at_least=1) for name in ("eval_batch_size", "n_val_views", "n_test_views")},
        "elevation_range": Valid(pair=True, at_least=-90, at_most=90),
        "azimuth_range": Valid(pair=True, at_least=-720, at_most=720),
        "camera_distance_range": Valid(pair=True, above=0),
        "fovy_range": Valid(pair=True, above=0, below=180),
        "light_distance_range": Valid(pair=True, above=0),
        **{
            f"{name}_perturb": Valid(at_least=0)
            for name in ("camera", "center", "up", "light_position")
        },
        "eval_elevation_deg": Valid(at_least=-90, at_most=90),
        "eval_camera_distance": Valid(above=0),
        "eval_fovy_deg": Valid(above=0, below=180),
        "light_sample_strategy": Valid(one_of=("dreamfusion", "magic3d")),
        "progressive_until": Valid(at_least=0),
    }

    def __post_init__(self) -> None:
        for_the_host = getattr(super(), "__post_init__", None)
        if for_the_host is not None:
            for_the_host()
        check_all(self, "data")

    @staticmethod
    def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :func:`headstudio.settings.violations`."""
        azimuths, jaws = values.get("val_azimuths_deg"), values.get("val_jaws_deg")
        if azimuths is not None and jaws is not None and len(azimuths) != len(jaws):
            yield (
                "val_azimuths_deg",
                f"has {len(azimuths)} entries and data.val_jaws_deg {len(jaws)}; they go together "
                "view by view",
            )
        if values.get("rays") is True:
            yield (
                "rays",
                "is true; this data module draws cameras without rays, as the renderer needs none",
            )
        motions = values.get("motions", "")
        patterns = [motions] if isinstance(motions, str) else motions
        read = values.get("training_with_animation", True) or not values.get("test_motions")
        named = isinstance(patterns, list) and all(isinstance(one, str) for one in patterns)
        if read and not (named and patterns):
            yield (
                "motions",
                f"is {shown(motions)}; expected a pattern of motion files, such as "
                "load/motion/*.npz, or a list of patterns",
            )


class PosedCameraDataset(RandomCameraIterableDataset):
    """threestudio's random cameras; each batch also has ``flame``, parameters by name."""

    cfg: HeadCameraConfig

    def __init__(self, cfg: HeadCameraConfig, sampler: MotionSampler | None) -> None:
        super().__init__(cfg)
        # The host reads dozens of settings for every batch, and OmegaConf takes its time for each.
        self.cfg = cast(HeadCameraConfig, OmegaConf.to_object(cfg))
        self.sampler = sampler
        self.close_ups = [parse_structured(CloseUpConfig, close_up) for close_up in cfg.close_ups]
        self.step = 0
        # Once `begin` was called: the seed, the next batch's number, batches in a step.
        self._clock: tuple[int, int, int] | None = None
        # Nobody here needs rays, which at 1024 px cost more than everything else in a batch:
        # threestudio, which always makes them, is given pictures of one pixel to make them for.
        self.directions_unit_focals = [get_ray_directions(H=1, W=1, focal=1.0)] * len(self.heights)
        self.directions_unit_focal = self.directions_unit_focals[0]

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        super().update_step(epoch, global_step, on_load_weights)
        self.step = global_step

    def progressive_view(self, global_step: int) -> None:
        """Open the ranges of angles from the front view to all, until ``progressive_until``."""
        # The host's ramp is at its beginning in step 0 even where it is off, and all cameras of
        # that step would stand in front.
        if self.cfg.progressive_until > 0:
            super().progressive_view(global_step)

    def begin(self, seed: int, batches: int = 0, batches_per_step: int = 1) -> None:
        """Make every batch follow from its number.

        A loader draws batches before the step that they are for; then the step that was last told
        of is not theirs, and would not be the same in a run that is gone on with.

        Args:
            seed: of the run.
            batches: how many the run has used already.
            batches_per_step: gradients of how many are accumulated.
        """
        self._clock = seed, batches, batches_per_step

    def collate(self, batch: Any) -> dict[str, Any]:
        if self._clock is None:
            return self._draw(batch)
        seed, number, batches_per_step = self._clock
        self._clock = seed, number + 1, batches_per_step
        self.update_step(0, number // batches_per_step)
        with own_numbers(seed, BATCH, number):
            return self._draw(batch)

    def _draw(self, batch: Any) -> dict[str, Any]:
        with self._close_up() as offset:
            batch = super().collate(batch)
        aim_again(batch, self.cfg.center_perturb, self.cfg.up_perturb)
        for name in ("rays_o", "rays_d"):
            batch.pop(name, None)
        if offset:
            _raise_cameras(batch, offset)
        batch["flame"] = self._poses(len(batch["c2w"]))
        return batch

    def _poses(self, views: int) -> dict[str, Tensor]:
        if self.sampler is None:
            return {}
        return dict(self.sampler.sample(views if self.cfg.pose_per_view else 1).items())

    @contextmanager
    def _close_up(self) -> Iterator[float]:
        """Cameras of one batch at another distance, now and then; yields how far above."""
        ranges = self.camera_distance_range, self.azimuth_range
        offset = 0.0
        for close_up in self.close_ups:
            in_time = close_up.start_step <= self.step <= close_up.end_step
            if in_time and random.random() < close_up.probability:
                self.camera_distance_range = tuple(close_up.distance_range)
                self.azimuth_range = tuple(close_up.azimuth_range)
                offset = close_up.offset
                break
        try:
            yield offset
        finally:
            self.camera_distance_range, self.azimuth_range = ranges


def _raise_cameras(batch: dict[str, Any], offset: float) -> None:
    """Move the cameras, and what they look at, up."""
    batch["c2w"][:, 2, 3] += offset
    batch["camera_positions"] = batch["c2w"][:, :3, 3].clone()
    batch["mvp_mtx"] = get_mvp_matrix(batch["c2w"], batch["proj_mtx"])


class FixedViewDataset(Dataset):
    """Cameras around the head at given angles, each with a pose, in threestudio's batch keys."""

    def __init__(self, cfg: HeadCameraConfig, azimuth_deg: Tensor, poses: FlameParams) -> None:
        self.cfg = cfg
        self.azimuth_deg = azimuth_deg
        self.flame = dict(poses.expand().items())
        views = len(azimuth_deg)
        cameras = Cameras.orbit(
            azimuth_deg,
            cfg.eval_elevation_deg,
            cfg.eval_camera_distance,
            cfg.eval_fovy_deg,
            height=cfg.eval_height,
            width=cfg.eval_width,
        )
        self.c2w, self.fovy = cameras.c2w[0], cameras.fovy[0]
        projection = get_projection_matrix(self.fovy, cfg.eval_width / cfg.eval_height, NEAR, FAR)
        self.per_view = {
            "index": torch.arange(views),
            "c2w": self.c2w,
            "proj_mtx": projection,
            "mvp_mtx": get_mvp_matrix(self.c2w, projection),
            "camera_positions": self.c2w[:, :3, 3],
            "light_positions": self.c2w[:, :3, 3],
            "elevation": torch.full((views,), float(cfg.eval_elevation_deg)),
            "azimuth": azimuth_deg,
            "camera_distances": torch.full((views,), float(cfg.eval_camera_distance)),
            "fovy": self.fovy,
        }

    def __len__(self) -> int:
        return len(self.azimuth_deg)

    def __getitem__(self, index: int) -> dict[str, Any]:
        view = {name: value[index] for name, value in self.per_view.items()}
        return view | {"flame": {name: value[index] for name, value in self.flame.items()}}

    def collate(self, views: list[dict[str, Any]]) -> dict[str, Any]:
        batch = torch.utils.data.default_collate(views)
        return batch | {"height": self.cfg.eval_height, "width": self.cfg.eval_width}


@threestudio.register("head-camera-datamodule")
class HeadCameraDataModule(RandomCameraDataModule):
    """Random cameras and motion frames to train on; fixed views and a turntable to look at."""

    cfg: HeadCameraConfig

    def __init__(self, cfg: Any = None) -> None:
        super().__init__({})
        self.cfg = parse_structured(HeadCameraConfig, cfg)
        # Here and not in setup(): what is wrong with a file is said before a run begins to write.
        head = HeadModel.load(resolve_asset(self.cfg.head_model))
        self._sampler = self._make_sampler(head)
        self._val_poses = self._make_val_poses(head)
        self._test_poses = self._make_test_poses(head)

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.train_dataset = PosedCameraDataset(self.cfg, self._sampler)
        if stage in (None, "fit", "validate"):
            azimuth = torch.tensor(list(self.cfg.val_azimuths_deg), dtype=torch.float32)
            self.val_views = FixedViewDataset(self.cfg, azimuth, self._val_poses)
        if stage in (None, "test", "predict"):
            turn = turntable_azimuths(self.cfg.n_test_views, self.cfg.test_turns)
            self.test_views = FixedViewDataset(self.cfg, turn, self._test_poses)

    def _make_sampler(self, head: HeadModel) -> MotionSampler | None:
        if not self.cfg.training_with_animation:
            return None
        config = parse_structured(MotionSamplerConfig, self.cfg.animation)
        return MotionSampler(self._motions(self.cfg.motions), head, config)

    def _motions(self, patterns: Any) -> list[Motion]:
        files = find_files(patterns, what="motion files (data.motions, data.test_motions)")
        return [load_motion(path) for path in files]

    def _make_val_poses(self, head: HeadModel) -> FlameParams:
        jaw = torch.zeros(len(self.cfg.val_jaws_deg), 3)
        jaw[:, 0] = torch.tensor(list(self.cfg.val_jaws_deg)) * math.pi / 180
        return FlameParams.zeros(1, head.n_shape, head.n_expression).replace(jaw_pose=jaw)

    def _make_test_poses(self, head: HeadModel) -> FlameParams:
        motions = self._motions(self.cfg.test_motions or self.cfg.motions)
        motion = concatenate([for_head(motion, head) for motion in motions])
        seconds = torch.arange(self.cfg.n_test_views) / self.cfg.n_test_views
        seconds = seconds * motion.duration * self.cfg.test_repeats
        return frame_of(motion, seconds % motion.duration)

    def _fixed_view_loader(self, dataset: FixedViewDataset) -> DataLoader:
        return self.general_loader(dataset, self.cfg.eval_batch_size, dataset.collate)

    def val_dataloader(self) -> DataLoader:
        return self._fixed_view_loader(self.val_views)

    def test_dataloader(self) -> DataLoader:
        return self._fixed_view_loader(self.test_views)

    def predict_dataloader(self) -> DataLoader:
        return self._fixed_view_loader(self.test_views)
