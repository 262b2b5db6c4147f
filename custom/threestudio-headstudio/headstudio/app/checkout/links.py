"""The symbolic links that put us into a threestudio checkout, and take us out again.

A link is ours if it points where this repository would make it point. Nothing else is ever changed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from headstudio import paths
from headstudio.errors import HeadStudioError

EXTENSION = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Link:
    """``place``, in a checkout, is to point to ``target``, in this repository."""

    place: Path
    target: Path

    @property
    def state(self) -> str:
        """ "ours", "absent", or "taken" by something else."""
        if self.place.is_symlink() and Path(os.readlink(self.place)) == self.target:
            return "ours"
        return "taken" if os.path.lexists(self.place) else "absent"


def links(checkout: Path) -> list[Link]:
    """What a checkout needs to run every configuration of this repository by its path here."""
    targets = {f"custom/{EXTENSION.name}": EXTENSION}
    for name in ("flame", "prior", "motion"):
        targets[f"load/{name}"] = paths.REPOSITORY / "load" / name
    for config in sorted((paths.REPOSITORY / "configs").glob("*")):
        targets[f"configs/{config.name}"] = config
    wanted = [Link(checkout / place, target) for place, target in targets.items()]
    # An extension that was copied into a checkout is in its place already.
    return [link for link in wanted if link.target.exists() and link.place != link.target]


def make(checkout: Path) -> tuple[list[Link], list[Link]]:
    """Make the links that are absent.

    Returns:
        those that were made, and those whose place is taken (and left as it is).

    Raises:
        HeadStudioError: the extension's own place is taken, or a link cannot be made.
    """
    wanted = links(checkout)
    made: list[Link] = []
    taken = [link for link in wanted if link.state == "taken"]
    for link in taken:
        if link.target == EXTENSION:
            raise HeadStudioError(
                f"{link.place} exists and is not a link to {EXTENSION}. Nothing was changed. "
                "Move it away, then run this again."
            )
    for link in wanted:
        if link.state == "absent":
            try:
                link.place.parent.mkdir(exist_ok=True)
                link.place.symlink_to(link.target)
            except OSError as error:
                raise HeadStudioError(
                    f"cannot make the link {link.place}: {error.strerror}. Is {checkout} yours?"
                ) from error
            made.append(link)
    return made, taken


def remove(checkout: Path) -> list[Link]:
    """Remove the links that are ours; returns them."""
    ours = [link for link in links(checkout) if link.state == "ours"]
    for link in ours:
        link.place.unlink()
    return ours


def host_version(folder: Path) -> str | None:
    """The version that ``folder/threestudio`` states, without importing it; None if not there."""
    source = folder / "threestudio" / "__init__.py"
    if not source.is_file():
        return None
    match = re.search(r"^__version__ = ['\"]([^'\"]+)", source.read_text(), re.MULTILINE)
    return match[1] if match else "of unknown version"


def is_checkout(folder: Path) -> bool:
    """Whether a folder holds threestudio itself (our repository has it one level down)."""
    return (folder / "launch.py").is_file() and host_version(folder) is not None
