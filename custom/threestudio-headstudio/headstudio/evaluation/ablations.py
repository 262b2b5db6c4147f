"""Variants of the method, each a small configuration laid over the whole one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.evaluation.summary import strip, words
from headstudio.evaluation.training import flatten, read_settings
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

    def touches(self, key: str) -> bool:
        """Whether a setting, by its dotted key, is one that this changes, is within, or is above
        one."""
        setting = _parts(key)
        own = (_parts(override.partition("=")[0]) for override in self.overrides())
        return any(setting[: len(one)] == one[: len(setting)] for one in own)

    def changes_anything(self, config: Mapping[Any, Any]) -> bool:
        """Whether a configuration has other values."""
        own = OmegaConf.create(dict(config))
        merged = OmegaConf.merge(own, OmegaConf.create(self.changes))
        plain = [OmegaConf.to_container(one, resolve=False) for one in (own, merged)]
        return plain[0] != plain[1]


def _parts(key: str) -> list[str]:
    """``a.b[c]``, as OmegaConf takes keys, as its names."""
    return [part for part in re.split(r"[.\[\]]", key) if part]


def check_settings(ablations: Sequence[Ablation], settings: Sequence[str]) -> None:
    """Refuse settings that would undo an ablation, whose row would be told of all the same.

    Args:
        ablations: those that are to be trained.
        settings: ``key=value`` for every training, which are laid over the ablations.

    Raises:
        HeadStudioError: a setting is one that an ablation changes.
    """
    for setting in settings:
        key = setting.partition("=")[0]
        touched = [one.name for one in ablations if one.touches(key)]
        if touched:
            raise HeadStudioError(
                f"--set {setting}: {key} is what {', '.join(touched)} would change, and one value "
                "for every training would undo that. Leave it out, or choose other ablations with "
                "--only."
            )


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
    content = read_settings(path)
    description = content.pop("description", None)
    if not isinstance(description, str) or not content:
        raise HeadStudioError(f"{path}: expected a description and at least one setting.")
    return Ablation(path.stem, description, content)


def picture(rows: Mapping[str, Sequence[Path]], cell: int | None = None) -> Tensor:
    """One row for each variant: its name, and of each avatar the front and the open jaw.

    Args:
        rows: result pictures (see ``summary.contact_row``) by the variant's description.
        cell: pixels of each view; None leaves them as they are.

    Returns:
        ``[H, W, 3]``.
    """
    cells = []
    for description, files in rows.items():
        views = [view for file in files for view in _front_and_jaw(file, cell)]
        height, width = views[0].shape[:2]
        text = description.replace("τ", "tau")  # Pillow's own font has no Greek
        cells.append(torch.cat([words(text, height, width), strip(torch.stack(views))], 1))
    return torch.cat(cells)


def _front_and_jaw(file: Path, cell: int | None) -> list[Tensor]:
    with Image.open(file) as image:
        row = image.convert("RGB")
    size = row.height  # the views are square
    start = size + max(2, size // 16)  # after the prompt and the gap
    views = [row.crop((start + i * size, 0, start + (i + 1) * size, size)) for i in (0, 4)]
    if cell is not None:
        views = [view.resize((cell, cell), Image.Resampling.LANCZOS) for view in views]
    return [torch.from_numpy(np.array(view)).float() / 255 for view in views]


def check_page(page: Path) -> tuple[str, str]:
    """What stands before and after the two markers of a page.

    Raises:
        HeadStudioError: a page that cannot be read, or without the markers.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise HeadStudioError(f"{page} cannot be read: {error.strerror}.") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise HeadStudioError(f"{page} has no lines {BEGIN} and {END} to write between.")
    return before, after


def write_between(page: Path, text: str) -> None:
    """Replace what stands between the two markers of a page; see :func:`check_page`."""
    before, after = check_page(page)
    with atomic_write(page) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}", encoding="utf-8")
