"""From a command line to a trainer at work: what ``launch.py`` does."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import threestudio
from threestudio.utils.callbacks import ConfigSnapshotCallback, CustomProgressBar
from threestudio.utils.checkpoints import AtomicCheckpointIO, KeepCheckpoint
from threestudio.utils.config import (
    ExperimentConfig,
    check_experiment,
    config_to_primitive,
    merge_config,
    parse_structured,
)
from threestudio.utils.errors import RunFailed, UserError, nearest, user_errors
from threestudio.utils.extensions import load_extensions
from threestudio.utils.failures import explain
from threestudio.utils.files import why_not_writable, write_text
from threestudio.utils.interruption import Interrupted, StopRequest, listening
from threestudio.utils.misc import get_rank, load_checkpoint
from threestudio.utils.trials import claimed, how_to_go_on, load_run

CHOSEN_HERE = {"callbacks", "logger", "accelerator", "devices", "inference_mode"}
# Ours, besides ModelCheckpoint's: it counts steps or minutes, a run may count both.
BY_TIME = ("every_n_minutes", "train_time_interval")
DEFAULT_MINUTES = 10.0


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Train, validate, test or export.

    Args:
        args: ``config``, one of ``train``, ``validate``, ``test`` and ``export`` true, and
            ``verbose``.
        overrides: ``key=value``.

    Raises:
        UserError: for whatever was typed or configured wrongly. Nothing has been written then,
            unless only the work itself could show the mistake.
        RunFailed: if the run began and could not go on; its checkpoints are whole.
        Interrupted: if a signal stopped it.
    """
    quiet(args.verbose)
    with listening() as request:
        _run(args, overrides, request)


def _run(args: argparse.Namespace, overrides: list[str], request: StopRequest) -> None:
    n_gpus = torch.cuda.device_count()
    load_extensions()
    check_experiment(merge_config(args.config, cli_args=overrides, n_gpus=max(1, n_gpus)))
    cfg = load_run(args.config, overrides, must_exist=not args.train, n_gpus=max(1, n_gpus))
    check_trainer_settings(cfg)
    checkpoint = load_checkpoint(cfg.resume, map_location="cpu") if cfg.resume else None
    reason = why_not_writable(cfg.trial_dir)
    if reason is not None:
        raise UserError(f"results cannot be written to {cfg.trial_dir}: {reason}")
    check_parts(cfg)

    pl.seed_everything(cfg.seed + get_rank(), workers=True)
    datamodule = threestudio.find(cfg.data_type)(cfg.data)
    system = threestudio.find(cfg.system_type)(cfg.system, resumed=cfg.resume is not None)
    system.set_save_dir(os.path.join(cfg.trial_dir, "save"))
    with what_lightning_refuses():
        trainer = make_trainer(args, cfg, system.get_loggers(), request)
    common = {"datamodule": datamodule, "ckpt_path": cfg.resume, "weights_only": True}
    if args.train:
        is_new = not os.path.exists(cfg.trial_dir)
        with (
            told_how_to_go_on(trainer, cfg),
            claimed(cfg.trial_dir, resumed=cfg.resume is not None),
            nothing_left_of_a_false_start(trainer, cfg.trial_dir, is_new),
        ):
            record_command(cfg.trial_dir, args)
            trainer.fit(system, **common)
            trainer.test(system, datamodule=datamodule)
        return
    if checkpoint is None:
        threestudio.warn("No resume=path/to/last.ckpt is given: this is the state before training")
    else:
        system.set_resume_status(checkpoint["epoch"], checkpoint["global_step"])
    work = trainer.validate if args.validate else trainer.test if args.test else trainer.predict
    work(system, **common)


@contextmanager
def told_how_to_go_on(trainer: pl.Trainer, cfg: ExperimentConfig) -> Iterator[None]:
    """Say of whatever ends a run that had begun what is kept of it, and how to go on."""
    try:
        yield
    except Interrupted as stop:
        if os.path.exists(cfg.trial_dir):
            stop.args = (f"{stop}. {how_to_go_on(cfg.trial_dir, cfg.resume)}",)
        raise
    except Exception as error:
        said = explain(error)
        if said is None and isinstance(error, user_errors()) and trainer.global_step > 0:
            said = str(error)
        if said is None:
            raise
        raise RunFailed(f"{said}\n{how_to_go_on(cfg.trial_dir, cfg.resume)}") from error


@contextmanager
def nothing_left_of_a_false_start(
    trainer: pl.Trainer, trial_dir: str, is_new: bool
) -> Iterator[None]:
    """Remove a new run's folder if it ends, by a mistake or a signal, before its first step."""
    try:
        yield
    except BaseException as error:
        mistaken = isinstance(error, (Interrupted, *user_errors()))
        if mistaken and is_new and trainer.global_step == 0:
            shutil.rmtree(trial_dir, ignore_errors=True)
        raise


def quiet(verbose: bool) -> None:
    """Show what we say and what is wrong, not lightning's advice; with ``verbose``, everything."""
    logging.getLogger("pytorch_lightning").setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_no_tips)
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")


