"""Who can run the extension: the embedded host, or a threestudio checkout."""

from __future__ import annotations

import os
from pathlib import Path

from headstudio import paths
from headstudio.app.checkout import DEFAULT, packages
from headstudio.app.checkout.links import EXTENSION, host_version, is_checkout, links
from headstudio.app.doctor.findings import Finding

ADVICE = "./install.sh --threestudio   (or with a checkout's folder; then HEADSTUDIO_HOST=FOLDER)"


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
                ADVICE,
            )
        )
    for checkout in checkouts:
        findings.append(_checkout(checkout))
    if not checkouts:
        findings.append(
            Finding.note(
                "no threestudio checkout, which only its own guidances and extensions need",
                ADVICE,
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
    """Folders that may be a checkout: the one named, this one, around us, our own clone."""
    given = os.environ.get("HEADSTUDIO_HOST")
    folders = [Path(given)] if given else []
    folders += [Path.cwd(), EXTENSION.parent.parent, DEFAULT]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def _checkout(folder: Path) -> Finding:
    """What is missing for a checkout to run us: links, packages, placeholders."""
    text = f"threestudio {host_version(folder)} in {folder}"
    states = {str(link.place.relative_to(folder)): link.state for link in links(folder)}
    absent = [place for place, state in states.items() if state == "absent"]
    extension = folder / "custom" / EXTENSION.name
    if not (extension.exists() and extension.resolve() == EXTENSION):
        return Finding.note(
            f"{text}; this extension is not in its custom/", _prepare(folder), links=states
        )
    missing = list(packages.missing().values())
    stand_ins = packages.placeholders_used()
    if missing or (stand_ins and not packages.placeholders_enabled()):
        lacks = [*missing, *([] if packages.placeholders_enabled() else stand_ins)]
        return Finding.note(
            f"{text}, with this extension in its custom/, does not import in this environment: "
            f"it lacks {', '.join(lacks)}",
            _prepare(folder),
            links=states,
        )
    text += ", with this extension in its custom/"
    if absent:
        text += f" (not linked: {', '.join(absent)})"
    if stand_ins:
        text += f"; placeholders for {', '.join(stand_ins)}"
    return Finding.ok(text, links=states, placeholders=stand_ins)


def _prepare(folder: Path) -> str:
    return f"./install.sh --threestudio '{folder}'"
