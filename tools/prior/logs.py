"""What a run leaves to look at: tables of figures, curves, and a line on the terminal."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure

from headstudio.paths import atomic_write

Row: TypeAlias = dict[str, float]
_START = time.monotonic()


def say(message: str) -> None:
    """Print a line with the seconds since the program started."""
    print(f"[{time.monotonic() - _START:7.1f} s] {message}", flush=True)


def describe(row: Row) -> str:
    """``name value`` pairs on one line, attributes' own accuracies left out."""
    return "  ".join(f"{k} {v:.4g}" for k, v in row.items() if "/" not in k)


def write_csv(path: Path, rows: list[Row]) -> None:
    """All rows as one table; a figure that a row lacks is left empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)


def _series(rows: list[Row], key: str) -> tuple[list[float], list[float]]:
    points = [(row["step"], row[key]) for row in rows if key in row]
    return [p[0] for p in points], [p[1] for p in points]


def write_curves(path: Path, tables: dict[str, list[Row]]) -> None:
    """One picture with every loss over the steps and every attribute's accuracy.

    Args:
        path: a .png.
        tables: rows by phase; keys with a slash are accuracies ("text/skin").
    """
    panels = []
    for phase, rows in tables.items():
        keys = list(dict.fromkeys(key for row in rows for key in row))
        plain = [k for k in keys if "/" not in k and k not in ("step", "seconds")]
        panels += [(phase, rows, [k]) for k in plain]
        accuracies = [k for k in keys if "/" in k]
        if accuracies:
            panels.append((phase, rows, accuracies))
    if not panels:
        return
    columns = 4
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * lines), dpi=70, layout="constrained")
    for i, (phase, rows, keys) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, i + 1)
        for key in keys:
            axes.plot(*_series(rows, key), label=key.rpartition("/")[2])
        title = keys[0] if len(keys) == 1 else keys[0].rpartition("/")[0] + " accuracy"
        axes.set_title(f"{phase}: {title}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        values = [v for k in keys for v in _series(rows, k)[1]]
        if "loss" in keys[0] and min(values) > 0:
            axes.set_yscale("log")
        if len(keys) > 1:
            axes.legend(fontsize=5, ncols=2)
    with atomic_write(path) as temporary:
        figure.savefig(temporary)
