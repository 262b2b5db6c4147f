"""Figures of a prior's samples put together: shares, a table, a sheet of pictures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstudio.evaluation.openings import correlation
from headstudio.evaluation.regions import COLOUR_OF
from headstudio.evaluation.summary import words
from headstudio.render.pictures import tile

#: Names the ground truth after the prior's autoencoder, and the ground truth itself.
AUTOENCODER, RENDERED = "autoencoder", "rendered"
SHOWN = 24  # captions on the sheet
_COLUMNS = 2  # of captions on it
_WORDS_WIDTH = 3  # of the cell of words, in pictures
_LEAST_SERIES = 3  # pictures for a correlation


def summarise(results: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Shares and correlations over captions.

    Args:
        results: records as ``results/<index>.json`` holds them.
        name: whose figures: a guidance, :data:`AUTOENCODER` or :data:`RENDERED`.

    Returns:
        For ``colours`` over all regions and for each region ``[right, measured]``, how many are
        too small (``unseen``), and for mouth and lids how the visible opening goes with the driven.
    """
    figures = [result["figures"][name] for result in results]
    pairs = [(region, read) for one in figures for region, read in one["colours"].items()]
    read = [(region, one) for region, one in pairs if one is not None]
    return {
        "captions": len(results),
        "colours": _count([one for _, one in read]),
        "by_region": {
            region: _count([one for r, one in read if r == region]) for region in COLOUR_OF
        },
        "unseen": len(pairs) - len(read),
        "delta_e": statistics.median([one["delta_e"] for _, one in read]) if read else None,
        **{
            part: _agreement(
                [result["driven"][part] for result in results],
                [one["opened"][part] for one in figures],
            )
            for part in ("mouth", "lids")
        },
    }


def _count(read: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many readings are right, and how many there are."""
    return [sum(bool(one["right"]) for one in read), len(read)]


def _agreement(driven: list[float | None], seen: list[float | None]) -> dict[str, Any]:
    """Pearson's correlation of openings, over the pictures that have both."""
    both = [(a, b) for a, b in zip(driven, seen, strict=True) if a is not None and b is not None]
    if len(both) < _LEAST_SERIES:
        return {"correlation": None, "pictures": len(both)}
    a, b = torch.tensor(both).unbind(1)
    return {"correlation": correlation(a, b), "pictures": len(both)}


def _share(count: Sequence[int]) -> str:
    right, measured = count
    return f"{right / measured:.1%} ({right}/{measured})" if measured else "–"


def colours_share(summary: Mapping[str, Any]) -> str:
    """The share of colours that are right, with its counts."""
    return _share(summary["colours"])


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table: a figure a row, a column for each of the summaries."""
    plain = (AUTOENCODER, RENDERED)
    heads = [name if name in plain else f"guidance {name}" for name in summaries]
    rows = [["named colours right", *(f"**{colours_share(s)}**" for s in summaries.values())]]
    for region in COLOUR_OF:
        rows.append([region, *(_share(s["by_region"][region]) for s in summaries.values())])
    for part in ("mouth", "lids"):
        cells = []
        for one in (s[part] for s in summaries.values()):
            told = "–" if one["correlation"] is None else f"{one['correlation']:.2f}"
            cells.append(f"{told} ({one['pictures']})")
        rows.append([f"{part} opening, correlation", *cells])
    lines = [["", *heads], ["---", *["---:"] * len(heads)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def reading(name: str, figures: Mapping[str, Any]) -> str:
    """What was read from a sample, in short: each region that is right, wrong, or not measured."""
    parts = []
    for region, one in figures["colours"].items():
        if one is None:
            parts.append(f"{region} unseen")
        else:
            parts.append(f"{region} ok" if one["right"] else f"{region} {one['read'].upper()}")
    return f"{name}: {', '.join(parts)}"


def sheet_row(lines: Sequence[str], pictures: Sequence[Tensor]) -> Tensor:
    """A row of the contact sheet: words | pictures.

    Args:
        lines: one below the other in a cell.
        pictures: ``[H, W, 3]`` each.
    """
    height, width = pictures[0].shape[:2]
    cells = [words(line, height // len(lines), _WORDS_WIDTH * width) for line in lines]
    left = torch.cat(cells)
    rest = torch.ones(height - len(left), left.shape[1], 3)
    return torch.cat([torch.cat([left, rest]), *pictures], dim=1)


def sheet(rows: Sequence[Tensor]) -> Tensor:
    """Rows of one size in two columns."""
    return tile(list(rows), min(_COLUMNS, len(rows)), (1.0, 1.0, 1.0))
