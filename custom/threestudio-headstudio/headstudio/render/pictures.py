"""Pictures for the eye: colours by name, many pictures in one, words on them, PNG files.

A picture is ``[H, W, 3]`` or, with an opacity that is not multiplied in, ``[H, W, 4]``, in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from headstudio.errors import HeadStudioError
from headstudio.nearest import did_you_mean
from headstudio.paths import atomic_write


def parse_color(text: str) -> tuple[float, float, float]:
    """``"white"``, ``"#ffe0c0"``, ``"rgb(10, 20, 30)"`` … as RGB in 0..1.

    Raises:
        HeadStudioError: for anything that is neither one of CSS's names nor one of its notations,
            and for numbers that no colour has.
    """
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError:
        hint = did_you_mean(text.strip().lower(), ImageColor.colormap)
        raise HeadStudioError(
            f"{text!r} is not a colour; give a name as CSS has them (white, skyblue …) or "
            f"#rrggbb{hint}"
        ) from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise HeadStudioError(
            f"{text!r} is not a colour: its red, green and blue are {red}, {green} and {blue}; "
            "expected 0 to 255 each, or percentages up to 100%."
        )
    return red / 255, green / 255, blue / 255


def grid_columns(count: int, width: int, height: int) -> int:
    """In how many columns ``count`` pictures of this size make the grid that is nearest to 4:3."""

    def ill_fit(columns: int) -> tuple[float, int]:
        rows = math.ceil(count / columns)
        shape = columns * width / (rows * height)
        return abs(math.log(shape / (4 / 3))) + 0.5 * (rows * columns - count) / count, columns

    return min(range(1, count + 1), key=ill_fit)


def tile(pictures: Sequence[Tensor], columns: int, fill: Sequence[float]) -> Tensor:
    """Pictures of one size next to and below each other, row by row.

    Args:
        pictures: each ``[..., H, W, K]``.
        columns: in a row.
        fill: K values of the places that are left over in the last row.

    Returns:
        ``[..., rows * H, columns * W, K]``.
    """
    empty = pictures[0].new_tensor(list(fill)).expand_as(pictures[0])
    cells = [*pictures, *[empty] * (-len(pictures) % columns)]
    rows = [torch.cat(cells[at : at + columns], dim=-2) for at in range(0, len(cells), columns)]
    return torch.cat(rows, dim=-3)


def with_corner(pictures: Tensor, corner: Tensor) -> Tensor:
    """``pictures [B, H, W, 3]`` with ``corner [B, h, w, 3]`` in the lower right of each."""
    pictures = pictures.detach().clone()
    height, width = corner.shape[1:3]
    pictures[:, pictures.shape[1] - height :, pictures.shape[2] - width :] = corner
    return pictures


def label_strip(text: str, height: int, width: int) -> Tensor:
    """Words at the lower edge of an otherwise transparent picture ``[height, width, 4]``.

    White on a dark veil; broken into two lines at most, and cut with an ellipsis after that.
    """
    size = max(10, round(height / 26))
    font = ImageFont.load_default(size)
    picture = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    lines = _broken(text, lambda line: draw.textlength(line, font=font), width - size)
    top = height - round(1.3 * size * len(lines) + 0.4 * size)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0, 150))
    for number, line in enumerate(lines):
        at = ((width - draw.textlength(line, font=font)) / 2, top + (0.2 + 1.3 * number) * size)
        draw.text(at, line, font=font, fill=(255, 255, 255, 255))
    return torch.from_numpy(np.array(picture)).float() / 255


def _broken(text: str, length: Callable[[str], float], most: float, lines: int = 2) -> list[str]:
    """``text`` in at most so many lines, none longer than ``most`` by ``length``."""
    broken = [""]
    for word in text.split():
        longer = f"{broken[-1]} {word}".strip()
        if length(longer) <= most or not broken[-1]:
            broken[-1] = longer
        else:
            broken.append(word)
    if len(broken) > lines:
        broken[lines - 1] = " ".join(broken[lines - 1 :])
    broken = broken[:lines]
    if length(broken[-1]) > most:
        while broken[-1] and length(f"{broken[-1]}…") > most:
            broken[-1] = broken[-1][:-1].rstrip()
        broken[-1] += "…"
    return broken


def over(pictures: Tensor, overlay: Tensor) -> Tensor:
    """``overlay [H, W, 4]`` laid on ``pictures [..., H, W, 3 or 4]``."""
    overlay = overlay.to(pictures)
    color, alpha = overlay[..., :3], overlay[..., 3:]
    if pictures.shape[-1] == 3:
        return pictures * (1 - alpha) + color * alpha
    below = pictures[..., 3:] * (1 - alpha)
    opacity = alpha + below
    mixed = (color * alpha + pictures[..., :3] * below) / opacity.clamp(min=1e-6)
    return torch.cat([mixed, opacity], dim=-1)


def to_bytes(pictures: Tensor) -> np.ndarray:
    """Pictures of any leading shape as uint8, on the CPU."""
    clamped = pictures.detach().clamp(0, 1) * 255 + 0.5
    return np.ascontiguousarray(clamped.to(torch.uint8).cpu().numpy())


def save_png(path: str | Path, picture: Tensor | np.ndarray) -> None:
    """Write one picture ``[H, W, 3 or 4]``, at once or not at all."""
    array = picture if isinstance(picture, np.ndarray) else to_bytes(picture)
    with atomic_write(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
