"""What the two configurations ask for, so that the doctor looks for what would be loaded."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from headstudio import paths
from headstudio.errors import HeadStudioError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@dataclass(frozen=True)
class Needs:
    """Names as they stand in a configuration: paths, patterns or names on a model hub."""

    head: str
    prior: str
    motions: str
    controlnet: str | None = None
    controlnet_subfolder: str | None = None


def mini() -> Needs:
    """Of headstudio-mini.yaml, which runs with what the repository holds."""
    return _needs(CONFIGS / "headstudio-mini.yaml")


def full() -> Needs:
    """Of headstudio.yaml, with the paper's settings."""
    return _needs(CONFIGS / "headstudio.yaml")


def _needs(path: Path) -> Needs:
    from omegaconf import OmegaConf

    cfg = OmegaConf.load(path)
    guidance = cfg.system.guidance
    return Needs(
        head=cfg.system.geometry.head_model,
        prior=cfg.system.prompt_processor.pretrained_model_name_or_path,
        motions=cfg.data.motions,
        controlnet=guidance.get("controlnet_model_name_or_path"),
        controlnet_subfolder=guidance.get("controlnet_subfolder"),
    )


def locate(name: str) -> Path | None:
    """A file or folder that a configuration names; None if it is not there.

    ``load/...`` is looked for under the working directory, then in the repository.
    """
    if Path(name).exists():
        return Path(name)
    parts = Path(name).parts
    if parts[:1] != ("load",) or len(parts) < 2:
        return None
    try:
        return paths.find_asset(Path(*parts[1:]))
    except HeadStudioError:
        return None


def matches(pattern: str) -> list[Path]:
    """The files of a pattern, looked for where ``locate`` looks, sorted."""
    found = [Path(match) for match in glob.glob(pattern)]
    if not found:
        found = [
            paths.REPOSITORY / match for match in glob.glob(pattern, root_dir=paths.REPOSITORY)
        ]
    return sorted(found)


def folders(relative: str) -> list[Path]:
    """``load/<relative>`` here and in the repository, those that exist, each once."""
    roots = (Path.cwd(), paths.REPOSITORY)
    found = [root / "load" / relative for root in roots if (root / "load" / relative).is_dir()]
    return list(dict.fromkeys(folder.resolve() for folder in found))


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def restore(name: str) -> str:
    """The command that brings back a file that the repository holds."""
    return f"git -C '{paths.REPOSITORY}' restore {name}"
