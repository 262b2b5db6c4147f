"""What rendering does to the process it runs in."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys, torch
from headstudio.render import Cameras, render

torch.set_num_threads(1)
means = torch.zeros(1, 3, 3, requires_grad=True)
output = render(means, torch.ones(1, 3, 4), torch.full((1, 3, 3), 0.1), torch.full((3,), 0.5),
                torch.ones(3, 3), Cameras.orbit(0.0, 0.0, 2.0, 45.0, 16, 16))
output.rgb.sum().backward()
assert output.alpha.max() > 0.3
print(torch.get_num_threads(), "gsplat" in sys.modules)
"""


def test_the_cpu_leaves_threads_alone_and_gsplat_unimported() -> None:
    """numba's thread pool changes PyTorch's setting as it starts; gsplat may need a compiler."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1", "False"]
