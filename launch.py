#!/usr/bin/env python
"""Train, validate, test or export, with threestudio's command line, on a GPU or without one.

    python launch.py --config CONFIG.yaml --train [key=value ...]
    python launch.py --config outputs/.../configs/parsed.yaml --export resume=outputs/.../last.ckpt

Everything in ``custom/`` is loaded first. ``resume=auto`` goes on with the newest run of the same
name and tag from its newest checkpoint that is whole, or starts one. SIGINT and SIGTERM write a
checkpoint and say how to go on.

The exit status is 0, or 2 for a mistake in what was typed, 1 for a run that could not go on, and
128 + N for one that was stopped by signal N.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

HOST = Path(__file__).resolve().parent / "host"


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what is left: the ``key=value`` settings."""
    parser = argparse.ArgumentParser(
        description="Train, validate, test or export.",
        epilog="Further arguments are settings, such as system.prompt_processor.prompt='a man'.",
    )
    parser.add_argument("--config", required=True, help="path of the configuration, a YAML file")
    parser.add_argument(
        "--gpu",
        default="0",
        help="which GPU to use, such as 0 or 1,2; -1 for none. Without a GPU the CPU is used. "
        "If CUDA_VISIBLE_DEVICES is set, that decides.",
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", action="store_true", help="train, then test")
    task.add_argument("--validate", action="store_true", help="make the validation pictures")
    task.add_argument("--test", action="store_true", help="make the test video")
    task.add_argument("--export", action="store_true", help="save the result for other programs")
    parser.add_argument("--verbose", action="store_true", help="say more, with tracebacks")
    parser.add_argument("--typecheck", action="store_true", help="check tensors' shapes as it runs")
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> int:
    args, overrides = parse_arguments(argv)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", args.gpu)
    # Threads that spin while they wait make training several times slower as soon as another
    # program wants the CPU. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, str(HOST))
    if args.typecheck:
        try:
            import typeguard  # noqa: F401
        except ImportError:
            print("error: --typecheck needs typeguard: pip install typeguard", file=sys.stderr)
            return 2
        # What a checked module is the first to import is compiled anew, PyTorch and all.
        import pytorch_lightning  # noqa: F401
        from jaxtyping import install_import_hook

        install_import_hook(["threestudio", "headstudio"], "typeguard.typechecked")
    from threestudio.utils.errors import RunFailed, user_errors
    from threestudio.utils.interruption import Interrupted
    from threestudio.utils.launcher import run

    try:
        run(args, overrides)
    except RunFailed as error:
        return _explained(error, args.verbose, status=1)
    except user_errors() as error:
        return _explained(error, args.verbose, status=2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _explained(error: Exception, verbose: bool, status: int) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
