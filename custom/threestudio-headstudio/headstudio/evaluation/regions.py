"""Which pixels of a character show its skin, its hair, its lips …

A splat belongs to the region whose attribute decides its colour. That is found by trying: the
character is built with two options of an attribute, and what changes by (nearly) the difference of
the two colours is the attribute's. So paint is not skin, a golden crown is not hair, and stubble,
half beard and half skin, is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headstudio.characters import ATTRIBUTES, Character, CharacterStudio, has_mouth, option
from headstudio.errors import HeadStudioError

#: The attribute that colours a region.
COLOUR_OF = {
    "skin": "skin",
    "hair": "hair_color",
    "lips": "lips",
    "eyes": "eyes",
    "brows": "brow_color",
    "beard": "beard_color",
}
_EYE_PARTS = ("eye_white", "pupil")
#: Parts whose colour no word decides, as CharacterStudio.masks names them.
PARTS = (*_EYE_PARTS, "mouth", "teeth", "tongue")
LABELS = ("other", *COLOUR_OF, *PARTS)

# Two options whose colours differ much and that mean nothing else ("white" eyes have no pupils).
_PROBES = dict.fromkeys(COLOUR_OF, ("black", "white")) | {"eyes": ("red", "green")}
_RESPONSE = 0.4  # of the colours' difference; shading and shadows take up to a half of it
_SHARE = 0.6  # of a pixel that has to be of one label
_COVERED = 0.9  # opacity that a labelled pixel has at least


def label(name: str) -> int:
    """The number of a label."""
    return LABELS.index(name)


def recoloured(character: Character, region: str, name: str) -> Character:
    """The same character with another option of the attribute that colours a region."""
    changes: dict[str, Any] = {COLOUR_OF[region]: name}
    return replace(character, **changes)


def label_splats(studio: CharacterStudio, character: Character) -> Tensor:
    """The label of each splat of a character, ``[N]`` int64, indices into :data:`LABELS`.

    N counts the splats that the character uses, as ``SplatBatch.splats`` leaves them.
    """
    mouth = has_mouth(character)
    regions = [region for region in COLOUR_OF if mouth or region != "lips"]
    response, used = _responses(studio, character, regions)
    strongest, which = response.max(0)
    numbers = torch.tensor([label(name) for name in regions], device=which.device)
    labels = torch.where(strongest >= _RESPONSE, numbers[which], torch.zeros_like(which))
    if mouth:  # natural lips follow the skin, and are lips all the same
        labels[response[regions.index("lips")] >= _RESPONSE] = label("lips")

    surface = len(studio.masks["skin"])  # the surface's splats come first
    # Without a mouth, what lies within is skin too.
    for part in PARTS if mouth else _EYE_PARTS:
        inside = studio.masks[part] > 0.5
        if part == "eye_white":
            inside = inside & (studio.masks["iris"] < 0.1)
        labels[:surface][inside] = label(part)
    return labels[used]


def _responses(
    studio: CharacterStudio, character: Character, regions: list[str]
) -> tuple[Tensor, Tensor]:
    """How far each splat's colour changes along the difference of two options of each region's
    attribute, ``[regions, N]``, 1 for all of it; and which splats the character uses, bool ``[N]``.
    """
    probed = [recoloured(character, region, name) for region in regions for name in _PROBES[region]]
    batch = studio.build(probed)
    pairs = batch.rgb.unflatten(0, (-1, 2))
    change = pairs[:, 1] - pairs[:, 0]
    expected = torch.stack([_rgb(r, _PROBES[r][1]) - _rgb(r, _PROBES[r][0]) for r in regions]).to(
        change
    )
    response = (change * expected[:, None]).sum(-1) / (expected**2).sum(-1, keepdim=True)
    return response, batch.opacities[0] > 0


def _rgb(region: str, name: str) -> Tensor:
    rgb = option(COLOUR_OF[region], name).rgb
    assert rgb is not None, (region, name)
    return torch.tensor(rgb)


def one_hot(labels: Tensor) -> Tensor:
    """``[N, len(LABELS)]`` for the renderer to blend."""
    return torch.nn.functional.one_hot(labels, len(LABELS)).float()


def label_pixels(shares: Tensor, alpha: Tensor) -> Tensor:
    """Blended one-hot labels to labels.

    Args:
        shares: ``[..., len(LABELS)]`` as rendered from :func:`one_hot`.
        alpha: ``[..., 1]``.

    Returns:
        ``[...]`` int64; 0 ("other") where nothing covers the pixel or no label has most of it.
    """
    most, which = shares.max(-1)
    sure = (most >= _SHARE) & (alpha[..., 0] >= _COVERED)
    return torch.where(sure, which, torch.zeros_like(which))


def named_options(region: str) -> list[str]:
    """The names of the colours a region can have, in the order of the attribute's table."""
    return [o.name for o in ATTRIBUTES[COLOUR_OF[region]] if o.rgb is not None]


def check_named(named: Mapping[str, str], character: Character) -> None:
    """Check that colours said of a character are its own.

    Raises:
        HeadStudioError: an unknown region, or a colour that the character does not have.
    """
    for region, name in named.items():
        if region not in COLOUR_OF:
            raise HeadStudioError(
                f"{region!r} is no region with a named colour; there are {', '.join(COLOUR_OF)}."
            )
        own = getattr(character, COLOUR_OF[region])
        if own != name:
            raise HeadStudioError(
                f"{region} is said to be {name!r}, but the character's is {own!r}."
            )
        if name not in named_options(region):
            raise HeadStudioError(
                f"{region} {name!r} is no colour; there are {', '.join(named_options(region))}."
            )
