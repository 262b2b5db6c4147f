"""From what was typed to a motion, a camera and a sound."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from headstudio.errors import HeadStudioError
from headstudio.flame import HeadModel
from headstudio.motion import Motion, concatenate, for_head, loop, read_motion, resample
from headstudio.motion.motion import MAX_FRAMES
from headstudio.motion.root import place_root
from headstudio.motion.script import script_motion
from headstudio.nearest import did_you_mean
from headstudio.paths import REPOSITORY
from headstudio.render.camera_path import CameraPath, View, load_camera_path


def choose_motion(args: argparse.Namespace, head: HeadModel) -> Motion:
    """The motion for ``head`` at the frame rate and of the length that were asked for.

    Raises:
        HeadStudioError: a file that cannot be read, a script that is not understood, or more
            frames than anybody wants.
    """
    if args.expression is not None:
        still = 0.0 if args.still else 1.0
        motion = script_motion(
            args.expression,
            fps=args.fps or 30.0,
            # A timeline has its own length; then the seconds are cut or repeated below.
            seconds=args.seconds,
            seed=args.seed,
            blinking=not args.still,
            sway_amount=still,
        )
        motion = for_head(motion, head)
    else:
        # The FLAME model that recordings were tracked with: what their coefficients mean.
        flame = None if args.flame is None else HeadModel.load(args.flame)
        parts = [for_head(read_any(name), head, flame) for name in args.motion]
        motion = concatenate([place_root(part, args.root) for part in parts])
    if args.fps is not None:
        motion = resample(motion, args.fps)
    frames = len(motion) if args.seconds is None else max(1, round(args.seconds * motion.fps))
    if frames > MAX_FRAMES:
        raise HeadStudioError(
            f"{frames} frames are more than the {MAX_FRAMES} that one film may have; give fewer "
            "--seconds, or a lower --fps."
        )
    return motion[:frames] if frames <= len(motion) else loop(motion, frames)


def read_any(name: str) -> Motion:
    """A recording in any known format (docs/motion.md), or a sample motion by its name.

    A folder of a sample's name is meant only if it is a recording: frames of a film of ``talk`` may
    well lie in ``talk``. ``./talk`` is the folder in any case.

    Raises:
        HeadStudioError: neither a file nor a sample; or a file that cannot be read.
    """
    path = Path(name)
    if path.is_file() or path.suffix or name != path.name:
        return read_motion(path)
    samples = sample_motions()
    if path.exists():
        try:
            return read_motion(path)
        except HeadStudioError:
            if name not in samples:
                raise
    if name not in samples:
        raise HeadStudioError(
            f"there is no motion file {name!r}, and no sample motion of this name"
            f"{did_you_mean(name, samples)} The samples are {', '.join(samples)}."
        )
    return read_motion(samples[name])


def sample_motions() -> dict[str, Path]:
    """The motions below ``load/motion`` by name; those of the working directory come first."""
    folders = [REPOSITORY / "load" / "motion", Path.cwd() / "load" / "motion"]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.npz"))}


def choose_camera(args: argparse.Namespace, seconds: float) -> CameraPath:
    """The camera's path over a film of so many seconds.

    Raises:
        HeadStudioError: a view that no camera has, or a file of key frames that is wrong.
    """
    view = View(args.azimuth, args.elevation, args.distance, args.fov)
    if args.camera == "fixed":
        return CameraPath.fixed(view)
    if args.camera == "turntable":
        return CameraPath.turntable(view, seconds, args.turns)
    if Path(args.camera).suffix.lower() != ".json":
        words = ("fixed", "turntable")
        raise HeadStudioError(
            f"--camera is {args.camera!r}{did_you_mean(args.camera, words)} Expected fixed, "
            "turntable or a .json file of key frames."
        )
    return load_camera_path(args.camera, view)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU, where there is one.

    Raises:
        HeadStudioError: a device that PyTorch does not have here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise HeadStudioError(
            f"--device {name} cannot be used here: {reason.rstrip('.')}. Give cpu, cuda or cuda:N."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise HeadStudioError(f"--device {name}: splats are drawn on cpu or cuda; give one.")
    return device


def layers(text: str, known: Sequence[str]) -> list[str]:
    """``"mesh,control"`` as the layers of a cell, the avatar first.

    Raises:
        HeadStudioError: for a layer that does not exist.
    """
    chosen = [word.strip() for word in text.split(",") if word.strip()]
    for word in chosen:
        if word not in known:
            raise HeadStudioError(
                f"--show: there is no layer {word!r}{did_you_mean(word, known)} There are "
                f"{', '.join(known)}."
            )
    return list(dict.fromkeys(["avatar", *chosen]))
