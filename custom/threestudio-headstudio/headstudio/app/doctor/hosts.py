"""Who can run the extension: the embedded host, or a threestudio checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path

from headstudio import paths
from headstudio.app.doctor.findings import Finding

THREESTUDIO = "https://github.com/threestudio-project/threestudio"
EXTENSION = Path(__file__).resolve().parents[3]


def check() -> list[Finding]:
    """Which hosts there are; none at all is a problem."""
    findings = []
    embedded = paths.REPOSITORY / "host"
    if (version := host_version(embedded)) is not None:
        findings.append(Finding.ok(f"embedded host, with the API of threestudio {version}"))
    checkouts = [*filter(is_checkout, candidates())]
    given = os.environ.get("HEADSTUDIO_HOST")
    if given and not is_checkout(Path(given)):
        findings.append(
            Finding.note(
                f"HEADSTUDIO_HOST is {given}, which is no threestudio checkout",
                f"git clone {THREESTUDIO} FOLDER; export HEADSTUDIO_HOST=FOLDER",
            )
        )
    for checkout in checkouts:
        findings.append(_checkout(checkout))
    if not checkouts:
        findings.append(
            Finding.note(
                "no threestudio checkout, which only its own guidances and extensions need",
                f"git clone {THREESTUDIO} FOLDER; export HEADSTUDIO_HOST=FOLDER",
            )
        )
    if host_version(embedded) is None and not checkouts:
        findings.append(
            Finding.problem(
                f"no host: neither {embedded} nor a threestudio checkout can run the extension",
                "git restore host launch.py",
            )
        )
    return findings


def candidates() -> list[Path]:
    """Folders that may be a checkout: the one that was named, this one, the one around us."""
    given = os.environ.get("HEADSTUDIO_HOST")
    folders = [Path(given)] if given else []
    folders += [Path.cwd(), EXTENSION.parent.parent]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def is_checkout(folder: Path) -> bool:
    """Whether a folder holds threestudio itself (our repository has it one level down)."""
    return (folder / "launch.py").is_file() and host_version(folder) is not None


def host_version(folder: Path) -> str | None:
    """The version that ``folder/threestudio`` states, without importing it; None if not there."""
    source = folder / "threestudio" / "__init__.py"
    if not source.is_file():
        return None
    match = re.search(r"^__version__ = ['\"]([^'\"]+)", source.read_text(), re.MULTILINE)
    return match[1] if match else "of unknown version"


def _checkout(folder: Path) -> Finding:
    text = f"threestudio {host_version(folder)} in {folder}"
    linked = folder / "custom" / EXTENSION.name
    if linked.exists() and linked.resolve() == EXTENSION:
        return Finding.ok(f"{text}, with this extension in its custom/")
    return Finding.note(
        f"{text}; this extension is not in its custom/",
        f"ln -s '{EXTENSION}' '{folder / 'custom'}/'",
    )
