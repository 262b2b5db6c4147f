"""Which host the contract is held against.

By default the embedded one; ``HEADSTUDIO_HOST=/path/to/threestudio pytest tests/host_contract``
asks a checkout of threestudio.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GIVEN = os.environ.get("HEADSTUDIO_HOST")
HOST = Path(GIVEN).resolve() if GIVEN else REPOSITORY / "host"

sys.path[:0] = [str(HOST), str(Path(__file__).parent)]
if GIVEN and "threestudio" in sys.modules:
    raise pytest.UsageError(
        "threestudio was imported before HEADSTUDIO_HOST could be: run tests/host_contract alone"
    )


@pytest.fixture(scope="session")
def embedded() -> bool:
    """Whether the host is ours."""
    return GIVEN is None


@pytest.fixture(scope="session")
def launcher() -> Path:
    """The host's launch.py."""
    return HOST / "launch.py" if GIVEN else REPOSITORY / "launch.py"


@pytest.fixture
def registry():
    """The table of registered names, put back afterwards."""
    import threestudio

    before = dict(threestudio.__modules__)
    yield threestudio.__modules__
    threestudio.__modules__.clear()
    threestudio.__modules__.update(before)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with ``custom/`` that holds the toy extension."""
    extension = tmp_path / "custom" / "toy"
    extension.mkdir(parents=True)
    source = Path(__file__).with_name("toy_extension.py")
    (extension / "__init__.py").write_text(source.read_text())
    (tmp_path / "toy.yaml").write_text(source.with_name("toy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path
