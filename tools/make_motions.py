"""Make the sample motions in ``load/motion/``.

    python -m tools.make_motions                      # writes load/motion/*.npz
    python -m tools.make_motions --preview build/     # and a sheet of pictures for each

Each motion is written as curves of ARKit's facial actions, from what is known about the timing of
faces, and then turned into FLAME parameters of the open head. All of them begin and end at rest,
and what sways does so periodically, so they can be joined and looped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from headstudio.flame import HeadModel
from headstudio.motion import Motion, for_head, from_arkit, save_motion
from headstudio.paths import atomic_write
from headstudio.render import Cameras
from headstudio.render.mesh import shade_mesh

FPS = 30
JAW_JOINT = True
"""Open the mouth by the jaw's joint, as FLAME's motions do, not by the expression ``jawOpen``."""


@dataclass
class Take:
    """Curves being drawn: seconds ``t [T]``, actions [T] each, head rotation [T, 3] in radians
    (x nods down, y turns to the subject's left, z tilts to the subject's right)."""

    seconds: float
    t: np.ndarray = field(init=False)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    neck: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.t = np.arange(round(self.seconds * FPS)) / FPS
        self.neck = np.zeros((len(self.t), 3))

    def add(self, action: str, curve: np.ndarray, weight: float = 1.0) -> None:
        """Add to an action; a name with ``*`` means both sides."""
        for name in (
            [action.replace("*", side) for side in ("Left", "Right")] if "*" in action else [action]
        ):
            self.curves[name] = self.curves.get(name, np.zeros(len(self.t))) + weight * curve

    def bump(self, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
        """0, then 1 from ``start + rise`` for ``hold`` seconds, then 0 again, eased."""
        up = ease((self.t - start) / rise)
        return up * (1 - ease((self.t - start - rise - hold) / fall))

    def blink(self, *starts: float) -> None:
        """Spontaneous blinks: lids close in 90 ms and open in 190 ms."""
        for start in starts:
            lids = self.bump(start, 0.09, 0.035, 0.19)
            self.add("eyeBlink*", lids)
            self.add("browDown*", lids, 0.08)

    def sway(self, amount: tuple[float, float, float], seed: int) -> None:
        """Slow periodic head movement: three harmonics of the take's length for each axis."""
        rng = np.random.default_rng(seed)
        for axis in range(3):
            for cycles in (1, 2, 3):
                wave = np.sin(2 * np.pi * (cycles * self.t / self.seconds + rng.random()))
                self.neck[:, axis] += amount[axis] * (wave - wave[0]) / cycles**1.5

    def motion(self, head: HeadModel, name: str) -> Motion:
        # Overlapping bumps may add up to more than an action can do.
        curves = {action: np.clip(curve, 0, 1) for action, curve in self.curves.items()}
        return from_arkit(
            curves,
            FPS,
            head.expression_names,
            neck_pose=self.neck,
            n_expression=head.n_expression,
            name=name,
            jaw_joint=JAW_JOINT,
        )


