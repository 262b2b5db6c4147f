"""Colours of characters, for a whole batch at once: layers of paint on the surface's splats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headstudio.characters.attributes import (
    BEARDS,
    Character,
    has_brows,
    has_mouth,
    option,
    option_index,
)

if TYPE_CHECKING:
    from headstudio.characters.build import CharacterStudio

_JITTER = 0.035  # standard deviation of a colour among those that share its name
_SCLERA = (0.95, 0.94, 0.93)
_TEETH = (0.96, 0.95, 0.90)
_TONGUE = (0.50, 0.17, 0.18)
_MOUTH = (0.15, 0.03, 0.04)
_SMOOTH_LIGHT = 1.0  # on skin where a mouth would be, that of the cheeks


def _rgb(characters: list[Character], attribute: str, device: torch.device) -> Tensor:
    """[P, 3] colours of an attribute, each with its character's own small shift."""
    salt = sum(map(ord, attribute))
    rows = []
    for c in characters:
        base = option(attribute, getattr(c, attribute)).rgb or (0.5, 0.5, 0.5)
        jitter = np.random.default_rng((c.seed, salt)).normal(0.0, _JITTER, 4)
        # Half of the shift is brightness, so that hues stay what their names say.
        rows.append(np.clip(np.array(base) * (1 + jitter[3]) + 0.5 * jitter[:3] * max(base), 0, 1))
    return torch.tensor(np.stack(rows), dtype=torch.float32, device=device)


def part_color(name: str, characters: list[Character], device: torch.device) -> Tensor:
    """Colour [P, 3] of the splats of an attached part before its own shades and tints."""
    attribute = {"hair": "hair_color", "beard": "beard_color", "brows": "brow_color"}.get(name)
    if attribute is None:
        return torch.ones(len(characters), 3, device=device)
    return _rgb(characters, attribute, device)


def _flag(values: list[bool | float], device: torch.device) -> Tensor:
    """[P, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def _over(color: Tensor, layer: Tensor, amount: Tensor) -> Tensor:
    """``layer`` [P or 1, 1 or n, 3] over ``color`` [P, n, 3] where ``amount`` [P or 1, n, 1]."""
    return color + (layer - color) * amount


def paint_surface(studio: CharacterStudio, characters: list[Character]) -> Tensor:
    """Colours [P, n, 3] of the surface's splats."""
    device = studio.device
    mask = {name: value[None, :, None] for name, value in studio.masks.items()}
    skin = _rgb(characters, "skin", device)[:, None]
    color = _skin(studio, characters, skin, mask)
    rgba = studio.paints[[option_index("paint", c.paint) for c in characters]]
    color = color * (1 - rgba[..., 3:]) + rgba[..., :3]
    color = _over(color, *_hair_on_skin(studio, characters, mask))
    brow = _rgb(characters, "brow_color", device)[:, None]
    browed = _flag([has_brows(c) for c in characters], device)
    strength = _flag([0.45 if c.gender == "woman" else 0.6 for c in characters], device)
    color = _over(color, brow * 0.85, mask["brows"] * browed * strength)
    mouthed = _flag([has_mouth(c) for c in characters], device)
    color = _lips(characters, color, skin, mask, mouthed)
    color = color * (1 - 0.75 * mask["lid_line"] * (1 - 0.3 * skin.mean(-1, keepdim=True)))
    color = _eyes(characters, color, mask, device)
    for name, rgb in (("teeth", _TEETH), ("tongue", _TONGUE), ("mouth", _MOUTH)):
        color = _over(color, color.new_tensor(rgb) * mouthed + skin * (1 - mouthed), mask[name])
    return (color * _light(studio, skin, mouthed, mask)).clamp(0, 1)


def _light(
    studio: CharacterStudio, skin: Tensor, mouthed: Tensor, mask: dict[str, Tensor]
) -> Tensor:
    # Where there is no mouth, neither do lips cast a shadow nor is it dark within.
    smooth = torch.maximum(mask["around_mouth"], 1 - mask["skin"]) * (1 - mask["eye_white"])
    light = studio.light[None, :, None]
    light = light + (_SMOOTH_LIGHT - light) * (1 - mouthed) * smooth
    # On dark colours the same light looks flat, on light ones harsh: bend it a little.
    bent = light ** (1.25 - 0.45 * skin.mean(-1, keepdim=True))
    return torch.where(mask["skin"] > 0.5, bent, light)


