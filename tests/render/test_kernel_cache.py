"""Compiled kernels are kept, and thrown away once a source has changed that they are made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstudio.render import _jit

SOURCES = {
    "torch.py": "",  # it takes longer to import than a kernel to compile, and is not used here
    "numbers_.py": "N = 1\n",
    "helpers.py": """
from jit import helper

@helper()
def twice(x):
    return 2 * x
""",
    "kernels.py": """
import numba
from helpers import twice
from jit import kernel
from numbers_ import N

@kernel()
def fill(out):
    for i in numba.prange(len(out)):
        out[i] = twice(N)
""",
    "main.py": """
import numpy as np
from kernels import fill

out = np.zeros(2)
fill(out)
print(out[0], sum(fill.stats.cache_hits.values()))
""",
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A little renderer, with a kernel made of three files."""
    folder = tmp_path / "renderer"
    folder.mkdir()
    shutil.copy(_jit.__file__, folder / "jit.py")
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
    return folder


def run(folder: Path, cache: Path | None = None) -> tuple[float, int]:
    """In a process of its own: what the kernel makes, and how often it was found compiled."""
    environment = {key: x for key, x in os.environ.items() if not key.startswith("NUMBA_CACHE")}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-B", "main.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return float(value), int(hits)


def test_a_kernel_is_compiled_anew_when_a_constant_or_helper_elsewhere_changes(
    sources: Path,
) -> None:
    assert run(sources) == (2, 0)
    assert run(sources) == (2, 1)  # by another process
    assert list(sources.glob("__pycache__/*.nbi"))  # where install.sh looks for it
    (sources / "numbers_.py").write_text("N = 5\n")
    assert run(sources) == (10, 0)
    helpers = sources / "helpers.py"
    helpers.write_text(helpers.read_text().replace("2 * x", "3 * x"))
    assert run(sources) == (15, 0)


def test_kernels_are_kept_where_the_user_says(sources: Path, tmp_path: Path) -> None:
    assert run(sources, tmp_path / "mine") == (2, 0)
    assert list((tmp_path / "mine").rglob("*.nbi"))
    assert not (sources / "__pycache__").exists()
