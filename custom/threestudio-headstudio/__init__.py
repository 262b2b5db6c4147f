"""What threestudio's launcher imports from ``custom/``: registers the classes of ``headstudio``."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).resolve().parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)

import headstudio.plugin  # noqa: E402, F401
