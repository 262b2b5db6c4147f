"""Results put together: means, a table, a sheet of pictures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstudio.render.pictures import label_strip, over, tile

Result = Mapping[str, Any]

#: Heading, where the figure is in a summary, format; a dash stands for what was not measured.
COLUMNS = (
    ("colours right", "colours_right", "{:.0%}"),
    ("PSNR dB", "psnr", "{:.1f}"),
    ("SSIM", "ssim", "{:.3f}"),
    ("perceptual", "perceptual", "{:.3f}"),
    ("mouth", "mouth", "{:.2f}"),
    ("lids", "lids", "{:.2f}"),
    ("talk", "talk", "{:.2f}"),
    ("floaters", "floaters", "{:.2%}"),
    ("holes", "holes", "{:.2%}"),
)


def named_colours(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Region and reading of each colour that was measured."""
    return [(region, read) for region, read in figures["colours"].items() if read is not None]


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """Means over results.

    ``colours_right`` is over all colours of all results, the others are means of the results'
    figures; None where nothing was measured. ``mouth`` and ``lids`` are ratios to the ground
    truth's.
    """

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    figures = [result["figures"] for result in results]
    read = [pair for one in figures for pair in named_colours(one)]
    regions = dict.fromkeys(region for region, _ in read)
    return {
        "avatars": len(results),
        "colours": len(read),
        "colours_right": mean([float(one["right"]) for _, one in read]),
        "colours_right_by_region": {
            region: mean([float(one["right"]) for r, one in read if r == region])
            for region in regions
        },
        **{
            key: mean([one[key] for one in figures])
            for key in ("psnr", "ssim", "perceptual", "floaters", "holes")
        },
        "mouth": mean([one["mouth"]["ratio"] for one in figures]),
        "lids": mean([one["lids"]["ratio"] for one in figures]),
        "talk": mean([one["talk"]["ours"] for one in figures]),
        "talk_of_the_truth": mean([one["talk"]["truth"] for one in figures]),
    }


def table(rows: Mapping[str, Mapping[str, Any]], first: str) -> str:
    """A Markdown table of summaries, one a row.

    Args:
        rows: by what stands in the first column.
        first: the heading of that column.
    """
    lines = [
        "| " + " | ".join([first, *(heading for heading, _, _ in COLUMNS)]) + " |",
        "|---" + "|---:" * len(COLUMNS) + "|",
    ]
    for name, summary in rows.items():
        cells = [
            "–" if summary[key] is None else form.format(summary[key]) for _, key, form in COLUMNS
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def benchmark_table(results: Sequence[Result]) -> str:
    """All results, the mean of each kind of prompt, and the mean of all."""
    rows = {f"{r['id']}, seed {r['seed']}": summarise([r]) for r in results}
    kinds = dict.fromkeys(r["kind"] for r in results)
    if len(kinds) > 1:
        rows |= {
            f"*{kind}*": summarise([r for r in results if r["kind"] == kind]) for kind in kinds
        }
    if len(results) > 1:
        rows["**all**"] = summarise(results)
    return table(rows, "prompt")


def strip(views: Tensor, text: str | None = None) -> Tensor:
    """Pictures ``[n, H, W, 3]`` side by side ``[H, n W, 3]``, with words below them."""
    row = tile(list(views), len(views), (1.0, 1.0, 1.0))
    return row if text is None else over(row, label_strip(text, *row.shape[:2]))


def words(text: str, height: int, width: int) -> Tensor:
    """A white cell ``[height, width, 3]`` with words at its lower edge."""
    return over(torch.ones(height, width, 3), label_strip(text, height, width))


def contact_row(prompt: str, ours: Tensor, truth: Tensor) -> Tensor:
    """A row of the contact sheet: prompt | ours | ground truth.

    Args:
        prompt: the sentence.
        ours, truth: ``[4, C, H, W, 3]``: poses, views from 8 sides.

    Returns:
        ``[H, 13 W, 3]``: the prompt, and of each the front, both oblique sides, the profile, the
        back, and the open jaw and the blink from the front, of ours and of the ground truth.
    """
    views = contact_views(ours), contact_views(truth)
    height, width = ours.shape[2:4]
    gap = torch.ones(height, max(2, width // 16), 3)
    return torch.cat([words(prompt, height, width), gap, views[0], gap, views[1]], dim=1)


def contact_views(rgb: Tensor) -> Tensor:
    """Six of the pictures ``[4, 8, H, W, 3]`` in a row: front, left oblique, left, back, neutral;
    open jaw and blink, front."""
    chosen = [rgb[0, 0], rgb[0, 1], rgb[0, 2], rgb[0, 4], rgb[1, 0], rgb[3, 0]]
    return strip(torch.stack(chosen))
