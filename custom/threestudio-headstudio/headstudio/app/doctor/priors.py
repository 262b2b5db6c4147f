"""The diffusion priors: the bundled one and its like under ``load/prior``, and those of the hub."""

from __future__ import annotations

import json
from pathlib import Path

from headstudio.app.doctor import configs
from headstudio.app.doctor.findings import Finding
from headstudio.errors import HeadStudioError


def check() -> list[Finding]:
    needed = configs.mini().prior
    path = configs.locate(needed)
    findings = []
    if path is None:
        findings.append(Finding.problem(f"{needed} is missing", configs.restore(needed)))
    else:
        findings.append(examine(path, configs.restore(needed), needed=True))
    for folder in configs.folders("prior"):
        for index in sorted(folder.glob("*/model_index.json")):
            findings.append(examine(index.parent, "copy the folder again", needed=False))
    return findings + _from_the_hub()


def examine(folder: Path, fix: str, needed: bool) -> Finding:
    """Look for every part of a prior and read the headers of its weights."""
    from headstudio.guidance import _parts

    kind = Finding.problem if needed else Finding.note
    sources = _parts.locate(folder.resolve(), None, None, None, with_controlnet=True)
    try:
        _parts.check_local(sources)
    except HeadStudioError as error:
        return kind(f"{configs.shown(folder)}: {error}", fix)
    damaged = damage(folder)
    if damaged:
        return kind(f"{configs.shown(folder)} is damaged: {'; '.join(damaged)}", fix)
    sizes = {part: _mebibytes(folder / part) for part in sources}
    listed = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    return Finding.ok(
        f"{configs.shown(folder)}: {sum(sizes.values()):.1f} MiB ({listed})", mebibytes=sizes
    )


def damage(folder: Path) -> list[str]:
    """What is wrong with a prior's files, as far as it shows without loading them.

    A safetensors file states the sizes of its tensors, so that one that was cut off shows.
    """
    from safetensors import SafetensorError, safe_open

    wrong = []
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            wrong.append(f"{path.relative_to(folder)} ({error})")
    for path in sorted(folder.rglob("*.json")):
        try:
            json.loads(path.read_text())
        except (ValueError, OSError) as error:
            wrong.append(f"{path.relative_to(folder)} ({error})")
    return wrong


def in_hub_cache(repository: str, filename: str) -> bool:
    """Whether a file of a repository on the model hub has been downloaded."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, filename), str)


def _from_the_hub() -> list[Finding]:
    """The repositories that headstudio.yaml names."""
    full = configs.full()
    wanted = [
        (full.prior, "unet/config.json", "system.prompt_processor.pretrained_model_name_or_path")
    ]
    if full.controlnet is not None:
        inside = f"{full.controlnet_subfolder}/" if full.controlnet_subfolder else ""
        key = "system.guidance.controlnet_model_name_or_path"
        wanted.append((full.controlnet, f"{inside}config.json", key))
    findings = []
    for repository, filename, key in wanted:
        if Path(repository).is_dir():
            continue
        if in_hub_cache(repository, filename):
            findings.append(Finding.ok(f"{repository}: downloaded from the model hub"))
        else:
            findings.append(
                Finding.note(
                    f"{repository}, which headstudio.yaml uses, is not on this machine",
                    "the first launch.py with headstudio.yaml downloads it; without a connection:\n"
                    f"copy it here and give launch.py … {key}=FOLDER",
                )
            )
    return findings


def _mebibytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
