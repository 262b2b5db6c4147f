"""threestudio's launcher, on a machine without a GPU: ``launch_on_cpu.py LAUNCH.PY [arguments]``.

The launcher asks Lightning for a GPU, and everything in threestudio for ``cuda:0``. Both are turned
to the CPU before it runs, and nothing else is.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch


def main() -> None:
    sys.argv = sys.argv[1:]
    launcher = sys.argv[0]
    sys.path[0] = str(Path(launcher).parent)
    if "--typecheck" in sys.argv:  # as the launcher does, which is too late after the next import
        from jaxtyping import install_import_hook

        install_import_hook("threestudio", "typeguard.typechecked")
    import threestudio  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.startswith("threestudio.") and hasattr(module, "get_device"):
            vars(module)["get_device"] = lambda: torch.device("cpu")
    trainer = pl.Trainer

    def on_the_cpu(**settings: Any) -> pl.Trainer:
        return trainer(**{**settings, "accelerator": "cpu", "devices": 1})

    vars(pl)["Trainer"] = on_the_cpu
    runpy.run_path(launcher, run_name="__main__")


if __name__ == "__main__":
    main()
