"""Where the whole head is: tracked motions are in somebody's camera, not around the origin."""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.spatial.transform import Rotation

from headstudio.errors import HeadStudioError
from headstudio.flame import FlameParams
from headstudio.motion.motion import Motion

ROOTS = ("centred", "kept", "still")


def place_root(motion: Motion, how: str = "centred") -> Motion:
    """Decide what becomes of ``global_orient`` and ``translation``.

    Args:
        motion: any.
        how: "centred" keeps the movement and takes away its mean, so that the head is in the
            middle and looks ahead on the average; "kept" changes nothing; "still" takes away all
            of it.

    Raises:
        HeadStudioError: for another word.
    """
    params = motion.params
    if how not in ROOTS:
        raise HeadStudioError(f"root is {how!r}; expected one of {', '.join(ROOTS)}.")
    if how == "kept":
        return motion
    if how == "still":
        # A row for each frame: of some motions the root alone says how many there are.
        nowhere = params.translation.new_zeros(len(motion), 3)
        return _with_root(motion, params, nowhere, nowhere)
    turned = params.global_orient
    if torch.any(turned != 0):
        rotations = Rotation.from_rotvec(turned.double().cpu().numpy())
        back = rotations.mean().inv()
        turned = torch.from_numpy((back * rotations).as_rotvec()).to(turned)
        shift = params.translation.double().cpu().numpy()
        moved = torch.from_numpy(back.apply(shift)).to(turned)
    else:
        moved = params.translation
    return _with_root(motion, params, turned, moved - moved.mean(0, keepdim=True))


def _with_root(
    motion: Motion, params: FlameParams, orient: torch.Tensor, translation: torch.Tensor
) -> Motion:
    return replace(motion, params=params.replace(global_orient=orient, translation=translation))