def ease(x: np.ndarray) -> np.ndarray:
    """0 to 1 over x in [0, 1] along a minimum-jerk curve, which is how limbs and faces move."""
    x = np.clip(x, 0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


# Mouth shapes of speech sounds. Sided actions (*) move both sides.
VISEMES: dict[str, dict[str, float]] = {
    "-": {},
    "aa": {"jawOpen": 0.72, "mouthLowerDown*": 0.18, "mouthUpperUp*": 0.08},
    "ae": {"jawOpen": 0.55, "mouthStretch*": 0.22, "mouthSmile*": 0.12, "mouthLowerDown*": 0.15},
    "eh": {"jawOpen": 0.40, "mouthStretch*": 0.20, "mouthSmile*": 0.10, "mouthLowerDown*": 0.12},
    "iy": {"jawOpen": 0.22, "mouthSmile*": 0.25, "mouthStretch*": 0.30, "mouthLowerDown*": 0.15},
    "ow": {"jawOpen": 0.42, "mouthFunnel": 0.55, "mouthPucker": 0.20},
    "uw": {"jawOpen": 0.20, "mouthPucker": 0.75, "mouthFunnel": 0.15},
    "er": {"jawOpen": 0.22, "mouthFunnel": 0.35, "mouthPucker": 0.20},
    "mbp": {"mouthPress*": 0.45, "mouthRollLower": 0.35, "mouthRollUpper": 0.25},
    "fv": {"jawOpen": 0.07, "mouthRollLower": 0.50, "mouthUpperUp*": 0.20},
    "tdn": {"jawOpen": 0.06, "mouthLowerDown*": 0.15, "mouthStretch*": 0.08},
    "s": {"jawOpen": 0.07, "mouthStretch*": 0.22, "mouthLowerDown*": 0.22, "mouthUpperUp*": 0.10},
    "sh": {"jawOpen": 0.10, "mouthFunnel": 0.50, "mouthPucker": 0.20},
    "w": {"jawOpen": 0.08, "mouthPucker": 0.80},
    "k": {"jawOpen": 0.14, "mouthLowerDown*": 0.10},
}

# "Hello, my name is nobody. It is nice to meet you. How are you doing today?" A vowel lasts 130 ms,
# another sound 75 ms, "-" is a pause of 180 ms: about four syllables a second.
SPEECH = (
    "- k eh tdn ow mbp aa iy tdn eh mbp iy s tdn ow mbp aa tdn iy - "
    "eh tdn iy s tdn aa iy s tdn uw mbp iy tdn uw - "
    "k aa w er k uw tdn uw k eh tdn uw tdn ae iy - -"
)
VOWELS = ("aa", "ae", "eh", "iy", "ow", "uw", "er")


def speech_curves(t: np.ndarray) -> dict[str, np.ndarray]:
    """Mouth actions of ``SPEECH`` at the times ``t``, stretched to fill them.

    Every sound pulls the mouth towards its shape for as long as it lasts; the mouth follows
    smoothly, so that neighbours colour each other.
    """
    sounds = SPEECH.split()
    length = [0.18 if s == "-" else 0.13 if s in VOWELS else 0.075 for s in sounds]
    ends = np.cumsum(length) * (t[-1] + t[1]) / sum(length)
    rate = 240
    fine = np.arange(int(ends[-1] * rate)) / rate
    which = np.searchsorted(ends, fine, side="right").clip(max=len(sounds) - 1)
    curves = {}
    for action in sorted({action for shape in VISEMES.values() for action in shape}):
        target = np.array([VISEMES[sound].get(action, 0.0) for sound in sounds])[which]
        # The jaw is heavier than the lips.
        lag = 0.028 if action == "jawOpen" else 0.024
        curves[action] = np.interp(t, fine, gaussian_filter1d(target, lag * rate, mode="constant"))
    return curves


def talk() -> Take:
    take = Take(6.0)
    for action, curve in speech_curves(take.t).items():
        take.add(action, curve)
    friendly = take.bump(0.1, 0.6, 4.6, 0.6)
    take.add("mouthSmile*", friendly, 0.14)
    take.add("cheekSquint*", friendly, 0.10)
    # Brows and a nod mark the stressed words.
    for moment, strength in ((0.35, 0.5), (1.15, 0.25), (2.75, 0.6), (4.45, 0.35)):
        stress = take.bump(moment, 0.18, 0.12, 0.35)
        take.add("browInnerUp", stress, strength)
        take.add("browOuterUp*", stress, 0.6 * strength)
        take.neck[:, 0] += 0.06 * strength * take.bump(moment + 0.08, 0.15, 0.05, 0.3)
    take.blink(0.05, 2.3, 4.95)
    take.sway((0.018, 0.035, 0.015), seed=1)
    return take


def blink() -> Take:
    take = Take(4.0)
    take.blink(0.5, 1.75, 2.05)
    # A slow, deliberate one at the end.
    lids = take.bump(2.9, 0.20, 0.18, 0.35)
    take.add("eyeBlink*", lids)
    take.add("eyeSquint*", lids, 0.35)
    take.add("cheekSquint*", lids, 0.25)
    take.sway((0.008, 0.012, 0.006), seed=2)
    return take


def smile() -> Take:
    take = Take(4.0)
    # The cheeks and lids of a felt smile come a moment after the lips, and leave before them.
    lips = take.bump(0.3, 0.65, 1.6, 0.9)
    eyes = take.bump(0.45, 0.6, 1.35, 0.8)
    take.add("mouthSmile*", lips, 0.80)
    take.add("mouthDimple*", lips, 0.20)
    take.add("mouthUpperUp*", lips, 0.18)
    take.add("jawOpen", take.bump(0.6, 0.5, 1.0, 0.7), 0.12)
    take.add("cheekSquint*", eyes, 0.50)
    take.add("eyeSquint*", eyes, 0.40)
    take.add("browOuterUp*", eyes, 0.15)
    take.blink(0.25, 3.3)
    take.neck[:, 2] += 0.06 * take.bump(0.5, 0.9, 1.2, 1.1)
    take.neck[:, 0] -= 0.03 * lips
    take.sway((0.006, 0.012, 0.006), seed=3)
    return take


def surprise() -> Take:
    take = Take(3.5)
    brows = take.bump(0.40, 0.20, 1.0, 0.9)
    mouth = take.bump(0.48, 0.24, 0.8, 0.8)
    take.add("browInnerUp", brows, 0.95)
    take.add("browOuterUp*", brows, 1.0)
    take.add("eyeWide*", brows, 1.0)
    take.add("jawOpen", mouth, 0.65)
    take.add("mouthFunnel", mouth, 0.20)
    take.blink(0.22, 2.45)
    take.neck[:, 0] -= 0.09 * take.bump(0.42, 0.3, 0.8, 1.1)
    take.sway((0.006, 0.010, 0.005), seed=4)
    return take


def anger() -> Take:
    take = Take(4.5)
    glare = take.bump(0.3, 0.45, 2.6, 0.8)
    snarl = take.bump(1.7, 0.22, 0.8, 0.4)
    pressed = glare * (1 - snarl)
    take.add("browDown*", glare, 1.0)
    take.add("eyeSquint*", glare, 0.45)
    take.add("noseSneer*", glare, 0.45)
    take.add("noseSneer*", snarl, 0.45)
    take.add("cheekSquint*", glare, 0.25)
    take.add("mouthPress*", pressed, 0.60)
    take.add("mouthFrown*", glare, 0.60)
    take.add("mouthShrugLower", pressed, 0.30)
    take.add("mouthUpperUp*", snarl, 0.65)
    take.add("mouthLowerDown*", snarl, 0.55)
    take.add("mouthStretch*", snarl, 0.35)
    take.add("jawOpen", snarl, 0.22)
    take.add("jawForward", glare, 0.25)
    take.blink(0.1, 4.0)
    take.neck[:, 0] += 0.10 * glare - 0.05 * snarl
    take.neck[:, 1] += 0.05 * snarl * np.sin(2 * np.pi * 3.0 * take.t)
    take.sway((0.005, 0.008, 0.005), seed=5)
    return take


# When the gaze leaves for where: seconds, degrees to the subject's left, degrees down.
GLANCES = ((0.4, 32, 0), (1.5, 38, -10), (2.3, -30, 4), (3.5, -36, -14), (4.3, 4, 18), (5.1, 0, 0))


def look_around() -> Take:
    take = Take(6.5)
    gaze = np.zeros((len(take.t), 2))
    head = np.zeros((len(take.t), 2))
    previous = np.zeros(2)
    for start, yaw, pitch in GLANCES:
        target = np.radians([yaw, pitch])
        step = target - previous
        # The eyes jump at once; the head sets out later, takes longer and goes only part of the
        # way. Meanwhile the eyes, which hold their target, turn back.
        jump = 0.03 + 0.1 * np.linalg.norm(step)
        gaze += ease((take.t - start) / jump)[:, None] * step
        head += ease((take.t - start - 0.08) / 0.60)[:, None] * step * (0.62, 0.5)
        previous = target
        if abs(step[0]) > 0.5:
            take.blink(start - 0.02)
    eyes = gaze - head
    for axis, limit, plus, minus in (
        (0, 0.45, ("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
        (1, 0.35, ("eyeLookDown*",), ("eyeLookUp*",)),
    ):
        turn = np.clip(eyes[:, axis] / limit, -1, 1)
        for action in plus:
            take.add(action, np.clip(turn, 0, None))
        for action in minus:
            take.add(action, np.clip(-turn, 0, None))
    take.add("browInnerUp", np.clip(-gaze[:, 1] / 0.25, 0, 1), 0.35)
    take.add("browOuterUp*", np.clip(-gaze[:, 1] / 0.25, 0, 1), 0.25)
    take.neck[:, 0] = head[:, 1]
    take.neck[:, 1] = head[:, 0]
    take.neck[:, 2] = -0.15 * head[:, 0]
    take.blink(6.05)
    return take


TAKES: dict[str, Callable[[], Take]] = {
    "talk": talk,
    "blink": blink,
    "smile": smile,
    "surprise": surprise,
    "anger": anger,
    "look_around": look_around,
}


# What the preview paints; the rest is skin.
COLORS = {
    **{"skin": (0.85, 0.72, 0.62), "lips": (0.80, 0.38, 0.36), "brows": (0.30, 0.20, 0.15)},
    **{"scalp": (0.45, 0.36, 0.30), "eye_white": (1.0, 1.0, 1.0), "iris": (0.25, 0.35, 0.60)},
    **{"pupil": (0.0, 0.0, 0.0), "teeth": (1.0, 1.0, 0.9), "tongue": (0.80, 0.40, 0.40)},
    **{"mouth_interior": (0.35, 0.10, 0.10)},
}


def preview(motion: Motion, head: HeadModel, columns: int = 8, rows: int = 4) -> np.ndarray:
    """A sheet of evenly spaced frames, uint8 [rows * 224, columns * 224, 3]."""
    frames = torch.linspace(0, len(motion) - 1, columns * rows).round().long()
    params = for_head(motion, head).params.expand()[frames]
    world = head.world_frame().to_world(head(params))
    colors = torch.tensor([COLORS["skin"]]).repeat(len(head.faces), 1)
    for region in set(COLORS) & set(head.region_names):
        colors[head.region_mask(region)] = torch.tensor(COLORS[region])
    cameras = Cameras.orbit(18, 5, 4.5, 20, 224, 224)
    pictures = shade_mesh(world, head.faces, cameras, colors)[:, 0]
    sheet = pictures.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return (sheet * 255).round().byte().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--head", type=Path, default=Path("load/flame/open_head.npz"))
    parser.add_argument("--out", type=Path, default=Path("load/motion"))
    parser.add_argument("--preview", type=Path, help="folder for a sheet of pictures of each")
    arguments = parser.parse_args()
    head = HeadModel.load(arguments.head)
    for name, take in TAKES.items():
        motion = take().motion(head, name)
        path = arguments.out / f"{name}.npz"
        save_motion(path, motion)
        print(f"{path}: {len(motion)} frames at {motion.fps:g} fps")
        if arguments.preview:
            with atomic_write(arguments.preview / f"{name}.png") as temporary:
                iio.imwrite(temporary, preview(motion, head))


if __name__ == "__main__":
    main()
