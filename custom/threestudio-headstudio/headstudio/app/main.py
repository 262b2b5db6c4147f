"""``headstudio COMMAND``: finds the command and runs it.

A command is a module with ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status). It
is entered in ``COMMANDS`` and imported only when it is asked for, so that ``headstudio --help`` is
there at once and a broken installation can still be diagnosed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from dataclasses import dataclass

from headstudio import __version__
from headstudio.errors import HeadStudioError


@dataclass(frozen=True)
class Command:
    """Where a command lives, and what it does in a few words."""

    module: str
    help: str


COMMANDS = {
    "animate": Command(
        "headstudio.app.animate", "a film of avatars that play a motion or show expressions"
    ),
    "sample": Command(
        "headstudio.app.sample", "write avatar files of procedural characters, to try things with"
    ),
    "export": Command(
        "headstudio.app.export", "an avatar as .ply, .splat or .glb, for other programs"
    ),
    "view": Command("headstudio.app.view", "show avatars in the browser, and move them"),
    "motion": Command(
        "headstudio.app.motion", "look at motions of other tools, and turn them into our own"
    ),
    "bench": Command(
        "headstudio.app.bench", "train avatars whose right answer is known, and compare"
    ),
    "evaluate": Command(
        "headstudio.app.evaluate", "CLIP score and a face detector's opinion of an avatar"
    ),
    "doctor": Command(
        "headstudio.app.doctor", "what is installed, which device is used, what is missing"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit status.

    0 is success, 1 what a command documents, 2 a mistake in what was given, 130 an interruption,
    141 a reader that closed the pipe.
    """
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            # What is still in the buffer would be written at exit, too late to be caught here; and
            # --help leaves by SystemExit.
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough, as `| head` has. What is left in the buffer has
        # nowhere to go, and must not be complained about at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="headstudio",
        description="Head avatars from a sentence. Training and export are launch.py's.",
    )
    parser.add_argument("--version", action="version", version=f"headstudio {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.help)
        if name in argv[:1]:
            importlib.import_module(command.module).add_arguments(subparser)
    args = parser.parse_args(argv)
    try:
        status: int = importlib.import_module(COMMANDS[args.command].module).run(args)
        return status
    except HeadStudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