def _skin(
    studio: CharacterStudio, characters: list[Character], skin: Tensor, mask: dict[str, Tensor]
) -> Tensor:
    device = studio.device
    rngs = [np.random.default_rng((c.seed, 7)) for c in characters]
    weights = torch.tensor(
        np.stack([rng.normal(0, [0.006, 0.007, 0.007]) for rng in rngs]), dtype=torch.float32
    ).to(device)
    blotch = torch.einsum("pk,kn->pn", weights, studio.noise)[..., None]
    color = skin * (1 + blotch)
    warm = skin * skin.new_tensor([1.04, 0.80, 0.76])
    blush = _flag([0.35 if c.gender == "woman" else 0.22 for c in characters], device)
    color = _over(color, warm, mask["blush"] * blush)
    freckled = _flag([float(rng.random() < 0.12) for rng in rngs], device)
    spots = ((studio.noise[2] - 1.2) * 3).clamp(0, 1)[None, :, None] * mask["blush"]
    color = color * (1 - 0.25 * freckled * spots)
    old = _flag([{"old": 1.0, "adult": 0.15}.get(c.age, 0.0) for c in characters], device)
    color = color * (1 - 0.42 * old * mask["wrinkles"])
    socket = _flag([0.20 if c.age == "old" else 0.10 for c in characters], device)
    return color * (1 - socket * mask["eye_socket"])


def _hair_on_skin(
    studio: CharacterStudio, characters: list[Character], mask: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Colour and amount of what lies under hair and beard, so that no skin shines through."""
    device = studio.device
    hair = _rgb(characters, "hair_color", device)[:, None] * 0.62
    styles = [option_index("hair_style", c.hair_style) for c in characters]
    scalp = studio.hair_coverage[styles][..., None]
    shaved = _flag([c.hair_style in ("mohawk", "balding") for c in characters], device)
    beard = _rgb(characters, "beard_color", device)[:, None] * 0.7
    strength = {"none": 0.0, "stubble": 0.35, "moustache": 0.8, "goatee": 0.8, "full": 0.85}
    areas = torch.stack(
        [
            mask[f"beard {o.name if o.name in ('moustache', 'goatee') else 'full'}"][0]
            * strength.get(o.name, 0.85)
            for o in BEARDS
        ]
    )
    bearded = areas[[option_index("beard", c.beard) for c in characters]] * mask["skin"]
    side = torch.tensor([c.hair_style == "mohawk" for c in characters], device=device)
    stubble = 0.22 * shaved * side[:, None, None] * mask["scalp"]
    on_head = torch.maximum(scalp, stubble)
    is_beard = (bearded > on_head).float()
    return hair + (beard - hair) * is_beard, torch.maximum(on_head, bearded)


def _lips(
    characters: list[Character],
    color: Tensor,
    skin: Tensor,
    mask: dict[str, Tensor],
    mouthed: Tensor,
) -> Tensor:
    device = color.device
    natural = _flag([c.lips == "natural" for c in characters], device)
    plain = _flag([c.archetype in ("robot", "statue", "skeleton") for c in characters], device)
    own = skin * skin.new_tensor([0.92, 0.66, 0.66])
    own = own + (skin * 0.88 - own) * plain
    lips = own * natural + _rgb(characters, "lips", device)[:, None] * (1 - natural)
    hidden = _flag([c.paint == "skull" and c.lips == "natural" for c in characters], device)
    shown = mouthed * (1 - hidden) * (0.85 + 0.15 * (1 - natural))
    color = _over(color, lips, mask["lips"] * shown)
    return color * (1 - 0.55 * mouthed * mask["mouth_line"])


def _eyes(
    characters: list[Character], color: Tensor, mask: dict[str, Tensor], device: torch.device
) -> Tensor:
    iris = _rgb(characters, "eyes", device)[:, None]
    dark = _flag(
        [c.eyes == "black" and c.archetype in ("alien", "skeleton") for c in characters], device
    )
    blank = _flag([c.eyes == "white" for c in characters], device)
    color = _over(color, color.new_tensor(_SCLERA) * (1 - 0.96 * dark), mask["eye_white"])
    color = _over(color, iris, mask["iris"])
    color = color * (1 - mask["limbus"] * (0.55 - 0.30 * blank))
    color = _over(color, color.new_tensor([0.02, 0.02, 0.02]), mask["pupil"] * (1 - 0.75 * blank))
    return _over(color, color.new_tensor([1.0, 1.0, 1.0]), 0.9 * mask["highlight"])
