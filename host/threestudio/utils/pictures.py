"""From numbers to pictures: uint8 [H, W, 3], RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from threestudio.utils.errors import UserError
from threestudio.utils.files import atomic_write

RGB_DEFAULTS: dict[str, Any] = {"data_format": "HWC", "data_range": (0, 1)}
UV_DEFAULTS: dict[str, Any] = {**RGB_DEFAULTS, "cmap": "checkerboard"}
GRAYSCALE_DEFAULTS: dict[str, Any] = {"data_range": None, "cmap": "jet"}
GRID_DEFAULTS: dict[str, Any] = {"align": "max"}

CHECKERS = 64
CHECKER_COLOUR = (255, 0, 255)


def _unit(values: np.ndarray, data_range: Sequence[float]) -> np.ndarray:
    """Map a range to [0, 1], what lies outside to its ends."""
    low, high = data_range
    return np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)


def _bytes(unit: np.ndarray) -> np.ndarray:
    return (unit * 255.0).astype(np.uint8)


def _channels_last(img: np.ndarray, data_format: str) -> np.ndarray:
    if data_format not in ("HWC", "CHW"):
        raise ValueError(f"data_format is HWC or CHW, not {data_format!r}")
    return img.transpose(1, 2, 0) if data_format == "CHW" else img


def rgb(img: np.ndarray, data_format: str, data_range: Sequence[float]) -> np.ndarray:
    """Colours. More than three channels become pictures side by side, the last padded black."""
    img = _channels_last(img, data_format)
    if img.dtype != np.uint8:
        img = _bytes(_unit(img, data_range))
    padding = -img.shape[-1] % 3
    img = np.pad(img, ((0, 0), (0, 0), (0, padding)))
    return np.concatenate(np.split(img, img.shape[-1] // 3, axis=-1), axis=1)


def grayscale(img: np.ndarray, data_range: Sequence[float] | None, cmap: str | None) -> np.ndarray:
    """One channel [H, W] in a colour map."""
    img = np.nan_to_num(img.astype(np.float32))
    unit = _unit(img, (img.min(), img.max()) if data_range is None else data_range)
    if cmap is None:
        return np.repeat(_bytes(unit)[..., None], 3, axis=-1)
    if cmap == "jet":
        return cv2.cvtColor(cv2.applyColorMap(_bytes(unit), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    if cmap not in ("magma", "spectral"):
        raise ValueError(f"cmap is None, jet, magma or spectral, not {cmap!r}")
    from matplotlib import colormaps

    table = colormaps["magma_r" if cmap == "magma" else "Spectral"]
    return _bytes(table(unit)[..., :3])


def uv(img: np.ndarray, data_format: str, data_range: Sequence[float], cmap: str) -> np.ndarray:
    """Texture coordinates [H, W, 2] as a checkerboard, or as red and green."""
    unit = _unit(_channels_last(img, data_format), data_range)
    if cmap == "color":
        return np.concatenate([_bytes(unit), np.zeros_like(_bytes(unit[..., :1]))], axis=-1)
    if cmap != "checkerboard":
        raise ValueError(f"cmap is checkerboard or color, not {cmap!r}")
    even = (unit * CHECKERS).astype(int).sum(-1, keepdims=True) % 2 == 0
    return np.where(even, CHECKER_COLOUR, 255).astype(np.uint8)


def grid(imgs: Sequence[Any], align: Any, convert: Callable[[Any], Any]) -> np.ndarray:
    """Pictures side by side, or rows of them one below the other (see ``save_image_grid``)."""
    if isinstance(imgs[0], (list, tuple)):
        rows = [grid(row, align, convert) for row in imgs]
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
        return np.concatenate(rows, axis=0)
    makers: dict[str, tuple[Callable[..., np.ndarray], dict[str, Any]]] = {
        "rgb": (rgb, RGB_DEFAULTS),
        "uv": (uv, UV_DEFAULTS),
        "grayscale": (grayscale, GRAYSCALE_DEFAULTS),
    }
    columns = []
    for column in imgs:
        if column["type"] not in makers:
            raise ValueError(f"a picture's type is rgb, uv or grayscale, not {column['type']!r}")
        maker, defaults = makers[column["type"]]
        columns.append(maker(convert(column["img"]), **{**defaults, **column.get("kwargs", {})}))
    height, width = _cell_size(columns, align)
    return np.concatenate(
        [c if c.shape[:2] == (height, width) else cv2.resize(c, (width, height)) for c in columns],
        axis=1,
    )


def _cell_size(columns: Sequence[np.ndarray], align: Any) -> tuple[int, int]:
    if align in ("max", "min"):
        pick = max if align == "max" else min
        return pick(c.shape[0] for c in columns), pick(c.shape[1] for c in columns)
    if isinstance(align, int):
        return align, align
    if isinstance(align, (tuple, list)) and len(align) == 2:
        return int(align[0]), int(align[1])
    raise ValueError(f"align is max, min, a size or (height, width), not {align!r}")


def write_texts(img: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Write lines on a picture, evenly spread from top to bottom, black with a white rim."""
    image = Image.fromarray(img)
    draw = ImageDraw.Draw(image)
    for i, text in enumerate(texts):
        draw.text(
            (1, image.height // len(texts) * i + 1),
            text,
            "black",
            stroke_width=1,
            stroke_fill="white",
        )
    return np.asarray(image)


def write(path: str, img: np.ndarray) -> None:
    """Write a picture, in the format of the suffix: [H, W], [H, W, 3] or [H, W, 4], RGB(A)."""
    if img.ndim == 3 and img.shape[-1] == 3:
        img = cv2.cvtColor(img, cv2.COLOR_RGB2BGR)
    elif img.ndim == 3 and img.shape[-1] == 4:
        img = cv2.cvtColor(img, cv2.COLOR_RGBA2BGRA)
    encoded, data = cv2.imencode(Path(path).suffix, img)
    if not encoded:
        raise UserError(f"{path}: the picture could not be encoded")
    with atomic_write(path) as temporary:
        Path(temporary).write_bytes(data.tobytes())


def read(path: str | Path) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3], RGB."""
    img = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if img is None:
        raise UserError(f"{path} cannot be read as a picture")
    return cv2.cvtColor(img, cv2.COLOR_BGR2RGB)
