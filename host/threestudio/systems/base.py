"""What every system derives from: the training loop's hooks, and the parts of a 3D system."""

import os
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

import threestudio
from threestudio.systems.utils import parse_optimizer, parse_scheduler
from threestudio.utils.base import Updateable
from threestudio.utils.config import load_config, parse_structured
from threestudio.utils.errors import UserError
from threestudio.utils.misc import (
    C,
    cleanup,
    find_last_path,
    get_device,
    load_module_weights,
)
from threestudio.utils.saving import SaverMixin


class BaseSystem(pl.LightningModule, Updateable, SaverMixin):
    """A lightning module whose parts are told of every step and which knows where to save."""

    @dataclass
    class Config:
        loggers: dict = field(default_factory=dict)
        loss: dict = field(default_factory=dict)
        optimizer: dict = field(default_factory=dict)
        scheduler: dict | None = None
        weights: str | None = None
        weights_ignore_modules: list[str] | None = None
        cleanup_after_validation_step: bool = False
        cleanup_after_test_step: bool = False

    cfg: Config

    def __init__(self, cfg: Any, resumed: bool = False) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self._save_dir: str | None = None
        self._resumed = resumed
        self._resumed_status: dict[str, int] | None = None
        self.create_loggers(self.cfg.loggers)
        self.configure()
        if self.cfg.weights is not None:
            self.load_weights(self.cfg.weights, self.cfg.weights_ignore_modules)
        self.post_configure()

    def configure(self) -> None:
        """Make the parts."""

    def post_configure(self) -> None:
        """Do what needs the weights that ``cfg.weights`` names."""

    def load_weights(self, weights: str, ignore_modules: list[str] | None = None) -> None:
        """Take from a checkpoint whatever weights fit by name."""
        state, epoch, global_step = load_module_weights(
            weights, ignore_modules=ignore_modules, map_location="cpu"
        )
        self.load_state_dict(state, strict=False)
        self.do_update_step(epoch, global_step, on_load_weights=True)

    @property
    def resumed(self) -> bool:
        """Whether the run goes on from a checkpoint."""
        return self._resumed

    def set_resume_status(self, current_epoch: int, global_step: int) -> None:
        """Say where the checkpoint was saved; lightning forgets it outside of training."""
        self._resumed_status = {"current_epoch": current_epoch, "global_step": global_step}

    @property
    def true_global_step(self) -> int:
        """Optimiser steps made so far, those before resuming included."""
        status = self._resumed_status
        return self.global_step if status is None else status["global_step"]

    @property
    def true_current_epoch(self) -> int:
        """As ``true_global_step``, for epochs."""
        status = self._resumed_status
        return self.current_epoch if status is None else status["current_epoch"]

    def C(self, value: Any) -> float:
        """The value of a schedule now."""
        return C(value, self.true_current_epoch, self.true_global_step)

    def configure_optimizers(self) -> Any:
        optimizer = parse_optimizer(self.cfg.optimizer, self)
        result: dict[str, Any] = {"optimizer": optimizer}
        if self.cfg.scheduler is not None:
            result["lr_scheduler"] = parse_scheduler(self.cfg.scheduler, optimizer)
        return result

    def preprocess_data(self, batch: Any, stage: str) -> None:
        """Change a batch in place; ``stage`` is train, validation, test or predict."""

    def _begin_batch(self, batch: Any, stage: str, loader: Any) -> None:
        self.preprocess_data(batch, stage)
        self.dataset = loader.dataset  # a public attribute, hence told of the step with the rest
        self.do_update_step(self.true_current_epoch, self.true_global_step)

    def _finish_batch(self, free_memory: bool = False) -> None:
        self.do_update_step_end(self.true_current_epoch, self.true_global_step)
        if free_memory:
            cleanup()

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> None:
        self._begin_batch(batch, "train", self.trainer.train_dataloader)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._finish_batch()

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._begin_batch(batch, "validation", self.trainer.val_dataloaders)

    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._finish_batch(self.cfg.cleanup_after_validation_step)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._begin_batch(batch, "test", self.trainer.test_dataloaders)

    def on_test_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._finish_batch(self.cfg.cleanup_after_test_step)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._begin_batch(batch, "predict", self.trainer.predict_dataloaders)

    def on_predict_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._finish_batch(self.cfg.cleanup_after_test_step)


