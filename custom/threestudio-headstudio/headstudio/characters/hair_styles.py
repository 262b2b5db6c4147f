"""Hair styles, each a few numbers about how its strands grow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HairStyle:
    """How a style grows. Lengths in metres, for a face of the usual size."""

    comb: str  # name of a direction field in hair.py
    length: float
    segments: int
    strands: int
    lift: float = 0.3  # how far a strand first stands up, 0 lying .. 1 along the normal
    weight: float = 0.0  # how soon it hangs down, 0 stiff .. 1 at once
    hug: float = 0.0  # how strongly it is held to the head, 0..1
    volume: float = 0.008  # thickness of the hair on the head
    width: float = 0.0019  # standard deviation across a splat
    curl: float = 0.0  # radius of a helix about the strand's path
    turns: float = 3.0  # of the helix or wave, over the length
    wave: float = 0.0  # sideways amplitude
    scatter: float = 0.18  # random tilt of every strand
    length_spread: float = 0.15
    ends_at: float | None = None  # height where all strands end, in face heights above the chin
    covers: str = "all"  # which part of the scalp: all, strip, sides
    extra: str = "none"  # tail, bun or fringe


STYLES: dict[str, HairStyle] = {
    "buzz cut": HairStyle("down", 0.007, 2, 3600, 0.75, width=0.0013, volume=0.001, scatter=0.4),
    "short": HairStyle(
        "down", 0.036, 5, 1600, 0.5, 0.15, 0.35, volume=0.012, scatter=0.3, length_spread=0.3
    ),
    "side parted": HairStyle(
        "side", 0.070, 8, 1000, 0.35, 0.1, 0.55, volume=0.015, length_spread=0.35
    ),
    "slicked back": HairStyle(
        "back", 0.080, 10, 800, 0.22, 0.0, 0.9, volume=0.009, scatter=0.06, length_spread=0.3
    ),
    "spiky": HairStyle(
        "down", 0.042, 5, 1600, 0.95, volume=0.004, width=0.0022, scatter=0.12, length_spread=0.2
    ),
    "curly": HairStyle(
        "down", 0.065, 10, 800, 0.6, 0.2, 0.3, volume=0.018, curl=0.0065, turns=2.2, scatter=0.4
    ),
    "afro": HairStyle(
        "up", 0.058, 8, 1000, 1.0, volume=0.004, width=0.0034, curl=0.008, turns=3.0, scatter=0.22
    ),
    "mohawk": HairStyle(
        "up", 0.046, 7, 1000, 1.0, volume=0.004, width=0.0024, scatter=0.05, covers="strip"
    ),
    "bob": HairStyle(
        "parting", 0.20, 16, 500, 0.35, 0.95, 0.3, volume=0.014, width=0.0026, ends_at=0.06
    ),
    "fringe": HairStyle(
        "parting", 0.20, 16, 420, 0.35, 0.95, 0.3, volume=0.014, width=0.0026, ends_at=0.02,
        extra="fringe",
    ),
    "long": HairStyle(
        "parting", 0.31, 15, 550, 0.3, 0.95, 0.25, volume=0.013, width=0.0029, ends_at=-0.50,
        length_spread=0.25,
    ),
    "long wavy": HairStyle(
        "parting", 0.32, 18, 460, 0.4, 0.95, 0.2, volume=0.018, width=0.0029, wave=0.007,
        turns=3.5, ends_at=-0.45, length_spread=0.25, scatter=0.12,
    ),
    "ponytail": HairStyle(
        "tail", 0.12, 10, 560, 0.12, 0.0, 1.0, volume=0.006, scatter=0.04, extra="tail"
    ),
    "bun": HairStyle("bun", 0.12, 10, 560, 0.12, 0.0, 1.0, volume=0.006, scatter=0.04, extra="bun"),
    "balding": HairStyle(
        "down", 0.028, 4, 1500, 0.5, 0.3, 0.4, volume=0.009, scatter=0.3, covers="sides"
    ),
}  # fmt: skip
