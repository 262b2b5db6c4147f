"""``headstudio export``: an avatar for other programs, at rest, in a pose, or one file a frame.

``docs/exports.md`` says what the formats are and which way is up in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from headstudio.app.arguments import at_least, refuse_existing
from headstudio.errors import HeadStudioError

if TYPE_CHECKING:
    from headstudio.app.player import Player
    from headstudio.flame import FlameParams, HeadModel
    from headstudio.motion import Motion

_FORMATS = ("ply", "compressed-ply", "splat", "glb")  # without importing what writes them
_UPS = ("z", "y", "y-down")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("avatar", type=Path, metavar="AVATAR", help="the avatar.ply")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="of 3D Gaussian splats: ply, compressed-ply (SuperSplat's), splat (antimatter15's); "
        "of an animatable mesh: glb. Default: by the ending of --out",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="the file; with --frames a folder"
    )
    parser.add_argument("--head", type=Path, help="the head model's file, if not the open head")
    parser.add_argument(
        "--flame", type=Path, metavar="FILE", help="the FLAME model a motion was tracked with"
    )
    pose = parser.add_mutually_exclusive_group()
    pose.add_argument(
        "--expression",
        metavar="TEXT",
        help='a face, "smile 0.8, left wink", or a motion, "smile 1s, surprised 0.5s, neutral"',
    )
    pose.add_argument(
        "--motion",
        metavar="FILE",
        help="a recording that `headstudio motion` reads, or a sample by name: talk, smile …",
    )
    frame = parser.add_mutually_exclusive_group()
    frame.add_argument(
        "--frame", type=int, metavar="N", help="one frame of the motion; -1 is the last"
    )
    frame.add_argument(
        "--frames",
        metavar="all|A:B:STEP",
        help="one file for each of these frames, written as in Python (10:40:2, ::5)",
    )
    parser.add_argument(
        "--fps",
        type=at_least(0, above=True),
        help="frames a second (a recording's own; 30 for --expression)",
    )
    parser.add_argument(
        "--root",
        choices=("centred", "kept", "still"),
        default="centred",
        help="what becomes of a motion's global rotation and translation: without their mean "
        "(default), as they are, or none",
    )
    parser.add_argument(
        "--up",
        choices=_UPS,
        help="which axis of the file points up (splats: default z, as in avatar.ply; glb: y)",
    )
    parser.add_argument(
        "--subdivide",
        type=int,
        choices=(0, 1, 2),
        default=1,
        metavar="0|1|2",
        help="glb: cut triangles in four so often, for finer colours and a larger file (default 1)",
    )
    parser.add_argument(
        "--force", action="store_true", help="write over existing files, but never over AVATAR"
    )


def run(args: argparse.Namespace) -> int:
    from headstudio.export import check_format

    file_format = args.format or format_of(args.out)
    check_format(file_format, args.up)
    if args.frames is None:
        _check_suffix(args.out, file_format)
        refuse_existing([args.out], args.force, args.avatar)

    from headstudio.app.player import Player

    player = Player.open(args.avatar, args.head)
    motion = _motion(args, player.head)
    _check_motion(args, file_format, motion)
    if args.frames is not None:
        assert motion is not None
        return _export_frames(args, file_format, player, motion)
    pose = _pose(args, motion, player.head)
    _write(args.out, args, file_format, player, pose, motion if pose is None else None)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")
    return 0


def format_of(path: Path) -> str:
    """The format that a file's name says.

    Raises:
        HeadStudioError: if it says none.
    """
    from headstudio.export import SUFFIXES

    fitting = [name for name, suffix in SUFFIXES.items() if path.name.lower().endswith(suffix)]
    if not fitting:
        raise HeadStudioError(
            f"{path} does not say which format it is to be; name one: --format "
            f"{'|'.join(SUFFIXES)}."
        )
    return max(fitting, key=lambda name: len(SUFFIXES[name]))


def chosen_frames(text: str, count: int) -> list[int]:
    """Which of ``count`` frames ``all`` or ``A:B:STEP`` means, as in Python.

    Raises:
        HeadStudioError: for anything else, and if it is none of them.
    """
    fields = (":" if text == "all" else text).split(":")
    try:
        if not 2 <= len(fields) <= 3:
            raise ValueError
        frames = list(range(count))[slice(*(int(field) if field else None for field in fields))]
    except ValueError:
        raise HeadStudioError(
            f"--frames {text!r}; expected 'all' or A:B or A:B:STEP, such as 0:60:2 or ::5."
        ) from None
    if not frames:
        raise HeadStudioError(f"--frames {text!r} is none of the motion's {count} frames.")
    return frames


def _check_motion(args: argparse.Namespace, file_format: str, motion: Motion | None) -> None:
    """Whether it is said which of its frames, and whether they exist."""
    if motion is None:
        if args.frame is not None or args.frames is not None:
            raise HeadStudioError(
                "--frame and --frames choose from a motion; give --motion FILE, or an --expression "
                "with durations."
            )
    elif file_format == "glb":
        if args.frames is not None:
            raise HeadStudioError("a .glb holds the whole motion; leave out --frames.")
    elif args.frame is None and args.frames is None:
        raise HeadStudioError(
            f"a {file_format} file holds one pose; say which: --frame N, or --frames all for a "
            "folder of files."
        )


def _check_suffix(path: Path, file_format: str) -> None:
    from headstudio.export import SUFFIXES

    ending = "." + SUFFIXES[file_format].rpartition(".")[2]
    if path.suffix.lower() != ending:
        raise HeadStudioError(f"--out is {path}; a file of format {file_format} ends in {ending}.")


def _motion(args: argparse.Namespace, head: HeadModel) -> Motion | None:
    """What the avatar is to do, on its head; None if it is to keep still."""
    from headstudio.app.animate.inputs import read_any
    from headstudio.flame import HeadModel
    from headstudio.motion import for_head, parse_script, resample, script_motion
    from headstudio.motion.root import place_root

    if args.motion is not None:
        flame = None if args.flame is None else HeadModel.load(args.flame)
        motion = place_root(for_head(read_any(args.motion), head, flame), args.root)
        return motion if args.fps is None else resample(motion, args.fps)
    if args.expression is None or parse_script(args.expression)[0].seconds is None:
        return None
    return for_head(script_motion(args.expression, args.fps or 30.0), head)


def _pose(args: argparse.Namespace, motion: Motion | None, head: HeadModel) -> FlameParams | None:
    """The one pose asked for; None is at rest, or the whole motion."""
    if motion is None:
        from headstudio.motion import expression_pose

        return None if args.expression is None else expression_pose(args.expression, head)
    if args.frame is None:
        return None
    if not -len(motion) <= args.frame < len(motion):
        raise HeadStudioError(
            f"the motion has {len(motion)} frames, 0 to {len(motion) - 1}; there is no frame "
            f"{args.frame}."
        )
    return motion.params.expand()[args.frame]


def _write(
    path: Path,
    args: argparse.Namespace,
    file_format: str,
    player: Player,
    pose: FlameParams | None,
    motion: Motion | None = None,
) -> None:
    from headstudio.export import export_avatar

    export_avatar(
        path, file_format, player.avatar, player.head, pose, motion, args.up, args.subdivide
    )


def _export_frames(
    args: argparse.Namespace, file_format: str, player: Player, motion: Motion
) -> int:
    from tqdm import tqdm

    from headstudio.export import SUFFIXES

    if args.out.exists() and not args.out.is_dir():
        raise HeadStudioError(f"{args.out} is a file; with --frames, --out is a folder.")
    frames = chosen_frames(args.frames, len(motion))
    suffix = SUFFIXES[file_format]
    files = [args.out / f"frame_{frame:05d}{suffix}" for frame in frames]
    refuse_existing(files, args.force, args.avatar)
    poses = motion.params.expand()
    for frame, file in zip(tqdm(frames, unit="frame", disable=None), files, strict=True):
        _write(file, args, file_format, player, poses[frame])
    print(f"{args.out}: {len(files)} files of a motion with {motion.fps:g} frames a second")
    return 0
