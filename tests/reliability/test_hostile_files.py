"""Files made to do harm, against every reader: nothing runs, and memory is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.hostile_files import CANARY, CASES, REPOSITORY

PYTHONPATH = os.pathsep.join(
    str(REPOSITORY / place) for place in (".", "custom/threestudio-headstudio", "host")
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each file did, tried in a process that may take a GiB and start nothing."""
    folder = tmp_path_factory.mktemp("hostile") / "work"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.hostile_files", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Neither in its working directory, nor beside it, nor in the repository.
    for place in (folder, folder.parent, REPOSITORY):
        assert not [path for path in place.glob("*") if path.name in (CANARY, "x.npy")]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {outcome["name"]: outcome for outcome in found}


@pytest.mark.parametrize("name", CASES)
def test_nothing_happens(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome, case = outcomes[name], CASES[name]
    assert not outcome["finding"], outcome["trace"]
    # An embedding that cannot be read is made again, without a word.
    assert outcome["refused"] == bool(case.says)
    assert case.says in outcome["said"]


def test_the_watch_would_notice(tmp_path: Path) -> None:
    """The hook and the limit do bite."""
    script = (
        "import os, sys, resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    print('bounded')\n"
        "def watch(event, arguments):\n"
        "    if event == 'os.system':\n        raise RuntimeError('watched')\n"
        "sys.addaudithook(watch)\n"
        "import pickle\n"
        "try:\n    pickle.loads(b'cos\\nsystem\\n(S\\'touch canary\\'\\ntR.')\n"
        "except RuntimeError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["bounded", "watched"]
    assert not (tmp_path / CANARY).exists()