class BaseLift3DSystem(BaseSystem):
    """A system that learns a 3D thing: geometry, material, background and what renders them.

    Guidance and prompt processor are for the subclass to make, when training begins, as they
    are large. Predicting exports.
    """

    @dataclass
    class Config(BaseSystem.Config):
        geometry_type: str = ""
        geometry: dict = field(default_factory=dict)
        geometry_convert_from: str | None = None
        geometry_convert_inherit_texture: bool = False
        geometry_convert_override: dict = field(default_factory=dict)

        material_type: str = ""
        material: dict = field(default_factory=dict)

        background_type: str = ""
        background: dict = field(default_factory=dict)

        renderer_type: str = ""
        renderer: dict = field(default_factory=dict)

        guidance_type: str = ""
        guidance: dict = field(default_factory=dict)

        prompt_processor_type: str = ""
        prompt_processor: dict = field(default_factory=dict)

        exporter_type: str = "mesh-exporter"
        exporter: dict = field(default_factory=dict)

    cfg: Config

    def configure(self) -> None:
        cfg = self.cfg
        cfg.geometry_convert_from = find_last_path(cfg.geometry_convert_from)
        cfg.weights = find_last_path(cfg.weights)
        if cfg.geometry_convert_from and not cfg.weights and not self.resumed:
            self.geometry = self._convert_geometry(cfg.geometry_convert_from)
        else:
            self.geometry = threestudio.find(cfg.geometry_type)(cfg.geometry)
        self.material = threestudio.find(cfg.material_type)(cfg.material)
        self.background = threestudio.find(cfg.background_type)(cfg.background)
        self.renderer = threestudio.find(cfg.renderer_type)(cfg.renderer, **self._parts)

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "geometry": self.geometry,
            "material": self.material,
            "background": self.background,
        }

    def _convert_geometry(self, checkpoint: str) -> Any:
        """Make the geometry from that of an earlier run, whose configuration lies beside it."""
        threestudio.info(f"The geometry starts from {checkpoint}")
        run = os.path.dirname(os.path.dirname(checkpoint))
        previous = load_config(os.path.join(run, "configs", "parsed.yaml")).system
        previous.geometry.update(self.cfg.geometry_convert_override)
        source = threestudio.find(previous.geometry_type)(previous.geometry)
        state, epoch, global_step = load_module_weights(
            checkpoint, module_name="geometry", map_location="cpu"
        )
        source.load_state_dict(state, strict=False)
        source.do_update_step(epoch, global_step, on_load_weights=True)
        geometry = threestudio.find(self.cfg.geometry_type).create_from(
            source.to(get_device()),
            self.cfg.geometry,
            copy_net=self.cfg.geometry_convert_inherit_texture,
        )
        del source
        cleanup()
        return geometry

    def on_fit_start(self) -> None:
        if self._save_dir is None:
            threestudio.warn("No folder to save to is set: there will be no pictures")
        else:
            threestudio.info(f"Validation results will be saved to {self._save_dir}")

    def on_test_end(self) -> None:
        if self._save_dir is not None:
            threestudio.info(f"Test results saved to {self._save_dir}")

    def on_predict_start(self) -> None:
        self.exporter = threestudio.find(self.cfg.exporter_type)(self.cfg.exporter, **self._parts)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        if self.exporter.cfg.save_video:
            self.test_step(batch, batch_idx)

    def on_predict_epoch_end(self) -> None:
        if self.exporter.cfg.save_video:
            self.on_test_epoch_end()
        for output in self.exporter():
            save = getattr(self, f"save_{output.save_type}", None)
            if save is None:
                raise UserError(
                    f"{self.cfg.exporter_type} exports {output.save_name} as "
                    f"{output.save_type!r}, but the system has no save_{output.save_type}"
                )
            save(f"it{self.true_global_step}-export/{output.save_name}", **output.params)

    def on_predict_end(self) -> None:
        if self._save_dir is not None:
            threestudio.info(f"Exported to {self._save_dir}")

    def guidance_evaluation_save(self, comp_rgb: torch.Tensor, guidance_eval_out: Any) -> None:
        """Save what the guidance made of a training batch, beside the batch.

        Args:
            comp_rgb: [B, H, W, 3].
            guidance_eval_out: ``imgs_noisy``, ``imgs_1step``, ``imgs_1orig`` and ``imgs_final``,
                each [B, h, w, 3], and ``texts``, one for each of the batch.
        """
        height, width = comp_rgb.shape[1:3]
        stages = [guidance_eval_out[f"imgs_{s}"] for s in ("noisy", "1step", "1orig", "final")]
        resized = [
            F.interpolate(stage.permute(0, 3, 1, 2), (height, width), mode="bilinear")
            for stage in stages
        ]
        columns = [comp_rgb, *(stage.permute(0, 2, 3, 1) for stage in resized)]
        self.save_image_grid(
            f"it{self.true_global_step}-train.png",
            [{"type": "rgb", "img": c.reshape(-1, width, 3), "kwargs": {}} for c in columns],
            name="train_step",
            step=self.true_global_step,
            texts=guidance_eval_out["texts"],
        )
