"""Variants of the method, each a small configuration laid over the whole one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from torch import Tensor
from yaml import YAMLError

from headstudio.errors import HeadStudioError
from headstudio.evaluation.summary import strip, words
from headstudio.evaluation.training import flatten
from headstudio.nearest import did_you_mean
from headstudio.paths import atomic_write

WHOLE = "the method as it is"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Ablation:
    """One change to the method."""

    name: str
    description: str
    changes: dict[str, Any]

    def overrides(self) -> list[str]:
        """The change as ``key=value`` for ``launch.py``."""
        return flatten(self.changes)

    def changes_anything(self, config: Mapping[Any, Any]) -> bool:
        """Whether a configuration has other values."""
        own = OmegaConf.create(dict(config))
        merged = OmegaConf.merge(own, OmegaConf.create(self.changes))
        plain = [OmegaConf.to_container(one, resolve=False) for one in (own, merged)]
        return plain[0] != plain[1]


def load_ablations(folder: Path, only: Sequence[str] | None = None) -> list[Ablation]:
    """Read ``*.yaml`` of a folder.

    Args:
        folder: of the files.
        only: names of those wanted; None is all, in the order of their names.

    Raises:
        HeadStudioError: no such file, not YAML, or one without a description or a change.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not files:
        raise HeadStudioError(f"{folder} holds no ablations (*.yaml).")
    for name in only or ():
        if name not in files:
            raise HeadStudioError(f"there is no ablation {name!r}{did_you_mean(name, files)}")
    return [_load(files[name]) for name in dict.fromkeys(only or files)]


def _load(path: Path) -> Ablation:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise HeadStudioError(f"{path} is no configuration: {reason}") from error
    if not isinstance(content, dict):
        raise HeadStudioError(f"{path} is no configuration: expected keys and values.")
    description = content.pop("description", None)
    if not isinstance(description, str) or not content:
        raise HeadStudioError(f"{path}: expected a description and at least one setting.")
    return Ablation(path.stem, description, {str(key): value for key, value in content.items()})


def picture(rows: Mapping[str, Sequence[Path]]) -> Tensor:
    """One row for each variant: its name, and of each avatar the front and the open jaw.

    Args:
        rows: result pictures (see ``summary.contact_row``) by the variant's description.

    Returns:
        ``[H, W, 3]``.
    """
    cells = []
    for description, files in rows.items():
        views = [view for file in files for view in _front_and_jaw(file)]
        height, width = views[0].shape[:2]
        cells.append(torch.cat([words(description, height, width), strip(torch.stack(views))], 1))
    return torch.cat(cells)


def _front_and_jaw(file: Path) -> tuple[Tensor, Tensor]:
    row = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).float() / 255
    size = row.shape[0]  # the pictures are square
    start = size + max(2, size // 16)  # after the prompt and the gap
    front, jaw = (row[:, start + i * size : start + (i + 1) * size] for i in (0, 4))
    return front, jaw


def write_between(page: Path, text: str) -> None:
    """Replace what stands between the two markers of a page.

    Raises:
        HeadStudioError: a page that cannot be read, or without the markers.
    """
    try:
        before = page.read_text(encoding="utf-8")
    except OSError as error:
        raise HeadStudioError(f"{page} cannot be read: {error.strerror}.") from error
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise HeadStudioError(f"{page} has no lines {BEGIN} and {END} to write between.")
    with atomic_write(page) as temporary:
        temporary.write_text(f"{head}{BEGIN}\n{text.strip()}\n{END}{tail}", encoding="utf-8")
