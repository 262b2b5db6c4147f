"""``headstudio doctor``: what is installed, found and missing, and the command that gets it.

Exit status: 0 if ``headstudio-mini.yaml``, the configuration that needs no download, can run here;
1 if something stands in its way. ``headstudio doctor CONFIG [key=value …]`` examines a
configuration instead: 0 if it has no mistakes, 1 with the list of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from headstudio.app.doctor import (
    device,
    experiment,
    heads,
    hosts,
    machine,
    motions,
    packages,
    priors,
)
from headstudio.app.doctor.findings import Finding, Report

SECTIONS: dict[str, Callable[[], list[Finding]]] = {
    "machine": machine.check,
    "packages": packages.check,
    "device": device.check,
    "head models": heads.check,
    "diffusion priors": priors.check,
    "motions": motions.check,
    "hosts": hosts.check,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        nargs="?",
        help="a configuration to check instead of the installation: nothing is loaded or run",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings as launch.py takes them"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--cpu", action="store_true", help="judge as if there were no GPU (launch.py --gpu -1)"
    )


def run(args: argparse.Namespace) -> int:
    if args.config is not None:
        return experiment.examine(args.config, args.overrides, args.json)
    if args.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    report = examine()
    print(report.as_json() if args.json else report.as_text())
    return 0 if report.ready else 1


def examine() -> Report:
    """Run every check. One that fails is itself reported: the others still say what they found."""
    sections = {}
    for name, check in SECTIONS.items():
        try:
            sections[name] = check()
        except Exception as error:  # whatever is broken here is what the reader wants to know
            sections[name] = [
                Finding.problem(
                    f"cannot be examined: {type(error).__name__}: {error}",
                    fix=packages.INSTALL,
                )
            ]
    return Report(sections)
