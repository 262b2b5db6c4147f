"""``headstudio animate``: a film of avatars that play a motion or show expressions."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from headstudio.app.arguments import at_least

_EXAMPLES = """examples:
  headstudio sample --seed 3 --out a.ply
  headstudio animate a.ply --motion talk --out talk.mp4
  headstudio animate a.ply --expression "smile 1s, surprised 0.5s, neutral" --out faces.mp4
  headstudio animate a.ply b.ply --motion talk --camera turntable --labels --out both.mp4
  headstudio animate a.ply --expression "left wink" --background transparent --out frames/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("avatars", nargs="+", type=Path, metavar="AVATAR", help="avatar .ply files")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--motion",
        nargs="+",
        metavar="FILE",
        help="recordings in any format that `headstudio motion` reads, played one after the other; "
        "or sample motions by name: talk, smile …",
    )
    what.add_argument(
        "--expression",
        metavar="TEXT",
        help='a face, "smile 0.8, left wink", or a timeline, "smile 1s, surprised 0.5s, neutral"',
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="film.mp4, film.gif, or a folder for PNG frames",
    )
    parser.add_argument("--force", action="store_true", help="write over an existing result")
    _add_time(parser)
    _add_picture(parser)
    _add_camera(parser)
    parser.add_argument("--head", type=Path, metavar="FILE", help="the head model (the open head)")
    parser.add_argument(
        "--flame", type=Path, metavar="FILE", help="the FLAME model a motion was tracked with"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: auto)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--list-expressions", action=_ListExpressions, nargs=0, help="list them, and stop"
    )


def _add_time(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("time")
    group.add_argument("--fps", type=at_least(0, above=True), help="frames a second (the motion's)")
    group.add_argument(
        "--seconds",
        type=at_least(0, above=True),
        help="length of the film; a motion is cut or repeated (the motion's length)",
    )
    group.add_argument("--audio", type=Path, metavar="FILE", help="sound for an .mp4")
    group.add_argument(
        "--root",
        choices=("centred", "kept", "still"),
        default="centred",
        help="what becomes of a motion's global rotation and translation: without their mean "
        "(default), as they are, or none",
    )
    group.add_argument(
        "--seed", type=at_least(0, int), default=0, help="of the blinks and small movements"
    )
    group.add_argument(
        "--still", action="store_true", help="no blinks or small movements on top of --expression"
    )


def _add_picture(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("picture")
    group.add_argument(
        "--size",
        type=_size,
        default=(512, 512),
        metavar="N|WxH",
        help="pixels of each avatar's picture (default 512)",
    )
    group.add_argument(
        "--background",
        default="white",
        metavar="COLOUR",
        help="a name, #rrggbb, or transparent for PNG frames (default white)",
    )
    group.add_argument(
        "--show",
        default="",
        metavar="LAYERS",
        help="beside the avatar: mesh, control (the landmarks), or mesh,control",
    )
    group.add_argument("--columns", type=at_least(1, int), help="avatars in a row of the grid")
    group.add_argument("--labels", action="store_true", help="write each avatar's prompt below it")


def _add_camera(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("camera")
    group.add_argument(
        "--camera",
        default="fixed",
        metavar="fixed|turntable|FILE.json",
        help="the file has key frames; see docs/animate.md (default fixed)",
    )
    group.add_argument("--turns", type=float, default=1.0, help="of the turntable (default 1)")
    group.add_argument(
        "--azimuth", type=float, default=0.0, help="degrees; 0 is the front, 90 the subject's left"
    )
    group.add_argument("--elevation", type=float, default=5.0, help="degrees (default 5)")
    group.add_argument("--distance", type=float, default=2.6, help="the head is 1.5 long (2.6)")
    group.add_argument("--fov", type=float, default=40.0, help="vertical, degrees (default 40)")


def _size(text: str) -> tuple[int, int]:
    """``"512"`` or ``"640x480"`` as width and height."""
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text.strip())
    if match is None or not all(16 <= int(n) <= 8192 for n in match.groups() if n):
        raise argparse.ArgumentTypeError(f"{text!r}; expected 512 or 640x480, from 16 to 8192")
    return int(match[1]), int(match[2] or match[1])


class _ListExpressions(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from headstudio.motion.expression_table import EXPRESSIONS

        for expression in EXPRESSIONS.values():
            others = f" (also: {', '.join(expression.aliases)})" if expression.aliases else ""
            print(f"{expression.name}{others}")
        print("and ARKit's actions: jawOpen, mouthSmileLeft, browInnerUp …")
        parser.exit()


def run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from headstudio.app.animate.inputs import choose_camera, choose_device, choose_motion, layers
    from headstudio.app.animate.stage import LAYERS, Stage
    from headstudio.app.player import DEFAULT_HEAD, Player
    from headstudio.app.recording import check_output, read_sound, recording
    from headstudio.flame import HeadModel
    from headstudio.paths import find_asset
    from headstudio.render.pictures import parse_color
    from headstudio.splats import load_avatar

    # Everything that can be wrong is looked at before the first picture.
    background = None if args.background == "transparent" else parse_color(args.background)
    shown = layers(args.show, LAYERS)
    sound = read_sound(args.audio) if args.audio else None
    device = choose_device(args.device)
    head = HeadModel.load(args.head or find_asset(DEFAULT_HEAD))
    if "control" in shown:
        _ = head.landmarks  # a head without any says so here
    motion = choose_motion(args, head)
    check_output(args.out, motion.fps, background is None, sound is not None, args.force)
    camera = choose_camera(args, motion.duration)
    head = head.to(device)
    players = [Player.of(load_avatar(path, head), head) for path in args.avatars]

    width, height = args.size
    labels = [player.avatar.prompt for player in players] if args.labels else []
    stage = Stage(players, height, width, background, shown, args.columns, labels)
    cameras = camera.at(torch.arange(len(motion)) / motion.fps, height, width)
    tall, wide = stage.size
    _say_length(sound, motion.duration)
    start = time.monotonic()
    with (
        recording(args.out, len(motion), motion.fps, wide, tall, sound) as write,
        tqdm(total=len(motion), unit="frame", disable=args.quiet, file=sys.stderr) as bar,
    ):
        for pictures in stage.pictures(motion.params, cameras):
            write(pictures)
            bar.update(len(pictures))
    took = time.monotonic() - start
    print(
        f"{args.out}: {len(motion)} frames of {wide} x {tall} px, {motion.fps:g} a second, "
        f"{motion.duration:.2f} s{', with sound' if sound else ''}; made in {took:.1f} s "
        f"({len(motion) / took:.1f} frames a second on {device.type})"
    )
    return 0


def _say_length(sound: object, seconds: float) -> None:
    """Tell that sound and film differ in length, if they do by more than the ear forgives."""
    from headstudio.app.recording import Sound

    if isinstance(sound, Sound) and sound.seconds is not None:
        if sound.seconds > seconds + 0.1:
            print(
                f"note: the sound lasts {sound.seconds:.2f} s and is cut to the film's "
                f"{seconds:.2f} s; --seconds {sound.seconds:.2f} repeats the motion for it.",
                file=sys.stderr,
            )
        elif sound.seconds < seconds - 0.1:
            print(
                f"note: the sound lasts {sound.seconds:.2f} s, the film {seconds:.2f} s; "
                "silence follows.",
                file=sys.stderr,
            )
