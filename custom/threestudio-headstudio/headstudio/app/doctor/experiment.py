"""``headstudio doctor CONFIG [key=value …]``: what is wrong with an experiment, not run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from typing import Any

from headstudio import paths
from headstudio.errors import HeadStudioError


def examine(config: str, overrides: list[str], as_json: bool) -> int:
    """Print every mistake in a configuration; returns 0 if there is none, else 1.

    Nothing is loaded and nothing written: neither heads nor priors nor motions are opened.

    Raises:
        HeadStudioError: if the file cannot be read at all, or threestudio and the embedded host are
            both absent.
    """
    mistakes = find_mistakes(config, overrides)
    if as_json:
        print(json.dumps({"config": config, "mistakes": mistakes}, indent=2))
    elif mistakes:
        for path, text in mistakes:
            print(f"{path} {text}")
        count = len(mistakes)
        print(f"{config}: {count} mistake{'s' * (count > 1)}.")
    else:
        print(f"{config}: no mistakes.")
    return 1 if mistakes else 0


def find_mistakes(config: str, overrides: list[str]) -> list[tuple[str, str]]:
    """Path and text of each mistake.

    Raises:
        HeadStudioError: as `examine`.
    """
    host = _host()
    from headstudio.plugin.config_check import check_experiment

    try:
        merged = host.merge_config(config, cli_args=overrides)
    except ValueError as error:  # the host's own error for people
        raise HeadStudioError(str(error)) from error
    return [(problem.path, problem.text) for problem in check_experiment(merged)]


def _host() -> Any:
    """The embedded host's module for configurations."""
    folder = str(paths.REPOSITORY / "host")
    if "threestudio" not in sys.modules and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        host = importlib.import_module("threestudio.utils.config")
        importlib.import_module("headstudio.plugin")
    except ImportError as error:
        raise HeadStudioError(
            f"the embedded host, which checks configurations, cannot be imported: {error}. It "
            f"belongs into {folder}."
        ) from error
    if not hasattr(host, "merge_config"):
        raise HeadStudioError(
            f"{host.__file__} is threestudio's own, which does not check configurations; take it "
            "off PYTHONPATH for this command."
        )
    return host
