"""Putting pictures together for the eye."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def _cell(image: Tensor) -> dict[str, Any]:
    """One picture ``[H, W, 3]`` of a grid, as threestudio's ``save_image_grid`` takes it."""
    return {"type": "rgb", "img": image, "kwargs": {"data_format": "HWC"}}


def view_rows(index: Tensor, *pictures: Tensor) -> dict[int, list[dict[str, Any]]]:
    """Rows of a grid by the index of the view.

    Args:
        index: ``[B]``; pictures: each ``[B, H, W, 3]``, side by side in a row.
    """
    return {
        view: [_cell(picture[row].detach().cpu()) for picture in pictures]
        for row, view in enumerate(index.reshape(-1).tolist())
    }


def preview_grid(rendered: Tensor, seen: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What a guidance was shown and made of it: a row for each view it reports on.

    Args:
        rendered: ``[B, H, W, 3]``.
        seen: pictures ``[b, h, w, 3]`` with b <= B by name (``imgs_noisy``, ``imgs_1step`` … from
            threestudio's own guidances); anything else in it is left out.
    """
    pictures = [value for value in seen.values() if isinstance(value, Tensor) and value.ndim == 4]
    size = rendered.shape[1:3]
    columns = [rendered] + [
        F.interpolate(picture.float().movedim(-1, 1), size, mode="bilinear").movedim(1, -1)
        for picture in pictures
    ]
    rows = min(len(column) for column in columns)
    return [[_cell(column[row].detach()) for column in columns] for row in range(rows)]