def _no_tips(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage() and "litlogger" not in record.getMessage()


def check_trainer_settings(cfg: ExperimentConfig) -> None:
    """Raise a ``UserError`` for a key of ``trainer`` or ``checkpoint`` that lightning has not."""
    for section, owner, taken in (
        ("trainer", pl.Trainer, CHOSEN_HERE),
        ("checkpoint", ModelCheckpoint, {"dirpath"}),
    ):
        known = [*inspect.signature(owner.__init__).parameters][1:]
        if section == "checkpoint":
            known += BY_TIME
            checkpoint_interval(cfg.checkpoint)
        for key in getattr(cfg, section):
            if key in taken:
                raise UserError(f"{section}.{key} is chosen by the launcher (see --gpu): remove it")
            if key not in known:
                raise UserError(f"{section} has no setting {key!r}{nearest(key, known)}")


def check_parts(cfg: ExperimentConfig) -> None:
    """Check the system and every part of it before the first is made, for some take long to.

    Raises:
        UserError: for a name that is not registered, or a key that the class has not.
    """
    threestudio.find(cfg.data_type)
    parse_structured(threestudio.find(cfg.system_type).Config, cfg.system)
    for key, name in cfg.system.items():
        part = key.removesuffix("_type")
        if part == key or not isinstance(name, str) or not name:
            continue
        config = getattr(threestudio.find(name), "Config", None)
        if config is not None:
            parse_structured(config, cfg.system.get(part))


def checkpoint_interval(checkpoint: Mapping[str, Any]) -> timedelta | None:
    """How long a run goes on without a checkpoint, by the clock; None for as long as it likes.

    ``every_n_minutes`` is a number, 0 for never; ``train_time_interval`` holds the arguments of a
    timedelta, such as ``{hours: 1}``.
    """
    minutes, interval = (checkpoint.get(key) for key in BY_TIME)
    if interval is not None:
        try:
            return timedelta(**interval)
        except TypeError as error:
            raise UserError(
                "checkpoint.train_time_interval is such as {minutes: 10} or {hours: 1}, not "
                f"{interval!r}"
            ) from error
    minutes = DEFAULT_MINUTES if minutes is None else minutes
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes >= 0:
        raise UserError(
            f"checkpoint.every_n_minutes is a number of minutes, 0 for never, not {minutes!r}"
        )
    return timedelta(minutes=minutes) if minutes else None


def make_trainer(
    args: argparse.Namespace, cfg: ExperimentConfig, loggers: list[Any], request: StopRequest
) -> pl.Trainer:
    """The trainer, on the GPUs that are visible or else on the CPU."""
    trial = cfg.trial_dir
    settings = {"enable_model_summary": args.verbose, **config_to_primitive(cfg.trainer)}
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # The same seed gives the same result, bit for bit.
        settings.setdefault("deterministic", "warn")
    # last.ckpt is the last one, also of a run that is gone on with: never last-v1.ckpt.
    checkpointing = {"enable_version_counter": False, **config_to_primitive(cfg.checkpoint)}
    every = checkpoint_interval(cfg.checkpoint)
    for key in BY_TIME:
        checkpointing.pop(key, None)
    writer = AtomicCheckpointIO()
    settings["plugins"] = [*(settings.get("plugins") or []), writer]
    callbacks: list[pl.Callback] = []
    if settings.get("enable_progress_bar", True):
        # A bar in a log file is a line for each time it moves.
        callbacks.append(CustomProgressBar(refresh_rate=1 if sys.stdout.isatty() else 20))
    if args.train:
        callbacks += [
            ModelCheckpoint(os.path.join(trial, "ckpts"), **checkpointing),
            KeepCheckpoint(os.path.join(trial, "ckpts"), writer, every, request),
            LearningRateMonitor(logging_interval="step"),
            ConfigSnapshotCallback(args.config, cfg, os.path.join(trial, "configs")),
        ]
        tensorboard = TensorBoardLogger(trial, name="tb_logs")
        loggers = [tensorboard, CSVLogger(trial, name="csv_logs"), *loggers]
    return pl.Trainer(
        callbacks=callbacks,
        logger=loggers if args.train else False,
        inference_mode=False,
        accelerator="gpu" if on_gpu else "cpu",
        devices=-1 if on_gpu else 1,
        **settings,
    )


@contextmanager
def what_lightning_refuses() -> Iterator[None]:
    """Say as a mistake in the settings what lightning says of them when the trainer is made."""
    try:
        yield
    except (ValueError, MisconfigurationException) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the trainer cannot be made: {error}") from error


def record_command(trial_dir: str, args: argparse.Namespace) -> None:
    """Write down how the run was started, and each time that it was gone on with."""
    if get_rank() == 0:
        path = Path(trial_dir) / "cmd.txt"
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        command = "python " + " ".join(sys.argv)
        write_text(path, f"{before}{command}\n{args}\n")
