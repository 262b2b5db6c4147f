"""The head models under ``load/flame``, each tried by loading it."""

from __future__ import annotations

from pathlib import Path

from headstudio.app.doctor import configs
from headstudio.app.doctor.findings import Finding
from headstudio.errors import HeadStudioError

FLAME_SITE = "https://flame.is.tue.mpg.de"
_KEY = b"v_template"


def check() -> list[Finding]:
    needed, flame = configs.mini().head, configs.full().head
    findings = []
    path = configs.locate(needed)
    if path is None:
        findings.append(Finding.problem(f"{needed} is missing", configs.restore(needed)))
    else:
        findings.append(examine(path, configs.restore(needed), needed=True))
    others = [other for other in head_files() if path is None or other != path.resolve()]
    findings += [
        examine(other, f"download it again from {FLAME_SITE}", needed=False) for other in others
    ]
    if configs.locate(flame) is None:
        findings.append(_no_flame(flame, others))
    return findings


def examine(path: Path, fix: str, needed: bool) -> Finding:
    """Load a head model and say what it is, or why it is none."""
    from headstudio.flame import HeadModel

    try:
        head = HeadModel.load(path)
        landmarks = len(head.landmarks)
    except HeadStudioError as error:
        kind = Finding.problem if needed else Finding.note
        return kind(f"{configs.shown(path)} cannot be used: {error}", fix)
    return Finding.ok(
        f"{configs.shown(path)}: {head.name}, {len(head.v_template)} vertices, "
        f"{len(head.faces)} triangles, {landmarks} landmarks",
        name=head.name,
        content_hash=head.content_hash,
    )


def head_files() -> list[Path]:
    """Files under ``load/flame`` that hold a head; FLAME's masks and textures do not."""
    files = [
        path
        for folder in configs.folders("flame")
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".npz", ".pkl") and path.is_file()
    ]
    return [path for path in files if _KEY in path.read_bytes()]


def _no_flame(expected: str, others: list[Path]) -> Finding:
    if others:
        return Finding.note(
            f"headstudio.yaml reads {expected}, which is not here",
            f"launch.py … system.geometry.head_model='{configs.shown(others[0])}'",
        )
    return Finding.note(
        f"no FLAME, which headstudio.yaml reads from {expected}; it may not be passed on",
        f"register at {FLAME_SITE}, download FLAME 2020 or 2023, unpack it into load/flame/;\n"
        f"if the file is not {expected}: launch.py … system.geometry.head_model=PATH",
    )
