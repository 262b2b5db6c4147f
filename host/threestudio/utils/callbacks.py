"""What watches a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from threestudio.utils.config import dump_config
from threestudio.utils.files import write_text


class ConfigSnapshotCallback(Callback):
    """Keeps the configuration: ``raw.yaml`` as it was given, ``parsed.yaml`` as it was understood.

    A run that goes on from its own ``parsed.yaml`` keeps the ``raw.yaml`` it began with.
    """

    def __init__(
        self, config_path: str, config: Any, save_root: str, use_version: bool = False
    ) -> None:
        if use_version:
            raise ValueError("configurations are kept without versions: use_version=False")
        self.config_path = Path(config_path)
        self.config = config
        self.savedir = save_root

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.config_path.resolve().parent != Path(self.savedir).resolve():
            text = self.config_path.read_text(encoding="utf-8")
            write_text(os.path.join(self.savedir, "raw.yaml"), text)
        dump_config(os.path.join(self.savedir, "parsed.yaml"), self.config)


class CustomProgressBar(TQDMProgressBar):
    """A bar that knows how long training takes although the cameras never end."""

    @property
    def total_train_batches(self) -> int | float:
        total = super().total_train_batches
        steps = self.trainer.max_steps
        return steps if total == float("inf") and steps > 0 else total

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        metrics = super().get_metrics(*args, **kwargs)
        metrics.pop("v_num", None)
        return metrics
