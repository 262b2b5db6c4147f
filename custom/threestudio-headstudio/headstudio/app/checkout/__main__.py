"""``python -m headstudio.app.checkout [DIR] [--uninstall]``; see the package."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from headstudio.app.checkout import install, uninstall
from headstudio.errors import HeadStudioError


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for a mistake or something in the way."""
    parser = argparse.ArgumentParser(
        prog="./install.sh --threestudio",
        description="Make a threestudio checkout able to run this extension.",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="of the checkout; without it, one is cloned"
    )
    parser.add_argument("--uninstall", action="store_true", help="take it out again")
    args = parser.parse_args(argv)
    try:
        if args.uninstall:
            uninstall(args.folder)
            return 0
        checkout = install(args.folder)
    except HeadStudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"==> ready. On a GPU:\n  cd {shlex.quote(str(checkout))}\n"
        f"  {shlex.quote(sys.executable)} launch.py --train --gpu 0 \\\n"
        "    --config custom/threestudio-headstudio/configs/headstudio.yaml \\\n"
        '    system.prompt_processor.prompt="a DSLR portrait of an old sailor"'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
