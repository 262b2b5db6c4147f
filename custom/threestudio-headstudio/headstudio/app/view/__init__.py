"""``headstudio view``: an avatar in the browser, to be moved by hand or by a motion.

The splats are drawn by the browser; here they are only posed. Nothing leaves this machine unless
``--host`` says so.
"""

from __future__ import annotations

import argparse
import threading
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstudio.app.view.viewer import Viewer
    from headstudio.flame import HeadModel
    from headstudio.motion import Motion

DEFAULT_PORT = 8080
LOCAL = "127.0.0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "avatars",
        nargs="+",
        type=Path,
        metavar="AVATAR",
        help="avatar files, or folders to look for them in; the first is shown",
    )
    parser.add_argument(
        "--compare", type=Path, metavar="AVATAR", help="a second avatar, beside the first"
    )
    parser.add_argument(
        "--motion",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE",
        help="recordings to offer besides the sample motions, in any format that "
        "`headstudio motion` reads",
    )
    parser.add_argument(
        "--flame", type=Path, metavar="FILE", help="the FLAME model a motion was tracked with"
    )
    parser.add_argument(
        "--head", type=Path, metavar="FILE", help="the head model (default: the open head)"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help=f"where to listen (default {DEFAULT_PORT}; 0: any that is free)",
    )
    parser.add_argument(
        "--host",
        default=LOCAL,
        help=f"the address to listen at (default {LOCAL}: only this machine)",
    )
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port < 65536:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a port, 0 to 65535")
    return port


def run(args: argparse.Namespace) -> int:
    viewer, url = open_viewer(
        args.avatars, args.compare, args.motion, args.head, args.flame, args.host, args.port
    )
    print(f"The viewer is at {url} (Ctrl-C ends it).", flush=True)
    if args.host not in (LOCAL, "localhost", "::1"):
        print("Everybody who can reach this address sees the avatars and can move them.")
    try:
        if not args.no_open:
            webbrowser.open(url)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        viewer.close()
    return 0


def open_viewer(
    avatars: list[Path],
    compare: Path | None = None,
    motions: Iterable[Path] = (),
    head: Path | None = None,
    flame: Path | None = None,
    host: str = LOCAL,
    port: int = DEFAULT_PORT,
) -> tuple[Viewer, str]:
    """Start a viewer; returns it and the address of its page.

    Args:
        avatars: files, or folders of them; the first is shown.
        compare: a second one.
        motions: recordings besides the sample motions, in any format that is known.
        head: the head model's file; None is the open head.
        flame: the FLAME model that the recordings were tracked with.
        host: the address to listen at.
        port: the port; 0 is any that is free.

    Raises:
        HeadStudioError: a file that is missing or does not fit, no avatar in a folder, an address
            that cannot be listened at.
    """
    from headstudio.app.player import DEFAULT_HEAD
    from headstudio.app.view.library import Library
    from headstudio.app.view.server import Server
    from headstudio.app.view.viewer import Viewer
    from headstudio.flame import HeadModel
    from headstudio.paths import find_asset

    model = HeadModel.load(head or find_asset(DEFAULT_HEAD))
    library = Library([*avatars, *([compare] if compare else [])], model)
    first = library.name_of(avatars[0])
    second = library.name_of(compare) if compare else None
    offered = offered_motions(motions, model, flame)
    for name in (first, second):
        if name is not None:
            library.open(name)  # before a page is there: what is wrong is said here
    server = Server(host, port, "HeadStudio")
    try:
        return Viewer(server, library, offered, first, second), server.url
    except BaseException:
        server.close()
        raise


def offered_motions(
    files: Iterable[Path], head: HeadModel, flame: Path | None = None
) -> dict[str, Motion]:
    """``files`` and the sample motions, on ``head`` and in its place, by the files' names.

    Raises:
        HeadStudioError: for a file that cannot be read, or does not suit the head.
    """
    from headstudio.app.animate.inputs import sample_motions
    from headstudio.flame import HeadModel
    from headstudio.motion import read_motion
    from headstudio.motion.root import place_root

    tracked = None if flame is None else HeadModel.load(flame)
    motions: dict[str, Motion] = {}
    for file in [*files, *sample_motions().values()]:
        name = file.stem if file.stem not in motions else str(file)
        motions[name] = place_root(read_motion(file, head, flame=tracked))
    return motions
