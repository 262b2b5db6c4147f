"""Tests that run side by side share the machine's cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _workers > 1:
    # Before PyTorch is imported, and for the processes that tests start: two that each take all
    # cores wait for one another most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))

# The longest files, longest first.
_LONGEST = (
    "host_contract/test_host_ranks.py",
    "app/test_view_browser.py",
    "tools/test_prior_training.py",
    "reliability/test_going_on.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, that no worker waits at the end for another to finish one.

    The sort is stable: tests of a file stay together and in their order.
    """
    places = {Path(__file__).parent / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
