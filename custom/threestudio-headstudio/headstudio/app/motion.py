"""``headstudio motion``: look at motions of any known format, and turn them into our own.

``info`` says what is in a file, ``convert`` writes it as ``.npz``, ``arkit`` says how well ARKit's
52 actions fit a head.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstudio.app.arguments import at_least, refuse_existing
from headstudio.errors import HeadStudioError

if TYPE_CHECKING:
    from headstudio.motion import Actions, Motion

_JOINTS = {
    "global_orient": "head and neck",
    "neck_pose": "neck",
    "jaw_pose": "jaw",
    "leye_pose": "left eye",
    "reye_pose": "right eye",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    positive = at_least(0, above=True)

    info = actions.add_parser("info", help="what is in a motion file")
    info.add_argument("file", type=Path, help="a motion in any known format (docs/motion.md)")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    convert = actions.add_parser("convert", help="write a motion as .npz")
    convert.add_argument("file", type=Path, help="a motion in any known format (docs/motion.md)")
    convert.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    convert.add_argument(
        "--resample", type=positive, metavar="N", help="write N frames a second (default: as it is)"
    )
    convert.add_argument(
        "--start", type=at_least(0), default=0.0, metavar="S", help="leave out what is before"
    )
    convert.add_argument("--end", type=positive, metavar="S", help="leave out what is after")
    convert.add_argument(
        "--in-place",
        action="store_true",
        help="keep the head where it is: without the whole head's rotation and translation",
    )
    convert.add_argument(
        "--head",
        type=Path,
        metavar="FILE",
        help="bring the expression to this head's, such as your FLAME file",
    )
    convert.add_argument(
        "--flame",
        type=Path,
        metavar="FILE",
        help="the FLAME model the motion was tracked with, where --head is not FLAME",
    )
    convert.add_argument("--force", action="store_true", help="write over an existing file")
    for command in (info, convert):
        command.add_argument(
            "--fps",
            type=positive,
            metavar="N",
            help="frames a second of FILE, for formats that do not say; overrules what others say",
        )

    arkit = actions.add_parser("arkit", help="how well ARKit's 52 actions fit a head")
    arkit.add_argument("--head", type=Path, metavar="FILE", help="default: the open head")
    arkit.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    commands = {"info": _info, "convert": _convert, "arkit": _arkit}
    return commands[args.action](args)


def _info(args: argparse.Namespace) -> int:
    from headstudio.motion import read_recording
    from headstudio.motion.describe import describe

    summary = describe(read_recording(args.file, args.fps))
    print(json.dumps(summary, indent=2) if args.json else _as_text(args.file, summary))
    return 0


def _as_text(file: Path, summary: dict[str, Any]) -> str:
    assumed = " (assumed: this format does not say; state it by --fps)"
    origin = {"assumed": assumed, "the file": "", "stated": " (stated)", "the format": ""}
    lines = [
        f"{file}: {summary['format']}",
        f"  {summary['frames']} frames at {summary['fps']:g} a second"
        f"{origin[summary['fps_from']]}, {summary['duration_s']:g} s",
        f"  expression: {summary['expression_space']}"
        + ("; with the shape of a face" if summary["has_shape"] else ""),
    ]
    if summary["joints_deg"]:
        lines.append(f"  {'joints, degrees':<18}{'x':>16}{'y':>16}{'z':>16}{'largest':>10}")
    for name, joint in summary["joints_deg"].items():
        cells = "".join(f"{_range(joint[axis]):>16}" for axis in "xyz")
        lines.append(f"    {_JOINTS[name]:<16}{cells}{joint['largest_angle']:>10.1f}")
    if summary["translation_mm"]:
        cells = "".join(f"{_range(summary['translation_mm'][axis]):>16}" for axis in "xyz")
        lines.append(f"    {'moved, mm':<16}{cells}")
    if summary["expressions"]:
        lines.append("  strongest expressions")
    for entry in summary["expressions"]:
        between = f"{entry['min']:.2f} to {entry['max']:.2f}"
        lines.append(f"    {entry['name']:<20}{between:>16}   mean {entry['mean']:.2f}")
    lines += [f"  note: {note}" for note in summary["notes"]]
    return "\n".join(lines)


def _range(pair: list[float]) -> str:
    return f"{pair[0]:.1f} to {pair[1]:.1f}"


def _convert(args: argparse.Namespace) -> int:
    from headstudio.flame import HeadModel
    from headstudio.motion import for_head, read_recording, resample, save_motion
    from headstudio.motion.root import place_root

    if args.out.suffix != ".npz":
        raise HeadStudioError(f"--out is {args.out}; a motion file ends in .npz.")
    refuse_existing([args.out], args.force)
    recording = read_recording(args.file, args.fps)
    motion = _cut(recording.motion, args.start, args.end)
    if args.head is not None:
        flame = HeadModel.load(args.flame) if args.flame is not None else None
        motion = for_head(motion, HeadModel.load(args.head), flame)
    elif args.flame is not None:
        raise HeadStudioError("--flame needs --head, the head that is to be driven.")
    if args.in_place:
        motion = place_root(motion, "still")
    if args.resample is not None:
        motion = resample(motion, args.resample)
    save_motion(args.out, motion)
    assumed = " (assumed; state it by --fps)" if recording.fps_from == "assumed" else ""
    print(
        f"{args.out}: {len(motion)} frames at {motion.fps:g} a second{assumed}, "
        f"{motion.duration:.2f} s, from {recording.format}"
    )
    for note in recording.notes:
        print(f"note: {note}")
    return 0


def _cut(motion: Motion, start: float, end: float | None) -> Motion:
    """The frames from ``start`` to ``end`` seconds.

    Raises:
        HeadStudioError: if there are none.
    """
    first = math.ceil(start * motion.fps - 1e-6)
    last = len(motion) if end is None else min(len(motion), math.ceil(end * motion.fps - 1e-6))
    if first >= last:
        until = "the end" if end is None else f"{end:g} s"
        raise HeadStudioError(
            f"there is nothing from {start:g} s to {until}; the motion has {motion.duration:.2f} s."
        )
    return motion[first:last]


def _arkit(args: argparse.Namespace) -> int:
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.flame import HeadModel
    from headstudio.motion import arkit_actions
    from headstudio.paths import find_asset

    head = HeadModel.load(args.head or find_asset(DEFAULT_HEAD))
    fitted = arkit_actions(head)
    rows = _rows(fitted)
    if args.json:
        print(json.dumps({"head": head.name, "own": fitted.own, "actions": rows}, indent=2))
        return 0
    print(_table(head.name, fitted.own, rows))
    return 0


def _rows(fitted: Actions) -> list[dict[str, Any]]:
    """One row an action, in numbers that JSON can hold."""
    from headstudio.motion import ARKIT_NAMES

    degrees = 180 / math.pi
    return [
        {
            "name": name,
            "target_mm": round(float(fitted.target[i]) * 1000, 2),
            "residual_mm": round(float(fitted.residual[i]) * 1000, 3),
            "explained": round(float(fitted.explained[i]), 3),
            "seen": bool(fitted.seen[i]),
            "jaw_deg": round(float(fitted.jaw_pose[i].norm()) * degrees, 1),
            "left_eye_deg": round(float(fitted.leye_pose[i].norm()) * degrees, 1),
            "right_eye_deg": round(float(fitted.reye_pose[i].norm()) * degrees, 1),
            "largest_coefficient": round(float(fitted.expression[i].abs().max()), 2),
        }
        for i, name in enumerate(ARKIT_NAMES)
    ]


def _table(head: str, own: bool, rows: list[dict[str, Any]]) -> str:
    if own:
        lines = [f"{head}: the 52 actions are its own expression dimensions", ""]
        lines += [f"  {'action':<22}{'moves a landmark by, mm':>24}"]
        lines += [f"  {row['name']:<22}{row['target_mm']:>24.1f}" for row in rows]
        return "\n".join(lines)
    lines = [
        f"{head}: the 52 actions, fitted to the open head's landmarks",
        "",
        f"  {'action':<22}{'largest':>8}{'left over':>10}{'reached':>9}{'jaw':>7}{'eyes':>7}"
        f"{'largest':>9}",
        f"  {'':<22}{'mm':>8}{'rms mm':>10}{'':>9}{'deg':>7}{'deg':>7}{'coeff.':>9}",
    ]
    for row in rows:
        if not row["seen"]:
            lines.append(f"  {row['name']:<22}no landmark shows it; it does nothing on this head")
            continue
        eyes = max(row["left_eye_deg"], row["right_eye_deg"])
        lines.append(
            f"  {row['name']:<22}{row['target_mm']:>8.1f}{row['residual_mm']:>10.2f}"
            f"{row['explained']:>9.0%}{row['jaw_deg']:>7.1f}{eyes:>7.1f}"
            f"{row['largest_coefficient']:>9.2f}"
        )
    return "\n".join(lines)
