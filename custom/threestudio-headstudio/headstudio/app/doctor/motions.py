"""The motions that training draws from, each tried by reading it."""

from __future__ import annotations

from headstudio.app.doctor import configs
from headstudio.app.doctor.findings import Finding
from headstudio.errors import HeadStudioError


def check() -> list[Finding]:
    from headstudio.motion import load_motion

    pattern = configs.mini().motions
    files = configs.matches(pattern)
    if not files:
        return [Finding.problem(f"{pattern} matches nothing", configs.restore("load/motion"))]
    findings, motions = [], []
    for path in files:
        try:
            motions.append(load_motion(path))
        except HeadStudioError as error:
            findings.append(
                Finding.problem(
                    f"{configs.shown(path)} cannot be used: {error}",
                    f"repair it, or take it away: the configurations read {pattern}",
                )
            )
    if motions:
        seconds = sum(motion.duration for motion in motions)
        names = ", ".join(motion.name for motion in motions)
        findings.append(Finding.ok(f"{len(motions)} motions, {seconds:.1f} s: {names}"))
    return findings
